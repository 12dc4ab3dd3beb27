// Root prints root blocks, see venti(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var host string
	return &command.Command{
		Name: "venti/root", Usage: "[-h host] score...",
		Doc: `Prints a line for each root block:

	score: name type score blocksize prev`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, host) },
	}
}

func run(ctx context.Context, io command.IO, host string) error {
	if len(io.Args) == 0 {
		return command.ErrUsage
	}
	scores := make([]venti.Score, len(io.Args))
	for i, arg := range io.Args {
		var err error
		if _, scores[i], err = venti.ParseTypedScore(arg); err != nil {
			return command.Usagef("%v", err)
		}
	}
	c, err := venti.Dial(ctx, host)
	if err != nil {
		return err
	}
	defer c.Close()
	// A root that cannot be read does not hide the others.
	var errs []error
	for _, score := range scores {
		root, err := readRoot(ctx, c, score)
		if err != nil {
			errs = append(errs, fmt.Errorf("root %v: %w", score, err))
			continue
		}
		if _, err := fmt.Fprintf(io.Stdout, "%v: %s %s %v %d %v\n",
			score, quote(root.Name), quote(root.Type), root.Score, root.BlockSize, root.Prev); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

func readRoot(ctx context.Context, c *venti.Client, score venti.Score) (venti.Root, error) {
	buf := make([]byte, venti.RootSize)
	n, err := c.ReadBlock(ctx, score, venti.RootType, buf)
	if err != nil {
		return venti.Root{}, err
	}
	return venti.UnpackRoot(buf[:n])
}

// quote quotes s as rc(1) does, where it must.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '\'' }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}
