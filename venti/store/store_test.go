package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/bloom"
	"strata/venti/internal/index"
	"strata/venti/ventitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A shape says what simulated disks a test's store has.
type shape struct {
	parts     int   // arena partitions
	partSize  int64 // bytes of arenas in each
	arenaSize int64
	sections  int
	secSize   int64 // bytes of buckets in each
	bucket    int   // bytes in a bucket, 0 for the default
	noBloom   bool
}

var small = shape{parts: 1, partSize: 4 << 20, arenaSize: 1 << 20, sections: 2, secSize: 512 << 10}

// format makes an empty store on a new machine.
func (sh shape) format(t testing.TB) *disk.Machine {
	t.Helper()
	m := disk.NewMachine()
	ctx := context.Background()
	var arenas []index.Arena
	for i := range sh.parts {
		f := m.NewDisk(fmt.Sprintf("arenas%d", i), sh.partSize+1<<20)
		p, err := arena.Format(ctx, f, arena.FormatConfig{
			Name: fmt.Sprintf("p%da", i), ArenaSize: sh.arenaSize, Rand: rand.NewChaCha8([32]byte{byte(i)}),
		})
		if err != nil {
			t.Fatal(err)
		}
		arenas = append(arenas, indexArenas(p)...)
	}
	var sections []*index.Section
	for i := range sh.sections {
		s, err := index.FormatSection(ctx, m.NewDisk(fmt.Sprintf("isect%d", i), sh.secSize+(256+8+512)<<10),
			index.SectionConfig{Name: fmt.Sprintf("isect%d", i), Magic: 7, BlockSize: sh.bucket})
		if err != nil {
			t.Fatal(err)
		}
		sections = append(sections, s)
	}
	if _, err := index.Format("test", sections, arenas); err != nil {
		t.Fatal(err)
	}
	if !sh.noBloom {
		if err := bloom.Format(ctx, m.NewDisk("bloom", 1<<20), bloom.FormatConfig{Hashes: 8}); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// configOf returns the configuration of the store that is on a machine.
func configOf(m *disk.Machine) Config {
	cfg := Config{LumpMem: 1 << 19, IndexMem: 1 << 16, Interval: -1}
	for i := 0; m.Disk(fmt.Sprintf("arenas%d", i)) != nil; i++ {
		cfg.Arenas = append(cfg.Arenas, m.Disk(fmt.Sprintf("arenas%d", i)))
	}
	for i := 0; m.Disk(fmt.Sprintf("isect%d", i)) != nil; i++ {
		cfg.Sections = append(cfg.Sections, m.Disk(fmt.Sprintf("isect%d", i)))
	}
	if d := m.Disk("bloom"); d != nil {
		cfg.Bloom = d
	}
	return cfg
}

func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t testing.TB, s *Store, typ venti.Type, data []byte) venti.Score {
	t.Helper()
	score, err := s.WriteBlock(context.Background(), typ, data)
	if err != nil {
		t.Fatal(err)
	}
	return score
}

func mustSync(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// wantBlock checks that a block can be read.
func wantBlock(t testing.TB, s *Store, typ venti.Type, data []byte) {
	t.Helper()
	buf := make([]byte, venti.MaxBlockSize)
	score := venti.ScoreOf(data)
	n, err := s.ReadBlock(context.Background(), score, typ, buf)
	if err != nil {
		t.Errorf("read %v/%v: %v", score, typ, err)
	} else if !bytes.Equal(buf[:n], data) {
		t.Errorf("read %v/%v: other bytes", score, typ)
	}
}

// testLog sends a store's log to the test's.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func TestConformance(t *testing.T) {
	big := shape{parts: 1, partSize: 8 << 20, arenaSize: 2 << 20, sections: 1, secSize: 1 << 20}
	two := big
	two.parts, two.noBloom = 2, true
	for name, sh := range map[string]shape{"one partition": big, "two partitions, no filter": two} {
		t.Run(name, func(t *testing.T) {
			ventitest.TestStore(t, func(t *testing.T) venti.Store {
				cfg := configOf(sh.format(t))
				cfg.Interval = 0
				s := mustOpen(t, cfg)
				t.Cleanup(func() { mustClose(t, s) })
				return s
			})
		})
	}
	t.Run("files, uncompressed", func(t *testing.T) {
		ventitest.TestStore(t, func(t *testing.T) venti.Store {
			conf, err := Format(t.Context(), t.TempDir(), FormatConfig{Space: 16 << 20, Compression: CompressNone})
			if err != nil {
				t.Fatal(err)
			}
			s, err := OpenConf(t.Context(), conf, Config{LumpMem: 1 << 20, IndexMem: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { mustClose(t, s) })
			return s
		})
	})
}

func TestReopen(t *testing.T) {
	m := small.format(t)
	s := mustOpen(t, configOf(m))
	var blocks [][]byte
	for i := range 300 {
		b := ventitest.Block(uint64(i), 1+i*37%5000)
		blocks = append(blocks, b)
		mustWrite(t, s, venti.Type(i%17), b)
	}
	mustClose(t, s)
	for range 2 {
		cfg := configOf(m)
		cfg.Logger = testLog(t)
		s = mustOpen(t, cfg)
		if n := s.index.dirty.Load(); n != 0 {
			t.Errorf("%d entries were not indexed at a clean stop", n)
		}
		for i, b := range blocks {
			wantBlock(t, s, venti.Type(i%17), b)
		}
		if _, err := s.ReadBlock(t.Context(), venti.ScoreOf([]byte("absent")), venti.DataType, make([]byte, 10)); !errors.Is(err, venti.ErrNotFound) {
			t.Errorf("read of an absent block: %v", err)
		}
		if st := s.Stats(); st.Clumps != 300 {
			t.Errorf("%d clumps, want 300", st.Clumps)
		}
		mustClose(t, s)
		checkStore(t, m)
	}
}

// checkStore checks arenas, index and filter with the library functions of
// checkarenas and checkindex. It allows what is yet to be indexed.
func checkStore(t testing.TB, m *disk.Machine) {
	t.Helper()
	ctx := context.Background()
	cfg := configOf(m)
	var arenas []*arena.Arena
	for _, f := range cfg.Arenas {
		p, err := arena.OpenPartition(f)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.Arenas {
			a, err := p.OpenArena(i)
			if err != nil {
				t.Fatal(err)
			}
			arenas = append(arenas, a)
			err = a.Check(ctx, arena.CheckOptions{Data: true}, func(f *arena.Finding) {
				if f.Fault {
					t.Errorf("checkarenas: %v", f)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	var sections []*index.Section
	for _, f := range cfg.Sections {
		s, err := index.OpenSection(f)
		if err != nil {
			t.Fatal(err)
		}
		sections = append(sections, s)
	}
	ix, err := index.Open("test", sections, index.MapArenas(arenas))
	if err != nil {
		t.Fatal(err)
	}
	pending, count, err := ix.Pending(arenas)
	if err != nil {
		t.Fatal(err)
	}
	check := index.CheckConfig{
		Source: ix.ArenaSource(arenas), Count: count, Pending: pending,
		Report: func(d index.Difference) { t.Errorf("checkindex: %+v", d) },
	}
	if cfg.Bloom != nil {
		f, err := bloom.Open(cfg.Bloom)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		check.Bloom = f
	}
	if _, err := ix.Check(ctx, check); err != nil {
		t.Fatal(err)
	}
}

func TestFormat(t *testing.T) {
	dir := t.TempDir()
	conf, err := Format(t.Context(), dir, FormatConfig{Space: 8 << 20, Addr: "tcp!127.0.0.1!1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Format(t.Context(), dir, FormatConfig{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("format again: got %v, want ErrExist", err)
	}
	text, err := os.ReadFile(conf)
	if err != nil || !strings.Contains(string(text), "addr tcp!127.0.0.1!1\n") {
		t.Errorf("configuration: %v\n%s", err, text)
	}
	s, err := OpenConf(t.Context(), conf, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenConf(t.Context(), conf, Config{}); !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), filepath.Join(dir, ArenasFile)) {
		t.Errorf("open again: got %v, want ErrInUse", err)
	}
	mustClose(t, s)
	if files, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}
