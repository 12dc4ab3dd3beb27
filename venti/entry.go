package venti

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// EntrySize is the length of a packed Entry in bytes.
const EntrySize = 40

// MinBlockSize is the smallest psize, dsize or root block size that is
// accepted.
const MinBlockSize = 256

// Flags of an Entry as it is stored (spec/venti-protocol.md, section 8). The
// depth lies between them, in the bits of entryDepthMask.
const (
	EntryActive    = 0x01 // the slot is in use
	EntryDir       = 0x02 // leaf blocks are arrays of entries
	EntryLocal     = 0x20 // plan9port's vac leaves it set in what it stores; ignored on reading
	EntryNoArchive = 0x80 // not to be archived

	entryDepthMask  = 0x1c
	entryDepthShift = 2
	entryBig        = 0x40 // psize and dsize are in the big encoding
)

// MaxEntrySize is the largest size a file can have, in bytes.
const MaxEntrySize = 1<<48 - 1

// An Entry describes a file kept as a hash tree.
//
// A packed entry is
//
//	gen[4] psize[2] dsize[2] flags[1] 0[5] size[6] score[20]
//
// All integers are big-endian. When either block size is 65536 or more, flag
// 0x40 is set and both are stored as m<<5 | e for m<<e, m < 2048.
type Entry struct {
	Gen   uint32 // bumped when the slot is reused
	PSize int    // bytes of a pointer block
	DSize int    // bytes of a leaf block
	Depth int    // pointer levels above the leaves, 0..MaxDepth
	Flags uint8  // EntryActive and the like; neither depth nor the big bit
	Size  int64  // bytes in the file
	Score Score  // of the top block
}

// Active tells whether the slot is in use.
func (e *Entry) Active() bool { return e.Flags&EntryActive != 0 }

// Dir tells whether the file's leaves are arrays of entries.
func (e *Entry) Dir() bool { return e.Flags&EntryDir != 0 }

// Type returns the type of the top block.
func (e *Entry) Type() Type { return e.LeafType() + Type(e.Depth) }

// LeafType returns DirType or DataType.
func (e *Entry) LeafType() Type {
	if e.Dir() {
		return DirType
	}
	return DataType
}

// Pack appends the 40 bytes of e to b. It fails when a size cannot be
// encoded.
func (e *Entry) Pack(b []byte) ([]byte, error) {
	if e.Depth < 0 || e.Depth > MaxDepth {
		return b, fmt.Errorf("pack entry: bad depth %d", e.Depth)
	}
	if e.Size < 0 || e.Size > MaxEntrySize {
		return b, fmt.Errorf("pack entry: bad size %d", e.Size)
	}
	if e.PSize < 0 || e.DSize < 0 {
		return b, fmt.Errorf("pack entry: bad block size %d/%d", e.PSize, e.DSize)
	}
	flags := e.Flags&^(entryDepthMask|entryBig) | uint8(e.Depth)<<entryDepthShift
	psize, dsize := e.PSize, e.DSize
	if psize >= 1<<16 || dsize >= 1<<16 {
		flags |= entryBig
		var err error
		if psize, err = packBig(psize); err != nil {
			return b, fmt.Errorf("pack entry: %w", err)
		}
		if dsize, err = packBig(dsize); err != nil {
			return b, fmt.Errorf("pack entry: %w", err)
		}
	}
	b = binary.BigEndian.AppendUint32(b, e.Gen)
	b = binary.BigEndian.AppendUint16(b, uint16(psize))
	b = binary.BigEndian.AppendUint16(b, uint16(dsize))
	b = append(b, flags, 0, 0, 0, 0, 0)
	b = append(b, byte(e.Size>>40), byte(e.Size>>32))
	b = binary.BigEndian.AppendUint32(b, uint32(e.Size))
	return append(b, e.Score[:]...), nil
}

// UnpackEntry reads the 40 bytes at the start of b. An inactive entry is
// not checked. In an active one, block sizes of 0 with the empty score (old
// vac files) become 4096, and any other below MinBlockSize is an error, so
// that packing again need not give the same bytes.
func UnpackEntry(b []byte) (Entry, error) {
	if len(b) < EntrySize {
		return Entry{}, fmt.Errorf("unpack entry: %d bytes, want %d", len(b), EntrySize)
	}
	flags := b[8]
	e := Entry{
		Gen:   binary.BigEndian.Uint32(b),
		PSize: int(binary.BigEndian.Uint16(b[4:])),
		DSize: int(binary.BigEndian.Uint16(b[6:])),
		Depth: int(flags & entryDepthMask >> entryDepthShift),
		Flags: flags &^ (entryDepthMask | entryBig),
		Size:  int64(binary.BigEndian.Uint16(b[14:]))<<32 | int64(binary.BigEndian.Uint32(b[16:])),
		Score: Score(b[20:40]),
	}
	if flags&entryBig != 0 {
		e.PSize, e.DSize = unpackBig(e.PSize), unpackBig(e.DSize)
	}
	if !e.Active() {
		return e, nil
	}
	if e.PSize == 0 && e.DSize == 0 && e.Score == EmptyScore {
		e.PSize, e.DSize = 4096, 4096
	}
	if e.PSize < MinBlockSize || e.DSize < MinBlockSize {
		return e, fmt.Errorf("unpack entry: bad block size %d/%d", e.PSize, e.DSize)
	}
	return e, nil
}

// packBig encodes n as m<<5 | e with the smallest e that makes m < 2048.
func packBig(n int) (int, error) {
	e := max(0, bits.Len(uint(n))-11)
	m := n >> e
	if m<<e != n || e > 31 {
		return 0, fmt.Errorf("block size %d has no big encoding", n)
	}
	return m<<5 | e, nil
}

func unpackBig(v int) int { return v >> 5 << (v & 31) }
