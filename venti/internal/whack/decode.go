package whack

import (
	"encoding/binary"
	"errors"
)

// The ways in which a stream can be wrong.
var (
	errDistance = errors.New("whack: match starts before the block")
	errLength   = errors.New("whack: block is longer than it should be")
	errEnd      = errors.New("whack: stream ends inside an item")
)

// Decode decompresses src into dst and returns how long the block is. It
// fails if the stream is invalid or the block is longer than dst. What is in
// dst past the block is undefined. A match may be longer than any that
// Encoder makes.
func Decode(dst, src []byte) (n int, err error) {
	r := reader{src: src, left: len(src) * 8}
	history := uint(0xf)
	for r.left >= 8 {
		r.fill()
		if r.acc>>63 == 0 {
			var c byte
			switch v := r.acc >> 56; {
			case history != 0:
				c = byte(r.acc >> 55)
				r.skip(9)
			case v >= 32:
				c = byte(v)
				r.skip(8)
			case v >= 24:
				c = byte(r.acc>>53) - 64
				r.skip(11)
			default:
				c = byte(r.acc>>54) - 64
				r.skip(10)
			}
			if r.left < 0 {
				return 0, errEnd
			}
			if n == len(dst) {
				return 0, errLength
			}
			dst[n] = c
			n++
			history = (history<<1 | isOdd(c)) & 0xf
			continue
		}
		length := r.length()
		distance := r.distance()
		if r.left < 0 {
			return 0, errEnd
		}
		if distance > n {
			return 0, errDistance
		}
		if length > len(dst)-n {
			return 0, errLength
		}
		copyMatch(dst, n, distance, length)
		n += length
	}
	return n, nil
}

// copyMatch copies length bytes from distance before dst[n] to dst[n], as if
// one by one.
func copyMatch(dst []byte, n, distance, length int) {
	if distance >= 8 && len(dst)-n >= length+8 {
		// Eight at a time; the last may write past the match, where the next
		// item goes.
		from, to := dst[n-distance:], dst[n:]
		for i := 0; i < length; i += 8 {
			binary.LittleEndian.PutUint64(to[i:], binary.LittleEndian.Uint64(from[i:]))
		}
		return
	}
	end := n + length
	for n < end {
		// What has been made so far repeats, so each copy may be twice as long.
		k := copy(dst[n:end], dst[n-distance:n])
		n += k
		distance += k
	}
}

// A reader takes bits from the start of src. Past its end it reads zeros and
// left goes below zero.
type reader struct {
	src  []byte
	pos  int    // bytes of src in acc or used
	acc  uint64 // the next bits, in the high end
	bits int    // how many bits of acc count
	left int    // bits of the whole stream not yet used
}

// fill makes at least 56 bits of acc count: more than the longest item has.
func (r *reader) fill() {
	if r.pos+8 <= len(r.src) {
		r.acc |= binary.BigEndian.Uint64(r.src[r.pos:]) >> r.bits
		r.pos += (63 - r.bits) >> 3
		r.bits |= 56
		return
	}
	for r.bits <= 56 {
		if r.pos < len(r.src) {
			r.acc |= uint64(r.src[r.pos]) << (56 - r.bits)
			r.pos++
		}
		r.bits += 8
	}
}

func (r *reader) skip(n int) {
	r.acc <<= n
	r.bits -= n
	r.left -= n
}

// length reads the length of a match, whose first bit is the 1 that tells it
// from a literal.
func (r *reader) length() int {
	c := int(r.acc >> 58)
	switch {
	case c < 0b110000:
		r.skip(2)
		return 3
	case c < 0b111000:
		r.skip(3)
		return 4
	case c < 0b111100:
		r.skip(5)
		return 5 + c>>1&1
	}
	// Each bit read on serves use codes more; use doubles every second time.
	r.skip(6)
	length, c, use, twice := 7, c-0b111100, 1, true
	for c >= use {
		length += use
		c = (c-use)<<1 | int(r.acc>>63)
		r.skip(1)
		if twice {
			use <<= 1
		}
		twice = !twice
		if length > maxBlock {
			break // and acc still holds a distance
		}
	}
	return length + c
}

// distance reads the distance of a match.
func (r *reader) distance() int {
	c := r.acc >> 60
	switch k := int(c >> 1); {
	case k == 0:
		o := r.acc >> 55
		r.skip(9)
		return int(o) + 1
	case k < 7:
		// Three bits, then one fewer than the six to twelve that k stands for.
		o := r.acc << 3 >> (64 - (k + 5))
		r.skip(3 + k + 5)
		return 1<<(k+5) + int(o) + 1
	case c == 0b1110:
		o := r.acc << 4 >> (64 - 12)
		r.skip(16)
		return 1<<12 + int(o) + 1
	default:
		o := r.acc << 4 >> (64 - 13)
		r.skip(17)
		return 1<<13 + int(o) + 1
	}
}
