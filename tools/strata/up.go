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
	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/vdisk"
	"strata/venti"
	"strata/venti/store"
)

const upDoc = `Serves a directory until it is interrupted: blocks to clients of Venti, stored disks
to clients of 9P. On first use the directory is made, with files for arenas, index and
Bloom filter, which are sparse, and venti.conf, which says what they are.

It listens on the sockets venti.sock and vdisk.sock in the directory and, unless told
otherwise, on tcp!127.0.0.1!17034 and tcp!127.0.0.1!5641.`

// upOptions say how a directory is made and served.
type upOptions struct {
	Size        int64    // bytes for blocks when the store is made; 0 chooses
	Compression string   // when the store is made: zstd, whack (or empty), none
	Files       string   // directory of the host served as /files; empty for none
	Local       bool     // sockets only
	Venti       []string // addresses in place of the loopback ones
	Vdisk       []string
	Open        bool // allow addresses that others reach
	Logger      *slog.Logger
}

// Where the suite listens besides its sockets.
const (
	ventiAddr = "tcp!127.0.0.1!17034"
	vdiskAddr = "tcp!127.0.0.1!5641"
)

func upCommand() *command.Command {
	var opt upOptions
	var size int64
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
			fs.BoolVar(&opt.Local, "local", false, "listen on the sockets only")
			fs.BoolVar(&opt.Open, "open", false, "allow addresses that other machines reach, with no authentication")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			if size < 0 || size > 1<<20 {
				return command.Usagef("--size is from 1 to %d", 1<<20)
			}
			opt.Size = size << 30
			opt.Logger = slog.New(slog.NewTextHandler(io.Stderr, nil))
			s, err := openSuite(ctx, io.Args[0], opt)
			if err != nil {
				return err
			}
			for _, l := range slices.Concat(s.venti, s.vdisk) {
				fmt.Fprintf(io.Stdout, "%s\t%s\n", l.service, l.addr)
			}
			return errors.Join(s.serve(ctx), s.close())
		},
	}
}

// A listener is one address that the suite answers at.
type listener struct {
	net.Listener
	service string // "venti" or "vdisk"
	addr    string // as dial strings have it
}

// A suite is what one directory serves. It is open from openSuite to close.
type suite struct {
	dir   string
	store *store.Store
	tree  *vdisk.Tree
	venti []listener
	vdisk []listener
	log   *slog.Logger
}

// openSuite opens dir, which it makes if it holds no store, and announces
// its addresses.
func openSuite(ctx context.Context, dir string, opt upOptions) (s *suite, err error) {
	s = &suite{dir: dir, log: opt.Logger}
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
	s.tree, err = vdisk.NewTree(s.store, vdisk.TreeConfig{Files: opt.Files})
	if err != nil {
		return s, err
	}
	for _, a := range []struct {
		service, tcp, socket string
		told                 []string
		list                 *[]listener
	}{
		{"venti", ventiAddr, s.ventiSocket(), opt.Venti, &s.venti},
		{"vdisk", vdiskAddr, s.vdiskSocket(), opt.Vdisk, &s.vdisk},
	} {
		addrs := []string{a.socket}
		switch {
		case len(a.told) > 0:
			addrs = append(addrs, a.told...)
		case !opt.Local:
			addrs = append(addrs, a.tcp)
		}
		for _, addr := range addrs {
			ln, err := netaddr.Config{Open: opt.Open}.Listen(ctx, addr, a.service)
			if err != nil {
				return s, err
			}
			*a.list = append(*a.list, listener{ln, a.service, addr})
		}
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

// stored returns the bytes that clumps take in the log.
func (s *suite) stored() int64 { return s.store.Stats().ClumpBytes }

// serve answers at all addresses until ctx ends, and then returns nil once
// the last request is done.
func (s *suite) serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	blocks := venti.NewServer(s.store, venti.ServerConfig{Logger: s.log})
	for _, l := range s.venti {
		group.Go(func() error { return blocks.Serve(ctx, l) })
	}
	disks := ninep.NewServer(s.tree, ninep.Config{Log: s.log})
	for _, l := range s.vdisk {
		group.Go(func() error { return disks.Serve(ctx, l) })
	}
	return group.Wait()
}

// close closes what openSuite opened. All that was written is durable when it
// returns nil.
func (s *suite) close() error {
	var errs []error
	for _, l := range slices.Concat(s.venti, s.vdisk) {
		l.Close() // serve has closed it, if it ran
	}
	if s.tree != nil {
		errs = append(errs, s.tree.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}
