package main

// The numbers come from the additive generator of D. P. Mitchell and J. A.
// Reeds, which Plan 9 documents as lrand: x[n] = x[n-607] + x[n-273] mod 2^31.
// Its first values come from a multiplicative one, x = 48271*x mod 2^31-1, of
// which the first 20 are dropped.
const (
	genLength = 607
	genTap    = 273
	genMask   = 1<<31 - 1 // and the modulus of the multiplicative generator
	genFactor = 48271
	genDrop   = 20
	genZero   = 89482311 // in the place of a seed of 0
)

// template returns the random bytes of all blocks: each is the next number of
// the generator, reduced to so many percent of 256 values.
func template(seed int32, percent, size int) []byte {
	x := int64(seed) % genMask
	if x < 0 {
		x += genMask
	}
	if x == 0 {
		x = genZero
	}
	var state [genLength]int64 // the oldest first, going down from next
	for i := range genDrop + genLength {
		x = x * genFactor % genMask
		if i >= genDrop {
			state[i-genDrop] = x
		}
	}
	values := max(1, int64(256*percent/100))
	b := make([]byte, size)
	feed, tap := genLength-genTap, 0
	for i := range b {
		feed = (feed + genLength - 1) % genLength
		tap = (tap + genLength - 1) % genLength
		state[feed] = (state[feed] + state[tap]) & genMask
		b[i] = byte(state[feed] % values)
	}
	return b
}
