// Fmtarenas formats a partition for arenas, see venti-fmt(8).
package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/arena"
)

func main() { newCommand().Main() }

// options are the flags.
type options struct {
	old, noZero          bool
	arenaSize, blockSize string
}

func newCommand() *command.Command {
	var o options
	return &command.Command{
		Name: "venti/fmtarenas", Usage: "[-4Z] [-a arenasize] [-b blocksize] name file",
		Doc: `Divides file, a file or block device or part of one, into empty arenas called
name0, name1 and so on. What was in it is lost. Sizes are in bytes, with an
optional k, m, g or t.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&o.old, "version4", "4", false, "make version 4, for old servers, and zero the arenas, which it needs")
			fs.BoolVarP(&o.noZero, "no-zero", "Z", false, "leave that out, for what is zero already")
			fs.StringVarP(&o.arenaSize, "arena-size", "a", "512m", "bytes of an arena")
			fs.StringVarP(&o.blockSize, "block-size", "b", "8k", "bytes of a block, a power of two")
		},
		Run: func(ctx context.Context, io command.IO) error { return run(ctx, io, o) },
	}
}

func run(ctx context.Context, io command.IO, o options) error {
	if len(io.Args) != 2 {
		return command.ErrUsage
	}
	cfg := arena.FormatConfig{Name: io.Args[0]}
	var err error
	if cfg.ArenaSize, err = disk.ParseSize(o.arenaSize); err != nil || cfg.ArenaSize == 0 {
		return command.Usagef("bad arena size %q", o.arenaSize)
	}
	blockSize, err := disk.ParseSize(o.blockSize)
	if err != nil || blockSize == 0 || blockSize != int64(int(blockSize)) {
		return command.Usagef("bad block size %q", o.blockSize)
	}
	cfg.BlockSize = int(blockSize)
	if o.old {
		cfg.Version, cfg.Zero = arena.Version4, !o.noZero
	}
	file := io.Args[1]
	f, err := disk.Open(file, disk.Options{})
	if err != nil {
		return err
	}
	defer f.Close()
	if cfg.Zero {
		fmt.Fprintf(io.Stderr, "clearing %s\n", file)
	}
	p, err := arena.Format(ctx, f, cfg)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	storage := p.Arenas[len(p.Arenas)-1].Stop - p.ArenaBase
	fmt.Fprintf(io.Stderr, "fmtarenas %s: %s arenas, %s bytes storage, %s bytes for index map\n",
		file, command.Commas(int64(len(p.Arenas))), command.Commas(storage), command.Commas(p.TableSize()))
	return nil
}
