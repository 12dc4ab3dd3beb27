// Fossil serves file systems, see fossil(4).
package main

import (
	"context"
	"errors"
	"fmt"
	stdio "io"

	"github.com/spf13/pflag"

	"strata/fossil/console"
	"strata/internal/command"
	"strata/internal/logs"
	"strata/internal/ninep"
)

func main() { newCommand().Main() }

const doc = `Serves file systems over 9P (9P2000, .u and .L), and a console that opens, halts and
checks them. What is to be done at the start is in -c and -f, in their order, for
example:

  fossil -c 'fsys main config /dev/sdb' -c 'fsys main open'

-f runs the commands that the partition has before its file system (fossil/conf
puts them there); a word * there is the partition. If one fails the program ends,
unless it has a console on the terminal (-t). Help on the console tells about its
commands. It is also the file ctl beside active, archive and snapshot, for adm and
the group adm: a write is a line of commands, and what is read then is the result.

Unless -a, or a srv or listen command, says otherwise, files are served at the socket
fossil.sock in the current folder, its owner's alone, and at tcp!127.0.0.1!5640, and
the console at fscons.sock. Each address is printed when it is announced; vdisk serve
--help tells how they are written, who clients are, and what --user does. Interrupted, or by a
SIGTERM, the program makes everything durable and ends.`

type options struct {
	start   startup
	addrs   []string
	console string
	users   []string
	http    string
	open    bool
	memory  int
	term    bool
	debug   bool
	log     logs.Flags
}

func newCommand() *command.Command {
	o := new(options)
	return &command.Command{
		Name: "fossil", Usage: "[-Dt] [-c command]... [-f file]... [-m percent] [-a address]...",
		Doc: doc,
		Flags: func(fs *pflag.FlagSet) {
			fs.VarP(startFlag{&o.start, false}, "command", "c", "run this console `command`")
			fs.VarP(startFlag{&o.start, true}, "file", "f", "run the commands in this `partition`")
			fs.IntVarP(&o.memory, "memory", "m", 0, "keep blocks in so many `percent` of the machine's memory (default: as open says)")
			fs.BoolVarP(&o.term, "terminal", "t", false, "run commands from standard input, too")
			fs.StringArrayVarP(&o.addrs, "addr", "a", nil, "`address` to serve files at; may be given again")
			fs.StringVar(&o.console, "console", "unix!fscons.sock", "`address` to serve the console at; none for no such")
			fs.StringVar(&o.http, "http", "", "serve /metrics, for Prometheus, and /healthz at `address`")
			fs.BoolVarP(&o.debug, "debug", "D", false, "log every message of 9P")
			fs.BoolVar(&o.open, "open", false, "allow addresses that other machines can reach and that ask for no certificate")
			fs.StringArrayVar(&o.users, "user", nil, "`rule` of who a client is, such as \"10.0.0.0/8 glenda\"; may be given again")
			o.log.Register(fs)
		},
		Run: o.run,
	}
}

func (o *options) run(ctx context.Context, io command.IO) (err error) {
	if len(io.Args) != 0 {
		return command.ErrUsage
	}
	if o.memory < 0 || o.memory > 100 {
		return command.Usagef("bad percentage %d", o.memory)
	}
	rules, err := ninep.ParseUserRules(o.users)
	if err != nil {
		return command.Usagef("%v", err)
	}
	log, recent, err := o.log.Open(io.Stderr, "fossil")
	if err != nil {
		return command.Usagef("%v", err)
	}
	defer recent.Close()
	users := ninep.HostUsers()
	host := console.New(console.Config{
		Memory: command.Memory() / 100 * int64(o.memory), Open: o.open, Log: log,
		Users: users, Identity: &ninep.Identity{Users: users, Rules: rules},
	})
	// The end of ctx is the beginning of an orderly end.
	defer func() { err = errors.Join(err, host.Close(context.WithoutCancel(ctx))) }()
	if o.debug {
		host.ToggleDebug()
	}
	s := host.NewSession()
	if err := o.start.run(ctx, s, io.Stdout); err != nil && !o.term {
		return err
	}
	if err := o.serve(ctx, host, io.Stdout); err != nil {
		return err
	}
	if o.term {
		return terminal(ctx, s, io)
	}
	<-ctx.Done()
	return nil
}

// serve announces the addresses that are asked for, or those that are usual.
func (o *options) serve(ctx context.Context, host *console.Host, out stdio.Writer) error {
	if len(o.addrs) == 0 && len(host.Services(false)) == 0 {
		o.addrs = []string{"unix!fossil.sock", "tcp!127.0.0.1!5640"}
	}
	var list []console.ServiceConfig
	for _, a := range o.addrs {
		list = append(list, console.ServiceConfig{Addr: a})
	}
	if o.console != "none" && len(host.Services(true)) == 0 {
		list = append(list, console.ServiceConfig{Addr: o.console, Console: true})
	}
	if o.http != "" {
		list = append(list, console.ServiceConfig{Addr: o.http, HTTP: true})
	}
	for _, c := range list {
		addr, err := host.Serve(ctx, c)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, addr)
	}
	return nil
}
