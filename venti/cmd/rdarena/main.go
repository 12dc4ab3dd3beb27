// Rdarena writes an arena to standard output, see venti-backup(8).
package main

import (
	"context"
	"errors"
	"fmt"
	stdio "io"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var quiet, verbose bool
	return &command.Command{
		Name: "venti/rdarena", Usage: "[-qv] arenapart arena",
		Doc: `Writes the bytes of an arena, from its header to its trailer, to standard
output. What is in a sealed arena does not change: a server may run meanwhile.
Of one that is being written the clumps that the index has are whole.
venti/wrarena takes what it writes, as does plan9port's.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&quiet, "quiet", "q", false, "do not describe the arena on standard error")
			fs.BoolVarP(&verbose, "verbose", "v", false, "describe the partition too")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 2 {
				return command.ErrUsage
			}
			as, err := ventitool.Open(io.Args[0], ventitool.Live, io.Args[1:])
			if err != nil {
				return err
			}
			defer as.File.Close()
			if len(as.Bad) > 0 {
				return as.Bad[0]
			}
			a := as.List[0]
			if verbose && as.Part != nil {
				ventitool.WritePartition(io.Stderr, io.Args[0], as.Part)
			}
			if !quiet {
				t, err := a.ReadTrailer()
				if err != nil {
					return err
				}
				fmt.Fprintf(io.Stderr, "copying %s to standard output\n", a.Name)
				ventitool.WriteArena(io.Stderr, a, &t)
			}
			return write(ctx, io.Stdout, stdio.NewSectionReader(as.File, a.Start, a.Stop-a.Start))
		},
	}
}

func write(ctx context.Context, w stdio.Writer, r *stdio.SectionReader) error {
	for buf := make([]byte, 1<<20); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := stdio.ReadFull(r, buf)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return werr
		}
		switch {
		case err == stdio.EOF, errors.Is(err, stdio.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}
