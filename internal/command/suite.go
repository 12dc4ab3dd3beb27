package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
)

// A Suite is a program of several commands; the first argument says which.
// Their names begin with the suite's: "vdisk import".
type Suite struct {
	Name     string
	Doc      string // what --help says after the usage line, before the list
	Commands []SubCommand
}

// A SubCommand is a command of a suite. New is called only for the one that
// runs, with a fresh Command each time.
type SubCommand struct {
	Name  string // the word that chooses it
	Short string // what it does, in half a line
	New   func() *Command
}

// Main runs the command that the program's arguments choose, and exits, as
// Command.Main does.
func (s *Suite) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(s.Execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Execute runs the command that args[0] names with the rest of args, and
// returns its exit status.
func (s *Suite) Execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		s.help(stderr)
		return 2
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		s.help(stdout)
		return 0
	}
	for _, c := range s.Commands {
		if c.Name == args[0] {
			return c.New().Execute(ctx, args[1:], stdin, stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "%s: unknown command %q\n", s.Name, args[0])
	s.help(stderr)
	return 2
}

func (s *Suite) help(w io.Writer) {
	fmt.Fprintf(w, "usage: %s command [flags] [arguments]\n", s.Name)
	if s.Doc != "" {
		fmt.Fprintf(w, "\n%s\n", s.Doc)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, c := range s.Commands {
		fmt.Fprintf(t, "  %s\t%s\n", c.Name, c.Short)
	}
	t.Flush()
	fmt.Fprintf(w, "\n%s command --help tells about one of them.\n", s.Name)
}
