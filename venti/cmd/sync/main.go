// Sync makes what a server was given durable, see venti(1).
package main

import (
	"context"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var host string
	var connect bool
	return &command.Command{
		Name: "venti/sync", Usage: "[-x] [-h host]",
		Doc: `Returns when every block that the server has acknowledged is on stable
storage, or says why it cannot be.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
			fs.BoolVarP(&connect, "connect", "x", false, "only connect")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 0 {
				return command.ErrUsage
			}
			c, err := venti.Dial(ctx, host)
			if err != nil {
				return err
			}
			defer c.Close()
			if connect {
				return nil
			}
			return c.Sync(ctx)
		},
	}
}
