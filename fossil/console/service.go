package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"strata/fossil/internal/users"
	"strata/internal/netaddr"
	"strata/internal/ninep"
)

// port is that of a TCP address that has none.
const port = "5640"

// A ServiceConfig says what is served at an address.
type ServiceConfig struct {
	Addr    string // as package netaddr has it
	Console bool   // the console, not files
	HTTP    bool   // what Handler serves, not files

	// KnownOnly turns away clients of whom neither the kernel nor a certificate
	// nor a rule says who they are.
	KnownOnly bool

	// Of files, what the flags of srv and listen say.
	NoAuth        bool // clients are believed who they are
	NoNone        bool // nobody attaches as none, but where clients are believed
	NoPermissions bool
	AnyWstat      bool
}

// A service is an address at which a host is served.
type service struct {
	cfg     ServiceConfig
	network string // unix, tcp
	addr    string // as it is dialled
	ln      net.Listener
	server  *ninep.Server // nil of a console
	stop    context.CancelFunc
	done    chan struct{}
}

// Serve announces an address, and returns it as it is dialled. It is served
// until Close.
func (h *Host) Serve(ctx context.Context, cfg ServiceConfig) (addr string, err error) {
	ln, err := netaddr.Config{Open: h.cfg.Open, Logger: h.log}.Listen(ctx, cfg.Addr, port)
	if err != nil {
		return "", err
	}
	s := &service{cfg: cfg, network: ln.Addr().Network(), addr: netaddr.Announced(ln.Addr()), ln: ln, done: make(chan struct{})}
	if !cfg.Console && !cfg.HTTP {
		c := ninep.Config{Users: h.cfg.Users, Admit: h.admit(&s.cfg), Log: h.log}
		if h.cfg.Identity != nil && !cfg.NoAuth {
			c.User = h.cfg.Identity.User
		}
		s.server = ninep.NewServer(&served{h, &s.cfg}, c)
	}
	ctx, s.stop = context.WithCancel(h.serving)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.serving.Err() != nil {
		ln.Close()
		return "", net.ErrClosed
	}
	h.services[s.addr] = s
	h.limitLocked(s)
	h.workers.Go(func() {
		defer close(s.done)
		if err := h.serve(ctx, s); err != nil {
			h.log.Error("serve", "addr", s.addr, "error", err)
		}
	})
	return s.addr, nil
}

func (h *Host) serve(ctx context.Context, s *service) error {
	switch {
	case s.cfg.HTTP:
		return h.serveHTTP(ctx, s.ln)
	case s.cfg.Console:
		return h.serveConsoles(ctx, s.ln, h.admit(&s.cfg))
	}
	return s.server.Serve(ctx, s.ln)
}

// endService ends the service at an address.
func (h *Host) endService(addr string) error {
	a, err := netaddr.Parse(addr, port)
	if err != nil {
		return err
	}
	h.mu.Lock()
	var s *service
	for key, v := range h.services {
		if key == addr || v.ln.Addr().String() == a.Address {
			s = v
			delete(h.services, key)
		}
	}
	h.mu.Unlock()
	if s == nil {
		return fmt.Errorf("nothing is served at %s", addr)
	}
	s.stop()
	s.ln.Close()
	return nil
}

// serviceList returns services, by address.
func (h *Host) serviceList(want func(s *service) bool) []*service {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []*service
	for _, s := range h.services {
		if want(s) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *service) int { return cmp.Compare(a.addr, b.addr) })
	return list
}

// Services returns the addresses at which files are served, or consoles.
func (h *Host) Services(console bool) []string {
	var list []string
	for _, s := range h.serviceList(func(s *service) bool { return s.cfg.Console == console && !s.cfg.HTTP }) {
		list = append(list, s.addr)
	}
	return list
}

// line returns the flags and the address, as the command has them.
func (s *service) line() string {
	var b strings.Builder
	for _, f := range []struct {
		on     bool
		letter byte
	}{
		{s.cfg.NoAuth, 'A'},
		{s.cfg.KnownOnly, 'I'},
		{!s.cfg.NoNone && !s.cfg.Console, 'N'},
		{s.cfg.NoPermissions, 'P'},
		{s.cfg.AnyWstat, 'W'},
		{s.cfg.Console, 'p'},
	} {
		if f.on {
			b.WriteByte(f.letter)
		}
	}
	if b.Len() == 0 {
		return s.addr
	}
	return "-" + b.String() + " " + s.addr
}

// admit returns what asks whether a client may come in, and is told when it
// has gone.
func (h *Host) admit(cfg *ServiceConfig) func(conn io.ReadWriteCloser) (func(), error) {
	return func(conn io.ReadWriteCloser) (func(), error) {
		if cfg.KnownOnly && (h.cfg.Identity == nil || !h.cfg.Identity.Knows(conn)) {
			return nil, errors.New("turned away: nobody knows who it is")
		}
		if n, most := h.conns.Add(1), h.mostConns.Load(); n > most {
			h.conns.Add(-1)
			return nil, fmt.Errorf("turned away: there are %d connections", most)
		}
		return func() { h.conns.Add(-1) }, nil
	}
}

// A served is a host as the clients of one service see it.
type served struct {
	h   *Host
	cfg *ServiceConfig
}

var errNone = &ninep.Error{Text: "cannot attach as none before authentication", Errno: ninep.ErrPermission.Errno}

// Attach implements ninep.FS.
func (v *served) Attach(ctx context.Context, user, aname string) (ninep.Node, error) {
	t, err := v.h.tree(aname)
	if err != nil {
		return nil, err
	}
	if user == users.None && v.cfg.NoNone && !v.cfg.NoAuth && !v.Trusts(aname) {
		return nil, errNone
	}
	if v.cfg.NoPermissions || v.cfg.AnyWstat {
		t = t.Loose(v.cfg.NoPermissions, v.cfg.AnyWstat)
	}
	return t.Attach(ctx, user, aname)
}

// Trusts implements ninep.Truster.
func (v *served) Trusts(aname string) bool { return v.h.Trusts(aname) }

// StatFS implements ninep.StatFSer.
func (v *served) StatFS(ctx context.Context, node ninep.Node) (ninep.StatFS, error) {
	return v.h.StatFS(ctx, node)
}

// limitLocked tells a service's server what msg and dflag say. h.mu must be
// held.
func (h *Host) limitLocked(s *service) {
	if s.server == nil {
		return
	}
	s.server.SetLimits(int(h.mostRequests.Load()), int(h.mostMessages.Load())*ninep.DefaultMsize)
	if !h.tracing {
		s.server.SetTrace(nil)
		return
	}
	s.server.SetTrace(func(peer, message string) { h.log.Info("9p", "peer", peer, "message", message) })
}

// setLimits says what each connection may ask for at once; 0 leaves it.
func (h *Host) setLimits(requests, messages int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if requests > 0 {
		h.mostRequests.Store(int64(requests))
	}
	if messages > 0 {
		h.mostMessages.Store(int64(messages))
	}
	for _, s := range h.services {
		h.limitLocked(s)
	}
}

// ToggleDebug has every message of 9P logged from now on, or no more. It
// returns which.
func (h *Host) ToggleDebug() (on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tracing = !h.tracing
	for _, s := range h.services {
		h.limitLocked(s)
	}
	return h.tracing
}

// netStats adds up what the services have counted.
func (h *Host) netStats() (sum ninep.ServerStats) {
	for _, s := range h.serviceList(func(s *service) bool { return s.server != nil }) {
		st := s.server.Stats()
		sum.Conns += st.Conns
		sum.Accepted += st.Accepted
		sum.Messages += st.Messages
		sum.NumberWaits += st.NumberWaits
		sum.ByteWaits += st.ByteWaits
	}
	return sum
}
