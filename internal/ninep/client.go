package ninep

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
)

// A ClientConfig sets how a client speaks. Its zero value is classic 9P2000
// with DefaultMsize.
type ClientConfig struct {
	Dialect Dialect // asked for; what the server answers is Client.Dialect
	Msize   int
	Users   *Users // translates numbers in the dialects that have them; nil sends none
}

// clientTags is how many requests a client has in flight at most. The tag of
// the Tflush of request t is t+clientTags.
const clientTags = 64

// A Client is the client's end of a connection. Its methods, and those of
// its Files, may be called at once.
//
// When a context is cancelled the request is flushed, and the call returns
// when the server has agreed, or when the client is closed.
type Client struct {
	rwc     io.ReadWriteCloser
	dialect Dialect
	msize   uint32
	users   *Users

	tags chan uint16   // that are free
	done chan struct{} // closed when the reader has ended

	wmu sync.Mutex // held while writing a request

	mu    sync.Mutex // guards the fields below
	calls [2 * clientTags]*call
	fids  []uint32 // given back
	next  uint32   // the first fid never used
	err   error    // why the connection is of no use any more
}

// A call is a request in flight.
type call struct {
	tag  uint16
	want Type
	dst  []byte // where the data of an Rread goes
	n    int    // how much of it came
	rep  Fcall
	err  error
	done chan struct{} // receives once, when the rest is set
}

var callPool = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

// errClosed is what calls on a closed client return.
var errClosed = fmt.Errorf("9p client: %w", net.ErrClosed)

// NewClient agrees on a version with the server at the other end of rwc,
// which the client then owns.
func NewClient(ctx context.Context, rwc io.ReadWriteCloser, cfg ClientConfig) (*Client, error) {
	if cfg.Msize == 0 {
		cfg.Msize = DefaultMsize
	}
	c := &Client{
		rwc: rwc, dialect: cfg.Dialect, msize: uint32(min(max(cfg.Msize, MinMsize), MaxMsize)), users: cfg.Users,
		tags: make(chan uint16, clientTags), done: make(chan struct{}), next: 1,
	}
	stop := context.AfterFunc(ctx, func() { rwc.Close() })
	br := bufio.NewReaderSize(rwc, readBuffer)
	err := c.handshake(br)
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		rwc.Close()
		return nil, fmt.Errorf("9p version: %w", err)
	}
	for t := range uint16(clientTags) {
		c.tags <- t
	}
	go c.readLoop(br) // ends when rwc is closed; Close waits for it
	return c, nil
}

func (c *Client) handshake(br *bufio.Reader) error {
	f := Fcall{Type: Tversion, Tag: NoTag, Msize: c.msize, Version: c.dialect.String()}
	b, err := f.Pack(nil, c.dialect)
	if err != nil {
		return err
	}
	if _, err := c.rwc.Write(b); err != nil {
		return err
	}
	frame, err := readFrame(br, c.msize)
	if err != nil {
		return err
	}
	defer frame.free()
	d := c.dialect
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
	if !ok || got != c.dialect && got != Classic {
		return fmt.Errorf("server speaks %q, not %s", f.Version, c.dialect)
	}
	if f.Msize < MinMsize || f.Msize > c.msize {
		return fmt.Errorf("server's message size is %d: %w", f.Msize, ErrBotch)
	}
	c.dialect, c.msize = got, f.Msize
	return nil
}

// Dialect returns what was agreed on.
func (c *Client) Dialect() Dialect { return c.dialect }

// Users returns what translates the numbers of users; it may be nil, which
// is of use too.
func (c *Client) Users() *Users { return c.users }

// Close hangs up. Calls under way fail.
func (c *Client) Close() error {
	c.fail(errClosed)
	err := c.rwc.Close()
	<-c.done
	return err
}

// fail ends all calls, now and later, with the first error.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// readLoop takes replies until the connection ends.
func (c *Client) readLoop(br *bufio.Reader) {
	defer close(c.done)
	for {
		if err := c.readReply(br); err != nil {
			c.fail(fmt.Errorf("9p client: %w", err))
			c.rwc.Close()
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for tag, x := range c.calls {
		if x != nil {
			c.calls[tag] = nil
			x.err = c.err
			x.done <- struct{}{}
		}
	}
}

func (c *Client) readReply(br *bufio.Reader) error {
	head, err := br.Peek(headerSize)
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head)
	t, tag := Type(head[4]), binary.LittleEndian.Uint16(head[5:])
	if n < headerSize || n > c.msize {
		return fmt.Errorf("frame of %d bytes: %w", n, ErrTooLong)
	}
	// While it is in calls, x is nobody's but the reader's.
	var x *call
	if int(tag) < len(c.calls) {
		c.mu.Lock()
		x = c.calls[tag]
		c.mu.Unlock()
	}
	if x == nil {
		return fmt.Errorf("reply with tag %d: %w", tag, ErrBotch)
	}
	if t == Rread && x.want == Rread && x.dst != nil {
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
		frame, err := readFrame(br, c.msize)
		if err != nil {
			return err
		}
		if err := x.rep.Unpack(frame.b, c.dialect); err != nil {
			frame.free()
			return err
		}
		x.rep.Data = slices.Clone(x.rep.Data)
		frame.free()
		switch t {
		case x.want:
		case Rerror:
			x.err = textError(x.rep.Ename, syscall.Errno(x.rep.Errno))
		case Rlerror:
			x.err = errnoError(syscall.Errno(x.rep.Errno))
		default:
			return fmt.Errorf("reply of type %d to %d: %w", t, x.want-1, ErrBotch)
		}
	}
	c.mu.Lock()
	c.calls[tag] = nil
	c.mu.Unlock()
	x.done <- struct{}{}
	return nil
}

// start sends a request. The call must be waited for with finish.
func (c *Client) start(ctx context.Context, f *Fcall, dst []byte) (*call, error) {
	select {
	case f.Tag = <-c.tags:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.done:
		return nil, c.failure()
	}
	x, err := c.send(f, dst)
	if err != nil {
		c.tags <- f.Tag
	}
	return x, err
}

func (c *Client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// send sends a request that has its tag.
func (c *Client) send(f *Fcall, dst []byte) (*call, error) {
	out := getBuffer(0)
	defer out.free()
	data := f.Data // of a Twrite it is sent from where it is
	f.Data = nil
	var err error
	out.b, err = f.Pack(out.b, c.dialect)
	f.Data = data
	if err != nil {
		return nil, err
	}
	n := len(out.b) + len(data)
	if n > int(c.msize) {
		return nil, fmt.Errorf("message of %d bytes: %w", n, ErrTooLong)
	}
	if len(data) > 0 {
		binary.LittleEndian.PutUint32(out.b, uint32(n))
		binary.LittleEndian.PutUint32(out.b[len(out.b)-4:], uint32(len(data)))
	}
	x := callPool.Get().(*call)
	x.tag, x.want, x.dst, x.n, x.err = f.Tag, f.Type+1, dst, 0, nil
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.err
	}
	c.calls[f.Tag] = x
	c.mu.Unlock()

	c.wmu.Lock()
	defer c.wmu.Unlock()
	if len(data) > 0 {
		v := net.Buffers{out.b, data}
		_, err = v.WriteTo(c.rwc)
	} else {
		_, err = c.rwc.Write(out.b)
	}
	if err != nil {
		// The reader will meet the end, and fail this call with the others.
		c.fail(fmt.Errorf("9p client: %w", err))
		c.rwc.Close()
	}
	return x, nil
}

// finish waits for a call, or if ctx ends first for the server's consent to
// that. rep is nil for reads that had a destination.
func (c *Client) finish(ctx context.Context, x *call, rep *Fcall) (int, error) {
	var cancelled error
	select {
	case <-x.done:
	case <-ctx.Done():
		cancelled = c.flush(ctx, x)
	}
	tag, n, err := x.tag, x.n, x.err
	if cancelled != nil {
		err = cancelled
	}
	if rep != nil {
		*rep = x.rep
	}
	x.rep, x.dst = Fcall{}, nil
	callPool.Put(x)
	c.tags <- tag
	return n, err
}

// flush gives x up, and returns nil if it has been answered all the same.
func (c *Client) flush(ctx context.Context, x *call) error {
	y, err := c.send(&Fcall{Type: Tflush, Tag: x.tag + clientTags, Oldtag: x.tag}, nil)
	if err != nil {
		// The connection is broken, and the reader ends all calls.
		<-x.done
		return nil
	}
	<-y.done
	// Either x was answered before the flush, or it never will be.
	c.mu.Lock()
	pending := c.calls[x.tag] == x
	if pending {
		c.calls[x.tag] = nil
	}
	c.mu.Unlock()
	y.rep = Fcall{}
	callPool.Put(y)
	if !pending {
		<-x.done
		return nil
	}
	return ctx.Err()
}

// Call sends any request, and returns the reply or, if that is an error, the
// error. It sets the tag.
func (c *Client) Call(ctx context.Context, f *Fcall) (Fcall, error) {
	var rep Fcall
	x, err := c.start(ctx, f, nil)
	if err != nil {
		return rep, err
	}
	_, err = c.finish(ctx, x, &rep)
	return rep, err
}

// NewFid returns a fid that is not in use, for Call.
func (c *Client) NewFid() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.fids); n > 0 {
		fid := c.fids[n-1]
		c.fids = c.fids[:n-1]
		return fid
	}
	c.next++
	return c.next - 1
}

// FreeFid gives back a fid of NewFid's that the server does not know.
func (c *Client) FreeFid(fid uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fids = append(c.fids, fid)
}
