// Mkroot stores a root block.
package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var host string
	return &command.Command{
		Name: "venti/mkroot", Usage: "[-h host] name type score blocksize prev",
		Doc: `Stores a root block, syncs the server and prints the block's score. The arguments
are those that venti/root prints; prev of 40 zeros is none.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 5 {
				return command.ErrUsage
			}
			root := venti.Root{Name: io.Args[0], Type: io.Args[1]}
			var err error
			if _, root.Score, err = venti.ParseTypedScore(io.Args[2]); err != nil {
				return command.Usagef("%v", err)
			}
			size, err := strconv.ParseUint(io.Args[3], 0, 31)
			if err != nil {
				return command.Usagef("bad block size %q", io.Args[3])
			}
			root.BlockSize = int(size)
			if _, root.Prev, err = venti.ParseTypedScore(io.Args[4]); err != nil {
				return command.Usagef("%v", err)
			}
			block, err := root.Pack(nil)
			if err != nil {
				return err
			}
			c, err := venti.Dial(ctx, host)
			if err != nil {
				return err
			}
			defer c.Close()
			score, err := c.WriteBlock(ctx, venti.RootType, block)
			if err != nil {
				return err
			}
			if err := c.Sync(ctx); err != nil {
				return err
			}
			_, err = fmt.Fprintln(io.Stdout, score)
			return err
		},
	}
}
