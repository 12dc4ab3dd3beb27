// Vacfs serves vac archives over 9P, see vacfs(4).
package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/vac/vacfs"
	"strata/venti"
)

const doc = `Serve the archives that vac has made over 9P (9P2000, 9P2000.u and 9P2000.L),
read-only. ARCHIVE is vac: and 40 hex digits, or a file that begins with that;
a name and = may stand before it. The tree is that of the archive or, of
several, a folder of them by their names: those of the files, without .vac. An
archive made with vac -a has a folder for each day, /2026/1122. Files are read
again at each attach, so that it shows the last day that there is.

A client may attach to a folder by its path, home/2026/1122, and to any archive
of the server, named here or not, by its score: vac:<40 hex>.

Addresses are tcp!host!port, host:port, unix!/path or /path. Without -a, -i
and -m it posts the socket vacfs.NAME, of the first archive's name, in
$NAMESPACE or, if that is not set, in the current folder. Each address is
printed when it is announced, and the folder of -m when it is mounted.

Users are believed to be who they say. What a file permits all, its owner, and
the user with the name of its group may do; -p permits all to everybody.`

func main() { serve().Main() }

// port is that of a TCP address that has none.
const port = "5642"

// archiveAway is how long a read waits for a Venti server that cannot be
// reached, as when it is started anew.
const archiveAway = 2 * time.Second

type server struct {
	host, mountpoint, service, memory string
	addrs                             []string
	stdio, everybody, post, open      bool
}

func serve() *command.Command {
	var c server
	return &command.Command{
		Name: "vacfs", Usage: "[-ips] [-a address]... [-h address] [-M memory] [-m folder] [-S name] [[name=]ARCHIVE]...", Doc: doc,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringArrayVarP(&c.addrs, "addr", "a", nil, "`address` to announce; may be given again")
			fs.StringVarP(&c.host, "host", "h", "", "`address` of the Venti server, instead of $venti")
			fs.BoolVarP(&c.stdio, "stdio", "i", false, "serve the standard input and output, and end with them")
			fs.StringVarP(&c.memory, "memory", "M", "64m", "`bytes` of blocks that are kept in memory; may end in k, m, g")
			fs.StringVarP(&c.mountpoint, "mount", "m", "", "`folder` to mount the tree on, with FUSE")
			fs.BoolVarP(&c.everybody, "no-permissions", "p", false, "do not check permissions")
			fs.BoolVarP(&c.post, "post", "s", false, "post the socket vacfs")
			fs.StringVarP(&c.service, "service", "S", "", "post the socket with that `name`")
			fs.BoolVar(&c.open, "open", false, "allow addresses that other machines can reach, without authentication")
		},
		Run: c.run,
	}
}

func (c *server) run(ctx context.Context, io command.IO) error {
	memory, err := disk.ParseSize(c.memory)
	if err != nil {
		return command.Usagef("-M %s: %v", c.memory, err)
	}
	var archives []vacfs.Archive
	for _, arg := range io.Args {
		archives = append(archives, archive(arg))
	}
	addrs, err := c.addresses(archives)
	if err != nil {
		return err
	}
	blocks, err := venti.DialRemote(ctx, c.host, venti.RemoteConfig{Patience: archiveAway})
	if err != nil {
		return err
	}
	defer blocks.Close()
	fs, err := vacfs.New(blocks, archives, vacfs.Config{Memory: memory, NoPermissions: c.everybody})
	if err != nil {
		return err
	}
	defer fs.Close()
	// What is wrong with an archive should be said now, not to the first client.
	for _, a := range archives {
		if err := fs.Check(ctx, a); err != nil {
			return err
		}
	}
	log := slog.New(slog.NewTextHandler(io.Stderr, nil))
	srv := ninep.NewServer(fs, ninep.Config{Users: ninep.HostUsers(), Log: log})

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	defer group.Wait()
	for _, addr := range addrs {
		ln, err := netaddr.Config{Open: c.open, Logger: log}.Listen(ctx, addr, port)
		if err != nil {
			cancel()
			return err
		}
		fmt.Fprintln(io.Stdout, addr)
		group.Go(func() error { return srv.Serve(ctx, ln) })
	}
	if c.mountpoint != "" {
		group.Go(func() error {
			defer cancel() // when it has been unmounted
			return mount(ctx, srv, c.mountpoint, io.Stdout)
		})
	}
	if c.stdio {
		group.Go(func() error {
			defer cancel()
			return srv.ServeConn(ctx, standard(io))
		})
	}
	return group.Wait()
}
