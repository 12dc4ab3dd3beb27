// Ro serves the blocks of another server, and refuses writes.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/venti"
)

func main() { newCommand().Main() }

func newCommand() *command.Command {
	var addr, host string
	var open, verbose bool
	return &command.Command{
		Name: "venti/ro", Usage: "[-v] [-a address] [-h host]",
		Doc: `Passes reads on to another server, and answers what comes back. Writes are
refused; a sync succeeds, for there is nothing to sync. When the other server
is lost, the next read connects to it again.

An address that other machines reach is refused without --open, for anybody
who can connect can read.`,
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVarP(&addr, "address", "a", venti.DefaultAddr, "listen at `address`")
			fs.StringVarP(&host, "host", "h", "", "`address` of the server to read from (default $venti)")
			fs.BoolVarP(&verbose, "verbose", "v", false, "log connections")
			fs.BoolVar(&open, "open", false, "allow an address that other machines reach, with no authentication")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) != 0 {
				return command.ErrUsage
			}
			r, err := venti.DialRemote(ctx, host, venti.RemoteConfig{Patience: upstreamAway})
			if err != nil {
				return err
			}
			defer r.Close()
			ln, err := venti.ListenConfig{Open: open}.Listen(ctx, addr)
			if err != nil {
				return err
			}
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			log := slog.New(slog.NewTextHandler(io.Stderr, &slog.HandlerOptions{Level: level}))
			fmt.Fprintf(io.Stderr, "venti/ro: serving %s\n", addr)
			return venti.NewServer(proxy{r}, venti.ServerConfig{Logger: log}).Serve(ctx, ln)
		},
	}
}

// upstreamAway is how long a read waits for the other server when it cannot be
// reached.
const upstreamAway = 2 * time.Second

// A proxy is another server's blocks as a store that cannot be written to.
type proxy struct{ venti.BlockReader }

// WriteBlock implements venti.BlockWriter: it refuses.
func (proxy) WriteBlock(context.Context, venti.Type, []byte) (venti.Score, error) {
	return venti.Score{}, refusal{}
}

// Sync implements venti.Syncer.
func (proxy) Sync(context.Context) error { return nil }

// A refusal is venti.ErrReadOnly in the words of plan9port's ro.
type refusal struct{}

func (refusal) Error() string { return "read-only server" }
func (refusal) Unwrap() error { return venti.ErrReadOnly }
