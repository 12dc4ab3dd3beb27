package hashtree_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tiny has 13 pointers to a block.
var tiny = hashtree.Config{PSize: 260, DSize: 256}

// naive is the reference: a tree built from the definition, all in memory.
func naive(t testing.TB, st venti.Store, data []byte, cfg hashtree.Config) venti.Entry {
	t.Helper()
	e := venti.Entry{PSize: cfg.PSize, DSize: cfg.DSize, Flags: venti.EntryActive, Size: int64(len(data))}
	if cfg.Dir {
		e.Flags |= venti.EntryDir
	}
	write := func(depth int, block []byte) venti.Score {
		s, err := st.WriteBlock(t.Context(), e.LeafType()+venti.Type(depth), venti.Truncate(e.LeafType()+venti.Type(depth), block))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var scores []venti.Score
	for ; len(data) > cfg.DSize; data = data[cfg.DSize:] {
		scores = append(scores, write(0, data[:cfg.DSize]))
	}
	scores = append(scores, write(0, data))
	np := cfg.PSize / venti.ScoreSize
	for len(scores) > 1 {
		e.Depth++
		var up []venti.Score
		for len(scores) > 0 {
			n := min(np, len(scores))
			var block []byte
			for _, s := range scores[:n] {
				block = append(block, s[:]...)
			}
			up = append(up, write(e.Depth, block))
			scores = scores[n:]
		}
		scores = up
	}
	e.Score = scores[0]
	return e
}

// random returns n bytes that follow from seed, none of them zero.
func random(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(1 + r.IntN(255))
	}
	return p
}

// A sparse is a source that knows its holes: zero runs of at least grain
// bytes on multiples of grain. Reading a hole fails.
type sparse struct {
	data  []byte
	grain int

	mu    sync.Mutex
	holes int64 // bytes of holes read
}

func (s *sparse) zero(i int) bool {
	lo, hi := i*s.grain, min((i+1)*s.grain, len(s.data))
	return len(bytes.Trim(s.data[lo:hi], "\x00")) == 0
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := int(off) / s.grain; i*s.grain < int(off)+len(p) && i*s.grain < len(s.data); i++ {
		if s.zero(i) {
			s.holes += int64(s.grain)
		}
	}
	return bytes.NewReader(s.data).ReadAt(p, off)
}

func (s *sparse) NextData(off int64) (start, end int64, err error) {
	i := int(off) / s.grain
	for i*s.grain < len(s.data) && s.zero(i) {
		i++
	}
	if i*s.grain >= len(s.data) {
		return 0, 0, io.EOF
	}
	start = max(off, int64(i*s.grain))
	for i*s.grain < len(s.data) && !s.zero(i) {
		i++
	}
	return start, min(int64(i*s.grain), int64(len(s.data))), nil
}

// readBack reads the whole tree in each way that there is and compares.
func readBack(t testing.TB, st venti.Store, e venti.Entry, want []byte) {
	t.Helper()
	r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want)+1)
	n, err := r.ReadAt(got, 0)
	if n != len(want) || err != io.EOF || !bytes.Equal(got[:n], want) {
		t.Fatalf("ReadAt: %d bytes, %v; equal %v", n, err, bytes.Equal(got[:n], want))
	}
	out := &memFile{data: make([]byte, len(want))}
	var last int64
	if _, err := r.Export(t.Context(), out, func(done int64) { last = done }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.data, want) {
		t.Fatal("Export: bytes differ")
	}
	if last != int64(len(want)) {
		t.Fatalf("Export: progress ends at %d, want %d", last, len(want))
	}
	var stream bytes.Buffer
	if n, err := r.Stream(t.Context(), &stream); err != nil || n != int64(len(want)) || !bytes.Equal(stream.Bytes(), want) {
		t.Fatalf("Stream: %d bytes, %v", n, err)
	}
	// Every byte outside the ranges of NextData is zero; ranges rise.
	var seen []byte
	for off := int64(0); ; {
		start, end, err := r.NextData(t.Context(), off)
		if err == io.EOF {
			break
		}
		if err != nil || start < off || end <= start || end > int64(len(want)) {
			t.Fatalf("NextData(%d) = %d, %d, %v", off, start, end, err)
		}
		seen = append(seen, make([]byte, start-off)...)
		seen = append(seen, want[start:end]...)
		off = end
	}
	if seen = append(seen, make([]byte, len(want)-len(seen))...); !bytes.Equal(seen, want) {
		t.Fatal("NextData: a hole is not zero")
	}
}

// A memFile is an io.WriterAt of a fixed size.
type memFile struct {
	mu    sync.Mutex
	data  []byte
	bytes int64
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes += int64(len(p))
	return copy(f.data[off:], p), nil
}

func TestSizes(t *testing.T) {
	const np, ds = 13, 256
	for _, size := range []int{
		0, 1, ds - 1, ds, ds + 1, 2 * ds, 2*ds + 1,
		np*ds - 1, np * ds, np*ds + 1, (np+1)*ds - 1, 2*np*ds + 1,
		np*np*ds - 1, np * np * ds, np*np*ds + 1, np*np*ds + np*ds + 1,
		np*np*np*ds - 1, np * np * np * ds, np*np*np*ds + 1,
	} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			for _, tc := range []struct {
				name string
				data []byte
			}{
				{"random", random(uint64(size), size)},
				{"zero", make([]byte, size)},
			} {
				ref := ventitest.NewMemory()
				want := naive(t, ref, tc.data, tiny)
				st := ventitest.NewMemory()
				got, stats, err := hashtree.Write(t.Context(), st, bytes.NewReader(tc.data), int64(size), tiny)
				if err != nil || got != want {
					t.Fatalf("%s: Write: got %+v, %v; want %+v", tc.name, got, err, want)
				}
				if st.Len() != ref.Len() {
					t.Errorf("%s: %d blocks stored, want %d", tc.name, st.Len(), ref.Len())
				}
				if n := stats.Leaves.Zero.Blocks + stats.Leaves.Sent.Blocks + stats.Leaves.Shared.Blocks; n != int64((size+ds-1)/ds) {
					t.Errorf("%s: %d leaves counted", tc.name, n)
				}
				if n := stats.Leaves.Zero.Bytes + stats.Leaves.Sent.Bytes; n != int64(size) {
					t.Errorf("%s: %d bytes counted, want %d", tc.name, n, size)
				}
				w, err := hashtree.NewWriter(t.Context(), st, tiny)
				if err != nil {
					t.Fatal(err)
				}
				for p := tc.data; len(p) > 0; {
					n := min(len(p), 1000)
					if _, err := w.Write(p[:n]); err != nil {
						t.Fatal(err)
					}
					p = p[n:]
				}
				got, _, err = w.Close()
				if err != nil || got != want {
					t.Fatalf("%s: Writer: got %+v, %v; want %+v", tc.name, got, err, want)
				}
				readBack(t, st, want, tc.data)
			}
		})
	}
}

// TestDepth holds the worked facts of the spec and holes too big to be
// looked at.
func TestDepth(t *testing.T) {
	for _, tc := range []struct {
		size         int64
		psize, dsize int
		depth        int
	}{
		{0, 8180, 8192, 0},
		{8192, 8180, 8192, 0},
		{8193, 8180, 8192, 1},
		{409 * 8192, 8180, 8192, 1},
		{409*8192 + 1, 8180, 8192, 2},
		{5 << 30, 8180, 8192, 3},
		{16 << 40, 4080, 4096, 5},
		{venti.MaxEntrySize, 4080, 4096, 5},
		{venti.MaxEntrySize, 57340, 57344, 3},
	} {
		cfg := hashtree.Config{PSize: tc.psize, DSize: tc.dsize}
		st := ventitest.NewMemory()
		e, stats, err := hashtree.Write(t.Context(), st, hole{}, tc.size, cfg)
		want := venti.Entry{PSize: tc.psize, DSize: tc.dsize, Depth: tc.depth, Flags: venti.EntryActive, Size: tc.size, Score: venti.EmptyScore}
		if err != nil || e != want {
			t.Errorf("size %d: got %+v, %v; want %+v", tc.size, e, err, want)
		}
		if stats.Leaves.Zero.Bytes != tc.size || st.Len() != 0 {
			t.Errorf("size %d: %d bytes of zeros, %d blocks", tc.size, stats.Leaves.Zero.Bytes, st.Len())
		}
		w, err := hashtree.NewWriter(t.Context(), st, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Skip(tc.size); err != nil {
			t.Errorf("size %d: Skip: %v", tc.size, err)
		}
		if e, _, err := w.Close(); err != nil || e != want {
			t.Errorf("size %d: Writer: got %+v, %v; want %+v", tc.size, e, err, want)
		}
		r, err := hashtree.NewReader(st, want, hashtree.ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.NextData(t.Context(), 0); err != io.EOF {
			t.Errorf("size %d: NextData: %v", tc.size, err)
		}
		if n, err := r.Export(t.Context(), nil, nil); n != 0 || err != nil {
			t.Errorf("size %d: Export: %d, %v", tc.size, n, err)
		}
	}
}

// A hole is a source of nothing else.
type hole struct{}

func (hole) ReadAt([]byte, int64) (int, error)          { return 0, errors.New("hole was read") }
func (hole) NextData(int64) (start, end int64, e error) { return 0, 0, io.EOF }

// An island has one byte of data in a hole.
type island struct{ at int64 }

func (s island) ReadAt(p []byte, off int64) (int, error) {
	if len(p) != 1 || off != s.at {
		return 0, fmt.Errorf("read %d at %d", len(p), off)
	}
	p[0] = 'x'
	return 1, nil
}

func (s island) NextData(off int64) (start, end int64, err error) {
	if off > s.at {
		return 0, 0, io.EOF
	}
	return s.at, s.at + 1, nil
}

func TestIsland(t *testing.T) {
	const size = 16 << 40
	for _, at := range []int64{0, 4096*204 - 1, 4096 * 204, 5<<40 + 12345, size - 1} {
		st := ventitest.NewMemory()
		cfg := hashtree.Config{DSize: 4096}
		e, stats, err := hashtree.Write(t.Context(), st, island{at}, size, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if e.Depth != 5 || stats.Leaves.Sent.Blocks != 1 || stats.Pointers.Sent.Blocks != 5 {
			t.Errorf("at %d: %+v, %+v", at, e, stats)
		}
		w, err := hashtree.NewWriter(t.Context(), st, cfg)
		if err != nil {
			t.Fatal(err)
		}
		w.Skip(at)
		w.Write([]byte("x"))
		w.Skip(size - at - 1)
		if got, _, err := w.Close(); err != nil || got != e {
			t.Errorf("at %d: Writer: %+v, %v; want %+v", at, got, err, e)
		}
		r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		start, end, err := r.NextData(t.Context(), 0)
		if start != at/4096*4096 || end != start+4096 || err != nil {
			t.Errorf("at %d: NextData: %d, %d, %v", at, start, end, err)
		}
		if _, _, err := r.NextData(t.Context(), end); err != io.EOF {
			t.Errorf("at %d: NextData after: %v", at, err)
		}
		b := make([]byte, 3)
		if _, err := r.ReadAt(b, at); (err != nil && err != io.EOF) || b[0] != 'x' || b[1] != 0 {
			t.Errorf("at %d: ReadAt: %q, %v", at, b, err)
		}
	}
}

// TestTooBig: 12^7 leaves of 256 bytes are all that psize 256 can hold.
func TestTooBig(t *testing.T) {
	const most = 12 * 12 * 12 * 12 * 12 * 12 * 12 * 256
	cfg := hashtree.Config{PSize: 256, DSize: 256}
	st := ventitest.NewMemory()
	if e, _, err := hashtree.Write(t.Context(), st, island{most - 1}, most, cfg); err != nil || e.Depth != 7 {
		t.Errorf("%d bytes: %+v, %v", int64(most), e, err)
	}
	for _, size := range []int64{most + 1, -1, venti.MaxEntrySize + 1} {
		if _, _, err := hashtree.Write(t.Context(), st, island{0}, size, cfg); !errors.Is(err, hashtree.ErrTooBig) {
			t.Errorf("%d bytes: %v, want ErrTooBig", size, err)
		}
	}
	w, err := hashtree.NewWriter(t.Context(), st, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Skip(most); err != nil {
		t.Error(err)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, hashtree.ErrTooBig) {
		t.Errorf("one byte more: %v, want ErrTooBig", err)
	}
	if _, _, err := w.Close(); !errors.Is(err, hashtree.ErrTooBig) {
		t.Errorf("Close: %v, want ErrTooBig", err)
	}
}

func TestBadConfig(t *testing.T) {
	for _, cfg := range []hashtree.Config{
		{DSize: 255}, {PSize: 255}, {DSize: venti.MaxBlockSize + 1}, {PSize: venti.MaxBlockSize + 1}, {DSize: -1},
	} {
		if _, _, err := hashtree.Write(t.Context(), ventitest.NewMemory(), hole{}, 1, cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
		if _, err := hashtree.NewWriter(t.Context(), ventitest.NewMemory(), cfg); err == nil {
			t.Errorf("%+v was accepted by NewWriter", cfg)
		}
	}
	for dsize, want := range map[int]int{256: 256, 512: 500, 1024: 1020, 4096: 4080, 8192: 8180, venti.MaxBlockSize: 57340} {
		if got := hashtree.DefaultPSize(dsize); got != want {
			t.Errorf("DefaultPSize(%d) = %d, want %d", dsize, got, want)
		}
	}
}

// shapes are block sizes whose cells are a level-1 block, or more than one
// cell to a block, or whose pointer blocks have slop.
var shapes = []hashtree.Config{
	{PSize: 260, DSize: 256}, {PSize: 275, DSize: 512}, {PSize: 256, DSize: 1000},
}

// drawFile makes a file of runs of data and zeros.
func drawFile(t *rapid.T, ds int) []byte {
	var data []byte
	for i, n := 0, rapid.IntRange(0, 12).Draw(t, "runs"); i < n; i++ {
		run := rapid.OneOf(
			rapid.IntRange(0, 3*ds), rapid.SampledFrom([]int{ds, 2 * ds, 12 * ds, 13 * ds, 14 * ds, 169 * ds, 12*12*ds + 1}),
		).Draw(t, "run")
		if rapid.Bool().Draw(t, "hole") {
			data = append(data, make([]byte, run)...)
		} else {
			data = append(data, random(uint64(i), run)...)
		}
	}
	return data
}

func TestAgainstReference(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cfg := rapid.SampledFrom(shapes).Draw(rt, "shape")
		cfg.Parallel = rapid.IntRange(1, 4).Draw(rt, "parallel")
		cfg.Dir = rapid.Bool().Draw(rt, "dir")
		data := drawFile(rt, cfg.DSize)
		ref, st := ventitest.NewMemory(), ventitest.NewMemory()
		want := naive(t, ref, data, cfg)

		src := &sparse{data: data, grain: rapid.SampledFrom([]int{1, 100, 256, 512, 4096}).Draw(rt, "grain")}
		got, stats, err := hashtree.Write(t.Context(), st, src, int64(len(data)), cfg)
		if err != nil || got != want {
			rt.Fatalf("Write: got %+v, %v; want %+v", got, err, want)
		}
		if src.grain%cfg.DSize == 0 && src.holes > 0 {
			rt.Fatalf("%d bytes of holes were read", src.holes)
		}
		if ref.Len() != st.Len() {
			rt.Fatalf("%d blocks, want %d", st.Len(), ref.Len())
		}
		tally := stats.Leaves
		if n := tally.Zero.Blocks + tally.Shared.Blocks + tally.Sent.Blocks; n != int64((len(data)+cfg.DSize-1)/cfg.DSize) {
			rt.Fatalf("%d leaves counted", n)
		}

		w, err := hashtree.NewWriter(t.Context(), st, cfg)
		if err != nil {
			rt.Fatal(err)
		}
		for p := data; len(p) > 0; {
			n := min(len(p), rapid.IntRange(1, 20*cfg.DSize).Draw(rt, "write"))
			zeros := len(p) - len(bytes.TrimLeft(p, "\x00"))
			if zeros > 0 && rapid.Bool().Draw(rt, "skip") {
				n = min(zeros, rapid.SampledFrom([]int{1, 256, 1 << 20}).Draw(rt, "skipped"))
				if err := w.Skip(int64(n)); err != nil {
					rt.Fatal(err)
				}
			} else if _, err := w.Write(p[:n]); err != nil {
				rt.Fatal(err)
			}
			p = p[n:]
		}
		got, _, err = w.Close()
		if err != nil || got != want {
			rt.Fatalf("Writer: got %+v, %v; want %+v", got, err, want)
		}
		readBack(t, st, want, data)
	})
}

// TestBase writes a file, edits it, and writes it with the first as a base:
// the tree is the one that is written without, and only what changed is sent.
func TestBase(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cfg := rapid.SampledFrom(shapes).Draw(rt, "shape")
		data := drawFile(rt, cfg.DSize)
		st := ventitest.NewMemory()
		old, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), cfg)
		if err != nil {
			rt.Fatal(err)
		}
		edits := rapid.IntRange(0, 3).Draw(rt, "edits")
		next := bytes.Clone(data)
		for i := range edits {
			switch {
			case len(next) == 0 || rapid.IntRange(0, 4).Draw(rt, "resize") == 0:
				n := rapid.IntRange(0, len(next)+14*cfg.DSize).Draw(rt, "size")
				next = append(next, random(99, max(0, n-len(next)))...)[:n]
			default:
				copy(next[rapid.IntRange(0, len(next)-1).Draw(rt, "at"):], random(uint64(1000+i), 10))
			}
		}
		want, _, err := hashtree.Write(t.Context(), ventitest.NewMemory(), bytes.NewReader(next), int64(len(next)), cfg)
		if err != nil {
			rt.Fatal(err)
		}
		cfg.Base = &old
		before := st.Len()
		got, stats, err := hashtree.Write(t.Context(), noProbe{st}, bytes.NewReader(next), int64(len(next)), cfg)
		if err != nil || got != want {
			rt.Fatalf("with base: got %+v, %v; want %+v", got, err, want)
		}
		if edits == 0 && stats.Leaves.Sent.Blocks+stats.Pointers.Sent.Blocks != 0 {
			rt.Fatalf("unchanged, but sent %+v", stats)
		}
		if bytes.Equal(next, data) && st.Len() != before {
			rt.Fatalf("unchanged, but %d blocks are new", st.Len()-before)
		}
		readBack(t, st, got, next)
	})
}

// noProbe hides what a store can do beyond the contract.
type noProbe struct{ venti.Store }

func TestDirectory(t *testing.T) {
	// 8192/40 = 204 entries to a leaf: 302 take 12112 bytes (spec, section 10).
	for _, tc := range []struct {
		n    int
		size int64
	}{{0, 0}, {1, 40}, {203, 203 * 40}, {204, 8192}, {205, 8232}, {302, 12112}, {408, 16384}} {
		st := ventitest.NewMemory()
		w, err := hashtree.NewWriter(t.Context(), st, hashtree.Config{Dir: true})
		if err != nil {
			t.Fatal(err)
		}
		for i := range tc.n {
			e := venti.Entry{Gen: uint32(i), PSize: 8180, DSize: 8192, Flags: venti.EntryActive, Score: venti.EmptyScore}
			if err := w.WriteEntry(e); err != nil {
				t.Fatal(err)
			}
		}
		e, _, err := w.Close()
		if err != nil || e.Size != tc.size || !e.Dir() {
			t.Errorf("%d entries: %+v, %v; want size %d", tc.n, e, err, tc.size)
		}
		r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if r.Entries() != int64(tc.n) {
			t.Errorf("%d entries, want %d", r.Entries(), tc.n)
		}
		for i := range tc.n {
			if e, err := r.ReadEntry(t.Context(), int64(i)); err != nil || e.Gen != uint32(i) {
				t.Fatalf("entry %d: %+v, %v", i, e, err)
			}
		}
		if _, err := r.ReadEntry(t.Context(), int64(tc.n)); err != io.EOF {
			t.Errorf("entry %d: %v, want EOF", tc.n, err)
		}
	}
}

// TestFaults fails every operation of a write once: it ends with the error,
// and no block was stored before one that it names.
func TestFaults(t *testing.T) {
	data := random(7, 13*13*256+300)
	base := file(t, ventitest.NewMemory(), data[:10_000])
	for _, tc := range []struct {
		name string
		wrap func(venti.Store) venti.Store
		cfg  hashtree.Config
	}{
		{"probing", func(st venti.Store) venti.Store { return st }, tiny},
		{"not probing", func(st venti.Store) venti.Store { return noProbe{st} }, tiny},
		{"with a base", func(st venti.Store) venti.Store { return st }, hashtree.Config{PSize: 260, DSize: 256, Base: &base}},
	} {
		want, _, err := hashtree.Write(t.Context(), ventitest.NewMemory(), bytes.NewReader(data), int64(len(data)), tiny)
		if err != nil {
			t.Fatal(err)
		}
		n, lost := int64(0), 0
		for ; ; n++ {
			st := tc.wrap(ventitest.NewFaulty(ordered{ventitest.NewMemory(), t}, ventitest.FailNth(n)))
			got, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), tc.cfg)
			if err == nil && got != want {
				t.Fatalf("%s: op %d: got %+v, want %+v", tc.name, n, got, want)
			}
			if err != nil && !errors.Is(err, ventitest.ErrFault) {
				t.Fatalf("%s: op %d: %v", tc.name, n, err)
			}
			st = tc.wrap(ventitest.NewFaulty(ordered{ventitest.NewMemory(), t}, ventitest.FailNth(n)))
			w, err2 := hashtree.NewWriter(t.Context(), st, tc.cfg)
			if err2 != nil {
				t.Fatal(err2)
			}
			_, err2 = w.Write(data)
			got, _, err3 := w.Close()
			if err2 != nil && err3 != err2 {
				t.Fatalf("%s: op %d: Write failed with %v, Close with %v", tc.name, n, err2, err3)
			}
			if err3 != nil && !errors.Is(err3, ventitest.ErrFault) {
				t.Fatalf("%s: op %d: Close: %v", tc.name, n, err3)
			}
			if err3 == nil && got != want {
				t.Fatalf("%s: op %d: Writer: got %+v, want %+v", tc.name, n, got, want)
			}
			if err == nil && err3 == nil {
				// A read of the base that fails is no error.
				if lost++; tc.cfg.Base == nil || lost > 50 {
					break
				}
			}
		}
		if n < 150 {
			t.Errorf("%s: only %d operations", tc.name, n)
		}
	}
}

// TestReadFaults fails every operation of a read once.
func TestReadFaults(t *testing.T) {
	mem := ventitest.NewMemory()
	data := random(7, 13*13*256+300)
	e := file(t, mem, data)
	for n := int64(0); ; n++ {
		st := ventitest.NewFaulty(mem, ventitest.FailNth(n))
		r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Export(t.Context(), &memFile{data: make([]byte, len(data))}, nil)
		if err == nil {
			if n < 150 {
				t.Errorf("only %d operations", n)
			}
			break
		}
		if !errors.Is(err, ventitest.ErrFault) {
			t.Fatalf("op %d: Export: %v", n, err)
		}
		// The failure is not remembered.
		got := make([]byte, len(data))
		if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("op %d: ReadAt after the fault: %v", n, err)
		}
		r, err = hashtree.NewReader(ventitest.NewFaulty(mem, ventitest.FailNth(n)), e, hashtree.ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Stream(t.Context(), io.Discard); !errors.Is(err, ventitest.ErrFault) {
			t.Fatalf("op %d: Stream: %v", n, err)
		}
	}
	r, err := hashtree.NewReader(mem, e, hashtree.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Stream(t.Context(), failWriter{}); !errors.Is(err, errWrite) {
		t.Errorf("Stream to a full disk: %v", err)
	}
	if _, err := r.Export(t.Context(), failWriter{}, nil); !errors.Is(err, errWrite) {
		t.Errorf("Export to a full disk: %v", err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	data := random(1, 100_000)
	st := ventitest.NewMemory()
	if _, _, err := hashtree.Write(ctx, st, bytes.NewReader(data), int64(len(data)), tiny); !errors.Is(err, context.Canceled) {
		t.Errorf("Write: %v", err)
	}
	e, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), tiny)
	if err != nil {
		t.Fatal(err)
	}
	r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAtContext(ctx, make([]byte, 5000), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadAtContext: %v", err)
	}
	if _, err := r.Export(ctx, &memFile{data: make([]byte, len(data))}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Export: %v", err)
	}
	if _, err := r.Stream(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("Stream: %v", err)
	}
}

// TestSourceErrors: what a source gets wrong is an error that says where.
func TestSourceErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		src  io.ReaderAt
		want string
	}{
		{"short", strings.NewReader("short"), "unexpected EOF"},
		{"no progress", badSeeker{0, 0, nil}, "find data after 0"},
		{"backwards", badSeeker{-5, 0, nil}, "find data after 0"},
		{"seek error", badSeeker{0, 0, errors.New("boom")}, "boom"},
	} {
		_, _, err := hashtree.Write(t.Context(), ventitest.NewMemory(), tc.src, 1000, tiny)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

type badSeeker struct {
	start, end int64
	err        error
}

func (badSeeker) ReadAt(p []byte, off int64) (int, error)        { return len(p), nil }
func (s badSeeker) NextData(int64) (start, end int64, err error) { return s.start, s.end, s.err }
