package venti

import "bytes"

// Truncate returns the part of block that is stored: data and directory
// blocks lose their trailing zero bytes; pointer blocks lose the bytes past
// the last whole score, and then trailing scores that are EmptyScore; roots
// keep their 300 bytes (spec/venti-protocol.md, section 10). The result shares
// block's memory.
func Truncate(t Type, block []byte) []byte {
	switch {
	case t == RootType:
		return block[:min(len(block), RootSize)]
	case t.IsPointer():
		n := len(block) / ScoreSize * ScoreSize
		for n > 0 && bytes.Equal(block[n-ScoreSize:n], EmptyScore[:]) {
			n -= ScoreSize
		}
		return block[:n]
	}
	n := len(block)
	// Runs of zeros go by the kilobyte, then by the cache line: a 4 KiB block of
	// zeros takes 60 ns.
	for n >= len(zeros) && bytes.Equal(block[n-len(zeros):n], zeros[:]) {
		n -= len(zeros)
	}
	for n >= 64 && bytes.Equal(block[n-64:n], zeros[:64]) {
		n -= 64
	}
	for n > 0 && block[n-1] == 0 {
		n--
	}
	return block[:n]
}

// Extend undoes Truncate in place: n bytes of buf hold the stored block and
// the rest of buf is filled with what truncation dropped, zero bytes or, in a
// pointer block, empty scores and a zero slop.
func Extend(t Type, buf []byte, n int) {
	if !t.IsPointer() {
		clear(buf[n:])
		return
	}
	n -= n % ScoreSize
	for ; n+ScoreSize <= len(buf); n += ScoreSize {
		copy(buf[n:], EmptyScore[:])
	}
	clear(buf[n:])
}

var zeros [1024]byte // never written
