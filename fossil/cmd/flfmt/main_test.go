package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strata/fossil"
	"strata/internal/disk"
	"strata/venti"
	"strata/venti/ventitest"
)

// run runs the command, with answer on its standard input.
func run(t *testing.T, answer string, args ...string) (status int, stderr string) {
	t.Helper()
	var stdout, errs bytes.Buffer
	status = newCommand().Execute(t.Context(), args, strings.NewReader(answer), &stdout, &errs)
	if stdout.Len() > 0 {
		t.Errorf("stdout %q", stdout.String())
	}
	return status, errs.String()
}

func TestFlfmt(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   []string // before the file, of 8 MiB
		part   string   // of the file
		status int
		stderr string
	}{
		{"defaults", nil, "", 0, ""},
		{"all", []string{"-b", "56k", "-l", "label", "-y"}, "", 0, ""},
		{"long names", []string{"--blocksize", "1k", "--label", "label", "--yes"}, ":1m-4m", 0, ""},
		{"bad size", []string{"-b", "x"}, "", 2, `bad block size "x"`},
		{"odd size", []string{"-b", "1000"}, "", 1, "bad block size 1000"},
		{"too large", []string{"-b", "64k"}, "", 1, "bad block size 65536"},
		{"too small", nil, ":0-1m", 1, "too small"},
		{"label", []string{"-l", strings.Repeat("x", 128)}, "", 2, "label of 128 bytes"},
		{"score", []string{"-v", "vac:12"}, "", 2, `bad score "12"`},
		{"missing", nil, ".none", 1, "no such file"},
		{"two files", []string{"x"}, "", 2, "usage: fossil/flfmt"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "part")
			if err := disk.Create(file, 8<<20); err != nil {
				t.Fatal(err)
			}
			status, stderr := run(t, "", append(tc.args, file+tc.part)...)
			if status != tc.status || !strings.Contains(stderr, tc.stderr) || tc.status == 0 && stderr != "" {
				t.Fatalf("status %d, %q, want %d, %q", status, stderr, tc.status, tc.stderr)
			}
			if status != 0 {
				return
			}
			p, err := disk.Open(file+tc.part, disk.Options{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			fs, err := fossil.Open(p, fossil.Config{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			defer fs.Close(t.Context())
			for _, name := range []string{"/active", "/archive", "/snapshot"} {
				if _, err := fs.Walk(t.Context(), name); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestFlfmtAsks formats a partition twice.
func TestFlfmtAsks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "part")
	if err := disk.Create(file, 8<<20); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		answer string
		args   []string
		status int
		asks   bool
	}{{"", nil, 0, false}, {"n\n", nil, 1, true}, {"", nil, 1, true}, {"y\n", nil, 0, true}, {"", []string{"-y"}, 0, false}} {
		status, stderr := run(t, step.answer, append(step.args, file)...)
		if status != step.status || strings.Contains(stderr, "[y/n]") != step.asks {
			t.Errorf("answer %q: status %d, %q", step.answer, status, stderr)
		}
	}
}

// TestFlfmtArchive makes a file system of another's archive.
func TestFlfmtArchive(t *testing.T) {
	dir := t.TempDir()
	st := ventitest.NewMemory()
	addr := ventitest.Serve(t, st)
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	for _, file := range []string{one, two} {
		if err := disk.Create(file, 8<<20); err != nil {
			t.Fatal(err)
		}
	}
	if status, stderr := run(t, "", one); status != 0 {
		t.Fatal(stderr)
	}
	open := func(file string) *fossil.FS {
		p, err := disk.Open(file, disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		fs, err := fossil.Open(p, fossil.Config{Venti: st, Interval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return fs
	}
	fs := open(one)
	active, err := fs.Walk(t.Context(), "/active")
	if err != nil {
		t.Fatal(err)
	}
	f, err := active.Create(t.Context(), "f", 0o644, "ken")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(t.Context(), []byte("hello"), 0, "ken"); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Snapshot(t.Context(), fossil.SnapConfig{Archive: true}); err != nil {
		t.Fatal(err)
	}
	score, err := fs.Archive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{score.String(), "vac:" + score.String()} {
		if status, stderr := run(t, "", "-y", "-h", addr, "-v", arg, two); status != 0 {
			t.Fatalf("status %d, %s", status, stderr)
		}
	}
	if status, stderr := run(t, "", "-y", "-h", addr, "-v", venti.ScoreOf([]byte("none")).String(), two); status != 1 || !strings.Contains(stderr, "no block") {
		t.Errorf("no such archive: status %d, %s", status, stderr)
	}
	if status, stderr := run(t, "", "-y", "-h", addr, "-v", score.String(), two); status != 0 {
		t.Fatalf("status %d, %s", status, stderr)
	}
	fs = open(two)
	f, err = fs.Walk(t.Context(), "/active/f")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if n, err := f.ReadAt(t.Context(), b, 0); err != nil || string(b[:n]) != "hello" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	if err := fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
