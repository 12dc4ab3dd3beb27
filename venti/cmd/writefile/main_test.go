package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"strata/venti/ventitest"
)

func TestWritefile(t *testing.T) {
	addr := ventitest.Serve(t, ventitest.NewMemory())
	noSync := ventitest.Serve(t, ventitest.NewFaulty(ventitest.NewMemory(), func(op ventitest.Op) error {
		if op.Name == "sync" {
			return ventitest.ErrFault
		}
		return nil
	}))
	for _, tc := range []struct {
		name           string
		args           []string
		stdin          string
		status         int
		stdout, stderr string // patterns
	}{
		{"empty", []string{"-h", addr}, "", 0, `^file:[0-9a-f]{40}\n$`, `^$`},
		{"three blocks", []string{"-v", "-h", addr}, strings.Repeat("a", 8192) + strings.Repeat("b", 9000), 0, `^file:[0-9a-f]{40}\n$`,
			`^3 data blocks written, 0 were there, 0 of zeros\n$`},
		{"again", []string{"-v", "-h", addr}, strings.Repeat("a", 8192) + strings.Repeat("\x00", 8192) + "c", 0, `^file:[0-9a-f]{40}\n$`,
			`^1 data blocks written, 1 were there, 1 of zeros\n$`},
		{"no sync", []string{"-h", noSync}, "x", 1, `^$`, `injected fault`},
		{"arguments", []string{"x"}, "", 2, `^$`, `usage: venti/writefile`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(t.Context(), tc.args, strings.NewReader(tc.stdin), &stdout, &stderr)
			if status != tc.status || !regexp.MustCompile(tc.stdout).Match(stdout.Bytes()) || !regexp.MustCompile(tc.stderr).Match(stderr.Bytes()) {
				t.Errorf("status %d, stdout %q, stderr %q", status, &stdout, &stderr)
			}
		})
	}
}
