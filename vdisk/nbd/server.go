package nbd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"strata/internal/netaddr"
)

// Config holds the options of a Server; its zero value is usable.
type Config struct {
	// MaxConns is how many connections there may be at once; 0 means 64.
	MaxConns int
	// MaxBytes is how much memory the data of requests may take, on all
	// connections; 0 means 64 MiB. One connection may take half of it.
	MaxBytes int64
	// MaxRequests is how many requests of a connection are carried out at once;
	// 0 means 64.
	MaxRequests int
	// IdleTime is how long a client may be silent between two requests; 0 means
	// for ever.
	IdleTime time.Duration
	// Logger is told of clients that are cut off and of disks that fail. Nil
	// means quiet.
	Logger *slog.Logger
}

const (
	defaultConns    = 64
	defaultBytes    = 64 << 20
	defaultRequests = 64

	// haggleTime is how long a client may take for the next option.
	haggleTime = time.Minute
	// stallTime is how long a client may be silent in the middle of a message,
	// or take no byte of a reply.
	stallTime = time.Minute
	// drainTime is how long requests may take once the server stops.
	drainTime = 5 * time.Second

	// readSize is how many bytes are read at once, if the client has sent as
	// many.
	readSize = 64 << 10
	// maxIdle is how many goroutines of a connection wait for the next request.
	maxIdle = 4
)

// An Upgrader is a connection that TLS can be spoken on. A server that is
// given one insists on that.
type Upgrader interface {
	// Upgrade shakes hands as the server does. The connection that it returns
	// replaces this one, as which it need not be closed too.
	Upgrade(ctx context.Context) (net.Conn, error)
}

// A Server serves disks. Its methods may be called at once.
type Server struct {
	exports     Exports
	log         *slog.Logger
	conns       chan struct{}       // one for each
	room        *semaphore.Weighted // bytes
	share       int64               // of room, that one connection may take
	maxRequests int
	idleTime    time.Duration
	batches     sync.Pool // of *batch
	buffers     buffers

	mu      sync.Mutex      // guards the field below
	written map[string]bool // exports that have a connection that may write, and not others
}

// NewServer returns a server of exports.
func NewServer(exports Exports, cfg Config) *Server {
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = defaultConns
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultBytes
	}
	if cfg.MaxRequests <= 0 {
		cfg.MaxRequests = defaultRequests
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.MaxBytes = max(cfg.MaxBytes, maxPayload) // any one request must fit
	s := &Server{
		exports:     exports,
		log:         cfg.Logger,
		conns:       make(chan struct{}, cfg.MaxConns),
		room:        semaphore.NewWeighted(cfg.MaxBytes),
		share:       max(cfg.MaxBytes/2, maxPayload),
		maxRequests: cfg.MaxRequests,
		idleTime:    cfg.IdleTime,
		written:     make(map[string]bool),
	}
	s.batches.New = newBatch
	return s
}

// Serve accepts connections from ln and serves them until ctx ends or ln
// fails. It closes ln. When ctx ends, requests that were received are answered,
// within a few seconds, and Serve returns nil after the last connection's
// goroutines have ended. Several calls may serve several listeners.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return netaddr.Serve(ctx, ln, s.log, func(nc net.Conn) func(context.Context) {
		select {
		case s.conns <- struct{}{}:
		default:
			s.log.Warn("too many connections", "client", nc.RemoteAddr(), "max", cap(s.conns))
			nc.Close()
			return nil
		}
		return func(ctx context.Context) {
			defer func() { <-s.conns }()
			s.ServeConn(ctx, nc)
		}
	})
}

// A conn is one client's connection. Its fields belong to the goroutine that
// reads, but for those that say otherwise.
type conn struct {
	srv *Server
	log *slog.Logger
	ctx context.Context // of requests; ends when they are given up
	in  *bufio.Reader

	// What was agreed upon; immutable once haggling is over.
	structured bool
	context    bool   // block status of base:allocation was asked for
	contextOf  string // of the export of that name
	export     *Export
	writer     Writer // nil if there is to be no writing
	size       int64

	calm int // requests in a row that came when nothing else was to be done

	room    *semaphore.Weighted // this connection's share
	release func(n int64)       // gives back to room, and the server's
	slots   chan struct{}       // one for each task under way; those receive from it
	tasks   sync.WaitGroup      // goroutines of tasks
	next    chan task           // to those that wait for one; closed when no more will come
	idle    chan struct{}       // one for each of those, or for one that is about to
	out     outbox              // for all

	mu      sync.Mutex // guards the fields below
	nc      net.Conn   // changes when TLS begins
	stopped bool       // nothing more is to be read
}

// ServeConn serves one client, which may be in the same process (net.Pipe),
// until it leaves or ctx ends, and closes nc.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) {
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &conn{
		srv:   s,
		log:   s.log.With("client", nc.RemoteAddr()),
		nc:    nc,
		ctx:   requests,
		in:    bufio.NewReaderSize(nc, readSize),
		room:  semaphore.NewWeighted(s.share),
		slots: make(chan struct{}, s.maxRequests),
		next:  make(chan task),
		idle:  make(chan struct{}, maxIdle),
	}
	c.release = func(n int64) {
		s.room.Release(n)
		c.room.Release(n)
	}

	// When ctx ends, stop reading, and after a while give up on the rest.
	var watcher sync.WaitGroup
	gone := make(chan struct{})
	watcher.Go(func() {
		select {
		case <-gone:
			return
		case <-ctx.Done():
		}
		c.stop()
		select {
		case <-gone:
		case <-time.After(drainTime):
			cancel()
			c.close()
		}
	})
	err := c.haggle()
	if err == nil {
		c.log = c.log.With("export", c.export.Name)
		c.log.Debug("connected", "write", c.writer != nil)
		err = c.transmit()
		if err != nil && ctx.Err() == nil {
			cancel() // there is nobody to answer
		}
		close(c.next)
		c.tasks.Wait()
		c.out.flush()
		s.leave(c.export)
	}
	c.close()
	cancel()
	close(gone)
	watcher.Wait()
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, errGoodbye), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), ctx.Err() != nil:
		c.log.Debug("disconnected", "err", err)
	default:
		c.log.Warn("client cut off", "err", err)
	}
}

// stop makes reading end, now and later.
func (c *conn) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc.Close()
}

// deadline says how long the next reads may take; 0 means for ever.
func (c *conn) deadline(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopped:
	case d == 0:
		c.nc.SetReadDeadline(time.Time{})
	default:
		c.nc.SetReadDeadline(time.Now().Add(d))
	}
}

// enter tells whether a connection may use an export. If so, leave must be
// called; if not, the export is released.
func (s *Server) enter(x *Export) bool {
	if x.writer() == nil || x.Shared {
		return true
	}
	s.mu.Lock()
	busy := s.written[x.Name]
	s.written[x.Name] = true
	s.mu.Unlock()
	if busy {
		x.release()
	}
	return !busy
}

// leave is enter's counterpart. It releases the export before another may
// write to it.
func (s *Server) leave(x *Export) {
	x.release()
	if x.writer() == nil || x.Shared {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.written, x.Name)
}
