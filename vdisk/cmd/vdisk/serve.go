package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/vdisk"
	"strata/vdisk/nbd"
	"strata/venti"
	"strata/venti/blockcache"
)

const serveDoc = `Serve stored disks over 9P (9P2000 and 9P2000.L) and NBD, read-only. Over 9P:

  /score/SCORE/disk          any disk, by its score
  /score/SCORE/info          how it is laid out
  /score/SCORE/parts/N/data  a partition of it
  /score/SCORE/parts/N/fs    the files in it: ext2, ext3, ext4, FAT, exFAT, NTFS
  /files/...                 the folder that --files names; a file in it with
                             the ending .vdisk that holds a score reads as
                             the raw disk
  /status                    what is open, and where there is NBD

With --fossil, images that live in that Fossil can be written to below /images, and
/ctl takes commands about them: vdisk create, snap and so on give those. Who runs
vdisk must be in its group adm.

Over NBD, at the addresses that --nbd gives, an export's name is a disk's score,
files/web.vdisk, or either with /parts/N behind it. Without a --nbd address
there is no NBD; a port of 10809 need not be given. TLS with client certificates
is what nbds: asks for.

Each address is printed when it is announced: tcp!host!port, host:port,
unix!/path or /path, with attributes unix!/path!mode=0660!group=NAME and, for
TLS, tls!host!port!cert=FILE!key=FILE!ca=FILE, where ca has signed the clients'
certificates. Without -a they are the socket vdisk.sock in the current folder,
its owner's alone, and tcp!127.0.0.1!5641.

A client of a socket is the user of its process, one with a certificate the user
whom its common name names; another of TCP is none. Root and who runs the server
may attach as anybody. A --user rule goes before: "WHO USER...", where WHO is
unix, uid=NUMBER, an address, a prefix or name=NAME in the certificate, and a USER
of * is any.`

// service is the port of a TCP address that has none.
const service = "5641"

// archiveAway is how long a read waits for a Venti server that cannot be
// reached, as when it is started anew.
const archiveAway = 2 * time.Second

type server struct {
	host, files string
	fossil      string
	addrs, nbd  []string
	images      int
	memory      string
	open        bool
	users       []string
}

func serveCommand() *command.Command {
	var c server
	return &command.Command{
		Name: "vdisk serve", Usage: "[-h address] [-a address]... [--nbd address]... [--files folder] [--fossil address]", Doc: serveDoc,
		Flags: func(fs *pflag.FlagSet) {
			hostFlag(fs, &c.host)
			fs.StringArrayVarP(&c.addrs, "addr", "a", nil, "`address` to announce; may be given again")
			fs.StringArrayVar(&c.nbd, "nbd", nil, "`address` to announce for NBD, such as tcp!127.0.0.1!10809 or nbd.sock; may be given again")
			fs.StringVar(&c.files, "files", "", "`folder` to serve as /files")
			fs.StringVar(&c.fossil, "fossil", "", "`address` of the Fossil, over the same Venti server, in which images live")
			fs.StringVarP(&c.memory, "memory", "M", "64m", "`bytes` of blocks of stored disks that are kept in memory (those of live ones Fossil keeps); may end in k, m, g")
			fs.IntVar(&c.images, "images", 0, "how many disks are kept open; 0 means 32")
			fs.BoolVar(&c.open, "open", false, "allow addresses that other machines can reach and that ask for no certificate")
			fs.StringArrayVar(&c.users, "user", nil, "`rule` of who a client is, such as \"10.0.0.0/8 glenda\"; may be given again")
		},
		Run: c.run,
	}
}

func (c *server) run(ctx context.Context, io command.IO) error {
	if len(io.Args) != 0 {
		return command.ErrUsage
	}
	if len(c.addrs) == 0 {
		c.addrs = []string{"unix!vdisk.sock", "tcp!127.0.0.1!" + service}
	}
	memory, err := disk.ParseSize(c.memory)
	if err != nil || memory < blockcache.Least {
		return command.Usagef("-M %s: not a number of bytes of at least %d", c.memory, blockcache.Least)
	}
	rules, err := ninep.ParseUserRules(c.users)
	if err != nil {
		return command.Usagef("%v", err)
	}
	users := ninep.HostUsers()
	identity := &ninep.Identity{Users: users, Rules: rules}
	log := slog.New(slog.NewTextHandler(io.Stderr, nil))
	archive, err := venti.DialRemote(ctx, c.host, venti.RemoteConfig{Patience: archiveAway})
	if err != nil {
		return err
	}
	defer archive.Close()
	tree, err := vdisk.NewTree(blockcache.New(archive, memory), vdisk.TreeConfig{Files: c.files, Images: c.images})
	if err != nil {
		return err
	}
	defer tree.Close()
	disks, err := openLive(ctx, c.fossil, archive, tree, log)
	if err != nil {
		return err
	}
	defer disks.close()

	var lns, blocks []net.Listener
	defer func() {
		for _, ln := range slices.Concat(lns, blocks) {
			ln.Close()
		}
	}()
	announce := func(lns *[]net.Listener, addrs []string, service string) error {
		for _, addr := range addrs {
			ln, err := netaddr.Config{Open: c.open, Logger: log, Upgrade: service == nbd.Service}.Listen(ctx, addr, service)
			if err != nil {
				return err
			}
			*lns = append(*lns, ln)
			fmt.Fprintln(io.Stdout, netaddr.Announced(ln.Addr()))
		}
		return nil
	}
	if err := announce(&lns, c.addrs, service); err != nil {
		return err
	}
	if err := announce(&blocks, c.nbd, nbd.Service); err != nil {
		return err
	}
	for i, ln := range blocks {
		tree.AnnounceNBD(c.nbd[i], ln.Addr(), disks.writes(c.nbd[i]))
	}
	srv := ninep.NewServer(tree, ninep.Config{Users: users, User: identity.User, Log: log})
	group, ctx := errgroup.WithContext(ctx)
	for _, ln := range lns {
		group.Go(func() error { return srv.Serve(ctx, ln) })
	}
	for i, ln := range blocks {
		drives := nbd.NewServer(disks.exports(tree, c.nbd[i]), nbd.Config{Logger: log})
		group.Go(func() error { return drives.Serve(ctx, ln) })
	}
	return group.Wait()
}
