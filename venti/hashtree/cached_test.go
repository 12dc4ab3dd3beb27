package hashtree_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// remembering keeps every block that was read, until told to forget.
type remembering struct {
	venti.BlockReader
	mu     sync.Mutex // guards blocks
	blocks map[venti.Score][]byte
}

func (m *remembering) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	n, err := m.BlockReader.ReadBlock(ctx, s, t, buf)
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.blocks[s] = bytes.Clone(buf[:n])
	}
	return n, err
}

func (m *remembering) CachedBlock(s venti.Score, t venti.Type) ([]byte, bool) {
	b, ok := m.blocks[s]
	return b, ok
}

// A copying remembers as well, and copies what it remembers.
type copying struct {
	venti.BlockReader
	m *remembering
}

func (c copying) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	return c.m.ReadBlock(ctx, s, t, buf)
}

func (c copying) ReadCached(s venti.Score, t venti.Type, buf []byte) (int, bool, error) {
	b, ok := c.m.blocks[s]
	if len(b) > len(buf) {
		return 0, ok, venti.ErrTooLong
	}
	return copy(buf, b), ok, nil
}

func TestReadCached(t *testing.T) {
	t.Run("lent", func(t *testing.T) {
		testReadCached(t, func(m *remembering) venti.BlockReader { return m }, true)
	})
	t.Run("copied", func(t *testing.T) {
		testReadCached(t, func(m *remembering) venti.BlockReader { return copying{m, m} }, false)
	})
}

func testReadCached(t *testing.T, cached func(m *remembering) venti.BlockReader, lends bool) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1, 255, 256, 257, 13 * 256, 13*256 + 1, 13*13*256 + 300} {
		st := ventitest.NewMemory()
		data := random(uint64(size), size)
		for i := 0; i < size/3/256*256; i += 2 * 256 { // holes, and blocks with zeros at their ends
			clear(data[i+100 : i+300])
		}
		clear(data[size/2 : size/2+size/4])
		e := file(t, st, data)
		m := &remembering{BlockReader: st, blocks: map[venti.Score][]byte{}}
		r, err := hashtree.NewReader(cached(m), e, hashtree.ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		hits, misses := 0, 0
		for range 300 {
			off, n := rng.IntN(size+10), rng.IntN(2000)
			got := make([]byte, n)
			if k, ok := r.ReadCached(got, int64(off)); ok {
				want := data[min(off, size):min(off+n, size)]
				if !bytes.Equal(got[:k], want) {
					t.Fatalf("%d bytes: %d at %d differ", size, n, off)
				}
				if lent, ok := r.Lend([][]byte{nil}, n, int64(off)); lends && (!ok || !bytes.Equal(bytes.Join(lent, nil), want)) {
					t.Fatalf("%d bytes: %d at %d lent differ", size, n, off)
				}
				hits++
				continue
			}
			misses++
			if _, err := r.ReadAt(got, int64(off)); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if _, ok := r.ReadCached(got, int64(off)); !ok {
				t.Fatalf("%d bytes: %d at %d were read and are not there", size, n, off)
			}
			for s := range m.blocks { // forget one
				if rng.IntN(2) == 0 {
					delete(m.blocks, s)
				}
				break
			}
		}
		if hits == 0 || misses == 0 {
			t.Errorf("%d bytes: %d reads from memory, %d not", size, hits, misses)
		}
		if _, ok := r.ReadCached(make([]byte, 1), -1); ok {
			t.Error("read at -1")
		}
	}
	// A block that is longer than a leaf is an error, and not half of it.
	st := ventitest.NewMemory()
	e := file(t, st, random(1, 100))
	e.Score = store(t, st, venti.DataType, random(2, 300))
	m := &remembering{BlockReader: st, blocks: map[venti.Score][]byte{e.Score: random(2, 300)}}
	r, err := hashtree.NewReader(cached(m), e, hashtree.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.ReadCached(make([]byte, 10), 0); ok {
		t.Error("a block that is too long is read")
	}
	if r, err = hashtree.NewReader(st, e, hashtree.ReaderConfig{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.ReadCached(make([]byte, 10), 0); ok {
		t.Error("a store without a cache reads at once")
	}
}
