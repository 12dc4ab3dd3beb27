// Flchk checks a file system that is not in use, see fossil(4).
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
		local, snapshots bool
		host             string
	)
	return &command.Command{
		Name: "fossil/flchk", Usage: "[-fs] [-h host] file",
		Doc: `Looks whether the blocks, streams and directories in file agree, and changes
nothing; if a program that had it open came to grief, as they are with its log.
What is wrong it prints as "error: ..." and, after a "#", the console command that
repairs it. The exit status is 1 if it finds anything.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&local, "fast", "f", false, "do without Venti: directories that are there are not looked at")
			fs.BoolVarP(&snapshots, "snapshots", "s", false, "look at the directories of snapshots, too")
			fs.StringVarP(&host, "host", "h", "", "the Venti server (default $venti)")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			cfg := fossil.Config{ReadOnly: true}
			if !local {
				c, err := venti.Dial(ctx, host)
				if err != nil {
					return fmt.Errorf("%w; -f does without Venti", err)
				}
				defer c.Close()
				cfg.Venti = c
			}
			p, err := disk.Open(io.Args[0], disk.Options{ReadOnly: true})
			if err != nil {
				return err
			}
			defer p.Close()
			fs, err := fossil.Open(p, cfg)
			if err != nil {
				return err
			}
			defer fs.Close(ctx)
			r, err := fs.Check(ctx, fossil.CheckConfig{
				Snapshots: snapshots,
				Progress:  func(line string) { fmt.Fprintln(io.Stdout, line) },
			})
			if err != nil {
				return err
			}
			percent := func(n uint32) float64 { return 100 * float64(n) / float64(r.Blocks) }
			fmt.Fprintf(io.Stdout, "fsys blocks: total=%d used=%d(%.1f%%) free=%d(%.1f%%) lost=%d(%.1f%%)\n",
				r.Blocks, r.Used, percent(r.Used), r.Free, percent(r.Free), r.Lost, percent(r.Lost))
			for _, f := range r.Findings {
				fmt.Fprintf(io.Stdout, "error: %s\n", f.Text)
				if f.Repair != "" {
					fmt.Fprintf(io.Stdout, "# %s\n", f.Repair)
				}
			}
			if len(r.Findings) > 0 {
				return errors.New("the file system is damaged")
			}
			return nil
		},
	}
}
