package command_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"strata/internal/command"
)

func TestExecute(t *testing.T) {
	for _, tc := range []struct {
		name           string
		args           []string
		status         int
		stdout, stderr string
	}{
		{"done", []string{"-n", "3", "x"}, 0, "3 x\n", ""},
		{"help", []string{"--help"}, 0, "usage: t/x [-n number] word\n\nPrints a word.\n\n  -n, --number", ""},
		{"unknown flag", []string{"-q"}, 2, "", "t/x: unknown shorthand flag: 'q' in -q\nusage: t/x [-n number] word\n"},
		{"no argument", nil, 2, "", "usage: t/x [-n number] word\n"},
		{"wrong argument", []string{"a", "b"}, 2, "", "t/x: usage: one word only\nusage: t/x [-n number] word\n"},
		{"failure", []string{"fail"}, 1, "", "t/x: it broke\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var n int
			cmd := command.Command{
				Name: "t/x", Usage: "[-n number] word", Doc: "Prints a word.",
				Flags: func(fs *pflag.FlagSet) { fs.IntVarP(&n, "number", "n", 0, "how often") },
				Run: func(_ context.Context, io command.IO) error {
					switch {
					case len(io.Args) == 0:
						return command.ErrUsage
					case len(io.Args) > 1:
						return command.Usagef("one word only")
					case io.Args[0] == "fail":
						return errors.New("it broke")
					}
					fmt.Fprintln(io.Stdout, n, io.Args[0])
					return nil
				},
			}
			var stdout, stderr bytes.Buffer
			status := cmd.Execute(t.Context(), tc.args, nil, &stdout, &stderr)
			if status != tc.status {
				t.Errorf("status %d, want %d", status, tc.status)
			}
			if got := stdout.String(); !strings.HasPrefix(got, tc.stdout) || (tc.stdout == "" && got != "") {
				t.Errorf("stdout %q, want %q", got, tc.stdout)
			}
			if got := stderr.String(); got != tc.stderr {
				t.Errorf("stderr %q, want %q", got, tc.stderr)
			}
		})
	}
}

func TestCommas(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 13885440: "13,885,440"} {
		if got := command.Commas(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
