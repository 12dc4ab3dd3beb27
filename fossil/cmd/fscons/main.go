// Fscons gives commands to a Fossil server, see fossilcons(8).
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	stdio "io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"strata/fossil/console"
	"strata/internal/command"
)

func main() { newCommand().Main() }

const doc = `Gives commands to the console of a Fossil server: the words that follow, as one
command; else those of -c, one after the other until one fails; else the lines of
standard input. On a terminal these can be edited and called back, Tab completes the
names of commands, and "help" tells about them.

  fscons df
  fscons -c 'snap -a' -c 'fsys all sync'

The exit status is 1 if a command has failed.`

type options struct {
	addr     string
	commands []string
}

func newCommand() *command.Command {
	o := new(options)
	return &command.Command{
		Name: "fossil/fscons", Usage: "[-a address] [-c command]... [word...]",
		Doc: doc,
		Flags: func(fs *pflag.FlagSet) {
			fs.SetInterspersed(false) // what follows the first word is the command's
			fs.StringVarP(&o.addr, "addr", "a", "unix!fscons.sock", "`address` of the console")
			fs.StringArrayVarP(&o.commands, "command", "c", nil, "run this `command`; may be given again")
		},
		Run: o.run,
	}
}

func (o *options) run(ctx context.Context, io command.IO) error {
	if len(o.commands) > 0 && len(io.Args) > 0 {
		return command.Usagef("-c, or words, but not both")
	}
	c, err := console.Dial(ctx, o.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if len(io.Args) > 0 {
		o.commands = []string{console.Join(io.Args)}
	}
	for _, line := range o.commands {
		if err := c.Exec(ctx, io.Stdout, line); err != nil {
			return err
		}
	}
	if len(o.commands) > 0 {
		return nil
	}
	if in, ok := io.Stdin.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		return interact(ctx, c, in, io.Stdout)
	}
	return script(ctx, c, io)
}

// script runs the lines of standard input.
func script(ctx context.Context, c *console.Client, io command.IO) error {
	in := bufio.NewReader(io.Stdin)
	failed := 0
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			ran, err := run(ctx, c, io.Stdout, io.Stderr, line)
			if err != nil {
				return err
			}
			if !ran {
				failed++
			}
		}
		switch {
		case errors.Is(err, stdio.EOF) && failed > 0:
			return fmt.Errorf("%d commands failed", failed)
		case errors.Is(err, stdio.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// run runs a line. What a command returns as its error is printed, and ran is
// false; an error is that there is no console any more.
func run(ctx context.Context, c *console.Client, out, errs stdio.Writer, line string) (ran bool, err error) {
	err = c.Exec(ctx, out, strings.TrimRight(line, "\r\n"))
	var failed console.Error
	if errors.As(err, &failed) {
		fmt.Fprintln(errs, failed)
		return false, nil
	}
	return err == nil, err
}
