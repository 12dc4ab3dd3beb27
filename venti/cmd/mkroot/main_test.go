package main

import (
	"bytes"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

func TestMkroot(t *testing.T) {
	st := ventitest.NewMemory()
	t.Setenv("venti", ventitest.Serve(t, st))
	empty, prev := venti.EmptyScore.String(), strings.Repeat("12", 20)
	for _, tc := range []struct {
		name   string
		args   []string
		status int
		want   string // the root's score, or part of the error
	}{
		// The scores are those of plan9port's venti/mkroot.
		{"small", []string{"name", "vac", empty, "8192", strings.Repeat("0", 40)}, 0, "1a0776bd5f7010679fd500b7fe6e4287a729ef85"},
		{"prev", []string{"", "file", "vac:" + empty, "512", prev}, 0, "f6ad45d5efdbb3d7a071670494afe8a29fa2eab1"},
		{"block size", []string{"", "file", empty, "x", prev}, 2, `bad block size "x"`},
		{"too small", []string{"", "file", empty, "3", prev}, 1, "bad block size 3"},
		{"score", []string{"", "file", "x", "512", prev}, 2, "bad score"},
		{"previous score", []string{"", "file", empty, "512", "x"}, 2, "bad score"},
		{"long name", []string{strings.Repeat("n", 128), "file", empty, "512", prev}, 1, "bad string"},
		{"arguments", []string{"name"}, 2, "usage: venti/mkroot"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(t.Context(), tc.args, nil, &stdout, &stderr)
			if status != tc.status || !strings.Contains(stdout.String()+stderr.String(), tc.want) {
				t.Fatalf("status %d, stdout %q, stderr %q, want %d, %q", status, &stdout, &stderr, tc.status, tc.want)
			}
			if status != 0 {
				return
			}
			score, err := venti.ParseScore(strings.TrimSuffix(stdout.String(), "\n"))
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, venti.RootSize)
			n, err := st.ReadBlock(t.Context(), score, venti.RootType, buf)
			if err != nil {
				t.Fatal(err)
			}
			if r, err := venti.UnpackRoot(buf[:n]); err != nil || r.Name != tc.args[0] || r.Type != tc.args[1] {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}
