package main

import (
	"bytes"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

func TestReadfile(t *testing.T) {
	st := ventitest.NewMemory()
	t.Setenv("venti", ventitest.Serve(t, st))
	put := func(typ venti.Type, b []byte, err error) venti.Score {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		score, err := st.WriteBlock(t.Context(), typ, b)
		if err != nil {
			t.Fatal(err)
		}
		return score
	}
	root := func(typ string, dir venti.Score) string {
		rt := venti.Root{Name: "data", Type: typ, Score: dir, BlockSize: 8192}
		b, err := rt.Pack(nil)
		return put(venti.RootType, b, err).String()
	}
	entry := func(e venti.Entry) venti.Score {
		b, err := e.Pack(nil)
		return put(venti.DirType, b, err)
	}
	content := strings.Repeat("some text\n", 5000) + strings.Repeat("\x00", 20000) + "end"
	w, err := hashtree.NewWriter(t.Context(), st, hashtree.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	e, _, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	file := root("file", entry(e))
	dirEntry := e
	dirEntry.Flags |= venti.EntryDir
	gone := e
	gone.Score = venti.Score{1}
	for _, tc := range []struct {
		name           string
		args           []string
		status         int
		stdout, stderr string // stderr is a part
	}{
		{"file", []string{"file:" + file}, 0, content, ""},
		{"verbose", []string{"-v", file}, 0, content, "70003 bytes, in blocks of 8192"},
		{"missing", []string{strings.Repeat("ab", 20)}, 1, "", "read root: no block with score"},
		{"archive", []string{root("vac", entry(e))}, 1, "", `is the root of a "vac", not of a file`},
		{"directory", []string{root("file", entry(dirEntry))}, 1, "", "is no file"},
		{"short directory", []string{root("file", put(venti.DirType, []byte("x"), nil))}, 1, "", "unpack entry: 1 bytes"},
		{"no directory", []string{root("file", venti.Score{2})}, 1, "", "read directory: no block"},
		{"no data", []string{root("file", entry(gone))}, 1, "", "no block with score 01000"},
		{"bad score", []string{"x"}, 2, "", "bad score"},
		{"arguments", nil, 2, "", "usage: venti/readfile"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(t.Context(), tc.args, nil, &stdout, &stderr)
			if status != tc.status || stdout.String() != tc.stdout || !strings.Contains(stderr.String(), tc.stderr) {
				t.Errorf("status %d, %d bytes, stderr %q, want %d, %d, %q", status, stdout.Len(), &stderr, tc.status, len(tc.stdout), tc.stderr)
			}
		})
	}
}
