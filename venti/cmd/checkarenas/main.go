// Checkarenas checks the arenas of a partition, see venti-fmt(8).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/arena"
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
		printPartition(io.Stdout, file, p)
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
			printArena(io.Stdout, a, &t)
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

// printPartition describes a partition as plan9port's programs do.
func printPartition(w io.Writer, file string, p *arena.Partition) {
	fmt.Fprintf(w, "arena partition=%s\n\tversion=%d blocksize=%d arenas=%d\n\tsetbase=%d setsize=%d\n",
		file, arena.PartVersion, p.BlockSize, len(p.Arenas), p.ArenaBase-p.TableSize(), p.TableSize())
	for _, e := range p.Arenas {
		fmt.Fprintf(w, "\tarena=%s at [%d,%d)\n", e.Name, e.Start, e.Stop)
	}
	fmt.Fprintln(w)
}

// printArena describes an arena as plan9port's programs do: the range starts
// at the log, and is as long as the arena.
func printArena(w io.Writer, a *arena.Arena, t *arena.Trailer) {
	block := int64(a.BlockSize)
	fmt.Fprintf(w, "arena='%s' [%d,%d)\n\tversion=%d created=%d modified=%d",
		a.Name, a.Base(), a.Stop+block, a.Version, t.CTime, t.WTime)
	if t.Mem.Sealed {
		fmt.Fprint(w, " sealed")
	}
	if !t.Seal.IsZero() {
		fmt.Fprintf(w, "\n\tscore=%v", t.Seal)
	}
	clumps := int64(t.Mem.Clumps)
	fmt.Fprintf(w, "\n\tclumps=%s compressed clumps=%s data=%s compressed data=%s disk storage=%s\n\n",
		command.Commas(clumps), command.Commas(int64(t.Mem.CClumps)), command.Commas(t.Mem.UncSize),
		command.Commas(t.Mem.Used-clumps*arena.ClumpHeaderSize), command.Commas(t.Mem.Used+clumps*arena.ClumpInfoSize))
}
