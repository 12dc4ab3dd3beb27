package ventitest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"strata/venti"
)

// diskTypes are program types that stand for each disk type once.
var diskTypes = []venti.Type{
	venti.DataType, venti.DirType, venti.RootType,
	venti.DirType + 1, venti.DirType + 2, venti.DirType + 3, venti.DirType + 4,
	venti.DirType + 5, venti.DirType + 6, venti.DirType + 7,
}

// Block returns n bytes that depend on seed and do not compress.
func Block(seed uint64, n int) []byte {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// TestStore tells whether a store keeps the contract that package venti
// states for Store and for each optional ability that it has. open returns a
// store for one subtest, empty or not, which the subtest may share with none;
// it closes it with t.Cleanup.
func TestStore(t *testing.T, open func(t *testing.T) venti.Store) {
	for _, tc := range []struct {
		name string
		test func(t *testing.T, st venti.Store)
	}{
		{"Sizes", testSizes},
		{"Types", testTypes},
		{"BadTypes", testBadTypes},
		{"NotFound", testNotFound},
		{"TooLong", testTooLong},
		{"TooLarge", testTooLarge},
		{"Empty", testEmpty},
		{"Again", testAgain},
		{"Ownership", testOwnership},
		{"Cancelled", testCancelled},
		{"Concurrent", testConcurrent},
		{"Prober", testProber},
		{"CachedReader", testCachedReader},
		{"ScoredWriter", testScoredWriter},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, open(t)) })
	}
}

// write stores data and checks the score that comes back.
func write(t *testing.T, st venti.Store, typ venti.Type, data []byte) venti.Score {
	t.Helper()
	s, err := st.WriteBlock(t.Context(), typ, data)
	if err != nil {
		t.Fatalf("write %d bytes as %v: %v", len(data), typ, err)
	}
	if want := venti.ScoreOf(data); s != want {
		t.Fatalf("write %d bytes as %v: score %v, want %v", len(data), typ, s, want)
	}
	return s
}

// read reads a block into a buffer that has room for more, and checks that
// nothing past the block was written.
func read(t *testing.T, st venti.Store, s venti.Score, typ venti.Type, want []byte) {
	t.Helper()
	const guard = 64
	buf := bytes.Repeat([]byte{0xa5}, len(want)+guard)
	n, err := st.ReadBlock(t.Context(), s, typ, buf)
	if err != nil {
		t.Fatalf("read %v/%v: %v", s, typ, err)
	}
	if !bytes.Equal(buf[:n], want) {
		t.Fatalf("read %v/%v: %d bytes that are not the %d written", s, typ, n, len(want))
	}
	if !bytes.Equal(buf[n:], bytes.Repeat([]byte{0xa5}, guard)) {
		t.Fatalf("read %v/%v: wrote past the %d bytes of the block", s, typ, n)
	}
}

// wantErr checks that err is the sentinel want.
func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %q", what, err, want)
	}
}

func testSizes(t *testing.T, st venti.Store) {
	sizes := []int{1, 2, 3, 19, 20, 21, 63, 64, 65, 255, 256, 300, 511, 512, 1000, 4080, 4095, 4096, 4097,
		8160, 8191, 8192, 8193, 16384, 32768, 40000, 57343, venti.MaxBlockSize}
	scores := make([]venti.Score, len(sizes))
	for i, n := range sizes {
		scores[i] = write(t, st, venti.DataType, Block(1, n))
	}
	zeros := write(t, st, venti.DataType, make([]byte, 5000))
	if err := st.Sync(t.Context()); err != nil {
		t.Fatalf("sync: %v", err)
	}
	for i, n := range sizes {
		read(t, st, scores[i], venti.DataType, Block(1, n))
		// A buffer of just the right size is enough.
		buf := make([]byte, n)
		if got, err := st.ReadBlock(t.Context(), scores[i], venti.DataType, buf); got != n || err != nil {
			t.Errorf("read %d bytes into as many: %d, %v", n, got, err)
		}
	}
	read(t, st, zeros, venti.DataType, make([]byte, 5000))
}

// testTypes checks that the same bytes under two disk types are two blocks,
// and that the two kinds of pointer are one disk type.
func testTypes(t *testing.T, st venti.Store) {
	for i, typ := range diskTypes {
		data := Block(2+uint64(i), 300)
		s := write(t, st, typ, data)
		for _, other := range diskTypes {
			if other == typ {
				read(t, st, s, typ, data)
				continue
			}
			_, err := st.ReadBlock(t.Context(), s, other, make([]byte, 300))
			wantErr(t, fmt.Sprintf("read of a %v block as %v", typ, other), err, venti.ErrNotFound)
		}
	}
	for depth := venti.Type(1); depth <= venti.MaxDepth; depth++ {
		data := Block(20+uint64(depth), 300)
		s := write(t, st, venti.DataType+depth, data)
		read(t, st, s, venti.DataType+depth, data)
		read(t, st, s, venti.DirType+depth, data)
	}
	data := Block(30, 300)
	s := write(t, st, venti.DataType, data)
	write(t, st, venti.DirType, data)
	read(t, st, s, venti.DataType, data)
	read(t, st, s, venti.DirType, data)
}

func testBadTypes(t *testing.T, st venti.Store) {
	data := Block(40, 300)
	s := write(t, st, venti.DataType, data)
	for _, typ := range []venti.Type{venti.RootType + 1, 99, venti.CorruptType} {
		_, err := st.WriteBlock(t.Context(), typ, data)
		wantErr(t, fmt.Sprintf("write as %v", typ), err, venti.ErrBadType)
		_, err = st.ReadBlock(t.Context(), s, typ, make([]byte, 300))
		wantErr(t, fmt.Sprintf("read as %v", typ), err, venti.ErrBadType)
	}
}

func testNotFound(t *testing.T, st venti.Store) {
	for _, n := range []int{0, 1, 300, venti.MaxBlockSize} {
		_, err := st.ReadBlock(t.Context(), venti.ScoreOf(Block(50, 300)), venti.DataType, make([]byte, n))
		wantErr(t, fmt.Sprintf("read of an absent block into %d bytes", n), err, venti.ErrNotFound)
	}
}

func testTooLong(t *testing.T, st venti.Store) {
	for _, size := range []int{1, 300, 4096, venti.MaxBlockSize} {
		s := write(t, st, venti.DataType, Block(60, size))
		for _, n := range []int{0, 1, size / 2, size - 1} {
			if n >= size {
				continue
			}
			_, err := st.ReadBlock(t.Context(), s, venti.DataType, make([]byte, n))
			wantErr(t, fmt.Sprintf("read of %d bytes into %d", size, n), err, venti.ErrTooLong)
		}
	}
}

func testTooLarge(t *testing.T, st venti.Store) {
	for _, n := range []int{venti.MaxBlockSize + 1, 1<<16 - 1, 1 << 16, 1 << 20} {
		_, err := st.WriteBlock(t.Context(), venti.DataType, make([]byte, n))
		wantErr(t, fmt.Sprintf("write of %d bytes", n), err, venti.ErrTooLarge)
	}
	read(t, st, write(t, st, venti.DataType, Block(70, 300)), venti.DataType, Block(70, 300))
}

func testEmpty(t *testing.T, st venti.Store) {
	for _, typ := range diskTypes {
		if s := write(t, st, typ, nil); s != venti.EmptyScore {
			t.Errorf("write of nothing as %v: score %v", typ, s)
		}
		read(t, st, venti.EmptyScore, typ, nil)
		read(t, st, venti.Score{}, typ, nil)
	}
	if n, err := st.ReadBlock(t.Context(), venti.EmptyScore, venti.DataType, nil); n != 0 || err != nil {
		t.Errorf("read of the empty block into no buffer: %d, %v", n, err)
	}
}

func testAgain(t *testing.T, st venti.Store) {
	data := Block(80, 8192)
	for range 3 {
		s := write(t, st, venti.DataType, data)
		read(t, st, s, venti.DataType, data)
		if err := st.Sync(t.Context()); err != nil {
			t.Fatalf("sync: %v", err)
		}
	}
}

// testOwnership scribbles over what was given to WriteBlock as soon as it
// has returned.
func testOwnership(t *testing.T, st venti.Store) {
	buf := make([]byte, 4096)
	var scores []venti.Score
	for i := range 64 {
		copy(buf, Block(90+uint64(i), len(buf)))
		before := bytes.Clone(buf)
		scores = append(scores, write(t, st, venti.DataType, buf))
		if !bytes.Equal(buf, before) {
			t.Fatal("write changed the data")
		}
		clear(buf)
	}
	for i, s := range scores {
		read(t, st, s, venti.DataType, Block(90+uint64(i), len(buf)))
	}
	// Nor is the buffer of a read kept: scribbling over it harms nobody.
	st.ReadBlock(t.Context(), scores[0], venti.DataType, buf)
	clear(buf)
	read(t, st, scores[0], venti.DataType, Block(90, len(buf)))
}

func testCancelled(t *testing.T, st venti.Store) {
	data := Block(160, 4096)
	s := write(t, st, venti.DataType, data)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// A store may answer from memory although ctx has ended; what it must not
	// do is to fail in another way.
	if n, err := st.ReadBlock(ctx, s, venti.DataType, make([]byte, 4096)); err != nil && !errors.Is(err, context.Canceled) || err == nil && n != 4096 {
		t.Errorf("read after cancel: %d, %v", n, err)
	}
	if got, err := st.WriteBlock(ctx, venti.DataType, data); err != nil && !errors.Is(err, context.Canceled) || err == nil && got != s {
		t.Errorf("write after cancel: %v, %v", got, err)
	}
	if err := st.Sync(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("sync after cancel: %v", err)
	}
	read(t, st, s, venti.DataType, data)
}

// testConcurrent writes, reads and syncs from many goroutines, some of the
// blocks shared between them.
func testConcurrent(t *testing.T, st venti.Store) {
	const workers, rounds = 16, 60
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			buf := make([]byte, venti.MaxBlockSize)
			for i := range rounds {
				seed := 1000 + uint64(w*rounds+i)
				if i%3 == 0 {
					seed = 1000000 + uint64(i) // all workers write this one
				}
				size := 1 + int(seed*7919%9000)
				data, typ := Block(seed, size), diskTypes[seed%uint64(len(diskTypes))]
				s, err := st.WriteBlock(t.Context(), typ, data)
				if err != nil || s != venti.ScoreOf(data) {
					t.Errorf("write: %v, %v", s, err)
					return
				}
				if rng.IntN(20) == 0 {
					if err := st.Sync(t.Context()); err != nil {
						t.Errorf("sync: %v", err)
					}
				}
				n, err := st.ReadBlock(t.Context(), s, typ, buf)
				if err != nil || !bytes.Equal(buf[:n], data) {
					t.Errorf("read %v/%v: %d of %d bytes, %v", s, typ, n, size, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func testProber(t *testing.T, st venti.Store) {
	p, ok := st.(venti.Prober)
	if !ok {
		t.Skip("the store is no Prober")
	}
	data := Block(200, 4096)
	has := func(s venti.Score, typ venti.Type, want bool) {
		t.Helper()
		if got, err := p.HasBlock(t.Context(), s, typ); got != want || err != nil {
			t.Errorf("has %v/%v: %v, %v, want %v", s, typ, got, err, want)
		}
	}
	has(venti.ScoreOf(data), venti.DataType, false)
	s := write(t, st, venti.DataType, data)
	has(s, venti.DataType, true)
	has(s, venti.DirType, false)
	has(venti.EmptyScore, venti.DataType, true)
	s = write(t, st, venti.DataType+1, data)
	has(s, venti.DataType+1, true)
	has(s, venti.DirType+1, true)
	if _, err := p.HasBlock(t.Context(), s, venti.CorruptType); !errors.Is(err, venti.ErrBadType) {
		t.Errorf("has a block of a bad type: error %v, want %q", err, venti.ErrBadType)
	}
}

func testCachedReader(t *testing.T, st venti.Store) {
	c, ok := st.(venti.CachedReader)
	if !ok {
		t.Skip("the store is no CachedReader")
	}
	data := Block(210, 4096)
	s := venti.ScoreOf(data)
	if _, ok, err := c.ReadCached(s, venti.DataType, make([]byte, 4096)); ok && !errors.Is(err, venti.ErrNotFound) {
		t.Errorf("an absent block in memory: error %v", err)
	}
	write(t, st, venti.DataType, data)
	read(t, st, s, venti.DataType, data)
	for _, size := range []int{0, 1, 4095, 4096, 5000} {
		buf := bytes.Repeat([]byte{0xa5}, size)
		n, ok, err := c.ReadCached(s, venti.DataType, buf)
		if !ok {
			continue // a store may forget
		}
		if size < len(data) {
			wantErr(t, fmt.Sprintf("cached read into %d bytes", size), err, venti.ErrTooLong)
		} else if err != nil || !bytes.Equal(buf[:n], data) || bytes.Count(buf[n:], []byte{0xa5}) != size-n {
			t.Errorf("cached read into %d bytes: %d, %v", size, n, err)
		}
	}
}

func testScoredWriter(t *testing.T, st venti.Store) {
	w, ok := st.(venti.ScoredWriter)
	if !ok {
		t.Skip("the store is no ScoredWriter")
	}
	for _, n := range []int{1, 4096, venti.MaxBlockSize} {
		data := Block(220, n)
		s := venti.ScoreOf(data)
		for range 2 {
			if err := w.WriteScored(t.Context(), s, venti.DataType, data); err != nil {
				t.Fatalf("write %d bytes: %v", n, err)
			}
			read(t, st, s, venti.DataType, data)
		}
	}
	if err := w.WriteScored(t.Context(), venti.EmptyScore, venti.DataType, nil); err != nil {
		t.Errorf("write of nothing: %v", err)
	}
	large := make([]byte, venti.MaxBlockSize+1)
	wantErr(t, "write of too much", w.WriteScored(t.Context(), venti.ScoreOf(large), venti.DataType, large), venti.ErrTooLarge)
	small := Block(221, 300)
	wantErr(t, "write of a bad type", w.WriteScored(t.Context(), venti.ScoreOf(small), venti.CorruptType, small), venti.ErrBadType)
}
