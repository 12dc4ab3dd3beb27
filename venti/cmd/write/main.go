// Write stores a block, see venti(1).
package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var host, typ string
	var truncate bool
	return &command.Command{
		Name: "venti/write", Usage: "[-z] [-h host] [-t type] <datablock",
		Doc: `Stores standard input, at most 57344 bytes, as a block and prints its score.
The block need not be on stable storage when the command is done: see
venti/sync.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&truncate, "truncate", "z", false, "leave out trailing zeros, as is right for the type")
			fs.StringVarP(&host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
			fs.StringVarP(&typ, "type", "t", "0", "block `type`: 0 or data, 1 or data+1, ..., 8 or dir, ..., 16 or root")
		},
		Run: func(ctx context.Context, cio command.IO) error {
			if len(cio.Args) != 0 {
				return command.ErrUsage
			}
			t, err := venti.ParseType(typ)
			if err != nil {
				return command.Usagef("%v", err)
			}
			// One byte more shows that there is too much.
			data, err := io.ReadAll(io.LimitReader(cio.Stdin, venti.MaxBlockSize+1))
			if err != nil {
				return fmt.Errorf("read standard input: %w", err)
			}
			if len(data) > venti.MaxBlockSize {
				return fmt.Errorf("more than %d bytes: %w", venti.MaxBlockSize, venti.ErrTooLarge)
			}
			if truncate {
				data = venti.Truncate(t, data)
			}
			c, err := venti.Dial(ctx, host)
			if err != nil {
				return err
			}
			defer c.Close()
			score, err := c.WriteBlock(ctx, t, data)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cio.Stdout, score)
			return err
		},
	}
}
