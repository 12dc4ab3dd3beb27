package venti

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// A RemoteConfig carries the options of a Remote; the zero value is usable.
type RemoteConfig struct {
	// Patience is how long a request waits, in all, for a server that is away. 0
	// means a minute, a negative one for as long as the request's context lasts.
	Patience time.Duration
	// Logger is told when the server goes and comes back. Nil means quiet.
	Logger *slog.Logger
}

// A Remote is a server that may go away and come back: when the connection is
// lost it dials again. It implements Store, Prober and ScoredWriter; its
// methods may be called at once.
//
// All requests can be made twice, so one that was in flight is made again. A
// block that the server has taken is another matter: until a sync it may be
// in the server's memory only, and is lost if the server was started anew.
// So a Remote remembers which blocks it has written, or been told are there,
// since the last sync, and a Sync on another connection than theirs asks for
// each of them first. If one is gone it returns ErrLost, and so does every
// Sync after it, until the block is written again: whoever does again what it
// has done since its last sync is well.
//
// It remembers up to a million blocks. Who writes one more waits for a sync.
type Remote struct {
	// Immutable after NewRemote.
	addr     string
	patience time.Duration
	maxWait  time.Duration // between dials
	most     int           // blocks in unsynced
	log      *slog.Logger
	stop     context.CancelFunc // of the dialer's context
	stopped  context.Context

	answered atomic.Uint64 // the last connection on which a request had an answer

	dialer sync.WaitGroup // the goroutine that dials, while there is no connection

	mu       sync.Mutex // guards the fields below
	closed   bool
	client   *Client              // nil while there is none
	conn     uint64               // number of client, or of the last one
	wait     time.Duration        // before the next dial
	dialed   chan struct{}        // not nil while the dialer runs; closed when there is a client
	err      error                // why there is no client
	written  uint64               // numbers the blocks that follow
	unsynced map[remoteBlock]mark // written, or found, since the last sync
}

// A remoteBlock names a block of a server.
type remoteBlock struct {
	score Score
	typ   DiskType
}

// A mark says when a block was seen in the server.
type mark struct {
	number uint64 // of Remote.written
	conn   uint64 // the connection on which the server has, or had, the block
}

var (
	_ Store        = (*Remote)(nil)
	_ Prober       = (*Remote)(nil)
	_ ScoredWriter = (*Remote)(nil)
)

const (
	patience    = time.Minute      // of RemoteConfig.Patience, if it is 0
	dialTime    = 30 * time.Second // for one attempt, with the greeting
	minWait     = 20 * time.Millisecond
	maxWait     = 5 * time.Second
	maxUnsynced = 1 << 20
)

// DialRemote connects to the server at addr as Dial does. It must be there now.
func DialRemote(ctx context.Context, addr string, cfg RemoteConfig) (*Remote, error) {
	r := NewRemote(addr, cfg)
	c, err := Dial(ctx, r.addr)
	if err != nil {
		r.Close()
		return nil, err
	}
	r.client, r.conn = c, 1
	return r, nil
}

// NewRemote is DialRemote that connects when it is first asked for something:
// the server may be away now.
func NewRemote(addr string, cfg RemoteConfig) *Remote {
	r := &Remote{
		addr:     serverAddr(addr),
		patience: cmp.Or(cfg.Patience, patience),
		maxWait:  maxWait,
		most:     maxUnsynced,
		log:      cfg.Logger,
		unsynced: make(map[remoteBlock]mark),
	}
	if r.patience > 0 { // who begins to wait when the server is back sees that
		r.maxWait = min(maxWait, r.patience/4)
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.stopped, r.stop = context.WithCancel(context.Background())
	return r
}

// Close ends the connection and every call in flight.
func (r *Remote) Close() error {
	r.mu.Lock()
	r.closed = true
	c := r.client
	r.client = nil
	r.mu.Unlock()
	r.stop()
	r.dialer.Wait()
	if c != nil {
		return c.Close()
	}
	return nil
}

// do runs f with a connection, and again with another for as long as
// connections are lost and patience lasts.
func (r *Remote) do(ctx context.Context, f func(c *Client, conn uint64) error) error {
	var patience context.Context
	for {
		c, conn, dialed, err := r.connection()
		switch {
		case err != nil:
			return err
		case c != nil:
			err = f(c, conn)
			if err == nil || ctx.Err() != nil || !errors.Is(err, ErrDisconnected) {
				if r.answered.Load() != conn {
					r.answered.Store(conn)
				}
				return err
			}
			r.lost(conn, err)
		}
		if patience == nil {
			patience = ctx
			if r.patience > 0 {
				var cancel context.CancelFunc
				patience, cancel = context.WithTimeout(ctx, r.patience)
				defer cancel()
			}
		}
		if patience.Err() != nil {
			return r.away(ctx)
		}
		if dialed == nil {
			continue
		}
		select {
		case <-dialed:
		case <-patience.Done():
			return r.away(ctx)
		case <-r.stopped.Done():
		}
	}
}

// away returns the error of a request whose patience is at an end.
func (r *Remote) away(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil || errors.Is(r.err, ErrDisconnected) {
		return fmt.Errorf("venti server %s: %w", r.addr, cmp.Or(r.err, error(ErrDisconnected)))
	}
	// Why it cannot be dialled, a socket that does not exist perhaps, says
	// nothing of the block.
	return fmt.Errorf("venti server %s: %w: %v", r.addr, ErrDisconnected, r.err)
}

// connection returns the connection and its number or, if there is none, a
// channel that is closed when there may be one. The first time it starts the
// dialer.
func (r *Remote) connection() (*Client, uint64, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, 0, nil, fmt.Errorf("venti server %s: %w", r.addr, net.ErrClosed)
	}
	if r.client == nil && r.dialed == nil {
		r.dialed = make(chan struct{})
		r.dialer.Go(r.redial)
	}
	return r.client, r.conn, r.dialed, nil
}

// lost lets go of a connection, and starts the dialer.
func (r *Remote) lost(conn uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil || r.conn != conn {
		return
	}
	// Close waits for no network: the client is broken.
	c := r.client
	r.dialer.Go(func() { c.Close() })
	r.log.Warn("venti server lost", "addr", r.addr, "err", err)
	r.client, r.err = nil, err
	if r.answered.Load() == conn {
		r.wait = 0
	}
	r.dialed = make(chan struct{})
	r.dialer.Go(r.redial)
}

// redial dials until there is a connection. It waits longer each time, until
// a connection has been of use.
func (r *Remote) redial() {
	for {
		r.mu.Lock()
		wait := r.wait
		r.wait = min(max(2*wait, minWait), r.maxWait)
		r.mu.Unlock()
		if wait > 0 { // not all clients of a server at once
			timer := time.NewTimer(wait/2 + rand.N(wait))
			select {
			case <-timer.C:
			case <-r.stopped.Done():
				timer.Stop()
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.stopped, dialTime)
		c, err := Dial(ctx, r.addr)
		cancel()
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			if err == nil {
				c.Close()
			}
			return
		}
		r.err = err
		if err == nil {
			r.client = c
			r.conn++
			if r.conn > 1 {
				r.log.Info("venti server is back", "addr", r.addr)
			}
			close(r.dialed)
			r.dialed = nil
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
	}
}

// ReadBlock implements BlockReader.
func (r *Remote) ReadBlock(ctx context.Context, s Score, t Type, buf []byte) (n int, err error) {
	err = r.do(ctx, func(c *Client, _ uint64) (err error) {
		n, err = c.ReadBlock(ctx, s, t, buf)
		return err
	})
	return n, err
}

// HasBlock implements Prober.
func (r *Remote) HasBlock(ctx context.Context, s Score, t Type) (has bool, err error) {
	var on uint64
	err = r.do(ctx, func(c *Client, conn uint64) (err error) {
		on = conn
		has, err = c.HasBlock(ctx, s, t)
		return err
	})
	if err == nil && has {
		err = r.note(ctx, s, t, on)
	}
	return has && err == nil, err
}

// WriteBlock implements BlockWriter.
func (r *Remote) WriteBlock(ctx context.Context, t Type, data []byte) (s Score, err error) {
	var on uint64
	err = r.do(ctx, func(c *Client, conn uint64) (err error) {
		on = conn
		s, err = c.WriteBlock(ctx, t, data)
		return err
	})
	if err == nil {
		err = r.note(ctx, s, t, on)
	}
	return s, err
}

// WriteScored implements ScoredWriter.
func (r *Remote) WriteScored(ctx context.Context, s Score, t Type, data []byte) error {
	var on uint64
	err := r.do(ctx, func(c *Client, conn uint64) error {
		on = conn
		return c.WriteScored(ctx, s, t, data)
	})
	if err == nil {
		err = r.note(ctx, s, t, on)
	}
	return err
}

// note remembers that the server has a block.
func (r *Remote) note(ctx context.Context, s Score, t Type, conn uint64) error {
	if s == EmptyScore || s.IsZero() {
		return nil
	}
	r.mu.Lock()
	r.written++
	r.unsynced[remoteBlock{s, t.Disk()}] = mark{r.written, conn}
	full := len(r.unsynced) >= r.most
	r.mu.Unlock()
	if full {
		return r.Sync(ctx)
	}
	return nil
}

// Sync implements Syncer. It returns ErrLost if blocks are gone that were
// written, or found, since the last Sync that returned nil.
func (r *Remote) Sync(ctx context.Context) error {
	r.mu.Lock()
	last := r.written
	r.mu.Unlock()
	err := r.do(ctx, func(c *Client, conn uint64) error {
		if err := r.verify(ctx, c, conn, last); err != nil {
			return err
		}
		return c.Sync(ctx)
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for b, m := range r.unsynced {
		if m.number <= last {
			delete(r.unsynced, b)
		}
	}
	return nil
}

// verify asks for the blocks up to the one numbered last that were seen on
// other connections.
func (r *Remote) verify(ctx context.Context, c *Client, conn, last uint64) error {
	type seen struct {
		remoteBlock
		mark
	}
	var doubtful []seen
	r.mu.Lock()
	for b, m := range r.unsynced {
		if m.number <= last && m.conn != conn {
			doubtful = append(doubtful, seen{b, m})
		}
	}
	r.mu.Unlock()
	if len(doubtful) == 0 {
		return nil
	}
	var mu sync.Mutex // guards lost
	var lost []remoteBlock
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(maxCalls / 2)
	for _, d := range doubtful {
		group.Go(func() error {
			has, err := c.HasBlock(gctx, d.score, d.typ.Type())
			switch {
			case err != nil:
				return err
			case !has:
				mu.Lock()
				defer mu.Unlock()
				lost = append(lost, d.remoteBlock)
				return nil
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.unsynced[d.remoteBlock] == d.mark {
				r.unsynced[d.remoteBlock] = mark{d.number, conn}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if len(lost) > 0 {
		err := fmt.Errorf("venti server %s: of %d blocks written since the last sync %d, such as %v/%d, are gone: %w",
			r.addr, len(doubtful), len(lost), lost[0].score, lost[0].typ, ErrLost)
		r.log.Error("sync", "err", err)
		return err
	}
	return nil
}
