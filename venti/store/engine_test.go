package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/index"
	"strata/venti/ventitest"
)

// blocks returns n different blocks of size bytes.
func blocks(seed uint64, n, size int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = ventitest.Block(seed<<32+uint64(i), size)
	}
	return list
}

// forget empties the caches of what can be read again.
func (s *Store) forget() {
	s.lumps.clear()
	s.index.clear()
}

func TestFullBucket(t *testing.T) {
	sh := small
	sh.sections, sh.secSize, sh.bucket = 1, 1<<10, 512 // a few buckets of 13 entries
	m := sh.format(t)
	s := mustOpen(t, configOf(m))
	list := blocks(1, 100, 300)
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	for range 2 {
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st := s.Stats(); st.StuckEntries == 0 || st.DirtyEntries != 0 {
			t.Fatalf("after a flush: %+v", st)
		}
		s.forget()
		for _, b := range list {
			wantBlock(t, s, venti.DataType, b)
		}
		mustClose(t, s)
		s = mustOpen(t, configOf(m))
	}
	// Past the bound, new blocks are refused; those that are there are not.
	s.maxDirty = s.index.stuck.Load()
	if _, err := s.WriteBlock(t.Context(), venti.DataType, ventitest.Block(2, 300)); !errors.Is(err, venti.ErrFull) {
		t.Errorf("write with too many full buckets: %v", err)
	}
	mustWrite(t, s, venti.DataType, list[99])
	mustSync(t, s)
	mustClose(t, s)
}

// TestOverflow gives the index more than its buckets have room for: with an
// overflow nothing stays in memory, and all of it counts as indexed.
func TestOverflow(t *testing.T) {
	sh := small
	sh.sections, sh.secSize, sh.bucket, sh.further = 1, 8<<10, 512, true
	m := sh.format(t)
	s := mustOpen(t, configOf(m))
	s.maxDirty = 50
	list := blocks(1, 500, 300) // of which some find no room
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.StuckEntries != 0 || st.DirtyEntries != 0 || st.SpiltEntries < 100 {
		t.Errorf("after a flush: %+v", st)
	}
	for range 2 {
		for _, a := range s.Info().Arenas {
			if a.Indexed != a.Written || a.Stuck {
				t.Errorf("arena %s: %v of %v are indexed", a.Name, a.Indexed, a.Written)
			}
		}
		s.forget()
		for _, b := range list {
			wantBlock(t, s, venti.DataType, b)
		}
		s.Tune(Tuning{IgnoreBloom: true})
		for _, b := range blocks(2, 100, 300) {
			if has, err := s.HasBlock(t.Context(), venti.ScoreOf(b), venti.DataType); has || err != nil {
				t.Errorf("has an absent block: %v, %v", has, err)
			}
		}
		mustClose(t, s)
		checkStore(t, m)
		s = mustOpen(t, configOf(m))
	}
	mustClose(t, s)

	// One that is of another index is refused.
	cfg := configOf(m)
	cfg.Overflow = cfg.Bloom
	if _, err := Open(t.Context(), cfg); !errors.Is(err, index.ErrOverflow) {
		t.Errorf("open with a filter for an overflow: %v", err)
	}
}

// TestIndexFails has the index section fail: blocks can be written and synced
// until the entries that it lacks reach the bound; then there is an error,
// not a hang.
func TestIndexFails(t *testing.T) {
	m := small.format(t)
	s := mustOpen(t, configOf(m))
	s.maxDirty = 50
	m.SetHook(func(op disk.Op) error {
		if op.Kind == disk.OpWrite && strings.HasPrefix(op.Disk, "isect") {
			return errFault
		}
		return nil
	})
	list := blocks(1, 200, 300)
	var stored int
	for _, b := range list {
		if _, err := s.WriteBlock(t.Context(), venti.DataType, b); err != nil {
			if !errors.Is(err, errFault) {
				t.Errorf("write: %v", err)
			}
			break
		}
		stored++
	}
	if stored != 50 {
		t.Errorf("%d blocks were stored, want 50", stored)
	}
	mustSync(t, s)
	for _, b := range list[:stored] {
		wantBlock(t, s, venti.DataType, b)
	}
	if err := s.Close(); !errors.Is(err, errFault) {
		t.Errorf("close: %v", err)
	}
	m.SetHook(nil)
	m = m.Crash(rand.New(rand.NewPCG(1, 1)))
	s = mustOpen(t, configOf(m))
	for _, b := range list[:stored] {
		wantBlock(t, s, venti.DataType, b)
	}
	mustClose(t, s)
	checkStore(t, m)
}

// TestIndexBound has more new blocks come than the index cache takes.
func TestIndexBound(t *testing.T) {
	m := small.format(t)
	s := mustOpen(t, configOf(m))
	s.maxDirty = 20
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for _, b := range blocks(uint64(w), 200, 500) {
				if _, err := s.WriteBlock(t.Context(), venti.DataType, b); err != nil {
					t.Error(err)
					return
				}
				if n := s.index.dirty.Load(); n > s.maxDirty+4 {
					t.Errorf("%d dirty entries, more than %d", n, s.maxDirty)
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, s)
	checkStore(t, m)
}

func TestStoreFull(t *testing.T) {
	m := tiny.format(t)
	s := mustOpen(t, configOf(m))
	list := blocks(1, 400, 4000)
	var stored int
	for _, b := range list {
		if _, err := s.WriteBlock(t.Context(), venti.DataType, b); err != nil {
			if !errors.Is(err, venti.ErrFull) {
				t.Errorf("write to a full store: %v", err)
			}
			break
		}
		stored++
	}
	if stored == len(list) || stored < 200 {
		t.Fatalf("%d blocks of 4000 bytes went into 1 MiB", stored)
	}
	mustSync(t, s)
	mustClose(t, s)
	checkStore(t, m)
	s = mustOpen(t, configOf(m))
	for _, b := range list[:stored] {
		wantBlock(t, s, venti.DataType, b)
	}
	if _, err := s.WriteBlock(t.Context(), venti.DataType, list[stored]); !errors.Is(err, venti.ErrFull) {
		t.Errorf("write to a full store, opened again: %v", err)
	}
	mustClose(t, s)
}

// TestSeal fills arenas and waits for their seals, which Check compares.
func TestSeal(t *testing.T) {
	m := tiny.format(t)
	s := mustOpen(t, configOf(m))
	for _, b := range blocks(1, 100, 4000) {
		mustWrite(t, s, venti.DataType, b)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	sealed := func() (n int) {
		for _, a := range s.arenas {
			if tr, err := a.ReadTrailer(); err != nil {
				t.Fatal(err)
			} else if !tr.Seal.IsZero() {
				n++
			}
		}
		return n
	}
	for sealed() < 2 && t.Context().Err() == nil {
		runtime.Gosched()
	}
	mustClose(t, s)
	checkStore(t, m)
}

// clumpAt returns where on its disk a block's clump is, and its arena.
func clumpAt(t *testing.T, s *Store, b []byte) (*logArena, int64) {
	t.Helper()
	k := key{venti.ScoreOf(b), uint8(venti.DiskData)}
	e, ok, err := s.find(&k, false)
	if !ok || err != nil {
		t.Fatalf("find: %v, %v", ok, err)
	}
	a, off, _ := s.arenaOf(e.addr)
	return a, off
}

// spoil changes a byte of a disk.
func spoil(t *testing.T, f disk.File, off int64) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0]++
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// TestCorrupt spoils a clump: its block is corrupt, not absent, and storing
// it again heals it for good.
func TestCorrupt(t *testing.T) {
	ctx := t.Context()
	m := small.format(t)
	s := mustOpen(t, configOf(m))
	list := blocks(1, 20, 3000)
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	a, off := clumpAt(t, s, list[7])
	mustClose(t, s)
	spoil(t, m.Disk("arenas0"), a.Base()+off+arena.ClumpHeaderSize+99)

	s = mustOpen(t, configOf(m))
	score := venti.ScoreOf(list[7])
	_, err := s.ReadBlock(ctx, score, venti.DataType, make([]byte, 3000))
	want := fmt.Sprintf("loading clump: corrupted at %s %d; expected=%v got=", a.Name, off, score)
	if !errors.Is(err, venti.ErrCorrupt) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("read of a spoilt clump: %v\nwant %s", err, want)
	}
	if has, err := s.HasBlock(ctx, score, venti.DataType); has || err != nil {
		t.Errorf("has the spoilt block: %v, %v", has, err)
	}
	mustWrite(t, s, venti.DataType, list[7])
	for range 2 {
		s.forget()
		for _, b := range list {
			wantBlock(t, s, venti.DataType, b)
		}
		if has, err := s.HasBlock(ctx, score, venti.DataType); !has || err != nil {
			t.Errorf("has the healed block: %v, %v", has, err)
		}
		mustClose(t, s)
		s = mustOpen(t, configOf(m))
	}
	mustClose(t, s)
}

// TestDamagedTail spoils a clump that no trailer counts yet. Those behind it
// are found all the same.
func TestDamagedTail(t *testing.T) {
	m := small.format(t)
	s := mustOpen(t, configOf(m))
	list := blocks(1, 20, 3000)
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	mustSync(t, s)
	a, off := clumpAt(t, s, list[7])
	m2 := m.Crash(rand.New(rand.NewPCG(1, 1)))
	mustClose(t, s)
	spoil(t, m2.Disk("arenas0"), a.Base()+off+arena.ClumpHeaderSize+99)
	cfg := configOf(m2)
	cfg.Logger = testLog(t)
	s = mustOpen(t, cfg)
	if st := s.Stats(); st.Clumps != 20 {
		t.Errorf("%d clumps were recovered, want 20", st.Clumps)
	}
	if has, err := s.HasBlock(t.Context(), venti.ScoreOf(list[7]), venti.DataType); has || err != nil {
		t.Errorf("has the spoilt block: %v, %v", has, err)
	}
	mustWrite(t, s, venti.DataType, list[7])
	for _, b := range list {
		wantBlock(t, s, venti.DataType, b)
	}
	mustClose(t, s)
}

// TestLearn reads what was written, in order, with caches that are empty at
// first: the directories save nearly all reads of the index.
func TestLearn(t *testing.T) {
	m := small.format(t)
	cfg := configOf(m)
	cfg.IndexMem = 1 << 20
	s := mustOpen(t, cfg)
	list := blocks(1, 3000, 600)
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	mustClose(t, s)
	s = mustOpen(t, cfg)
	for _, b := range list {
		wantBlock(t, s, venti.DataType, b)
	}
	if n := s.Stats().IndexReads; n > 20 {
		t.Errorf("reading 3000 blocks in order took %d reads of the index", n)
	}
	s.forget()
	before := s.Stats().IndexReads
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	st := s.Stats()
	if n := st.IndexReads - before; n > 20 {
		t.Errorf("writing 3000 blocks again in order took %d reads of the index", n)
	}
	if st.NewBlocks != 0 || st.DupBlocks != 3000 {
		t.Errorf("%d blocks were new, %d were there", st.NewBlocks, st.DupBlocks)
	}
	mustClose(t, s)
}

// TestGroupCommit holds the first sync until all clients wait for one. The
// rest share the next. Meanwhile what is not written yet can be read.
func TestGroupCommit(t *testing.T) {
	const clients = 64
	m := small.format(t)
	s := mustOpen(t, configOf(m))
	defer mustClose(t, s)
	if err := s.bloom.Load(t.Context()); err != nil { // or writes read the index, which waits for the held disk
		t.Fatal(err)
	}
	mustWrite(t, s, venti.DataType, []byte("so that the arena is prepared"))
	mustSync(t, s)
	before := s.Stats()
	held, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m.SetHook(func(op disk.Op) error {
		if op.Kind == disk.OpSync {
			once.Do(func() { close(held); <-goOn })
		}
		return nil
	})
	list := blocks(1, clients, 3000)
	var wg sync.WaitGroup
	client := func(b []byte) {
		wg.Go(func() {
			if _, err := s.WriteBlock(t.Context(), venti.DataType, b); err != nil {
				t.Error(err)
			}
			if err := s.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	client(list[0])
	<-held
	for _, b := range list[1:] {
		client(b)
	}
	for s.Stats().Syncs < before.Syncs+clients {
		runtime.Gosched()
	}
	s.lumps.clear()
	for _, b := range list[1:] {
		wantBlock(t, s, venti.DataType, b)
	}
	close(goOn)
	wg.Wait()
	if n := s.Stats().LogSyncs - before.LogSyncs; n != 2 {
		t.Errorf("%d clients took %d syncs, want 2", clients, n)
	}
}

// TestLumpCache compares the cache with a map, at random.
func TestLumpCache(t *testing.T) {
	c, err := newLumpCache(2 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	rng := rand.New(rand.NewPCG(1, 1))
	type lump struct {
		k    key
		data []byte
	}
	var all []lump
	for i := range 3000 {
		b := ventitest.Block(uint64(i), 1+rng.IntN(1<<rng.IntN(16)))
		b = b[:min(len(b), venti.MaxBlockSize)]
		all = append(all, lump{key{venti.ScoreOf(b), uint8(i % 3)}, b})
	}
	buf := make([]byte, venti.MaxBlockSize)
	hits := 0
	for i := range 60000 {
		// Low numbers are asked for more often.
		l := &all[rng.IntN(1+rng.IntN(len(all)))]
		n, ok := c.get(&l.k, buf)
		if !ok {
			c.put(&l.k, l.data, rng.IntN(2) == 0)
			n, ok = c.get(&l.k, buf)
		} else {
			hits++
		}
		if !ok || string(buf[:n]) != string(l.data) {
			t.Fatalf("operation %d: lump of %d bytes: got %d, %v", i, len(l.data), n, ok)
		}
		other := l.k
		other.disk += 100
		if _, ok := c.get(&other, buf); ok {
			t.Fatal("found a lump of another type")
		}
	}
	if n, size := c.bytes(); n < 100 || size > 2<<20 || hits < 10000 {
		t.Errorf("%d lumps in %d bytes, %d hits", n, size, hits)
	}
	c.clear()
	if _, ok := c.get(&all[0].k, buf); ok {
		t.Error("found a lump after clear")
	}
}

func TestOpenRefuses(t *testing.T) {
	good := func() Config { return configOf(small.format(t)) }
	for _, tc := range []struct {
		name string
		cfg  func(*Config)
		err  string
	}{
		{"compression", func(c *Config) { c.Compression = "zip" }, "unknown compression"},
		{"no sections", func(c *Config) { c.Sections = nil }, "no sections"},
		{"another index", func(c *Config) { c.Index = "other" }, "part of index test"},
		{"one section", func(c *Config) { c.Sections = c.Sections[:1] }, "it has 2 sections"},
		{"no arenas", func(c *Config) { c.Arenas = nil }, "missing"},
		{"not arenas", func(c *Config) { c.Arenas[0] = c.Bloom }, "magic"},
		{"not a filter", func(c *Config) { c.Bloom = c.Arenas[0] }, "bad magic"},
	} {
		cfg := good()
		tc.cfg(&cfg)
		s, err := Open(t.Context(), cfg)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.err)
		}
	}
}

func TestClosed(t *testing.T) {
	s := mustOpen(t, configOf(small.format(t)))
	score := mustWrite(t, s, venti.DataType, []byte("x"))
	mustClose(t, s)
	mustClose(t, s) // again does nothing
	if _, err := s.ReadBlock(t.Context(), score, venti.DataType, make([]byte, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.WriteBlock(t.Context(), venti.DataType, []byte("y")); !errors.Is(err, ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if err := s.Sync(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("sync: %v", err)
	}
	if err := s.Flush(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("flush: %v", err)
	}
}

// A heldFile is a partition whose writes wait while it is held.
type heldFile struct {
	disk.File
	gate   sync.RWMutex // write-locked while it is held
	writes atomic.Int64 // that came, held ones too
}

func (f *heldFile) WriteAt(b []byte, off int64) (int, error) {
	f.writes.Add(1)
	f.gate.RLock()
	defer f.gate.RUnlock()
	return f.File.WriteAt(b, off)
}

// TestPartitionsInParallel holds the writes of one partition: what is written
// goes to another meanwhile. Little that is written and synced stays in one.
func TestPartitionsInParallel(t *testing.T) {
	sh := small
	sh.parts, sh.partSize, sh.secSize = 3, 16<<20, 1<<20
	m := sh.format(t)
	cfg := configOf(m)
	files := make([]*heldFile, sh.parts)
	for i := range files {
		files[i] = &heldFile{File: cfg.Arenas[i]}
		cfg.Arenas[i] = files[i]
	}
	s := mustOpen(t, cfg)
	list := blocks(1, 400, 30000)
	for _, b := range list[:20] {
		mustWrite(t, s, venti.DataType, b)
		mustSync(t, s)
	}
	var busy []int
	for i, f := range files {
		if f.writes.Load() > 0 {
			busy = append(busy, i)
		}
	}
	if len(busy) != 1 {
		t.Fatalf("blocks that were synced one by one went to partitions %v", busy)
	}
	held := files[busy[0]]
	held.gate.Lock()
	for _, b := range list[20:] {
		mustWrite(t, s, venti.DataType, b)
	}
	for _, b := range list {
		wantBlock(t, s, venti.DataType, b)
	}
	for i, f := range files {
		for f.writes.Load() == 0 && !t.Failed() {
			runtime.Gosched()
		}
		t.Logf("partition %d: %d writes", i, f.writes.Load())
	}
	held.gate.Unlock()
	mustSync(t, s)
	mustClose(t, s)
	checkStore(t, m)
	s = mustOpen(t, configOf(m))
	defer mustClose(t, s)
	for _, b := range list {
		wantBlock(t, s, venti.DataType, b)
	}
}

func TestCacheSizes(t *testing.T) {
	for _, tc := range []struct {
		cfg          Config
		lumps, index int64
	}{
		{Config{}, 64 << 20, 64 << 20},
		{Config{Memory: 100 << 20}, 16 << 20, 16 << 20},
		{Config{Memory: 8 << 30}, 512 << 20, 512 << 20},
		{Config{Memory: 1 << 40}, 1 << 30, 1 << 30},
		{Config{Memory: 8 << 30, LumpMem: 5}, 5, 512 << 20},
		{Config{Memory: 8 << 30, Caches: 96 << 20}, 32 << 20, 64 << 20},
		{Config{Memory: 8 << 30, Caches: 96 << 20, IndexMem: 7}, 32 << 20, 7},
		{Config{Memory: 8 << 30, IndexMem: 5}, 512 << 20, 5},
	} {
		if lumps, index := tc.cfg.caches(); lumps != tc.lumps || index != tc.index {
			t.Errorf("%+v: %d and %d, want %d and %d", tc.cfg, lumps, index, tc.lumps, tc.index)
		}
	}
}

// TestLostTrailer destroys a trailer: Open makes it again from the log. If a
// clump's header is destroyed too, nothing is written over what follows it.
func TestLostTrailer(t *testing.T) {
	for _, torn := range []bool{false, true} {
		t.Run(fmt.Sprintf("torn=%v", torn), func(t *testing.T) {
			m := small.format(t)
			s := mustOpen(t, configOf(m))
			list := blocks(1, 40, 3000)
			for _, b := range list {
				mustWrite(t, s, venti.DataType, b)
			}
			a := s.arenas[0]
			start, stop := a.Base(), a.Stop-int64(a.BlockSize)
			mustClose(t, s)
			f := m.Disk("arenas0")
			if _, err := f.WriteAt(make([]byte, 512), stop); err != nil {
				t.Fatal(err)
			}
			const whole = 10
			readable := list
			if torn {
				readable = list[:whole]
				if _, err := f.WriteAt(make([]byte, arena.ClumpHeaderSize), start+whole*(3000+arena.ClumpHeaderSize)+2); err != nil {
					t.Fatal(err)
				}
			}
			before := make([]byte, stop-start-8192)
			if _, err := f.ReadAt(before, start); err != nil {
				t.Fatal(err)
			}
			cfg := configOf(m)
			cfg.Logger = testLog(t)
			s = mustOpen(t, cfg)
			more := blocks(2, 20, 3000)
			for _, b := range more {
				mustWrite(t, s, venti.DataType, b)
			}
			mustSync(t, s)
			for range 2 {
				for _, b := range append(more, readable...) {
					wantBlock(t, s, venti.DataType, b)
				}
				mustClose(t, s)
				s = mustOpen(t, configOf(m))
			}
			mustClose(t, s)
			after := make([]byte, len(before))
			if _, err := f.ReadAt(after, start); err != nil {
				t.Fatal(err)
			}
			if torn != bytes.Equal(before, after) {
				t.Errorf("the log was changed: %v", !torn)
			}
		})
	}
}
