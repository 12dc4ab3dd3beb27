package console

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
)

// hostCommands are those that are about no file system.
func hostCommands() []Command {
	return []Command{{
		Name: ".", Args: "file",
		Help: "Run the commands in a file of the host, one in a line.\nWhat goes wrong with one is printed, and the next is run.",
		Run:  runFile,
	}, {
		Name: "bind", Args: "[-b|-a|-c|-bc|-ac] new old",
		Help: "Change the name space, on Plan 9.\nHere it is an error: the host's mount(8) binds directories.",
		Run:  runBind,
	}, {
		Name: "echo", Args: "[-n] words",
		Help: "Print the words.\nWith -n, do not end the line.",
		Run:  runEcho,
	}, {
		Name: "fsys", Args: "[name [command ...]]",
		Help: "Print the names of all file systems, make one current, or run a command on one.\nThe name all stands for each that there is.",
		Run:  runFsys,
	}, {
		Name: "help", Args: "[-l] [command ...]",
		Help: "Print what there is of commands, or tell about some.\nWith -l, print the names only.",
		Run:  runHelp,
	}, {
		Name: "printconfig",
		Help: "Print the commands that configure the file systems as they are.",
		Run:  runPrintConfig,
	}}
}

func runFile(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 1, 1); err != nil {
		return err
	}
	return c.Session.ExecFile(ctx, c.Out, c.Args[0])
}

func runBind(context.Context, *Call) error {
	return errors.New("bind: there is no name space to change but on Plan 9")
}

func runEcho(_ context.Context, c *Call) error {
	fs := c.Flags()
	open := fs.BoolP("no-newline", "n", false, "")
	if err := c.Parse(fs, 0, many); err != nil {
		return err
	}
	end := "\n"
	if *open {
		end = ""
	}
	c.Printf("%s%s", strings.Join(c.Args, " "), end)
	return nil
}

func runFsys(ctx context.Context, c *Call) error {
	switch len(c.Args) {
	case 0:
		for _, f := range c.Host.all() {
			c.Printf("\t%s\n", f.name)
		}
		return nil
	case 1:
		return c.Session.Use(c.Args[0])
	}
	return c.Session.run(ctx, c.Out, c.Args[0], c.Args[1:])
}

func runHelp(_ context.Context, c *Call) error {
	fs := c.Flags()
	names := fs.BoolP("list", "l", false, "")
	if err := c.Parse(fs, 0, many); err != nil {
		return err
	}
	if len(c.Args) == 0 && !*names {
		w := tabwriter.NewWriter(c.Out, 0, 8, 2, ' ', 0)
		for i := range c.Host.table {
			cmd := &c.Host.table[i]
			fmt.Fprintf(w, "\t%s\t%s\n", cmd.Name, cmd.summary())
		}
		return w.Flush()
	}
	var list []*Command
	for _, name := range c.Args {
		cmd := c.Host.command(name)
		if cmd == nil {
			return fmt.Errorf("%s: - eh?", name)
		}
		list = append(list, cmd)
	}
	if len(list) == 0 {
		for i := range c.Host.table {
			list = append(list, &c.Host.table[i])
		}
	}
	for _, cmd := range list {
		if *names {
			c.Printf("%s\n", cmd.Name)
			continue
		}
		c.Printf("\t%s\n", cmd.usage())
		for line := range strings.Lines(cmd.Help) {
			c.Printf("\t\t%s\n", strings.TrimSuffix(line, "\n"))
		}
	}
	return nil
}

func runPrintConfig(_ context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 0); err != nil {
		return err
	}
	for _, f := range c.Host.all() {
		f.mu.Lock()
		device, host := f.device, f.host
		f.mu.Unlock()
		words := []string{"fsys", f.name, "config", device}
		if device == c.Host.defaultDevice() {
			words = words[:3]
		}
		c.Printf("\t%s\n", Join(words))
		if host != "" {
			c.Printf("\t%s\n", Join([]string{"fsys", f.name, "venti", host}))
		}
	}
	return nil
}
