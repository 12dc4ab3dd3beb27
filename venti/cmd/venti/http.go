package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"strata/internal/logs"
	"strata/internal/netaddr"
	"strata/venti"
	"strata/venti/httpd"
	"strata/venti/internal/config"
	"strata/venti/store"
)

// httpFlags are the flags of the HTTP server.
type httpFlags struct {
	addr, webroot        string
	open, control, pprof bool
}

func (f *httpFlags) register(fs *pflag.FlagSet) {
	fs.StringVarP(&f.addr, "http", "h", "", "serve pages about the store at `address` (default: httpaddr of the configuration, then nowhere)")
	fs.StringVarP(&f.webroot, "webroot", "W", "", "`directory` of files for what is no page (default: webroot of the configuration)")
	fs.BoolVar(&f.open, "http-open", false, "allow an HTTP address that other machines reach and that asks for no certificate")
	fs.BoolVar(&f.control, "http-control", false, "allow pages to change settings, flush, and empty caches")
	fs.BoolVar(&f.pprof, "pprof", false, "serve profiles of the server too, at /debug/pprof/")
}

// A monitor is the HTTP server of one store. Its nil value serves nothing.
type monitor struct {
	*httpd.Handler
	net.Listener
}

// listen announces the HTTP server's address, if there is one.
func (f *httpFlags) listen(ctx context.Context, conf *config.Config, s *store.Store, srv *venti.Server, log *slog.Logger, recent *logs.Recent) (*monitor, error) {
	addr := cmp.Or(f.addr, conf.HTTPAddr)
	if addr == "" {
		return nil, nil
	}
	h, err := httpd.New(httpd.Config{
		Store: s, Server: srv, Logger: log, Recent: recent,
		Webroot: cmp.Or(f.webroot, conf.Webroot), Control: f.control, Pprof: f.pprof,
	})
	if err != nil {
		return nil, err
	}
	ln, err := netaddr.Config{Open: f.open, Logger: log}.Listen(ctx, addr, "http")
	if err != nil {
		return nil, errors.Join(conf.Blame(addr, err), h.Close())
	}
	log.Info("serving pages", "address", addr)
	return &monitor{h, ln}, nil
}

// serve serves blocks and pages until ctx ends, or one of the two fails.
func (m *monitor) serve(ctx context.Context, srv *venti.Server, ln net.Listener) error {
	if m == nil {
		return srv.Serve(ctx, ln)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return srv.Serve(ctx, ln) })
	group.Go(func() error { return m.Handler.Serve(ctx, m.Listener) })
	return group.Wait()
}

// close ends what the pages have begun. It comes before the store's Close.
func (m *monitor) close() {
	if m != nil {
		m.Listener.Close()
		m.Handler.Close()
	}
}
