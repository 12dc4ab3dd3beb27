package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

func TestRoot(t *testing.T) {
	st := ventitest.NewMemory()
	t.Setenv("venti", ventitest.Serve(t, st))
	put := func(b []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		s, err := st.WriteBlock(t.Context(), venti.RootType, b)
		if err != nil {
			t.Fatal(err)
		}
		return s.String()
	}
	first := venti.Root{Type: "vac", Score: venti.EmptyScore, BlockSize: 8192}
	firstScore := put(first.Pack(nil))
	prev, _ := venti.ParseScore(firstScore)
	second := venti.Root{Name: "it's a name", Type: "vdisk", BlockSize: 128 << 10, Prev: prev}
	secondScore := put(second.Pack(nil))
	noRoot := put([]byte("abc"), nil)
	const zero = "0000000000000000000000000000000000000000"
	firstLine := firstScore + ": '' vac " + venti.EmptyScore.String() + " 8192 " + zero + "\n"
	secondLine := secondScore + ": 'it''s a name' vdisk " + zero + " 131072 " + firstScore + "\n"
	for _, tc := range []struct {
		name           string
		args           []string
		status         int
		stdout, stderr string
	}{
		{"one", []string{"vac:" + firstScore}, 0, firstLine, ""},
		{"two", []string{secondScore, firstScore}, 0, secondLine + firstLine, ""},
		{"some", []string{firstScore, noRoot, zero[1:] + "1", secondScore}, 1, firstLine + secondLine,
			"venti/root: root " + noRoot + ": unpack root: 3 bytes, want 300\nroot " + zero[1:] + "1: no block with score"},
		{"none", nil, 2, "", "usage: venti/root [-h host] score...\n"},
		{"bad", []string{"x"}, 2, "", "venti/root: usage: bad score"},
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
