package main

import (
	"bufio"
	"context"
	"fmt"

	"strata/fossil/console"
	"strata/internal/command"
)

// terminal runs the lines of standard input until it, or ctx, ends.
func terminal(ctx context.Context, s *console.Session, io command.IO) error {
	lines := make(chan string)
	var readErr error
	go func() { // ends with the program: a read of a terminal cannot be interrupted
		defer close(lines)
		in := bufio.NewScanner(io.Stdin)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			select {
			case lines <- in.Text():
			case <-ctx.Done():
				return
			}
		}
		readErr = in.Err()
	}()
	for {
		fmt.Fprint(io.Stdout, s.Prompt())
		select {
		case line, ok := <-lines:
			if !ok {
				return readErr
			}
			if err := s.Exec(ctx, io.Stdout, line); err != nil {
				fmt.Fprintln(io.Stdout, err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
