package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

func TestRead(t *testing.T) {
	st := ventitest.NewMemory()
	addr := ventitest.Serve(t, st)
	t.Setenv("venti", addr)
	scores := map[string]string{}
	for name, typ := range map[string]venti.Type{"data": 0, "pointer": 9, "dir": 8, "root": 16} {
		s, err := st.WriteBlock(t.Context(), typ, []byte(name+" block\n"))
		if err != nil {
			t.Fatal(err)
		}
		scores[name] = s.String()
	}
	const absent = "0123456789012345678901234567890123456789"
	for _, tc := range []struct {
		name           string
		args           []string
		status         int
		stdout, stderr string
	}{
		{"type", []string{"-t", "0", scores["data"]}, 0, "data block\n", ""},
		{"type by name", []string{"--type", "dir", scores["dir"]}, 0, "dir block\n", ""},
		{"prefix", []string{"-t", "16", "vac:" + scores["root"]}, 0, "root block\n", ""},
		{"guess data", []string{scores["data"]}, 0, "data block\n", "venti/read " + scores["data"] + " 0\n"},
		{"guess pointer", []string{scores["pointer"]}, 0, "pointer block\n", "venti/read " + scores["pointer"] + " 1\n"},
		{"guess dir", []string{scores["dir"]}, 0, "dir block\n", "venti/read " + scores["dir"] + " 8\n"},
		{"guess root", []string{"-h", addr, scores["root"]}, 0, "root block\n", "venti/read -h" + addr + " " + scores["root"] + " 16\n"},
		{"empty", []string{"-t", "0", venti.EmptyScore.String()}, 0, "", ""},
		{"wrong type", []string{"-t", "8", scores["data"]}, 1, "", "venti/read: no block with score " + scores["data"] + "/8 exists\n"},
		{"absent", []string{absent}, 1, "", "venti/read: no block with score " + absent + " of any type exists\n"},
		{"no server", []string{"-h", addr + "/none", absent}, 1, "", "venti/read: dial unix "},
		{"no score", nil, 2, "", "usage: venti/read [-h host] [-t type] score\n"},
		{"bad score", []string{"x"}, 2, "", "venti/read: usage: bad score \"x\""},
		{"bad type", []string{"-t", "17", absent}, 2, "", "venti/read: usage: bad block type \"17\"\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(context.Background(), tc.args, nil, &stdout, &stderr)
			if status != tc.status || stdout.String() != tc.stdout || !strings.HasPrefix(stderr.String(), tc.stderr) || tc.stderr == "" && stderr.Len() > 0 {
				t.Errorf("status %d, stdout %q, stderr %q, want %d, %q, %q", status, stdout.String(), stderr.String(), tc.status, tc.stdout, tc.stderr)
			}
		})
	}
}
