package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"strata/internal/command"
	"strata/internal/logs"
	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/vdisk"
	"strata/vdisk/nbd"
	"strata/venti"
	"strata/venti/httpd"
	"strata/venti/store"
)

const upDoc = `Serves a directory until it is interrupted: blocks to clients of Venti, stored disks
to clients of 9P and NBD. On first use the directory is made, with files for arenas, index and
Bloom filter, which are sparse, and venti.conf, which says what they are.

It listens on the sockets venti.sock, vdisk.sock and nbd.sock in the directory, which
are their owner's alone unless told otherwise, and on tcp!127.0.0.1!17034,
tcp!127.0.0.1!5641 and, for NBD (see vdisk serve --help), tcp!127.0.0.1!10809, or on the addresses given: tcp!host!port, unix!/path or, with TLS, tls!host!port!
cert=FILE!key=FILE!ca=FILE (venti --help explains them). One that other machines reach
needs a ca for clients' certificates, or --open. Access and limit lines of venti.conf
count here too. With --http a status page, with
charts, and metrics for Prometheus are at http://127.0.0.1:9100.`

// upOptions say how a directory is made and served.
type upOptions struct {
	Size        int64    // bytes for blocks when the store is made; 0 chooses
	Compression string   // when the store is made: zstd, whack (or empty), none
	Files       string   // directory of the host served as /files; empty for none
	Local       bool     // sockets only
	Venti       []string // addresses in place of the loopback ones
	Vdisk       []string
	NBD         []string
	Open        bool   // allow addresses that others reach
	SocketMode  string // of the sockets in the directory, as package netaddr has it; empty is the default
	SocketGroup string
	Access      []string // rules for clients of Venti, in place of the configuration's
	Limits      []string // and limits
	Users       []string // rules of who clients of 9P are
	HTTP        string   // address of the pages; empty for none
	Logger      *slog.Logger
	Recent      *logs.Recent // its last messages, for the pages; may be nil
}

// Where the suite listens besides its sockets.
const (
	ventiAddr = "tcp!127.0.0.1!17034"
	vdiskAddr = "tcp!127.0.0.1!5641"
	nbdAddr   = "tcp!127.0.0.1!" + nbd.Service
	httpAddr  = "tcp!127.0.0.1!9100" // if it is asked for
)

func upCommand() *command.Command {
	var opt upOptions
	var size int64
	var log logs.Flags
	return &command.Command{
		Name:  "strata up",
		Usage: "[flags] directory",
		Doc:   upDoc,
		Flags: func(fs *pflag.FlagSet) {
			fs.Int64Var(&size, "size", 0, "space for blocks in `GiB`, when the store is made (default 64, or most of what is free)")
			fs.StringVar(&opt.Compression, "compression", store.CompressZstd, "of new blocks, when the store is made: zstd, whack, which Plan 9's programs read, or none")
			fs.StringVar(&opt.Files, "files", "", "`directory` served as /files, where a .vdisk file reads as its disk")
			fs.StringArrayVar(&opt.Venti, "venti", nil, "Venti `address` in place of "+ventiAddr)
			fs.StringArrayVar(&opt.Vdisk, "vdisk", nil, "9P `address` in place of "+vdiskAddr)
			fs.StringArrayVar(&opt.NBD, "nbd", nil, "NBD `address` in place of "+nbdAddr)
			fs.StringVar(&opt.HTTP, "http", "", "serve pages about the store at `address`, or at "+httpAddr)
			fs.Lookup("http").NoOptDefVal = httpAddr
			log.Register(fs)
			fs.BoolVar(&opt.Local, "local", false, "listen on the sockets only")
			fs.BoolVar(&opt.Open, "open", false, "allow addresses that other machines reach and that ask for no certificate")
			fs.StringVar(&opt.SocketMode, "socket-mode", "", "`mode` of the sockets, such as 0660 (default 0600, the owner alone)")
			fs.StringVar(&opt.SocketGroup, "socket-group", "", "`group` of the sockets")
			fs.StringArrayVar(&opt.Users, "user", nil, "`rule` of who a 9P client is: \"10.0.0.0/8 glenda\"; may be given again, see vdisk serve --help")
			fs.StringArrayVar(&opt.Access, "access", nil, "`rule` of what a Venti client may do: \"readonly unix\"; may be given again, see venti --help")
			fs.StringArrayVar(&opt.Limits, "limit", nil, "`limit` of what Venti clients take: \"requests 1000\"; may be given again, see venti --help")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			if size < 0 || size > 1<<20 {
				return command.Usagef("--size is from 1 to %d", 1<<20)
			}
			opt.Size = size << 30
			var err error
			if opt.Logger, opt.Recent, err = log.Open(io.Stderr, "strata"); err != nil {
				return command.Usagef("%v", err)
			}
			s, err := openSuite(ctx, io.Args[0], opt)
			if err != nil {
				return err
			}
			for _, l := range slices.Concat(s.venti, s.vdisk, s.nbd, s.http) {
				fmt.Fprintf(io.Stdout, "%s\t%s\n", l.service, l.addr)
			}
			return errors.Join(s.serve(ctx), s.close())
		},
	}
}

// A listener is one address that the suite answers at.
type listener struct {
	net.Listener
	service string // "venti", "vdisk", "nbd" or "http"
	addr    string // as dial strings have it
}

// A suite is what one directory serves. It is open from openSuite to close.
type suite struct {
	dir    string
	store  *store.Store
	blocks *venti.Server
	tree   *vdisk.Tree
	disks  *ninep.Server
	drives *nbd.Server
	pages  *httpd.Handler // or nil
	venti  []listener
	vdisk  []listener
	nbd    []listener
	http   []listener // of pages
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
	s.store, err = store.OpenConf(ctx, filepath.Join(dir, store.ConfFile), store.Config{Memory: command.Memory(), Logger: opt.Logger})
	if err != nil {
		return s, err
	}
	serve, err := store.ServerConf(filepath.Join(dir, store.ConfFile), opt.Access, opt.Limits)
	if err != nil {
		return s, err
	}
	serve.Logger = opt.Logger
	s.blocks = venti.NewServer(s.store, serve)
	s.tree, err = vdisk.NewTree(s.store, vdisk.TreeConfig{Files: opt.Files})
	if err != nil {
		return s, err
	}
	users := ninep.HostUsers()
	rules, err := ninep.ParseUserRules(opt.Users)
	if err != nil {
		return s, err
	}
	identity := &ninep.Identity{Users: users, Rules: rules}
	s.disks = ninep.NewServer(s.tree, ninep.Config{Users: users, User: identity.User, Log: opt.Logger})
	s.drives = nbd.NewServer(s.tree.Exports(), nbd.Config{Logger: opt.Logger})
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
			*a.list = append(*a.list, listener{ln, a.service, addr})
		}
	}
	if opt.HTTP != "" {
		s.pages, err = httpd.New(httpd.Config{Store: s.store, Server: s.blocks, Logger: opt.Logger, Recent: opt.Recent})
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

// socketAttrs returns what an address says of who may use its socket.
func (opt *upOptions) socketAttrs() (attrs string) {
	if opt.SocketMode != "" {
		attrs = "!mode=" + opt.SocketMode
	}
	if opt.SocketGroup != "" {
		attrs += "!group=" + opt.SocketGroup
	}
	return attrs
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
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		free := int64(st.Bavail) * st.Bsize
		opt.Size = min(64<<30, free/10*8)
	}
	_, err := store.Format(ctx, dir, store.FormatConfig{Space: opt.Size, Compression: opt.Compression})
	return err
}

func (s *suite) ventiSocketPath() string { return filepath.Join(s.dir, "venti.sock") }
func (s *suite) vdiskSocketPath() string { return filepath.Join(s.dir, "vdisk.sock") }
func (s *suite) ventiSocket() string     { return "unix!" + s.ventiSocketPath() }
func (s *suite) vdiskSocket() string     { return "unix!" + s.vdiskSocketPath() }
func (s *suite) nbdSocket() string       { return "unix!" + filepath.Join(s.dir, "nbd.sock") }

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
		group.Go(func() error { return s.drives.Serve(ctx, l) })
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
	if s.tree != nil {
		errs = append(errs, s.tree.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}
