// Randtest writes blocks to a server, reads them back and compares, and says
// how fast that went.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti"
)

func main() { newCommand().Main() }

// options are the flags.
type options struct {
	host, size, total, most      string
	seed                         int32
	percent, parallel            int
	permute, readOnly, writeOnly bool
}

func newCommand() *command.Command {
	var o options
	return &command.Command{
		Name: "venti/randtest", Usage: "[-h host] [-s seed] [-b blocksize] [-p randpct] [-n totalbytes] [-M maxblocks] [-m number] [-P] [-r] [-w]",
		Doc: `Writes blocks to a server, and then reads them and compares. All are alike but for
the number in their first four bytes; the same seed, block size and percentage
give the same blocks as plan9port's program, so that either reads what the
other wrote. It does not sync. With -r it only reads, with -w it only writes.
Sizes may end in k, m, g or t.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&o.host, "host", "h", "", "`address` of the server: tcp!host!port, unix!/path or tls!host!port!ca=FILE!cert=FILE (default $venti)")
			fs.Int32VarP(&o.seed, "seed", "s", 0, "what the blocks' random bytes come from")
			fs.StringVarP(&o.size, "block-size", "b", "8k", "`size` of a block, from 4 bytes to 56k")
			fs.IntVarP(&o.percent, "random", "p", 50, "`percentage` of the 256 values that bytes have: what is low compresses well")
			fs.StringVarP(&o.total, "total", "n", "1g", "`size` of all blocks together")
			fs.StringVarP(&o.most, "max-blocks", "M", "0", "`number` of blocks, if that is less")
			fs.IntVarP(&o.parallel, "parallel", "m", 1, "`number` of requests in flight")
			fs.BoolVarP(&o.permute, "permute", "P", false, "write and read in random order")
			fs.BoolVarP(&o.readOnly, "read", "r", false, "read")
			fs.BoolVarP(&o.writeOnly, "write", "w", false, "write")
			fs.BoolP("no-sum", "S", false, "does nothing: a score that is not the block's is always an error")
			fs.MarkHidden("no-sum")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

func run(ctx context.Context, io command.IO, o options) error {
	size, sizeErr := disk.ParseSize(o.size)
	total, totalErr := disk.ParseSize(o.total)
	most, mostErr := disk.ParseSize(o.most)
	switch {
	case len(io.Args) != 0:
		return command.ErrUsage
	case sizeErr != nil || size < 4 || size > venti.MaxBlockSize:
		return command.Usagef("bad block size %q", o.size)
	case totalErr != nil || total/size > 1<<32-1:
		return command.Usagef("bad total %q", o.total)
	case mostErr != nil:
		return command.Usagef("bad number of blocks %q", o.most)
	case o.percent < 0 || o.percent > 100:
		return command.Usagef("bad percentage %d", o.percent)
	case o.parallel < 1:
		return command.Usagef("bad number of requests %d", o.parallel)
	}
	n := total / size
	if most > 0 {
		n = min(n, most)
	}
	c, err := venti.Dial(ctx, o.host)
	if err != nil {
		return err
	}
	defer c.Close()
	t := &trial{client: c, template: template(o.seed, o.percent, int(size)), order: make([]uint32, n), parallel: o.parallel}
	for i := range t.order {
		t.order[i] = uint32(i)
	}
	if o.permute {
		rand.New(rand.NewPCG(uint64(o.seed), 0)).Shuffle(len(t.order), func(i, j int) { t.order[i], t.order[j] = t.order[j], t.order[i] })
	}
	both := o.readOnly == o.writeOnly
	for _, pass := range []struct {
		name  string
		chose bool
		block func(ctx context.Context, block, buf []byte) error
	}{{"write", both || o.writeOnly, t.write}, {"read", both || o.readOnly, t.read}} {
		if !pass.chose {
			continue
		}
		start := time.Now()
		if err := t.run(ctx, pass.block); err != nil {
			return err
		}
		sec := time.Since(start).Seconds()
		fmt.Fprintf(io.Stdout, "%s: %d bytes / %.3f seconds = %.6f MB/s\n", pass.name, n*size, sec, float64(n*size)/1e6/sec)
	}
	return nil
}

// A trial is the blocks that are written and read.
type trial struct {
	client   *venti.Client
	template []byte
	order    []uint32 // the numbers of the blocks
	parallel int
}

// run calls f for each block, with a buffer of its size.
func (t *trial) run(ctx context.Context, f func(ctx context.Context, block, buf []byte) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for w := range t.parallel {
		group.Go(func() error {
			block, buf := bytes.Clone(t.template), make([]byte, len(t.template))
			for i := w; i < len(t.order); i += t.parallel {
				binary.LittleEndian.PutUint32(block, t.order[i])
				if err := f(ctx, block, buf); err != nil {
					return fmt.Errorf("block %d, %v: %w", t.order[i], venti.ScoreOf(block), err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (t *trial) write(ctx context.Context, block, _ []byte) error {
	_, err := t.client.WriteBlock(ctx, venti.DataType, block)
	return err
}

// read needs to compare no bytes: the client has compared their score.
func (t *trial) read(ctx context.Context, block, buf []byte) error {
	n, err := t.client.ReadBlock(ctx, venti.ScoreOf(block), venti.DataType, buf)
	if err == nil && n != len(block) {
		err = fmt.Errorf("%d bytes came back, want %d", n, len(block))
	}
	return err
}
