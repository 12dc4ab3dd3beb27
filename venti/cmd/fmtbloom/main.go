// Fmtbloom formats a partition as a Bloom filter, see venti-fmt(8).
package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/bloom"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var (
		blocks int64
		hashes int
		size   string
	)
	return &command.Command{
		Name: "venti/fmtbloom", Usage: "[-n nblocks | -N nhash] [-s size] file",
		Doc: `Makes file, a file or block device or part of one, an empty Bloom filter.
A filter that joins an index with blocks in it has to be filled by checkindex
-f before a server uses it.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.Int64VarP(&blocks, "blocks", "n", 0, "how many blocks the filter is for")
			fs.IntVarP(&hashes, "hashes", "N", 0, "how many bits a block sets, at most 32; the default without -n")
			fs.StringVarP(&size, "size", "s", "", "bytes to use, at least 1m and at most 512m (default: all)")
		},
		Run: func(ctx context.Context, io command.IO) error {
			switch {
			case len(io.Args) != 1:
				return command.ErrUsage
			case blocks < 0 || hashes < 0 || blocks > 0 && hashes > 0:
				return command.ErrUsage
			case hashes > bloom.MaxHashes:
				return command.Usagef("maximum possible is -N %d", bloom.MaxHashes)
			}
			config := bloom.FormatConfig{Blocks: blocks, Hashes: hashes}
			if size != "" {
				var err error
				if config.Size, err = disk.ParseSize(size); err != nil || config.Size == 0 {
					return command.Usagef("bad size %q", size)
				}
			}
			p, err := disk.Open(io.Args[0], disk.Options{})
			if err != nil {
				return err
			}
			defer p.Close()
			all := bloom.FormatConfig{Size: config.Size}
			most, _, err := all.Geometry(p.Size())
			if err != nil {
				return err
			}
			used, hashes, err := config.Geometry(p.Size())
			if err != nil {
				return err
			}
			if asked := config.Size; asked != most && (asked != 0 || p.Size() != most) {
				fmt.Fprintf(io.Stderr, "warning: size not a power of 2; only using %dMB\n", most>>20)
			}
			if used < most {
				fmt.Fprintf(io.Stderr, "warning: using only %dMB - not enough blocks to warrant more\n", used>>20)
			}
			if err := bloom.Format(ctx, p, config); err != nil {
				return err
			}
			fmt.Fprintf(io.Stderr, "fmtbloom: using %dMB, %d hashes/score, best up to %s blocks\n",
				used>>20, hashes, command.Commas(bloom.BestBlocks(used, hashes)))
			return nil
		},
	}
}
