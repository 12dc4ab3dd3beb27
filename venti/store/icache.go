package store

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"strata/venti"
	"strata/venti/internal/index"
)

// indexCache holds entries of the index in memory. All methods may be called
// at once.
//
// Each shard has a fixed table of clean entries, which may be forgotten, in
// memory outside the heap; and three tables of entries that may not be, since
// the index on disk does not have them:
//
//	dirty     new, waiting for a flush
//	flushing  being written to the index by the flush under way, or by the last
//	          one if that failed
//	stuck     had no room in their bucket
//
// It also has the claims of those who are storing a block, so that one block
// is stored once.
type indexCache struct {
	shards [indexShards]indexShard
	sets   uint32 // sets of clean entries in a shard, a power of two
	slots  []slot // the clean tables of all shards

	dirty atomic.Int64 // entries in all dirty and flushing tables
	stuck atomic.Int64 // in all stuck tables
}

const (
	indexShards = 64
	setSize     = 8 // slots in a set, 256 bytes
)

type indexShard struct {
	mu sync.Mutex // guards the fields below

	// clean is sets of setSize slots. What is new comes first in its set, what
	// is found moves up by one, and the last is forgotten. nil when closed.
	clean                  []slot
	dirty, flushing, stuck slotTable
	claims                 map[key]*claim

	_ [64]byte // shards do not share a cache line
}

// A slot is an entry in 32 bytes; addr is 0 if there is none.
type slot struct {
	addr   uint64
	score  [20]byte
	size   uint16
	disk   uint8
	blocks uint8
}

func (s *slot) is(k *key) bool { return s.score == k.score && s.disk == k.disk }

func slotOf(e *index.Entry) slot {
	return slot{e.Addr, e.Score, e.Size, uint8(e.Type), e.Blocks}
}

func (s *slot) entry() index.Entry {
	return index.Entry{Score: s.score, Addr: s.addr, Type: venti.DiskType(s.disk), Size: s.size, Blocks: s.blocks}
}

func (s *slot) key() key { return key{s.score, s.disk} }

// A claim is held by whoever is finding out whether a block is stored, or
// storing it.
type claim struct {
	done chan struct{} // closed when the claim is given up; nil until somebody waits
}

// newIndexCache returns a cache with about size bytes for clean entries.
func newIndexCache(size int64) (*indexCache, error) {
	const setBytes = setSize * 32
	c := &indexCache{sets: uint32(floorPow2(int(max(1, size/(indexShards*setBytes)))))}
	n := int(c.sets) * setSize
	var err error
	if c.slots, err = offHeap[slot](indexShards * n); err != nil {
		return nil, err
	}
	for i := range c.shards {
		c.shards[i].claims = make(map[key]*claim)
		c.shards[i].clean = c.slots[i*n:][:n:n]
	}
	return c, nil
}

// close frees the memory of clean entries.
func (c *indexCache) close() {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.clean = nil
		sh.mu.Unlock()
	}
	release(c.slots)
	c.slots = nil
}

func (c *indexCache) shard(score *[20]byte) *indexShard {
	return &c.shards[score[15]%indexShards]
}

// set returns the clean slots that a score may be in.
func (c *indexCache) set(sh *indexShard, score *[20]byte) []slot {
	if sh.clean == nil {
		return nil
	}
	i := binary.LittleEndian.Uint32(score[8:]) & (c.sets - 1)
	return sh.clean[i*setSize:][:setSize]
}

// get returns the entry of a key.
func (c *indexCache) get(k *key) (slot, bool) {
	sh := c.shard(&k.score)
	sh.mu.Lock()
	s, ok := c.getLocked(sh, k)
	sh.mu.Unlock()
	return s, ok
}

// getLocked is get; sh.mu must be held. Entries that are not in the index
// come first: they may be newer.
func (c *indexCache) getLocked(sh *indexShard, k *key) (slot, bool) {
	for _, t := range [...]*slotTable{&sh.dirty, &sh.flushing, &sh.stuck} {
		if t.n > 0 {
			if s := t.find(k); s != nil {
				return *s, true
			}
		}
	}
	set := c.set(sh, &k.score)
	for i := range set {
		if set[i].is(k) && set[i].addr != 0 {
			s := set[i]
			if i > 0 {
				set[i], set[i-1] = set[i-1], s
			}
			return s, true
		}
	}
	return slot{}, false
}

// putClean adds an entry that the index on disk has. guess means that it was
// not looked up: then it does not replace another.
func (c *indexCache) putClean(s slot, guess bool) {
	sh := c.shard(&s.score)
	sh.mu.Lock()
	c.putCleanLocked(sh, s, guess)
	sh.mu.Unlock()
}

func (c *indexCache) putCleanLocked(sh *indexShard, s slot, guess bool) {
	set := c.set(sh, &s.score)
	if set == nil {
		return
	}
	last := setSize - 1
	k := s.key()
	for i := range set {
		if set[i].addr == 0 {
			last = i
			break
		}
		if set[i].is(&k) {
			if guess {
				return
			}
			last = i
			break
		}
	}
	copy(set[1:last+1], set[:last])
	set[0] = s
}

// putDirty adds an entry that the index on disk does not have.
func (c *indexCache) putDirty(s slot) {
	sh := c.shard(&s.score)
	sh.mu.Lock()
	if sh.dirty.put(s) {
		c.dirty.Add(1)
	}
	sh.mu.Unlock()
}

// claim looks for the entry of a key like get. If there is none, the caller
// gets the claim to the key, to be given up with unclaim; unless somebody else
// has it: then wait is closed once that one gives it up.
func (c *indexCache) claim(k *key, force bool) (s slot, ok bool, wait <-chan struct{}) {
	sh := c.shard(&k.score)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !force {
		if s, ok := c.getLocked(sh, k); ok {
			return s, true, nil
		}
	}
	if cl := sh.claims[*k]; cl != nil {
		if cl.done == nil {
			cl.done = make(chan struct{})
		}
		return slot{}, false, cl.done
	}
	sh.claims[*k] = new(claim)
	return slot{}, false, nil
}

// unclaim gives up the claim to a key.
func (c *indexCache) unclaim(k *key) {
	sh := c.shard(&k.score)
	sh.mu.Lock()
	cl := sh.claims[*k]
	delete(sh.claims, *k)
	sh.mu.Unlock()
	if cl.done != nil {
		close(cl.done)
	}
}

// startFlush makes the dirty entries the flushing ones, of which there are
// none.
func (c *indexCache) startFlush() {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.dirty, sh.flushing = slotTable{}, sh.dirty
		sh.mu.Unlock()
	}
}

// flushing returns the entries that are to be flushed.
func (c *indexCache) flushing() []index.Entry {
	var list []index.Entry
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.flushing.each(func(s *slot) { list = append(list, s.entry()) })
		sh.mu.Unlock()
	}
	return list
}

// addStuck adds entries for which the index on disk has no room.
func (c *indexCache) addStuck(entries []index.Entry) {
	for i := range entries {
		s := slotOf(&entries[i])
		sh := c.shard(&s.score)
		sh.mu.Lock()
		if sh.stuck.put(s) {
			c.stuck.Add(1)
		}
		sh.mu.Unlock()
	}
}

// endFlush tells that the index on disk has what was flushed, but for what is
// left.
func (c *indexCache) endFlush(left []index.Entry) {
	c.addStuck(left)
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		c.dirty.Add(int64(-sh.flushing.n))
		sh.flushing.each(func(s *slot) { c.putCleanLocked(sh, *s, false) })
		sh.flushing = slotTable{}
		sh.mu.Unlock()
	}
}

// clear forgets all clean entries.
func (c *indexCache) clear() {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		clear(sh.clean)
		sh.mu.Unlock()
	}
}

// A slotTable is a set of entries from which none is taken: open-addressed,
// with linear probing, and twice as large whenever it is three quarters full.
type slotTable struct {
	slots []slot
	n     int
}

func (t *slotTable) home(k *key) uint32 {
	return (binary.LittleEndian.Uint32(k.score[8:]) ^ uint32(k.disk)) & uint32(len(t.slots)-1)
}

// find returns the slot of a key, or nil.
func (t *slotTable) find(k *key) *slot {
	if t.n == 0 {
		return nil
	}
	mask := uint32(len(t.slots) - 1)
	for i := t.home(k); t.slots[i].addr != 0; i = (i + 1) & mask {
		if t.slots[i].is(k) {
			return &t.slots[i]
		}
	}
	return nil
}

// put adds s or replaces what has its key, and tells whether it added.
func (t *slotTable) put(s slot) bool {
	k := s.key()
	if have := t.find(&k); have != nil {
		*have = s
		return false
	}
	if t.n >= len(t.slots)*3/4 {
		old := t.slots
		t.slots = make([]slot, max(16, 2*len(old)))
		for i := range old {
			if old[i].addr != 0 {
				t.insert(old[i])
			}
		}
	}
	t.insert(s)
	t.n++
	return true
}

func (t *slotTable) insert(s slot) {
	k := s.key()
	mask := uint32(len(t.slots) - 1)
	i := t.home(&k)
	for t.slots[i].addr != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

func (t *slotTable) each(f func(*slot)) {
	for i := range t.slots {
		if t.slots[i].addr != 0 {
			f(&t.slots[i])
		}
	}
}
