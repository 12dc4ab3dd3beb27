package ninep

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// linkTags is how many requests a link has in flight at most. The tag of the
// Tflush of request t is t+linkTags.
const linkTags = 64

// A link is one connection of a client, or what stands for it in memory.
type link struct {
	local *conn // the server's side, in the same process; rwc is nil then

	rwc     io.ReadWriteCloser
	dialect Dialect
	msize   uint32

	tags chan uint16   // that are free
	done chan struct{} // closed when all calls have ended
	dead atomic.Bool   // err is set

	wmu sync.Mutex  // held while writing a request; guards the fields below
	iov [2][]byte   // of a request that is written from two places
	out net.Buffers // what is left of iov: a field, as it would escape

	mu    sync.Mutex // guards the fields below
	calls [2 * linkTags]*call
	err   error // why the link is of no use any more
}

// A call is a request and its reply. It comes from newCall and is given back
// with free.
type call struct {
	req  Fcall
	dst  []byte // where the data of an Rread goes
	n    int    // how much of it came
	rep  Fcall
	err  error
	done chan struct{} // receives once, when the rest is set

	flushed bool // whoever flushes it gives its tag back; guarded by link.mu
}

var callPool = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

func newCall() *call { return callPool.Get().(*call) }

func (x *call) free() {
	x.req, x.rep, x.dst, x.n, x.err, x.flushed = Fcall{}, Fcall{}, nil, 0, nil, false
	callPool.Put(x)
}

// A lostError says that the connection broke.
type lostError struct{ err error }

func (e *lostError) Error() string { return "9p client: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// newLink agrees on a version with the server at the other end of rwc, which
// the link then owns. Its reader ends when rwc is closed; close waits for it.
func newLink(ctx context.Context, rwc io.ReadWriteCloser, d Dialect, msize uint32) (*link, error) {
	l := &link{rwc: rwc, dialect: d, msize: msize, tags: make(chan uint16, linkTags), done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { rwc.Close() })
	br := bufio.NewReaderSize(rwc, readBuffer)
	err := l.handshake(br)
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		rwc.Close()
		return nil, fmt.Errorf("9p version: %w", err)
	}
	for t := range uint16(linkTags) {
		l.tags <- t
	}
	go l.readLoop(br)
	return l, nil
}

func (l *link) handshake(br *bufio.Reader) error {
	f := Fcall{Type: Tversion, Tag: NoTag, Msize: l.msize, Version: l.dialect.String()}
	b, err := f.Pack(nil, l.dialect)
	if err != nil {
		return err
	}
	if _, err := l.rwc.Write(b); err != nil {
		return err
	}
	frame, err := readFrame(br, l.msize)
	if err != nil {
		return err
	}
	defer frame.free()
	d := l.dialect
	if Type(frame.b[4]) == Rerror {
		d = Classic // what a server says before it knows better
	}
	if err := f.Unpack(frame.b, d); err != nil {
		return err
	}
	switch f.Type {
	case Rerror:
		return textError(f.Ename, 0)
	case Rlerror:
		return errnoError(syscall.Errno(f.Errno))
	case Rversion:
	default:
		return ErrBotch
	}
	got, ok := parseVersion(f.Version)
	// A server may give less than it was asked for.
	if !ok || got != l.dialect && got != Classic {
		return fmt.Errorf("server speaks %q, not %s", f.Version, l.dialect)
	}
	if f.Msize < MinMsize || f.Msize > l.msize {
		return fmt.Errorf("server's message size is %d: %w", f.Msize, ErrBotch)
	}
	l.dialect, l.msize = got, f.Msize
	return nil
}

// alive tells whether the link is not known to be of no use.
func (l *link) alive() bool { return !l.dead.Load() }

// close ends the link: calls under way fail. It may be called again.
func (l *link) close() error {
	l.fail(errClosed)
	if l.local != nil {
		l.local.hangUp()
		return nil
	}
	err := l.rwc.Close()
	<-l.done
	return err
}

// fail ends all calls, now and later, with the first error.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		l.dead.Store(true)
	}
}

func (l *link) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// readLoop takes replies until the connection ends.
func (l *link) readLoop(br *bufio.Reader) {
	defer close(l.done)
	for {
		if err := l.readReply(br); err != nil {
			l.fail(&lostError{err})
			l.rwc.Close()
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for tag, x := range l.calls {
		if x != nil {
			l.calls[tag] = nil
			x.err = l.err
			x.done <- struct{}{}
		}
	}
}

func (l *link) readReply(br *bufio.Reader) error {
	head, err := br.Peek(headerSize)
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head)
	t, tag := Type(head[4]), binary.LittleEndian.Uint16(head[5:])
	if n < headerSize || n > l.msize {
		return fmt.Errorf("frame of %d bytes: %w", n, ErrTooLong)
	}
	// While it is in calls, x is nobody's but the reader's.
	var x *call
	if int(tag) < len(l.calls) {
		l.mu.Lock()
		x = l.calls[tag]
		l.mu.Unlock()
	}
	if x == nil {
		return fmt.Errorf("reply with tag %d: %w", tag, ErrBotch)
	}
	want := x.req.Type + 1
	if t == Rread && want == Rread && x.dst != nil {
		if head, err = br.Peek(rreadHeader); err != nil {
			return err
		}
		count := binary.LittleEndian.Uint32(head[headerSize:])
		if uint64(count)+rreadHeader != uint64(n) || uint64(count) > uint64(len(x.dst)) {
			return fmt.Errorf("read reply of %d bytes: %w", count, ErrBotch)
		}
		br.Discard(rreadHeader)
		if _, err := io.ReadFull(br, x.dst[:count]); err != nil {
			return err
		}
		x.n = int(count)
	} else {
		frame, err := readFrame(br, l.msize)
		if err != nil {
			return err
		}
		if err := x.rep.Unpack(frame.b, l.dialect); err != nil {
			frame.free()
			return err
		}
		x.rep.Data = slices.Clone(x.rep.Data)
		frame.free()
		switch t {
		case want:
		case Rerror:
			x.err = textError(x.rep.Ename, syscall.Errno(x.rep.Errno))
		case Rlerror:
			x.err = errnoError(syscall.Errno(x.rep.Errno))
		default:
			return fmt.Errorf("reply of type %d to %d: %w", t, want-1, ErrBotch)
		}
	}
	l.mu.Lock()
	l.calls[tag] = nil
	again := int(tag) < linkTags && !x.flushed
	l.mu.Unlock()
	// A tag is free when its answer is here, not when somebody looks at that: who
	// has answers to look at may be waiting for a tag.
	if again {
		l.tags <- tag
	}
	x.done <- struct{}{}
	return nil
}

// start sends a request. If it returns nil, x must be waited for.
func (l *link) start(ctx context.Context, x *call) error {
	if l.local != nil {
		l.local.do(ctx, x)
		return nil
	}
	select {
	case x.req.Tag = <-l.tags:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.done:
		return l.failure()
	}
	err := l.send(x)
	if err != nil {
		l.tags <- x.req.Tag
	}
	return err
}

// send sends a request that has its tag.
func (l *link) send(x *call) error {
	out := getBuffer(0)
	defer out.free()
	f := &x.req
	tag := f.Tag
	data := f.Data // of a Twrite it is sent from where it is
	f.Data = nil
	var err error
	out.b, err = f.Pack(out.b, l.dialect)
	if err != nil {
		return err
	}
	n := len(out.b) + len(data)
	if n > int(l.msize) {
		return fmt.Errorf("message of %d bytes: %w", n, ErrTooLong)
	}
	if len(data) > 0 {
		binary.LittleEndian.PutUint32(out.b, uint32(n))
		binary.LittleEndian.PutUint32(out.b[len(out.b)-4:], uint32(len(data)))
	}
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return l.err
	}
	l.calls[tag] = x
	l.mu.Unlock()

	l.wmu.Lock()
	defer l.wmu.Unlock()
	if len(data) > 0 {
		l.iov = [2][]byte{out.b, data}
		l.out = l.iov[:]
		_, err = l.out.WriteTo(l.rwc)
		l.iov = [2][]byte{}
	} else {
		_, err = l.rwc.Write(out.b)
	}
	if err != nil {
		// The reader will meet the end, and fail this call with the others.
		l.fail(&lostError{err})
		l.rwc.Close()
	}
	return nil
}

// wait waits for a call, or if ctx ends first for the server's consent to
// that. The call is then the caller's again.
func (l *link) wait(ctx context.Context, x *call) error {
	var cancelled error
	select {
	case <-x.done:
	case <-ctx.Done():
		cancelled = l.flush(ctx, x)
	}
	if cancelled != nil {
		return cancelled
	}
	return x.err
}

// flush gives x up, and returns nil if it has been answered all the same.
func (l *link) flush(ctx context.Context, x *call) error {
	if l.local != nil { // which has answered already
		<-x.done
		return nil
	}
	tag := x.req.Tag
	l.mu.Lock()
	pending := l.calls[tag] == x
	if pending {
		x.flushed = true // the tag must not be another's while it is flushed
	}
	l.mu.Unlock()
	if !pending {
		<-x.done
		return nil
	}
	defer func() { l.tags <- tag }()
	y := newCall()
	defer y.free()
	y.req = Fcall{Type: Tflush, Tag: tag + linkTags, Oldtag: tag}
	if err := l.send(y); err != nil {
		// The connection is broken, and the reader ends all calls.
		<-x.done
		return nil
	}
	<-y.done
	// Either x was answered before the flush, or it never will be.
	l.mu.Lock()
	pending = l.calls[tag] == x
	if pending {
		l.calls[tag] = nil
	}
	l.mu.Unlock()
	if !pending {
		<-x.done
		return nil
	}
	return ctx.Err()
}

// call sends a request, and returns the reply or, if that is an error, the
// error.
func (l *link) call(ctx context.Context, f *Fcall) (Fcall, error) {
	x := newCall()
	defer x.free()
	x.req = *f
	if err := l.start(ctx, x); err != nil {
		return Fcall{}, err
	}
	err := l.wait(ctx, x)
	return x.rep, err
}

// lost tells whether err says that a connection broke.
func lost(err error) bool {
	var e *lostError
	return errors.As(err, &e)
}
