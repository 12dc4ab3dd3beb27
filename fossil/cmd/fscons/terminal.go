package main

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"strata/fossil/console"
)

// A screen is a terminal's two directions.
type screen struct {
	io.Reader
	io.Writer
}

// interact runs the lines that are typed at a terminal, until its end or that
// of ctx. While a command runs the terminal is as it was, so that an interrupt
// ends the program and with it the command.
func interact(ctx context.Context, c *console.Client, in *os.File, out io.Writer) error {
	var names strings.Builder
	if err := c.Exec(ctx, &names, "help -l"); err != nil {
		return err
	}
	t := term.NewTerminal(screen{in, out}, c.Prompt())
	list := strings.Fields(names.String())
	t.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		return complete(list, line, pos)
	}
	for {
		t.SetPrompt(c.Prompt())
		line, err := readLine(t, in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := run(ctx, c, out, out, line); err != nil {
			return err
		}
	}
}

// readLine has a line edited.
func readLine(t *term.Terminal, in *os.File) (string, error) {
	fd := int(in.Fd())
	if width, height, err := term.GetSize(fd); err == nil && width > 0 {
		t.SetSize(width, height)
	}
	state, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	defer term.Restore(fd, state)
	line, err := t.ReadLine()
	if errors.Is(err, term.ErrPasteIndicator) {
		err = nil
	}
	return line, err
}

// complete adds to the word in front of pos what all names that begin so have
// in common, if the word is where a command's name stands: at the beginning, or
// behind "fsys name" or "help".
func complete(names []string, line string, pos int) (string, int, bool) {
	words := strings.Fields(line[:pos])
	if len(words) == 0 || strings.HasSuffix(line[:pos], " ") {
		words = append(words, "")
	}
	n := len(words) - 1
	if n > 0 && !(n == 2 && words[0] == "fsys") && words[0] != "help" {
		return "", 0, false
	}
	word := words[n]
	var match []string
	for _, name := range names {
		if strings.HasPrefix(name, word) {
			match = append(match, name)
		}
	}
	if len(match) == 0 {
		return "", 0, false
	}
	first, last := slices.Min(match), slices.Max(match)
	common := len(word)
	for common < len(first) && common < len(last) && first[common] == last[common] {
		common++
	}
	add := first[len(word):common]
	if len(match) == 1 {
		add += " "
	}
	return line[:pos] + add + line[pos:], pos + len(add), true
}
