package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

func TestReadlist(t *testing.T) {
	st := ventitest.NewMemory()
	t.Setenv("venti", ventitest.Serve(t, st))
	var list strings.Builder
	for i := range 2500 {
		score, err := st.WriteBlock(t.Context(), venti.Type(i%17), fmt.Append(nil, "block ", i))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&list, "%v\t%d\n", score, i%17)
	}
	whole := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(whole, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	absent := strings.Repeat("ab", 20)
	broken := ventitest.Serve(t, ventitest.NewFaulty(st, ventitest.FailFrom(0)))
	for _, tc := range []struct {
		name           string
		args           []string
		stdin          string
		status         int
		stdout, stderr string // stderr is a part
	}{
		{"file", []string{whole}, "", 0, "1000...2000...", ""},
		{"two files", []string{whole, whole}, "", 0, "1000...2000...3000...4000...5000...", ""},
		{"one by one", []string{"-p", "1"}, list.String(), 0, "1000...2000...", ""},
		{"missing", nil, absent + " 3\n" + list.String() + absent + " data", 1, "1000...2000...",
			"could not read " + absent + " 0: no block with score " + absent + "/0 exists\nventi/readlist: 2 of 2502 blocks could not be read\n"},
		{"one field", nil, "\n", 1, "", "venti/readlist: standard input:1: want a score and a type\n"},
		{"bad score", nil, absent + " 0\nxyz 0\n", 1, "", `standard input:2: bad score "xyz"`},
		{"bad type", nil, absent + " 17\n", 1, "", `standard input:1: bad block type "17"`},
		{"no file", []string{whole + "x"}, "", 1, "", "no such file"},
		{"broken server", []string{"-h", broken, whole}, "", 1, "", "injected fault"},
		{"usage", []string{"-p", "0"}, "", 2, "", "bad number of blocks 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(t.Context(), tc.args, strings.NewReader(tc.stdin), &stdout, &stderr)
			if status != tc.status || stdout.String() != tc.stdout || !strings.Contains(stderr.String(), tc.stderr) || tc.stderr == "" && stderr.Len() > 0 {
				t.Errorf("status %d, stdout %q, stderr %q, want %d, %q, %q", status, &stdout, &stderr, tc.status, tc.stdout, tc.stderr)
			}
		})
	}
}
