// Dump prints the tree of blocks under a score, see venti(1).
package main

import (
	"context"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
	"strata/venti/hashtree"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var host string
	return &command.Command{
		Name: "venti/dump", Usage: "[-h host] score",
		Doc: `Prints the tree of blocks under score, which may have a prefix such as vac:.
The first block's type is found by trying.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			_, score, err := venti.ParseTypedScore(io.Args[0])
			if err != nil {
				return command.Usagef("%v", err)
			}
			c, err := venti.Dial(ctx, host)
			if err != nil {
				return err
			}
			defer c.Close()
			t, err := hashtree.FindType(ctx, c, score)
			if err != nil {
				return err
			}
			return hashtree.Dump(ctx, c, score, t, io.Stdout)
		},
	}
}
