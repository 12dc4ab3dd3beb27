// Readfile prints a file that is stored under one score.
package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
	"strata/venti/hashtree"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var host string
	var verbose bool
	return &command.Command{
		Name: "venti/readfile", Usage: "[-v] [-h host] score",
		Doc: `Writes the file that venti/writefile has stored to standard output.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
			fs.BoolVarP(&verbose, "verbose", "v", false, "describe the file on standard error")
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
			e, err := entry(ctx, c, score)
			if err != nil {
				return err
			}
			if verbose {
				fmt.Fprintf(io.Stderr, "%d bytes, in blocks of %d, under %v\n", e.Size, e.DSize, e.Score)
			}
			r, err := hashtree.NewReader(c, e, hashtree.ReaderConfig{})
			if err != nil {
				return err
			}
			_, err = r.Stream(ctx, io.Stdout)
			return err
		},
	}
}

// entry returns the entry of the file that a root names.
func entry(ctx context.Context, br venti.BlockReader, score venti.Score) (venti.Entry, error) {
	buf := make([]byte, venti.MaxBlockSize)
	n, err := br.ReadBlock(ctx, score, venti.RootType, buf)
	if err != nil {
		return venti.Entry{}, fmt.Errorf("read root: %w", err)
	}
	root, err := venti.UnpackRoot(buf[:n])
	if err != nil {
		return venti.Entry{}, err
	}
	if root.Type != "file" {
		return venti.Entry{}, fmt.Errorf("%v is the root of a %q, not of a file", score, root.Type)
	}
	if n, err = br.ReadBlock(ctx, root.Score, venti.DirType, buf); err != nil {
		return venti.Entry{}, fmt.Errorf("read directory: %w", err)
	}
	e, err := venti.UnpackEntry(buf[:min(n, venti.EntrySize)])
	if err == nil && (!e.Active() || e.Dir()) {
		err = fmt.Errorf("what %v names is no file", root.Score)
	}
	return e, err
}
