package fsys

import (
	"iter"
	"math/bits"
)

// ClearRuns yields the runs of bits that are not set among the first n of a
// bitmap, from start to before end, in ascending order. The lowest bit of a word
// is its first.
func ClearRuns(bitmap []uint64, n int64) iter.Seq2[int64, int64] {
	return func(yield func(start, end int64) bool) {
		for i := nextBit(bitmap, 0, n, false); i < n; {
			end := nextBit(bitmap, i, n, true)
			if !yield(i, end) {
				return
			}
			i = nextBit(bitmap, end, n, false)
		}
	}
}

// nextBit returns the first bit from i on that is want, or n.
func nextBit(bitmap []uint64, i, n int64, want bool) int64 {
	for i < n {
		word := bitmap[i/64]
		if !want {
			word = ^word
		}
		if word >>= i % 64; word != 0 {
			return min(i+int64(bits.TrailingZeros64(word)), n)
		}
		i = i/64*64 + 64
	}
	return n
}
