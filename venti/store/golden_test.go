package store

import (
	"bufio"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"strata/internal/disk"
	"strata/venti"
)

// golden returns the folder of data that Plan 9's programs have made.
func golden(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("STRATA_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	dir = filepath.Join(dir, "golden")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no golden data: %v", err)
	}
	return dir
}

// gunzip returns what a compressed file holds.
func gunzip(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGolden opens stores that Plan 9's server has left, one of them killed,
// and reads every block in them; for reading, and then for writing, which
// leaves them clean.
func TestGolden(t *testing.T) {
	for _, tc := range []struct {
		name      string
		sections  int
		bloom     bool
		unindexed int64 // clumps, as its recovery log says
	}{{"v4", 1, false, 0}, {"v5", 2, true, 0}, {"dirty", 1, true, 13}} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(golden(t), tc.name)
			m := disk.NewMachine()
			load := func(name string) disk.File {
				b := gunzip(t, filepath.Join(dir, name+".gz"))
				d := m.NewDisk(name, int64(len(b)))
				if _, err := d.WriteAt(b, 0); err != nil {
					t.Fatal(err)
				}
				if err := d.Sync(); err != nil {
					t.Fatal(err)
				}
				return d
			}
			cfg := Config{LumpMem: 1 << 20, IndexMem: 1 << 20, Interval: -1, Arenas: []disk.File{load("arenas")}}
			for i := range tc.sections {
				cfg.Sections = append(cfg.Sections, load("isect"+strconv.Itoa(i)))
			}
			if tc.bloom {
				cfg.Bloom = load("bloom")
			}
			clumps := string(gunzip(t, filepath.Join(dir, "clumps.tsv.gz")))
			for _, readOnly := range []bool{true, false, false} {
				cfg.ReadOnly = readOnly
				cfg.Logger = testLog(t)
				writes := m.Count(disk.OpWrite)
				s := mustOpen(t, cfg)
				readGolden(t, s, clumps)
				if got := s.Stats().FlushedEntries; got != tc.unindexed {
					t.Errorf("%d entries were put into the index, want %d", got, tc.unindexed)
				}
				mustClose(t, s)
				if n := m.Count(disk.OpWrite) - writes; readOnly && n > 0 {
					t.Errorf("opening for reading wrote %d times", n)
				}
				if !readOnly {
					tc.unindexed = 0 // it is done
				}
			}
		})
	}
}

// readGolden reads every block that a list of clumps has.
func readGolden(t *testing.T, s *Store, clumps string) {
	t.Helper()
	n := 0
	buf := make([]byte, venti.MaxBlockSize)
	for in := bufio.NewScanner(strings.NewReader(clumps)); in.Scan(); {
		f := strings.Split(in.Text(), "\t")
		if strings.HasPrefix(f[0], "#") {
			continue
		}
		disk, err := strconv.Atoi(f[3])
		if err != nil {
			t.Fatal(err)
		}
		typ := venti.DiskType(disk).Type()
		if !typ.Valid() {
			continue
		}
		score, err := venti.ParseScore(f[7])
		if err != nil {
			t.Fatal(err)
		}
		n++
		got, err := s.ReadBlock(context.Background(), score, typ, buf)
		if err != nil || strconv.Itoa(got) != f[6] {
			t.Errorf("%v/%v: %d bytes, want %s; %v", score, typ, got, f[6], err)
		}
	}
	if n < 50 {
		t.Errorf("only %d clumps in the list", n)
	}
}
