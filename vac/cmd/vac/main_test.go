package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/vac"
	"strata/venti"
	"strata/venti/ventitest"
)

// run executes vac and returns its status and what it printed.
func execute(args ...string) (status int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	status = newCommand().Execute(context.Background(), args, strings.NewReader("from stdin"), &out, &errOut)
	return status, out.String(), errOut.String()
}

func TestVac(t *testing.T) {
	st := ventitest.NewMemory()
	t.Setenv("venti", ventitest.Serve(t, st))
	dir := t.TempDir()
	t.Chdir(dir)
	for name, data := range map[string]string{"t/a": "a", "t/b.o": "b", "t/d/c": "c", "x": "# x\nexclude .../c\n"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	list := func(text string) string {
		t.Helper()
		score, err := vac.FindScore(strings.TrimSpace(text))
		if err != nil {
			t.Fatal(err)
		}
		a, err := vac.Open(t.Context(), st, score)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		var walk func(d *vac.File)
		walk = func(d *vac.File) {
			for f, err := range d.ReadDir(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, f.Path())
				if f.IsDir() {
					walk(f)
				}
			}
		}
		walk(a.Root)
		return strings.Join(names, " ")
	}
	for _, tc := range []struct {
		name   string
		args   string
		status int
		want   string // files in the archive that is printed; or stdout with a status of 2
		stderr string // a part of it
	}{
		{"tree", "t", 0, "t t/a t/b.o t/d t/d/c", ""},
		{"verbose", "-v t", 0, "t t/a t/b.o t/d t/d/c", "t/\nt/a\nt/b.o\nt/d/\nt/d/c\n"},
		{"statistics", "-s t", 0, "t t/a t/b.o t/d t/d/c", "3 files, 0 files skipped, 2 directories\n0 data bytes written, 3 data bytes skipped\n"},
		{"exclude", "-e t/*.o -x x t", 0, "t t/a t/d", "vac: excluding t/b.o\nvac: excluding t/d/c\n"},
		{"stdin", "-i in t/a", 0, "a in", ""},
		{"missing", "t/a none", 1, "a", "vac: open none: no such file or directory\nvac: 1 files could not be stored; the archive has the others\n"},
		{"nothing", "", 2, "", "usage: vac "},
		{"quick alone", "-q t", 2, "", "-q needs -a or -d"},
		{"both archives", "-a a.vac -f b.vac t", 2, "", "-a goes with neither -d nor -f"},
		{"block size", "-b 64k t", 2, "", "block size must be from 512 to 57344"},
		{"block size in k", "-b 1k t/a", 0, "a", ""},
		{"bad pattern", "-e [ t", 2, "", "[ without ]"},
		{"no old archive", "-q -d none.vac t/a", 0, "a", "vac: nothing to compare with: open none.vac: no such file or directory\n"},
		{"bad output", "-f none/x.vac t/a", 1, "", "no such file or directory"},
	} {
		status, stdout, stderr := execute(strings.Fields(tc.args)...)
		if status != tc.status || !strings.Contains(stderr, tc.stderr) {
			t.Errorf("%s: status %d, stderr %q, want %d, %q", tc.name, status, stderr, tc.status, tc.stderr)
		}
		if tc.want == "" {
			if stdout != "" {
				t.Errorf("%s: printed %q", tc.name, stdout)
			}
		} else if got := list(stdout); got != tc.want {
			t.Errorf("%s: holds %q, want %q", tc.name, got, tc.want)
		}
	}

	// Files that hold scores.
	if status, stdout, stderr := execute("-f", "f.vac", "t"); status != 0 || stdout != "" {
		t.Errorf("-f: status %d, %q, %q", status, stdout, stderr)
	}
	if got := list("f.vac"); got != "t t/a t/b.o t/d t/d/c" {
		t.Errorf("f.vac holds %q", got)
	}
	for n, want := range []int{1, 2} {
		if status, _, stderr := execute("-a", "a.vac", "--plan9port=1609459200", "t/a"); status != 0 {
			t.Fatalf("-a: status %d, %q", status, stderr)
		}
		if got := strings.Count(list("a.vac"), "/a"); got != want {
			t.Errorf("after run %d the archive holds %q", n, list("a.vac"))
		}
	}
	lock, err := lockArchive("a.vac")
	if err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := execute("-a", "a.vac", "t/a"); status != 1 || !strings.Contains(stderr, "another vac adds to it") {
		t.Errorf("-a at once: status %d, %q", status, stderr)
	}
	lock.Close()
	left, err := filepath.Glob(".vac-*")
	if err != nil || len(left) > 0 {
		t.Errorf("files left: %q, %v", left, err)
	}
}

// TestNoScore: without an archive there is no score, and the file that had one
// keeps it.
func TestNoScore(t *testing.T) {
	t.Setenv("venti", ventitest.Serve(t, venti.ReadOnly(ventitest.NewMemory())))
	t.Chdir(t.TempDir())
	for _, name := range []string{"a", "old.vac"} {
		if err := os.WriteFile(name, []byte("contents"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"a"}, {"-f", "old.vac", "a"}, {"-f", "new.vac", "a"}} {
		status, stdout, stderr := execute(args...)
		if status != 1 || stdout != "" || !strings.Contains(stderr, "read only") {
			t.Errorf("%q: status %d, %q, %q", args, status, stdout, stderr)
		}
	}
	if b, err := os.ReadFile("old.vac"); err != nil || string(b) != "contents" {
		t.Errorf("old.vac: %q, %v", b, err)
	}
	if _, err := os.Stat("new.vac"); err == nil {
		t.Error("there is a new.vac")
	}
}
