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
	var (
		acc     uint64         // the next bits, in the high end
		bits    int            // how many of them count
		pos     int            // bytes of src that are in acc or used
		history = uint(0xf)    // the oddness of the last four literals
		total   = 8 * len(src) // bits of the stream
	)
	// As long as eight bytes are left to read, an item cannot reach past the
	// end.
	for pos+8 <= len(src) {
		// Below the bits that count acc may hold some of those that follow; the
		// next time the same are added.
		acc |= binary.BigEndian.Uint64(src[pos:pos+8]) >> bits
		pos += (63 - bits) >> 3
		bits |= 56
		for acc>>63 == 0 && bits >= maxLiteral {
			c, used := literal(acc, history)
			acc <<= used
			bits -= used
			if n == len(dst) {
				return 0, errLength
			}
			dst[n] = c
			n++
			history = history<<1&0xf | isOdd(c)
		}
		if acc>>63 != 0 && bits >= maxMatchBits {
			length, distance, used := match(acc)
			acc <<= used
			bits -= used
			if err := copyMatch(dst, n, distance, length); err != nil {
				return 0, err
			}
			n += length
		}
	}
	// Past the end acc gets zeros, and pos goes on.
	for {
		for bits <= 56 {
			if pos < len(src) {
				acc |= uint64(src[pos]) << (56 - bits)
			}
			pos++
			bits += 8
		}
		left := total - (8*pos - bits)
		if left < minItem {
			return n, nil
		}
		if acc>>63 == 0 {
			c, used := literal(acc, history)
			acc <<= used
			bits -= used
			if used > left {
				return 0, errEnd
			}
			if n == len(dst) {
				return 0, errLength
			}
			dst[n] = c
			n++
			history = history<<1&0xf | isOdd(c)
			continue
		}
		length, distance, used := match(acc)
		acc <<= used
		bits -= used
		if used > left {
			return 0, errEnd
		}
		if err := copyMatch(dst, n, distance, length); err != nil {
			return 0, err
		}
		n += length
	}
}

// The lengths of items, in bits. A match's length takes 36 at most, as it
// is cut at maxBlock, and its distance 17.
const (
	minItem      = 8
	maxLiteral   = 11
	maxMatchBits = 36 + 17
)

// literal returns the byte whose code acc starts with, and the code's length.
func literal(acc uint64, history uint) (c byte, used int) {
	if history != 0 {
		return byte(acc >> 55), 9
	}
	switch v := acc >> 56; {
	case v >= 32:
		return byte(v), 8
	case v >= 24:
		return byte(acc>>53) - 64, 11
	}
	return byte(acc>>54) - 64, 10
}

// match returns the length and the distance of the match whose code acc
// starts with, and the code's length. acc ends in zeros after that.
func match(acc uint64) (length, distance, used int) {
	switch c := int(acc >> 58); {
	case c < 0b110000:
		length, used = 3, 2
	case c < 0b111000:
		length, used = 4, 3
	case c < 0b111100:
		length, used = 5+c>>1&1, 5
	default:
		length, used = longLength(acc)
	}
	distance, bits := matchDistance(acc << used)
	return length, distance, used + bits
}

// longLength decodes a length of 7 or more.
func longLength(acc uint64) (length, used int) {
	// Each bit read on serves use codes more; use doubles every second time.
	length, used = 7, 6
	c, use, twice := int(acc>>58)-0b111100, 1, true
	for c >= use && length <= maxBlock {
		length += use
		c = (c-use)<<1 | int(acc<<used>>63)
		used++
		if twice {
			use <<= 1
		}
		twice = !twice
	}
	return length + c, used
}

// matchDistance decodes a distance.
func matchDistance(acc uint64) (distance, used int) {
	c := acc >> 60
	switch k := int(c >> 1); {
	case k == 0:
		return int(acc>>55) + 1, 9
	case k < 7:
		// Three bits, then one fewer than the seven to twelve that k stands for.
		return 1<<(k+5) + int(acc<<3>>(64-(k+5))) + 1, k + 8
	case c == 0b1110:
		return 1<<12 + int(acc<<4>>(64-12)) + 1, 16
	}
	return 1<<13 + int(acc<<4>>(64-13)) + 1, 17
}

// copyMatch copies length bytes from distance before dst[n] to dst[n], as if
// one by one.
func copyMatch(dst []byte, n, distance, length int) error {
	if distance > n {
		return errDistance
	}
	if length > len(dst)-n {
		return errLength
	}
	if distance >= 8 && len(dst)-n >= length+8 {
		// Eight at a time; the last may write past the match, where the next
		// item goes.
		for end := n + length; n < end; n += 8 {
			binary.LittleEndian.PutUint64(dst[n:n+8], load64(dst, n-distance))
		}
		return nil
	}
	end := n + length
	for n < end {
		// What has been made so far repeats, so each copy may be twice as long.
		k := copy(dst[n:end], dst[n-distance:n])
		n += k
		distance += k
	}
	return nil
}
