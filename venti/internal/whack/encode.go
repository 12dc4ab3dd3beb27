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
		w        = writer{buf: dst[:len(src)]}
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
			h := hash(src[p], src[p+1], src[p+2])
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
				w.put(uint64(c), 9)
			case isOdd(c) == 0:
				w.put(uint64(c), 8)
			case c+64 < 96:
				w.put(uint64(c+64), 10)
			default:
				w.put(uint64(c+64), 11)
			}
			history = (history<<1 | isOdd(c)) & 0xf
			p++
		} else {
			w.put(lengthCode(length))
			if !w.flush() {
				return 0, false
			}
			w.put(distanceCode(distance))
			e.enter(src, p+1, min(p+length, last+1))
			p += length
		}
		if !w.flush() {
			return 0, false
		}
	}
	return w.finish()
}

// hash is the slot of head for three bytes.
func hash(a, b, c byte) uint32 {
	return (uint32(a)<<16 | uint32(b)<<8 | uint32(c)) * hashMul >> (32 - hashBits)
}

// enter puts positions from to end into the tables.
func (e *Encoder) enter(src []byte, from, end int) {
	if from >= end {
		return
	}
	s := src[from : end+minMatch-1]
	for i := 0; i+2 < len(s); i++ {
		h := hash(s[i], s[i+1], s[i+2])
		e.prev[(from+i)&ringMask] = e.head[h]
		e.head[h] = uint16(from + i + firstPosition)
	}
}

// match follows the chain of candidates whose first lies distance d before
// p, and returns the longest match, or length 0. The chain ends where the
// distances stop growing.
func (e *Encoder) match(src []byte, p, d int) (length, distance int) {
	var (
		rest  = src[p:]
		limit = min(len(rest), maxMatch)
		a     = [minMatch]byte(rest)
	)
	for tries := maxTries; ; {
		s := src[p-d:]
		if (length == 0 || s[length] == rest[length]) && [minMatch]byte(s) == a {
			n := common(s, rest[:limit])
			if n > length {
				length, distance = n, d
				if n > goodMatch || n == len(rest) {
					break
				}
			}
		}
		if tries--; tries == 0 {
			break
		}
		next := int(uint16(p+firstPosition) - e.prev[(p-d)&ringMask])
		if next <= d || next > maxDistance {
			break
		}
		d = next
	}
	return length, distance
}

// common returns how many bytes of b, which is the shorter, a starts with.
func common(a, b []byte) int {
	a = a[:len(b)]
	n := 0
	for len(b)-n >= 8 {
		x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:])
		if x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
		n += 8
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
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

// A writer packs bits into a buffer. Between flushes there is room for 32
// more; up to seven bits or three bytes wait in acc.
type writer struct {
	buf  []byte
	n    int    // bytes written
	acc  uint64 // bits not written, in the low end
	bits int    // how many
}

func (w *writer) put(code uint64, nbits int) {
	w.acc = w.acc<<nbits | code
	w.bits += nbits
}

// flush writes whole bytes of acc, four at a time, and tells whether buf had
// room.
func (w *writer) flush() bool {
	if w.bits >= 32 {
		if w.n+4 > len(w.buf) {
			return false
		}
		w.bits -= 32
		binary.BigEndian.PutUint32(w.buf[w.n:], uint32(w.acc>>w.bits))
		w.n += 4
	}
	return true
}

// finish writes the rest, filled up with zero bits, and tells whether the
// whole is shorter than buf.
func (w *writer) finish() (int, bool) {
	w.acc <<= 64 - w.bits
	for ; w.bits > 0; w.bits -= 8 {
		if w.n == len(w.buf) {
			return 0, false
		}
		w.buf[w.n] = byte(w.acc >> 56)
		w.acc <<= 8
		w.n++
	}
	return w.n, w.n < len(w.buf)
}
