// Printmap prints where the parts of an index are, see venti-fmt(8).
package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	return &command.Command{
		Name: "venti/printmap", Usage: "config",
		Doc: `Prints the sections of an index with their buckets, and its arenas with their
addresses. A server may run meanwhile.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringP("block-memory", "B", "", "does nothing")
			fs.MarkHidden("block-memory")
		},
		Run: func(_ context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			ix, p, err := ventitool.OpenIndex(io.Args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			// An index's own version, which is not its sections', is always 1.
			fmt.Fprintf(io.Stdout, "index=%s version=1 blocksize=%d tabsize=%d\n\tbuckets=%d div=%d\n",
				ix.Name, ix.BlockSize, ix.Sections[0].TableSize(), ix.Buckets, ix.Div)
			for _, s := range ix.Sections {
				fmt.Fprintf(io.Stdout, "\tsect=%s for buckets [%d,%d)\n", s.Name, s.Start, s.Stop)
			}
			for _, a := range ix.Arenas {
				fmt.Fprintf(io.Stdout, "\tarena=%s at [%d,%d)\n", a.Name, a.Start, a.Stop)
			}
			return nil
		},
	}
}
