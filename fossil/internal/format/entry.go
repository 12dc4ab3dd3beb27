package format

import (
	"encoding/binary"
	"fmt"

	"strata/venti"
)

// EntrySize is the length of a packed Entry.
const EntrySize = venti.EntrySize

// MaxDepth is the largest number of pointer levels above the leaves.
const MaxDepth = venti.MaxDepth

// Limits on what an entry can say.
const (
	minEntryBlock = 256
	maxEntrySize  = venti.MaxEntrySize
	maxLeaves     = 1 << 31
	retired       = ^uint32(0)
)

// Flags of a packed entry, besides the depth. NoArchive is 0x80 in plan9port's
// Fossil and here; Bell Labs' has 0x40, which other programs take for big block
// sizes that Fossil cannot have. It is read, and never written.
const (
	flagActive       = 0x01
	flagDir          = 0x02
	flagLocal        = 0x20
	flagBellsArchive = 0x40
	flagNoArchive    = 0x80

	depthMask  = 0x1c
	depthShift = 2
)

// An Entry describes a stream: the root of its tree, and its shape. The zero
// Entry is a free slot.
//
// A packed entry is
//
//	gen[4] psize[2] dsize[2] flags[1] 0[5] size[6] score[20]
//
// Where flag 0x20 says that it is local, the twenty bytes of the score are
//
//	0[7] archive[1] snap[4] tag[4] address[4]
type Entry struct {
	Gen       uint32 // how often the slot was freed; the last value is never used again
	PSize     int    // bytes of a pointer block that are used
	DSize     int    // bytes of a leaf block that are used
	Depth     int    // pointer levels
	Active    bool   // the slot is in use
	Dir       bool   // leaves are arrays of entries
	Local     bool   // the root was a block of the partition when the entry was written
	NoArchive bool   // not to be archived
	Size      int64
	Root      Pointer

	// What only local entries have.
	Archive bool   // the snapshot is meant for Venti
	Snap    uint32 // the entry is the root of the snapshot of this epoch, if not 0
	Tag     uint32 // of the stream's blocks
}

// NewEntry returns the entry of an empty stream in a file system of blocks of
// so many bytes.
func NewEntry(blockSize int, dir bool) Entry {
	return Entry{
		PSize: blockSize / PointerSize * PointerSize, DSize: blockSize,
		Active: true, Dir: dir, Root: Hole,
	}
}

// Type returns the type of the root.
func (e *Entry) Type() Type { return e.LeafType() + Type(e.Depth) }

// LeafType returns Dir or Data.
func (e *Entry) LeafType() Type {
	if e.Dir {
		return Dir
	}
	return Data
}

// Pointers returns how many pointers a pointer block has.
func (e *Entry) Pointers() int64 { return int64(e.PSize / PointerSize) }

// Leaves returns how many leaves size bytes are.
func (e *Entry) Leaves(size int64) int64 { return (size + int64(e.DSize) - 1) / int64(e.DSize) }

// DepthFor returns how many pointer levels size bytes need.
func (e *Entry) DepthFor(size int64) int {
	d := 0
	for n := e.Leaves(size); n > 1; d++ {
		n = (n + e.Pointers() - 1) / e.Pointers()
	}
	return d
}

// MaxSize returns the greatest size the stream can have.
func (e *Entry) MaxSize() int64 {
	leaves := int64(1)
	for d := 0; d < MaxDepth && leaves < maxLeaves; d++ {
		leaves *= e.Pointers()
	}
	return min(maxEntrySize, min(leaves, maxLeaves)*int64(e.DSize))
}

// Removed returns what is left in the slot when the stream is removed.
func (e *Entry) Removed() Entry {
	gen := e.Gen
	if gen != retired {
		gen++
	}
	return Entry{Gen: gen, Root: Hole}
}

// Usable tells whether the slot can get a new stream.
func (e *Entry) Usable() bool { return !e.Active && e.Gen != retired }

// Check tells whether a stream can be opened in a file system of blocks of so
// many bytes. Errors wrap ErrEntry.
func (e *Entry) Check(blockSize int) error {
	switch {
	case !e.Active:
		return fmt.Errorf("%w: not in use", ErrEntry)
	case e.PSize < minEntryBlock || e.PSize > blockSize || e.DSize < minEntryBlock || e.DSize > blockSize:
		return fmt.Errorf("%w: blocks of %d and %d bytes", ErrEntry, e.PSize, e.DSize)
	case e.Size > e.MaxSize() || e.Depth < e.DepthFor(e.Size):
		return fmt.Errorf("%w: depth %d for %d bytes", ErrEntry, e.Depth, e.Size)
	case e.Local && e.Tag == 0:
		return fmt.Errorf("%w: local without a tag", ErrEntry)
	case !e.Local && e.Root.IsLocal():
		return fmt.Errorf("%w: address for a score", ErrEntry)
	}
	return nil
}

// ToVenti returns the entry when its tree is on Venti.
func (e *Entry) ToVenti(s venti.Score) Entry {
	v := *e
	v.Local, v.Archive, v.Snap, v.Tag, v.Root = false, false, 0, 0, Pointer(s)
	return v
}

// Pack writes the EntrySize bytes of e to the start of b.
func (e *Entry) Pack(b []byte) {
	clear(b[:EntrySize])
	be := binary.BigEndian
	be.PutUint32(b, e.Gen)
	be.PutUint16(b[4:], uint16(e.PSize))
	be.PutUint16(b[6:], uint16(e.DSize))
	flags := byte(e.Depth) << depthShift & depthMask
	for _, f := range []struct {
		set bool
		bit byte
	}{{e.Active, flagActive}, {e.Dir, flagDir}, {e.Local, flagLocal}, {e.NoArchive, flagNoArchive}} {
		if f.set {
			flags |= f.bit
		}
	}
	b[8] = flags
	be.PutUint16(b[14:], uint16(e.Size>>32))
	be.PutUint32(b[16:], uint32(e.Size))
	copy(b[20:EntrySize], e.Root[:])
	if e.Local {
		if e.Archive {
			b[27] = 1
		}
		be.PutUint32(b[28:], e.Snap)
		be.PutUint32(b[32:], e.Tag)
	}
}

// UnpackEntry reads the entry at the start of b, which has EntrySize bytes.
// What it says need make no sense: see Check.
func UnpackEntry(b []byte) Entry {
	be := binary.BigEndian
	flags := b[8]
	e := Entry{
		Gen: be.Uint32(b), PSize: int(be.Uint16(b[4:])), DSize: int(be.Uint16(b[6:])),
		Depth:  int(flags & depthMask >> depthShift),
		Active: flags&flagActive != 0, Dir: flags&flagDir != 0, Local: flags&flagLocal != 0,
		NoArchive: flags&(flagNoArchive|flagBellsArchive) != 0,
		Size:      int64(be.Uint16(b[14:]))<<32 | int64(be.Uint32(b[16:])),
		Root:      Pointer(b[20:EntrySize]),
	}
	// plan9port's vac leaves the flag set beside a score. A true one does not
	// begin with seven zeros.
	e.Local = e.Local && [7]byte(b[20:27]) == [7]byte{}
	if e.Local {
		e.Archive, e.Snap, e.Tag = b[27] != 0, be.Uint32(b[28:]), be.Uint32(b[32:])
		e.Root = Local(be.Uint32(b[36:]))
	}
	return e
}

// EntryAt returns the i-th entry of a block.
func EntryAt(b []byte, i int) Entry { return UnpackEntry(b[i*EntrySize : (i+1)*EntrySize]) }

// PutEntry sets the i-th entry of a block.
func PutEntry(b []byte, i int, e *Entry) { e.Pack(b[i*EntrySize : (i+1)*EntrySize]) }
