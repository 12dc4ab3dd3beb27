package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// A Command is one of the console's.
type Command struct {
	Name  string
	Args  string // what follows the name: "[-n] words"
	Help  string // what it does; the first sentence stands in the list of all
	Scope Scope
	Run   func(ctx context.Context, c *Call) error
}

// A Scope says what a command works on.
type Scope int

// The scopes.
const (
	Global Scope = iota // the host: no file system
	Named               // a file system that is open or not, alone
	Alone               // an open one, halted or not, alone
	Open                // an open one that is not halted, together with others
	Any                 // an open one, halted or not, together with others
)

// commands returns all commands.
func commands() []Command {
	list := slices.Concat(
		hostCommands(),
		fsysCommands(),
		stateCommands(),
		repairCommands(),
		fileCommands(),
		dataCommands(),
		netCommands(),
		nineCommands(),
		snapCommands(),
		userCommands(),
	)
	slices.SortFunc(list, func(a, b Command) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// A Call is a command that is run.
type Call struct {
	Command *Command
	Args    []string // what follows the name; after Parse, what follows the flags
	Out     io.Writer

	Host    *Host
	Session *Session
	Fsys    *Fsys // unless the command is Global
}

// Printf prints something to whoever has given the command.
func (c *Call) Printf(format string, args ...any) { fmt.Fprintf(c.Out, format, args...) }

// Flags returns an empty set of flags.
func (c *Call) Flags() *pflag.FlagSet {
	fs := pflag.NewFlagSet(c.Command.Name, pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.Usage = func() {}
	fs.SetOutput(io.Discard)
	return fs
}

// many is no bound of the number of arguments.
const many = math.MaxInt

// Parse reads the flags. After it, Args is what follows them, at least and at
// most so many words.
func (c *Call) Parse(fs *pflag.FlagSet, least, most int) error {
	switch err := fs.Parse(c.Args); {
	case errors.Is(err, pflag.ErrHelp):
		return c.Usage()
	case err != nil:
		return fmt.Errorf("%w; %w", err, c.Usage())
	}
	c.Args = fs.Args()
	if n := len(c.Args); n < least || n > most {
		return c.Usage()
	}
	return nil
}

// Usage returns the error that a command is used in another way.
func (c *Call) Usage() error { return errors.New("usage: " + c.Command.usage()) }

// Usagef returns that error, and says what is wrong.
func (c *Call) Usagef(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), c.Usage())
}

func (c *Command) usage() string {
	s := c.Name
	if c.Scope != Global {
		s = "[fsys name] " + s
	}
	if c.Args != "" {
		s += " " + c.Args
	}
	return s
}

// summary returns the first sentence of a command's help, in one line.
func (c *Command) summary() string {
	s, _, _ := strings.Cut(strings.ReplaceAll(c.Help, "\n", " "), ". ")
	return strings.TrimSuffix(s, ".")
}
