// Package bloom is Venti's Bloom filter: a partition of bits that tells of
// most scores that the index does not hold them, so that the index need not
// be read.
//
//	f, err := bloom.Open(file)
//	f.Add(score)
//	if !f.Has(score) { ... } // certainly absent
//	err = f.Save()           // what changed, in order; then file.Sync()
//	f.Close()
//
// A score must be in the saved and synced filter before the trailer of its
// arena says that the clump is indexed: after a crash the clumps that no
// trailer vouches for are added again. Bits are only ever set, so a torn or
// partial Save does no harm.
//
// A large filter takes a while to read: 512 MiB half a second from memory, and
// several from a disk. Begin is Open without that. Until Load has read the bits,
// Has is true wherever it would need those that are not there yet.
package bloom

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"strata/internal/disk"
	"strata/venti"
)

// A Bloom filter starts at byte 0 of its partition, without a blank area:
//
//	magic[4] version[4] nhash[4] size[4] bits[size-16]
//
// The integers of the header are big-endian. size, a power of two from 1 MiB
// to 512 MiB, counts the whole filter, header included; plan9port's fmtbloom
// -n also makes smaller ones, down to 4 KiB at least. Bit x of the filter
// is bit x%32 of the little-endian 32-bit word x/32; the header lies over
// bits 0 to 127. (Plan 9's program uses the order of the machine it runs on;
// little-endian is that of every filter that matters.)
//
// With w0 to w4 the score as little-endian words, a = w1^w3 and b = w2^w4,
// the score's bits are a+i*b mod 2^32 for i in [0, nhash), each raised to 128
// if it is less, and then taken modulo the number of bits.
//
// That modulus makes some of them fall below 128 after all, where the next
// save packs the header over them, and so Plan 9's program loses blocks whose
// score has such a bit. Here bits 0 to 127 count as set and are never stored,
// which keeps the filter readable by both.
const (
	headerSize  = 16
	magic       = 0xb1004ead
	version     = 1
	headerBits  = headerSize * 8
	headerWords = headerSize / 4

	// MinSize and MaxSize bound the size of a filter that Format makes, in
	// bytes. Open takes any that is at least one chunk.
	MinSize = 1 << 20
	MaxSize = 1 << 29
	// MaxHashes is the most bits that a score sets.
	MaxHashes = 32

	// chunkSize is the least that Save writes.
	chunkSize  = 4 << 10
	chunkWords = chunkSize / 4
	// maxGap is how many clean chunks Save writes rather than begin another
	// write.
	maxGap = 8
	// maxWrite is the most bytes that Save writes at once.
	maxWrite = 1 << 20
)

// A Filter is a Bloom filter in memory. All methods but Close may be called
// at once.
type Filter struct {
	// Immutable after Open.
	file  disk.File
	nhash int
	mem   []byte          // anonymous memory, outside the heap and its pacing
	words []atomic.Uint32 // mem; the first headerWords are all ones
	mask  uint32          // number of bits - 1

	loading sync.Mutex    // held through a Load, which waits for the disk; before saving
	loaded  atomic.Uint64 // bits before this one are those of the file, and what was added; grows with loading held

	// adding is held for reading while a score is added and its chunks are
	// marked, and for writing while Save takes the marks: then every set bit
	// that is not saved is in a marked chunk.
	adding sync.RWMutex
	dirty  []atomic.Uint32 // one bit for each chunk

	saving sync.Mutex // held through Save, which waits for the disk
	buf    []byte     // of maxWrite bytes, once Save was called; guarded by saving
}

// Open reads the filter that file holds. The caller still owns file.
func Open(file disk.File) (*Filter, error) {
	f, err := Begin(file)
	if err != nil {
		return nil, err
	}
	if err := f.Load(context.Background()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Begin is Open, but for the bits, which Load reads.
func Begin(file disk.File) (*Filter, error) {
	head := make([]byte, headerSize)
	if err := disk.ReadFull(file, head, 0); err != nil {
		return nil, fmt.Errorf("bloom filter: read header: %w", err)
	}
	nhash, size, err := unpackHeader(head)
	if err == nil && int64(size) > file.Size() {
		err = fmt.Errorf("size %d is more than the partition's %d", size, file.Size())
	}
	if err != nil {
		return nil, fmt.Errorf("bloom filter: %w", err)
	}
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("bloom filter: map %d bytes: %w", size, err)
	}
	f := &Filter{
		file:  file,
		nhash: nhash,
		mem:   mem,
		words: unsafe.Slice((*atomic.Uint32)(unsafe.Pointer(&mem[0])), len(mem)/4),
		mask:  size*8 - 1,
		dirty: make([]atomic.Uint32, (size/chunkSize+31)/32),
	}
	for i := range headerWords {
		f.words[i].Store(^uint32(0))
	}
	return f, nil
}

// Load reads the bits, or goes on where an earlier call has ended with an error.
// Memory for words that are zero is never touched, so the pages of a young filter
// cost nothing.
func (f *Filter) Load(ctx context.Context) error {
	f.loading.Lock()
	defer f.loading.Unlock()
	buf := make([]byte, maxWrite)
	for off := int(f.loaded.Load() / 8); off < len(f.mem); off += len(buf) {
		if err := ctx.Err(); err != nil {
			return err
		}
		buf = buf[:min(len(buf), len(f.mem)-off)]
		if err := disk.ReadFull(f.file, buf, int64(off)); err != nil {
			return fmt.Errorf("bloom filter: read at %#x: %w", off, err)
		}
		for i := 0; i < len(buf); i += 8 {
			if binary.LittleEndian.Uint64(buf[i:]) != 0 {
				// Some may have been added meanwhile.
				f.words[(off+i)/4].Or(binary.LittleEndian.Uint32(buf[i:]))
				f.words[(off+i)/4+1].Or(binary.LittleEndian.Uint32(buf[i+4:]))
			}
		}
		f.loaded.Store(uint64(off+len(buf)) * 8)
	}
	return nil
}

// Loaded tells whether Load has read all bits.
func (f *Filter) Loaded() bool { return f.loaded.Load() == uint64(len(f.mem))*8 }

// Close gives the memory back without saving. No other call may be under way
// or follow.
func (f *Filter) Close() error {
	f.words = nil
	return unix.Munmap(f.mem)
}

// Size returns the bytes of memory and disk that the filter takes.
func (f *Filter) Size() int { return len(f.mem) }

// Hashes returns how many bits a score sets.
func (f *Filter) Hashes() int { return f.nhash }

// Has tells whether s may have been added; false is certain.
func (f *Filter) Has(s venti.Score) bool {
	loaded := f.loaded.Load() // before the words
	h, step := hashes(s)
	for range f.nhash {
		x := max(h, headerBits) & f.mask
		if f.words[x/32].Load()&(1<<(x%32)) == 0 && uint64(x) < loaded {
			return false
		}
		h += step
	}
	return true
}

// Add makes Has(s) true from now on, and on disk after the next Save and
// sync.
func (f *Filter) Add(s venti.Score) { f.add(s, false) }

// AddAgain is Add for a score that may have been added, and lost, before the
// filter was opened: its bits are saved even if they were found set. They may
// be what the kernel still has of a Save whose sync failed, and no later sync
// would make them durable.
func (f *Filter) AddAgain(s venti.Score) { f.add(s, true) }

func (f *Filter) add(s venti.Score, again bool) {
	f.adding.RLock()
	defer f.adding.RUnlock()
	h, step := hashes(s)
	for range f.nhash {
		x := max(h, headerBits) & f.mask
		if w := &f.words[x/32]; again || w.Load()&(1<<(x%32)) == 0 {
			w.Or(1 << (x % 32))
			chunk := x / 32 / chunkWords
			if d := &f.dirty[chunk/32]; d.Load()&(1<<(chunk%32)) == 0 {
				d.Or(1 << (chunk % 32))
			}
		}
		h += step
	}
}

// Reset makes Has false for every score, on disk after the next Save and
// sync. No Add may be under way.
func (f *Filter) Reset() {
	f.loading.Lock()
	defer f.loading.Unlock()
	f.loaded.Store(uint64(len(f.mem)) * 8)
	f.adding.Lock()
	defer f.adding.Unlock()
	for i := headerWords; i < len(f.words); i++ {
		if f.words[i].Load() != 0 {
			f.words[i].Store(0)
		}
	}
	for chunk := range len(f.mem) / chunkSize {
		f.dirty[chunk/32].Or(1 << (chunk % 32))
	}
}

// hashes returns the first bit of a score and the distance to each next one.
func hashes(s venti.Score) (h, step uint32) {
	return binary.LittleEndian.Uint32(s[4:]) ^ binary.LittleEndian.Uint32(s[12:]),
		binary.LittleEndian.Uint32(s[8:]) ^ binary.LittleEndian.Uint32(s[16:])
}

// Save writes the chunks with bits that were set since they were last
// written, in ascending order. What was added before Save was called is on
// disk when the caller has synced the file. After an error those chunks are
// still to be written. It loads what is not loaded.
func (f *Filter) Save() error {
	if err := f.Load(context.Background()); err != nil {
		return err
	}
	f.saving.Lock()
	defer f.saving.Unlock()
	if f.buf == nil {
		f.buf = make([]byte, maxWrite)
	}
	f.adding.Lock()
	var chunks []int
	for i := range f.dirty {
		for d := f.dirty[i].Swap(0); d != 0; d &= d - 1 {
			chunks = append(chunks, i*32+bits.TrailingZeros32(d))
		}
	}
	f.adding.Unlock()
	for len(chunks) > 0 {
		n := 1
		for n < len(chunks) && chunks[n]-chunks[n-1] <= maxGap && chunks[n]-chunks[0] < maxWrite/chunkSize {
			n++
		}
		if err := f.write(chunks[0], chunks[n-1]-chunks[0]+1); err != nil {
			for _, c := range chunks {
				f.dirty[c/32].Or(1 << (c % 32))
			}
			return fmt.Errorf("bloom filter: write at %#x: %w", chunks[0]*chunkSize, err)
		}
		chunks = chunks[n:]
	}
	return nil
}

// write writes n chunks from the given one on. f.saving must be held.
func (f *Filter) write(first, n int) error {
	buf := f.buf[:n*chunkSize]
	for i := range len(buf) / 4 {
		binary.LittleEndian.PutUint32(buf[4*i:], f.words[first*chunkWords+i].Load())
	}
	if first == 0 {
		packHeader(buf, f.nhash, uint32(len(f.mem)))
	}
	_, err := f.file.WriteAt(buf, int64(first)*chunkSize)
	return err
}

// packHeader writes a header to the start of b.
func packHeader(b []byte, nhash int, size uint32) {
	binary.BigEndian.PutUint32(b, magic)
	binary.BigEndian.PutUint32(b[4:], version)
	binary.BigEndian.PutUint32(b[8:], uint32(nhash))
	binary.BigEndian.PutUint32(b[12:], size)
}

// unpackHeader reads the header at the start of b, of headerSize bytes or
// more.
func unpackHeader(b []byte) (nhash int, size uint32, err error) {
	if m := binary.BigEndian.Uint32(b); m != magic {
		return 0, 0, fmt.Errorf("bad magic %#08x", m)
	}
	if v := binary.BigEndian.Uint32(b[4:]); v != version {
		return 0, 0, fmt.Errorf("unknown version %d", v)
	}
	n := binary.BigEndian.Uint32(b[8:])
	if n < 1 || n > MaxHashes {
		return 0, 0, fmt.Errorf("bad number of hashes %d", n)
	}
	size = binary.BigEndian.Uint32(b[12:])
	if size < chunkSize || size > MaxSize || size&(size-1) != 0 {
		return 0, 0, fmt.Errorf("bad size %d", size)
	}
	return int(n), size, nil
}
