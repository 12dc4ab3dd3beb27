package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/disk"
	"strata/venti/internal/index"
)

func TestFmtisect(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   []string // FILE is a file of 6 MiB
		status int
		stderr string
		want   string // the section
	}{
		{"defaults", []string{"g1isect0", "FILE"}, 0,
			"fmtisect FILE: 671 buckets of 215 entries, 524,288 bytes for index map\n",
			"g1isect0 version 2, 671 buckets of 8192 at 794624"},
		{"version 1", []string{"-1", "old", "FILE"}, 0,
			"fmtisect FILE: 671 buckets of 215 entries, 524,288 bytes for index map\n",
			"old version 1, 671 buckets of 8192 at 794624"},
		{"block size", []string{"-Z", "--block-size", "512", "s", "FILE"}, 0,
			"fmtisect FILE: 10,751 buckets of 13 entries, 524,288 bytes for index map\n",
			"s version 2, 10751 buckets of 512 at 786944"},
		{"part of a file", []string{"-b16k", "s", "FILE:1m-3m"}, 0,
			"fmtisect FILE:1m-3m: 79 buckets of 431 entries, 524,288 bytes for index map\n",
			"s version 2, 79 buckets of 16384 at 802816"},
		{"no file", []string{"s"}, 2, "usage: venti/fmtisect [-1Z] [-b blocksize] name file\n", ""},
		{"bad flag", []string{"-x", "s", "FILE"}, 2, "usage: venti/fmtisect", ""},
		{"block size too large", []string{"-b", "128k", "s", "FILE"}, 2, `bad block size "128k"`, ""},
		{"block size not a power of two", []string{"-b", "3000", "s", "FILE"}, 1, "bad block size 3000", ""},
		{"missing file", []string{"s", "FILE.none"}, 1, "no such file", ""},
		{"bad name", []string{"a b", "FILE"}, 1, "only printable ASCII", ""},
		{"too small", []string{"s", "FILE:0-500k"}, 1, "are too few", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "isect")
			if err := disk.Create(file, 6<<20); err != nil {
				t.Fatal(err)
			}
			name := ""
			for i, a := range tc.args {
				if strings.HasPrefix(a, "FILE") {
					name = file + a[4:]
					tc.args[i] = name
				}
			}
			var stdout, stderr bytes.Buffer
			if status := newCommand().Execute(t.Context(), tc.args, nil, &stdout, &stderr); status != tc.status {
				t.Errorf("status %d, want %d", status, tc.status)
			}
			if want := strings.ReplaceAll(tc.stderr, "FILE", file); !strings.Contains(stderr.String(), want) {
				t.Errorf("stderr %q, want %q", stderr.String(), want)
			}
			if tc.status != 0 {
				return
			}
			p, err := disk.Open(name, disk.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			s, err := index.OpenSection(p)
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%s version %d, %d buckets of %d at %d", s.Name, s.Version, s.Blocks, s.BlockSize, s.BlockBase)
			if got != tc.want {
				t.Errorf("section %s, want %s", got, tc.want)
			}
		})
	}
}
