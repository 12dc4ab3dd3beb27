package paper

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"strata/vdisk"
)

const kib, mib = 1 << 10, 1 << 20

// random returns n bytes that no other seed has.
func random(seed, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], uint64(seed))
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// write makes a file of size bytes, zeros but for what parts hold at their offsets.
func write(t *testing.T, size int64, parts map[int64][]byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for off, b := range parts {
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// mbr returns a table of one partition, of Linux.
func mbr(start, sectors uint32) []byte {
	b := make([]byte, 512)
	b[446+4] = 0x83
	binary.LittleEndian.PutUint32(b[446+8:], start)
	binary.LittleEndian.PutUint32(b[446+12:], sectors)
	b[510], b[511] = 0x55, 0xaa
	return b
}

// TestTallies counts the blocks of disks whose contents are known.
func TestTallies(t *testing.T) {
	a, b := random(1, 64*kib), random(2, 64*kib)
	// The same 128 KiB twice on one disk, and once more a sector further on.
	twice := write(t, 4*mib, map[int64][]byte{mib: a, mib + 64*kib: b, 2 * mib: a, 2*mib + 64*kib: b})
	late := write(t, 4*mib, map[int64][]byte{mib + 512: a, mib + 64*kib + 512: b})
	for _, c := range []struct {
		name       string
		disks      []string
		size       int
		data, kept int64
	}{
		{"sectors", []string{twice}, 512, 256 * kib, 128 * kib},
		{"usual blocks", []string{twice}, 4 * kib, 256 * kib, 128 * kib},
		{"blocks of its own size", []string{twice}, 64 * kib, 256 * kib, 128 * kib},
		{"blocks that are mostly zeros", []string{twice}, mib, 2 * mib, mib},
		{"a sector further, sectors", []string{twice, late}, 512, 384 * kib, 128 * kib},
		{"a sector further", []string{twice, late}, 4 * kib, 388 * kib, 260 * kib},
	} {
		list, err := tallies(c.disks, whole)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range list {
			if got.size == c.size && (got.data != c.data || got.kept != c.kept) {
				t.Errorf("%s: %d bytes of data, %d kept; want %d and %d", c.name, got.data, got.kept, c.data, c.kept)
			}
		}
	}
}

// TestPartitionsAlign finds a partition again that lies elsewhere on its disk.
func TestPartitionsAlign(t *testing.T) {
	p := random(3, mib)
	disks := []string{
		write(t, 4*mib, map[int64][]byte{0: mbr(2048, 2048), mib: p}),
		write(t, 4*mib, map[int64][]byte{0: mbr(63, 2048), 63 * 512: p}),
	}
	for _, c := range []struct {
		name string
		cut  cutter
		kept int64
	}{
		{"whole", whole, 2*mib + 3*4*kib},       // the tables, and one more block of that which begins in the midst of one
		{"partitions", partitions, mib + 2*512}, // the tables
		{"allocated", allocated, mib + 2*512},   // nobody knows what is free
	} {
		list, err := tallies(disks, c.cut)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range list {
			if got.size == usualBlock && got.kept != c.kept {
				t.Errorf("%s: %d bytes kept, want %d", c.name, got.kept, c.kept)
			}
		}
	}
}

func in[T any](t *testing.T, name string, f func(vdisk.Source) (T, error)) T {
	t.Helper()
	var v T
	err := withDisk(name, func(src vdisk.Source) (err error) {
		v, err = f(src)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestBlocks compares disks of which one holds half of the other.
func TestBlocks(t *testing.T) {
	a, b := random(4, mib), random(5, mib)
	half := in(t, write(t, 4*mib, map[int64][]byte{0: a}), blocks)
	all := in(t, write(t, 4*mib, map[int64][]byte{0: b, mib: a}), blocks)
	for _, c := range []struct {
		name string
		got  int64
		want int64
	}{
		{"half", half.total(), mib}, {"all", all.total(), 2 * mib},
		{"half in all", half.in(all), mib}, {"all in half", all.in(half), mib}, {"all in itself", all.in(all), 2 * mib},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, c.got, c.want)
		}
	}
}

// TestFiles compares file systems by their files.
func TestFiles(t *testing.T) {
	disk := func(names map[string][]byte) (contents, int64) {
		t.Helper()
		tree := t.TempDir()
		for name, b := range names {
			if err := os.MkdirAll(filepath.Join(tree, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(tree, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Link(filepath.Join(tree, "usr/a"), filepath.Join(tree, "usr/link")); err != nil {
			t.Fatal(err)
		}
		img := filepath.Join(t.TempDir(), "disk")
		t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-d", tree, img, "16M").CombinedOutput(); err != nil {
			t.Skipf("mke2fs (package e2fsprogs): %v\n%s", err, out)
		}
		var dup int64
		c := in(t, img, func(src vdisk.Source) (c contents, err error) {
			c, dup, err = files(src)
			return c, err
		})
		return c, dup
	}
	a, b, c := random(6, 300*kib), random(7, 100*kib), random(8, 500*kib)
	one, dup := disk(map[string][]byte{"usr/a": a, "usr/lib/b": b, "usr/lib/copy": b, "boot/vmlinuz": c, "empty": nil})
	if one.total() != 500*kib || dup != 100*kib {
		t.Errorf("%d bytes in files, %d of them copies; want %d and %d", one.total(), dup, 500*kib, 100*kib)
	}
	two, dup := disk(map[string][]byte{"usr/a": c, "usr/other/name": a})
	if two.total() != 800*kib || dup != 0 {
		t.Errorf("%d bytes in files, %d of them copies; want %d and 0", two.total(), dup, 800*kib)
	}
	if got, want := alike(one, two), 600./1300; math.Abs(got-want) > 1e-9 {
		t.Errorf("they are alike by %v, want %v", got, want)
	}
	if got := alike(one, one); got != 1 {
		t.Errorf("one is like itself by %v", got)
	}
}
