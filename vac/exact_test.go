package vac_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"strata/vac"
	"strata/venti"
	"strata/venti/ventitest"
)

// unpackExact unpacks the files that the exact archives were made of, with
// their times, and returns their directory.
func unpackExact(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the files must be root's, and only root can make them so")
	}
	dir := t.TempDir()
	for r := tar.NewReader(bytes.NewReader(goldenFile(t, "exact.tar.gz"))); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o700)
		case tar.TypeReg, tar.TypeGNUSparse:
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, b, 0o600)
			}
		default:
			t.Fatalf("%s has type %c", h.Name, h.Typeflag)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	setExact(t, filepath.Join(dir, "exact"))
	return filepath.Join(dir, "exact")
}

// setExact sets modes and times as the list says.
func setExact(t *testing.T, dir string) {
	t.Helper()
	lines := slices.Collect(strings.Lines(string(goldenFile(t, "exact.files.tsv"))))
	slices.Reverse(lines) // directories after what is in them
	for _, line := range lines {
		f := strings.Split(line, "\t")
		if strings.HasPrefix(line, "#") {
			continue
		}
		mode, err := strconv.ParseUint(f[1], 8, 32)
		if err != nil {
			t.Fatal(err)
		}
		mtime, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, f[0])
		if err := os.Chmod(path, os.FileMode(mode)&0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Unix(mtime+5, 0), time.Unix(mtime, 0)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExact reaches the scores that plan9port's vac has printed.
func TestExact(t *testing.T) {
	dir := unpackExact(t)
	t.Chdir(dir)
	st := ventitest.NewMemory()
	want := goldenScores(t, "v5/scores.txt")
	day := func(month time.Month, d int) time.Time { return time.Date(2021, month, d, 0, 0, 0, 0, time.UTC) }
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var all, some []string
	for _, e := range entries {
		all = append(all, e.Name())
		if strings.HasPrefix(e.Name(), "f00") || e.Name() == "n1" {
			some = append(some, e.Name())
		}
	}
	got := map[string]venti.Score{}
	run := func(name string, args []string, opt vac.Options) {
		t.Helper()
		opt.Plan9port = true
		opt.Warn = func(err error) { t.Errorf("%s: %v", name, err) }
		r, err := vac.Store(t.Context(), st, args, opt)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got[name] = r.Score; r.Score != want[name] {
			t.Errorf("%s: %v, want %v", name, r.Score, want[name])
		}
	}
	open := func(name string) *vac.Archive {
		t.Helper()
		a, err := vac.Open(t.Context(), st, got[name])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return a
	}
	run("exact-8k", all, vac.Options{Now: day(1, 1)})
	run("exact-1k", all, vac.Options{Now: day(1, 1), BlockSize: 1024})
	run("exact-stdin", nil, vac.Options{Now: day(1, 1), Stdin: strings.NewReader("stdin data, frozen clock\n"), StdinName: "in.txt"})
	run("exact-8k-d", all, vac.Options{Now: day(1, 2), Diff: open("exact-8k")})
	for _, name := range all {
		if strings.HasPrefix(name, "f001") {
			if err := os.WriteFile(name, []byte("changed\n"), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	setExact(t, ".")
	run("exact-8k-changed", all, vac.Options{Now: day(1, 3), Diff: open("exact-8k")})
	run("exact-archive-day1", some, vac.Options{Now: day(3, 1), Daily: true})
	run("exact-archive-day2", some, vac.Options{Now: day(3, 2), Daily: true, Append: open("exact-archive-day1")})
}
