// Syncindex puts into the index what a crash has left out of it, see
// venti-fmt(8).
package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/venti/store"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var verbose bool
	var memory string
	return &command.Command{
		Name: "venti/syncindex", Usage: "[-v] [-I indexmem] config",
		Doc: `Does what the server does when it starts, and ends: it follows the logs of the
arenas to where they end, checks what was not counted, and puts into the index
what is not in it. The server must not run.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.BoolVarP(&verbose, "verbose", "v", false, "say what is done")
			fs.StringVarP(&memory, "index-memory", "I", "64m", "`size` of the cache of index entries")
			fs.StringP("block-memory", "B", "", "does nothing")
			fs.MarkHidden("block-memory")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 1 {
				return command.ErrUsage
			}
			cfg := store.Config{}
			var err error
			if cfg.IndexMem, err = disk.ParseSize(memory); err != nil {
				return command.Usagef("%v", err)
			}
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelInfo
			}
			cfg.Logger = slog.New(slog.NewTextHandler(io.Stderr, &slog.HandlerOptions{Level: level}))
			s, err := store.OpenConf(ctx, io.Args[0], cfg)
			if err != nil {
				return err
			}
			if err := s.Flush(ctx); err != nil {
				s.Close()
				return err
			}
			st := s.Stats()
			if err := s.Close(); err != nil {
				return err
			}
			if verbose {
				fmt.Fprintf(io.Stderr, "%s entries put into the index\n", command.Commas(st.FlushedEntries))
			}
			if st.StuckEntries > 0 {
				return fmt.Errorf("%d entries have no room in their buckets: name an overflow, or make the index larger (fmtisect, fmtindex, buildindex)", st.StuckEntries)
			}
			return nil
		},
	}
}
