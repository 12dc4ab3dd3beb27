package command

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

func TestSuite(t *testing.T) {
	s := &Suite{
		Name: "tool", Doc: "Tool does things.",
		Commands: []SubCommand{
			{"echo", "print the arguments", func() *Command {
				return &Command{Name: "tool echo", Usage: "[word ...]", Run: func(ctx context.Context, io IO) error {
					fmt.Fprintln(io.Stdout, strings.Join(io.Args, " "))
					return nil
				}}
			}},
			{"fail", "fail", func() *Command {
				return &Command{Name: "tool fail", Run: func(ctx context.Context, io IO) error { return fmt.Errorf("no luck") }}
			}},
		},
	}
	for _, c := range []struct {
		name     string
		args     []string
		status   int
		out, err string // substrings
	}{
		{"nothing", nil, 2, "", "usage: tool command"},
		{"help", []string{"--help"}, 0, "  echo  print the arguments\n", ""},
		{"unknown", []string{"jump"}, 2, "", `tool: unknown command "jump"`},
		{"run", []string{"echo", "a", "b"}, 0, "a b\n", ""},
		{"its help", []string{"echo", "--help"}, 0, "usage: tool echo [word ...]", ""},
		{"its failure", []string{"fail"}, 1, "", "tool fail: no luck\n"},
		{"its usage", []string{"echo", "--loud"}, 2, "", "usage: tool echo [word ...]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, err strings.Builder
			status := s.Execute(t.Context(), c.args, strings.NewReader(""), &out, &err)
			if status != c.status {
				t.Errorf("status: got %d, want %d", status, c.status)
			}
			if !strings.Contains(out.String(), c.out) || c.out == "" && out.Len() > 0 {
				t.Errorf("output: got %q, want %q", out.String(), c.out)
			}
			if !strings.Contains(err.String(), c.err) || c.err == "" && err.Len() > 0 {
				t.Errorf("messages: got %q, want %q", err.String(), c.err)
			}
		})
	}
}
