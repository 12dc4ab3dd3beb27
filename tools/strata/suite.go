package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"strata/fossil/console"
	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/vdisk"
	"strata/vdisk/live"
	"strata/vdisk/nbd"
	"strata/venti"
	"strata/venti/blockcache"
	"strata/venti/httpd"
	"strata/venti/store"
)

// A listener is one address that the suite answers at.
type listener struct {
	net.Listener
	service string // "venti", "vdisk", "nbd" or "http"
	addr    string // as dial strings have it
}

// A suite is what one directory serves. It is open from openSuite to close.
type suite struct {
	dir      string
	identity *ninep.Identity // of clients of 9P

	store  *store.Store
	blocks *venti.Server
	tree   *vdisk.Tree
	disks  *ninep.Server
	drives *nbd.Server
	guests *nbd.Server     // for those of whom nobody knows who they are
	inside *ninep.Client   // of fossil
	images *live.Catalogue // or nil
	pages  *httpd.Handler  // or nil
	venti  []listener
	vdisk  []listener
	nbd    []listener
	http   []listener // of pages
	fossil *console.Host
	told   []string // what fossil serves, as service and address
}

// openSuite opens dir, which it makes if it holds no store, and announces
// its addresses.
func openSuite(ctx context.Context, dir string, opt upOptions) (s *suite, err error) {
	s = &suite{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := makeStore(ctx, dir, opt); err != nil {
		return s, err
	}
	caches, _, stored := opt.shares()
	s.store, err = store.OpenConf(ctx, filepath.Join(dir, store.ConfFile), store.Config{Caches: caches, Logger: opt.Logger})
	if err != nil {
		return s, err
	}
	rules, err := ninep.ParseUserRules(opt.Users)
	if err != nil {
		return s, err
	}
	s.identity = &ninep.Identity{Users: ninep.HostUsers(), Rules: rules}
	serve, err := store.ServerConf(filepath.Join(dir, store.ConfFile), opt.Access, opt.Limits)
	if err != nil {
		return s, err
	}
	if err := s.openFossil(ctx, opt); err != nil {
		return s, err
	}
	serve.Logger = opt.Logger
	s.blocks = venti.NewServer(s.store, serve)
	s.tree, err = vdisk.NewTree(blockcache.New(s.store, stored), vdisk.TreeConfig{Files: opt.Files})
	if err != nil {
		return s, err
	}
	s.disks = ninep.NewServer(s.tree, ninep.Config{Users: s.identity.Users, User: s.identity.User, Log: opt.Logger})
	if err := s.openImages(ctx, opt); err != nil {
		return s, err
	}
	for _, a := range []struct {
		service, tcp, socket string
		told                 []string
		list                 *[]listener
	}{
		{"venti", ventiAddr, s.ventiSocket(), opt.Venti, &s.venti},
		{"vdisk", vdiskAddr, s.vdiskSocket(), opt.Vdisk, &s.vdisk},
		{"nbd", nbdAddr, s.nbdSocket(), opt.NBD, &s.nbd},
	} {
		addrs := []string{a.socket + opt.socketAttrs()}
		switch {
		case len(a.told) > 0:
			addrs = append(addrs, a.told...)
		case !opt.Local:
			addrs = append(addrs, a.tcp)
		}
		for _, addr := range addrs {
			cfg, service := netaddr.Config{Open: opt.Open, Logger: opt.Logger}, a.service
			if service == "nbd" {
				cfg.Upgrade, service = true, nbd.Service
			}
			ln, err := cfg.Listen(ctx, addr, service)
			if err != nil {
				return s, err
			}
			l := listener{ln, a.service, addr}
			if a.service == "nbd" {
				s.tree.AnnounceNBD(addr, ln.Addr(), s.writes(l))
			}
			*a.list = append(*a.list, l)
		}
	}
	if opt.HTTP != "" {
		s.pages, err = httpd.New(httpd.Config{Store: s.store, Server: s.blocks, Logger: opt.Logger, Recent: opt.Recent, Metrics: s.fossil.Metrics()})
		if err != nil {
			return s, err
		}
		ln, err := netaddr.Config{Open: opt.Open, Logger: opt.Logger}.Listen(ctx, opt.HTTP, "9100")
		if err != nil {
			return s, err
		}
		s.http = append(s.http, listener{ln, "http", opt.HTTP})
	}
	return s, nil
}

// makeStore makes dir and a store in it, unless there is one.
func makeStore(ctx context.Context, dir string, opt upOptions) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	switch _, err := os.Stat(filepath.Join(dir, store.ConfFile)); {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if opt.Size == 0 {
		free, err := freeSpace(dir)
		if err != nil {
			return err
		}
		opt.Size = min(64<<30, free/10*8)
	}
	_, err := store.Format(ctx, dir, store.FormatConfig{Space: opt.Size, Compression: opt.Compression})
	return err
}

// freeSpace returns how many bytes there is room for in dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func (s *suite) ventiSocketPath() string { return filepath.Join(s.dir, "venti.sock") }
func (s *suite) vdiskSocketPath() string { return filepath.Join(s.dir, "vdisk.sock") }
func (s *suite) ventiSocket() string     { return "unix!" + s.ventiSocketPath() }
func (s *suite) vdiskSocket() string     { return "unix!" + s.vdiskSocketPath() }
func (s *suite) nbdSocket() string       { return "unix!" + filepath.Join(s.dir, "nbd.sock") }

// announce prints the addresses.
func (s *suite) announce(w io.Writer) {
	for _, l := range slices.Concat(s.venti, s.vdisk, s.nbd, s.http) {
		fmt.Fprintf(w, "%s\t%s\n", l.service, l.addr)
	}
	for _, line := range s.told {
		fmt.Fprintln(w, line)
	}
}

// stored returns the bytes that clumps take in the log.
func (s *suite) stored() int64 { return s.store.Stats().ClumpBytes }

// serve answers at all addresses until ctx ends, and then returns nil once
// the last request is done.
func (s *suite) serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range s.venti {
		group.Go(func() error { return s.blocks.Serve(ctx, l) })
	}
	for _, l := range s.vdisk {
		group.Go(func() error { return s.disks.Serve(ctx, l) })
	}
	for _, l := range s.nbd {
		group.Go(func() error { return s.driver(l).Serve(ctx, l) })
	}
	for _, l := range s.http {
		group.Go(func() error { return s.pages.Serve(ctx, l) })
	}
	return group.Wait()
}

// close closes what openSuite opened. All that was written is durable when it
// returns nil.
func (s *suite) close() error {
	var errs []error
	for _, l := range slices.Concat(s.venti, s.vdisk, s.nbd, s.http) {
		l.Close() // serve has closed it, if it ran
	}
	if s.pages != nil {
		errs = append(errs, s.pages.Close())
	}
	errs = append(errs, s.closeImages())
	if s.fossil != nil {
		// Its archiver writes to the store, which ends last.
		errs = append(errs, s.fossil.Close(context.Background()))
	}
	if s.tree != nil {
		errs = append(errs, s.tree.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}
