// Readlist reads the blocks of a list, to see that a server has them.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	stdio "io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"strata/internal/command"
	"strata/venti"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var host string
	var parallel int
	return &command.Command{
		Name: "venti/readlist", Usage: "[-h host] [-p number] [list...]",
		Doc: `Reads the blocks that the files, or standard input, list, and throws them away. Each
line is a score and a type. After each thousand blocks it says so. Those that
cannot be read are named on standard error, and the status is 1.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
			fs.IntVarP(&parallel, "parallel", "p", 64, "`number` of blocks on their way at once")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if parallel < 1 {
				return command.Usagef("bad number of blocks %d", parallel)
			}
			c, err := venti.Dial(ctx, host)
			if err != nil {
				return err
			}
			defer c.Close()
			r := &reader{io: io, client: c}
			r.group, r.ctx = errgroup.WithContext(ctx)
			r.group.SetLimit(parallel)
			err = r.lists(io.Args)
			if werr := r.group.Wait(); werr != nil {
				return werr
			}
			if err == nil && r.missing > 0 {
				err = fmt.Errorf("%d of %d blocks could not be read", r.missing, r.read+r.missing)
			}
			return err
		},
	}
}

type reader struct {
	io     command.IO
	client *venti.Client
	group  *errgroup.Group
	ctx    context.Context // ends when a read fails for another reason than the block
	bufs   sync.Pool       // *[]byte

	mu            sync.Mutex // guards the fields below, and the streams of io
	read, missing int
}

func (r *reader) lists(files []string) error {
	if len(files) == 0 {
		return r.list("standard input", r.io.Stdin)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = r.list(name, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// list has the blocks of a list read. It returns when the last of them is on
// its way.
func (r *reader) list(name string, in stdio.Reader) error {
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan() && r.ctx.Err() == nil; n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) != 2 {
			return fmt.Errorf("%s:%d: want a score and a type", name, n)
		}
		score, err := venti.ParseScore(fields[0])
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
		typ, err := venti.ParseType(fields[1])
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
		r.group.Go(func() error { return r.block(score, typ) })
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (r *reader) block(score venti.Score, typ venti.Type) error {
	buf, ok := r.bufs.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
		*buf = make([]byte, venti.MaxBlockSize)
	}
	defer r.bufs.Put(buf)
	_, err := r.client.ReadBlock(r.ctx, score, typ, *buf)
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(err, venti.ErrNotFound) || errors.Is(err, venti.ErrCorrupt) {
		r.missing++
		fmt.Fprintf(r.io.Stderr, "could not read %v %d: %v\n", score, typ, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("could not read %v %d: %w", score, typ, err)
	}
	if r.read++; r.read%1000 == 0 {
		fmt.Fprintf(r.io.Stdout, "%d...", r.read)
	}
	return nil
}
