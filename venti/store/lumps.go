package store

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"unsafe"

	"strata/venti"
)

// lumpCache holds lumps, uncompressed blocks that were read or written
// lately, in a fixed amount of memory outside the heap. It is split into
// shards by score. All methods may be called at once.
//
// A shard is a ring of records, and a table that finds them. New records go
// to the head; what they need is taken from the tail. A record at the tail
// that was used since it came goes to the head again, so that what is in use
// stays, as in the clock algorithm. Nothing is ever fragmented.
//
// A record, which is contiguous and starts at a multiple of 8, is
//
//	length[4]  of the record, a multiple of 8
//	size[2]    of the data
//	disk[1]    type
//	used[1]    1 after a hit; padding at the end of the ring has padMark
//	score[20]
//	data
//
// in the machine's own memory and byte order.
type lumpCache struct {
	shards []lumpShard
	mask   uint32
	rings  []byte   // of all shards
	tables []uint64 // the same
}

const (
	recordHeader = 4 + 2 + 1 + 1 + venti.ScoreSize
	maxRecord    = (recordHeader + venti.MaxBlockSize + 7) &^ 7
	padMark      = 2

	// minShard is the least memory of a shard: room for a few of the largest
	// records.
	minShard      = 512 << 10
	maxLumpShards = 32

	// lumpSlotBytes is how much of a ring there is for each slot of its table.
	// A table of smaller records is full before the ring is; then the oldest
	// make room.
	lumpSlotBytes = 512

	// maxSecond bounds how many used records one new record moves to the head.
	maxSecond = 8
)

type lumpShard struct {
	mu sync.Mutex // guards the fields below

	ring       []byte // a multiple of 8 long; nil when the cache is closed
	head, tail uint64 // where the next record goes and where the oldest is, counted on and on
	count      int

	// table is open-addressed with linear probing. A slot is 0, or the upper
	// half of a record's hash and where in the ring it is, in units of 8 bytes,
	// plus 1. Slots are never vacated by marks: what follows is moved up.
	table []uint64
	shift uint // of a hash's upper half, to its home slot

	_ [64]byte // shards do not share a cache line
}

// newLumpCache returns a cache of about size bytes.
func newLumpCache(size int64) (*lumpCache, error) {
	n := min(maxLumpShards, floorPow2(int(max(1, size/minShard))))
	c := &lumpCache{shards: make([]lumpShard, n), mask: uint32(n - 1)}
	// A ring gets the memory but for a table of 8 bytes in each lumpSlotBytes.
	ringSize := max(int(size)/n, minShard) * lumpSlotBytes / (lumpSlotBytes + 8) &^ 7
	slots := floorPow2(ringSize / lumpSlotBytes)
	var err error
	if c.rings, err = offHeap[byte](n * ringSize); err != nil {
		return nil, err
	}
	if c.tables, err = offHeap[uint64](n * slots); err != nil {
		release(c.rings)
		return nil, err
	}
	for i := range c.shards {
		sh := &c.shards[i]
		sh.ring = c.rings[i*ringSize:][:ringSize:ringSize]
		sh.table = c.tables[i*slots:][:slots:slots]
		sh.shift = uint(33 - bits.Len(uint(slots)))
	}
	return c, nil
}

// close frees the memory. The cache is empty from now on, and stays so.
func (c *lumpCache) close() {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.ring, sh.table, sh.count = nil, nil, 0
		sh.mu.Unlock()
	}
	release(c.rings)
	release(c.tables)
	c.rings, c.tables = nil, nil
}

// clear forgets all lumps.
func (c *lumpCache) clear() {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.tail, sh.count = sh.head, 0
		clear(sh.table)
		sh.mu.Unlock()
	}
}

// bytes returns how much memory the lumps take that are in the cache.
func (c *lumpCache) bytes() (lumps, size int64) {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		lumps += int64(sh.count)
		size += int64(sh.head - sh.tail)
		sh.mu.Unlock()
	}
	return lumps, size
}

// hashOf mixes the type into bytes of the score that choose neither its
// shard nor its bucket in the index. It is not 0.
func hashOf(k *key) uint32 {
	h := binary.LittleEndian.Uint32(k.score[4:]) ^ uint32(k.disk)*0x9e3779b1
	return max(h, 1)
}

func (c *lumpCache) shard(k *key) *lumpShard {
	return &c.shards[binary.LittleEndian.Uint32(k.score[16:])&c.mask]
}

// get copies the lump to buf if there is room, and returns its size, or ok
// false if it is not there.
func (c *lumpCache) get(k *key, buf []byte) (n int, ok bool) {
	sh := c.shard(k)
	sh.mu.Lock()
	rec := sh.find(k)
	if rec == nil {
		sh.mu.Unlock()
		return 0, false
	}
	rec[7] = 1
	data := recordData(rec)
	if len(data) <= len(buf) {
		copy(buf, data)
	}
	n = len(data)
	sh.mu.Unlock()
	return n, true
}

// same tells whether the lump is there, and whether it is data.
func (c *lumpCache) same(k *key, data []byte) (same, ok bool) {
	sh := c.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	rec := sh.find(k)
	if rec == nil {
		return false, false
	}
	rec[7] = 1
	return string(recordData(rec)) == string(data), true
}

// put adds a lump unless it is there. used counts as the first hit.
func (c *lumpCache) put(k *key, data []byte, used bool) {
	sh := c.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.ring == nil || sh.find(k) != nil {
		return
	}
	n := (recordHeader + len(data) + 7) &^ 7
	at := sh.reserve(n)
	rec := sh.ring[at:][:n]
	*(*uint32)(unsafe.Pointer(&rec[0])) = uint32(n)
	*(*uint16)(unsafe.Pointer(&rec[4])) = uint16(len(data))
	rec[6], rec[7] = k.disk, 0
	if used {
		rec[7] = 1
	}
	copy(rec[8:], k.score[:])
	copy(rec[recordHeader:], data)
	sh.head += uint64(n)
	sh.insert(hashOf(k), at)
}

func recordLen(rec []byte) int { return int(*(*uint32)(unsafe.Pointer(&rec[0]))) }

func recordData(rec []byte) []byte {
	return rec[recordHeader:][:*(*uint16)(unsafe.Pointer(&rec[4]))]
}

// find returns the record of a key, or nil.
func (sh *lumpShard) find(k *key) []byte {
	if sh.count == 0 {
		return nil
	}
	h := hashOf(k)
	mask := uint32(len(sh.table) - 1)
	for i := h >> sh.shift; ; i = (i + 1) & mask {
		slot := sh.table[i]
		if slot == 0 {
			return nil
		}
		if uint32(slot>>32) != h {
			continue
		}
		rec := sh.ring[(uint32(slot)-1)*8:]
		if [20]byte(rec[8:28]) == k.score && rec[6] == k.disk {
			return rec
		}
	}
}

// insert enters the record at a place of the ring in the table.
func (sh *lumpShard) insert(h uint32, at int) {
	mask := uint32(len(sh.table) - 1)
	i := h >> sh.shift
	for sh.table[i] != 0 {
		i = (i + 1) & mask
	}
	sh.table[i] = uint64(h)<<32 | uint64(at/8+1)
	sh.count++
}

// remove takes the record at a place of the ring, which is there, out of the
// table.
func (sh *lumpShard) remove(h uint32, at int) {
	mask := uint32(len(sh.table) - 1)
	want := uint64(h)<<32 | uint64(at/8+1)
	i := h >> sh.shift
	for sh.table[i] != want {
		i = (i + 1) & mask
	}
	// Move up what would not be found past the hole: entries whose home is
	// not in (hole, entry].
	for j := (i + 1) & mask; sh.table[j] != 0; j = (j + 1) & mask {
		home := uint32(sh.table[j]>>32) >> sh.shift
		if (j-home)&mask >= (j-i)&mask {
			sh.table[i] = sh.table[j]
			i = j
		}
	}
	sh.table[i] = 0
	sh.count--
}

// reserve makes room for n bytes at the head, and in the table, and returns
// where in the ring that is. The head does not move, but for padding.
func (sh *lumpShard) reserve(n int) int {
	size := uint64(len(sh.ring))
	second := 0
	for {
		at := sh.head % size
		need := uint64(n)
		if at+need > size {
			need += size - at // pad to the end, and start over
		}
		if sh.head+need-sh.tail <= size && sh.count < len(sh.table)*3/4 {
			if need > uint64(n) {
				*(*uint32)(unsafe.Pointer(&sh.ring[at])) = uint32(size - at)
				sh.ring[at+7] = padMark
				sh.head += size - at
				at = 0
			}
			return int(at)
		}
		sh.evict(&second)
	}
}

// evict takes the record at the tail out of the cache or, if it was used,
// moves it to the head.
func (sh *lumpShard) evict(second *int) {
	size := uint64(len(sh.ring))
	from := sh.tail % size
	rec := sh.ring[from:]
	n := recordLen(rec)
	sh.tail += uint64(n)
	if rec[7] == padMark {
		return
	}
	k := key{[20]byte(rec[8:28]), rec[6]}
	h := hashOf(&k)
	sh.remove(h, int(from))
	to := sh.head % size
	if rec[7] == 0 || *second >= maxSecond || to+uint64(n) > size || sh.head+uint64(n)-sh.tail > size {
		return
	}
	*second++
	rec[7] = 0
	copy(sh.ring[to:], rec[:n]) // the two may overlap
	sh.head += uint64(n)
	sh.insert(h, int(to))
}
