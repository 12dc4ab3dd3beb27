package ninep

import (
	"math/bits"
	"sync"
)

// A buffer holds one message, in or out. Buffers come from pools, one for
// each power of two, plus the room that a read's header takes.
type buffer struct {
	b     []byte
	class int8

	// What a Lender has lent for the message to end with.
	lent [][]byte
	done func() // gives it back; may be nil
}

const (
	minClass = 8 // 256 bytes
	maxClass = 24
	slack    = 64 // so that a read of 2^n bytes and its header need no more than class n
)

// pools is not state: which buffers it has cannot be observed.
var pools [maxClass + 1]sync.Pool

// getBuffer returns a buffer of n bytes, whose contents are undefined.
func getBuffer(n int) *buffer {
	class := max(minClass, bits.Len(uint(max(1, n-slack)-1)))
	if class > maxClass {
		return &buffer{b: make([]byte, n), class: -1}
	}
	if v, ok := pools[class].Get().(*buffer); ok {
		v.b = v.b[:n]
		return v
	}
	return &buffer{b: make([]byte, n, 1<<class+slack), class: int8(class)}
}

// size returns how much memory the buffer keeps in use.
func (b *buffer) size() int {
	n := cap(b.b)
	for _, p := range b.lent {
		n += len(p)
	}
	return n
}

// free gives the buffer back, and what was lent. A nil one is none.
func (b *buffer) free() {
	if b == nil {
		return
	}
	if b.done != nil {
		b.done()
		b.done = nil
	}
	clear(b.lent)
	b.lent = b.lent[:0]
	// A buffer that was appended to beyond its class is not of it any more.
	if b.class >= 0 && cap(b.b) == 1<<b.class+slack {
		pools[b.class].Put(b)
	}
}
