package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"strata/fossil"
	"strata/internal/disk"
)

func TestFlchk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "part")
	if err := disk.Create(file, 8<<20); err != nil {
		t.Fatal(err)
	}
	p, err := disk.Open(file, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := fossil.Format(t.Context(), p, fossil.FormatConfig{BlockSize: 8192}); err != nil {
		t.Fatal(err)
	}
	p.Close()
	check := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		status := newCommand().Execute(t.Context(), args, nil, &stdout, &stderr)
		return status, stdout.String(), stderr.String()
	}
	want := "checking epoch 1...\nfsys blocks: total=1003 used="
	if status, stdout, stderr := check("-f", file); status != 0 || !strings.HasPrefix(stdout, want) || strings.Count(stdout, "\n") != 2 || stderr != "" {
		t.Errorf("status %d, %q, %q, want %q", status, stdout, stderr, want)
	}
	if status, _, stderr := check("-h", "unix!"+file+".none", file); status != 1 || !strings.Contains(stderr, "-f does without Venti") {
		t.Errorf("no Venti: status %d, %q", status, stderr)
	}
	if status, _, _ := check(); status != 2 {
		t.Errorf("no file: status %d", status)
	}
	// A block that nothing links to: the label of the last is made that of data.
	if p, err = disk.Open(file, disk.Options{}); err != nil {
		t.Fatal(err)
	}
	label := []byte{1, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0}
	if _, err := p.WriteAt(label, 19*8192+500*14); err != nil {
		t.Fatal(err)
	}
	p.Close()
	status, stdout, stderr := check("-f", file)
	want = "lost=1(0.1%)\nerror: unreachable block: addr 0x1f4 alloc data epoch 1 tag 0x100\n# bclose 0x1f4 0\n"
	if status != 1 || !strings.HasSuffix(stdout, want) || stderr != "fossil/flchk: the file system is damaged\n" {
		t.Errorf("status %d, %q, %q, want %q", status, stdout, stderr, want)
	}

	// It is given back, and the file system is clean then.
	status, stdout, stderr = check("-fx", file)
	for _, want := range []string{"checking again...\n", "lost=0", "\nrepaired: unreachable block: addr 0x1f4", "\nfsck: 0 clri, 0 clre, 0 clrp, 1 bclose\n"} {
		if status != 0 || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("repair: status %d, %q, %q, want %q", status, stdout, stderr, want)
		}
	}
	if status, stdout, _ := check("-fsdv", file); status != 0 || !strings.Contains(stdout, "lost=0") || !strings.Contains(stdout, "dir /active/\n") || !strings.Contains(stdout, "\nblock 0x") {
		t.Errorf("after the repair: status %d, %q", status, stdout)
	}
	// The root directory's own stream cannot be repaired.
	if p, err = disk.Open(file, disk.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt(make([]byte, 8192), 19*8192); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if status, _, stderr := check("-fx", file); status != 1 || stderr == "" {
		t.Errorf("no labels: status %d, %q", status, stderr)
	}
	if status, _, _ := check("-fV", file); status != 2 {
		t.Errorf("-f and -V: status %d", status)
	}
}
