// Conf prints or stores the boot configuration of a file system, see
// fossil(4).
package main

import (
	"context"
	"fmt"
	stdio "io"
	"os"

	"github.com/spf13/pflag"

	"strata/fossil/internal/format"
	"strata/internal/command"
	"strata/internal/disk"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var write bool
	return &command.Command{
		Name: "fossil/conf", Usage: "[-w] file [config]",
		Doc: `Prints the console commands that file has before its file system, or with -w
stores those in config, or on standard input, there. They are at most 1010
bytes.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&write, "write", "w", false, "store a configuration; the file system must not be in use")
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
			// Nothing but conf changes it, so that it can be read at any time.
			p, err := disk.Open(io.Args[0], disk.Options{ReadOnly: true, Unlocked: true})
			if err != nil {
				return err
			}
			defer p.Close()
			b := make([]byte, format.ConfigSize)
			if err := disk.ReadFull(p, b, format.ConfigOffset); err != nil {
				return err
			}
			text, err := format.UnpackConfig(b)
			if err != nil {
				return fmt.Errorf("%s: %w", io.Args[0], err)
			}
			_, err = stdio.WriteString(io.Stdout, text)
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
	text, err := stdio.ReadAll(stdio.LimitReader(in, format.ConfigSize+1))
	if err != nil {
		return err
	}
	b, err := format.PackConfig(string(text))
	if err != nil {
		return err
	}
	p, err := disk.Open(io.Args[0], disk.Options{})
	if err != nil {
		return err
	}
	defer p.Close()
	if _, err := p.WriteAt(b, format.ConfigOffset); err != nil {
		return err
	}
	return p.Sync()
}
