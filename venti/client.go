package venti

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// maxCalls is how many requests a client has in flight: one for each tag
	// but 0, which is the hello's.
	maxCalls = 255
	// maxQueued is how many bytes of blocks wait to be written to the server
	// before the next caller waits.
	maxQueued = 1 << 20
	// maxCount bounds what a client asks for in one Tread. No server has blocks
	// that long.
	maxCount = 1 << 18
)

// A Client is a connection to a Venti server. It implements Store, Prober and
// ScoredWriter; its methods may be called at once, and up to 255 requests are
// in flight.
//
// What a server sends is checked against the score that was asked for. An
// error that the server reports has the server's text, and is one of this
// package's errors where the text is known. When the connection is lost every
// call fails with ErrDisconnected and the cause; a Remote connects again.
//
// When a call's context ends the call returns at once. Its request may still
// be served: a block may be written all the same.
type Client struct {
	// Immutable after NewClient.
	nc      net.Conn
	framing framing
	free    chan *call          // calls that are not in use
	room    *semaphore.Weighted // of maxQueued
	done    chan struct{}       // closed when the client is broken or closed
	wake    chan struct{}       // tells the writer that out is not empty
	calls   [maxCalls + 1]call  // by tag; calls[0] is not used; see call for who owns which

	in      *frameReader // owned by the reader
	workers sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	out    []byte     // requests to be written
	queued int64      // bytes of room held by what is in out
	err    error      // why the client is broken or closed
}

var (
	_ Store        = (*Client)(nil)
	_ Prober       = (*Client)(nil)
	_ ScoredWriter = (*Client)(nil)
)

// A call is a request in flight. It belongs to its caller but while state is
// callSent or callAbandoned; then whoever changes the state with
// CompareAndSwap may go on with it.
type call struct {
	tag   uint8
	state atomic.Int32
	done  chan struct{} // has room for one: the reply is there

	// The request.
	typ   msgType
	count uint32 // of a Tread
	probe bool   // a Tread whose error's text does not matter
	buf   []byte // where an Rread's data goes

	// The reply.
	n     int   // bytes in buf
	score Score // of an Rwrite
	err   error
}

// States of a call.
const (
	callIdle      = iota // no request
	callSent             // queued or sent; the reader is to take the reply
	callReplied          // the reader has taken, or is taking, the reply
	callAbandoned        // the caller has left; the reader is to drop the reply and free the call
)

// NewClient greets the server at the other end of nc, which the client owns
// from here on, also when NewClient fails. ctx bounds the greeting only.
func NewClient(ctx context.Context, nc net.Conn) (*Client, error) {
	c := &Client{
		nc:   nc,
		free: make(chan *call, maxCalls),
		room: semaphore.NewWeighted(maxQueued),
		done: make(chan struct{}),
		wake: make(chan struct{}, 1),
		in:   newFrameReader(nc),
	}
	for tag := 1; tag <= maxCalls; tag++ {
		l := &c.calls[tag]
		l.tag, l.done = uint8(tag), make(chan struct{}, 1)
		c.free <- l
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		nc.SetDeadline(time.Unix(1, 0))
	})
	err := c.handshake()
	if !stop() {
		<-interrupted
		nc.SetDeadline(time.Time{})
		if err != nil {
			err = ctx.Err()
		}
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("venti: greet server: %w", err)
	}
	c.workers.Go(c.reader)
	c.workers.Go(c.writer)
	return c, nil
}

// handshake exchanges versions and hellos.
func (c *Client) handshake() error {
	theirs, err := exchangeVersions(c.nc, c.in)
	if err != nil {
		return err
	}
	v, err := chooseVersion(versionNames(), theirs)
	if err != nil {
		return err
	}
	c.framing, c.in.framing = v.framing, v.framing
	hello := message{typ: tHello, text: []byte(v.name), uid: []byte(anonymous)}
	if _, err := c.nc.Write(hello.pack(nil, v.framing)); err != nil {
		return fmt.Errorf("write hello: %w", err)
	}
	b, err := c.in.next(headSize + 2 + maxString + 2)
	if err != nil {
		return fmt.Errorf("read hello: %w", lost(err))
	}
	m, err := unpackMessage(b)
	switch {
	case err != nil:
		return fmt.Errorf("read hello: %w", err)
	case m.typ == rError:
		return fmt.Errorf("hello: %w", &remoteError{string(m.text), errorOfText(m.text)})
	case m.typ != rHello || m.tag != 0:
		return fmt.Errorf("type mismatch: sent T%d got R%d", tHello, m.typ)
	}
	return nil
}

// Close ends the connection and every call in flight. It returns when the
// client's goroutines have ended.
func (c *Client) Close() error {
	c.fail(net.ErrClosed)
	c.workers.Wait()
	return nil
}

// Done returns a channel that is closed when the connection is lost or closed:
// from then on every call fails.
func (c *Client) Done() <-chan struct{} { return c.done }

// fail breaks the client with the first error it is given.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = &connError{err}
	close(c.done)
	c.nc.Close()
}

// A connError is why a connection is gone.
type connError struct{ cause error }

func (e *connError) Error() string   { return "venti: connection: " + e.cause.Error() }
func (e *connError) Unwrap() []error { return []error{ErrDisconnected, e.cause} }

// cause returns why the client is broken.
func (c *Client) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// start sends m as a request. The caller of start must call finish if it gets
// a call. m's data is copied; an Rread's goes to buf, which must not be touched
// until finish has returned.
func (c *Client) start(ctx context.Context, m *message, buf []byte, probe bool) (*call, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Room first: who waits for it holds no tag.
	room := int64(len(m.data))
	if room > 0 {
		if err := c.room.Acquire(ctx, room); err != nil {
			return nil, err
		}
	}
	l, err := c.take(ctx)
	if err != nil {
		c.room.Release(room)
		return nil, err
	}
	m.tag = l.tag
	l.typ, l.count, l.probe, l.buf = m.typ, m.count, probe, buf
	l.n, l.err = 0, nil

	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		c.room.Release(room)
		l.buf = nil
		c.free <- l
		return nil, c.err
	}
	l.state.Store(callSent) // from here on the reader finds it
	first := len(c.out) == 0
	c.out = m.pack(c.out, c.framing)
	c.queued += room
	c.mu.Unlock()
	if first {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	return l, nil
}

// take waits for a free call.
func (c *Client) take(ctx context.Context) (*call, error) {
	select {
	case l := <-c.free:
		return l, nil
	default:
	}
	select {
	case l := <-c.free:
		return l, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.done:
		return nil, c.cause()
	}
}

// finish waits for the reply to l and frees l. It returns the length of an
// Rread's data or the score of an Rwrite.
func (c *Client) finish(ctx context.Context, l *call) (n int, s Score, err error) {
	select {
	case <-l.done:
	case <-ctx.Done():
		if l.state.CompareAndSwap(callSent, callAbandoned) {
			return 0, Score{}, ctx.Err()
		}
		<-l.done // the reply is in memory and is being copied
	}
	n, s, err = l.n, l.score, l.err
	c.release(l)
	return n, s, err
}

// release frees a call that nobody else can find.
func (c *Client) release(l *call) {
	l.buf, l.err = nil, nil
	l.state.Store(callIdle)
	c.free <- l
}

// writer writes what callers queue, as much at a time as there is.
func (c *Client) writer() {
	var buf []byte
	for {
		select {
		case <-c.wake:
		case <-c.done:
		}
		// Callers that the reader has just woken queue their next requests first.
		runtime.Gosched()
		c.mu.Lock()
		room := c.queued
		c.queued = 0
		if c.err != nil {
			c.mu.Unlock()
			c.room.Release(room) // whoever waits for it finds c.err
			return
		}
		buf, c.out = c.out, buf[:0]
		c.mu.Unlock()
		_, err := c.nc.Write(buf)
		c.room.Release(room)
		if err != nil {
			c.fail(err)
		}
	}
}

// reader hands replies to callers until the connection ends, and then the
// cause to all that are left.
func (c *Client) reader() {
	c.fail(c.receive())
	err := c.cause()
	for tag := 1; tag <= maxCalls; tag++ {
		if l := &c.calls[tag]; l.state.CompareAndSwap(callSent, callReplied) {
			l.err = err
			l.done <- struct{}{}
		}
	}
}

func (c *Client) receive() error {
	for {
		b, err := c.in.next(headSize + maxCount)
		if err != nil {
			return lost(err)
		}
		m, err := unpackMessage(b)
		if err != nil {
			return fmt.Errorf("bad reply %.40x", b)
		}
		l := &c.calls[m.tag]
		switch {
		case l.state.CompareAndSwap(callSent, callReplied):
			if err := l.reply(&m); err != nil {
				// Fail first, so that the caller's next call fails too.
				c.fail(err)
				l.err = c.cause()
				l.done <- struct{}{}
				return err
			}
			l.done <- struct{}{}
		case l.state.Load() == callAbandoned:
			c.release(l)
		default:
			return fmt.Errorf("reply R%d with unknown tag %d", m.typ, m.tag)
		}
	}
}

// reply takes over a reply. The error is a breach of the protocol.
func (l *call) reply(m *message) error {
	switch {
	case m.typ == rError && l.probe && bytes.HasPrefix(m.text, probeHit):
		l.err = ErrTooLong
	case m.typ == rError && l.probe && bytes.HasPrefix(m.text, probeMiss):
		l.err = ErrNotFound
	case m.typ == rError:
		l.err = &remoteError{string(m.text), errorOfText(m.text)}
	case m.typ != l.typ+1:
		return fmt.Errorf("type mismatch: sent T%d got R%d", l.typ, m.typ)
	case len(m.data) > int(l.count):
		return fmt.Errorf("read returned too much data: asked for %d got %d", l.count, len(m.data))
	}
	l.n = copy(l.buf, m.data)
	l.score = m.score
	return nil
}

// What a server answers to a Tread of count 0. Most answers of a client's
// life are these, so they are not kept as text.
var (
	probeHit  = []byte("read too small")
	probeMiss = []byte("no block with score ")
)

// ReadBlock implements BlockReader.
func (c *Client) ReadBlock(ctx context.Context, s Score, t Type, buf []byte) (int, error) {
	if s == EmptyScore || s.IsZero() {
		return 0, nil
	}
	if !t.Valid() {
		return 0, fmt.Errorf("read block %v: %w %d", s, ErrBadType, t)
	}
	count := min(len(buf), maxCount)
	if c.framing == 2 {
		count = min(count, 1<<16-1)
	}
	buf = buf[:count]
	l, err := c.start(ctx, &message{typ: tRead, score: s, disk: t.Disk(), count: uint32(count)}, buf, false)
	if err != nil {
		return 0, err
	}
	n, _, err := c.finish(ctx, l)
	if err != nil {
		return 0, err
	}
	if got := ScoreOf(buf[:n]); got != s {
		return 0, fmt.Errorf("read asked for %v got %v: %w", s, got, ErrCorrupt)
	}
	return n, nil
}

// HasBlock implements Prober with a Tread that leaves no room for data.
func (c *Client) HasBlock(ctx context.Context, s Score, t Type) (bool, error) {
	if s == EmptyScore || s.IsZero() {
		return true, nil
	}
	if !t.Valid() {
		return false, fmt.Errorf("probe block %v: %w %d", s, ErrBadType, t)
	}
	l, err := c.start(ctx, &message{typ: tRead, score: s, disk: t.Disk()}, nil, true)
	if err != nil {
		return false, err
	}
	switch _, _, err = c.finish(ctx, l); err {
	case ErrTooLong:
		return true, nil
	case ErrNotFound:
		return false, nil
	case nil:
		return false, fmt.Errorf("read asked for %v got %v: %w", s, EmptyScore, ErrCorrupt)
	}
	return false, err
}

// WriteBlock implements BlockWriter. The score is computed while the block is
// on its way.
func (c *Client) WriteBlock(ctx context.Context, t Type, data []byte) (Score, error) {
	if len(data) == 0 && t.Valid() {
		return EmptyScore, nil
	}
	l, err := c.startWrite(ctx, t, data)
	if err != nil {
		return Score{}, err
	}
	s := ScoreOf(data)
	if err := c.finishWrite(ctx, l, s); err != nil {
		return Score{}, err
	}
	return s, nil
}

// WriteScored implements ScoredWriter. The server computes the score itself,
// and s is compared with that.
func (c *Client) WriteScored(ctx context.Context, s Score, t Type, data []byte) error {
	if len(data) == 0 && t.Valid() && s == EmptyScore {
		return nil
	}
	l, err := c.startWrite(ctx, t, data)
	if err != nil {
		return err
	}
	return c.finishWrite(ctx, l, s)
}

func (c *Client) startWrite(ctx context.Context, t Type, data []byte) (*call, error) {
	if !t.Valid() {
		return nil, fmt.Errorf("write block: %w %d", ErrBadType, t)
	}
	if len(data) > MaxBlockSize {
		return nil, fmt.Errorf("write block of %d bytes: %w", len(data), ErrTooLarge)
	}
	return c.start(ctx, &message{typ: tWrite, disk: t.Disk(), data: data}, nil, false)
}

func (c *Client) finishWrite(ctx context.Context, l *call, want Score) error {
	_, got, err := c.finish(ctx, l)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("sha1 hash mismatch: want %v got %v: %w", want, got, ErrCorrupt)
	}
	return nil
}

// Sync implements Syncer.
func (c *Client) Sync(ctx context.Context) error {
	l, err := c.start(ctx, &message{typ: tSync}, nil, false)
	if err != nil {
		return err
	}
	_, _, err = c.finish(ctx, l)
	return err
}
