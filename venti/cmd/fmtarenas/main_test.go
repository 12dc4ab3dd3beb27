package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/disk"
	"strata/venti/internal/arena"
)

func TestFmtarenas(t *testing.T) {
	const size = 14 << 20
	for _, tc := range []struct {
		name    string
		args    []string
		status  int
		stderr  string // F stands for the file
		arenas  int
		version int
		block   int
	}{
		{
			name: "the manual's way", args: []string{"-a", "4M", "arena", "F"}, arenas: 4, version: 5, block: 8192,
			stderr: "fmtarenas F: 4 arenas, 13,885,440 bytes storage, 524,288 bytes for index map\n",
		}, {
			name: "long names", args: []string{"--arena-size=8m", "--block-size=64k", "arena", "F"}, arenas: 2, version: 5, block: 65536,
			stderr: "fmtarenas F: 2 arenas, 13,828,096 bytes storage, 524,288 bytes for index map\n",
		}, {
			name: "version 4", args: []string{"-4", "arena", "F"}, arenas: 1, version: 4, block: 8192,
			stderr: "clearing F\nfmtarenas F: 1 arenas, 13,885,440 bytes storage, 524,288 bytes for index map\n",
		}, {
			name: "version 4, not zeroed", args: []string{"-4Z", "arena", "F"}, arenas: 1, version: 4, block: 8192,
			stderr: "fmtarenas F: 1 arenas, 13,885,440 bytes storage, 524,288 bytes for index map\n",
		},
		{name: "no file", args: []string{"arena"}, status: 2, stderr: "usage: "},
		{name: "bad size", args: []string{"-a", "4x", "arena", "F"}, status: 2, stderr: `venti/fmtarenas: usage: bad arena size "4x"`},
		{name: "bad block size", args: []string{"-b", "1000", "arena", "F"}, status: 1, stderr: "venti/fmtarenas: F: format arena partition: bad block size 1000"},
		{name: "large block size", args: []string{"-b", "128k", "arena", "F"}, status: 1, stderr: "venti/fmtarenas: F: format arena partition: bad block size 131072"},
		{name: "small arenas", args: []string{"-a", "64k", "arena", "F"}, status: 1, stderr: "venti/fmtarenas: F: format arena partition: bad arena size 65536"},
		{name: "small file", args: []string{"arena", "F:0-200k"}, status: 1, stderr: "venti/fmtarenas: F:0-200k: format arena partition: 204800 bytes have no room"},
		{name: "bad name", args: []string{"a b", "F"}, status: 1, stderr: `venti/fmtarenas: F: format arena partition: bad arena name "a b0"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "arenas")
			if err := disk.Create(file, size); err != nil {
				t.Fatal(err)
			}
			replace := strings.NewReplacer("F", file)
			args := make([]string, len(tc.args))
			for i, a := range tc.args {
				args[i] = a
				if strings.HasPrefix(a, "F") {
					args[i] = replace.Replace(a)
				}
			}
			var stderr bytes.Buffer
			status := newCommand().Execute(t.Context(), args, nil, nil, &stderr)
			got := strings.ReplaceAll(stderr.String(), file, "F")
			if status != tc.status || !strings.HasPrefix(got, tc.stderr) || (status == 0 && got != tc.stderr) {
				t.Errorf("status %d, %q, want %d, %q", status, got, tc.status, tc.stderr)
			}
			if status != 0 {
				b, err := os.ReadFile(file)
				if err != nil || len(bytes.Trim(b, "\x00")) > 0 {
					t.Errorf("file was changed, %v", err)
				}
				return
			}
			f, err := disk.Open(file, disk.Options{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p, err := arena.OpenPartition(f)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Arenas) != tc.arenas || p.BlockSize != tc.block {
				t.Errorf("%d arenas, blocks of %d, want %d, %d", len(p.Arenas), p.BlockSize, tc.arenas, tc.block)
			}
			for i := range p.Arenas {
				a, err := p.OpenArena(i)
				if err != nil {
					t.Fatal(err)
				}
				if a.Version != tc.version {
					t.Errorf("%s has version %d, want %d", a.Name, a.Version, tc.version)
				}
			}
		})
	}
}
