package venti

import "sync"

// bufferSizes are the sizes that block buffers come in. The usual blocks of
// vac and fossil, 8 KiB, and of disks, 4 KiB, fit theirs exactly.
var bufferSizes = [...]int{1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, MaxBlockSize}

// A bufferPool keeps block buffers for reuse, by size.
type bufferPool struct {
	pools [len(bufferSizes)]sync.Pool
}

// A buffer is a block buffer with its place in the pool.
type buffer struct {
	b    []byte // of the length asked for
	size int    // index in bufferSizes
}

// get returns a buffer of n bytes, at most MaxBlockSize, of any content.
func (p *bufferPool) get(n int) *buffer {
	i := 0
	for bufferSizes[i] < n {
		i++
	}
	buf, _ := p.pools[i].Get().(*buffer)
	if buf == nil {
		buf = &buffer{b: make([]byte, bufferSizes[i]), size: i}
	}
	buf.b = buf.b[:n]
	return buf
}

// put gives buf back.
func (p *bufferPool) put(buf *buffer) { p.pools[buf.size].Put(buf) }
