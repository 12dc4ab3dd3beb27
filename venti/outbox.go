package venti

import (
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// outFlushSize is how many bytes of replies wait before they are written
	// or, while others are being written, before the next waits.
	outFlushSize = 64 << 10
	// outBufferSize holds as many and one more reply.
	outBufferSize = outFlushSize + 64<<10
)

// An outbox collects replies and writes them in batches. Its methods may be
// called at once. No reply is lost between them: whoever finds nobody writing
// writes, and goes on until nothing is left.
type outbox struct {
	nc   net.Conn
	pool *sync.Pool // of *[]byte

	mu      sync.Mutex // guards the fields below; not held while writing
	taken   sync.Cond  // signalled when buf was taken to be written, and when err is set
	buf     *[]byte    // replies that nobody is writing yet; nil if there are none
	writing bool       // somebody is in flushLocked
	written int64      // bytes
	err     error      // of the first failed write; then replies are dropped
}

func (o *outbox) init(nc net.Conn, pool *sync.Pool) {
	o.nc, o.pool = nc, pool
	o.taken.L = &o.mu
}

// waitLocked waits until there is room for a reply of any size. It returns
// the buffer to append it to, or nil if the connection is broken.
func (o *outbox) waitLocked() *[]byte {
	for o.err == nil && o.buf != nil && len(*o.buf) >= outFlushSize {
		if o.writing {
			o.taken.Wait()
		} else {
			o.flushLocked()
		}
	}
	if o.err != nil {
		return nil
	}
	if o.buf == nil {
		o.buf = o.pool.Get().(*[]byte)
	}
	return o.buf
}

// append adds a reply; it is written at the latest by the next flush.
func (o *outbox) append(m *message, f framing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b := o.waitLocked(); b != nil {
		*b = m.pack(*b, f)
	}
}

// appendCached adds the reply to a Tread if st can give it at once, and tells
// whether that was so.
func (o *outbox) appendCached(st CachedReader, m *message, f framing) bool {
	n := int(min(m.count, MaxBlockSize))
	head := int(f) + headSize
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.waitLocked()
	if b == nil {
		return true
	}
	// The block goes to where it will be in the message.
	at := len(*b) + head
	n, ok, err := st.ReadCached(m.score, m.disk.Type(), (*b)[at:at+n])
	var text [128]byte
	switch {
	case !ok:
		return false
	case err == nil:
		*b = appendHead(*b, f, rRead, m.tag, n)[:at+n]
	case errors.Is(err, ErrNotFound):
		*b = (&message{typ: rError, tag: m.tag, text: appendNotFound(text[:0], m.score, m.disk)}).pack(*b, f)
	case errors.Is(err, ErrTooLong) && m.count == 0: // a probe: any block that is stored has a byte
		*b = (&message{typ: rError, tag: m.tag, text: appendTooLong(text[:0], 0, 1)}).pack(*b, f)
	default:
		return false // let ReadBlock say what is wrong
	}
	return true
}

// total returns how many bytes have been written.
func (o *outbox) total() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.written
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
	for o.buf != nil && o.err == nil {
		b := o.buf
		o.buf = nil
		o.taken.Broadcast()
		o.written += int64(len(*b))
		o.mu.Unlock()
		o.nc.SetWriteDeadline(time.Now().Add(stallTime))
		_, err := o.nc.Write(*b)
		*b = (*b)[:0]
		o.pool.Put(b)
		o.mu.Lock()
		if err != nil {
			o.err = err
			o.nc.Close() // also ends reading
			o.taken.Broadcast()
		}
	}
	o.writing = false
}
