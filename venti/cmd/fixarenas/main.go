// Fixarenas repairs the structures of an arena partition, see venti-fmt(8).
package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/arena"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

// options are the flags.
type options struct {
	fix                  arena.FixOptions
	verbose              bool
	arenaSize, blockSize string
}

func newCommand() *command.Command {
	var o options
	return &command.Command{
		Name: "venti/fixarenas", Usage: "[-fUv] [-a arenasize] [-b blocksize] [-n name] file [ranges]",
		Doc: `Looks for damage to what is around the clumps of an arena partition: its
header and table, and the header and trailer of each arena, or of those in
ranges such as 3-7,9,12-. It prints a line for each fault and exits 1 if one is
left. With -f it makes them right from each other and from the clumps
themselves, which are not touched; see venti/checkarenas for those. A trailer
made from the log counts no clump as indexed: the server indexes them when it
starts. The server must not run.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&o.fix.Write, "fix", "f", false, "repair; otherwise nothing is written")
			fs.BoolVarP(&o.fix.Unseal, "unseal", "U", false, "take the seals away: a server sums the arenas again")
			fs.BoolVarP(&o.verbose, "verbose", "v", false, "say where the arenas are")
			fs.StringVarP(&o.arenaSize, "arenasize", "a", "512m", "`size` of an arena, where nothing tells")
			fs.StringVarP(&o.blockSize, "blocksize", "b", "", "`size` of a block, where nothing tells")
			fs.StringVarP(&o.fix.Name, "name", "n", "", "`name` of arenas without their number, where nothing tells")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

func run(ctx context.Context, io command.IO, o options) error {
	if len(io.Args) != 1 && len(io.Args) != 2 {
		return command.ErrUsage
	}
	var err error
	if o.fix.ArenaSize, err = disk.ParseSize(o.arenaSize); err != nil {
		return command.Usagef("%v", err)
	}
	if o.blockSize != "" {
		n, err := disk.ParseSize(o.blockSize)
		if err != nil || n > 1<<20 {
			return command.Usagef("bad block size %q", o.blockSize)
		}
		o.fix.BlockSize = int(n)
	}
	if len(io.Args) == 2 {
		if o.fix.Only, err = ventitool.ParseRanges(io.Args[1]); err != nil {
			return command.Usagef("%v", err)
		}
	}
	f, err := disk.Open(io.Args[0], disk.Options{ReadOnly: !o.fix.Write})
	if err != nil {
		return err
	}
	defer f.Close()
	left := 0
	err = arena.Fix(ctx, f, o.fix, func(f *arena.Finding) {
		if f.Fault && !f.Repaired {
			left++
		}
		if f.Fault || f.Repaired || o.verbose {
			fmt.Fprintln(io.Stderr, f)
		}
	})
	if err != nil {
		return fmt.Errorf("%s: %w", io.Args[0], err)
	}
	if o.verbose {
		if p, err := arena.OpenPartition(f); err == nil {
			ventitool.WritePartition(io.Stdout, io.Args[0], p)
		}
	}
	if left > 0 {
		return fmt.Errorf("%s: %d faults", io.Args[0], left)
	}
	return nil
}
