// Ro serves the blocks of another server, and refuses writes.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

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
			c, err := venti.Dial(ctx, host)
			if err != nil {
				return err
			}
			p := &proxy{host: host, client: c}
			defer p.close()
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
			return venti.NewServer(p, venti.ServerConfig{Logger: log}).Serve(ctx, ln)
		},
	}
}

// A proxy is another server's blocks as a store that cannot be written to.
type proxy struct {
	host string

	mu     sync.Mutex    // guards client, and is held while it connects: all who wait want that
	client *venti.Client // never nil
}

// dial returns a client that was not broken a moment ago.
func (p *proxy) dial(ctx context.Context) (*venti.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.client.Done():
	default:
		return p.client, nil
	}
	c, err := venti.Dial(ctx, p.host)
	if err != nil {
		return nil, err
	}
	p.client.Close()
	p.client = c
	return c, nil
}

func (p *proxy) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.client.Close()
}

// ReadBlock implements venti.BlockReader.
func (p *proxy) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	c, err := p.dial(ctx)
	if err != nil {
		return 0, err
	}
	return c.ReadBlock(ctx, s, t, buf)
}

// HasBlock implements venti.Prober.
func (p *proxy) HasBlock(ctx context.Context, s venti.Score, t venti.Type) (bool, error) {
	c, err := p.dial(ctx)
	if err != nil {
		return false, err
	}
	return c.HasBlock(ctx, s, t)
}

// WriteBlock implements venti.BlockWriter: it refuses.
func (p *proxy) WriteBlock(context.Context, venti.Type, []byte) (venti.Score, error) {
	return venti.Score{}, refusal{}
}

// Sync implements venti.Syncer.
func (p *proxy) Sync(context.Context) error { return nil }

// A refusal is venti.ErrReadOnly in the words of plan9port's ro.
type refusal struct{}

func (refusal) Error() string { return "read-only server" }
func (refusal) Unwrap() error { return venti.ErrReadOnly }
