package buffer

import "math/bits"

// A freemap tells which data blocks can be allocated, one bit each.
type freemap struct {
	words []uint64
	n     uint32 // blocks
	free  uint32 // bits that are set
	last  uint32 // allocated last
}

func newFreemap(n uint32) *freemap {
	return &freemap{words: make([]uint64, (n+63)/64), n: n}
}

func (m *freemap) get(a uint32) bool { return m.words[a/64]>>(a%64)&1 != 0 }

func (m *freemap) set(a uint32, free bool) {
	if m.get(a) == free {
		return
	}
	m.words[a/64] ^= 1 << (a % 64)
	if free {
		m.free++
	} else {
		m.free--
	}
}

// take returns the next free block after the last, and takes it. Going on
// from there, as the original does, keeps what is written together together.
func (m *freemap) take() (uint32, bool) {
	if m.free == 0 {
		return 0, false
	}
	a := m.last + 1
	for range 2 {
		for a < m.n {
			if w := m.words[a/64] >> (a % 64); w != 0 {
				a += uint32(bits.TrailingZeros64(w))
				m.set(a, false)
				m.last = a
				return a, true
			}
			a = (a/64 + 1) * 64
		}
		a = 0
	}
	return 0, false
}

// run returns the first of n free blocks in a row, searching from the end, or
// as many as there are in the longest row.
func (m *freemap) run(n uint32) (first, length uint32) {
	var row uint32
	for a := m.n; a > 0; {
		a--
		if !m.get(a) {
			row = 0
			continue
		}
		if row++; row > length {
			first, length = a, row
			if row == n {
				break
			}
		}
	}
	return first, length
}
