package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strata/fossil"
	"strata/internal/disk"
	"strata/venti/ventitest"
)

func TestLast(t *testing.T) {
	file := filepath.Join(t.TempDir(), "part")
	if err := disk.Create(file, 8<<20); err != nil {
		t.Fatal(err)
	}
	last := func() (int, string, string) {
		var stdout, stderr bytes.Buffer
		status := newCommand().Execute(t.Context(), []string{file}, nil, &stdout, &stderr)
		return status, stdout.String(), stderr.String()
	}
	if status, _, stderr := last(); status != 1 || !strings.Contains(stderr, "bad disk header") {
		t.Errorf("no file system: status %d, %q", status, stderr)
	}
	p, err := disk.Open(file, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := fossil.Format(t.Context(), p, fossil.FormatConfig{}); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := last(); status != 1 || !strings.Contains(stderr, "in use") {
		t.Errorf("in use: status %d, %q", status, stderr)
	}
	fs, err := fossil.Open(p, fossil.Config{Venti: ventitest.NewMemory(), Interval: time.Hour})
	if err != nil {
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
	p.Close()
	if status, stdout, stderr := last(); status != 0 || stdout != "vac:"+score.String()+"\n" {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}
