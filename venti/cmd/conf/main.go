// Conf prints or stores the configuration that is embedded in a partition, see
// venti-fmt(8).
package main

import (
	"context"
	"fmt"
	stdio "io"
	"os"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/internal/config"
	"strata/venti/internal/ventitool"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var write bool
	return &command.Command{
		Name: "venti/conf", Usage: "[-w] partition [file]",
		Doc: `Prints the configuration that is embedded in a partition. With -w it stores the
one in file, or on standard input, there, after it has been checked; see
venti.conf(6). Every program takes a partition with a configuration in the
place of a file. It lies in the first 256 KiB, which no format uses.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&write, "write", "w", false, "store a configuration; the server must not run")
		},
		Run: func(_ context.Context, io command.IO) error {
			switch {
			case len(io.Args) == 1, len(io.Args) == 2 && write:
			default:
				return command.ErrUsage
			}
			if write {
				return store(io)
			}
			f, err := disk.Open(io.Args[0], ventitool.Live)
			if err != nil {
				return err
			}
			defer f.Close()
			text, err := config.Text(f, io.Args[0])
			if err != nil {
				return err
			}
			_, err = io.Stdout.Write(text)
			return err
		},
	}
}

func store(io command.IO) error {
	in := io.Stdin
	if len(io.Args) == 2 {
		f, err := os.Open(io.Args[1])
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	text, err := stdio.ReadAll(stdio.LimitReader(in, int64(config.MaxEmbedded)+1))
	if err != nil {
		return err
	}
	f, err := disk.Open(io.Args[0], disk.Options{})
	if err != nil {
		return err
	}
	defer f.Close()
	if err := config.Embed(f, text); err != nil {
		return fmt.Errorf("%s: %w", io.Args[0], err)
	}
	return nil
}
