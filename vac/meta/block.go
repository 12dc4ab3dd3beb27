package meta

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A Magic is the first word of a block. It tells in which order the block's
// index is.
type Magic uint32

// Names are ordered by their bytes, without regard to any language. When one
// is the beginning of the other, the order says which comes first.
const (
	LongerFirst  Magic = 0x5656fc79 // abc, ab: what vac writes
	ShorterFirst Magic = 0x5656fc7a // ab, abc: what fossil writes
)

// A Block is a metadata block and the bytes that it lies in.
//
// A block is
//
//	magic[4] size[2] free[2] maxindex[2] nindex[2]
//	{offset[2] length[2]} * maxindex
//	entries
//
// All integers are big-endian. size counts the bytes in use from the start of
// the block, holes between entries included; free counts the bytes in holes.
// The first nindex slots of the index say where the entries lie, in the order
// of their names. What is not in use is zero. plan9port's vac counts too many
// bytes as free, so free is not relied on where it matters.
//
// Methods that change a block change its bytes at once, and change nothing
// when they fail.
type Block struct {
	buf  []byte
	size int
	free int
	max  int
	n    int

	magic  Magic
	sorted bool // the index is in order; only old blocks of mixed origin are not
}

const (
	headerSize = 12
	indexSize  = 4

	// maxSize is the largest block whose bytes 16 bits can count.
	maxSize = 1<<16 - 1
)

// The errors that callers of a Block's methods tell apart.
var (
	ErrFull  = errors.New("metadata block is full")
	ErrExist = errors.New("name is in the metadata block already")
)

// MaxIndex returns how many entries a block of so many bytes is laid out for
// by vac and fossil.
func MaxIndex(blockSize int) int { return blockSize / 100 }

// New makes buf an empty block for up to maxIndex entries. The block works on
// buf from then on.
func New(buf []byte, maxIndex int, m Magic) *Block {
	clear(buf)
	b := &Block{buf: buf[:min(len(buf), maxSize)], size: headerSize + indexSize*maxIndex, max: maxIndex, magic: m, sorted: true}
	if b.size > len(b.buf) {
		panic(fmt.Sprintf("meta: %d bytes have no room for an index of %d", len(buf), maxIndex))
	}
	b.pack()
	return b
}

// Open returns the block that buf holds, and works on buf from then on. It
// checks that the index is sound and its entries have names; the rest of an
// entry is looked at when it is read. Errors wrap ErrCorrupt.
func Open(buf []byte) (*Block, error) {
	if len(buf) < headerSize {
		return nil, fmt.Errorf("%w: block of %d bytes", ErrCorrupt, len(buf))
	}
	be := binary.BigEndian
	b := &Block{
		buf: buf[:min(len(buf), maxSize)], magic: Magic(be.Uint32(buf)),
		size: int(be.Uint16(buf[4:])), free: int(be.Uint16(buf[6:])),
		max: int(be.Uint16(buf[8:])), n: int(be.Uint16(buf[10:])),
	}
	switch {
	case b.magic != LongerFirst && b.magic != ShorterFirst:
		return nil, fmt.Errorf("%w: block with magic %08x", ErrCorrupt, uint32(b.magic))
	case b.size > len(b.buf) || b.start() > b.size || b.n > b.max:
		return nil, fmt.Errorf("%w: block with %d of %d bytes and %d of %d entries in use", ErrCorrupt, b.size, len(b.buf), b.n, b.max)
	}
	for i := range b.n {
		off, n := b.at(i)
		if off < b.start() || n < 8 || off+n > b.size || be.Uint32(buf[off:]) != direntryMagic ||
			8+int(be.Uint16(buf[off+6:])) > n {
			return nil, fmt.Errorf("%w: entry %d of a block, %d bytes at %d", ErrCorrupt, i, n, off)
		}
	}
	end := b.start()
	for _, i := range b.byOffset() {
		off, n := b.at(i)
		if off < end {
			return nil, fmt.Errorf("%w: entry %d of a block lies on another", ErrCorrupt, i)
		}
		end = off + n
	}
	b.sorted = true
	for i := 1; i < b.n; i++ {
		b.sorted = b.sorted && b.compare(b.name(i-1), b.name(i)) < 0
	}
	return b, nil
}

func (b *Block) start() int { return headerSize + indexSize*b.max }

// at returns where an entry lies and how long it is.
func (b *Block) at(i int) (off, n int) {
	x := b.buf[headerSize+indexSize*i:]
	return int(binary.BigEndian.Uint16(x)), int(binary.BigEndian.Uint16(x[2:]))
}

func (b *Block) setAt(i, off, n int) {
	x := b.buf[headerSize+indexSize*i:]
	binary.BigEndian.PutUint16(x, uint16(off))
	binary.BigEndian.PutUint16(x[2:], uint16(n))
}

// byOffset returns the numbers of the entries in the order in which they lie.
func (b *Block) byOffset() []int {
	list := make([]int, b.n)
	for i := range list {
		list[i] = i
	}
	slices.SortFunc(list, func(i, j int) int {
		oi, _ := b.at(i)
		oj, _ := b.at(j)
		return cmp.Compare(oi, oj)
	})
	return list
}

func (b *Block) name(i int) []byte {
	off, _ := b.at(i)
	n := int(binary.BigEndian.Uint16(b.buf[off+6:]))
	return b.buf[off+8 : off+8+n]
}

// pack writes the header.
func (b *Block) pack() {
	be := binary.BigEndian
	be.PutUint32(b.buf, uint32(b.magic))
	be.PutUint16(b.buf[4:], uint16(b.size))
	be.PutUint16(b.buf[6:], uint16(b.free))
	be.PutUint16(b.buf[8:], uint16(b.max))
	be.PutUint16(b.buf[10:], uint16(b.n))
}

// compare orders names as the block has them.
func (b *Block) compare(x, y []byte) int {
	if b.magic == ShorterFirst {
		return bytes.Compare(x, y)
	}
	n := min(len(x), len(y))
	if c := bytes.Compare(x[:n], y[:n]); c != 0 {
		return c
	}
	return cmp.Compare(len(y), len(x))
}

// Magic returns the block's magic, and with it its order.
func (b *Block) Magic() Magic { return b.magic }

// Bytes returns the bytes that the block works on.
func (b *Block) Bytes() []byte { return b.buf }

// Len returns how many entries the block holds.
func (b *Block) Len() int { return b.n }

// Name returns the name of the i-th entry.
func (b *Block) Name(i int) string { return string(b.name(i)) }

// Packed returns the bytes of the i-th entry. They are the block's own: they
// must not be changed, and are good until the block is.
func (b *Block) Packed(i int) []byte {
	off, n := b.at(i)
	return b.buf[off : off+n : off+n]
}

// Entry returns the i-th entry. Errors wrap ErrCorrupt.
func (b *Block) Entry(i int) (DirEntry, error) { return UnpackDirEntry(b.Packed(i)) }

// Search returns the number of the entry with a name or, where there is none,
// the number that it would have.
func (b *Block) Search(name string) (i int, found bool) {
	if !b.sorted {
		for i := range b.n {
			if string(b.name(i)) == name {
				return i, true
			}
		}
		return b.n, false
	}
	key := []byte(name)
	lo, hi := 0, b.n
	for lo < hi {
		mid := (lo + hi) / 2
		switch c := b.compare(b.name(mid), key); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// Takes tells whether a directory should put another entry of n bytes into
// this block, or rather into its next. One fifth is left for entries to grow.
func (b *Block) Takes(n int) bool {
	return b.n < b.max && n <= len(b.buf)*8/10-b.size+b.free
}

// used returns how many bytes the block needs without holes.
func (b *Block) used() int {
	n := b.start()
	for i := range b.n {
		_, size := b.at(i)
		n += size
	}
	return n
}

// Insert adds an entry. It goes as far as there is room, further than Takes.
// The errors are ErrExist, ErrFull, and those of DirEntry.Append.
func (b *Block) Insert(e *DirEntry) error {
	if _, found := b.Search(e.Name); found {
		return fmt.Errorf("%w: %q", ErrExist, e.Name)
	}
	p, err := e.Append(nil)
	if err != nil {
		return err
	}
	if b.n == b.max || b.used()+len(p) > len(b.buf) {
		return ErrFull
	}
	b.insert(e.Name, p)
	return nil
}

// insert adds a packed entry, for which there is room.
func (b *Block) insert(name string, p []byte) {
	b.sort()
	off := b.allocate(len(p))
	copy(b.buf[off:], p)
	i, _ := b.Search(name)
	index := b.buf[headerSize : headerSize+indexSize*(b.n+1)]
	copy(index[indexSize*(i+1):], index[indexSize*i:])
	b.setAt(i, off, len(p))
	b.n++
	b.pack()
}

// sort puts the index in order.
func (b *Block) sort() {
	if b.sorted {
		return
	}
	type place struct{ off, n int }
	list := make([]place, b.n)
	for i := range list {
		list[i].off, list[i].n = b.at(i)
	}
	name := func(p place) []byte {
		return b.buf[p.off+8 : p.off+8+int(binary.BigEndian.Uint16(b.buf[p.off+6:]))]
	}
	slices.SortStableFunc(list, func(p, q place) int { return b.compare(name(p), name(q)) })
	for i, p := range list {
		b.setAt(i, p.off, p.n)
	}
	b.sorted = true
}

// allocate finds n bytes, for which there is room: behind all entries, or in
// the first hole that is large enough, or behind when the holes are closed.
func (b *Block) allocate(n int) int {
	if b.size+n <= len(b.buf) {
		b.size += n
		return b.size - n
	}
	end := b.start()
	for _, i := range b.byOffset() {
		off, size := b.at(i)
		if off-end >= n {
			b.free = max(b.free-n, 0)
			return end
		}
		end = off + size
	}
	b.compact()
	b.size += n
	return b.size - n
}

// compact closes the holes between entries.
func (b *Block) compact() {
	end := b.start()
	for _, i := range b.byOffset() {
		off, n := b.at(i)
		copy(b.buf[end:], b.buf[off:off+n])
		b.setAt(i, end, n)
		end += n
	}
	clear(b.buf[end:b.size])
	b.size, b.free = end, 0
}

// Remove takes out the i-th entry.
func (b *Block) Remove(i int) {
	off, n := b.at(i)
	clear(b.buf[off : off+n])
	if off+n == b.size {
		b.size = off
	} else {
		b.free = min(b.free+n, maxSize)
	}
	index := b.buf[headerSize : headerSize+indexSize*b.n]
	copy(index[indexSize*i:], index[indexSize*(i+1):])
	clear(index[indexSize*(b.n-1):])
	b.n--
	b.pack()
}

// Replace puts e in the place of the i-th entry, whose name it may change.
// The errors are those of Insert.
func (b *Block) Replace(i int, e *DirEntry) error {
	if j, found := b.Search(e.Name); found && j != i {
		return fmt.Errorf("%w: %q", ErrExist, e.Name)
	}
	p, err := e.Append(nil)
	if err != nil {
		return err
	}
	off, n := b.at(i)
	switch {
	case len(p) == n && string(b.name(i)) == e.Name:
		copy(b.buf[off:], p)
		return nil
	case b.used()-n+len(p) > len(b.buf):
		return ErrFull
	}
	b.Remove(i)
	b.insert(e.Name, p)
	return nil
}

// MiscountFree counts n bytes more as free, which are not. So does plan9port's
// vac when an entry grows: a block with its scores has its errors.
func (b *Block) MiscountFree(n int) {
	b.free = min(b.free+n, maxSize)
	b.pack()
}
