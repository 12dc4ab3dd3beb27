package vacfs

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"strata/internal/ninep"
	"strata/vac"
	"strata/venti/ventitest"
)

// openLarge stores a file of size bytes and opens it on an FS of its own. The
// gate counts what is read from then on.
func openLarge(t *testing.T, size int) (*ventitest.Gate, *FS, *fileHandle) {
	t.Helper()
	t.Chdir(t.TempDir())
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(b)
	if err := os.WriteFile("file", b, 0o644); err != nil {
		t.Fatal(err)
	}
	g := &ventitest.Gate{Memory: ventitest.NewMemory()}
	res, err := vac.Store(t.Context(), g.Memory, []string{"file"}, vac.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fs, err := New(g, []Archive{{Source: vac.FormatScore(res.Score)}}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	root, err := fs.Attach(t.Context(), "root", "")
	if err != nil {
		t.Fatal(err)
	}
	n, err := root.Walk(t.Context(), "file")
	if err != nil {
		t.Fatal(err)
	}
	h, err := n.Open(t.Context(), ninep.OREAD)
	if err != nil {
		t.Fatal(err)
	}
	g.Reads.Store(0)
	return g, fs, h.(*fileHandle)
}

func TestReadAhead(t *testing.T) {
	const size, step, block = 8 << 20, 64 << 10, 8192
	synctest.Test(t, func(t *testing.T) {
		g, fs, h := openLarge(t, size)
		buf := make([]byte, step)
		read := func(off int64) {
			t.Helper()
			n, ok := h.ReadCached(buf, off)
			var err error
			if !ok {
				n, err = h.ReadAt(t.Context(), buf, off)
			}
			if n != step || err != nil && err != io.EOF {
				t.Fatalf("read at %d: %d, %v", off, n, err)
			}
			synctest.Wait() // for what is fetched
		}
		ahead := func() int64 { return g.Reads.Load()*block - h.next }

		read(0)
		if n := ahead(); n > 3*block { // pointer blocks
			t.Errorf("after one read %d bytes are ahead", n)
		}
		for off := int64(step); off < size; off += step {
			read(off)
			if n := ahead(); off+step+pieceBytes < size && (n < pieceBytes || n > aheadBytes+30*block) {
				t.Errorf("at %d, %d bytes are ahead", off+step, n)
			}
			if _, ok := h.ReadCached(buf, min(off+step, size-step)); !ok {
				t.Errorf("at %d, the next read would wait", off+step)
			}
		}
		// Once it is there, nothing is fetched.
		before := g.Reads.Load()
		for off := int64(0); off < size; off += step {
			read(off)
		}
		if n := g.Reads.Load() - before; n != 0 {
			t.Errorf("%d blocks are fetched again", n)
		}
		h.Close(t.Context())
		fs.Close()

		// At random, nothing is fetched that is not read.
		g, fs, h = openLarge(t, size)
		for _, at := range []int64{100, 20, 60, 5, 120, 80, 40} {
			read(at * step)
		}
		if n := g.Reads.Load(); n > 7*(step/block+1)+4 {
			t.Errorf("for 7 reads of %d blocks %d were fetched", step/block, n)
		}
		h.Close(t.Context())
		fs.Close()
	})
}

// TestReadAheadEnds closes a file, and then the tree, while the store does not
// answer.
func TestReadAheadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, fs, h := openLarge(t, 4<<20)
		buf := make([]byte, 8192)
		for off := int64(0); off < 4*8192; off += 8192 {
			if off == 8192 {
				g.Shut = make(chan struct{})
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // by the bubble's clock
			h.ReadAt(ctx, buf, off)
			cancel()
		}
		synctest.Wait()
		if len(fs.ahead) == maxAhead {
			t.Error("nothing is being fetched")
		}
		h.Close(t.Context())
		synctest.Wait()
		if len(fs.ahead) != maxAhead {
			t.Error("what was being fetched goes on when the file is closed")
		}
		fs.Close()
	})
}
