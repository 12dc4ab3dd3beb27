// Copy copies a tree of blocks from one server to another, see venti(1).
package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
	"strata/venti/hashtree"
)

func main() { newCommand().Main() }

// options are the flags.
type options struct {
	cfg             hashtree.CopyConfig
	typ             string
	verbose, chatty bool
}

func newCommand() *command.Command {
	var o options
	return &command.Command{
		Name: "venti/copy", Usage: "[-fimrVv] [-t type] srchost dsthost score",
		Doc: `Copies the block named by score and all below it, and syncs the destination.
The first block's type is found by trying, unless -t gives it. A block is
written when all that it names has been.

-i and -r go on after a block that is missing or corrupt; -r prints the new
score. Other errors, such as a lost connection, always end the copy.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&o.cfg.Fast, "fast", "f", false, "leave out what is below a block that the destination has")
			fs.BoolVarP(&o.cfg.IgnoreErrors, "ignore-errors", "i", false, "copy what can be read")
			fs.BoolVarP(&o.cfg.Remember, "remember", "m", false, "copy what is named more than once only once; takes memory")
			fs.BoolVarP(&o.cfg.Rewrite, "rewrite", "r", false, "put holes where blocks cannot be read")
			fs.StringVarP(&o.typ, "type", "t", "", "`type` of the first block: 0 or data, 1 or data+1, ..., 8 or dir, ..., 16 or root")
			fs.IntVarP(&o.cfg.Parallel, "parallel", "p", 0, "`number` of blocks on their way at once (default 128)")
			fs.BoolVarP(&o.verbose, "verbose", "v", false, "trace blocks other than data on stderr, print counts")
			fs.BoolVarP(&o.chatty, "chatty", "V", false, "the same with data blocks")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

func run(ctx context.Context, io command.IO, o options) error {
	if len(io.Args) != 3 {
		return command.ErrUsage
	}
	prefix, score, err := venti.ParseTypedScore(io.Args[2])
	if err != nil {
		return command.Usagef("%v", err)
	}
	var t venti.Type
	if o.typ != "" {
		if t, err = venti.ParseType(o.typ); err != nil {
			return command.Usagef("%v", err)
		}
	}
	src, err := venti.Dial(ctx, io.Args[0])
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	defer src.Close()
	dst, err := venti.Dial(ctx, io.Args[1])
	if err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	defer dst.Close()
	if o.typ == "" {
		if t, err = hashtree.FindType(ctx, src, score); err != nil {
			return err
		}
	}
	o.cfg.Warn = func(err error) { fmt.Fprintf(io.Stderr, "venti/copy: %v\n", err) }
	if o.verbose || o.chatty {
		o.cfg.Trace = tracer(io.Stderr, o.chatty)
	}
	r, err := hashtree.Copy(ctx, src, dst, score, t, o.cfg)
	if err != nil {
		return err
	}
	if o.cfg.Rewrite {
		if prefix != "" {
			prefix += ":"
		}
		fmt.Fprintf(io.Stdout, "%s%v (%d pointers rewritten)\n", prefix, r.Score, r.Rewritten)
	}
	if o.verbose || o.chatty {
		fmt.Fprintf(io.Stdout, "%d skipped, %d written\n", r.Skipped.Blocks, r.Written.Blocks)
	}
	return nil
}

// tracer prints what is done to each block, indented by its depth. Blocks
// are copied at once, so lines of different parts of the tree mix.
func tracer(w io.Writer, data bool) func(hashtree.CopyStep, *hashtree.Block) {
	return func(what hashtree.CopyStep, b *hashtree.Block) {
		if b.Type == venti.DataType && !data {
			return
		}
		indent := strings.Repeat(" ", b.Depth)
		switch what {
		case hashtree.CopyEnter:
			fmt.Fprintf(w, "%s-> %d %d %v\n", indent, b.Depth, b.Type, b.Score)
		case hashtree.CopySkip:
			fmt.Fprintf(w, "%sskip %v\n", indent, b.Score)
		case hashtree.CopyLeave:
			fmt.Fprintf(w, "%s<- %v\n", indent, b.Score)
		}
	}
}
