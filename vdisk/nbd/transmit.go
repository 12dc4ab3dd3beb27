package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// pieceSize is how much of a long read or write is done at once.
	pieceSize = 256 << 10
	// findSize is how long a read is for which holes are looked up, rather than
	// found in what was read.
	findSize = 64 << 10
	// maxExtents is how many extents a reply tells of, and maxFinds how many
	// ranges of data are looked up for them.
	maxExtents = 4096
	maxFinds   = 8192
	// maxExtent is the longest extent that block status can tell of: a multiple
	// of every block size.
	maxExtent = math.MaxUint32 &^ (1<<16 - 1)
)

// A task is what a goroutine other than the one that reads does: a request,
// or with data a piece of a write.
type task struct {
	request
	data  *buffer // of a write
	off   int64   // of data
	whole *write  // that data is a piece of
}

// A write is a request to write that is carried out piece by piece.
type write struct {
	left atomic.Int32          // pieces, and one while there may be more
	err  atomic.Pointer[error] // the first
}

// transmit reads requests until the connection ends: with nil when the client
// has said so.
func (c *conn) transmit() error {
	c.out.init(c.nc, &c.srv.batches, &c.srv.buffers)
	c.deadline(c.srv.idleTime)
	for {
		if c.in.Buffered() < requestSize {
			c.out.flush()
		}
		head, err := c.readHead()
		if err != nil {
			return err
		}
		r, ok := unpackRequest(head)
		if !ok {
			return fmt.Errorf("bad magic %x of a request", head[:4])
		}
		c.in.Discard(requestSize)
		if r.typ == cmdDisc {
			return nil
		}
		if err := c.request(&r); err != nil {
			return err
		}
	}
}

// readHead waits for the head of a request.
func (c *conn) readHead() ([]byte, error) {
	if c.in.Buffered() == 0 {
		if c.srv.idleTime > 0 {
			c.deadline(c.srv.idleTime)
		}
		if _, err := c.in.Peek(1); err != nil {
			return nil, err
		}
	}
	if c.in.Buffered() >= requestSize {
		return c.in.Peek(requestSize)
	}
	c.deadline(stallTime)
	defer c.deadline(0)
	head, err := c.in.Peek(requestSize)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return head, err
}

// request carries a request out, or hands it to somebody who does. An error
// ends the connection.
func (c *conn) request(r *request) error {
	err := c.check(r)
	if r.typ == cmdWrite {
		if r.length > maxPayload {
			// What follows would have to be skipped.
			return fmt.Errorf("write of %d bytes, at most %d", r.length, maxPayload)
		}
		if err == nil && r.length > 0 {
			return c.takeWrite(r)
		}
		if serr := c.skip(int64(r.length)); serr != nil {
			return serr
		}
	}
	switch {
	case err != nil:
		c.fail(r, err, -1)
		return nil
	case r.length == 0 && r.typ != cmdFlush:
		c.done(r)
		return nil
	case r.typ == cmdRead && r.length <= smallRead:
		if cached, ok := c.export.Disk.(CachedReader); ok && c.readCached(r, cached) {
			return nil
		}
	}
	c.start(task{request: *r})
	return nil
}

// check tells what is wrong with a request.
func (c *conn) check(r *request) error {
	may, writes := uint16(0), false
	if c.writer != nil {
		may = cmdFlagFUA // with any command, if it may be used at all
	}
	outside := errOutside
	switch r.typ {
	case cmdRead:
		if c.structured {
			may |= cmdFlagDF
		}
	case cmdWrite:
		writes, outside = true, errFull
	case cmdFlush:
		if r.offset != 0 || r.length != 0 {
			return errReserved
		}
	case cmdTrim:
		writes = true
	case cmdCache:
	case cmdWriteZeroes:
		writes, outside = true, errFull
		may |= cmdFlagNoHole | cmdFlagFastZero
	case cmdBlockStatus:
		may |= cmdFlagReqOne
	default:
		return errCommand
	}
	size := uint64(c.size)
	switch {
	case writes && c.writer == nil:
		return errReadOnly
	case r.flags&^may != 0:
		return errFlags
	case r.offset > size || uint64(r.length) > size-r.offset:
		return outside
	case r.typ == cmdRead && r.length > maxPayload:
		if c.structured {
			return errOverflow
		}
		return errTooLong
	case r.typ == cmdBlockStatus && !c.context:
		return errContext
	case r.typ == cmdBlockStatus && r.length == 0:
		return errEmpty
	}
	return nil
}

// done replies that a request without data in the reply was carried out.
func (c *conn) done(r *request) {
	var b [chunkHeadSize]byte
	if c.structured {
		c.out.append(appendChunk(b[:0], chunkDone, chunkNone, r.cookie, 0), nil)
	} else {
		c.out.append(appendSimple(b[:0], 0, r.cookie), nil)
	}
}

// fail replies that a request was not carried out: in what lies from off on,
// unless that is less than 0.
func (c *conn) fail(r *request, err error, off int64) {
	code := errorCode(err)
	var e *requestError
	if !errors.As(err, &e) {
		c.log.Warn("request failed", "type", r.typ, "offset", r.offset, "length", r.length, "err", err)
	}
	if c.structured {
		c.out.append(appendError(nil, r.cookie, code, text(err.Error()), off), nil)
	} else {
		c.out.append(appendSimple(nil, code, r.cookie), nil)
	}
}

// skip reads what a write would have written.
func (c *conn) skip(n int64) error {
	for n > 0 {
		m := min(n, pieceSize)
		c.deadline(stallTime)
		if _, err := c.in.Discard(int(m)); err != nil {
			return fmt.Errorf("read data: %w", err)
		}
		n -= m
	}
	c.deadline(0)
	return nil
}

// takeWrite reads the data of a write and has them written.
func (c *conn) takeWrite(r *request) error {
	whole := new(write)
	whole.left.Store(1)
	for at := uint32(0); at < r.length; {
		n := min(r.length-at, pieceSize)
		b, err := c.buffer(c.ctx, int(n))
		if err != nil {
			return err
		}
		stalling := c.in.Buffered() < int(n)
		if stalling {
			c.deadline(stallTime)
		}
		if _, err := io.ReadFull(c.in, b.b); err != nil {
			c.srv.buffers.put(b)
			return fmt.Errorf("read data: %w", err)
		}
		if stalling {
			c.deadline(0)
		}
		last := at+n == r.length
		if !last {
			whole.left.Add(1)
		}
		c.start(task{request: *r, data: b, off: int64(r.offset) + int64(at), whole: whole})
		at += n
	}
	return nil
}

// buffer returns memory for n bytes when there is room. Before it waits, the
// client gets what there is for it.
func (c *conn) buffer(ctx context.Context, n int) (*buffer, error) {
	size := weight(n)
	if err := c.acquire(ctx, c.room, size); err != nil {
		return nil, err
	}
	if err := c.acquire(ctx, c.srv.room, size); err != nil {
		c.room.Release(size)
		return nil, err
	}
	return c.srv.buffers.get(n, c.release), nil
}

func (c *conn) acquire(ctx context.Context, room *semaphore.Weighted, n int64) error {
	if room.TryAcquire(n) {
		return nil
	}
	c.out.flush()
	return room.Acquire(ctx, n)
}

// A client that sends one request at a time has its short reads done by the
// goroutine that reads, after so many that came when nothing else was to be done.
const calmRequests = 8

// slowRead is how long such a read may take, for others may come meanwhile and
// wait: after one that takes longer, this many more requests must have been alone.
const (
	slowRead     = 2 * time.Millisecond
	slowRequests = 1000
)

// alone does a task by itself if nothing else is to be done, and tells whether it
// did. To wake another goroutine up takes as long as many reads do.
func (c *conn) alone(t *task) bool {
	if len(c.slots) > 0 || c.in.Buffered() > 0 {
		c.calm = min(c.calm, 0)
		return false
	}
	c.calm++
	if c.calm <= calmRequests || t.typ != cmdRead || t.length > smallRead {
		return false
	}
	began := time.Now()
	c.do(t)
	if time.Since(began) > slowRead {
		c.calm = -slowRequests
	}
	return true
}

// start has a task done by another goroutine, when there is room for one more,
// or does it if nothing else is there to be done.
func (c *conn) start(t task) {
	if c.alone(&t) {
		return
	}
	select {
	case c.slots <- struct{}{}:
	default:
		c.out.flush()
		c.slots <- struct{}{}
	}
	select {
	case c.next <- t:
	default:
		c.tasks.Go(func() { c.work(t) })
	}
}

// work does tasks until enough other goroutines wait for the next one. A
// goroutine that is new to each request would have to grow its stack each time.
func (c *conn) work(t task) {
	for {
		c.do(&t)
		<-c.slots
		if len(c.slots) > 0 {
			// Others may be about to finish too: let them, and write all at once.
			runtime.Gosched()
		}
		c.out.flush()
		select {
		case c.idle <- struct{}{}:
		default:
			return
		}
		var ok bool
		if t, ok = <-c.next; !ok {
			return
		}
		<-c.idle
	}
}

// do does a task, and replies.
func (c *conn) do(t *task) {
	r := &t.request
	var err error
	switch r.typ {
	case cmdRead:
		if c.structured && r.flags&cmdFlagDF == 0 {
			c.readPieces(r)
		} else {
			c.readWhole(r)
		}
		return
	case cmdBlockStatus:
		c.blockStatus(r)
		return
	case cmdWrite:
		var last bool
		if last, err = c.writePiece(t); !last {
			return
		}
	case cmdFlush:
		if c.writer != nil {
			err = c.writer.Flush(c.ctx)
		}
	case cmdTrim:
		if d, ok := c.writer.(Trimmer); ok { // else it is a hint that is not taken
			err = d.Trim(c.ctx, int64(r.offset), int64(r.length))
		}
	case cmdWriteZeroes:
		err = c.writeZeroes(r)
	case cmdCache:
		err = c.cache(r)
	}
	if err == nil && r.flags&cmdFlagFUA != 0 && r.typ != cmdCache && r.typ != cmdFlush {
		err = c.writer.Flush(c.ctx)
	}
	if err != nil {
		c.fail(r, err, -1)
	} else {
		c.done(r)
	}
}

// writePiece writes a piece of a write. last tells that all are done, and err
// what came of it.
func (c *conn) writePiece(t *task) (last bool, err error) {
	n, failed := c.writer.WriteAt(c.ctx, t.data.b, t.off)
	if failed == nil && n < len(t.data.b) {
		failed = io.ErrShortWrite
	}
	c.srv.buffers.put(t.data)
	if failed != nil {
		t.whole.err.CompareAndSwap(nil, &failed)
	}
	if t.whole.left.Add(-1) > 0 {
		return false, nil
	}
	if first := t.whole.err.Load(); first != nil {
		return true, *first
	}
	return true, nil
}

// writeZeroes carries out NBD_CMD_WRITE_ZEROES.
func (c *conn) writeZeroes(r *request) error {
	off, n := int64(r.offset), int64(r.length)
	how := Zeroing{Allocate: r.flags&cmdFlagNoHole != 0, Fast: r.flags&cmdFlagFastZero != 0}
	if z, ok := c.writer.(Zeroer); ok {
		err := z.Zero(c.ctx, off, n, how)
		if how.Fast && errors.Is(err, ErrNotFast) {
			return errNotFast
		}
		return err
	}
	if how.Fast {
		return errNotFast
	}
	for n > 0 {
		m := min(n, int64(len(zeros)))
		if got, err := c.writer.WriteAt(c.ctx, zeros[:m], off); err != nil {
			return err
		} else if int64(got) < m {
			return io.ErrShortWrite
		}
		off, n = off+m, n-m
	}
	return nil
}

// zeros are never written to.
var zeros [pieceSize]byte

// isZero tells whether all of p is zeros.
func isZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

// cache reads for the sake of what the disk remembers.
func (c *conn) cache(r *request) error {
	off, end := int64(r.offset), int64(r.offset)+min(int64(r.length), maxPayload)
	for off < end {
		n := min(end-off, pieceSize)
		b, err := c.read(off, int(n))
		if err != nil {
			return err
		}
		c.srv.buffers.put(b)
		off += n
	}
	return nil
}

// read reads n bytes at off.
func (c *conn) read(off int64, n int) (*buffer, error) {
	b, err := c.buffer(c.ctx, n)
	if err != nil {
		return nil, err
	}
	got, err := c.export.Disk.ReadAt(c.ctx, b.b, off)
	if got == n {
		return b, nil
	}
	c.srv.buffers.put(b)
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

// readCached answers a short read from the memory of the disk, if it can.
func (c *conn) readCached(r *request, d CachedReader) bool {
	n := int(r.length)
	head := simpleSize
	if c.structured {
		head = chunkHeadSize + 8
	}
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.roomLocked(head + n)
	if b == nil {
		return true
	}
	// The data go to where they will be in the reply.
	at := len(b.slab)
	data := b.slab[at+head : at+head+n]
	got, ok := d.ReadCached(data, int64(r.offset))
	if !ok || got < n {
		return false
	}
	switch {
	case !c.structured:
		appendSimple(b.slab[:at], 0, r.cookie)
	case r.flags&cmdFlagDF == 0 && isZero(data):
		head, n = chunkHeadSize+holeSize, 0
		appendHole(b.slab[:at], chunkDone, r.cookie, int64(r.offset), int64(r.length))
	default:
		h := appendChunk(b.slab[:at], chunkDone, chunkData, r.cookie, 8+n)
		binary.BigEndian.AppendUint64(h, r.offset)
	}
	b.extend(head + n)
	return true
}

// readWhole reads into one reply.
func (c *conn) readWhole(r *request) {
	b, err := c.read(int64(r.offset), int(r.length))
	if err != nil {
		c.fail(r, err, -1)
		return
	}
	var head [chunkHeadSize + 8]byte
	if !c.structured {
		c.out.append(appendSimple(head[:0], 0, r.cookie), b)
		return
	}
	c.out.append(appendDataHead(head[:0], chunkDone, r, int64(r.offset), len(b.b)), b)
}

func appendDataHead(b []byte, flags uint16, r *request, off int64, n int) []byte {
	b = appendChunk(b, flags, chunkData, r.cookie, 8+n)
	return binary.BigEndian.AppendUint64(b, uint64(off))
}

// readPieces reads into as many chunks as it takes, without what are holes.
func (c *conn) readPieces(r *request) {
	var head [chunkHeadSize + holeSize]byte
	off, end := int64(r.offset), int64(r.offset)+int64(r.length)
	finder, _ := c.export.Disk.(Finder)
	if r.length < findSize {
		finder = nil
	}
	start, stop := off, end // of the next data
	for off < end {
		if finder != nil && (off == int64(r.offset) || off >= stop) {
			var err error
			if start, stop, err = next(c.ctx, finder, off, end); err != nil {
				c.fail(r, err, off)
				return
			}
		}
		flags := uint16(0)
		if off < start {
			if start == end {
				flags = chunkDone
			}
			c.out.append(appendHole(head[:0], flags, r.cookie, off, start-off), nil)
			off = start
			continue
		}
		n := int(min(stop-off, pieceSize))
		b, err := c.read(off, n)
		if err != nil {
			c.fail(r, err, off)
			return
		}
		if off+int64(n) == end {
			flags = chunkDone
		}
		if isZero(b.b) {
			c.srv.buffers.put(b)
			c.out.append(appendHole(head[:0], flags, r.cookie, off, int64(n)), nil)
		} else {
			c.out.append(appendDataHead(head[:0], flags, r, off, n), b)
		}
		off += int64(n)
	}
}

// next returns the first range of data at or after off, cut off at end; it is
// empty if there is none.
func next(ctx context.Context, f Finder, off, end int64) (start, stop int64, err error) {
	start, stop, err = f.NextData(ctx, off)
	if err == io.EOF {
		return end, end, nil
	}
	if err != nil {
		return 0, 0, err
	}
	start, stop = max(start, off), min(stop, end)
	if start >= end {
		return end, end, nil
	}
	if stop <= start {
		return 0, 0, fmt.Errorf("data after %d: got %d to %d", off, start, stop)
	}
	return start, stop, nil
}

// blockStatus answers NBD_CMD_BLOCK_STATUS.
func (c *conn) blockStatus(r *request) {
	off, end := int64(r.offset), int64(r.offset)+int64(r.length)
	most := maxExtents
	if r.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	end = min(end, off+maxExtent)
	var list []byte
	n, last := 0, uint32(0)
	// add tells whether there is room for more.
	add := func(length int64, flags uint32) bool {
		if n > 0 && flags == last { // it goes on
			at := list[len(list)-extentSize:]
			binary.BigEndian.PutUint32(at, binary.BigEndian.Uint32(at)+uint32(length))
			return true
		}
		if n == most {
			return false
		}
		list = binary.BigEndian.AppendUint32(list, uint32(length))
		list = binary.BigEndian.AppendUint32(list, flags)
		n, last = n+1, flags
		return true
	}
	finder, ok := c.export.Disk.(Finder)
	more := true
	for finds := 0; more && off < end && finds < maxFinds; finds++ {
		start, stop := off, end
		if ok {
			var err error
			if start, stop, err = next(c.ctx, finder, off, end); err != nil {
				c.fail(r, err, -1)
				return
			}
		}
		if start > off {
			more = add(start-off, stateHole|stateZero)
		}
		if more && stop > start {
			more = add(stop-start, 0)
		}
		off = stop
	}
	b := appendChunk(nil, chunkDone, chunkStatus, r.cookie, 4+len(list))
	b = binary.BigEndian.AppendUint32(b, allocationID)
	c.out.append(append(b, list...), nil)
}
