package vdisk

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/venti/ventitest"
)

// TestFormats imports one disk from files of many formats: all have one score.
func TestFormats(t *testing.T) {
	need(t, "qemu-img")
	disk := gptDisk(t, extImage(t, 24*mib, tree(t, 1, 3*mib), "-t", "ext4"))
	st := ventitest.NewMemory()
	want := importFile(t, st, disk, ImportOptions{}).Score
	dir := t.TempDir()
	for _, c := range []struct {
		name, format string
		args         []string
		ask          string // a format to be given
	}{
		{"a.qcow2", "qcow2", nil, ""},
		{"v2.qcow2", "qcow2", []string{"-o", "compat=0.10"}, ""},
		{"packed.qcow2", "qcow2", []string{"-c"}, ""},
		{"zstd.qcow2", "qcow2", []string{"-c", "-o", "compression_type=zstd,cluster_size=16k"}, ""},
		{"sub.qcow2", "qcow2", []string{"-o", "extended_l2=on"}, ""},
		{"named.img", "qcow2", nil, "qcow2"},
		{"stream.vmdk", "vmdk", []string{"-o", "subformat=streamOptimized"}, ""},
		{"sparse.vmdk", "vmdk", nil, ""},
		{"flat.vmdk", "vmdk", []string{"-o", "subformat=monolithicFlat"}, "vmdk"},
		{"a.vhdx", "vhdx", nil, ""},
		{"a.vdi", "vdi", nil, ""},
		{"a.qed", "qed", nil, "qed"},
		{"a.raw", "raw", nil, ""},
	} {
		name := filepath.Join(dir, c.name)
		run(t, "", "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", c.format}, c.args...), disk, name)...)
		f, err := OpenFile(t.Context(), name, FileOptions{Format: c.ask, TempDir: t.TempDir()})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		res, err := Import(t.Context(), st, f, ImportOptions{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if res.Score != want {
			t.Errorf("%s: got %v, want %v", c.name, res.Score, want)
		} else if res.Total.Allocated > 36*mib && c.format != "vdi" {
			t.Errorf("%s: %d bytes were read", c.name, res.Total.Allocated)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	// An overlay of a packed image, with all the disk's changes in it.
	run(t, "", "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "packed.qcow2", filepath.Join(dir, "top.qcow2"))
	run(t, "", "qemu-io", "-f", "qcow2", "-c", "write -q -P 9 20M 1M", filepath.Join(dir, "top.qcow2"))
	changed := filepath.Join(dir, "changed.raw")
	run(t, "", "qemu-img", "convert", "-O", "raw", filepath.Join(dir, "top.qcow2"), changed)
	want = importFile(t, st, changed, ImportOptions{}).Score
	f, err := OpenFile(t.Context(), filepath.Join(dir, "top.qcow2"), FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if res, err := Import(t.Context(), st, f, ImportOptions{}); err != nil || res.Score != want {
		t.Errorf("overlay: got %+v, %v, want %v", res, err, want)
	}
}

func TestFormatsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ name, contents, format, want string }{
		{"a.raw", "QFI\xfb", "", "looks like a qcow2 image"},
		{"a.img", "KDMV", "", "looks like a vmdk image"},
		{"a", "# Disk DescriptorFile\nversion=1\n", "", "looks like a vmdk image"},
		{"b", "vhdxfile", "", "looks like a vhdx image"},
		{"c", "conectix", "", "looks like a vpc image"},
		{"d", "QED\x00", "", "looks like a qed image"},
		{"e", strings.Repeat("\x00", 64) + "\x7f\x10\xda\xbe\x00", "", "looks like a vdi image"},
		{"f.qcow2", "raw", "", "not a qcow2 image"},
		{"g.vmdk", "# Disk DescriptorFile\nRW 1 FLAT \"/etc/passwd\" 0\n", "", "not a sparse VMDK"},
		{"h", "", "qcow2,file.filename=/etc/passwd", "bad format"},
		{"i", "QFI\xfb", "raw", ""},
		{"none", "", "", "no such file"},
	} {
		name := filepath.Join(dir, c.name)
		if c.name != "none" {
			if err := os.WriteFile(name, []byte(c.contents), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f, err := OpenFile(t.Context(), name, FileOptions{Format: c.format})
		if err == nil {
			f.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	t.Setenv("PATH", "")
	if err := os.WriteFile(filepath.Join(dir, "a.vhdx"), bytes.Repeat([]byte{1}, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(t.Context(), filepath.Join(dir, "a.vhdx"), FileOptions{}); err == nil || !strings.Contains(err.Error(), "no qemu-img") {
		t.Errorf("without qemu-img: got %v", err)
	}
}

// TestExportQcow2 exports a disk as an image, which has the disk's score.
func TestExportQcow2(t *testing.T) {
	need(t, "qemu-img")
	disk := gptDisk(t, extImage(t, 24*mib, tree(t, 1, 3*mib), "-t", "ext4"))
	st := ventitest.NewMemory()
	res := importFile(t, st, disk, ImportOptions{})
	im, err := Open(t.Context(), st, res.Score)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "a.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte("what was there before"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := ExportQcow2(t.Context(), im, f, nil); err != nil {
		t.Fatal(err)
	}
	run(t, "", "qemu-img", "check", "-q", "-f", "qcow2", f.Name())
	run(t, "", "qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", f.Name(), exportFile(t, st, res.Score))
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got, most := fi.Size(), res.Total.New+res.Total.Shared+8*mib; got > most {
		t.Errorf("the image has %d bytes, at most %d", got, most)
	}
	src, err := OpenFile(t.Context(), f.Name(), FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if again, err := Import(t.Context(), st, src, ImportOptions{}); err != nil || again.Score != res.Score {
		t.Errorf("got %+v, %v, want %v", again, err, res.Score)
	}
	dev, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := ExportQcow2(t.Context(), im, dev, nil); err == nil {
		t.Error("exported into a device")
	}
}
