package ninep

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// A Config sets what a server allows. Its zero value is the default.
type Config struct {
	// Msize is the largest message in bytes, 1 MiB and a header by default.
	Msize int

	// Of each connection: fids in use, by default 65536; requests being worked
	// on, by default 256; and the bytes of those and their replies, by default
	// 64 MiB. Requests beyond wait their turn.
	MaxFids     int
	MaxRequests int
	MaxBytes    int

	// What ends a connection of which nothing more is to be expected. KeepAlive
	// is how often a silent client of TCP is asked whether it is still there, by
	// default every 30 s; three times without an answer are the end. StallTime
	// is how long a client may leave a reply unread, by default 5 min. IdleTime is
	// how long one may ask for nothing while nothing is under way; by default that
	// is for ever, as mounts may rest, but a minute for one that has no fid.
	KeepAlive time.Duration
	StallTime time.Duration
	IdleTime  time.Duration

	// Users translates the numbers of Unix clients.
	Users *Users

	// User says who a client is that claims to be uname, on this connection. By
	// default it is believed; nobody is NoUser. An Identity has one that asks the
	// kernel and looks at certificates.
	User func(conn io.ReadWriteCloser, uname string) (string, error)

	// Admit, if it is not nil, is asked before a connection is served. If it
	// returns an error that ends at once; else what it returns is called when it
	// has ended.
	Admit func(conn io.ReadWriteCloser) (ended func(), err error)

	// Log is told of connections that break the protocol. Nil is quiet.
	Log *slog.Logger
}

// Limits of Config.Msize.
const (
	DefaultMsize = 1<<20 + ioHeader
	MaxMsize     = 16 << 20
	MinMsize     = 256
)

// helloTime is how long a client may take to attach.
const helloTime = time.Minute

// A Server serves a tree.
type Server struct {
	fs    FS
	cfg   Config
	locks locks

	observed observed
}

// maxBytes is Config.MaxBytes, or what SetLimits has made of it.
func (s *Server) maxBytes() int { return int(s.observed.bytes.Load()) }

// NewServer returns a server of fs.
func NewServer(fs FS, cfg Config) *Server {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&cfg.Msize, DefaultMsize)
	cfg.Msize = min(max(cfg.Msize, MinMsize), MaxMsize)
	def(&cfg.MaxFids, 1<<16)
	def(&cfg.MaxRequests, 256)
	def(&cfg.MaxBytes, 64<<20)
	if cfg.KeepAlive <= 0 {
		cfg.KeepAlive = 30 * time.Second
	}
	if cfg.StallTime <= 0 {
		cfg.StallTime = 5 * time.Minute
	}
	if cfg.User == nil {
		cfg.User = func(_ io.ReadWriteCloser, uname string) (string, error) { return uname, nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{fs: fs, cfg: cfg}
	s.observed.conns = make(map[*conn]uint64)
	s.SetLimits(cfg.MaxRequests, cfg.MaxBytes)
	return s
}

// Serve accepts connections from l and serves them until ctx is cancelled,
// which is not an error, or l fails. It closes l, and returns when every
// connection has ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer func() {
		if stop() {
			l.Close()
		}
	}()
	const longestWait = time.Second
	for wait := time.Duration(0); ; {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			var t interface{ Temporary() bool } // such as too many open files
			if !errors.As(err, &t) || !t.Temporary() {
				return fmt.Errorf("9p: accept: %w", err)
			}
			wait = min(max(2*wait, 5*time.Millisecond), longestWait)
			s.cfg.Log.Warn("accept", "err", err, "wait", wait)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			continue
		}
		wait = 0
		wg.Go(func() {
			if err := s.ServeConn(ctx, c); err != nil {
				s.cfg.Log.Info("9p connection", "peer", c.RemoteAddr().String(), "err", err)
			}
		})
	}
}

func (s *Server) newConn(ctx context.Context, rwc io.ReadWriteCloser) *conn {
	c := &conn{
		srv: s, rwc: rwc, ctx: ctx, msize: uint32(s.cfg.Msize),
		fids: make(map[uint32]*fid), tags: make(map[uint16]*request),
	}
	c.ended.L = &c.mu
	return c
}

// ServeConn serves one connection until it ends or ctx is cancelled, and
// closes it. When it returns, every request is over and every fid clunked. A
// client that hangs up is not an error.
func (s *Server) ServeConn(ctx context.Context, rwc io.ReadWriteCloser) error {
	if s.cfg.Admit != nil {
		ended, err := s.cfg.Admit(rwc)
		if err != nil {
			rwc.Close()
			return err
		}
		defer ended()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := s.newConn(ctx, rwc)
	c.peer = c.peerName()
	s.observed.add(c)
	defer s.observed.remove(c)
	c.br = bufio.NewReaderSize(rwc, readBuffer)
	// Closing wakes the reader and any writer.
	stop := context.AfterFunc(ctx, func() { rwc.Close() })
	defer stop()
	s.keepAlive(rwc)
	wait := c.watch()

	err := c.readLoop()
	stopped := ctx.Err() != nil
	cancel()
	wait()
	rwc.Close()
	c.reset()
	switch {
	case stopped:
		return nil
	case c.endErr != nil:
		return c.endErr
	}
	for _, end := range []error{io.EOF, net.ErrClosed, io.ErrClosedPipe, syscall.ECONNRESET} {
		if errors.Is(err, end) {
			return nil
		}
	}
	return err
}

// keepAlive has the system ask, over TCP, whether a silent client is there.
func (s *Server) keepAlive(conn any) {
	for {
		wrapped, ok := conn.(interface{ NetConn() net.Conn }) // as TLS has it
		if !ok {
			break
		}
		conn = wrapped.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		d := s.cfg.KeepAlive
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: d, Interval: d, Count: 3})
	}
}
