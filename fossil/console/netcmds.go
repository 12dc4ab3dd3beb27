package console

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"strata/internal/netaddr"
)

// netCommands are about who comes over the network.
func netCommands() []Command {
	return []Command{{
		Name: "con", Args: "[-m connections]",
		Help: "Print how many connections there are, and how many there may be at once; -m changes that.\nOne more is turned away.",
		Run:  runCon,
	}, {
		Name: "dflag",
		Help: "Log every message of 9P from now on, or do so no more.",
		Run:  runDflag,
	}, {
		Name: "listen", Args: "[-IN] [-d] [address]",
		Help: "Print the addresses at which files are served, or serve them at another.\n" +
			"-N whom nothing proves to be anybody may be none; -I turn away who comes from an address that no rule of\n" +
			"fossil --user is about; -d serve no more there.",
		Run: runListen,
	}, {
		Name: "msg", Args: "[-m messages] [-p requests]",
		Help: "Print what each connection may ask for at once, and how often it had to wait.\n" +
			"-m for how many messages of the largest size there is memory; -p how many requests are worked on.",
		Run: runMsg,
	}, {
		Name: "srv", Args: "[-AINPWp] [-d] [name]",
		Help: "Print the sockets, or serve files at one.\nA name that has no directory is that of a socket NAME.sock beside the others.\n" +
			"-p serve the console, not files; -A believe clients who they are; -P check no permissions; -W let wstat\n" +
			"change anything; -I and -N as for listen; -d serve no more there.",
		Run: runSrv,
	}, {
		Name: "who",
		Help: "Print who is connected.\nEach line is a number, an address, a dialect, the fids and requests, and as whom it is attached.",
		Run:  runWho,
	}}
}

func runCon(_ context.Context, c *Call) error {
	fs := c.Flags()
	most := fs.IntP("connections", "m", 0, "")
	if err := c.Parse(fs, 0, 0); err != nil {
		return err
	}
	if fs.Changed("connections") {
		if *most < 1 {
			return c.Usagef("bad number of connections %d", *most)
		}
		c.Host.mostConns.Store(int64(*most))
		return nil
	}
	c.Printf("\tcon -m %d\n", c.Host.mostConns.Load())
	c.Printf("\tconnections: %d\n", c.Host.conns.Load())
	return nil
}

func runDflag(_ context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 0); err != nil {
		return err
	}
	state := "off"
	if c.Host.ToggleDebug() {
		state = "on"
	}
	c.Printf("\tdflag is %s\n", state)
	return nil
}

func runMsg(_ context.Context, c *Call) error {
	fs := c.Flags()
	messages := fs.IntP("messages", "m", 0, "")
	requests := fs.IntP("requests", "p", 0, "")
	if err := c.Parse(fs, 0, 0); err != nil {
		return err
	}
	for flag, n := range map[string]int{"messages": *messages, "requests": *requests} {
		if fs.Changed(flag) && (n < 1 || n > 1<<20) {
			return c.Usagef("bad number of %s %d", flag, n)
		}
	}
	h := c.Host
	h.setLimits(*requests, *messages)
	if fs.NFlag() > 0 {
		return nil
	}
	c.Printf("\tmsg -m %d -p %d\n", h.mostMessages.Load(), h.mostRequests.Load())
	st := h.netStats()
	c.Printf("\twaited: messages %d requests %d\n", st.ByteWaits, st.NumberWaits)
	return nil
}

func runListen(ctx context.Context, c *Call) error {
	cfg := ServiceConfig{}
	var unknown, none, end bool
	fs := c.Flags()
	fs.BoolVarP(&unknown, "check-address", "I", false, "")
	fs.BoolVarP(&none, "none", "N", false, "")
	fs.BoolVarP(&end, "delete", "d", false, "")
	if err := c.Parse(fs, 0, 1); err != nil {
		return err
	}
	if len(c.Args) == 0 {
		for _, s := range c.Host.serviceList(func(s *service) bool { return s.server != nil && s.network != "unix" }) {
			c.Printf("\tlisten %s\n", s.line())
		}
		return nil
	}
	a, err := netaddr.Parse(c.Args[0], port)
	if err != nil {
		return err
	}
	if a.Network == "unix" {
		return fmt.Errorf("listen: %s is a socket; see srv", c.Args[0])
	}
	if end {
		return c.Host.endService(c.Args[0])
	}
	cfg.Addr, cfg.KnownOnly, cfg.NoNone = c.Args[0], unknown, !none
	return c.serve(ctx, cfg)
}

func runSrv(ctx context.Context, c *Call) error {
	var cfg ServiceConfig
	var none, end bool
	fs := c.Flags()
	fs.BoolVarP(&cfg.NoAuth, "no-auth", "A", false, "")
	fs.BoolVarP(&cfg.KnownOnly, "check-address", "I", false, "")
	fs.BoolVarP(&none, "none", "N", false, "")
	fs.BoolVarP(&cfg.NoPermissions, "no-permissions", "P", false, "")
	fs.BoolVarP(&cfg.AnyWstat, "any-wstat", "W", false, "")
	fs.BoolVarP(&cfg.Console, "console", "p", false, "")
	fs.BoolVarP(&end, "delete", "d", false, "")
	if err := c.Parse(fs, 0, 1); err != nil {
		return err
	}
	if len(c.Args) == 0 {
		for _, s := range c.Host.serviceList(func(s *service) bool { return s.network == "unix" && !s.cfg.HTTP }) {
			c.Printf("\tsrv %s\n", s.line())
		}
		return nil
	}
	cfg.Addr = c.Args[0]
	if !strings.ContainsAny(cfg.Addr, "/!") {
		if !strings.HasSuffix(cfg.Addr, ".sock") {
			cfg.Addr += ".sock"
		}
		cfg.Addr = "unix!" + filepath.Join(c.Host.cfg.Dir, cfg.Addr)
	}
	a, err := netaddr.Parse(cfg.Addr, port)
	switch {
	case err != nil:
		return err
	case a.Network != "unix":
		return fmt.Errorf("srv: %s is no socket; see listen", cfg.Addr)
	case end:
		return c.Host.endService(cfg.Addr)
	case cfg.Console && cfg.NoPermissions:
		return fmt.Errorf("srv: cannot use -P with -p")
	}
	cfg.NoNone = !none
	if (cfg.Console || cfg.NoPermissions || cfg.AnyWstat) && strings.Contains(cfg.Addr, "!mode=") {
		return fmt.Errorf("srv: with -p, -P or -W the socket is its owner's alone")
	}
	return c.serve(ctx, cfg)
}

// serve serves at an address, and prints how to dial it.
func (c *Call) serve(ctx context.Context, cfg ServiceConfig) error {
	addr, err := c.Host.Serve(ctx, cfg)
	if err != nil {
		return err
	}
	c.Printf("\t%s\n", addr)
	return nil
}

func runWho(_ context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 0); err != nil {
		return err
	}
	for _, s := range c.Host.serviceList(func(s *service) bool { return s.server != nil }) {
		for _, i := range s.server.Conns() {
			users := "-"
			if len(i.Users) > 0 {
				users = strings.Join(i.Users, " ")
			}
			c.Printf("\t%d %s %v %d %d %s\n", i.Number, i.Peer, i.Dialect, i.Fids, i.Requests, users)
		}
	}
	return nil
}
