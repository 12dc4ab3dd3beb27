package main

import (
	"context"
	"fmt"
	"io"

	"strata/fossil/console"
)

// A startup is what -c and -f say, in the order in which they stand.
type startup []step

type step struct {
	text string // a command, or the name of a partition
	file bool
}

// A startFlag is -c, or -f.
type startFlag struct {
	to   *startup
	file bool
}

// Set implements pflag.Value.
func (f startFlag) Set(text string) error {
	*f.to = append(*f.to, step{text, f.file})
	return nil
}

// String implements pflag.Value.
func (f startFlag) String() string { return "" }

// Type implements pflag.Value.
func (f startFlag) Type() string { return "string" }

// run runs all; the error is that some failed.
func (s startup) run(ctx context.Context, session *console.Session, out io.Writer) error {
	failed := 0
	for _, step := range s {
		var err error
		if step.file {
			err = session.Boot(ctx, out, step.text)
		} else {
			err = session.Exec(ctx, out, step.text)
		}
		if err != nil {
			failed++
			fmt.Fprintf(out, "%s: %v\n", step.text, err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("start: %d of %d failed", failed, len(s))
	}
	return nil
}
