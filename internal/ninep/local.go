package ninep

import (
	"context"
	"math"
	"slices"
)

// Local returns a client that is joined to the server by memory. Its requests
// are done in the goroutine that makes them, and what is read and written is
// not copied on the way: the tree gets the caller's own bytes, all that one
// ReadAt or WriteAt asks for at once, however much. There are no frames, tags and
// flushes; the context of the call is the tree's.
//
// A local client is believed who it is. The server's limit of fids holds for
// it. Whoever made it closes it, and that before what the tree is made of.
func (s *Server) Local(cfg ClientConfig) *Client {
	if cfg.Users == nil {
		cfg.Users = s.cfg.Users
	}
	cfg.Redial = nil
	ctx, cancel := context.WithCancel(context.Background())
	c := s.newConn(ctx, nil)
	c.cancel = cancel
	c.dialect, c.msize, c.ready = cfg.Dialect, MaxMsize, true
	return newClient(&link{local: c, dialect: cfg.Dialect, msize: MaxMsize}, cfg)
}

// localChunk is the most that a local request reads or writes.
const localChunk = math.MaxInt32 &^ 0xffff

// do does what x asks, and sends to x.done.
func (c *conn) do(ctx context.Context, x *call) {
	x.err = c.answer(ctx, x)
	x.done <- struct{}{}
}

func (c *conn) answer(ctx context.Context, x *call) error {
	f := &x.req
	switch {
	case f.Type == Tflush:
		x.rep.Type = Rflush
		return nil
	case f.Type == Tversion || f.Type%2 != 0 || c.dialect.layout(f.Type) == nil:
		return ErrBotch
	case len(f.Names) > MaxNames:
		return ErrTooManyNames
	}
	c.mu.Lock()
	if c.ctx.Err() != nil {
		c.mu.Unlock()
		return errClosed
	}
	c.working++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.working--
		c.ended.Broadcast()
	}()

	r := requests.Get().(*request)
	defer r.free()
	r.c, r.f, r.dst = c, *f, x.dst
	r.ctx = &requestContext{parent: c.ctx, caller: ctx}
	err := c.handle(r.ctx, r)
	r.ctx.cancel(context.Canceled)
	switch {
	case err == nil:
	case ctx.Err() != nil && toError(err) == ErrInterrupted:
		return ctx.Err()
	case c.ctx.Err() != nil:
		return errClosed
	default:
		return toError(err)
	}
	x.n, x.rep = r.n, r.rep
	if r.out != nil {
		x.rep.Data = slices.Clone(r.out.b[rreadHeader:])
	}
	return nil
}

// hangUp ends a local connection as the loss of another would: requests are
// cancelled and waited for, and every fid is clunked.
func (c *conn) hangUp() {
	c.mu.Lock()
	c.cancel()
	c.mu.Unlock()
	c.reset()
}
