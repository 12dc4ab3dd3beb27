package vmdk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strata/vdisk/internal/imagefile/imagefiletest"
)

// goldenDisk is what they hold: 200 KiB with A from 1 to 4 KiB, B from 130 to
// 131, C in the last.
func goldenDisk() []byte {
	b := make([]byte, 200<<10)
	for c, r := range map[byte][2]int{'A': {1, 4}, 'B': {130, 131}, 'C': {199, 200}} {
		for i := r[0] << 10; i < r[1]<<10; i++ {
			b[i] = c
		}
	}
	return b
}

// check compares an image with what its disk should be.
func check(t *testing.T, im *Image, want []byte) {
	t.Helper()
	if im.Size() != int64(len(want)) {
		t.Fatalf("size: got %d, want %d", im.Size(), len(want))
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 100 {
		off, n := rng.IntN(len(want)), rng.IntN(300000)
		if i == 0 {
			off, n = 0, len(want)+1
		}
		p := make([]byte, n)
		got, err := im.ReadAt(p, int64(off))
		if got != min(n, len(want)-off) || (err == io.EOF) != (got < n) || err != nil && err != io.EOF {
			t.Fatalf("read %d at %d: got %d, %v", n, off, got, err)
		}
		if !bytes.Equal(p[:got], want[off:off+got]) {
			t.Fatalf("%d bytes at %d differ", got, off)
		}
	}
	data := int64(0)
	for off := int64(0); ; {
		start, end, err := im.NextData(off)
		if err == io.EOF {
			start, end = int64(len(want)), 0
		} else if err != nil || start < off || end <= start || end > int64(len(want)) {
			t.Fatalf("data after %d: got %d to %d, %v", off, start, end, err)
		}
		if !bytes.Equal(want[off:start], make([]byte, start-off)) {
			t.Fatalf("hole at %d to %d is none", off, start)
		}
		if end == 0 {
			break
		}
		data += end - start
		off = end
	}
	if len(want) > 1<<20 && data > int64(len(want))/2 {
		t.Errorf("%d bytes of data in %d", data, len(want))
	}
	if err := im.Unchanged(); err != nil {
		t.Error(err)
	}
}

func TestGolden(t *testing.T) {
	for name, b := range imagefiletest.Golden(t, "vmdk") {
		im, err := newImage(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		check(t, im, goldenDisk())
	}
}

func run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

func TestPeer(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("no qemu-img (package qemu-utils) to make images with")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 34<<20+512) // more than one table
	for range 20 {
		off := rng.IntN(len(data) - 1<<20)
		for i := range rng.IntN(1 << 17) {
			data[off+i] = byte(rng.Uint32() & rng.Uint32())
		}
	}
	copy(data[len(data)-100:], "the end")
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"streamOptimized", "monolithicSparse"} {
		name := filepath.Join(dir, format+".vmdk")
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+format, raw, name)
		im, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		check(t, im, data)
		if err := os.Truncate(name, 1<<18); err != nil {
			t.Fatal(err)
		}
		if err := im.Unchanged(); err == nil {
			t.Error("a file that was cut off is unchanged")
		}
		im.Close()
		if im, err := Open(name); err == nil {
			if n, err := im.ReadAt(make([]byte, len(data)), 0); err == nil || err == io.EOF {
				t.Errorf("%s, cut off: got %d bytes, %v", format, n, err)
			}
			im.Close()
		}
	}
	delta, parts := filepath.Join(dir, "delta.vmdk"), filepath.Join(dir, "parts.vmdk")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, filepath.Join(dir, "base.vmdk"))
	run(t, "qemu-img", "create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", filepath.Join(dir, "base.vmdk"), delta)
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", raw, parts)
	for name, want := range map[string]string{delta: "difference to another disk", parts: "not a sparse VMDK", raw: "not a sparse VMDK", dir: "not a regular file"} {
		im, err := Open(name)
		if err == nil {
			im.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

func TestRefuses(t *testing.T) {
	good := imagefiletest.Golden(t, "vmdk")["monolithicSparse"]
	for _, c := range []struct {
		at   int
		b    []byte
		want string
	}{
		{0, []byte("X"), "not a sparse VMDK"},
		{4, []byte{4}, "unknown version 4"},
		{4, []byte{0}, "unknown version 0"},
		{18, []byte{0xff}, "bad size"},
		{20, []byte{3}, "bad grain"},
		{20, []byte{0}, "bad grain"},
		{24, []byte{1}, "bad grain"},
		{28, []byte{0xff, 0xff, 0xff}, "place of the descriptor"},
		{44, []byte{1}, "tables of"},
		{56, []byte{0xff, 0xff}, "behind the end"},
		{56, bytes.Repeat([]byte{0xff}, 8), "no footer"},
		{76, []byte{'\r'}, "line ends"},
		{77, []byte{1}, "unknown compression 1"},
	} {
		b := bytes.Clone(good)
		copy(b[c.at:], c.b)
		if _, err := newImage(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d: got %v, want %q", c.at, err, c.want)
		}
	}
	// A grain that says that it is another.
	b := bytes.Clone(imagefiletest.Golden(t, "vmdk")["streamOptimized"])
	im, err := newImage(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	at, _, err := im.lookup(0)
	if err != nil || at == 0 {
		t.Fatal(at, err)
	}
	binary.LittleEndian.PutUint64(b[int64(at)*sector:], 128)
	if _, err := im.ReadAt(make([]byte, 1), 0); err == nil || !strings.Contains(err.Error(), fmt.Sprint("grain at sector ", at)) {
		t.Errorf("wrong grain: got %v", err)
	}
}

// FuzzImage reads an image that may be anything. It may be refused; if it is
// not, reading ends, and what is no data is zeros.
func FuzzImage(f *testing.F) {
	for _, b := range imagefiletest.Golden(f, "vmdk") {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := newImage(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		imagefiletest.Fuzz(t, im)
	})
}
