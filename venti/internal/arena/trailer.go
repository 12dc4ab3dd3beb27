package arena

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"strata/venti"
)

// The versions of an arena. In version 5 every arena has a clump magic of its
// own, so that what an earlier arena left on the disk is never taken for a
// clump; in version 4 all have the same, and the disk has to be zero.
const (
	Version4 = 4
	Version5 = 5

	v4ClumpMagic = 0xd15cb10c
)

const (
	headerMagic  = 0xd15c4ead
	trailerMagic = 0xf2a14ead

	nameSize    = 64
	headerSize4 = 4 + 4 + nameSize + 4 + 8
	headerSize5 = headerSize4 + 4
)

// header is the first block of an arena, which is written once. It repeats
// what the trailer and the partition's table say; where they differ they are
// right.
//
// A packed header is
//
//	magic[4] d15c4ead, version[4], name[64], blocksize[4], size[8], clumpmagic[4]
//
// All integers are big-endian, and the name is padded with NULs. size is that
// of the whole arena. Version 4 has no clumpmagic. The rest of the block is
// zero.
type header struct {
	version    int
	name       string
	blockSize  int
	size       int64
	clumpMagic uint32
}

func (h *header) pack(b []byte) {
	_ = b[headerSize5-1]
	binary.BigEndian.PutUint32(b, headerMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(h.version))
	packName(b[8:8+nameSize], h.name)
	binary.BigEndian.PutUint32(b[72:], uint32(h.blockSize))
	binary.BigEndian.PutUint64(b[76:], uint64(h.size))
	if h.version == Version5 {
		binary.BigEndian.PutUint32(b[84:], h.clumpMagic)
	}
}

// packedSize returns how many bytes pack writes.
func (h *header) packedSize() int {
	if h.version == Version4 {
		return headerSize4
	}
	return headerSize5
}

func unpackHeader(b []byte) (header, error) {
	if len(b) < headerSize5 {
		return header{}, fmt.Errorf("arena header of %d bytes: %w", len(b), ErrFormat)
	}
	if magic := binary.BigEndian.Uint32(b); magic != headerMagic {
		return header{}, fmt.Errorf("arena header has magic %08x, not %08x: %w", magic, uint32(headerMagic), ErrFormat)
	}
	h := header{
		version:    int(binary.BigEndian.Uint32(b[4:])),
		blockSize:  int(binary.BigEndian.Uint32(b[72:])),
		clumpMagic: v4ClumpMagic,
	}
	if h.version != Version4 && h.version != Version5 {
		return h, fmt.Errorf("arena header has version %d: %w", h.version, ErrFormat)
	}
	var err error
	if h.name, err = unpackName(b[8 : 8+nameSize]); err != nil {
		return h, fmt.Errorf("arena header: %w", err)
	}
	if !validBlockSize(h.blockSize) {
		return h, fmt.Errorf("arena header: block size %d: %w", h.blockSize, ErrFormat)
	}
	if h.size, err = unpackSize(b[76:]); err != nil {
		return h, fmt.Errorf("arena header: %w", err)
	}
	if h.version == Version5 {
		h.clumpMagic = binary.BigEndian.Uint32(b[84:])
	}
	return h, nil
}

func packName(b []byte, name string) {
	clear(b[copy(b, name):])
}

func unpackName(b []byte) (string, error) {
	name, _, ok := bytes.Cut(b, []byte{0})
	if !ok || !validName(string(name)) {
		return "", fmt.Errorf("bad name %q: %w", name, ErrFormat)
	}
	return string(name), nil
}

// unpackSize reads eight bytes that count something on a disk.
func unpackSize(b []byte) (int64, error) {
	n := binary.BigEndian.Uint64(b)
	if n > math.MaxInt64 {
		return 0, fmt.Errorf("size %#x: %w", n, ErrFormat)
	}
	return int64(n), nil
}

// Stats counts what is in a log up to some place.
type Stats struct {
	Clumps  uint32 // all, with the corrupt
	CClumps uint32 // those with Size < UncSize
	Used    int64  // bytes of the log, headers included
	UncSize int64  // bytes of the lumps
	Sealed  bool   // no clump will follow
}

// Add counts a clump.
func (s *Stats) Add(c *ClumpInfo) {
	s.Clumps++
	if c.Compressed() {
		s.CClumps++
	}
	s.Used += c.LogSize()
	s.UncSize += int64(c.UncSize)
}

// End returns the place where the next clump goes.
func (s *Stats) End() Pos { return Pos{Off: s.Used, Clump: int(s.Clumps)} }

// A Pos is a place in a log: an offset from its base, and how many clumps
// come before.
type Pos struct {
	Off   int64
	Clump int
}

// A Trailer is the last block of an arena: the truth about it, rewritten in
// place.
//
// A packed trailer is, in version 5,
//
//	  0  magic[4] f2a14ead, version[4], name[64]
//	 72  clumps[4] cclumps[4]           of Disk
//	 80  ctime[4] wtime[4]
//	 88  clumpmagic[4]                  version 5 only
//	 92  used[8] uncsize[8] sealed[1]   of Disk
//	109  extended[1]
//	110  clumps[4] cclumps[4] used[8] uncsize[8] sealed[1]   of Mem
//	 -20 seal[20]                       the end of the block
//
// All integers are big-endian. In version 4 there is no clumpmagic and what
// follows comes four bytes earlier. The last line but one, and extended, are
// zero while Mem equals Disk. What lies between and the seal is left as it is:
// the seal covers it.
type Trailer struct {
	Version      int
	Name         string
	ClumpMagic   uint32
	CTime, WTime uint32 // of the first and the last write, seconds since 1970
	Disk         Stats  // how much of the log is in the index, on stable storage
	Mem          Stats  // how much there is
	Seal         venti.Score
}

const (
	statsOffset   = 8 + nameSize
	clumpMagicLen = 4
	trailerFixed4 = statsOffset + 4 + 4 + 4 + 4 + 8 + 8 + 1 + 1
	extensionSize = 4 + 4 + 8 + 8 + 1
	trailerSize5  = trailerFixed4 + clumpMagicLen + extensionSize
	sealSize      = venti.ScoreSize
)

// Pack writes t to a block, which is the one that was read or zeros, and
// leaves the bytes that have no meaning as they are.
func (t *Trailer) Pack(block []byte) {
	_ = block[trailerSize5+sealSize-1]
	binary.BigEndian.PutUint32(block, trailerMagic)
	binary.BigEndian.PutUint32(block[4:], uint32(t.Version))
	packName(block[8:8+nameSize], t.Name)
	b := block[statsOffset:]
	binary.BigEndian.PutUint32(b, t.Disk.Clumps)
	binary.BigEndian.PutUint32(b[4:], t.Disk.CClumps)
	binary.BigEndian.PutUint32(b[8:], t.CTime)
	binary.BigEndian.PutUint32(b[12:], t.WTime)
	b = b[16:]
	if t.Version == Version5 {
		binary.BigEndian.PutUint32(b, t.ClumpMagic)
		b = b[clumpMagicLen:]
	}
	binary.BigEndian.PutUint64(b, uint64(t.Disk.Used))
	binary.BigEndian.PutUint64(b[8:], uint64(t.Disk.UncSize))
	b[16] = packBool(t.Disk.Sealed)
	b[17] = packBool(t.Mem != t.Disk)
	b = b[18:]
	clear(b[:extensionSize])
	if t.Mem != t.Disk {
		binary.BigEndian.PutUint32(b, t.Mem.Clumps)
		binary.BigEndian.PutUint32(b[4:], t.Mem.CClumps)
		binary.BigEndian.PutUint64(b[8:], uint64(t.Mem.Used))
		binary.BigEndian.PutUint64(b[16:], uint64(t.Mem.UncSize))
		b[24] = packBool(t.Mem.Sealed)
	}
	copy(block[len(block)-sealSize:], t.Seal[:])
}

// UnpackTrailer reads a trailer from its block. It does not know the arena's
// size: see Arena.ReadTrailer.
func UnpackTrailer(block []byte) (Trailer, error) {
	if len(block) < trailerSize5+sealSize {
		return Trailer{}, fmt.Errorf("trailer of %d bytes: %w", len(block), ErrFormat)
	}
	if magic := binary.BigEndian.Uint32(block); magic != trailerMagic {
		return Trailer{}, fmt.Errorf("trailer has magic %08x, not %08x: %w", magic, uint32(trailerMagic), ErrFormat)
	}
	b := block[statsOffset:]
	t := Trailer{
		Version:    int(binary.BigEndian.Uint32(block[4:])),
		ClumpMagic: v4ClumpMagic,
		Disk:       Stats{Clumps: binary.BigEndian.Uint32(b), CClumps: binary.BigEndian.Uint32(b[4:])},
		CTime:      binary.BigEndian.Uint32(b[8:]),
		WTime:      binary.BigEndian.Uint32(b[12:]),
		Seal:       venti.Score(block[len(block)-sealSize:]),
	}
	b = b[16:]
	switch t.Version {
	case Version4:
	case Version5:
		t.ClumpMagic = binary.BigEndian.Uint32(b)
		b = b[clumpMagicLen:]
		if t.ClumpMagic == 0 {
			// The zero word behind the last clump would start another.
			return t, fmt.Errorf("trailer has clump magic 0: %w", ErrFormat)
		}
	default:
		return t, fmt.Errorf("trailer has version %d: %w", t.Version, ErrFormat)
	}
	var err error
	if t.Name, err = unpackName(block[8 : 8+nameSize]); err != nil {
		return t, fmt.Errorf("trailer: %w", err)
	}
	if err := t.Disk.unpackRest(b); err != nil {
		return t, fmt.Errorf("trailer: disk statistics: %w", err)
	}
	t.Mem = t.Disk
	if b[17] != 0 {
		b = b[18:]
		t.Mem = Stats{Clumps: binary.BigEndian.Uint32(b), CClumps: binary.BigEndian.Uint32(b[4:])}
		if err := t.Mem.unpackRest(b[8:]); err != nil {
			return t, fmt.Errorf("trailer: memory statistics: %w", err)
		}
	}
	// An old server left this out; the log cannot grow behind what is sealed.
	t.Mem.Sealed = t.Mem.Sealed || t.Disk.Sealed
	switch {
	case t.Mem.Used < t.Disk.Used && t.Mem.Clumps < t.Disk.Clumps:
		// Plan 9's mirrorarenas leaves what the copy had before.
		sealed := t.Mem.Sealed
		t.Mem = t.Disk
		t.Mem.Sealed = sealed
	case t.Mem.Used < t.Disk.Used || t.Mem.Clumps < t.Disk.Clumps:
		return t, fmt.Errorf("trailer counts more clumps in the index than in the log: %w", ErrFormat)
	}
	return t, nil
}

// unpackRest reads used[8] uncsize[8] sealed[1] and checks what it can.
func (s *Stats) unpackRest(b []byte) (err error) {
	if s.Used, err = unpackSize(b); err != nil {
		return err
	}
	if s.UncSize, err = unpackSize(b[8:]); err != nil {
		return err
	}
	s.Sealed = b[16] != 0
	if s.CClumps > s.Clumps || s.Used < int64(s.Clumps)*(ClumpHeaderSize+1) || (s.Clumps == 0 && s.Used != 0) {
		return fmt.Errorf("%d clumps, %d compressed, in %d bytes: %w", s.Clumps, s.CClumps, s.Used, ErrFormat)
	}
	return nil
}

func packBool(v bool) byte {
	if v {
		return 1
	}
	return 0
}
