package vdisk

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strata/venti"
)

// need returns the path of a program, or skips the test.
func need(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		p := filepath.Join(dir, name)
		if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return p
		}
	}
	t.Skipf("no %s on this machine", name)
	return ""
}

// run runs a program and returns what it prints. ok lists the exit statuses
// that are no failure, besides 0.
func run(t testing.TB, stdin string, prog string, args ...string) string {
	t.Helper()
	cmd := exec.Command(need(t, prog), args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", "E2FSPROGS_FAKE_TIME=1700000000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", prog, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// tree makes a directory of files in all sizes, with links.
func tree(t testing.TB, seed int64, total int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	rnd := rand.New(rand.NewSource(seed))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "etc", "deep", "er"), 0o755))
	for i := 0; total > 0; i++ {
		b := make([]byte, rnd.Intn(200000))
		rnd.Read(b)
		name := filepath.Join(dir, []string{"", "etc", "etc/deep", "etc/deep/er"}[i%4], fmt.Sprintf("f%03d", i))
		must(os.WriteFile(name, b, 0o644))
		total -= len(b)
	}
	must(os.WriteFile(filepath.Join(dir, "empty"), nil, 0o644))
	must(os.Symlink("etc/deep", filepath.Join(dir, "link")))
	must(os.WriteFile(filepath.Join(dir, "zeros"), make([]byte, 50000), 0o644))
	return dir
}

// sparse makes an empty file.
func sparse(t testing.TB, size int64) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "disk")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// extImage makes an ext file system of size bytes, filled from a tree, in
// which a file has been written and deleted again.
func extImage(t testing.TB, size int64, tree string, args ...string) string {
	t.Helper()
	need(t, "debugfs")
	img := sparse(t, size)
	args = append([]string{"-q", "-U", "6c9d8a3e-55f5-4c3e-8d5c-0d6f2f0b6a11", "-E", "hash_seed=6c9d8a3e-55f5-4c3e-8d5c-0d6f2f0b6a12",
		"-L", "root", "-d", tree}, args...)
	run(t, "", "mke2fs", append(args, img)...)
	garbage := filepath.Join(t.TempDir(), "garbage")
	b := make([]byte, size/16)
	rand.New(rand.NewSource(99)).Read(b)
	if err := os.WriteFile(garbage, b, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "write "+garbage+" garbage\nrm garbage\n", "debugfs", "-w", img)
	return img
}

// extFiles returns the SHA-1 of each file of an ext file system, after
// checking it with e2fsck.
func extFiles(t testing.TB, img string) map[string]string {
	t.Helper()
	run(t, "", "e2fsck", "-fn", img)
	dir := filepath.Join(t.TempDir(), "dump")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "rdump / "+dir+"\n", "debugfs", img)
	return treeFiles(t, dir)
}

func treeFiles(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if d.Type()&fs.ModeSymlink != 0 {
			files[rel], err = os.Readlink(p)
			return err
		}
		b, err := os.ReadFile(p)
		files[rel] = fmt.Sprintf("%x", sha1.Sum(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sameFiles(t testing.TB, got, want map[string]string) {
	t.Helper()
	if len(want) < 4 || len(got) != len(want) {
		t.Errorf("got %d files, want %d", len(got), len(want))
	}
	for name, sum := range want {
		if got[name] != sum {
			t.Errorf("%s: got %q, want %q", name, got[name], sum)
		}
	}
}

// place is a partition of a disk: what is in it, and where.
type place struct {
	img   string
	start int64 // sectors of 512 bytes
	kind  string
}

// partitioned makes a disk of size bytes with a partition table of the given
// label, gpt or dos.
func partitioned(t testing.TB, label string, size int64, places ...place) string {
	t.Helper()
	disk := sparse(t, size)
	script := "label: " + label + "\n"
	if label == "gpt" {
		script += "label-id: 11111111-2222-3333-4444-555555555555\n"
	} else {
		script += "label-id: 0x12345678\n"
	}
	for i, p := range places {
		fi, err := os.Stat(p.img)
		if err != nil {
			t.Fatal(err)
		}
		script += fmt.Sprintf("start=%d, size=%d, type=%s", p.start, fi.Size()/512, p.kind)
		if label == "gpt" {
			script += fmt.Sprintf(", uuid=11111111-2222-3333-4444-%012d", i)
		}
		script += "\n"
	}
	run(t, script, "sfdisk", "-q", disk)
	for _, p := range places {
		copyData(t, disk, p.start*512, p.img, 0, -1)
	}
	return disk
}

// copyData copies a range of a file, to its end if length is negative, into
// another one. The kernel does it, holes stay: a race detector that watches
// every byte would make the tests crawl.
func copyData(t testing.TB, to string, at int64, from string, start, length int64) {
	t.Helper()
	in, err := OpenDisk(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stop := in.Size()
	if length >= 0 {
		stop = min(stop, start+length)
	}
	for off := start; ; {
		first, end, err := in.NextData(off)
		if err == io.EOF || err == nil && first >= stop {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		end = min(end, stop)
		_, err1 := in.f.Seek(first, io.SeekStart)
		_, err2 := out.Seek(at+first-start, io.SeekStart)
		_, err3 := io.CopyN(out, in.f, end-first)
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		off = end
	}
}

// extract copies a part of a disk to a file of its own.
func extract(t testing.TB, disk string, start, length int64) string {
	t.Helper()
	img := sparse(t, length)
	copyData(t, img, 0, disk, start, length)
	return img
}

// importFile imports a disk in a file.
func importFile(t testing.TB, st venti.Store, name string, opt ImportOptions) *Result {
	t.Helper()
	d, err := OpenDisk(name)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	res, err := Import(t.Context(), st, d, opt)
	if err != nil {
		t.Fatal(err)
	}
	checkCounts(t, res)
	return res
}

// checkCounts checks what must hold for the counts of every import.
func checkCounts(t testing.TB, res *Result) {
	t.Helper()
	var sum Counts
	for i, r := range res.Regions {
		if l := res.Layout.Regions[i]; r.Name != l.Name || r.Size != l.Length {
			t.Errorf("counts of %s, %d bytes: the layout says %s, %d", r.Name, r.Size, l.Name, l.Length)
		}
		if r.Free+r.Zero > r.Allocated || r.Allocated > r.Size || r.New+r.Shared > r.Size {
			t.Errorf("counts of %s do not add up: %+v", r.Name, r)
		}
		if sum := r.Free + r.Zero + r.New + r.Shared; sum < r.Allocated || sum > r.Allocated+maxDSize {
			t.Errorf("counts of %s: %+v are %d bytes", r.Name, r, sum)
		}
		sum.add(r.Counts)
	}
	if sum != res.Total || sum.Size != res.Layout.Size {
		t.Errorf("total: got %+v, want %+v of %d", res.Total, sum, res.Layout.Size)
	}
}

// region returns the counts and layout of a region.
func (r *Result) region(t testing.TB, name string) (RegionCounts, Region) {
	t.Helper()
	for i, c := range r.Regions {
		if c.Name == name {
			return c, r.Layout.Regions[i]
		}
	}
	t.Fatalf("no region %s in %+v", name, r.Layout)
	return RegionCounts{}, Region{}
}

// exportFile exports an image to a new file.
func exportFile(t testing.TB, st venti.Store, score venti.Score) string {
	t.Helper()
	im, err := Open(t.Context(), st, score)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(t.TempDir(), "export")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	last := int64(0)
	err = Export(t.Context(), im, f, func(done int64) {
		if done < last || done > im.Size() {
			t.Errorf("progress goes from %d to %d of %d", last, done, im.Size())
		}
		last = done
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != im.Size() {
		t.Errorf("progress ends at %d of %d", last, im.Size())
	}
	return f.Name()
}

// sameBytes compares two files, with cmp.
func sameBytes(t testing.TB, what, gotName, wantName string) {
	t.Helper()
	if out, err := exec.Command(need(t, "cmp"), gotName, wantName).CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", what, err, out)
	}
}
