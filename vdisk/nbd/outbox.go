package nbd

import (
	"math/bits"
	"net"
	"sync"
	"time"
)

const (
	// slabSize is how many bytes of heads and short replies are copied together
	// before they are written.
	slabSize = 128 << 10
	// smallRead is the longest read that is copied into a slab, and answered
	// from memory by the goroutine that reads requests.
	smallRead = 32 << 10
	// outMost is how many bytes of replies wait before those who bring more do.
	outMost = 1 << 20
	// writeSize is how many bytes are written at once, within stallTime.
	writeSize = 1 << 20
)

// A buffer is memory for the data of a request. room gives back its weight.
type buffer struct {
	b     []byte
	class int // of mem; -1 if it is not kept
	mem   []byte
	room  func(n int64)
}

// Buffers are kept by powers of two, from minClass to maxClass bits.
const (
	minClass = 12
	maxClass = 18
)

// buffers keeps buffers.
type buffers struct{ pools [maxClass + 1]sync.Pool }

// weight returns how much memory a buffer of n bytes takes.
func weight(n int) int64 {
	if class := max(minClass, bits.Len(uint(n-1))); class <= maxClass {
		return 1 << class
	}
	return int64(n)
}

// get returns a buffer of n bytes, for whose weight there is room.
func (p *buffers) get(n int, room func(n int64)) *buffer {
	class := max(minClass, bits.Len(uint(n-1)))
	if class > maxClass {
		return &buffer{b: make([]byte, n), class: -1, room: room}
	}
	b, _ := p.pools[class].Get().(*buffer)
	if b == nil {
		b = &buffer{class: class, mem: make([]byte, 1<<class)}
	}
	b.b, b.room = b.mem[:n], room
	return b
}

// put gives a buffer back.
func (p *buffers) put(b *buffer) {
	room, n := b.room, weight(len(b.b))
	b.b, b.room = nil, nil
	if b.class >= 0 {
		p.pools[b.class].Put(b)
	}
	room(n)
}

// A batch is replies that are written together.
type batch struct {
	slab  []byte      // slabSize at most; never moves
	parts net.Buffers // in order; in the slab, or of large
	in    bool        // the last part is in the slab, up to its end
	large []*buffer
	size  int // bytes of parts
}

// extend makes the next n bytes of the slab, for which there is room, part of
// the batch, and returns them.
func (b *batch) extend(n int) []byte {
	at := len(b.slab)
	b.slab = b.slab[:at+n]
	b.size += n
	if i := len(b.parts) - 1; b.in {
		p := b.parts[i]
		b.parts[i] = p[:len(p)+n]
	} else {
		b.parts = append(b.parts, b.slab[at:])
		b.in = true
	}
	return b.slab[at:]
}

// append adds a copy of head, and what is in data, if it is not nil, itself.
func (b *batch) append(head []byte, data *buffer) {
	copy(b.extend(len(head)), head)
	if data != nil {
		b.parts = append(b.parts, data.b)
		b.in = false
		b.large = append(b.large, data)
		b.size += len(data.b)
	}
}

// An outbox collects replies and writes them in batches. Its methods may be
// called at once. No reply is lost between them: whoever finds nobody writing
// writes, and goes on until nothing is left.
type outbox struct {
	nc      net.Conn
	gather  bool // nc writes several pieces of memory at once
	batches *sync.Pool
	buffers *buffers

	mu      sync.Mutex // guards the fields below; not held while writing
	taken   sync.Cond  // signalled when next was taken to be written, and when err is set
	next    *batch     // replies that nobody is writing yet; nil if there are none
	writing bool       // somebody is in flushLocked
	err     error      // of the first failed write; then replies are dropped
}

func (o *outbox) init(nc net.Conn, batches *sync.Pool, buffers *buffers) {
	o.nc, o.batches, o.buffers = nc, batches, buffers
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		o.gather = true
	}
	o.taken.L = &o.mu
}

// newBatch is New of the pool of batches.
func newBatch() any { return &batch{slab: make([]byte, 0, slabSize)} }

// roomLocked waits until a reply of n bytes in the slab fits. It returns the
// batch to add it to, or nil if the connection is broken.
func (o *outbox) roomLocked(n int) *batch {
	for o.err == nil && o.next != nil && (o.next.size >= outMost || len(o.next.slab)+n > slabSize) {
		if o.writing {
			o.taken.Wait()
		} else {
			o.flushLocked()
		}
	}
	if o.err != nil {
		return nil
	}
	if o.next == nil {
		o.next = o.batches.Get().(*batch)
	}
	return o.next
}

// append adds a reply; it is written at the latest by the next flush. data may
// be nil; if not, it is the outbox's from now on.
func (o *outbox) append(head []byte, data *buffer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b := o.roomLocked(len(head)); b != nil {
		b.append(head, data)
	} else if data != nil {
		o.buffers.put(data)
	}
}

// flush writes what was appended, or leaves it to somebody who is writing.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushLocked()
}

func (o *outbox) flushLocked() {
	if o.writing {
		return
	}
	o.writing = true
	for o.next != nil && o.err == nil {
		b := o.next
		o.next = nil
		o.taken.Broadcast()
		o.mu.Unlock()
		err := o.write(b)
		o.drop(b)
		o.mu.Lock()
		if err != nil {
			o.err = err
			o.nc.Close() // also ends reading
			if o.next != nil {
				o.drop(o.next)
				o.next = nil
			}
			o.taken.Broadcast()
		}
	}
	o.writing = false
}

// write writes a batch. It may change b.parts.
func (o *outbox) write(b *batch) error {
	parts := b.parts
	for len(parts) > 0 {
		// A slow client gets stallTime for each writeSize bytes.
		n, size := 0, 0
		for n < len(parts) && (n == 0 || size+len(parts[n]) <= writeSize) {
			size += len(parts[n])
			n++
		}
		if size > writeSize {
			o.nc.SetWriteDeadline(time.Now().Add(stallTime))
			if _, err := o.nc.Write(parts[0][:writeSize]); err != nil {
				return err
			}
			parts[0] = parts[0][writeSize:]
			continue
		}
		o.nc.SetWriteDeadline(time.Now().Add(stallTime))
		if err := o.writeSome(parts[:n]); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

func (o *outbox) writeSome(parts net.Buffers) error {
	if len(parts) == 1 {
		_, err := o.nc.Write(parts[0])
		return err
	}
	if o.gather {
		_, err := parts.WriteTo(o.nc)
		return err
	}
	// Each call makes a record of TLS.
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	_, err := o.nc.Write(all)
	return err
}

// drop gives a batch and its buffers back.
func (o *outbox) drop(b *batch) {
	for i, d := range b.large {
		o.buffers.put(d)
		b.large[i] = nil
	}
	all := b.parts[:cap(b.parts)]
	clear(all)
	*b = batch{slab: b.slab[:0], parts: all[:0], large: b.large[:0]}
	o.batches.Put(b)
}
