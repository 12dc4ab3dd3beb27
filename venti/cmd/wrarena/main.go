// Wrarena writes the clumps of an arena to a server, see venti-backup(8).
package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

// options are the flags.
type options struct {
	host, offset string
	verbose      bool
	parallel     int
}

func newCommand() *command.Command {
	var o options
	return &command.Command{
		Name: "venti/wrarena", Usage: "[-v] [-h host] [-M max] [-o fileoffset] file [clumpoffset]",
		Doc: `Writes the clumps of an arena to a server, and syncs it. The file is what
venti/rdarena wrote (- is standard input), a partition, of which it writes all
arenas, or with -o anything in which an arena starts at that offset. It begins
with the clump at clumpoffset of the log. Each clump is checked against its
score; those that are damaged are named and left out, and the status is 1. A
server may be using the file.

With -o it prints where the last clump ended: the next clumpoffset.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&o.host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
			fs.StringVarP(&o.offset, "offset", "o", "", "where in the file the arena starts")
			fs.BoolVarP(&o.verbose, "verbose", "v", false, "describe the arenas")
			fs.IntVarP(&o.parallel, "max", "M", 64, "how many `writes` are on their way at once")
			fs.BoolP("fast", "f", false, "does nothing: a clump is checked while others are on their way")
			fs.MarkHidden("fast")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

func run(ctx context.Context, io command.IO, o options) error {
	if len(io.Args) != 1 && len(io.Args) != 2 {
		return command.ErrUsage
	}
	if o.parallel < 1 {
		return command.Usagef("bad number of writes %d", o.parallel)
	}
	var from int64
	var err error
	if len(io.Args) == 2 {
		if from, err = strconv.ParseInt(io.Args[1], 0, 64); err != nil || from < 0 {
			return command.Usagef("bad clump offset %q", io.Args[1])
		}
	}
	as, err := open(io, o)
	if err != nil {
		return err
	}
	defer as.File.Close()
	if from > 0 && len(as.List) > 1 {
		return command.Usagef("a clump offset is of one arena, and %s has %d", io.Args[0], len(as.List))
	}
	c, err := venti.Dial(ctx, o.host)
	if err != nil {
		return err
	}
	defer c.Close()
	w := &writer{io: io, o: o, client: c}
	for _, err := range as.Bad {
		fmt.Fprintln(io.Stderr, err)
		w.faults.Add(1)
	}
	var end int64
	for _, a := range as.List {
		if end, err = w.arena(ctx, a, from); err != nil {
			return err
		}
	}
	if err := c.Sync(ctx); err != nil {
		return err
	}
	if o.offset != "" {
		fmt.Fprintf(io.Stdout, "end offset 0x%x\n", end)
	}
	if n := w.faults.Load(); n > 0 {
		return fmt.Errorf("%s: %d damaged clumps or arenas were not written", io.Args[0], n)
	}
	return nil
}

// open opens the arenas that are to be written.
func open(io command.IO, o options) (*ventitool.Arenas, error) {
	name := io.Args[0]
	switch {
	case o.offset != "":
		at, err := disk.ParseSize(o.offset)
		if err != nil {
			return nil, command.Usagef("%v", err)
		}
		f, err := disk.Open(name, ventitool.Live)
		if err != nil {
			return nil, err
		}
		a, err := arena.OpenAt(f, at)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return &ventitool.Arenas{File: f, List: []*arena.Arena{a}}, nil
	case name == "-":
		as, err := ventitool.Spool(io.Stdin)
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		return as, nil
	}
	return ventitool.Open(name, ventitool.Live, nil)
}

// A writer writes arenas to a server.
type writer struct {
	io     command.IO
	o      options
	client *venti.Client
	faults atomic.Int64
}

// arena writes the clumps of an arena from an offset of its log on, and
// returns where the last one ends.
func (w *writer) arena(ctx context.Context, a *arena.Arena, from int64) (int64, error) {
	t, err := a.ReadTrailer()
	if err != nil {
		return 0, err
	}
	if t.Mem.Clumps == 0 {
		return 0, nil
	}
	if w.o.verbose {
		fmt.Fprintf(w.io.Stderr, "wrarena: copying %s to venti\n", a.Name)
		ventitool.WriteArena(w.io.Stderr, a, &t)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(w.o.parallel)
	met := from == 0 || from == t.Mem.Used
	for c, err := range a.Infos(ctx, int(t.Mem.Clumps)) {
		if err != nil {
			return 0, errors.Join(group.Wait(), err)
		}
		if c.Off < from {
			continue
		}
		met = met || c.Off == from
		if !met {
			break
		}
		if c.Info.Type.Valid() {
			group.Go(func() error { return w.clump(ctx, a, &c) })
		}
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	if !met {
		return 0, fmt.Errorf("arena %s: no clump starts at %d", a.Name, from)
	}
	return t.Mem.Used, nil
}

// clump writes one clump. Of the errors of a read, a damaged clump is none.
func (w *writer) clump(ctx context.Context, a *arena.Arena, c *arena.Placed) error {
	h, data, err := a.ReadClump(c.Off, make([]byte, c.Info.LogSize()))
	var lump []byte
	if err == nil {
		lump, err = h.Decode(make([]byte, h.UncSize), data)
	}
	if err == nil && h.ClumpInfo != c.Info {
		err = fmt.Errorf("it is %v, and its directory entry %v: %w", h.ClumpInfo, c.Info, venti.ErrCorrupt)
	}
	if errors.Is(err, venti.ErrCorrupt) || errors.Is(err, arena.ErrEncoding) {
		fmt.Fprintf(w.io.Stderr, "arena %s: clump %d at %d: %v\n", a.Name, c.Clump, c.Off, err)
		w.faults.Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	return w.client.WriteScored(ctx, h.Score, h.Type.Type(), lump)
}
