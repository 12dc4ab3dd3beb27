// Package arena is the log of Venti: the bytes of arena partitions, arenas,
// clumps and clump directories, in versions 4 and 5, and what can be done
// with them without an index: format, read, append at a place, scan, sum and
// check.
//
// A partition has a header, a table of the arenas in it, and the arenas. An
// arena is
//
//	start             header block
//	start+blocksize   the log: clumps, packed, growing up; offsets count from here
//	                  ...
//	                  clump directory, growing down
//	stop-blocksize    trailer block, which says how far the log goes
//
// A lump, a client's block, is stored as a clump: a header, and its bytes
// as they are or compressed. A clump's place in the log is a Pos, its offset
// with its number.
//
//	p, err := arena.OpenPartition(f)
//	a, err := p.OpenArena(0)
//	tr, err := a.ReadTrailer()
//	end, err := a.Scan(ctx, arena.Pos{}, tr.Mem.Used, func(c *arena.Clump) error { ... })
//
// An Arena holds no state but its geometry: who appends keeps the trailer in
// memory and writes the log, then the directory, then the trailer, with a
// sync between, so that each never tells of what is not there. Methods that
// write do not sync. Everything is safe for use by several goroutines that
// do not write the same bytes.
//
// What is read is not trusted. A structure that cannot be what it should be
// gives an error that is ErrFormat; a clump whose bytes do not make the lump
// it names, one that is venti.ErrCorrupt; an encoding of a later program's,
// ErrEncoding; a read that failed, none of these.
package arena

import "errors"

// The errors that callers tell apart with errors.Is, besides
// venti.ErrCorrupt.
var (
	ErrFormat   = errors.New("bad format")
	ErrEncoding = errors.New("unknown clump encoding")
)
