// Venti is the block server, see venti(8). It keeps blocks in arenas and
// serves them to any client of the Venti protocol.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/internal/logs"
	"strata/venti"
	"strata/venti/internal/config"
	"strata/venti/store"
)

func main() { newCommand().Main() }

// options are the flags.
type options struct {
	addr, config    string
	lumps, index    string
	readOnly, debug bool
	open            bool
	access, limits  []string
	log             logs.Flags
	http            httpFlags
	care            careFlags
}

func newCommand() *command.Command {
	var o options
	return &command.Command{
		Name: "venti", Usage: "[-drs] [-a address] [-c config] [-C lumpmem] [-h httpaddress] [-I indexmem] [-W webroot]",
		Doc: `Serves the blocks of the arenas, index sections and Bloom filter that a
configuration names, venti.conf or one embedded in a partition; see venti.conf(6).
Flags go before what it says. It stays in the foreground, and flushes
everything when it gets SIGTERM or SIGINT. What a crash left unfinished it
puts right when it starts.

An address is tcp!host!port, host:port, unix!/path or /path, and
  unix!/path!mode=0660!group=NAME    for others than the owner too
  tls!host!port!cert=FILE!key=FILE!ca=FILE    TLS; clients need a certificate of that ca
and for clients tls!host!port!ca=FILE!cert=FILE!key=FILE. A file in PEM may hold a
certificate and its key, and is read again when it is replaced. An address that other
machines reach is refused unless it has a ca, or --open says that anybody who can
connect may use it.

Lines of the configuration and flags say who may do what; of rules the first that is
about a client counts, and where there are rules and none is about it, it is denied:
  access allow|readonly|deny who...   all, unix, 10.1.0.0/16, 10.1.2.3, name=NAME
                                      in the certificate, or several that are all true
  limit connections|client-connections|queue|requests|bytes number
                                      in all; of one machine; bytes of requests in
                                      memory; requests and bytes a second of one client
Plan 9's server does not know these lines. With -h it serves pages about the store over
HTTP: a status page at /, those of Plan 9's server, and /metrics. Sizes may end in k, m or g.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&o.addr, "address", "a", "", "listen at `address` (default: the configuration's, then "+venti.DefaultAddr+")")
			fs.StringVarP(&o.config, "config", "c", "venti.conf", "the configuration, a `file` or a partition")
			fs.StringVarP(&o.lumps, "lump-memory", "C", "", "`size` of the cache of blocks (default: mem of the configuration, then a sixteenth of the machine's, 1g at most)")
			fs.StringVarP(&o.index, "index-memory", "I", "", "`size` of the cache of index entries (default: icmem of the configuration, then as above)")
			fs.BoolVarP(&o.readOnly, "read-only", "r", false, "refuse writes, and write nothing to the partitions")
			fs.BoolVarP(&o.debug, "debug", "d", false, "log connections too")
			fs.BoolVar(&o.open, "open", false, "allow an address that other machines reach and that asks for no certificate")
			fs.StringArrayVar(&o.access, "access", nil, "access `rule`, in place of the configuration's: \"readonly 10.0.0.0/8\"; may be given again")
			fs.StringArrayVar(&o.limits, "limit", nil, "`limit` that goes before the configuration's: \"requests 1000\"; may be given again")
			o.care.register(fs)
			o.http.register(fs)
			o.log.Register(fs)
			fs.BoolP("foreground", "s", false, "stay in the foreground, which it always does")
			// Plan 9's flags for what there is no need of here.
			fs.StringP("block-memory", "B", "", "does nothing: the system caches what is read from partitions")
			fs.BoolP("log", "L", false, "does nothing: the last messages are always kept, for /log")
			fs.MarkHidden("block-memory")
			fs.MarkHidden("log")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

func run(ctx context.Context, io command.IO, o options) (err error) {
	if len(io.Args) != 0 {
		return command.ErrUsage
	}
	cfg := store.Config{ReadOnly: o.readOnly, Memory: command.Memory()}
	for _, m := range []struct {
		text string
		size *int64
	}{{o.lumps, &cfg.LumpMem}, {o.index, &cfg.IndexMem}} {
		if m.text == "" {
			continue
		}
		if *m.size, err = disk.ParseSize(m.text); err != nil {
			return command.Usagef("%v", err)
		}
	}
	if err := o.care.set(&cfg); err != nil {
		return command.Usagef("%v", err)
	}
	conf, err := config.Load(o.config)
	if err != nil {
		return err
	}
	if o.debug {
		o.log.Level = min(o.log.Level, slog.LevelDebug)
	}
	o.log.Syslog = conf.Syslog
	log, recent, err := o.log.Open(io.Stderr, "venti")
	if err != nil {
		return command.Usagef("%v", err)
	}
	defer recent.Close()
	cfg.Logger = log
	serve, err := store.ServerConf(o.config, o.access, o.limits)
	if err != nil {
		return command.Usagef("%v", err)
	}
	serve.ReadOnly, serve.Logger = o.readOnly, log
	s, err := store.OpenConf(ctx, o.config, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	srv := venti.NewServer(s, serve)
	// Whoever finds the server finds its pages too.
	pages, err := o.http.listen(ctx, conf, s, srv, log, recent)
	if err != nil {
		return err
	}
	defer pages.close()
	addr := cmp.Or(o.addr, conf.Addr, venti.DefaultAddr)
	ln, err := venti.ListenConfig{Open: o.open, Logger: log}.Listen(ctx, addr)
	if err != nil {
		return conf.Blame(addr, err)
	}
	st := s.Stats()
	fmt.Fprintf(io.Stderr, "venti: index %s, %s clumps in %d arenas, %s bytes of %s used; serving %s\n", conf.Index,
		command.Commas(st.Clumps), st.Arenas, command.Commas(st.ClumpBytes), command.Commas(st.Space), addr)
	return pages.serve(ctx, srv, ln)
}
