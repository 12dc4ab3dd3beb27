// Findscore looks for a score in the arenas of a partition, see venti-fmt(8).
package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var verbose bool
	return &command.Command{
		Name: "venti/findscore", Usage: "[-v] arenafile score",
		Doc: `Looks for a score in the clump directories of a partition's arenas, and prints
where each clump with it is, on standard error, and how many there are. A server may run meanwhile.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&verbose, "verbose", "v", false, "say on standard error which arena is being read")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 2 {
				return command.ErrUsage
			}
			_, score, err := venti.ParseTypedScore(io.Args[1])
			if err != nil {
				return command.Usagef("%v", err)
			}
			as, err := ventitool.Open(io.Args[0], ventitool.Live, nil)
			if err != nil {
				return err
			}
			defer as.File.Close()
			found := 0
			for _, a := range as.List {
				t, err := a.ReadTrailer()
				if err != nil {
					return err
				}
				if verbose && t.Mem.Clumps > 0 {
					fmt.Fprintf(io.Stderr, "reading directory for arena=%s with %d entries\n", a.Name, t.Mem.Clumps)
				}
				for c, err := range a.Infos(ctx, int(t.Mem.Clumps)) {
					if err != nil {
						return err
					}
					if c.Info.Score == score {
						found++
						print(io, &c)
					}
				}
			}
			fmt.Fprintf(io.Stdout, "found %d occurrences of %v\n", found, score)
			if len(as.Bad) > 0 {
				return fmt.Errorf("not all arenas could be read: %w", as.Bad[0])
			}
			return nil
		},
	}
}

func print(io command.IO, c *arena.Placed) {
	fmt.Fprintf(io.Stderr, "found at clump=%d with type=%d size=%d csize=%d position=%d\n",
		c.Clump, c.Info.Type.Type(), c.Info.UncSize, c.Info.Size, c.Off)
}
