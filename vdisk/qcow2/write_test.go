package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"strata/vdisk/qcow2"
)

// A memSource is a disk in memory, of which it knows holes of 4 KiB. At fail,
// if that is not 0, it cannot be read.
type memSource struct {
	data []byte
	size int64 // if it is longer than data, which zeros follow
	fail int64
}

var errRead = errors.New("cannot be read")

func (s *memSource) Size() int64 { return max(s.size, int64(len(s.data))) }

func (s *memSource) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	if s.fail > 0 && off <= s.fail && s.fail < off+int64(len(p)) {
		return 0, errRead
	}
	n := 0
	if off < int64(len(s.data)) {
		n = copy(p, s.data[off:])
	}
	clear(p[n:])
	return len(p), nil
}

func (s *memSource) NextData(_ context.Context, off int64) (start, end int64, err error) {
	size := int64(len(s.data))
	for start = off; start < size; start = start/4096*4096 + 4096 {
		end = min(start/4096*4096+4096, size)
		if !bytes.Equal(s.data[start:end], make([]byte, end-start)) {
			return start, end, nil
		}
	}
	return 0, 0, io.EOF
}

// TestWrite writes disks that QEMU and we read again.
func TestWrite(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	holes := make([]byte, 9<<20+512)
	copy(holes[100:], noise(5000))
	copy(holes[3<<20+7:], noise(300000))
	copy(holes[len(holes)-1000:], noise(1000))
	for _, c := range []struct {
		name string
		src  *memSource
	}{
		{"empty", &memSource{}},
		{"zeros", &memSource{size: 10 << 20}},
		{"one sector", &memSource{data: noise(512)}},
		{"full", &memSource{data: noise(5 << 20)}},
		{"holes", &memSource{data: holes}},
		{"two tables", &memSource{data: noise(1 << 20), size: 2 << 30}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			name := filepath.Join(dir, "a.qcow2")
			f, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			last := int64(0)
			err = qcow2.Write(t.Context(), f, c.src, func(done int64) {
				if done < last || done > c.src.Size() {
					t.Errorf("done %d after %d", done, last)
				}
				last = done
			})
			if err != nil {
				t.Fatal(err)
			}
			im := open(t, name)
			if c.src.size == 0 && len(c.src.data) > 0 {
				check(t, im, c.src.data)
			} else if im.Size() != c.src.Size() {
				t.Errorf("size: got %d, want %d", im.Size(), c.src.Size())
			}
			need(t, "qemu-img", "qemu-utils")
			run(t, "qemu-img", "check", "-q", "-f", "qcow2", name)
			raw := filepath.Join(dir, "raw")
			if err := os.WriteFile(raw, c.src.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(raw, c.src.Size()); err != nil {
				t.Fatal(err)
			}
			run(t, "qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", name, raw)
			if c.name == "empty" {
				return
			}
			// It can be written to.
			if len(c.src.data) == int(c.src.Size()) && len(c.src.data) > 1<<20 {
				scribble(t, name, c.src.data, 1, true)
				check(t, open(t, name), c.src.data)
				run(t, "qemu-img", "check", "-q", "-f", "qcow2", name)
			}
		})
	}
}

func TestWriteFails(t *testing.T) {
	src := &memSource{data: bytes.Repeat([]byte{1}, 10<<20), fail: 5 << 20}
	f, err := os.Create(filepath.Join(t.TempDir(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := qcow2.Write(t.Context(), f, src, nil); !errors.Is(err, errRead) {
		t.Errorf("got %v", err)
	}
	if _, err := qcow2.Open(f.Name(), qcow2.Options{}); err == nil {
		t.Error("half an image opens")
	}
	ctx, cancel := context.WithCancel(t.Context())
	src.fail = 0
	err = qcow2.Write(ctx, f, src, func(int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("when it was cancelled: got %v", err)
	}
	// Every write fails once.
	for n := 1; ; n++ {
		w := &failing{left: n}
		if err := qcow2.Write(t.Context(), w, src, nil); err == nil {
			if n < 5 {
				t.Errorf("only %d writes", n)
			}
			break
		} else if !errors.Is(err, errRead) {
			t.Fatalf("write %d: got %v", n, err)
		}
	}
}

// failing fails when nothing is left.
type failing struct{ left int }

func (w *failing) WriteAt(p []byte, off int64) (int, error) {
	if w.left--; w.left == 0 {
		return 0, errRead
	}
	return len(p), nil
}
