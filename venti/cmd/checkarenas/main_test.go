package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
)

// partition makes a file with two arenas, three clumps in the first, and
// returns its name and where the clumps begin.
func partition(t *testing.T) (file string, base int64) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "arenas")
	if err := disk.Create(file, 3<<20); err != nil {
		t.Fatal(err)
	}
	f, err := disk.Open(file, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := arena.Format(t.Context(), f, arena.FormatConfig{Name: "a", ArenaSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.OpenArena(0)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := a.ReadTrailer()
	if err != nil {
		t.Fatal(err)
	}
	var e arena.Encoder
	tr.CTime, tr.WTime = 100, 200
	for _, lump := range []string{"one", strings.Repeat("two", 500), "three"} {
		h := arena.ClumpHeader{Magic: a.ClumpMagic, Time: 200}
		h.Type, h.Score = venti.DiskData, venti.ScoreOf([]byte(lump))
		clump := e.Append(nil, &h, []byte(lump), arena.Whack)
		if err := a.WriteLog(clump, tr.Mem.Used); err != nil {
			t.Fatal(err)
		}
		if err := a.WriteInfos([]arena.ClumpInfo{h.ClumpInfo}, int(tr.Mem.Clumps)); err != nil {
			t.Fatal(err)
		}
		tr.Mem.Add(&h.ClumpInfo)
	}
	tr.Disk = tr.Mem
	if err := a.WriteTrailer(&tr); err != nil {
		t.Fatal(err)
	}
	return file, a.Base()
}

// overwrite changes bytes of a file.
func overwrite(t *testing.T, file string, off int64, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), off); err != nil {
		t.Fatal(err)
	}
}

func TestCheckarenas(t *testing.T) {
	for _, tc := range []struct {
		name           string
		damage         func(t *testing.T, file string, base int64)
		args           string // F stands for the file
		status         int
		stdout, stderr string
	}{
		{name: "clean", args: "-a F"},
		{
			name: "described", args: "-v F",
			stdout: "arena='a0' [802816,1851392)\n\tversion=5 created=100 modified=200\n" +
				"\tclumps=3 compressed clumps=1 data=1,508 compressed data=16 disk storage=205\n\n",
		},
		{name: "an arena without clumps", args: "--verbose --all F a1"},
		{
			name: "data", args: "F",
			damage: func(t *testing.T, file string, base int64) { overwrite(t, file, base+38, "eno") },
		}, {
			name: "data, all", args: "-a F", status: 1,
			damage: func(t *testing.T, file string, base int64) { overwrite(t, file, base+38, "eno") },
			stderr: "a0: clump=0 at 0 failed to read correctly: corrupted; expected=fe05bcdcdc4928012781a5f1a2a77cbb5398e106 " +
				"got=54debb229144fea0cac0045d01be0d746bc4a8ba\nventi/checkarenas: F: 1 faults\n",
		}, {
			name: "data, another arena", args: "-a F a1",
			damage: func(t *testing.T, file string, base int64) { overwrite(t, file, base+38, "eno") },
		}, {
			name: "header, repaired", args: "-af F",
			damage: func(t *testing.T, file string, base int64) { overwrite(t, file, base, "magic") },
			stderr: "a0: clump=0 at 0 failed to read correctly: header is damaged, and the lump whole: clump has magic 6d616769, ",
		}, {
			name: "trailer", args: "F", status: 1,
			damage: func(t *testing.T, file string, base int64) { overwrite(t, file, 1843200-8192, "magic") },
			stderr: "arena a0: trailer has magic 6d616769, not f2a14ead: bad format\nventi/checkarenas: F: 1 faults\n",
		},
		{name: "no such arena", args: "F a2", status: 1, stderr: "venti/checkarenas: F: no arena a2\n"},
		{
			name: "not a partition", args: "F", status: 1,
			damage: func(t *testing.T, file string, base int64) { overwrite(t, file, 256<<10, "magic") },
			stderr: "venti/checkarenas: F: arena partition: header has magic 6d616769, not a9e4a5e7: bad format\n",
		},
		{name: "no argument", args: "", status: 2, stderr: "usage: venti/checkarenas [-afv] file [arenaname...]\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file, base := partition(t)
			if tc.damage != nil {
				tc.damage(t, file, base)
			}
			var stdout, stderr bytes.Buffer
			args := strings.Fields(strings.ReplaceAll(tc.args, "F", file))
			status := newCommand().Execute(t.Context(), args, nil, &stdout, &stderr)
			got := strings.ReplaceAll(stderr.String(), file, "F")
			if status != tc.status || stdout.String() != tc.stdout || !strings.HasPrefix(got, tc.stderr) || (tc.stderr == "" && got != "") {
				t.Errorf("status %d, %q, %q, want %d, %q, %q", status, stdout.String(), got, tc.status, tc.stdout, tc.stderr)
			}
		})
	}
}

// TestGolden compares what -v prints with plan9port's output for the same
// partitions.
func TestGolden(t *testing.T) {
	dir := os.Getenv("STRATA_SHARED")
	if dir == "" {
		dir = "../../../../shared"
	}
	for _, set := range []string{"v4", "v5"} {
		b, err := os.ReadFile(filepath.Join(dir, "golden", set, "arenas.gz"))
		if errors.Is(err, os.ErrNotExist) {
			t.Skipf("no golden data: %v", err)
		}
		var r *gzip.Reader
		if err == nil {
			r, err = gzip.NewReader(bytes.NewReader(b))
		}
		if err == nil {
			b, err = io.ReadAll(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "golden", set, "check.txt"))
		if err != nil {
			t.Fatal(err)
		}
		_, want, _ := strings.Cut(string(text), "$ venti/checkarenas -v arenas\n")
		want, _, _ = strings.Cut(want, "exit 0\n")
		file := filepath.Join(t.TempDir(), "arenas")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		status := newCommand().Execute(t.Context(), []string{"-av", file}, nil, &stdout, &stderr)
		if status != 0 || stdout.String() != want || stderr.Len() > 0 {
			t.Errorf("%s: status %d, %s%s\nwant 0, %s", set, status, stdout.String(), stderr.String(), want)
		}
	}
}
