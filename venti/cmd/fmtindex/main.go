// Fmtindex makes an index of formatted arenas and sections, see venti-fmt(8).
package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/config"
	"strata/venti/internal/index"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var add bool
	return &command.Command{
		Name: "venti/fmtindex", Usage: "[-a] venti.conf",
		Doc: `Makes one index of the arenas and sections that venti.conf names. With -a the
index is there already, and gets arenas that were put after its own.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&add, "append", "a", false, "append arenas to the index")
		},
		Run: func(_ context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			c, err := config.Load(io.Args[0])
			if err != nil {
				return err
			}
			for _, w := range c.Warnings {
				fmt.Fprintf(io.Stderr, "warning: %s\n", w)
			}
			c.Bloom = "" // it need not be formatted yet
			p, err := index.OpenParts(c, disk.Options{})
			if err != nil {
				return err
			}
			defer p.Close()
			make := index.Format
			if add {
				make = index.Append
			}
			ix, err := make(c.Index, p.Sections, index.MapArenas(p.Arenas))
			if err != nil {
				return err
			}
			var storage uint64
			for _, a := range ix.Arenas {
				storage += a.Stop - a.Start
			}
			if !add {
				warn(io, p)
			}
			fmt.Fprintf(io.Stderr, "fmtindex: %s arenas, %s index buckets, %s bytes storage\n",
				command.Commas(int64(len(ix.Arenas))), command.Commas(int64(ix.Buckets)), command.Commas(int64(storage)))
			return nil
		},
	}
}

// warn tells that what is in the arenas already is not in the index.
func warn(io command.IO, p *index.Parts) {
	clumps := int64(0)
	for _, a := range p.Arenas {
		if t, err := a.ReadTrailer(); err == nil {
			clumps += int64(t.Mem.Clumps)
		}
	}
	if clumps > 0 {
		fmt.Fprintf(io.Stderr, "warning: the arenas have %s clumps, which the index lacks: run venti/buildindex\n", command.Commas(clumps))
	}
}
