// Last prints the score of a file system's last archive, see fossil(4).
package main

import (
	"context"
	"fmt"

	"strata/fossil"
	"strata/internal/command"
	"strata/internal/disk"
	"strata/vac"
	"strata/venti"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	return &command.Command{
		Name: "fossil/last", Usage: "file",
		Doc: `Prints vac: and the score of the last archive of the file system in file, which
is not in use.`,
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			p, err := disk.Open(io.Args[0], disk.Options{ReadOnly: true})
			if err != nil {
				return err
			}
			defer p.Close()
			fs, err := fossil.Open(p, fossil.Config{ReadOnly: true})
			if err != nil {
				return err
			}
			defer fs.Close(ctx)
			score := fs.Last()
			if score == venti.EmptyScore {
				return fmt.Errorf("%s was never archived", io.Args[0])
			}
			fmt.Fprintln(io.Stdout, vac.FormatScore(score))
			return nil
		},
	}
}
