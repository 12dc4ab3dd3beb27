package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"strata/vac"
	"strata/venti/ventitest"
)

func execute(args ...string) (status int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	status = newCommand().Execute(context.Background(), args, nil, &out, &errOut)
	return status, out.String(), errOut.String()
}

func TestUnvac(t *testing.T) {
	st := ventitest.NewMemory()
	t.Setenv("venti", ventitest.Serve(t, st))
	t.Setenv("TZ", "UTC")
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"t", "t/d"} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string]string{"t/a": "A", "t/d/c": "C"} {
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", "t/link"); err != nil {
		t.Fatal(err)
	}
	r, err := vac.Store(t.Context(), st, []string{"t"}, vac.Options{})
	if err != nil {
		t.Fatal(err)
	}
	score := vac.FormatScore(r.Score)
	for _, tc := range []struct {
		name   string
		args   string
		status int
		stdout string
		stderr string // a part of it
	}{
		{"list", "-t S", 0, "t/\nt/a\nt/d/\nt/d/c\nt/link\n", ""},
		{"list some", "-t S t/d none", 1, "t/d/\nt/d/c\n", "unvac: didn't find none\nunvac: 1 errors\n"},
		{"contents", "-c S", 0, "AC", ""},
		{"contents of some", "-cv S t/*/c", 0, "C", "t/d/c\n"},
		{"nothing", "", 2, "", "usage: unvac "},
		{"misused", "-c -t S", 2, "", "-c goes with none of -d, -r and -t"},
		{"no archive", "none.vac", 1, "", "open none.vac: no such file or directory"},
		{"no score", "vac:00", 1, "", "bad score"},
		{"extract", "-Ts -C out S", 0, "", "3 files, 2 directories, 2 bytes read, 1 bytes skipped\n"},
		{"again", "-v -C out S t/d", 0, "", "t/d/\nt/d/c\n"},
		{"update", "-ds -C out S t/a", 0, "", "1 files, 0 directories, 0 bytes read, 1 bytes skipped\n"},
	} {
		args := strings.Fields(strings.ReplaceAll(tc.args, "S", score))
		status, stdout, stderr := execute(args...)
		if status != tc.status || stdout != tc.stdout || !strings.Contains(stderr, tc.stderr) {
			t.Errorf("%s: status %d, %q, %q, want %d, %q, %q", tc.name, status, stdout, stderr, tc.status, tc.stdout, tc.stderr)
		}
	}
	status, stdout, _ := execute("-tv", score, "t/a")
	if f := strings.Fields(stdout); status != 0 || len(f) != 7 || f[0] != "--rw-r--r--" || f[3] != "1" || f[6] != "t/a" {
		t.Errorf("-tv: status %d, %q", status, stdout)
	}
	for name, want := range map[string]string{"out/t/a": "A", "out/t/d/c": "C"} {
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}
