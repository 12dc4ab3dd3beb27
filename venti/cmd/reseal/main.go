// Reseal computes the seals of arenas again, see venti-backup(8).
package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var force bool
	return &command.Command{
		Name: "venti/reseal", Usage: "[-f] arenapart [arena...]",
		Doc: `Computes the seal of each sealed arena of a partition, or of those named, and
writes it. An arena whose bytes do not sum to the seal that it has is damaged:
it is left alone, and the status is 1, unless -f is given. venti/checkarenas -a
says what is damaged in it. The server must not run.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&force, "force", "f", false, "seal what is there, whatever the old seal says")
			fs.StringP("block", "b", "", "does nothing")
			fs.StringP("sleep", "s", "", "does nothing")
			fs.MarkHidden("block")
			fs.MarkHidden("sleep")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) == 0 {
				return command.ErrUsage
			}
			as, err := ventitool.Open(io.Args[0], disk.Options{}, io.Args[1:])
			if err != nil {
				return err
			}
			defer as.File.Close()
			if as.Part != nil {
				ventitool.WriteHead(io.Stderr, as.Part)
			}
			faults := len(as.Bad)
			for _, err := range as.Bad {
				fmt.Fprintln(io.Stderr, err)
			}
			for _, a := range as.List {
				t, err := a.ReadTrailer()
				if err != nil {
					return err
				}
				if !t.Disk.Sealed {
					fmt.Fprintf(io.Stderr, "%s: not sealed\n", a.Name)
					continue
				}
				fmt.Fprintf(io.Stderr, "%s: begin reseal\n", a.Name)
				seal, err := a.Reseal(ctx, force)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					fmt.Fprintf(io.Stderr, "%s: failed to verify before reseal: %v\n", a.Name, err)
					faults++
					continue
				}
				fmt.Fprintf(io.Stderr, "%s: resealed: %v\n%s: verified: %v\n", a.Name, seal, a.Name, seal)
			}
			if faults > 0 {
				return fmt.Errorf("%s: %d arenas were not resealed", io.Args[0], faults)
			}
			return nil
		},
	}
}
