package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

func TestDump(t *testing.T) {
	st := ventitest.NewMemory()
	addr := ventitest.Serve(t, st)
	t.Setenv("venti", addr)
	write := func(typ venti.Type, data []byte) venti.Score {
		s, err := st.WriteBlock(t.Context(), typ, data)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	leaf := write(venti.DataType, []byte("leaf"))
	lost := venti.Score{1}
	pointers := write(venti.DataType+1, append(leaf[:], lost[:]...))
	whole := write(venti.DataType+1, leaf[:])
	for _, tc := range []struct {
		name           string
		args           []string
		status         int
		stdout, stderr string
	}{
		{"data", []string{"file:" + leaf.String()}, 0, fmt.Sprintf("%v data n=4\n     6c 65 61 66\n", leaf), ""},
		{"pointers", []string{"-h", addr, whole.String()}, 0, fmt.Sprintf("%v data+1\n    %v data n=4\n         6c 65 61 66\n", whole, leaf), ""},
		{
			"damage",
			[]string{"--host", addr, pointers.String()}, 1,
			fmt.Sprintf("%v data+1\n    %v data n=4\n         6c 65 61 66\n    error reading %v: no block with score %v/0 exists\n", pointers, leaf, lost, lost),
			fmt.Sprintf("venti/dump: dump %v: 1 blocks or entries cannot be read\n", pointers),
		},
		{"absent", []string{lost.String()}, 1, "", "venti/dump: no such block: "},
		{"no server", []string{"-h", addr + "/none", leaf.String()}, 1, "", "venti/dump: dial unix "},
		{"no score", nil, 2, "", "usage: venti/dump [-h host] score\n"},
		{"bad score", []string{"x"}, 2, "", "venti/dump: usage: bad score \"x\""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(t.Context(), tc.args, nil, &stdout, &stderr)
			if status != tc.status || stdout.String() != tc.stdout || !strings.HasPrefix(stderr.String(), tc.stderr) || tc.stderr == "" && stderr.Len() > 0 {
				t.Errorf("status %d, stdout %q, stderr %q, want %d, %q, %q", status, stdout.String(), stderr.String(), tc.status, tc.stdout, tc.stderr)
			}
		})
	}
}
