package hashtree_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

func TestReadAt(t *testing.T) {
	st := ventitest.NewMemory()
	data := append(random(1, 3000), make([]byte, 5000)...)
	data = append(data, random(2, 13*256*2)...)
	e := file(t, st, data)
	r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		off, n int
	}{
		{0, 1}, {0, 256}, {0, 257}, {255, 2}, {256, 256}, {1, 3000}, {2900, 300}, {3000, 5000}, {4000, 100},
		{len(data) - 1, 1}, {len(data) - 1, 2}, {len(data) - 300, 1000}, {100, 0},
	} {
		got := bytes.Repeat([]byte{0xee}, tc.n+10)
		n, err := r.ReadAt(got[:tc.n], int64(tc.off))
		want := data[tc.off:min(tc.off+tc.n, len(data))]
		if n != len(want) || !bytes.Equal(got[:n], want) || (n < tc.n) != (err == io.EOF) || err != nil && err != io.EOF {
			t.Errorf("%d at %d: %d, %v", tc.n, tc.off, n, err)
		}
		if !bytes.Equal(got[tc.n:], bytes.Repeat([]byte{0xee}, 10)) {
			t.Errorf("%d at %d: wrote past the end", tc.n, tc.off)
		}
	}
	if n, err := r.ReadAt(make([]byte, 1), e.Size); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
		t.Errorf("at -1: %v", err)
	}
	if _, _, err := r.NextData(t.Context(), -1); err == nil || err == io.EOF {
		t.Errorf("next data at -1: %v", err)
	}
	if _, err := r.ReadEntry(t.Context(), 0); err == nil || err == io.EOF {
		t.Errorf("entry of a file: %v", err)
	}
}

// TestPastSize: bytes of a leaf past the size are not zero when a file was
// made shorter; nobody sees them.
func TestPastSize(t *testing.T) {
	st := ventitest.NewMemory()
	data := random(1, 1000)
	e := file(t, st, data)
	e.Size = 900
	readBack(t, st, e, data[:900])
	e.Size = 300 // one level deeper than it need be
	readBack(t, st, e, data[:300])
	e.Size = 0
	readBack(t, st, e, nil)
}

// TestDeeper reads a tree with more levels than it needs.
func TestDeeper(t *testing.T) {
	st := ventitest.NewMemory()
	data := random(1, 3*256)
	e := file(t, st, data)
	for e.Depth < venti.MaxDepth {
		e.Depth++
		e.Score = store(t, st, e.Type(), e.Score[:])
		readBack(t, st, e, data)
	}
}

func TestBadEntries(t *testing.T) {
	good := venti.Entry{PSize: 260, DSize: 256, Depth: 1, Flags: venti.EntryActive, Size: 300, Score: venti.EmptyScore}
	for _, tc := range []struct {
		name string
		edit func(*venti.Entry)
	}{
		{"inactive", func(e *venti.Entry) { e.Flags = 0 }},
		{"psize 0", func(e *venti.Entry) { e.PSize = 0 }},
		{"psize 19", func(e *venti.Entry) { e.PSize = 19 }},
		{"psize huge", func(e *venti.Entry) { e.PSize = 1 << 30 }},
		{"dsize 0", func(e *venti.Entry) { e.DSize = 0 }},
		{"dsize huge", func(e *venti.Entry) { e.DSize = 1 << 40 }},
		{"size negative", func(e *venti.Entry) { e.Size = -1 }},
		{"size huge", func(e *venti.Entry) { e.Size = venti.MaxEntrySize + 1 }},
		{"too shallow", func(e *venti.Entry) { e.Depth = 0 }},
		{"too deep", func(e *venti.Entry) { e.Depth = 8 }},
		{"depth negative", func(e *venti.Entry) { e.Depth = -1 }},
	} {
		e := good
		tc.edit(&e)
		if _, err := hashtree.NewReader(ventitest.NewMemory(), e, hashtree.ReaderConfig{}); err == nil {
			t.Errorf("%s: accepted", tc.name)
		}
	}
	if _, err := hashtree.NewReader(ventitest.NewMemory(), good, hashtree.ReaderConfig{}); err != nil {
		t.Errorf("good entry: %v", err)
	}
}

// TestLongBlocks: blocks that are longer than the entry says are errors.
func TestLongBlocks(t *testing.T) {
	st := ventitest.NewMemory()
	leaf := store(t, st, venti.DataType, random(1, 300))
	for _, e := range []venti.Entry{
		{PSize: 260, DSize: 256, Flags: venti.EntryActive, Size: 256, Score: leaf},
		{PSize: 260, DSize: 256, Flags: venti.EntryActive, Size: 512, Depth: 1, Score: store(t, st, venti.DataType+1, random(2, 280))},
	} {
		r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReadAt(make([]byte, 256), 0); !errors.Is(err, venti.ErrTooLong) {
			t.Errorf("depth %d: %v, want ErrTooLong", e.Depth, err)
		}
	}
}

// A counter counts what reaches a store.
type counter struct {
	*ventitest.Memory
	reads, writes, probes atomic.Int64
}

func (c *counter) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	c.reads.Add(1)
	return c.Memory.ReadBlock(ctx, s, t, buf)
}

func (c *counter) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	c.writes.Add(1)
	return c.Memory.WriteBlock(ctx, t, data)
}

func (c *counter) WriteScored(ctx context.Context, s venti.Score, t venti.Type, data []byte) error {
	c.writes.Add(1)
	return c.Memory.WriteScored(ctx, s, t, data)
}

func (c *counter) HasBlock(ctx context.Context, s venti.Score, t venti.Type) (bool, error) {
	c.probes.Add(1)
	return c.Memory.HasBlock(ctx, s, t)
}

// TestProbing: what is stored is not sent, and what is new is sent with few
// questions asked.
func TestProbing(t *testing.T) {
	st := &counter{Memory: ventitest.NewMemory()}
	data := random(1, 2000*256)
	blocks := int64(2000 + 2000/13)
	file(t, st, data)
	if w, p := st.writes.Load(), st.probes.Load(); w < blocks || p > blocks/4 {
		t.Errorf("new data: %d writes and %d probes for %d blocks", w, p, blocks)
	}
	st.writes.Store(0)
	file(t, st, data)
	if w := st.writes.Load(); w != 0 {
		t.Errorf("known data: %d writes", w)
	}
	// Half is new, then half is known: probing comes back.
	st.writes.Store(0)
	file(t, st, append(random(2, 2000*256), data...))
	if w := st.writes.Load(); w > blocks+blocks/4 {
		t.Errorf("half known data: %d writes for %d new blocks", w, blocks)
	}
}

// TestBaseUnread: an unchanged file is compared with the top of its base, and
// a change costs the base's pointer blocks on the way to it.
func TestBaseUnread(t *testing.T) {
	st := &counter{Memory: ventitest.NewMemory()}
	data := random(1, 13*13*256)
	base := file(t, st, data)
	write := func() (hashtree.Stats, int64) {
		t.Helper()
		st.reads.Store(0)
		st.probes.Store(0)
		cfg := tiny
		cfg.Base = &base
		_, stats, err := hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return stats, st.reads.Load()
	}
	stats, reads := write()
	if reads != 1 || st.probes.Load() != 0 || stats.Leaves.Base.Blocks != 169 || stats.Pointers.Base.Blocks != 14 {
		t.Errorf("unchanged: %d reads, %d probes, %+v", reads, st.probes.Load(), stats)
	}
	data[5000] ^= 1
	stats, reads = write()
	if reads != 2 || stats.Leaves.Sent.Blocks != 1 || stats.Leaves.Base.Blocks != 168 || stats.Pointers.Sent.Blocks != 2 {
		t.Errorf("one byte changed: %d reads, %+v", reads, stats)
	}
	// A base that is gone saves nothing and does no harm.
	gone := base
	gone.Score = venti.Score{1}
	base = gone
	if stats, _ = write(); stats.Leaves.Base.Blocks != 0 || stats.Leaves.Shared.Blocks == 0 {
		t.Errorf("base gone: %+v", stats)
	}
}

// TestReadAhead reads forward, in small steps, from several goroutines, and
// here and there.
func TestReadAhead(t *testing.T) {
	st := &counter{Memory: ventitest.NewMemory()}
	data := random(1, 300*256+17)
	e := file(t, st, data)
	for _, ahead := range []int{1, 1000, 10_000, 1 << 20} {
		r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{ReadAhead: ahead})
		if err != nil {
			t.Fatal(err)
		}
		st.reads.Store(0)
		got, err := io.ReadAll(io.NewSectionReader(r, 0, e.Size))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("ahead %d: %v", ahead, err)
		}
		if n := st.reads.Load(); ahead > 256 && n > 301+25+20 {
			t.Errorf("ahead %d: %d blocks read", ahead, n)
		}
		var wg sync.WaitGroup
		for seed := range uint64(4) {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, 1))
				off := 0
				for range 300 {
					p := make([]byte, 1+rnd.IntN(1000))
					if rnd.IntN(5) == 0 {
						off = rnd.IntN(len(data))
					}
					n, err := r.ReadAt(p, int64(off))
					if err != nil && err != io.EOF || !bytes.Equal(p[:n], data[off:off+n]) {
						t.Errorf("ahead %d: %d at %d: %v", ahead, len(p), off, err)
						return
					}
					if off += n; off == len(data) {
						off = 0
					}
				}
			})
		}
		wg.Wait()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		// Reading goes on without it.
		if _, err := r.ReadAt(make([]byte, 10), 100); err != nil {
			t.Error(err)
		}
	}
}

// TestReadAheadFault: a window that could not be fetched is no error of the
// read, if the block can be read then.
func TestReadAheadFault(t *testing.T) {
	mem := ventitest.NewMemory()
	data := random(1, 100*256)
	e := file(t, mem, data)
	var on atomic.Bool
	st := ventitest.NewFaulty(mem, func(op ventitest.Op) error {
		if on.Load() && op.N%3 == 0 {
			return ventitest.ErrFault
		}
		return nil
	})
	r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{ReadAhead: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := make([]byte, 256)
	r.ReadAt(p, 0)
	on.Store(true)
	r.ReadAt(p, 256) // starts a window, which may or may not fail
	on.Store(false)
	got, err := io.ReadAll(io.NewSectionReader(r, 512, e.Size))
	if err != nil || !bytes.Equal(got, data[512:]) {
		t.Errorf("after a fault: %v", err)
	}
}

// TestConcurrentReaders shares one reader whose cache holds few pointer
// blocks.
func TestConcurrentReaders(t *testing.T) {
	st := ventitest.NewMemory()
	data := random(1, 13*13*13*256/2)
	e := file(t, st, data)
	r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{CacheBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 2))
			for range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				if rnd.IntN(4) == 0 {
					cancel() // one who is cancelled does not spoil it for others
				}
				off := rnd.IntN(len(data))
				p := make([]byte, rnd.IntN(3000))
				n, err := r.ReadAtContext(ctx, p, int64(off))
				if ctx.Err() == nil && (err != nil && err != io.EOF || !bytes.Equal(p[:n], data[off:off+n])) {
					t.Errorf("%d at %d: %d, %v", len(p), off, n, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

// TestExportWrites: holes are not written, and leaves are written many at a
// time.
func TestExportWrites(t *testing.T) {
	st := ventitest.NewMemory()
	data := make([]byte, 13*13*256)
	copy(data[256:], random(1, 5*256))
	copy(data[100*256:], random(2, 100))
	r, err := hashtree.NewReader(st, file(t, st, data), hashtree.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	out := &memFile{data: make([]byte, len(data))}
	var done int64
	n, err := r.Export(t.Context(), out, func(d int64) {
		if d < done {
			t.Errorf("progress goes from %d to %d", done, d)
		}
		done = d
	})
	if err != nil || n != 6*256 || out.bytes != n || !bytes.Equal(out.data, data) || done != int64(len(data)) {
		t.Errorf("wrote %d (%d) bytes, %v; progress %d", n, out.bytes, err, done)
	}
}

// TestProgress: Write tells how far it is, to the last byte.
func TestProgress(t *testing.T) {
	var calls []int64
	cfg := tiny
	cfg.Progress = func(done int64) { calls = append(calls, done) }
	data := append(random(1, 10_000), make([]byte, 100_000)...)
	_, _, err := hashtree.Write(t.Context(), ventitest.NewMemory(), &sparse{data: data, grain: 1000}, int64(len(data)), cfg)
	if err != nil || len(calls) < 3 || calls[len(calls)-1] != int64(len(data)) {
		t.Errorf("%v, %d calls, %v", err, len(calls), calls)
	}
}

// TestWriterMisuse: a closed writer, and one of the wrong kind.
func TestWriterMisuse(t *testing.T) {
	w, err := hashtree.NewWriter(t.Context(), ventitest.NewMemory(), tiny)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteEntry(venti.Entry{}); err == nil {
		t.Error("WriteEntry on a file: no error")
	}
	if err := w.Skip(-1); err == nil {
		t.Error("Skip(-1): no error")
	}
	if _, _, err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("Write after Close: no error")
	}
	if err := w.Skip(1); err == nil {
		t.Error("Skip after Close: no error")
	}
	if _, _, err := w.Close(); err == nil {
		t.Error("Close after Close: no error")
	}
}

// A forger is a store of blocks that are not what their scores say: the
// block of a score is chosen by its first byte. So a fuzz target can name
// blocks, and make trees that no writer could. It fails after so many reads.
type forger struct {
	blocks [][]byte
	budget atomic.Int64
}

var errBudget = errors.New("too many blocks read")

func (f *forger) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	if f.budget.Add(-1) < 0 {
		return 0, errBudget
	}
	if len(f.blocks) == 0 {
		return 0, venti.ErrNotFound
	}
	b := f.blocks[int(s[0])%len(f.blocks)]
	if len(b) > len(buf) {
		return 0, venti.ErrTooLong
	}
	return copy(buf, b), nil
}

// forge cuts fuzzed bytes into blocks, each with its length in two bytes.
func forge(data []byte) *forger {
	f := &forger{}
	f.budget.Store(300)
	for len(data) >= 2 && len(f.blocks) < 256 {
		n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
		f.blocks = append(f.blocks, data[2:2+n])
		data = data[2+n:]
	}
	return f
}

// forged returns blocks in the form that forge takes.
func forged(blocks ...[]byte) (data []byte) {
	for _, b := range blocks {
		data = binary.BigEndian.AppendUint16(data, uint16(len(b)))
		data = append(data, b...)
	}
	return data
}

func FuzzReader(f *testing.F) {
	pack := func(e venti.Entry) []byte {
		b, err := e.Pack(nil)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	e := venti.Entry{PSize: 260, DSize: 256, Depth: 2, Flags: venti.EntryActive, Size: 256 * 100, Score: venti.Score{0}}
	pointers := bytes.Repeat([]byte{1, 2, 3, 4, 5}, 52)
	f.Add(pack(e), forged(pointers, []byte("leaf"), pointers[:40], nil), int64(0), uint16(5000))
	e.Depth, e.Size = 7, venti.MaxEntrySize
	e.PSize, e.DSize = 57344, 57344
	f.Add(pack(e), forged(bytes.Repeat([]byte{0}, 2000)), int64(1)<<47, uint16(5000))
	e.Score = venti.EmptyScore
	f.Add(pack(e), forged(bytes.Repeat(venti.EmptyScore[:], 100)), int64(300), uint16(60000))
	e.Flags |= venti.EntryDir
	f.Add(pack(e), forged(), int64(0), uint16(1))
	f.Fuzz(func(t *testing.T, packed, data []byte, off int64, n uint16) {
		e, err := venti.UnpackEntry(packed)
		if err != nil {
			return
		}
		st := forge(data)
		r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{CacheBytes: 4096, ReadAhead: 1000})
		if err != nil {
			return
		}
		defer r.Close()
		p := make([]byte, int(n)+8)
		got, err := r.ReadAt(p[:n], off)
		if got < 0 || got > int(n) || err == nil && got != int(n) || off >= 0 && int64(got) > max(0, e.Size-off) {
			t.Errorf("ReadAt: %d of %d at %d of %d, %v", got, n, off, e.Size, err)
		}
		if !bytes.Equal(p[n:], make([]byte, 8)) {
			t.Error("ReadAt wrote past the end")
		}
		for at, i := off, 0; i < 20; i++ {
			start, end, err := r.NextData(t.Context(), at)
			if err != nil {
				break
			}
			if start < at || end <= start || end > e.Size {
				t.Fatalf("NextData(%d) of %d = %d, %d", at, e.Size, start, end)
			}
			at = end
		}
		r.ReadEntry(t.Context(), off)
		if e.Size < 1<<20 {
			var out bytes.Buffer
			if n, err := r.Stream(t.Context(), &out); err == nil && n != e.Size {
				t.Errorf("Stream: %d bytes of %d", n, e.Size)
			}
		}
		r.Export(t.Context(), limited{e.Size}, nil)
	})
}

// limited checks that nothing is written past the size.
type limited struct{ size int64 }

func (l limited) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > l.size {
		panic("write past the size")
	}
	return len(p), nil
}

func FuzzWalk(f *testing.F) {
	root := venti.Root{Type: "fuzz", Score: venti.Score{1}, BlockSize: 256, Prev: venti.Score{0}}
	b, err := root.Pack(nil)
	if err != nil {
		f.Fatal(err)
	}
	e := venti.Entry{PSize: 260, DSize: 256, Depth: 2, Flags: venti.EntryActive, Score: venti.Score{2}}
	dir, err := e.Pack(nil)
	if err != nil {
		f.Fatal(err)
	}
	sub := e
	sub.Flags |= venti.EntryDir
	sub.Score = venti.Score{1}
	dir, err = sub.Pack(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(venti.RootType), forged(b, dir, bytes.Repeat([]byte{3}, 60)))
	f.Add(uint8(venti.DirType+3), forged(dir, dir[:79], bytes.Repeat([]byte{0, 1}, 100)))
	f.Fuzz(func(t *testing.T, typ uint8, data []byte) {
		if !venti.Type(typ).Valid() {
			return
		}
		// Not Once: in a circle, which blocks of true scores cannot make, it
		// waits for itself.
		for _, cfg := range []hashtree.WalkConfig{{}, {After: true}, {Parallel: 4}} {
			st := forge(data)
			err := hashtree.Walk(t.Context(), st, venti.Score{0}, venti.Type(typ), cfg, func(b *hashtree.Block) error {
				if st.budget.Load() <= 0 {
					return errBudget
				}
				return nil
			})
			// Blocks that lie about their score make circles, which only the
			// depth ends.
			if err != nil && !errors.Is(err, errBudget) && !strings.Contains(err.Error(), "deep") {
				t.Errorf("%+v: %v", cfg, err)
			}
		}
		hashtree.Dump(t.Context(), forge(data), venti.Score{0}, venti.Type(typ), &fullAt{1 << 20})
		st := forge(data)
		hashtree.Copy(t.Context(), st, ventitest.NewMemory(), venti.Score{0}, venti.Type(typ), hashtree.CopyConfig{Rewrite: true, Parallel: 2})
	})
}

// A fullAt takes so many bytes and then no more.
type fullAt struct{ room int }

func (w *fullAt) Write(p []byte) (int, error) {
	if w.room -= len(p); w.room < 0 {
		return 0, errWrite
	}
	return len(p), nil
}

func TestLeafScore(t *testing.T) {
	st := ventitest.NewMemory()
	data := append(random(1, 600), make([]byte, 20*256)...)
	data = append(data, 1)
	r, err := hashtree.NewReader(st, file(t, st, data), hashtree.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ds := r.Entry().DSize
	for i := -1; i < len(data)/ds+3; i++ {
		want := venti.EmptyScore
		if lo := max(i*ds, 0); i >= 0 && lo < len(data) {
			want = venti.ScoreOf(venti.Truncate(venti.DataType, data[lo:min(lo+ds, len(data))]))
		}
		if got, err := r.LeafScore(t.Context(), int64(i)); err != nil || got != want {
			t.Errorf("leaf %d: %v, %v, want %v", i, got, err, want)
		}
	}
}
