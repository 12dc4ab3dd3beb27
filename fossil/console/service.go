package console

import (
	"context"
	"fmt"
	"net"
	"slices"

	"strata/internal/netaddr"
	"strata/internal/ninep"
)

// port is that of a TCP address that has none.
const port = "5640"

// A ServiceConfig says what is served at an address.
type ServiceConfig struct {
	Addr    string // as package netaddr has it
	Console bool   // the console, not files

	// Of files, what the flags of srv and listen say.
	NoAuth        bool // clients are believed who they are
	NoPermissions bool
	AnyWstat      bool
}

// A service is an address at which a host is served.
type service struct {
	cfg  ServiceConfig
	ln   net.Listener
	stop context.CancelFunc
	done chan struct{}
}

// Serve announces an address, and returns it as it is dialled. It is served
// until Close.
func (h *Host) Serve(ctx context.Context, cfg ServiceConfig) (addr string, err error) {
	ln, err := netaddr.Config{Open: h.cfg.Open, Logger: h.log}.Listen(ctx, cfg.Addr, port)
	if err != nil {
		return "", err
	}
	addr = dialled(ln.Addr())
	s := &service{cfg: cfg, ln: ln, done: make(chan struct{})}
	ctx, s.stop = context.WithCancel(h.serving)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.serving.Err() != nil {
		ln.Close()
		return "", net.ErrClosed
	}
	h.services[addr] = s
	h.workers.Go(func() {
		defer close(s.done)
		if err := h.serve(ctx, s); err != nil {
			h.log.Error("serve", "addr", addr, "error", err)
		}
	})
	return addr, nil
}

func (h *Host) serve(ctx context.Context, s *service) error {
	if s.cfg.Console {
		return h.serveConsoles(ctx, s.ln)
	}
	cfg := ninep.Config{Users: h.cfg.Users, Log: h.log}
	if h.cfg.Identity != nil && !s.cfg.NoAuth {
		cfg.User = h.cfg.Identity.User
	}
	return ninep.NewServer(&served{h, &s.cfg}, cfg).Serve(ctx, s.ln)
}

// stopService ends the service at an address.
func (h *Host) stopService(addr string) error {
	h.mu.Lock()
	s := h.services[addr]
	delete(h.services, addr)
	h.mu.Unlock()
	if s == nil {
		return fmt.Errorf("nothing is served at %s", addr)
	}
	s.stop()
	<-s.done
	return nil
}

// dialled returns an address as it is dialled.
func dialled(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix!" + a.String()
	}
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return a.Network() + "!" + host + "!" + port
}

// A served is a host as the clients of one service see it.
type served struct {
	h   *Host
	cfg *ServiceConfig
}

// Attach implements ninep.FS.
func (v *served) Attach(ctx context.Context, user, aname string) (ninep.Node, error) {
	t, err := v.h.tree(aname)
	if err != nil {
		return nil, err
	}
	if v.cfg.NoPermissions || v.cfg.AnyWstat {
		t = t.Loose(v.cfg.NoPermissions, v.cfg.AnyWstat)
	}
	return t.Attach(ctx, user, aname)
}

// Services returns the addresses that are served, sorted.
func (h *Host) Services(console bool) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []string
	for addr, s := range h.services {
		if s.cfg.Console == console {
			list = append(list, addr)
		}
	}
	slices.Sort(list)
	return list
}
