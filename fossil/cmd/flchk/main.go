// Flchk checks a file system that is not in use, and repairs it, see
// fossil(4).
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"strata/fossil"
	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var (
		local, repair, verbose bool
		host                   string
		check                  fossil.CheckConfig
		cache                  int
	)
	return &command.Command{
		Name: "fossil/flchk", Usage: "[-fsdvVx] [-c blocks] [-h host] file",
		Doc: `Looks whether the blocks, streams and directories in file agree. It changes
nothing, unless -x tells it to repair; what it would repair it prints as
"error: ..." and, after a "#", the console command that does. If a program that
had the file open came to grief, flchk sees it as it is with its log.

With -x it repairs what it can and looks again, until there is nothing left
that it can: blocks to which nothing leads are given back, names and slots
that lead to nothing are cleared, and so are pointers to blocks that are not
theirs; damaged labels and metadata blocks are made anew of what is left of
them. What it has done it prints as "repaired: ...". Nothing is repaired for
lack of a Venti server, nor what is on one.

The exit status is 1 if something is wrong and, with -x, could not be repaired.
(-f is what it was in Plan 9, where flchk never repaired: do without Venti.) A file
system that is in use is checked and repaired by the console's command check.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&local, "fast", "f", false, "do without Venti: directories that are there are not looked at")
			fs.BoolVarP(&repair, "fix", "x", false, "repair")
			fs.BoolVarP(&check.Snapshots, "snapshots", "s", false, "look at the directories of snapshots, too")
			fs.BoolVarP(&check.Data, "data", "d", false, "read the blocks of files, too: are they readable?")
			fs.BoolVarP(&check.Venti, "venti", "V", false, "look whether Venti has all blocks that it should")
			fs.BoolVarP(&verbose, "verbose", "v", false, "print each block, directory and file")
			fs.IntVarP(&cache, "cache", "c", 0, "`blocks` to keep in memory (default 32 MiB of them)")
			fs.StringVarP(&host, "host", "h", "", "the Venti server (default $venti)")
		},
		Run: func(ctx context.Context, io command.IO) error {
			switch {
			case len(io.Args) != 1:
				return command.ErrUsage
			case cache < 0 || cache > 1<<30:
				return command.Usagef("bad number of blocks %d", cache)
			case local && check.Venti:
				return command.Usagef("-f and -V do not go together")
			}
			cfg := fossil.Config{ReadOnly: !repair, NoAtime: true, NoArchiver: true}
			if !local {
				c, err := venti.Dial(ctx, host)
				if err != nil {
					return fmt.Errorf("%w; -f does without Venti", err)
				}
				defer c.Close()
				cfg.Venti = c
			}
			p, err := disk.Open(io.Args[0], disk.Options{ReadOnly: !repair})
			if err != nil {
				return err
			}
			defer p.Close()
			if n, err := fossil.BlockSizeOf(p); err == nil {
				cfg.Memory = int64(cache) * int64(n)
			}
			fs, err := fossil.Open(p, cfg)
			if err != nil {
				return err
			}
			check.Progress = func(line string) { fmt.Fprintln(io.Stdout, line) }
			check.Blocks, check.Dirs, check.Files = verbose, verbose, verbose
			if repair {
				check.Fix = fossil.AllRepairs
			}
			r, err := fs.Check(ctx, check)
			if err == nil {
				r.Print(io.Stdout, true)
				if repair {
					fmt.Fprintf(io.Stdout, "fsck: %v\n", r.Done)
				}
			}
			if err := errors.Join(err, fs.Close(ctx)); err != nil {
				return err
			}
			switch n := r.Left(); {
			case n == 0:
				return nil
			case repair:
				return fmt.Errorf("the file system is damaged: %d errors are left", n)
			}
			return errors.New("the file system is damaged")
		},
	}
}
