package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"strata/fossil"
)

// allFsys, as the name of a file system, stands for each.
const allFsys = "all"

// A Session is one who gives commands: it remembers which file system they
// are for. It runs one command at a time.
type Session struct {
	h       *Host
	current string // name, or empty
	depth   int    // of files that read files
	star    string // what a word of * stands for, unless it is empty
}

// NewSession returns a session.
func (h *Host) NewSession() *Session { return &Session{h: h} }

// Use makes a file system that is open, or all, the current one.
func (s *Session) Use(name string) error {
	if name != allFsys {
		f, err := s.h.Lookup(name)
		if err != nil {
			return err
		}
		if f.FS() == nil {
			return f.notOpen()
		}
	}
	s.current = name
	return nil
}

// Current returns the name of the current file system, empty if there is none.
func (s *Session) Current() string { return cmp.Or(s.current, s.h.first()) }

// Prompt returns what stands before a line that is being typed.
func (s *Session) Prompt() string { return cmp.Or(s.Current(), "prompt") + ": " }

// Exec runs a line, and writes what it has to say to out.
func (s *Session) Exec(ctx context.Context, out io.Writer, line string) error {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return nil
	}
	words, err := splitWords(line)
	if err != nil {
		return err
	}
	for i, w := range words {
		if w == "*" && s.star != "" {
			words[i] = s.star
		}
	}
	s.h.ran.Add(1)
	return s.run(ctx, out, "", words)
}

// run runs a command: on the file system of that name, if it is not empty.
func (s *Session) run(ctx context.Context, out io.Writer, name string, words []string) error {
	cmd := s.h.command(words[0])
	switch {
	case cmd == nil:
		return fmt.Errorf("%s: - eh?", words[0])
	case cmd.Scope == Global && name != "":
		return fmt.Errorf("%s is no command of file systems", cmd.Name)
	}
	c := Call{Command: cmd, Args: words[1:], Out: out, Host: s.h, Session: s}
	if cmd.Scope == Global {
		return cmd.Run(ctx, &c)
	}
	if name = cmp.Or(name, s.Current()); name == "" {
		return errors.New("no current file system; fsys name makes one so")
	}
	if name != allFsys {
		f, err := s.h.lookup(name, cmd)
		if err != nil {
			return err
		}
		c.Fsys = f
		return f.run(ctx, &c)
	}
	if cmd.Name == "config" || cmd.Name == "open" || cmd.Name == "unconfig" || cmd.Name == "venti" {
		return fmt.Errorf("cannot use fsys all with %s command", cmd.Name)
	}
	var errs []error
	for _, f := range s.h.all() {
		c := c
		c.Fsys, c.Args = f, slices.Clone(words[1:])
		errs = append(errs, f.run(ctx, &c))
	}
	return errors.Join(errs...)
}

// Boot runs the configuration that a partition has before its file system.
func (s *Session) Boot(ctx context.Context, out io.Writer, name string) error {
	text, err := fossil.ReadConfig(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return s.BootLines(ctx, out, name, text, name)
}

// BootLines is ExecLines for a configuration: a word of * there, and a file
// system that is configured without a partition, are in device.
func (s *Session) BootLines(ctx context.Context, out io.Writer, name, text, device string) error {
	s.h.setDevice(device)
	s.star = device
	defer func() { s.star = "" }()
	return s.ExecLines(ctx, out, name, text)
}

// maxDepth is how deep files of commands may be nested.
const maxDepth = 16

// ExecFile runs the lines of a file. What goes wrong with one is printed, and
// the next is run; the error is that something did.
func (s *Session) ExecFile(ctx context.Context, out io.Writer, name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return s.ExecLines(ctx, out, name, string(text))
}

// ExecLines is ExecFile of a text that came from a file.
func (s *Session) ExecLines(ctx context.Context, out io.Writer, name, text string) error {
	if s.depth >= maxDepth {
		return fmt.Errorf("%s: %d files deep", name, s.depth)
	}
	s.depth++
	defer func() { s.depth-- }()
	failed := 0
	for line := range strings.Lines(text) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.Exec(ctx, out, line); err != nil {
			failed++
			fmt.Fprintf(out, "%s: %v\n", strings.TrimSpace(line), err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%s: %d commands failed", name, failed)
	}
	return nil
}
