// Checkarenas checks the arenas of a partition, see venti-fmt(8).
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/arena"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

// options are the flags.
type options struct {
	all, fix bool
	verbose  int
}

func newCommand() *command.Command {
	var o options
	return &command.Command{
		Name: "venti/checkarenas", Usage: "[-afv] file [arenaname...]",
		Doc: `Checks all arenas in file, or those named: the header, the sums of the
directory, the trailer, and what follows the end of the log; with -a every
clump and the seal too. It goes past a damaged clump to the next, prints a
line for each fault, and exits 1 if one is left. The server must not run.

-f throws nothing away. It puts back what the clumps themselves or the seal
prove, counts the clumps that the trailer does not, and marks those whose data
is lost.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&o.all, "all", "a", false, "read all clumps, not only the end of each arena")
			fs.BoolVarP(&o.fix, "fix", "f", false, "repair what can be repaired without loss")
			fs.CountVarP(&o.verbose, "verbose", "v", "describe the arenas; twice, the partition too")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

func run(ctx context.Context, io command.IO, o options) error {
	if len(io.Args) == 0 {
		return command.ErrUsage
	}
	file, names := io.Args[0], io.Args[1:]
	f, err := disk.Open(file, disk.Options{ReadOnly: !o.fix})
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := arena.OpenPartition(f)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, name := range names {
		if !slices.ContainsFunc(p.Arenas, func(e arena.Extent) bool { return e.Name == name }) {
			return fmt.Errorf("%s: no arena %s", file, name)
		}
	}
	if o.verbose > 1 {
		ventitool.WritePartition(io.Stdout, file, p)
		fmt.Fprintln(io.Stdout)
	}
	left := 0 // faults
	for i, e := range p.Arenas {
		if len(names) > 0 && !slices.Contains(names, e.Name) {
			continue
		}
		n, err := check(ctx, io, o, p, i)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		left += n
	}
	if left > 0 {
		return fmt.Errorf("%s: %d faults", file, left)
	}
	return nil
}

// check checks arena i and returns the number of faults that it has and
// keeps.
func check(ctx context.Context, io command.IO, o options, p *arena.Partition, i int) (faults int, err error) {
	a, err := p.OpenArena(i)
	if errors.Is(err, arena.ErrFormat) {
		// There is nothing to check it against.
		fmt.Fprintln(io.Stderr, err)
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	if o.verbose > 0 {
		t, err := a.ReadTrailer()
		if err != nil {
			return 0, err
		}
		if t.Mem.Clumps > 0 {
			ventitool.WriteArena(io.Stdout, a, &t)
			fmt.Fprintln(io.Stdout)
		}
	}
	err = a.Check(ctx, arena.CheckOptions{Data: o.all, Repair: o.fix}, func(f *arena.Finding) {
		if f.Fault && !f.Repaired {
			faults++
		}
		if f.Fault || o.verbose > 0 {
			fmt.Fprintln(io.Stderr, f)
		}
	})
	return faults, err
}
