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

An address that other machines reach is refused without --open, for anybody
who can connect can read and write. With -h it serves pages about the store over
HTTP: a status page at /, those of Plan 9's server, and /metrics. Sizes may end in k, m or g.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&o.addr, "address", "a", "", "listen at `address` (default: the configuration's, then "+venti.DefaultAddr+")")
			fs.StringVarP(&o.config, "config", "c", "venti.conf", "the configuration, a `file` or a partition")
			fs.StringVarP(&o.lumps, "lump-memory", "C", "", "`size` of the cache of blocks (default: mem of the configuration, then a sixteenth of the machine's, 1g at most)")
			fs.StringVarP(&o.index, "index-memory", "I", "", "`size` of the cache of index entries (default: icmem of the configuration, then as above)")
			fs.BoolVarP(&o.readOnly, "read-only", "r", false, "refuse writes, and write nothing to the partitions")
			fs.BoolVarP(&o.debug, "debug", "d", false, "log connections too")
			fs.BoolVar(&o.open, "open", false, "allow an address that other machines reach, with no authentication")
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
	s, err := store.OpenConf(ctx, o.config, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	srv := venti.NewServer(s, venti.ServerConfig{ReadOnly: o.readOnly, Logger: log})
	// Whoever finds the server finds its pages too.
	pages, err := o.http.listen(ctx, conf, s, srv, log, recent)
	if err != nil {
		return err
	}
	defer pages.close()
	addr := cmp.Or(o.addr, conf.Addr, venti.DefaultAddr)
	ln, err := venti.ListenConfig{Open: o.open}.Listen(ctx, addr)
	if err != nil {
		return conf.Blame(addr, err)
	}
	st := s.Stats()
	fmt.Fprintf(io.Stderr, "venti: index %s, %s clumps in %d arenas, %s bytes of %s used; serving %s\n", conf.Index,
		command.Commas(st.Clumps), st.Arenas, command.Commas(st.ClumpBytes), command.Commas(st.Space), addr)
	return pages.serve(ctx, srv, ln)
}
