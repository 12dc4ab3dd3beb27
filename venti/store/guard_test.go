package store

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/guard"
	"strata/venti/ventitest"
)

// guardsFile is room for the guards of every shape.
const guardsFile = 64 << 20

// Not in the declaration: the check itself needs furtherFiles.
func init() {
	furtherFiles = append(furtherFiles, furtherFile{
		name: "guards", size: guardsFile,
		format: func(*disk.Machine, disk.File) error { return nil },
		config: func(cfg *Config, f disk.File) { cfg.Guards = f },
		check:  checkGuards,
	})
}

// checkGuards opens the store and holds every clump against its guard, which
// may be missing but not wrong.
func checkGuards(t testing.TB, m *disk.Machine) {
	t.Helper()
	cfg := configOf(m)
	cfg.ReadOnly = true
	s := mustOpen(t, cfg)
	defer mustClose(t, s)
	countMissing(t, s)
}

// countMissing returns how many clumps have no guard. A wrong one fails the
// test.
func countMissing(t testing.TB, s *Store) int {
	t.Helper()
	missing := 0
	buf := make([]byte, venti.MaxBlockSize)
	for e, err := range s.allEntries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		a, off, _ := s.arenaOf(e.Addr)
		h, data, err := s.rawClump(a, off, readBuffer, make([]byte, readBuffer))
		if err != nil {
			continue
		}
		block, err := h.Decode(buf, data)
		if err != nil {
			continue
		}
		switch sum, ok, err := s.guards.Find(a.number, off, e.Score); {
		case err != nil:
			t.Error(err)
		case !ok:
			missing++
		case sum != guard.Of(block):
			t.Errorf("guard of %v at %s %d is wrong", e.Score, a.Name, off)
		}
	}
	return missing
}

// shattered returns the first blocks of the two files that Stevens, Bursztein,
// Karpman, Albertini and Markov published with "The first collision for full
// SHA-1" (2017), each with the same bytes behind.
func shattered(t testing.TB, behind string) (a, b []byte) {
	t.Helper()
	var list [2][]byte
	for i := range list {
		text, err := os.ReadFile(fmt.Sprintf("testdata/shattered%d.hex", i+1))
		if err != nil {
			t.Fatal(err)
		}
		if list[i], err = hex.DecodeString(strings.Join(strings.Fields(string(text)), "")); err != nil {
			t.Fatal(err)
		}
		list[i] = append(list[i], behind...)
	}
	return list[0], list[1]
}

// TestCollision stores both blocks of the published collision: without guards
// the second is taken for the first, as by Plan 9's server; with them it is
// refused, whatever of the store is in memory.
func TestCollision(t *testing.T) {
	one, two := shattered(t, "")
	if len(one) != 320 || fmt.Sprintf("%x", sha1.Sum(one)) != "f92d74e3874587aaf443d1db961d4e26dde13e9c" {
		t.Fatalf("%d bytes with SHA-1 %x", len(one), sha1.Sum(one))
	}
	if sha1.Sum(one) != sha1.Sum(two) || guard.Of(one) == guard.Of(two) {
		t.Fatal("the two blocks are no collision")
	}
	for _, guarded := range []bool{false, true} {
		t.Run(fmt.Sprintf("guards=%v", guarded), func(t *testing.T) {
			ctx := t.Context()
			sh := small
			sh.further = guarded
			m := sh.format(t)
			cfg := configOf(m)
			cfg.Logger = testLog(t)
			s := mustOpen(t, cfg)
			var pairs [][2][]byte
			for i := range 3 {
				a, b := shattered(t, strings.Repeat("behind", i))
				pairs = append(pairs, [2][]byte{a, b})
				mustWrite(t, s, venti.DataType, a)
			}
			collide := func(when string, refused bool) {
				t.Helper()
				for i, p := range pairs {
					before := s.Stats()
					_, err := s.WriteBlock(ctx, venti.DataType, p[1])
					if refused != errors.Is(err, venti.ErrCollision) || !refused && err != nil {
						t.Errorf("%s, pair %d: write of the second block: %v", when, i, err)
					}
					if n := s.Stats().Collisions - before.Collisions; refused != (n == 1) {
						t.Errorf("%s, pair %d: %d collisions counted", when, i, n)
					}
					mustWrite(t, s, venti.DataType, p[0])
					wantBlock(t, s, venti.DataType, p[0])
				}
				// Another type is another block.
				if !t.Failed() && when == "in memory" {
					mustWrite(t, s, venti.DirType, two)
				}
			}
			collide("in memory", true) // the lump cache compares
			s.lumps.clear()
			collide("in the index cache", guarded)
			if err := s.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			s.forget()
			collide("on disk", guarded)
			mustClose(t, s)
			s = mustOpen(t, cfg)
			collide("after a restart", guarded)
			mustClose(t, s)
			checkStore(t, m)
			if !guarded {
				return
			}
			// Without its guards the store reads the block.
			if _, err := cfg.Guards.WriteAt(make([]byte, guardsFile), 0); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, cfg)
			collide("with no guard", true)
			if st := s.Stats(); st.GuardCompares == 0 {
				t.Errorf("no block was compared: %+v", st)
			}
			mustClose(t, s)
		})
	}
}

// TestGuardsRecovered kills a store that has not flushed: the next one has
// guards for all that it finds. It does the same with guards that are lost.
func TestGuardsRecovered(t *testing.T) {
	sh := small
	sh.further = true
	for _, flushed := range []bool{false, true} {
		m := sh.format(t)
		s := mustOpen(t, configOf(m))
		list := blocks(1, 800, 3000) // more than two arenas
		for i, b := range list {
			mustWrite(t, s, venti.DataType, b)
			if flushed && i == 500 {
				if err := s.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		mustSync(t, s)
		m = kill(m, s)
		cfg := configOf(m)
		s = mustOpen(t, cfg)
		if n := countMissing(t, s); n > 0 {
			t.Errorf("flushed %v: %d guards are missing after a kill", flushed, n)
		}
		mustClose(t, s)
	}
}

// TestGuardsFail has the guards' file fail: blocks are stored and told apart
// all the same.
func TestGuardsFail(t *testing.T) {
	sh := small
	sh.further = true
	m := sh.format(t)
	s := mustOpen(t, configOf(m))
	m.SetHook(func(op disk.Op) error {
		if op.Disk == "guards" {
			return errFault
		}
		return nil
	})
	one, two := shattered(t, "")
	mustWrite(t, s, venti.DataType, one)
	list := blocks(1, 200, 3000)
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	mustSync(t, s)
	if err := s.Flush(t.Context()); err != nil {
		t.Errorf("flush without guards: %v", err)
	}
	s.forget()
	if _, err := s.WriteBlock(t.Context(), venti.DataType, two); !errors.Is(err, venti.ErrCollision) {
		t.Errorf("write of a colliding block: %v", err)
	}
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	if err := s.Close(); !errors.Is(err, errFault) {
		t.Errorf("close with guards that cannot be written: %v", err)
	}
	m = m.Snapshot().Restart()
	checkStore(t, m)
}

// TestGuardsConf has the configuration make a file of guards, for a store that
// has blocks already.
func TestGuardsConf(t *testing.T) {
	dir := t.TempDir()
	conf, err := Format(t.Context(), dir, FormatConfig{Space: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	open := func() *Store {
		s, err := OpenConf(t.Context(), conf, Config{LumpMem: 1 << 20, IndexMem: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	for _, b := range blocks(1, 500, 5000) {
		mustWrite(t, s, venti.DataType, b)
	}
	mustClose(t, s)
	f, err := os.OpenFile(conf, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "guards %s\n", filepath.Join(dir, "guards"))
	f.Close()
	s = open()
	for _, b := range blocks(2, 100, 5000) {
		mustWrite(t, s, venti.DataType, b)
	}
	if n := countMissing(t, s); n != 500 {
		t.Errorf("%d guards are missing, want 500", n)
	}
	mustWrite(t, s, venti.DataType, ventitest.Block(1<<32, 5000))
	mustClose(t, s)
	s = open()
	if n := countMissing(t, s); n != 500 {
		t.Errorf("%d guards are missing after a restart, want 500", n)
	}
	mustClose(t, s)
}
