package blockcache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"strata/venti"
	"strata/venti/ventitest"
)

// blocks stores n blocks of size bytes.
func blocks(t *testing.T, st venti.Store, n, size int) []venti.Score {
	t.Helper()
	var list []venti.Score
	for i := range n {
		b := make([]byte, size)
		binary.BigEndian.PutUint64(b, uint64(i+1))
		s, err := st.WriteBlock(t.Context(), venti.DataType, b)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

func (c *Cache) used() (n int64) {
	for _, s := range c.shards {
		n += s.Used()
	}
	return n
}

func TestCacheIsBounded(t *testing.T) {
	const limit, n, size = 4 << 20, 2000, 8192
	g := &ventitest.Gate{Memory: ventitest.NewMemory()}
	scores := blocks(t, g, n, size)
	c := New(g, limit)
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			buf := make([]byte, size)
			for i := range n {
				i = (i*7 + k*n/4) % n
				if m, err := c.ReadBlock(t.Context(), scores[i], venti.DataType, buf); err != nil || m != size || binary.BigEndian.Uint64(buf) != uint64(i+1) {
					t.Errorf("block %d: %d bytes, %v", i, m, err)
				}
				if used := c.used(); used > limit {
					t.Errorf("%d bytes are used, at most %d", used, limit)
				}
			}
		})
	}
	wg.Wait()
	kept := 0
	for i, s := range scores {
		b, ok := c.CachedBlock(s, venti.DataType)
		if !ok {
			continue
		}
		kept++
		if binary.BigEndian.Uint64(b) != uint64(i+1) {
			t.Errorf("block %d is another one", i)
		}
		// It is not a block of another type.
		if _, ok := c.CachedBlock(s, venti.DirType); ok {
			t.Error("a block of data is one of a directory")
		}
	}
	if least := limit / (size + blockCost) * 8 / 10; kept < least {
		t.Errorf("%d blocks are kept, want %d at least", kept, least)
	}
	// The blocks used last are the ones that are kept.
	buf := make([]byte, size)
	read := func() int64 {
		before := g.Reads.Load()
		for _, s := range scores[:100] {
			if _, err := c.ReadBlock(t.Context(), s, venti.DataType, buf); err != nil {
				t.Fatal(err)
			}
		}
		return g.Reads.Load() - before
	}
	read()
	if n := read(); n != 0 {
		t.Errorf("of 100 blocks just read %d are read again", n)
	}
}

func TestCacheErrors(t *testing.T) {
	st := ventitest.NewMemory()
	s := blocks(t, st, 1, 100)[0]
	c := New(st, 1<<20)
	if _, err := c.ReadBlock(t.Context(), s, venti.DataType, make([]byte, 50)); !errors.Is(err, venti.ErrTooLong) {
		t.Errorf("into a buffer that is too short: %v", err)
	}
	if _, err := c.ReadBlock(t.Context(), venti.Score{1}, venti.DataType, make([]byte, 50)); !errors.Is(err, venti.ErrNotFound) {
		t.Errorf("a block that is not there: %v", err)
	}
	for _, s := range []venti.Score{venti.EmptyScore, {}} {
		if n, err := c.ReadBlock(t.Context(), s, venti.DataType, nil); n != 0 || err != nil {
			t.Errorf("the empty block: %d, %v", n, err)
		}
	}
	if _, err := c.ReadBlock(t.Context(), s, venti.CorruptType, make([]byte, 100)); !errors.Is(err, venti.ErrBadType) {
		t.Errorf("a bad type: %v", err)
	}
}

// TestOneFetch has many want a block at once: it is fetched once; if who fetches
// it gives up, another does.
func TestOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &ventitest.Gate{Memory: ventitest.NewMemory(), Shut: make(chan struct{})}
		s := blocks(t, g, 1, 100)[0]
		want := make([]byte, 100)
		want[7] = 1
		c := New(g, 1<<20)
		first, giveUp := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.ReadBlock(first, s, venti.DataType, make([]byte, 100)); !errors.Is(err, context.Canceled) {
				t.Errorf("who gave up got %v", err)
			}
		})
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				buf := make([]byte, 100)
				if n, err := c.ReadBlock(t.Context(), s, venti.DataType, buf); n != 100 || err != nil || !bytes.Equal(buf, want) {
					t.Errorf("got %d bytes, %v", n, err)
				}
			})
		}
		synctest.Wait()
		if n := g.Reads.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		giveUp()
		synctest.Wait()
		if n := g.Reads.Load(); n != 2 {
			t.Errorf("%d fetches once the first gave up, want 2", n)
		}
		close(g.Shut)
		wg.Wait()
		if n := g.Reads.Load(); n != 2 {
			t.Errorf("%d fetches in the end, want 2", n)
		}
	})
}
