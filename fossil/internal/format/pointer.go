package format

import (
	"bytes"
	"encoding/binary"

	"strata/venti"
)

// PointerSize is the length of a pointer.
const PointerSize = venti.ScoreSize

// A Pointer leads to a block: by its score to one on Venti or, when its first
// sixteen bytes are zero, by the address in the rest to one of the partition.
type Pointer venti.Score

// Hole points to a tree of zeros, whatever its height.
var Hole = Pointer(venti.EmptyScore)

// Local returns the pointer to an address of the partition.
func Local(addr uint32) (p Pointer) {
	binary.BigEndian.PutUint32(p[16:], addr)
	return p
}

// Addr returns the address that p leads to. ok is false when it is a score.
func (p Pointer) Addr() (addr uint32, ok bool) {
	if [16]byte(p[:16]) != [16]byte{} {
		return None, false
	}
	return binary.BigEndian.Uint32(p[16:]), true
}

// IsLocal tells whether p leads to an address.
func (p Pointer) IsLocal() bool { _, ok := p.Addr(); return ok }

// Score returns p as a score, which it is unless it is local.
func (p Pointer) Score() venti.Score { return venti.Score(p) }

// String returns the score, or the address in hexadecimal.
func (p Pointer) String() string {
	if addr, ok := p.Addr(); ok {
		return "0x" + string(appendHex(nil, addr))
	}
	return p.Score().String()
}

func appendHex(b []byte, n uint32) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[n>>shift&15])
	}
	return b
}

// PointerAt returns the i-th pointer of a pointer block.
func PointerAt(b []byte, i int) Pointer { return Pointer(b[i*PointerSize : (i+1)*PointerSize]) }

// PutPointer sets the i-th pointer of a pointer block.
func PutPointer(b []byte, i int, p Pointer) { copy(b[i*PointerSize:(i+1)*PointerSize], p[:]) }

// Extend makes a whole block of what Venti has of a block of type t, which is
// the first n bytes of b: it adds what is left off there. Blocks are also made
// empty so, with n = 0.
func Extend(b []byte, n int, t Type) {
	if t.Level() == 0 {
		clear(b[n:])
		return
	}
	n -= n % PointerSize
	for n+PointerSize <= len(b) {
		n += copy(b[n:], Hole[:])
	}
	clear(b[n:])
}

// Truncate returns what Venti keeps of a block of type t: it leaves off the
// zeros of a leaf, and holes at the end of a pointer block.
func Truncate(b []byte, t Type) []byte {
	if t.Level() == 0 {
		return bytes.TrimRight(b, "\x00")
	}
	n := len(b) - len(b)%PointerSize
	for n > 0 && Pointer(b[n-PointerSize:n]) == Hole {
		n -= PointerSize
	}
	return b[:n]
}
