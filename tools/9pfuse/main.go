// 9pfuse mounts a 9P server, see 9pfuse(4): Strata's, plan9port's, diod, u9fs
// or any other.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"strata/internal/command"
	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/internal/ninep/ninefuse"
)

func main() { newCommand().Main() }

// flags are those of the command line.
type flags struct {
	aname, attrTime   string
	options           []string
	foreground, debug bool
}

func newCommand() *command.Command {
	var fl flags
	return &command.Command{
		Name: "9pfuse", Usage: "[-Df] [-A attrtimeout] [-a aname] [-o options] address mountpoint",
		Doc: `Mounts a 9P server on a directory, and goes on in the background when that is
done. It asks for 9P2000.L and takes what the server has. fusermount3 -u, or
umount, ends it, and so does SIGTERM, even while files are open. An address is
tcp!host!port, host:port, unix!/path, /path or, with certificates,
tls!host!port!ca=FILE!cert=FILE.

With 9pfuse in /usr/local/bin, mount(8) and fstab(5) work too:

  mount -t fuse.9pfuse /run/strata/vdisk.sock /mnt -o ro
  host:5641  /mnt  fuse.9pfuse  ro,noauto,x-systemd.automount,_netdev  0  0

When the connection breaks it is made again at the next use. Files stay open if
their names still lead to them; what can not be asked twice, such as a rename
that was under way, fails, as everything does while the server is away. Locks
hold among the programs that use this mount.

Options, with commas between them:

  ro                    nothing can be changed
  aname=TREE            which of the server's trees
  uname=USER            as whom (default: you)
  version=VERSION       9p2000.L, 9p2000.u or 9p2000 only
  msize=BYTES           the largest message (default: 1m and a header)
  port=PORT             where the address has none
  cache=none            every read and write goes to the server; also direct_io
  cache=loose           what was seen is kept, whatever others change; also
                        kernel_cache
  attr_timeout=SECONDS  how long attributes are believed (default: 1)
  entry_timeout=SECONDS the same of names
  negative_timeout=SECONDS  the same of names that are not there (default: 0)
  uid=ID gid=ID         whom every file belongs to
  allow_other           other users too; the kernel checks permissions
  nodefault_permissions with allow_other: the server alone checks them
  nodev nosuid noexec noatime sync dirsync   as in mount(8)`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&fl.aname, "aname", "a", "", "which of the server's `tree`s")
			fs.StringVarP(&fl.attrTime, "attr-timeout", "A", "", "believe attributes for so many `seconds`")
			fs.StringArrayVarP(&fl.options, "options", "o", nil, "`options`, see above")
			fs.BoolVarP(&fl.debug, "debug", "D", false, "print every request of the kernel, in the foreground")
			fs.BoolVarP(&fl.foreground, "foreground", "f", false, "stay in the foreground")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 2 {
				return command.ErrUsage
			}
			opts, err := parseOptions(fl.options)
			if err == nil && fl.attrTime != "" {
				err = opts.set("attr_timeout", fl.attrTime)
			}
			if err != nil {
				return command.Usagef("%v", err)
			}
			if fl.aname != "" {
				opts.aname = fl.aname
			}
			opts.mount.Debug = fl.debug
			if fl.foreground || fl.debug {
				return serve(ctx, io.Args[0], io.Args[1], opts, func() {})
			}
			return inBackground(func(ready func()) error {
				return serve(ctx, io.Args[0], io.Args[1], opts, ready)
			})
		},
	}
}

// serve mounts the server at addr on dir, calls ready, and returns when it has
// been unmounted; it unmounts it when ctx ends.
func serve(ctx context.Context, addr, dir string, o *options, ready func()) error {
	client, err := dial(ctx, addr, o)
	if err != nil {
		return err
	}
	defer client.Close()
	uname := o.uname
	if uname == "" {
		if uname = os.Getenv("USER"); uname == "" {
			uname = ninep.NoUser
		}
		if u, err := user.Current(); err == nil {
			uname = u.Username
		}
	}
	root, err := client.Attach(ctx, uname, o.aname)
	if err != nil {
		return fmt.Errorf("%s: %w", addr, err)
	}
	o.mount.Source = addr
	m, err := ninefuse.Mount(dir, client, root, o.mount)
	if err != nil {
		return err
	}
	ready()
	ended := make(chan struct{})
	go func() { m.Wait(); close(ended) }() // ends with the mount, or the program
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	if err := m.Unmount(); err != nil {
		// What somebody has open fails when the program ends.
		return m.Detach()
	}
	<-ended
	return nil
}

const (
	dialTime   = 5 * time.Second  // for one attempt to connect
	silentTime = 30 * time.Second // for which a host may not answer, before its connection is lost
)

// hangUp has the kernel end a connection when the host at its other end does
// not answer any more.
func hangUp(conn net.Conn) error {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	err := tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: silentTime / 2, Interval: silentTime / 6, Count: 3})
	raw, rerr := tcp.SyscallConn()
	if err != nil || rerr != nil {
		return errors.Join(err, rerr)
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silentTime.Milliseconds()))
	})
	return errors.Join(err, cerr)
}

// dial connects in the first of the dialects that the server takes.
func dial(ctx context.Context, addr string, o *options) (*ninep.Client, error) {
	service := o.port
	if service == "" {
		service = "9fs"
	}
	dialects := []ninep.Dialect{ninep.Linux, ninep.Unix, ninep.Classic}
	if o.dialect != nil {
		dialects = []ninep.Dialect{*o.dialect}
	}
	connect := func(ctx context.Context) (io.ReadWriteCloser, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTime)
		defer cancel()
		conn, err := netaddr.Dial(ctx, addr, service)
		if err != nil {
			return nil, err
		}
		return conn, hangUp(conn)
	}
	var err error
	for _, d := range dialects {
		conn, derr := connect(ctx)
		if derr != nil {
			return nil, derr
		}
		var c *ninep.Client
		c, err = ninep.NewClient(ctx, conn, ninep.ClientConfig{Dialect: d, Msize: o.msize, Users: ninep.HostUsers(), Redial: connect})
		if err == nil && !slices.Contains(dialects, c.Dialect()) {
			c.Close()
			err = fmt.Errorf("server speaks %v", c.Dialect())
		}
		if err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", addr, err)
}
