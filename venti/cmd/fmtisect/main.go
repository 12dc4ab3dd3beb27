// Fmtisect formats a partition as an index section, see venti-fmt(8).
package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/index"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var (
		old, noZero bool
		blockSize   string
	)
	return &command.Command{
		Name: "venti/fmtisect", Usage: "[-1Z] [-b blocksize] name file",
		Doc: `Makes file, a file or block device or part of one, an index section called name,
which fmtindex can then make part of an index. What it holds is lost.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&old, "old", "1", false, "use version 1 of the format, and zero the section")
			fs.BoolVarP(&noZero, "no-zero", "Z", false, "do not zero the section: it is known to be zero")
			fs.StringVarP(&blockSize, "block-size", "b", "8k", "size of a bucket, a power of two of at most 64k")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 2 {
				return command.ErrUsage
			}
			name, file := io.Args[0], io.Args[1]
			size, err := disk.ParseSize(blockSize)
			if err != nil || size < 1 || size > 64<<10 {
				return command.Usagef("bad block size %q", blockSize)
			}
			config := index.SectionConfig{Name: name, BlockSize: int(size), NoZero: noZero}
			if old {
				config.Version = 1
			}
			p, err := disk.Open(file, disk.Options{})
			if err != nil {
				return err
			}
			defer p.Close()
			s, err := index.FormatSection(ctx, p, config)
			if err != nil {
				return err
			}
			fmt.Fprintf(io.Stderr, "fmtisect %s: %s buckets of %d entries, %s bytes for index map\n",
				file, command.Commas(int64(s.Blocks)), s.Capacity(), command.Commas(int64(s.TableSize())))
			return nil
		},
	}
}
