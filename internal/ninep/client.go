package ninep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// A ClientConfig sets how a client speaks. Its zero value is classic 9P2000
// with DefaultMsize.
type ClientConfig struct {
	Dialect Dialect // asked for; what the server answers is Client.Dialect
	Msize   int
	Users   *Users // translates numbers in the dialects that have them; nil sends none

	// Redial makes another connection when the client has lost its own. It is
	// called by whoever needs the connection, one at a time, and sets the pace:
	// if it fails, so does that call, and the next one tries again. Nil is never.
	Redial func(ctx context.Context) (io.ReadWriteCloser, error)
}

// A Client is the client's end of a connection. Its methods, and those of
// its Files, may be called at once.
//
// When a context is cancelled the request is flushed, and the call returns
// when the server has agreed, or when the client is closed.
//
// With Redial a client outlives its connection. A file is walked to and opened
// again when it is next used, if its name still leads to the same qid, and what
// has the same effect twice is asked again: reads, writes at an offset, stats,
// walks. All else fails if the connection breaks before the reply has come, for
// nobody knows whether it was done. Writes that a lost server had answered may
// be lost with it: the next Sync of the file fails.
type Client struct {
	cfg     ClientConfig
	dialect Dialect
	link    atomic.Pointer[link]

	dialing chan struct{} // holds one while a connection is made again

	mu     sync.Mutex // guards the fields below
	closed bool
	fids   []uint32 // given back
	next   uint32   // the first fid never used
}

// errClosed is what calls on a closed client return.
var errClosed = fmt.Errorf("9p client: %w", net.ErrClosed)

// NewClient agrees on a version with the server at the other end of rwc,
// which the client then owns.
func NewClient(ctx context.Context, rwc io.ReadWriteCloser, cfg ClientConfig) (*Client, error) {
	if cfg.Msize == 0 {
		cfg.Msize = DefaultMsize
	}
	cfg.Msize = min(max(cfg.Msize, MinMsize), MaxMsize)
	l, err := newLink(ctx, rwc, cfg.Dialect, uint32(cfg.Msize))
	if err != nil {
		return nil, err
	}
	return newClient(l, cfg), nil
}

func newClient(l *link, cfg ClientConfig) *Client {
	c := &Client{cfg: cfg, dialect: l.dialect, dialing: make(chan struct{}, 1), next: 1}
	c.link.Store(l)
	return c
}

// Dialect returns what was agreed on.
func (c *Client) Dialect() Dialect { return c.dialect }

// Users returns what translates the numbers of users; it may be nil, which
// is of use too.
func (c *Client) Users() *Users { return c.cfg.Users }

// Close hangs up. Calls under way fail.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	l := c.link.Load()
	c.mu.Unlock()
	return l.close()
}

// current returns the link, made anew if it was lost and may be.
func (c *Client) current(ctx context.Context) (*link, error) {
	l := c.link.Load()
	if c.cfg.Redial == nil || l.alive() {
		return l, nil
	}
	select {
	case c.dialing <- struct{}{}:
		defer func() { <-c.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l = c.link.Load()
	if l.alive() || errors.Is(l.failure(), errClosed) {
		return l, nil
	}
	rwc, err := c.cfg.Redial(ctx)
	if err != nil {
		return nil, fmt.Errorf("9p client: connect again: %w", err)
	}
	next, err := newLink(ctx, rwc, c.dialect, uint32(c.cfg.Msize))
	if err != nil {
		return nil, fmt.Errorf("connect again: %w", err)
	}
	if next.dialect != c.dialect {
		next.close()
		return nil, fmt.Errorf("9p client: connect again: server speaks %s now, not %s", next.dialect, c.dialect)
	}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.link.Store(next)
	}
	c.mu.Unlock()
	if closed {
		next.close()
		return nil, errClosed
	}
	return next, nil
}

// maxTries is how many connections one call may lose.
const maxTries = 3

// again tells whether a request that ended with err is to be sent once more.
func (c *Client) again(try int, f *Fcall, err error) bool {
	return c.cfg.Redial != nil && try < maxTries && lost(err) && repeatable(f)
}

// repeatable tells whether a request has the same effect twice.
func repeatable(f *Fcall) bool {
	switch f.Type {
	case Tattach, Twalk, Tread, Treaddir, Tstat, Tgetattr, Tstatfs, Treadlink:
		return true
	case Topen:
		return OpenMode(f.Mode)&OTRUNC == 0
	case Tlopen:
		return f.Flags&linuxTrunc == 0
	}
	return false
}

// Call sends any request, and returns the reply or, if that is an error, the
// error. It sets the tag.
func (c *Client) Call(ctx context.Context, f *Fcall) (Fcall, error) {
	return c.link.Load().call(ctx, f)
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
