package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"strata/vdisk/qcow2"
)

// A rawFile is a raw disk.
type rawFile struct{ *os.File }

func openRaw(f *os.File) (qcow2.Layer, error) { return rawFile{f}, nil }

func (f rawFile) Size() int64 {
	fi, err := f.Stat()
	if err != nil {
		panic(err)
	}
	return fi.Size()
}

func (f rawFile) NextData(off int64) (start, end int64, err error) {
	if start, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err == nil {
		end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	}
	return start, end, err
}

func need(t testing.TB, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("no %s (package %s) to make images with", program, pkg)
	}
}

func run(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func open(t testing.TB, name string) *qcow2.Image {
	t.Helper()
	im, err := qcow2.Open(name, qcow2.Options{Raw: openRaw})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

// check compares an image with what its disk should be.
func check(t testing.TB, im *qcow2.Image, want []byte) {
	t.Helper()
	if im.Size() != int64(len(want)) {
		t.Fatalf("size: got %d, want %d", im.Size(), len(want))
	}
	got := make([]byte, len(want))
	if n, err := im.ReadAt(got, 0); n != len(got) || err != nil {
		t.Fatalf("read all: got %d, %v", n, err)
	}
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("byte %d is %d, want %d", i, got[i], want[i])
			}
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 30 {
		off := rng.IntN(len(want))
		p := make([]byte, rng.IntN(200000))
		n, err := im.ReadAt(p, int64(off))
		if n != min(len(p), len(want)-off) || (err == io.EOF) != (n < len(p)) || err != nil && err != io.EOF {
			t.Fatalf("read %d at %d: got %d, %v", len(p), off, n, err)
		}
		if !bytes.Equal(p[:n], want[off:off+n]) {
			t.Fatalf("%d bytes at %d differ", n, off)
		}
	}
	for off := int64(0); ; {
		start, end, err := im.NextData(off)
		if err == io.EOF {
			start, end = int64(len(want)), 0
		} else if err != nil {
			t.Fatal(err)
		} else if start < off || end <= start || end > int64(len(want)) {
			t.Fatalf("data after %d: got %d to %d", off, start, end)
		}
		if !bytes.Equal(want[off:start], make([]byte, start-off)) {
			t.Fatalf("hole at %d to %d is none", off, start)
		}
		if end == 0 {
			break
		}
		off = end
	}
	if err := im.Unchanged(); err != nil {
		t.Error(err)
	}
}

// scribble has qemu-io write to an image, and does the same to data.
func scribble(t testing.TB, name string, data []byte, seed uint64, zeros bool) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 5))
	args := []string{"-f", "qcow2"}
	for range 30 {
		off, n := rng.IntN(len(data)/512)*512, (1+rng.IntN(1<<rng.IntN(10)))*512
		n = min(n, len(data)-off)
		c := byte(1 + rng.IntN(255))
		switch {
		case zeros && rng.IntN(4) == 0:
			args = append(args, "-c", fmt.Sprintf("write -q -z %d %d", off, n))
			c = 0
		default:
			args = append(args, "-c", fmt.Sprintf("write -q -P %d %d %d", c, off, n))
		}
		copy(data[off:], bytes.Repeat([]byte{c}, n))
	}
	run(t, "qemu-io", append(args, name)...)
}

// TestPeer reads what QEMU makes, of every kind.
func TestPeer(t *testing.T) {
	need(t, "qemu-img", "qemu-utils")
	const size = 3<<20 + 512
	for _, c := range []struct{ name, options string }{
		{"v2", "compat=0.10"},
		{"v3", "compat=1.1"},
		{"small", "cluster_size=512"},
		{"small v2", "cluster_size=512,compat=0.10"},
		{"large", "cluster_size=2M"},
		{"lazy", "lazy_refcounts=on"},
		{"preallocated", "preallocation=metadata"},
		{"full", "preallocation=full"},
		{"extended", "extended_l2=on,cluster_size=128k"},
		{"extended small", "extended_l2=on,cluster_size=16k"},
		{"zstd", "compression_type=zstd"},
		{"refcounts", "refcount_bits=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			name := filepath.Join(dir, "a.qcow2")
			run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", c.options, name, fmt.Sprint(size))
			data := make([]byte, size)
			check(t, open(t, name), data)
			scribble(t, name, data, 1, !strings.Contains(c.options, "0.10"))
			check(t, open(t, name), data)

			// Compressed, with something written over it.
			packed := filepath.Join(dir, "packed.qcow2")
			options := strings.NewReplacer("preallocation=metadata", "cluster_size=64k", "preallocation=full", "cluster_size=64k").Replace(c.options)
			run(t, "qemu-img", "convert", "-c", "-O", "qcow2", "-o", options, name, packed)
			check(t, open(t, packed), data)
			scribble(t, packed, data, 2, false)
			check(t, open(t, packed), data)

			// A chain: a longer image upon it, another upon that, a snapshot inside.
			mid := filepath.Join(dir, "mid.qcow2")
			run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "packed.qcow2", "-o", options, mid, fmt.Sprint(size+1<<20))
			longer := append(bytes.Clone(data), make([]byte, 1<<20)...)
			scribble(t, mid, longer, 3, !strings.Contains(c.options, "0.10"))
			if !strings.Contains(c.options, "refcount_bits=1") {
				run(t, "qemu-img", "snapshot", "-c", "before", mid)
			}
			scribble(t, mid, longer, 4, false)
			check(t, open(t, mid), longer)
			top := filepath.Join(dir, "top.qcow2")
			run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", mid, top, fmt.Sprint(size/2/512*512))
			short := longer[:size/2/512*512]
			scribble(t, top, short, 5, true)
			check(t, open(t, top), short)
		})
	}
}

// TestRawBacking lies upon a raw disk that is shorter.
func TestRawBacking(t *testing.T) {
	need(t, "qemu-img", "qemu-utils")
	dir := t.TempDir()
	data := make([]byte, 1<<20)
	copy(data[300000:], bytes.Repeat([]byte("raw"), 100000))
	if err := os.WriteFile(filepath.Join(dir, "base.raw"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "top.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", name, "2M")
	data = append(data, make([]byte, 1<<20)...)
	scribble(t, name, data, 1, true)
	im := open(t, name)
	check(t, im, data)
	if err := os.Truncate(filepath.Join(dir, "base.raw"), 1000); err != nil {
		t.Fatal(err)
	}
	scribble(t, name, data, 2, true)
	if err := im.Unchanged(); err == nil || !strings.Contains(err.Error(), "was written to") {
		t.Errorf("a file that was written to: got %v", err)
	}
}

// TestConfined has images that name what is none of their business.
func TestConfined(t *testing.T) {
	need(t, "qemu-img", "qemu-utils")
	outside, dir := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, bytes.Repeat([]byte("secret!!"), 128), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "base"), make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("base", filepath.Join(dir, "near")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ backing, format, want string }{
		{"base", "raw", ""},
		{"near", "raw", ""},
		{filepath.Join(dir, "base"), "raw", ""},
		{"file:base", "raw", ""},
		{secret, "raw", "lies outside"},
		{rel, "raw", "lies outside"},
		{"link", "raw", "escapes"},
		{"pipe", "raw", "not a regular file"},
		{".", "raw", "not a regular file"},
		{"none", "raw", "no such file"},
		{"nbd://127.0.0.1/x", "raw", "not the name of a file"},
		{"json:{}", "raw", "not the name of a file"},
		{"base", "vmdk", "not supported"},
		{"base", "qcow2", "not a qcow2 image"},
		{"base", "", "does not say which format"},
		{"top.qcow2", "qcow2", "lies upon itself"},
	} {
		name := filepath.Join(dir, "top.qcow2")
		os.Remove(name)
		args := []string{"create", "-q", "-u", "-f", "qcow2", "-b", c.backing}
		if c.format == "" {
			// QEMU makes no such image any more.
			args = append(args, "-F", "raw", name, "1024")
			run(t, "qemu-img", args...)
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			b = bytes.Replace(b, []byte{0xe2, 0x79, 0x2a, 0xca}, []byte{0xe2, 0x79, 0x2a, 0xcb}, 1)
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			run(t, "qemu-img", append(args, "-F", c.format, name, "1024")...)
		}
		im, err := qcow2.Open(name, qcow2.Options{Raw: openRaw})
		if err == nil {
			im.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s of format %q: got %v, want %q", c.backing, c.format, err, c.want)
		}
		if c.backing == secret {
			im, err := qcow2.Open(name, qcow2.Options{Raw: openRaw, Backing: outside})
			if err != nil {
				t.Errorf("where it is allowed: %v", err)
				continue
			}
			im.Close()
		}
	}
}

// TestRefuses has headers that are not to be understood.
func TestRefuses(t *testing.T) {
	need(t, "qemu-img", "qemu-utils")
	name := filepath.Join(t.TempDir(), "a.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", name, "100k")
	run(t, "qemu-io", "-c", "write -q -P 7 0 2k", name)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   int
		b    []byte
		want string
	}{
		{0, []byte("X"), "not a qcow2 image"},
		{7, []byte{1}, "unknown version 1"},
		{7, []byte{4}, "unknown version 4"},
		{35, []byte{1}, "encrypted"},
		{79, []byte{2}, "marked as corrupt"},
		{79, []byte{4}, "another file"},
		{79, []byte{8}, "unknown compression 0"},
		{79, []byte{32}, "unknown feature (bit 5)"},
		{72, []byte{128}, "unknown feature (bit 63)"},
		{79, []byte{16}, "bad cluster"},
		{79, []byte{1}, ""}, // dirty
		{103, []byte{96}, "bad length 96"},
		{103, []byte{105}, "bad length 105"},
		{23, []byte{8}, "bad cluster"},
		{23, []byte{22}, "bad cluster"},
		{24, []byte{0xff}, "bad size"},
		{24, []byte{0, 0x10}, "table of"},
		{39, []byte{0}, "table of 0 entries"},
		{46, []byte{0xff, 1}, "its table is at"},
		{42, []byte{1}, "behind the end"},
	} {
		b := bytes.Clone(good)
		copy(b[c.at:], c.b)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		im, err := qcow2.Open(name, qcow2.Options{})
		if err == nil {
			im.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%d: got %v, want %q", c.at, err, c.want)
		}
	}
	if err := os.WriteFile(name, good[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := qcow2.Open(name, qcow2.Options{}); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("half a header: got %v", err)
	}
	if err := os.WriteFile(name, good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if im, err := qcow2.Open(name, qcow2.Options{}); err == nil {
		if _, err := im.ReadAt(make([]byte, im.Size()), 0); err == nil {
			t.Error("half an image reads")
		}
		im.Close()
	}
}
