package vdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/vdisk/nbd"
	"strata/venti"
	"strata/venti/ventitest"
)

// TestExports opens disks by all names that they have.
func TestExports(t *testing.T) {
	st := ventitest.NewMemory()
	disk := gptDisk(t, extImage(t, 24*mib, tree(t, 1, 3*mib), "-t", "ext4"))
	res := importFile(t, st, disk, ImportOptions{Exact: true})
	want, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	im, err := Open(t.Context(), st, res.Score)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"web.vdisk":       "vdisk:" + res.Score.String() + "\n",
		"sub/day.vdisk":   res.Score.String(),
		"bad.vdisk":       "nothing",
		"gone.vdisk":      "vdisk:" + strings.Repeat("1", 40),
		"no-disk":         res.Score.String(),
		"wrong.vdisk":     "file:" + res.Score.String(),
		"dir.vdisk/x":     "",
		"sub/other.vdisk": "vdisk:" + res.Score.String(),
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "out.vdisk")); err != nil {
		t.Fatal(err)
	}
	tr, err := NewTree(st, TreeConfig{Files: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	x := tr.Exports()

	part, number := -1, ""
	for i, r := range im.layout.Regions {
		if r.Partition != nil {
			part, number = i, fmt.Sprint(r.Partition.Number)
			break
		}
	}
	if part < 0 {
		t.Fatal("the disk has no partition")
	}
	r := im.layout.Regions[part]
	score := res.Score.String()
	for _, c := range []struct {
		name string
		want []byte
	}{
		{"vdisk:" + score, want},
		{score, want},
		{"score/vdisk:" + score, want},
		{"score/" + score + "/disk", want},
		{"files/web.vdisk", want},
		{"files/sub/day.vdisk", want},
		{"files/sub/day.vdisk/disk", want},
		{score + "/parts/" + number, want[r.Start : r.Start+r.Length]},
		{"score/" + score + "/parts/" + number + "/data", want[r.Start : r.Start+r.Length]},
		{"files/web.vdisk/parts/" + number, want[r.Start : r.Start+r.Length]},
	} {
		e, err := x.Open(t.Context(), c.name)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !e.ReadOnly || e.Disk.Size() != int64(len(c.want)) {
			t.Errorf("%s: size %d, read-only %t", c.name, e.Disk.Size(), e.ReadOnly)
		}
		checkDisk(t, e.Disk, c.want)
	}
	for _, name := range []string{
		"", "web.vdisk", "score", "score/", "files", "files/", "files/no-disk", "files/bad.vdisk", "files/out.vdisk", "files/dir.vdisk",
		"files/none.vdisk", "files/../web.vdisk", "files//web.vdisk", "files/sub/../web.vdisk", strings.Repeat("1", 40),
		score + "/parts", score + "/parts/99", score + "/parts/" + number + "/info", score + "/info", "disk:" + strings.Repeat("1", 40),
	} {
		if _, err := x.Open(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: got %v", name, err)
		}
	}
	for _, name := range []string{"files/gone.vdisk", "files/wrong.vdisk", "file:" + score} {
		if _, err := x.Open(t.Context(), name); err == nil {
			t.Errorf("%q opens", name)
		}
	}
	list, err := x.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range list {
		names = append(names, l.Name)
	}
	if want := []string{"files/gone.vdisk", "files/sub/day.vdisk", "files/sub/other.vdisk", "files/web.vdisk", "files/wrong.vdisk"}; !slices.Equal(names, want) {
		t.Errorf("list: got %q, want %q", names, want)
	}
}

// checkDisk compares what a disk says with what is in it.
func checkDisk(t *testing.T, d nbd.Disk, want []byte) {
	t.Helper()
	rng := rand.New(rand.NewSource(3))
	for range 100 {
		off := rng.Intn(len(want))
		got := make([]byte, min(1+rng.Intn(100000), len(want)-off))
		if n, err := d.ReadAt(t.Context(), got, int64(off)); n != len(got) || err != nil && err != io.EOF {
			t.Fatalf("read %d at %d: got %d, %v", len(got), off, n, err)
		}
		if !bytes.Equal(got, want[off:off+len(got)]) {
			t.Fatalf("%d bytes at %d differ", len(got), off)
		}
		clear(got)
		if n, ok := d.(nbd.CachedReader).ReadCached(got, int64(off)); ok && !bytes.Equal(got[:n], want[off:off+len(got)]) {
			t.Fatalf("%d bytes from memory at %d differ", len(got), off)
		}
	}
	for off := int64(0); ; {
		start, end, err := d.(nbd.Finder).NextData(t.Context(), off)
		if err == io.EOF {
			start, end = int64(len(want)), 0
		} else if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want[off:start], make([]byte, start-off)) {
			t.Fatalf("hole at %d to %d is none", off, start)
		}
		if end == 0 {
			return
		}
		off = end
	}
}

// TestExportFails loses a block under an export.
func TestExportFails(t *testing.T) {
	st := ventitest.NewMemory()
	data := make([]byte, 300000)
	rand.New(rand.NewSource(1)).Read(data)
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
	res := importFile(t, st, name, ImportOptions{})
	tr, err := NewTree(st, TreeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	e, err := tr.Exports().Open(t.Context(), res.Score.String())
	if err != nil {
		t.Fatal(err)
	}
	st.Remove(venti.ScoreOf(data[4096:8192]), venti.DataType)
	if _, err := e.Disk.ReadAt(t.Context(), make([]byte, 1), 5000); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "venti i/o error") {
		t.Errorf("got %v", err)
	}
	if list, err := tr.Exports().List(context.Background()); len(list) != 0 || err != nil {
		t.Errorf("list without files: got %v, %v", list, err)
	}
}
