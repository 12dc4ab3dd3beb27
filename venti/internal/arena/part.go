package arena

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"strata/internal/disk"
)

// Where things are in a partition, and how large they may be, in bytes.
const (
	// PartBlank is left alone at the start of a partition, for boot sectors and
	// a configuration.
	PartBlank = 256 << 10

	partHeaderSize = 16  // bytes used
	partHeaderRoom = 512 // bytes reserved

	minBlockSize = 512
	maxBlockSize = 64 << 10

	// MaxArenas is the most that one partition's table lists.
	MaxArenas = 31 << 10
	maxName   = 63

	defaultTableSize = 512 << 10
	maxTableSize     = 8 << 20 // more than MaxArenas of the longest lines
)

const partMagic = 0xa9e4a5e7

// PartVersion is the version of every partition.
const PartVersion = 3

// partHeader is what lies at PartBlank.
//
// A packed header is
//
//	magic[4] a9e4a5e7, version[4] 3, blocksize[4], arenabase[4]
//
// All integers are big-endian. blocksize is a power of two, 512 to 65536.
// arenabase is the offset of the first arena: between the header, rounded up
// to whole blocks, and it lies the table.
type partHeader struct {
	blockSize int
	arenaBase int64
}

func (h *partHeader) pack(b []byte) {
	_ = b[partHeaderSize-1]
	binary.BigEndian.PutUint32(b, partMagic)
	binary.BigEndian.PutUint32(b[4:], PartVersion)
	binary.BigEndian.PutUint32(b[8:], uint32(h.blockSize))
	binary.BigEndian.PutUint32(b[12:], uint32(h.arenaBase))
}

func unpackPartHeader(b []byte) (partHeader, error) {
	if len(b) < partHeaderSize {
		return partHeader{}, fmt.Errorf("header of %d bytes: %w", len(b), ErrFormat)
	}
	h := partHeader{
		blockSize: int(binary.BigEndian.Uint32(b[8:])),
		arenaBase: int64(binary.BigEndian.Uint32(b[12:])),
	}
	if magic := binary.BigEndian.Uint32(b); magic != partMagic {
		return h, fmt.Errorf("header has magic %08x, not %08x: %w", magic, uint32(partMagic), ErrFormat)
	}
	if v := binary.BigEndian.Uint32(b[4:]); v != PartVersion {
		return h, fmt.Errorf("header has version %d, not %d: %w", v, PartVersion, ErrFormat)
	}
	if !validBlockSize(h.blockSize) {
		return h, fmt.Errorf("block size %d: %w", h.blockSize, ErrFormat)
	}
	if h.arenaBase < h.tableBase() {
		return h, fmt.Errorf("arenas at %d, before the table's %d: %w", h.arenaBase, h.tableBase(), ErrFormat)
	}
	return h, nil
}

// tableBase returns the offset of the table.
func (h *partHeader) tableBase() int64 {
	return roundUp(PartBlank+partHeaderRoom, int64(h.blockSize))
}

func validBlockSize(n int) bool {
	return minBlockSize <= n && n <= maxBlockSize && n&(n-1) == 0
}

func roundUp(n, to int64) int64   { return (n + to - 1) / to * to }
func roundDown(n, to int64) int64 { return n / to * to }

// An Extent is a line of a partition's table: an arena, and the bytes that
// are its.
type Extent struct {
	Name        string
	Start, Stop int64 // of the header block; past the trailer block
}

// packTable returns the text of a partition's table, which is
//
//	<n>\n
//	<name>\t<start>\t<stop>\n   n times, in decimal
//
// and, where it is stored, NULs up to the first arena.
func packTable(arenas []Extent) []byte {
	b := fmt.Appendf(nil, "%d\n", len(arenas))
	for _, e := range arenas {
		b = fmt.Appendf(b, "%s\t%d\t%d\n", e.Name, e.Start, e.Stop)
	}
	return b
}

// unpackTable reads a table. The arenas must lie one after the other between
// base and limit, each with room for a header and a trailer of blockSize.
func unpackTable(text []byte, blockSize int, base, limit int64) ([]Extent, error) {
	line, rest, ok := bytes.Cut(text, []byte("\n"))
	n, err := strconv.ParseUint(string(line), 10, 32)
	if !ok || err != nil {
		return nil, fmt.Errorf("table starts with %.20q, not a number: %w", line, ErrFormat)
	}
	if n > MaxArenas {
		return nil, fmt.Errorf("table of %d arenas, more than %d: %w", n, MaxArenas, ErrFormat)
	}
	if int(n) > bytes.Count(rest, []byte("\n")) {
		return nil, fmt.Errorf("table of %d arenas ends early: %w", n, ErrFormat)
	}
	arenas := make([]Extent, n)
	names := make(map[string]bool, n)
	for i := range arenas {
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		f := strings.Split(string(line), "\t")
		if len(f) != 3 {
			return nil, fmt.Errorf("line %d of the table, %.100q, has no three fields: %w", i+2, line, ErrFormat)
		}
		start, err1 := strconv.ParseInt(f[1], 10, 64)
		stop, err2 := strconv.ParseInt(f[2], 10, 64)
		switch {
		case err1 != nil || err2 != nil || start < 0 || stop < 0:
			err = errors.New("has bad numbers")
		case !validName(f[0]):
			err = errors.New("has a bad name")
		case names[f[0]]:
			err = errors.New("repeats a name")
		case start < base || stop > limit:
			err = fmt.Errorf("is outside of %d to %d", base, limit)
		case stop-start < 2*int64(blockSize):
			err = errors.New("is too small for an arena")
		}
		if err != nil {
			return nil, fmt.Errorf("line %d of the table, %.100q, %w: %w", i+2, line, err, ErrFormat)
		}
		arenas[i] = Extent{f[0], start, stop}
		names[f[0]] = true
		base = stop
	}
	return arenas, nil
}

// validName tells whether s can name an arena: printable ASCII, without
// blanks.
func validName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return 0 < len(s) && len(s) <= maxName
}

// A Partition is a file with arenas in it. It does not change.
type Partition struct {
	BlockSize int
	ArenaBase int64    // the offset of the first arena
	Arenas    []Extent // in the order of the log

	file disk.File
}

// OpenPartition reads the header and the table of the partition in f.
func OpenPartition(f disk.File) (*Partition, error) {
	if f.Size() < PartBlank+partHeaderRoom {
		return nil, fmt.Errorf("arena partition of %d bytes: %w", f.Size(), ErrFormat)
	}
	var b [partHeaderSize]byte
	if err := disk.ReadFull(f, b[:], PartBlank); err != nil {
		return nil, fmt.Errorf("arena partition: read header: %w", err)
	}
	h, err := unpackPartHeader(b[:])
	if err != nil {
		return nil, fmt.Errorf("arena partition: %w", err)
	}
	limit := roundDown(f.Size(), int64(h.blockSize))
	if h.arenaBase > limit {
		return nil, fmt.Errorf("arena partition: arenas at %d, past the end at %d: %w", h.arenaBase, limit, ErrFormat)
	}
	text := make([]byte, min(h.arenaBase-h.tableBase(), maxTableSize))
	if err := disk.ReadFull(f, text, h.tableBase()); err != nil {
		return nil, fmt.Errorf("arena partition: read table: %w", err)
	}
	arenas, err := unpackTable(text, h.blockSize, h.arenaBase, limit)
	if err != nil {
		return nil, fmt.Errorf("arena partition: %w", err)
	}
	return &Partition{BlockSize: h.blockSize, ArenaBase: h.arenaBase, Arenas: arenas, file: f}, nil
}

// TableSize returns how many bytes there are for the table.
func (p *Partition) TableSize() int64 {
	h := partHeader{p.BlockSize, p.ArenaBase}
	return h.arenaBase - h.tableBase()
}
