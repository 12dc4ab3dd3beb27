package main

import (
	"bytes"
	"context"
	"testing"

	"strata/venti/ventitest"
)

func TestSync(t *testing.T) {
	good := ventitest.Serve(t, ventitest.NewMemory())
	bad := ventitest.Serve(t, ventitest.NewFaulty(ventitest.NewMemory(), ventitest.FailFrom(0)))
	for _, tc := range []struct {
		name   string
		args   []string
		status int
		stderr string
	}{
		{"done", []string{"-h", good}, 0, ""},
		{"connect only", []string{"-x", "--host", bad}, 0, ""},
		{"failed", []string{"-h", bad}, 1, "venti/sync: injected fault\n"},
		{"arguments", []string{"-h", good, "x"}, 2, "usage: venti/sync [-x] [-h host]\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(context.Background(), tc.args, nil, &stdout, &stderr)
			if status != tc.status || stdout.Len() != 0 || stderr.String() != tc.stderr {
				t.Errorf("status %d, stdout %q, stderr %q, want %d, %q", status, stdout.String(), stderr.String(), tc.status, tc.stderr)
			}
		})
	}
}
