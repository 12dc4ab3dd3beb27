package store

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/ventitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
