package main

import (
	"context"
	"errors"
	"sync"

	"strata/venti"
)

// An archive is a Venti server that may go away and come back while disks
// are served: when the connection is lost the next read connects again.
type archive struct {
	addr string

	mu     sync.Mutex // guards the fields below
	client *venti.Client
	dialed chan struct{} // not nil while somebody connects; closed then
}

func dialArchive(ctx context.Context, addr string) (*archive, error) {
	c, err := venti.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &archive{addr: addr, client: c}, nil
}

// Close ends the connection.
func (a *archive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client == nil {
		return nil
	}
	return a.client.Close()
}

// ReadBlock implements venti.BlockReader.
func (a *archive) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	for try := 0; ; try++ {
		c, err := a.connection(ctx)
		if err != nil {
			return 0, err
		}
		n, err := c.ReadBlock(ctx, s, t, buf)
		if err == nil || try > 0 || ctx.Err() != nil || isAnswer(err) || alive(ctx, c) {
			return n, err
		}
		a.lost(c)
	}
}

// isAnswer tells whether err is what a server says of a block.
func isAnswer(err error) bool {
	for _, e := range []error{venti.ErrNotFound, venti.ErrCorrupt, venti.ErrTooLong, venti.ErrBadType} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// alive tells whether the server at the other end answers. It is asked about
// a block that nobody needs.
func alive(ctx context.Context, c *venti.Client) bool {
	_, err := c.HasBlock(ctx, venti.Score{1}, venti.DataType)
	return err == nil || ctx.Err() != nil
}

// lost lets go of a connection that is no use any more.
func (a *archive) lost(c *venti.Client) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client == c {
		a.client = nil
		c.Close() // it is broken already and waits for no network
	}
}

// connection returns the connection, or makes one; one caller does and the
// others wait for it.
func (a *archive) connection(ctx context.Context) (*venti.Client, error) {
	for {
		a.mu.Lock()
		if a.client != nil {
			defer a.mu.Unlock()
			return a.client, nil
		}
		wait := a.dialed
		if wait == nil {
			a.dialed = make(chan struct{})
			a.mu.Unlock()
			return a.dial(ctx)
		}
		a.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (a *archive) dial(ctx context.Context) (*venti.Client, error) {
	c, err := venti.Dial(ctx, a.addr)
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.dialed)
	a.dialed = nil
	if err != nil {
		return nil, err
	}
	a.client = c
	return c, nil
}
