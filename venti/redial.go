package venti

import (
	"context"
	"errors"
	"sync"
)

// A Redialer reads from a server that may go away and come back, as a daemon
// has to: when the connection is lost the next read connects again. It is a
// BlockReader.
type Redialer struct {
	addr string

	mu     sync.Mutex // guards the fields below
	client *Client
	dialed chan struct{} // not nil while somebody connects; closed then
}

// Redial connects to a server as Dial does. Close must be called.
func Redial(ctx context.Context, addr string) (*Redialer, error) {
	c, err := Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &Redialer{addr: addr, client: c}, nil
}

// RedialLater is Redial that connects at the first read: the server may be away
// now.
func RedialLater(addr string) *Redialer { return &Redialer{addr: addr} }

// Close ends the connection.
func (r *Redialer) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil {
		return nil
	}
	return r.client.Close()
}

// ReadBlock is the client's. A read that the loss of a connection ended is done
// again, once.
func (r *Redialer) ReadBlock(ctx context.Context, s Score, t Type, buf []byte) (int, error) {
	for try := 0; ; try++ {
		c, err := r.connection(ctx)
		if err != nil {
			return 0, err
		}
		n, err := c.ReadBlock(ctx, s, t, buf)
		if err == nil || try > 0 || ctx.Err() != nil || isAnswer(err) || alive(ctx, c) {
			return n, err
		}
		r.lost(c)
	}
}

// isAnswer tells whether err is what a server says of a block.
func isAnswer(err error) bool {
	for _, e := range []error{ErrNotFound, ErrCorrupt, ErrTooLong, ErrBadType} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// alive tells whether the server at the other end answers. It is asked about
// a block that nobody needs.
func alive(ctx context.Context, c *Client) bool {
	_, err := c.HasBlock(ctx, Score{1}, DataType)
	return err == nil || ctx.Err() != nil
}

// lost lets go of a connection that is no use any more.
func (r *Redialer) lost(c *Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == c {
		r.client = nil
		c.Close() // it is broken already and waits for no network
	}
}

// connection returns the connection, or makes one; one caller does and the
// others wait for it.
func (r *Redialer) connection(ctx context.Context) (*Client, error) {
	for {
		r.mu.Lock()
		if r.client != nil {
			defer r.mu.Unlock()
			return r.client, nil
		}
		wait := r.dialed
		if wait == nil {
			r.dialed = make(chan struct{})
			r.mu.Unlock()
			return r.dial(ctx)
		}
		r.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *Redialer) dial(ctx context.Context) (*Client, error) {
	c, err := Dial(ctx, r.addr)
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.dialed)
	r.dialed = nil
	if err != nil {
		return nil, err
	}
	r.client = c
	return c, nil
}
