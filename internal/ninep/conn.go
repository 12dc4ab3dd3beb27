package ninep

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// readBuffer is what one read of the connection may bring in: some
	// hundreds of small requests. Larger frames are read past it.
	readBuffer = 32 << 10

	// inlineBatch is how many bytes of replies the reader gathers, of requests
	// that it answers itself, before it writes them.
	inlineBatch = 128 << 10

	// writePiece is how much is written before the peer counts as one that takes
	// its replies.
	writePiece = 1 << 20
)

// A conn is a connection, or a local client's place. One goroutine reads it; each request is worked on by
// a goroutine of its own, except those that can be answered at once. Replies
// go to a queue, which the first to find nobody writing writes, in order,
// until it is empty.
type conn struct {
	srv    *Server
	rwc    io.ReadWriteCloser // nil of a local client
	br     *bufio.Reader      // owned by the reader
	peer   string             // for people
	ctx    context.Context    // of the connection: cancelled when it ends
	cancel func()             // of a local client: cancels ctx

	// Set by the reader for Tversion, while no request is in flight.
	dialect Dialect
	msize   uint32
	ready   bool // after the first Tversion

	mu       sync.Mutex // guards the fields below
	ended    sync.Cond  // a request has ended, or parked ones have been started
	fids     map[uint32]*fid
	tags     map[uint16]*request // in flight: from reading until the reply is queued
	parked   []*request          // waiting for their turn, oldest first
	working  int                 // goroutines at work
	bytes    int                 // that requests at work and replies that are not written take
	waiting  int                 // bytes of parked requests
	queue    []*buffer           // replies to write
	queued   int                 // bytes in queue
	writing  bool                // somebody writes
	writeErr error               // the first; nothing is written after it
	endErr   error               // why the server has ended the connection itself

	taken atomic.Uint64 // messages read, for watch
	wrote atomic.Uint64 // pieces written, for watch

	// Owned by whoever set writing.
	batch []*buffer
	iov   net.Buffers
	left  net.Buffers // of iov, while it is written: a field, as it would escape
}

// A request is a message being worked on.
type request struct {
	c     *conn
	f     Fcall
	rep   Fcall
	frame *buffer // of the request
	out   *buffer // the reply, if the handler has packed it itself
	dst   []byte  // of a local client: where the data of a read goes
	n     int     // how much of it came
	cost  int     // what it counts for in conn.bytes: the memory that it takes
	run   func()  // r.work, bound once

	ctx *requestContext // set when work starts

	// Guarded by conn.mu.
	flushed bool       // by Tflush: an error need not be sent
	flushes []*request // Tflushes to answer after this
}

// requestSize is about what a request takes besides its messages.
const requestSize = 2 << 10

var requests = sync.Pool{New: func() any { return new(request) }}

func (c *conn) newRequest(frame *buffer) *request {
	r := requests.Get().(*request)
	if r.run == nil {
		r.run = r.work
	}
	r.c, r.frame, r.cost = c, frame, requestSize+len(frame.b)
	return r
}

func (r *request) free() {
	r.frame.free()
	r.out.free()
	r.f, r.rep = Fcall{}, Fcall{}
	r.c, r.frame, r.out, r.ctx, r.dst, r.n = nil, nil, nil, nil, nil, 0
	r.flushed, r.flushes = false, r.flushes[:0]
	requests.Put(r)
}

// readLoop reads requests until the connection ends.
func (c *conn) readLoop() error {
	for {
		if !c.buffered() {
			c.flush()
		}
		frame, err := readFrame(c.br, c.msize)
		if err != nil {
			return err
		}
		c.taken.Add(1)
		r := c.newRequest(frame)
		err = r.f.Unpack(frame.b, c.dialect)
		if err == nil && r.f.Type%2 != 0 {
			err = fmt.Errorf("a reply, type %d: %w", r.f.Type, ErrBotch)
		}
		if err == nil {
			c.traceRequest(&r.f)
		}
		switch {
		case err != nil:
			c.srv.cfg.Log.Info("9p message", "err", err)
			c.reply(r, err)
		case r.f.Type == Tversion:
			c.version(r)
		case !c.ready:
			c.reply(r, ErrNotReady)
		case r.f.Type == Tflush:
			c.tflush(r)
		case r.f.Type == Tread && c.readInline(r):
		default:
			c.start(r)
		}
	}
}

// buffered tells whether a whole frame, or what leads to one, is at hand, so
// that reading it will not keep replies waiting.
func (c *conn) buffered() bool {
	n := c.br.Buffered()
	if n < headerSize {
		return false
	}
	b, err := c.br.Peek(4)
	return err == nil && uint64(binary.LittleEndian.Uint32(b)) <= uint64(n)
}

// readFrame reads one message of at most msize bytes.
func readFrame(br *bufio.Reader, msize uint32) (*buffer, error) {
	head, err := br.Peek(4)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head)
	if n < headerSize || n > msize {
		return nil, fmt.Errorf("frame of %d bytes, at most %d allowed: %w", n, msize, ErrTooLong)
	}
	frame := getBuffer(int(n))
	if _, err := io.ReadFull(br, frame.b); err != nil {
		frame.free()
		return nil, err
	}
	return frame, nil
}

// start begins work on r, or parks it. The reader alone calls it, and waits
// here only while the parked requests are themselves too many bytes, so that
// a Tflush gets through.
func (c *conn) start(r *request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tags[r.f.Tag] != nil {
		c.replyLocked(r, ErrDuplicateTag)
		return
	}
	c.tags[r.f.Tag] = r
	if len(c.parked) == 0 && c.fitsLocked(r) {
		c.launchLocked(r)
		return
	}
	if c.working >= int(c.srv.observed.requests.Load()) {
		c.srv.observed.numberWaits.Add(1)
	} else {
		c.srv.observed.byteWaits.Add(1)
	}
	c.parked = append(c.parked, r)
	c.waiting += r.cost
	for c.waiting > c.srv.maxBytes() && c.ctx.Err() == nil {
		c.writeQueueLocked() // what the reader has answered itself
		c.ended.Wait()
	}
}

// fitsLocked tells whether r may be worked on now. c.mu must be held.
func (c *conn) fitsLocked(r *request) bool {
	return c.working < int(c.srv.observed.requests.Load()) && (c.bytes == 0 || c.bytes+r.cost+c.replySize(r) <= c.srv.maxBytes())
}

// replySize returns how much data the reply to r may bring.
func (c *conn) replySize(r *request) int {
	if r.f.Type == Tread || r.f.Type == Treaddir {
		return int(min(r.f.Count, c.msize))
	}
	return 0
}

// launchLocked starts a goroutine for r. It ends with r.work; reset waits for
// it. c.mu must be held.
func (c *conn) launchLocked(r *request) {
	c.working++
	r.cost += c.replySize(r)
	c.bytes += r.cost
	r.ctx = &requestContext{parent: c.ctx}
	go r.run()
}

// unparkLocked starts the parked requests that fit. c.mu must be held.
func (c *conn) unparkLocked() {
	for len(c.parked) > 0 && c.fitsLocked(c.parked[0]) {
		r := c.parked[0]
		c.parked[0] = nil
		c.parked = c.parked[1:]
		c.waiting -= r.cost
		c.launchLocked(r)
		c.ended.Broadcast()
	}
}

// work does r and replies to it.
func (r *request) work() {
	c := r.c
	err := c.handle(r.ctx, r)
	r.ctx.cancel(context.Canceled)
	c.finish(r, err)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.working--
	c.unparkLocked()
	c.ended.Broadcast()
}

// reply answers a request that never was in flight. The reader alone calls
// it.
func (c *conn) reply(r *request, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replyLocked(r, err)
}

// replyLocked is reply with c.mu held. It waits while the client, sending
// more and more, leaves too many replies unread.
func (c *conn) replyLocked(r *request, err error) {
	c.queueReplyLocked(r, err)
	r.free()
	c.writeQueueLocked()
	for c.writing && c.queued > c.srv.maxBytes() && c.ctx.Err() == nil {
		c.ended.Wait()
	}
}

// finish queues the reply to a request in flight, and behind it those to the
// Tflushes that wait for it; then writes the queue if nobody else does.
func (c *conn) finish(r *request, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(r, err)
	c.writeQueueLocked()
}

// endLocked queues what finish says. The tag is free from here on: a client
// that uses it again has seen the reply, and the queue keeps order even for
// one that has not. c.mu must be held.
func (c *conn) endLocked(r *request, err error) {
	delete(c.tags, r.f.Tag)
	c.bytes -= r.cost
	// A flushed request that succeeded has changed something, of which the
	// client must know; one that failed has not. So it is with what ends because
	// the connection does: no answer says more than that it was interrupted.
	if err == nil || !r.flushed && c.ctx.Err() == nil {
		c.queueReplyLocked(r, err)
	}
	for _, f := range r.flushes {
		f.rep.Type = Rflush
		c.endLocked(f, nil)
	}
	r.free()
}

// queueReplyLocked packs the reply to r, unless that is done, and queues it.
// c.mu must be held.
func (c *conn) queueReplyLocked(r *request, err error) {
	tag := r.f.Tag
	if err != nil {
		c.queueErrorLocked(tag, err)
		return
	}
	out := r.out
	r.out = nil
	if out == nil {
		r.rep.Tag = tag
		out = getBuffer(0)
		out.b, err = r.rep.Pack(out.b, c.dialect)
		if err == nil && len(out.b) > int(c.msize) {
			err = fmt.Errorf("%d bytes in reply: %w", len(out.b), ErrTooLong)
		}
		if err != nil {
			out.free()
			c.queueErrorLocked(tag, err)
			return
		}
	}
	c.queueLocked(out)
}

// maxEname is the longest text of an error in bytes, which fits in any msize;
// Plan 9's is 128.
const maxEname = 240

// queueErrorLocked queues an error reply. c.mu must be held.
func (c *conn) queueErrorLocked(tag uint16, err error) {
	e := toError(err)
	f := Fcall{Type: Rerror, Tag: tag, Ename: e.Text, Errno: uint32(e.Errno)}
	if c.dialect == Linux {
		f.Type = Rlerror
	}
	if len(f.Ename) > maxEname {
		f.Ename = strings.ToValidUTF8(f.Ename[:maxEname], "")
	}
	out := getBuffer(0)
	if out.b, err = f.Pack(out.b, c.dialect); err != nil {
		panic(fmt.Sprintf("ninep: %v", err)) // it is shorter than any limit
	}
	c.queueLocked(out)
}

func (c *conn) queueLocked(out *buffer) {
	c.traceReply(out)
	c.queue = append(c.queue, out)
	n := out.size()
	c.queued += n
	c.bytes += n
}

// flush writes the queue if nobody else does.
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) > 0 {
		c.writeQueueLocked()
	}
}

// writeQueueLocked writes the queue until it is empty, unless somebody else
// does already. c.mu must be held; it is given up while writing.
func (c *conn) writeQueueLocked() {
	if c.writing {
		return
	}
	c.writing = true
	for len(c.queue) > 0 {
		c.batch, c.queue = c.queue, c.batch[:0]
		queued := c.queued
		c.queued = 0
		if c.writeErr == nil {
			c.mu.Unlock()
			err := c.writeBatch()
			c.mu.Lock()
			if err != nil {
				// Nothing can be answered any more: wake the reader to end it all.
				c.writeErr = err
				c.rwc.Close()
			}
		}
		for i, out := range c.batch {
			out.free()
			c.batch[i] = nil
		}
		c.bytes -= queued
		c.unparkLocked()
		c.ended.Broadcast()
	}
	c.writing = false
	c.ended.Broadcast()
}

// writeBatch writes c.batch, in pieces of about writePiece bytes, and each
// with one system call where there is one for it.
func (c *conn) writeBatch() error {
	for batch := c.batch; len(batch) > 0; {
		n, size := 0, 0
		for n < len(batch) && size < writePiece {
			size += batch[n].size()
			n++
		}
		if err := c.writeSome(batch[:n]); err != nil {
			return err
		}
		c.wrote.Add(1)
		batch = batch[n:]
	}
	return nil
}

func (c *conn) writeSome(batch []*buffer) error {
	if len(batch) == 1 && len(batch[0].lent) == 0 {
		_, err := c.rwc.Write(batch[0].b)
		return err
	}
	iov := c.iov[:0]
	for _, out := range batch {
		iov = append(append(iov, out.b), out.lent...)
	}
	c.iov, c.left = iov, iov // WriteTo moves the slice along
	_, err := c.left.WriteTo(c.rwc)
	clear(c.iov)
	return err
}

// reset cancels all requests, waits until they have ended, and clunks every
// fid.
func (c *conn) reset() {
	c.mu.Lock()
	for _, r := range c.parked {
		r.cost = 0
		r.flushed = true
		c.endLocked(r, ErrInterrupted)
	}
	c.parked, c.waiting = nil, 0
	for _, r := range c.tags {
		r.flushed = true
		if r.ctx != nil {
			r.ctx.cancel(context.Canceled)
		}
	}
	for c.working > 0 || c.writing {
		c.ended.Wait()
	}
	fids := c.fids
	c.fids = make(map[uint32]*fid)
	c.mu.Unlock()
	for _, f := range fids {
		if err := c.release(f); err != nil {
			c.srv.cfg.Log.Info("9p clunk", "err", err)
		}
	}
}

// version answers a Tversion, which starts the session anew.
func (c *conn) version(r *request) {
	c.reset()
	// These hold for the reply, and if it is not a success for what follows.
	c.ready = false
	c.dialect = Classic
	c.msize = uint32(c.srv.cfg.Msize)
	f := &r.f
	if f.Msize < MinMsize {
		c.reply(r, ErrMsize)
		return
	}
	d, ok := parseVersion(f.Version)
	r.rep = Fcall{Type: Rversion, Msize: min(f.Msize, uint32(c.srv.cfg.Msize)), Version: "unknown"}
	if ok {
		r.rep.Version = d.String()
		c.msize = r.rep.Msize
		c.ready = true
		c.dialect = d
	}
	c.reply(r, nil)
}

// parseVersion returns the dialect that answers a client's version: the
// longest that it is, or begins with in front of a '.'.
func parseVersion(v string) (Dialect, bool) {
	for _, d := range []Dialect{Linux, Unix, Classic} {
		s := d.String()
		if v == s || len(v) > len(s) && v[:len(s)] == s && v[len(s)] == '.' {
			return d, true
		}
	}
	return Classic, false
}

// tflush answers a Tflush, or leaves it for the end of the request that it
// flushes.
func (c *conn) tflush(r *request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tags[r.f.Tag] != nil {
		c.replyLocked(r, ErrDuplicateTag)
		return
	}
	r.rep.Type = Rflush
	old := c.tags[r.f.Oldtag]
	if old == nil {
		c.replyLocked(r, nil)
		return
	}
	c.tags[r.f.Tag] = r
	r.cost = 0
	old.flushes = append(old.flushes, r)
	old.flushed = true
	if old.ctx != nil {
		old.ctx.cancel(context.Canceled)
		return
	}
	for i, p := range c.parked {
		if p == old {
			c.parked = append(c.parked[:i], c.parked[i+1:]...)
			c.waiting -= old.cost
			old.cost = 0
			c.endLocked(old, ErrInterrupted)
			c.writeQueueLocked()
			return
		}
	}
	// It is a Tflush itself, and this one ends with it.
}
