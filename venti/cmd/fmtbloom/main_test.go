package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/disk"
	"strata/venti/internal/bloom"
)

func TestFmtbloom(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   []string // before the file, of 8 MiB
		part   string   // of the file
		status int
		stderr string
	}{
		{"defaults", nil, "", 0, "fmtbloom: using 8MB, 32 hashes/score, best up to 1,491,308 blocks\n"},
		{"hashes", []string{"-N", "10"}, ":1m-2m", 0, "fmtbloom: using 1MB, 10 hashes/score, best up to 599,186 blocks\n"},
		{"odd size", nil, ":0-1500000", 0,
			"warning: size not a power of 2; only using 1MB\nfmtbloom: using 1MB, 32 hashes/score, best up to 186,413 blocks\n"},
		{"blocks", []string{"--blocks", "1000000"}, "", 0,
			"warning: using only 4MB - not enough blocks to warrant more\nfmtbloom: using 4MB, 23 hashes/score, best up to 1,048,576 blocks\n"},
		{"size", []string{"-s", "3m"}, "", 0,
			"warning: size not a power of 2; only using 2MB\nfmtbloom: using 2MB, 32 hashes/score, best up to 372,827 blocks\n"},
		{"too many hashes", []string{"-N", "33"}, "", 2, "maximum possible is -N 32"},
		{"both", []string{"-N", "3", "-n", "3"}, "", 2, "usage: venti/fmtbloom [-n nblocks | -N nhash] [-s size] file\n"},
		{"bad size", []string{"-s", "big"}, "", 2, `bad size "big"`},
		{"size too small", []string{"-s", "512k"}, "", 1, "too small"},
		{"size too large", []string{"-s", "16m"}, "", 1, "does not fit"},
		{"file too small", nil, ":0-500k", 1, "too small"},
		{"missing file", nil, ".none", 1, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "bloom")
			if err := disk.Create(file, 8<<20); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			if status := newCommand().Execute(t.Context(), append(tc.args, file+tc.part), nil, &stdout, &stderr); status != tc.status {
				t.Errorf("status %d, want %d", status, tc.status)
			}
			if got := stderr.String(); tc.status == 0 && got != tc.stderr || !strings.Contains(got, tc.stderr) {
				t.Errorf("stderr %q, want %q", got, tc.stderr)
			}
			if tc.status != 0 {
				return
			}
			p, err := disk.Open(file+tc.part, disk.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			f, err := bloom.Open(p)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		})
	}
}
