// Flfmt makes a file or partition a file system, see fossil(4).
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"strata/fossil"
	"strata/internal/command"
	"strata/internal/disk"
	"strata/vac"
	"strata/venti"
)

func main() { newCommand().Main() }

type options struct {
	yes   bool
	block string
	label string
	host  string
	score string
}

func newCommand() *command.Command {
	o := new(options)
	return &command.Command{
		Name: "fossil/flfmt", Usage: "[-y] [-b blocksize] [-l label] [-h host] [-v score] file",
		Doc: `Makes file, which has its size already, a file system with the directories
active, archive and snapshot. With -v it is one of an archive, vac: and 40 hex
digits, that stays on Venti until it is changed.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&o.yes, "yes", "y", false, "do not ask, even if there is a file system already")
			fs.StringVarP(&o.block, "blocksize", "b", "8k", "bytes in a block, a multiple of 512 from 1k to 56k")
			fs.StringVarP(&o.label, "label", "l", "vfs", "what the file system is called")
			fs.StringVarP(&o.host, "host", "h", "", "the Venti server that has the archive (default $venti)")
			fs.StringVarP(&o.score, "archive", "v", "", "make a file system of this archive")
		},
		Run: o.run,
	}
}

func (o *options) run(ctx context.Context, io command.IO) error {
	if len(io.Args) != 1 {
		return command.ErrUsage
	}
	size, err := disk.ParseSize(o.block)
	if err != nil || size <= 0 || size > 1<<20 {
		return command.Usagef("bad block size %q", o.block)
	}
	if len(o.label) > 127 {
		return command.Usagef("label of %d bytes: want at most 127", len(o.label))
	}
	cfg := fossil.FormatConfig{BlockSize: int(size), Name: o.label}
	if o.score != "" {
		if cfg.Score, err = venti.ParseScore(strings.TrimPrefix(o.score, vac.RootType+":")); err != nil {
			return command.Usagef("%v", err)
		}
		c, err := venti.Dial(ctx, o.host)
		if err != nil {
			return err
		}
		defer c.Close()
		cfg.Venti = c
	}
	p, err := disk.Open(io.Args[0], disk.Options{})
	if err != nil {
		return err
	}
	defer p.Close()
	if fossil.Formatted(p) && !o.yes {
		fmt.Fprintf(io.Stderr, "%s has a file system already; is all of it to be lost? [y/n]: ", io.Args[0])
		if answer, _ := bufio.NewReader(io.Stdin).ReadString('\n'); strings.TrimSpace(answer) != "y" {
			return errors.New("not formatted")
		}
	}
	return fossil.Format(ctx, p, cfg)
}
