// Package command runs the commands of the suite: it parses flags, turns
// signals into the end of a context, and turns errors into messages and exit
// statuses. A command's main is one call:
//
//	func main() { cmd.Main() }
//
// and its test calls Execute with a context, arguments and buffers.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

// A Command is one program. Flags and Run share variables through a closure
// or a struct; Main and Execute may be called once.
type Command struct {
	Name  string // as messages name it: "venti/read"
	Usage string // what follows the name: "[-h host] score"
	Doc   string // what --help says after the usage line, before the flags
	Flags func(*pflag.FlagSet)
	Run   func(ctx context.Context, io IO) error
}

// IO is what a command may touch besides its flags: the arguments that
// follow them, and its streams. Results go to Stdout in lines that a script
// can cut, messages to Stderr.
type IO struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// ErrUsage, returned from Run alone or wrapped, prints the usage line and
// ends the program with status 2.
var ErrUsage = errors.New("usage")

// Usagef returns an error that says what is wrong with the arguments and
// wraps ErrUsage.
func Usagef(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUsage, fmt.Sprintf(format, args...))
}

// Main runs c with the program's arguments and streams and exits: 0 done, 1
// failed, 2 usage. The context that Run gets ends at the first SIGINT or
// SIGTERM; the second kills the program in the usual way.
func (c *Command) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(c.Execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Execute runs c and returns its exit status.
func (c *Command) Execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	fs := pflag.NewFlagSet(c.Name, pflag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.SortFlags = false
	fs.Usage = func() {}
	if c.Flags != nil {
		c.Flags(fs)
	}
	switch err := fs.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprintf(stdout, "usage: %s %s\n", c.Name, c.Usage)
		if c.Doc != "" {
			fmt.Fprintf(stdout, "\n%s\n", c.Doc)
		}
		if fs.HasFlags() {
			fmt.Fprintf(stdout, "\n%s", fs.FlagUsages())
		}
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v\nusage: %s %s\n", c.Name, err, c.Name, c.Usage)
		return 2
	}
	err := c.Run(ctx, IO{Args: fs.Args(), Stdin: stdin, Stdout: stdout, Stderr: stderr})
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrUsage):
		if err != ErrUsage {
			fmt.Fprintf(stderr, "%s: %v\n", c.Name, err)
		}
		fmt.Fprintf(stderr, "usage: %s %s\n", c.Name, c.Usage)
		return 2
	}
	fmt.Fprintf(stderr, "%s: %v\n", c.Name, err)
	return 1
}
