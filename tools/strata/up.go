package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/internal/logs"
	"strata/vdisk/nbd"
	"strata/venti/store"
)

const upDoc = `Serves a directory until it is interrupted: blocks to clients of Venti, a file system
with snapshots (Fossil) to clients of 9P, stored disks to clients of 9P and NBD. On first
use the directory is made, with files for arenas, index, Bloom filter and file system,
which are sparse, and venti.conf and fossil.conf, which say what they are. The latter is
commands of Fossil's console: it takes a snapshot each hour, for a day, and archives one
each night at three.

It listens on the sockets venti.sock, fossil.sock, vdisk.sock and nbd.sock in the
directory, which are their owner's alone unless told otherwise, and on
tcp!127.0.0.1!17034, tcp!127.0.0.1!5640, tcp!127.0.0.1!5641 and, for NBD (see vdisk
serve --help), tcp!127.0.0.1!10809, or on the addresses given: tcp!host!port, unix!/path
or, with TLS, tls!host!port!cert=FILE!key=FILE!ca=FILE (venti --help explains them). One
that other machines reach needs a ca for clients' certificates, or --open. The console
is at fscons.sock (see fossil/fscons --help). Access and limit lines of venti.conf
count here too, and so do its mem and icmem. With --http a status page, with
charts, and metrics for Prometheus are at http://127.0.0.1:9100.`

// upOptions say how a directory is made and served.
type upOptions struct {
	Size        int64    // bytes for blocks when the store is made; 0 chooses
	Memory      int64    // bytes for caches; 0 means by the machine's
	Buffer      int64    // bytes for the file system when it is made; 0 chooses
	Compression string   // when the store is made: zstd, whack (or empty), none
	Files       string   // directory of the host served as /files; empty for none
	Local       bool     // sockets only
	Venti       []string // addresses in place of the loopback ones
	Fossil      []string
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
	ventiAddr  = "tcp!127.0.0.1!17034"
	fossilAddr = "tcp!127.0.0.1!5640"
	vdiskAddr  = "tcp!127.0.0.1!5641"
	nbdAddr    = "tcp!127.0.0.1!" + nbd.Service
	httpAddr   = "tcp!127.0.0.1!9100" // if it is asked for
)

func upCommand() *command.Command {
	var opt upOptions
	var size, buffer int64
	var memory string
	var log logs.Flags
	return &command.Command{
		Name:  "strata up",
		Usage: "[flags] directory",
		Doc:   upDoc,
		Flags: func(fs *pflag.FlagSet) {
			fs.Int64Var(&size, "size", 0, "space for blocks in `GiB`, when the store is made (default 64, or most of what is free)")
			fs.Int64Var(&buffer, "buffer", 0, "space for files that are not archived yet in `GiB`, when the file system is made (default 32, or half of --size)")
			fs.StringVar(&memory, "memory", "", "`size` of all caches together (default: a sixteenth of the machine's memory, 1g at most)")
			fs.StringVar(&opt.Compression, "compression", store.CompressZstd, "of new blocks, when the store is made: zstd, whack, which Plan 9's programs read, or none")
			fs.StringVar(&opt.Files, "files", "", "`directory` served as /files, where a .vdisk file reads as its disk")
			fs.StringArrayVar(&opt.Venti, "venti", nil, "Venti `address` in place of "+ventiAddr)
			fs.StringArrayVar(&opt.Fossil, "fossil", nil, "9P `address` of the file system in place of "+fossilAddr)
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
			if size < 0 || size > 1<<20 || buffer < 0 || buffer > 1<<20 {
				return command.Usagef("--size and --buffer are from 1 to %d", 1<<20)
			}
			opt.Size, opt.Buffer = size<<30, buffer<<30
			var err error
			if memory != "" {
				if opt.Memory, err = disk.ParseSize(memory); err == nil && opt.Memory < minMemory {
					err = fmt.Errorf("%d bytes are too few: the least is %d", opt.Memory, minMemory)
				}
				if err != nil {
					return command.Usagef("--memory: %v", err)
				}
			}
			if opt.Logger, opt.Recent, err = log.Open(io.Stderr, "strata"); err != nil {
				return command.Usagef("%v", err)
			}
			if os.Getenv("GOMEMLIMIT") == "" {
				_, live, stored := opt.shares()
				debug.SetMemoryLimit(max(1<<30, (live+stored)/2*3)) // or full caches are held twice before the next collection
			}
			s, err := openSuite(ctx, io.Args[0], opt)
			if err != nil {
				return err
			}
			s.announce(io.Stdout)
			return errors.Join(s.serve(ctx), s.close())
		},
	}
}

// Bytes for caches. What the files hold is kept by the system, in memory that
// others can have when they need it; but a block of the arenas is compressed there.
const (
	memoryShare = 16 // of the machine's memory, one part of so many
	minMemory   = 16 << 20
	maxMemory   = 1 << 30  // where it is not told
	storeMemory = 96 << 20 // is enough for the store, unless an eighth of all is more
)

// memory returns how many bytes all caches together have.
func (opt *upOptions) memory() int64 {
	if opt.Memory > 0 {
		return opt.Memory
	}
	return min(max(command.Memory()/memoryShare, minMemory), maxMemory)
}

// shares divides what memory returns: among the store, whose clients are other
// programs too, the file system with its live disks, and the tree of stored ones.
// The latter two keep the blocks that guests read; what they have the store need
// not have.
func (opt *upOptions) shares() (store, live, stored int64) {
	all := opt.memory()
	store = min(all/4*3, max(storeMemory, all/8))
	stored = (all - store) / 3
	return store, all - store - stored, stored
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
