// Package whack is the compression of Venti's clumps: a byte-oriented LZ77
// with a fixed prefix code, and no state shared between blocks. Decode reads
// any valid stream; Encoder makes the same choices as Plan 9's, so that a
// block stored by either server has the same bytes.
//
//	var e whack.Encoder
//	n, ok := e.Encode(dst, block) // ok: dst[:n] is shorter than block
//	m, err := whack.Decode(buf, dst[:n])
//
// A stream is a sequence of literals and matches, bits packed most
// significant first; after the last item zero bits fill the byte. No item is
// shorter than eight bits, so fewer than eight unread bits are the end.
//
// # Literals
//
// A byte below 32 or above 127 is odd. How a literal is coded depends on
// whether one of the last four literals was odd, as all four are taken to be
// at the start; matches do not count.
//
//	one was odd       0 byte[8]
//	32..127           0 byte[7]
//	192..255, 0..31   byte+64 mod 256 in 10 bits, of which the first are 000
//	128..191          byte+64 mod 256 in 11 bits, of which the first are 000
//
// The bytes of the second line never start with 000.
//
// # Matches
//
// A match is a length and a distance, both prefix codes; it copies bytes of
// the output, and may overlap what it makes.
//
//	length 3        10         distance-1 of
//	       4        110        up to 6 bits     000 + 6 bits
//	       5, 6     1110 x     k bits, 7..12    k-6 in 3 bits + low k-1 bits
//	       7        111100     13 bits          1110 + low 12 bits
//	       8, 9     111101 x   14 bits          1111 + low 13 bits
//	       10, 11   1111100 x
//	       12..     see longCode
package whack

const (
	minMatch    = 3
	maxMatch    = 2051
	maxDistance = 1 << 14
	maxBlock    = 1<<16 - 1 // of an Encoder; positions have 16 bits

	longMatch = 12    // the shortest length whose code is computed
	longCode  = 0x1f4 // the code of longMatch
	longBits  = 9     // its length
	longStep  = 4     // how many lengths have codes of longBits bits
)

// isOdd returns 1 for a byte that is not 32..127, else 0.
func isOdd(c byte) uint {
	if c-32 > 127-32 {
		return 1
	}
	return 0
}
