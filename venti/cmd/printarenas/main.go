// Printarenas lists the clumps of the arenas of an index, see venti-fmt(8).
package main

import (
	"bufio"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti/internal/index"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	return &command.Command{
		Name: "venti/printarenas", Usage: "config [arena...]",
		Doc: `Lists the clumps of all arenas of an index, or of those named, from their
directories: the address in the index, score, type and size of each. A server
may run meanwhile.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringP("block-memory", "B", "", "does nothing")
			fs.MarkHidden("block-memory")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) == 0 {
				return command.ErrUsage
			}
			ix, p, err := ventitool.OpenIndex(io.Args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			names := io.Args[1:]
			for _, n := range names {
				if !slices.ContainsFunc(ix.Arenas, func(m index.AMap) bool { return m.Name == n }) {
					return fmt.Errorf("no arena %s", n)
				}
			}
			start := make(map[string]uint64)
			for _, m := range ix.Arenas {
				start[m.Name] = m.Start
			}
			w := bufio.NewWriter(io.Stdout)
			for _, a := range p.Arenas {
				base, ok := start[a.Name]
				if !ok || len(names) > 0 && !slices.Contains(names, a.Name) {
					continue
				}
				t, err := a.ReadTrailer()
				if err != nil {
					return err
				}
				for c, err := range a.Infos(ctx, int(t.Mem.Clumps)) {
					if err == nil {
						_, err = fmt.Fprintf(w, "%22d %v %3d %5d\n", base+uint64(c.Off), c.Info.Score, c.Info.Type.Type(), c.Info.UncSize)
					}
					if err != nil {
						return err
					}
				}
			}
			return w.Flush()
		},
	}
}
