// Printarena lists the clumps of an arena, see venti-fmt(8).
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/arena"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var offset string
	return &command.Command{
		Name: "venti/printarena", Usage: "[-o offset] arenafile [clumpoffset]",
		Doc: `Lists the clumps of one arena, the offset, score, type and size of each, from
clumpoffset on. The arena starts at offset of the file: 0, as in what
venti/rdarena writes, or as venti/printarenapart tells. A clump that is damaged
is listed as far as its header says; at what is no clump the list ends, and the
status is 1. A server may run meanwhile.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&offset, "offset", "o", "0", "where in the file the arena starts")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 1 && len(io.Args) != 2 {
				return command.ErrUsage
			}
			at, err := disk.ParseSize(offset)
			if err != nil {
				return command.Usagef("%v", err)
			}
			var from int64
			if len(io.Args) == 2 {
				if from, err = strconv.ParseInt(io.Args[1], 0, 64); err != nil || from < 0 {
					return command.Usagef("bad clump offset %q", io.Args[1])
				}
			}
			f, err := disk.Open(io.Args[0], ventitool.Live)
			if err != nil {
				return err
			}
			defer f.Close()
			a, err := arena.OpenAt(f, at)
			if err != nil {
				return fmt.Errorf("%s: %w", io.Args[0], err)
			}
			return list(ctx, io, a, from)
		},
	}
}

func list(ctx context.Context, io command.IO, a *arena.Arena, from int64) error {
	t, err := a.ReadTrailer()
	if err != nil {
		return err
	}
	fmt.Fprintf(io.Stdout, "# arena head version=%d name=%s blocksize=%d size=%d clumpmagic=0x%08x\n",
		a.Version, a.Name, a.BlockSize, a.Stop-a.Start, a.ClumpMagic)
	ventitool.WriteArena(io.Stderr, a, &t)
	w := bufio.NewWriter(io.Stdout)
	end, err := a.Scan(ctx, arena.Pos{Off: from}, max(from, t.Mem.Used), func(c *arena.Clump) error {
		_, err := fmt.Fprintf(w, "%22d %v %3d %5d\n", c.Off, c.Header.Score, c.Header.Type.Type(), c.Header.UncSize)
		return err
	})
	fmt.Fprintf(w, "end offset %d\n", end.Off)
	if err = errors.Join(err, w.Flush()); err != nil {
		return err
	}
	if end.Off < t.Mem.Used {
		return fmt.Errorf("arena %s: what is at %d is no clump", a.Name, end.Off)
	}
	return nil
}
