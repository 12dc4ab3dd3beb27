// Read prints a block, see venti(1).
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var host, typ string
	return &command.Command{
		Name: "venti/read", Usage: "[-h host] [-t type] score",
		Doc: `Writes the block named by score to standard output. Without -t every type is
tried, and the command that would have found the block at once is printed on
standard error.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
			fs.StringVarP(&typ, "type", "t", "", "block `type`: 0 or data, 1 or data+1, ..., 8 or dir, ..., 16 or root")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, host, typ) },
	}
}

func run(ctx context.Context, io command.IO, host, typ string) error {
	if len(io.Args) != 1 {
		return command.ErrUsage
	}
	_, score, err := venti.ParseTypedScore(io.Args[0])
	if err != nil {
		return command.Usagef("%v", err)
	}
	types := []venti.Type{venti.CorruptType}
	if typ != "" {
		if types[0], err = venti.ParseType(typ); err != nil {
			return command.Usagef("%v", err)
		}
	} else {
		// The server knows one kind of pointer, so 9 to 15 need no try.
		types = types[:0]
		for t := range venti.DirType + 1 {
			types = append(types, t)
		}
		types = append(types, venti.RootType)
	}
	c, err := venti.Dial(ctx, host)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 1<<16-1)
	for _, t := range types {
		var n int
		n, err = c.ReadBlock(ctx, score, t, buf)
		if errors.Is(err, venti.ErrNotFound) {
			continue
		}
		if err != nil {
			break
		}
		if typ == "" {
			if host != "" {
				host = " -h" + host
			}
			fmt.Fprintf(io.Stderr, "venti/read%s %v %d\n", host, score, t)
		}
		_, err = io.Stdout.Write(buf[:n])
		return err
	}
	if typ == "" && errors.Is(err, venti.ErrNotFound) {
		return fmt.Errorf("no block with score %v of any type exists", score)
	}
	return err
}
