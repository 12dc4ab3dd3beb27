// Clumpstats counts the clumps of an index by size and type, see
// venti-fmt(8).
package main

import (
	"bufio"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	return &command.Command{
		Name: "venti/clumpstats", Usage: "config",
		Doc: `Counts the clumps in the arenas of an index. It prints how many there are, and
then for each size that some have a line of the size, how many have it, and how
many of those are of type 0, 1 and so on to 16. A server may run meanwhile.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringP("block-memory", "B", "", "does nothing")
			fs.MarkHidden("block-memory")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			_, p, err := ventitool.OpenIndex(io.Args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			counts := make(map[uint16]*[venti.RootType + 1]int64)
			clumps := int64(0)
			for _, a := range p.Arenas {
				t, err := a.ReadTrailer()
				if err != nil {
					return err
				}
				for c, err := range a.Infos(ctx, int(t.Mem.Clumps)) {
					if err != nil {
						return err
					}
					clumps++
					if !c.Info.Type.Valid() {
						fmt.Fprintf(io.Stderr, "bad clump: %s: %d: type = %d: size = %d\n", a.Name, c.Clump, c.Info.Type, c.Info.UncSize)
						continue
					}
					of := counts[c.Info.UncSize]
					if of == nil {
						of = new([venti.RootType + 1]int64)
						counts[c.Info.UncSize] = of
					}
					of[c.Info.Type.Type()]++
				}
			}
			return print(io, clumps, counts)
		},
	}
}

func print(io command.IO, clumps int64, counts map[uint16]*[venti.RootType + 1]int64) error {
	w := bufio.NewWriter(io.Stdout)
	fmt.Fprintf(w, "clumps = %d\n", clumps)
	var sizes []uint16
	for size := range counts {
		sizes = append(sizes, size)
	}
	slices.Sort(sizes)
	for _, size := range sizes {
		total := int64(0)
		for _, n := range counts[size] {
			total += n
		}
		fmt.Fprintf(w, "%d\t%d", size, total)
		for _, n := range counts[size] {
			fmt.Fprintf(w, "\t%d", n)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
