package whack

import (
	"encoding/binary"
	"math/bits"
)

const (
	hashBits = 14
	hashMul  = 0x6b43a9b5
	ringSize = maxDistance // positions whose predecessor is remembered
	ringMask = ringSize - 1

	maxTries  = 48 // candidates that are looked at
	goodMatch = 48 // a longer match ends the search
)

// An Encoder holds the tables of one compression: some 64 KiB, which is why
// it is kept and used again. Its zero value is ready. It serves one Encode at
// a time.
//
// Positions are the offset in the block plus 32768, in 16 bits, as Plan 9's
// are, because the wrap-around shows in the output: an empty slot of head is
// 0, and that is a real position, offset 32768, to those that come after it.
// Up to there it is further than maxDistance away and ends a chain.
type Encoder struct {
	head [1 << hashBits]uint16 // newest position with a hash, 0 at the start
	prev [ringSize]uint16      // position before, with the same hash; set before it is read
}

const firstPosition = 32768

// Encode compresses src into dst, which must be at least as long, and
// returns how many bytes of it were used. It returns false, with dst
// undefined, if that would not be fewer than the bytes of src or if Plan 9's
// encoder would have given up. src is at most 65535 bytes.
func (e *Encoder) Encode(dst, src []byte) (n int, ok bool) {
	if len(src) < minMatch || len(src) > maxBlock {
		return 0, false
	}
	// prev is only read where this call has written it: every position that a
	// chain leads to was entered before. So head alone is made new.
	clear(e.head[:])

	var (
		out      = dst[:len(src)]
		acc      uint64                // bits not yet in out, in the low end
		nbits    int                   // how many
		last     = len(src) - minMatch // the last position with a hash
		history  = uint(0xf)           // the oddness of the last four literals, newest in bit 0
		literals = 0
		halfway  = false // the one check for a hopeless block was made
	)
	for p := 0; p < len(src); {
		// Most positions of what does not compress have no candidate, so the
		// head of the chain is looked at here.
		length, distance := 0, 0
		if p <= last {
			h := hash(src, p)
			now := uint16(p + firstPosition)
			cand := e.head[h]
			if d := int(now - cand); d != 0 && d <= maxDistance {
				length, distance = e.match(src, p, d)
			}
			e.prev[p&ringMask] = cand
			e.head[h] = now
		}
		if length == 0 {
			literals++
			if !halfway && p > len(src)/2 {
				if 4*p < 5*literals {
					return 0, false
				}
				halfway = true
			}
			c := src[p]
			switch {
			case history != 0:
				acc, nbits = acc<<9|uint64(c), nbits+9
			case isOdd(c) == 0:
				acc, nbits = acc<<8|uint64(c), nbits+8
			case c+64 < 96:
				acc, nbits = acc<<10|uint64(c+64), nbits+10
			default:
				acc, nbits = acc<<11|uint64(c+64), nbits+11
			}
			history = history<<1&0xf | isOdd(c)
			p++
		} else {
			// No length has more than 24 bits, no distance more than 17.
			code, k := lengthCode(length)
			acc, nbits = acc<<k|code, nbits+k
			if n, nbits = flush(out, n, acc, nbits); nbits >= 32 {
				return 0, false
			}
			code, k = distanceCode(distance)
			acc, nbits = acc<<k|code, nbits+k
			e.enter(src, p+1, min(p+length, last+1))
			p += length
		}
		if n, nbits = flush(out, n, acc, nbits); nbits >= 32 {
			return 0, false
		}
	}
	acc <<= 64 - nbits
	for ; nbits > 0; nbits -= 8 {
		if n == len(out) {
			return 0, false
		}
		out[n] = byte(acc >> 56)
		acc <<= 8
		n++
	}
	return n, n < len(out)
}

// flush writes 32 of acc's nbits bits to out[n:] if there are as many, and
// returns what becomes of n and nbits. If out has no room they stay.
func flush(out []byte, n int, acc uint64, nbits int) (int, int) {
	if nbits >= 32 && n+4 <= len(out) {
		binary.BigEndian.PutUint32(out[n:], uint32(acc>>(nbits-32)))
		return n + 4, nbits - 32
	}
	return n, nbits
}

// hash is the slot of head for the three bytes at i.
func hash(b []byte, i int) uint32 {
	b = b[i : i+minMatch]
	return (uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])) * hashMul >> (32 - hashBits)
}

// enter puts positions from to end into the tables.
func (e *Encoder) enter(src []byte, from, end int) {
	for p := from; p < end; p++ {
		h := hash(src, p)
		e.prev[p&ringMask] = e.head[h]
		e.head[h] = uint16(p + firstPosition)
	}
}

// match follows the chain of candidates whose first lies distance d before
// p, and returns the longest match, or length 0. The chain ends where the
// distances stop growing.
func (e *Encoder) match(src []byte, p, d int) (length, distance int) {
	var (
		limit = min(len(src)-p, maxMatch)
		now   = uint16(p + firstPosition)
		tail  = load24(src, p)
	)
	// A candidate is better if it is longer than the best, or than two bytes
	// if there is none. tail is the last three bytes of such a match; four are
	// read, which are there because q is less than p.
	length = minMatch - 1
	for tries := maxTries; ; {
		q := p - d
		if load32(src, q+length-2)<<8 == tail {
			if n := common(src, q, p, limit); n > length {
				length, distance = n, d
				if n > goodMatch || n == len(src)-p {
					break
				}
				tail = load24(src, p+n-2)
			}
		}
		if tries--; tries == 0 {
			break
		}
		next := int(now - e.prev[q&ringMask])
		if next <= d || next > maxDistance {
			break
		}
		d = next
	}
	if distance == 0 {
		return 0, 0
	}
	return length, distance
}

// common returns how many bytes from p on, up to limit, are the same as those
// from q on, which is less.
func common(src []byte, q, p, limit int) int {
	n := 0
	for ; n+8 <= limit; n += 8 {
		if x := load64(src, q+n) ^ load64(src, p+n); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for n < limit && src[q+n] == src[p+n] {
		n++
	}
	return n
}

// The compiler does better with slices of a length that it knows.

func load32(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i : i+4]) }
func load64(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i : i+8]) }

// load24 returns three bytes, and a zero byte below them.
func load24(b []byte, i int) uint32 {
	b = b[i : i+3]
	return uint32(b[0])<<8 | uint32(b[1])<<16 | uint32(b[2])<<24
}

// lengthCode returns the code of a match's length and its bits, the 1 that
// starts a match included. From longMatch on, codes of longBits bits serve
// longStep lengths; each further bit serves as many as the one before and
// every second time twice as many.
func lengthCode(n int) (code uint64, nbits int) {
	if n < longMatch {
		c := shortLengths[n-minMatch]
		return uint64(c.code), int(c.bits)
	}
	l, step := uint64(n-longMatch), uint64(longStep)
	code, nbits = longCode, longBits
	for l >= step {
		l -= step
		code = (code + step) << 1
		if nbits&1 == 0 {
			step <<= 1
		}
		nbits++
	}
	return code + l, nbits
}

// shortLengths are the codes of lengths 3 to 11.
var shortLengths = [longMatch - minMatch]struct {
	code uint16
	bits uint8
}{
	{0b10, 2}, {0b110, 3}, {0b11100, 5}, {0b11101, 5}, {0b111100, 6},
	{0b1111010, 7}, {0b1111011, 7}, {0b11111000, 8}, {0b11111001, 8},
}

// distanceCode returns the code of a match's distance and its bits.
func distanceCode(d int) (code uint64, nbits int) {
	o := uint64(d - 1)
	switch k := bits.Len64(o); {
	case k <= 6:
		return o, 9
	case k <= 12:
		return uint64(k-6)<<(k-1) | o&(1<<(k-1)-1), k + 2
	case k == 13:
		return 0b1110<<12 | o&(1<<12-1), 16
	default:
		return 0b1111<<13 | o&(1<<13-1), 17
	}
}
