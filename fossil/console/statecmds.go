package console

import (
	"context"
	"fmt"

	"strata/internal/command"
)

// stateCommands are about an open file system as a whole.
func stateCommands() []Command {
	return []Command{{
		Name: "df", Scope: Open,
		Help: "Print how many bytes are in use and free.",
		Run:  runDf,
	}, {
		Name: "halt", Scope: Alone,
		Help: "Make everything durable, and have clients wait until unhalt.",
		Run:  runHalt,
	}, {
		Name: "unhalt", Scope: Alone,
		Help: "Let clients go on after a halt.",
		Run:  runUnhalt,
	}}
}

func runDf(_ context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 0); err != nil {
		return err
	}
	used, total := c.Fsys.FS().Usage()
	percent := 0.0
	if total > 0 {
		percent = 100 * float64(used) / float64(total)
	}
	c.Printf("\t%s: %s used + %s free = %s (%.0f%% used)\n", c.Fsys.Name(),
		command.Commas(used), command.Commas(total-used), command.Commas(total), percent)
	return nil
}

func runHalt(ctx context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 0); err != nil {
		return err
	}
	if c.Fsys.Halted() {
		return fmt.Errorf("file system %s is halted", c.Fsys.Name())
	}
	return c.Fsys.halt(ctx)
}

func runUnhalt(_ context.Context, c *Call) error {
	if err := c.Parse(c.Flags(), 0, 0); err != nil {
		return err
	}
	return c.Fsys.unhalt()
}
