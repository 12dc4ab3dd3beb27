// Printindex lists the entries of an index, see venti-fmt(8).
package main

import (
	"bufio"
	"context"
	"errors"
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
		Name: "venti/printindex", Usage: "config [isect...]",
		Doc: `Lists the entries of an index, or of the sections named, in the order of their
buckets: the address, score, type and size of each. A damaged bucket is named
on standard error, and the status is 1. A server may run meanwhile; what it has
not written yet is not listed.`,
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
			for _, n := range io.Args[1:] {
				if !slices.ContainsFunc(ix.Sections, func(s *index.Section) bool { return s.Name == n }) {
					return fmt.Errorf("no index section %s", n)
				}
			}
			w := bufio.NewWriter(io.Stdout)
			damaged := 0
			for _, s := range ix.Sections {
				if len(io.Args) > 1 && !slices.Contains(io.Args[1:], s.Name) {
					continue
				}
				for e, err := range s.Entries(ctx) {
					if errors.Is(err, index.ErrBadBucket) {
						fmt.Fprintln(io.Stderr, err)
						damaged++
						continue
					}
					if err == nil {
						_, err = fmt.Fprintf(w, "%22d %v %3d %5d\n", e.Addr, e.Score, e.Type.Type(), e.Size)
					}
					if err != nil {
						return err
					}
				}
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if damaged > 0 {
				return fmt.Errorf("%d damaged buckets", damaged)
			}
			return nil
		},
	}
}
