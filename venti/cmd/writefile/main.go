// Writefile stores a stream as a file under one score.
package main

import (
	"context"
	"fmt"
	stdio "io"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
	"strata/venti/hashtree"
)

func main() { newCommand().Main() }

// What plan9port's program calls a file, and how it cuts it.
const (
	rootName  = "data"
	rootType  = "file"
	blockSize = 8192
)

func newCommand() *command.Command {
	var host string
	var verbose bool
	return &command.Command{
		Name: "venti/writefile", Usage: "[-v] [-h host] <data",
		Doc: `Stores standard input as a hash tree of blocks of 8 KiB, syncs the server, and prints
the score of its root, file:<score>, which venti/readfile takes.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
			fs.BoolVarP(&verbose, "verbose", "v", false, "say on standard error what became of the blocks")
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
			score, stats, err := write(ctx, c, io.Stdin)
			if err != nil {
				return err
			}
			if verbose {
				t := stats.Leaves
				fmt.Fprintf(io.Stderr, "%d data blocks written, %d were there, %d of zeros\n", t.Sent.Blocks, t.Shared.Blocks, t.Zero.Blocks)
			}
			_, err = fmt.Fprintf(io.Stdout, "%s:%v\n", rootType, score)
			return err
		},
	}
}

// write stores a file and what names it, and syncs.
func write(ctx context.Context, st venti.Store, r stdio.Reader) (root venti.Score, stats hashtree.Stats, err error) {
	w, err := hashtree.NewWriter(ctx, st, hashtree.Config{DSize: blockSize})
	if err != nil {
		return root, stats, err
	}
	_, err = stdio.Copy(w, r)
	e, stats, cerr := w.Close()
	if err != nil {
		return root, stats, err
	}
	if cerr != nil {
		return root, stats, cerr
	}
	dir, err := e.Pack(nil)
	if err != nil {
		return root, stats, err
	}
	rt := venti.Root{Name: rootName, Type: rootType, BlockSize: blockSize}
	if rt.Score, err = st.WriteBlock(ctx, venti.DirType, dir); err != nil {
		return root, stats, err
	}
	block, err := rt.Pack(nil)
	if err != nil {
		return root, stats, err
	}
	if root, err = st.WriteBlock(ctx, venti.RootType, block); err != nil {
		return root, stats, err
	}
	return root, stats, st.Sync(ctx)
}
