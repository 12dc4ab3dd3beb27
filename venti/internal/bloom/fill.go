package bloom

import "math/bits"

// fillSample is how many words of a large filter Fill looks at: its error is
// then about a thousandth.
const fillSample = 1 << 16

// Fill returns which share of the bits are set, from 0 to 1. In a filter of
// more than 256 KiB it is estimated from words spread evenly over it.
func (f *Filter) Fill() float64 {
	words := f.words[headerWords:]
	step := max(1, len(words)/fillSample)
	ones, n := 0, 0
	for i := 0; i < len(words); i += step {
		ones += bits.OnesCount32(words[i].Load())
		n += 32
	}
	return float64(ones) / float64(n)
}
