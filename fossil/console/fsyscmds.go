package console

import (
	"context"
	"errors"
	"fmt"

	"strata/internal/netaddr"
)

// fsysCommands are those that make file systems known and open them.
func fsysCommands() []Command {
	return []Command{{
		Name: "config", Args: "[partition]", Scope: Named,
		Help: "Say in which partition the file system is.\nWithout one it is that of fossil -f.",
		Run:  runConfig,
	}, {
		Name: "venti", Args: "[address]", Scope: Named,
		Help: "Connect to another Venti server, or to the same anew.\nWithout an address it is the one that was said last, else $venti, else tcp!127.0.0.1!17034.\nWhat was archived before must be there too.",
		Run:  runVenti,
	}, {
		Name: "open", Args: "[-APVWar] [-c blocks]", Scope: Named,
		Help: "Open the file system.\n" +
			"-A believe clients who they are; -P check no permissions; -V do without Venti;\n" +
			"-W let wstat change anything; -a keep no times of access; -r only read;\n" +
			"-c keep so many blocks in memory, but for fossil -m (default 32 MiB of them).",
		Run: runOpen,
	}, {
		Name: "close", Scope: Named,
		Help: "Make everything durable, and let go of the partition.\nClients that have files open get errors.",
		Run:  runClose,
	}, {
		Name: "unconfig", Scope: Named,
		Help: "Forget a file system that is not open.",
		Run:  runUnconfig,
	}}
}

func runConfig(_ context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 1); err != nil {
		return err
	}
	f, device := c.Fsys, c.Host.defaultDevice()
	if len(c.Args) == 1 {
		device = c.Args[0]
	}
	switch {
	case device == "":
		return errors.New("no partition: there is no default without fossil -f")
	case f.FS() != nil:
		return fmt.Errorf("fsys: '%s' already open", f.name)
	}
	c.Host.mu.Lock()
	defer c.Host.mu.Unlock()
	if c.Host.fsys[f.name] != f && (c.Host.fsys[f.name] != nil || f.gone) {
		return fmt.Errorf("fsys: '%s' is being configured by somebody else", f.name)
	}
	c.Host.fsys[f.name] = f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.device = device
	return nil
}

func runVenti(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 1); err != nil {
		return err
	}
	f := c.Fsys
	host := f.host
	if len(c.Args) == 1 {
		host = c.Args[0]
		if _, err := netaddr.Parse(host, "venti"); err != nil {
			return err
		}
	}
	if f.fs != nil {
		if f.venti == nil {
			return fmt.Errorf("fsys: '%s' was opened without Venti", f.name)
		}
		// What the archiver has sent to one server and not synced must not count
		// at another.
		if !f.halted {
			if err := f.fs.Halt(ctx); err != nil {
				return err
			}
			defer f.fs.Unhalt()
		}
		f.venti.dial(host)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.host = host
	return nil
}

func runOpen(ctx context.Context, c *Call) error {
	var o openOptions
	fs := c.Flags()
	fs.BoolVarP(&o.noAuth, "no-auth", "A", false, "")
	fs.BoolVarP(&o.noPermissions, "no-permissions", "P", false, "")
	fs.BoolVarP(&o.noVenti, "no-venti", "V", false, "")
	fs.BoolVarP(&o.anyWstat, "any-wstat", "W", false, "")
	fs.BoolVarP(&o.noAtime, "no-atime", "a", false, "")
	fs.BoolVarP(&o.readOnly, "read-only", "r", false, "")
	fs.IntVarP(&o.cache, "cache", "c", 0, "")
	if err := c.Parse(fs, 0, 0); err != nil {
		return err
	}
	if o.cache < 0 || o.cache > 1<<30 {
		return c.Usagef("bad number of blocks %d", o.cache)
	}
	return c.Fsys.open(ctx, o)
}

func runClose(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 0); err != nil {
		return err
	}
	if c.Fsys.fs == nil {
		return c.Fsys.notOpen()
	}
	return c.Fsys.closeOpen(ctx)
}

func runUnconfig(_ context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 0); err != nil {
		return err
	}
	f := c.Fsys
	if f.FS() != nil {
		return fmt.Errorf("file system %s is opened", f.name)
	}
	c.Host.mu.Lock()
	defer c.Host.mu.Unlock()
	delete(c.Host.fsys, f.name)
	f.gone = true
	return nil
}
