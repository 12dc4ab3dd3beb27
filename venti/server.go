package venti

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"strata/internal/netaddr"
)

// Bounds of a server.
const (
	maxConns     = 256      // of ServerConfig.MaxConns, if it is 0
	maxPeerConns = 64       // of ServerConfig.MaxPeerConns, if it is 0
	maxDenied    = 16       // connections of clients that are denied, while they are told so
	maxBytes     = 32 << 20 // of ServerConfig.MaxBytes, if it is 0
	maxRequests  = 256      // in flight on a connection: as many as there are tags
	minByteRate  = 64 << 10 // of ServerConfig.ByteRate: what a client has in flight passes in minutes
	maxWaiting   = 8        // goroutines of a connection that wait for a request
	maxSkip      = 16 << 20 // of an oversize message; a longer one ends the connection
	requestBytes = 4 << 10  // what a request costs besides its block: a goroutine's stack and the like

	handshakeTime = 30 * time.Second // for a client to send its version and Thello
	stallTime     = time.Minute      // for a client to take a batch of replies
	drainTime     = 5 * time.Second  // for requests in flight to end, when the server stops
)

// ServerConfig carries the options of a Server; the zero value is usable.
type ServerConfig struct {
	// ReadOnly refuses writes.
	ReadOnly bool
	// Logger is told of connections (debug), of clients turned away (warnings)
	// and of failures of the store (errors). Nil means quiet.
	Logger *slog.Logger
	// Access says what clients may do, the first rule that is about one. Where
	// there are none, all may do all.
	Access []Rule

	// What follows bounds what a client can take of the server. Another machine is
	// one client, however many connections it has; of this machine each connection
	// is one. A client that is held back is not read from: it waits, others do not.

	// MaxConns is how many connections there may be; further ones are turned
	// away. 0 means 256.
	MaxConns int
	// MaxPeerConns is how many of them another machine may have. 0 means 64.
	MaxPeerConns int
	// MaxBytes bounds the memory of requests that are being served, of all
	// clients together; further requests wait. One client can have a quarter of
	// it. 0 means 32 MiB.
	MaxBytes int64
	// RequestRate and ByteRate are how many requests, and bytes in both
	// directions together, a client is served a second; it may save up a second's
	// worth. 0 means as many as it likes. The least ByteRate is 64 KiB.
	RequestRate, ByteRate int64
}

// A Server serves a store to clients of the Venti protocol.
//
// One goroutine per connection reads requests. What the store can answer from
// memory (CachedReader) it answers itself, straight into the buffer of replies;
// each other request has a goroutine of its own, so replies may come in any
// order. Replies are written in batches: by the reading goroutine when it has
// no whole request left, and by a request's goroutine unless somebody is
// writing already, in which case that one writes them next.
//
// A Tsync waits for every Twrite that was received before it on its
// connection, which is more than the protocol asks for.
//
// Memory is bounded: by MaxBytes for requests, and by some 300 KiB a
// connection at worst (64 KiB when it is idle). A client that does not take its
// replies is not read from, and is cut off after a minute.
type Server struct {
	// Immutable after NewServer.
	store       Store
	log         *slog.Logger
	access      []Rule
	room        *semaphore.Weighted // bytes that requests may take
	share       int64               // what one peer may take of them
	conns       chan struct{}       // one for each connection that is not denied
	denied      chan struct{}       // one for each that is
	peerConns   int                 // connections of a peer on another machine
	requestRate int64               // of a peer; 0 means without limit
	byteRate    int64

	clients clients
	peers   peers

	blocks bufferPool
	outs   sync.Pool // *[]byte with capacity outBufferSize
}

// NewServer returns a server of st.
func NewServer(st Store, cfg ServerConfig) *Server {
	if cfg.ReadOnly {
		st = ReadOnly(st)
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = maxConns
	}
	if cfg.MaxPeerConns <= 0 {
		cfg.MaxPeerConns = maxPeerConns
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = maxBytes
	}
	if cfg.ByteRate > 0 {
		cfg.ByteRate = max(cfg.ByteRate, minByteRate)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	const largest = MaxBlockSize + requestBytes // any one request must fit
	cfg.MaxBytes = max(cfg.MaxBytes, largest)
	s := &Server{
		store:       st,
		log:         cfg.Logger,
		access:      cfg.Access,
		room:        semaphore.NewWeighted(cfg.MaxBytes),
		share:       max(cfg.MaxBytes/4, largest),
		conns:       make(chan struct{}, cfg.MaxConns),
		denied:      make(chan struct{}, maxDenied),
		peerConns:   cfg.MaxPeerConns,
		requestRate: cfg.RequestRate,
		byteRate:    cfg.ByteRate,
	}
	s.outs.New = func() any {
		b := make([]byte, 0, outBufferSize)
		return &b
	}
	return s
}

// Serve accepts connections from ln and serves them until ctx ends or ln
// fails. It closes ln. When ctx ends, requests that were received are answered,
// within a few seconds, and Serve returns nil after the last connection's
// goroutines have ended. Several calls may serve several listeners.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return netaddr.Serve(ctx, ln, s.log, func(nc net.Conn) func(context.Context) {
		who := newCaller(nc)
		slots := s.conns
		if a, _ := accessOf(s.access, &who); a == denied {
			slots = s.denied
		}
		select {
		case slots <- struct{}{}:
		default:
			s.clients.refused.Add(1)
			s.log.Warn("too many connections", "client", nc.RemoteAddr(), "max", cap(slots))
			nc.Close()
			return nil
		}
		return func(ctx context.Context) {
			defer func() { <-slots }()
			s.ServeConn(ctx, nc)
		}
	})
}

// ServeConn serves one client, which may be in the same process (net.Pipe),
// until it leaves or ctx ends, and closes nc.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) {
	log := s.log.With("client", nc.RemoteAddr())
	who := newCaller(nc)
	if len(who.names) > 0 {
		log = log.With("name", who.names[0])
	}
	peer := s.enter(&who)
	if peer == nil {
		s.clients.refused.Add(1)
		log.Warn("too many connections of one client", "max", s.peerConns)
		nc.Close()
		return
	}
	defer s.leave(&who, peer)
	// Requests outlive ctx for a little while, so that they can be answered.
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &serverConn{
		srv:     s,
		log:     log,
		nc:      nc,
		store:   s.store,
		peer:    peer,
		ctx:     requests,
		stop:    ctx.Done(),
		in:      newFrameReader(nc),
		tags:    make(chan struct{}, maxRequests),
		next:    make(chan func()),
		waiting: make(chan struct{}, maxWaiting),
		writes:  new(sync.WaitGroup),
	}
	var rule string
	if c.access, rule = accessOf(s.access, &who); c.access == readonly {
		c.store = ReadOnly(s.store)
	}
	c.cached, _ = c.store.(CachedReader)
	c.out.init(nc, &s.outs)

	// When ctx ends, stop reading, and after a while give up on the rest.
	var watcher sync.WaitGroup
	gone := make(chan struct{})
	watcher.Go(func() {
		select {
		case <-gone:
			return
		case <-ctx.Done():
		}
		nc.SetReadDeadline(time.Unix(1, 0))
		select {
		case <-gone:
		case <-time.After(drainTime):
			cancel()
			nc.Close()
		}
	})
	if c.access == denied {
		s.clients.refused.Add(1)
		log.Warn("client denied", "rule", rule)
	} else {
		s.clients.accepted.Add(1)
	}
	err := c.handshake(ctx)
	if err == nil {
		log.Debug("connected", "version", c.version)
		s.clients.add(c)
		err = c.serve()
		s.clients.remove(c)
	}
	close(c.next)
	c.requests.Wait()
	c.out.flush()
	nc.Close()
	cancel()
	close(gone)
	watcher.Wait()
	log.Debug("disconnected", "err", err)
}

// A serverConn is one client's connection. Its fields belong to the
// goroutine that reads, but for those that say otherwise.
type serverConn struct {
	srv     *Server
	log     *slog.Logger
	nc      net.Conn
	store   Store        // as this client may use it
	cached  CachedReader // nil if the store is none
	access  access
	peer    *peer
	ctx     context.Context // of requests; ends when the server gives up on them
	stop    <-chan struct{} // closed when the server begins to stop
	in      *frameReader
	version string
	framing framing // immutable after handshake; for all

	received atomic.Int64 // requests
	paced    int64        // bytes that the peer's rate knows of

	tags     chan struct{}   // one for each request with a goroutine; those receive from it
	requests sync.WaitGroup  // goroutines of requests
	next     chan func()     // to those that wait for one; closed when no more will come
	waiting  chan struct{}   // one for each of those, or for one that is about to
	writes   *sync.WaitGroup // Twrites since the last Tsync, and one for all before it

	out outbox // for all
}

// handshake exchanges versions and hellos.
func (c *serverConn) handshake(ctx context.Context) error {
	c.nc.SetDeadline(time.Now().Add(handshakeTime))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	theirs, err := exchangeVersions(c.nc, c.in)
	if err != nil {
		return err
	}
	v, err := chooseVersion(theirs, versionNames())
	if err != nil {
		return err
	}
	c.version, c.framing, c.in.framing = v.name, v.framing, v.framing

	b, err := c.in.next(maxMessageSize)
	if err != nil {
		return fmt.Errorf("read hello: %w", err)
	}
	m, err := unpackMessage(b)
	if err != nil || m.typ != tHello || m.tag != 0 || string(m.text) != v.name {
		return fmt.Errorf("bad hello %.40x", b)
	}
	c.nc.SetDeadline(time.Time{})
	if ctx.Err() != nil { // its deadline may just have been removed
		return ctx.Err()
	}
	if c.access == denied {
		c.error(m.tag, errDenied.Error())
		return errDenied
	}
	c.reply(&message{typ: rHello, text: []byte(anonymous)})
	return nil
}

// serve reads requests until the connection ends.
func (c *serverConn) serve() error {
	for {
		if !c.in.whole() {
			c.out.flush()
		}
		b, err := c.in.next(maxMessageSize)
		if err == errOversize {
			text := errBadPacket.Error()
			if msgType(b[0]) == tWrite {
				text = ErrTooLarge.Error()
			}
			c.error(b[1], text)
			if c.in.skip > maxSkip {
				return err
			}
			continue
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		c.received.Add(1)
		c.pace()
		m, err := unpackMessage(b)
		if err != nil {
			c.error(b[1], errBadPacket.Error())
			continue
		}
		switch m.typ {
		case tRead:
			c.read(&m)
		case tWrite:
			c.write(&m)
		case tSync:
			c.sync(m.tag)
		case tPing:
			c.reply(&message{typ: rPing, tag: m.tag})
		case tGoodbye:
			return nil
		default:
			c.error(m.tag, errUnknownRequest)
		}
		if err := c.ctx.Err(); err != nil {
			return err
		}
	}
}

// pace makes a client wait that is ahead of its rates, unless the server is
// stopping.
func (c *serverConn) pace() {
	if c.peer.requests == nil && c.peer.bytes == nil {
		return
	}
	moved := c.in.received + c.out.total()
	wait := max(c.peer.requests.take(1), c.peer.bytes.take(moved-c.paced))
	c.paced = moved
	if wait <= 0 {
		return
	}
	c.out.flush()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.stop:
	}
}

// start runs f, which appends the reply to one request, in a goroutine of its
// own. It waits until there is room for the n bytes of memory that f uses. It
// returns false, and f is not run, when the server has given up on requests.
func (c *serverConn) start(n int, f func()) bool {
	select {
	case c.tags <- struct{}{}:
	default:
		c.out.flush()
		c.tags <- struct{}{}
	}
	weight := int64(n + requestBytes)
	if !c.acquire(c.peer.room, weight) {
		<-c.tags
		return false
	}
	if !c.acquire(c.srv.room, weight) {
		c.peer.room.Release(weight)
		<-c.tags
		return false
	}
	run := func() {
		f()
		c.srv.room.Release(weight)
		c.peer.room.Release(weight)
		<-c.tags
		if len(c.tags) > 0 {
			// Others may be about to finish too: let them, and write all at once.
			runtime.Gosched()
		}
		c.out.flush()
	}
	select {
	case c.next <- run:
	default:
		c.requests.Go(func() { c.work(run) })
	}
	return true
}

// growStack makes a new goroutine's stack as large as it takes to compress a block
// or bring it back, in one step and while nothing is on it. Otherwise it is grown
// four times, and each time copied with all calls so far.
//
//go:noinline
func growStack() {
	var room [10 << 10]byte
	runtime.KeepAlive(&room)
}

// work runs requests until enough other goroutines wait for the next one. A
// goroutine that is new to each request would have to grow its stack each time.
func (c *serverConn) work(run func()) {
	growStack()
	for run != nil {
		run()
		select {
		case c.waiting <- struct{}{}:
		default:
			return
		}
		run = <-c.next
		<-c.waiting
	}
}

// acquire takes n from room, and tells whether it could before the server gave
// up on requests. Before it waits, the client gets what there is for it.
func (c *serverConn) acquire(room *semaphore.Weighted, n int64) bool {
	if room.TryAcquire(n) {
		return true
	}
	c.out.flush()
	return room.Acquire(c.ctx, n) == nil
}

// reply appends a reply.
func (c *serverConn) reply(m *message) { c.out.append(m, c.framing) }

// error appends an Rerror.
func (c *serverConn) error(tag uint8, text string) {
	c.reply(&message{typ: rError, tag: tag, text: []byte(text)})
}

// fail appends the Rerror for an error of the store.
func (c *serverConn) fail(what string, tag uint8, err error) {
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrTooLong), errors.Is(err, ErrTooLarge),
		errors.Is(err, ErrReadOnly), errors.Is(err, ErrBadType), errors.Is(err, context.Canceled):
	case errors.Is(err, ErrFull): // every write's answer from now on: the store says it once
	default:
		c.log.Error(what, "err", err)
	}
	c.error(tag, textOfError(err))
}

func (c *serverConn) read(m *message) {
	if m.score == EmptyScore || m.score.IsZero() {
		c.reply(&message{typ: rRead, tag: m.tag})
		return
	}
	if !m.disk.Valid() {
		c.error(m.tag, fmt.Sprintf("%v %d", ErrBadType, m.disk))
		return
	}
	if c.cached != nil && c.out.appendCached(c.cached, m, c.framing) {
		return
	}
	tag, score, disk, count := m.tag, m.score, m.disk, m.count
	n := int(min(count, MaxBlockSize))
	c.start(n, func() { c.readSlowly(tag, score, disk, count, n) })
}

// readSlowly answers a Tread from its goroutine. n is how much of count a
// block can fill.
func (c *serverConn) readSlowly(tag uint8, score Score, disk DiskType, count uint32, n int) {
	s := c.srv
	if n == 0 {
		if _, ok := c.store.(Prober); ok {
			has, err := HasBlock(c.ctx, c.store, score, disk.Type())
			switch {
			case err != nil:
				c.fail("probe", tag, err)
			case has: // any block that is stored has a byte
				c.reply(&message{typ: rError, tag: tag, text: appendTooLong(nil, 0, 1)})
			default:
				c.reply(&message{typ: rError, tag: tag, text: appendNotFound(nil, score, disk)})
			}
			return
		}
	}
	buf := s.blocks.get(n)
	defer func() { s.blocks.put(buf) }()
	got, err := c.store.ReadBlock(c.ctx, score, disk.Type(), buf.b)
	if errors.Is(err, ErrTooLong) && n < MaxBlockSize {
		// Read it again, to say how long it is. This is rare enough not to be
		// counted against the bound.
		s.blocks.put(buf)
		buf = s.blocks.get(MaxBlockSize)
		if got, err = c.store.ReadBlock(c.ctx, score, disk.Type(), buf.b); err == nil {
			c.reply(&message{typ: rError, tag: tag, text: appendTooLong(nil, count, got)})
			return
		}
	}
	switch {
	case errors.Is(err, ErrNotFound):
		c.reply(&message{typ: rError, tag: tag, text: appendNotFound(nil, score, disk)})
	case err != nil:
		c.fail("read", tag, err)
	default:
		c.reply(&message{typ: rRead, tag: tag, data: buf.b[:got]})
	}
}

func (c *serverConn) write(m *message) {
	switch {
	case len(m.data) > MaxBlockSize:
		c.error(m.tag, ErrTooLarge.Error())
		return
	case !m.disk.Valid():
		c.error(m.tag, fmt.Sprintf("%v %d", ErrBadType, m.disk))
		return
	case len(m.data) == 0:
		if _, ok := c.store.(readOnly); ok {
			c.error(m.tag, ErrReadOnly.Error())
			return
		}
		c.reply(&message{typ: rWrite, tag: m.tag, score: EmptyScore})
		return
	}
	buf := c.srv.blocks.get(len(m.data))
	copy(buf.b, m.data)
	tag, disk, writes := m.tag, m.disk, c.writes
	writes.Add(1)
	started := c.start(len(buf.b), func() {
		score, err := c.store.WriteBlock(c.ctx, disk.Type(), buf.b)
		c.srv.blocks.put(buf)
		writes.Done()
		if err != nil {
			c.fail("write", tag, err)
			return
		}
		c.reply(&message{typ: rWrite, tag: tag, score: score})
	})
	if !started {
		writes.Done()
	}
}

// sync answers a Tsync when all Twrites received before it are done and on
// stable storage.
func (c *serverConn) sync(tag uint8) {
	before, since := c.writes, new(sync.WaitGroup)
	since.Add(1)
	c.writes = since
	started := c.start(0, func() {
		before.Wait()
		since.Done()
		if err := c.store.Sync(c.ctx); err != nil {
			c.fail("sync", tag, err)
			return
		}
		c.reply(&message{typ: rSync, tag: tag})
	})
	if !started {
		since.Done()
	}
}
