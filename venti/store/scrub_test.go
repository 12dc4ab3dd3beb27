package store

import (
	"bytes"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/ventitest"
)

// sealedStore returns a machine with a store of these blocks, all of whose full
// arenas have their seals, and how many those are.
func sealedStore(t *testing.T, sh shape, list [][]byte) (m *disk.Machine, sealed int) {
	t.Helper()
	m = sh.format(t)
	s := mustOpen(t, configOf(m))
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for done := false; !done && t.Context().Err() == nil; runtime.Gosched() {
		done, sealed = true, 0
		for _, a := range s.Info().Arenas {
			if a.Written.Sealed {
				done = done && !a.Seal.IsZero()
				sealed++
			}
		}
	}
	mustClose(t, s)
	if sealed < 3 {
		t.Fatalf("%d arenas are sealed", sealed)
	}
	return m, sealed
}

// openScrubbed opens a store and waits until the scrub has been through it.
func openScrubbed(t *testing.T, cfg Config) *Store {
	t.Helper()
	cfg.Scrub = 1 << 50
	cfg.Logger = testLog(t)
	s := mustOpen(t, cfg)
	for s.Stats().Scrub.Passes == 0 && t.Context().Err() == nil {
		runtime.Gosched()
	}
	return s
}

// memoryOf returns a store in memory that has these blocks.
func memoryOf(t *testing.T, list [][]byte) venti.Store {
	t.Helper()
	m := ventitest.NewMemory()
	for _, b := range list {
		if _, err := m.WriteBlock(t.Context(), venti.DataType, b); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// TestScrub spoils clumps of sealed arenas in all ways there are, and has the
// scrub find them, and only them; with a mirror it heals them.
func TestScrub(t *testing.T) {
	list := blocks(1, 200, 3000)
	find := func(t *testing.T, m *disk.Machine, b []byte) (*logArena, int64) {
		s := mustOpen(t, configOf(m))
		defer mustClose(t, s)
		return clumpAt(t, s, b)
	}
	for _, tc := range []struct {
		name     string
		spoil    func(t *testing.T, m *disk.Machine, a *logArena, off int64)
		corrupt  int64
		badSeals int64
	}{
		{"nothing", func(*testing.T, *disk.Machine, *logArena, int64) {}, 0, 0},
		{"data", func(t *testing.T, m *disk.Machine, a *logArena, off int64) {
			spoil(t, m.Disk("arenas0"), a.Base()+off+arena.ClumpHeaderSize+1000)
		}, 1, 1},
		{"headers", func(t *testing.T, m *disk.Machine, a *logArena, off int64) {
			spoil(t, m.Disk("arenas0"), a.Base()+off)
			spoil(t, m.Disk("arenas0"), a.Base()+off+3038+5)
		}, 2, 1},
		{"what is between arenas", func(t *testing.T, m *disk.Machine, a *logArena, off int64) {
			spoil(t, m.Disk("arenas0"), a.Start+700)
		}, 0, 1},
		{"sectors", func(t *testing.T, m *disk.Machine, a *logArena, off int64) {
			at := a.Base() + off + 300
			m.SetHook(func(op disk.Op) error {
				if op.Kind == disk.OpRead && op.Disk == "arenas0" && op.Off <= at && op.Off+int64(op.Len) > at {
					return errFault
				}
				return nil
			})
		}, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, sealed := sealedStore(t, tiny, list)
			a, off := find(t, m, list[7])
			tc.spoil(t, m, a, off)

			s := openScrubbed(t, configOf(m))
			got := s.Stats().Scrub
			if got.Corrupt != tc.corrupt || got.BadSeals != tc.badSeals || got.Arenas != int64(sealed) || got.Replaced != 0 {
				t.Errorf("of %d arenas: %+v, want %d corrupt, %d bad seals", sealed, got, tc.corrupt, tc.badSeals)
			}
			if got.Clumps < 100 || got.Bytes < int64(sealed)*tiny.arenaSize {
				t.Errorf("%d clumps in %d bytes", got.Clumps, got.Bytes)
			}
			if has, err := s.HasBlock(t.Context(), venti.ScoreOf(list[7]), venti.DataType); has != (tc.corrupt == 0) || err != nil {
				t.Errorf("has the block: %v, %v", has, err)
			}
			mustClose(t, s)

			cfg := configOf(m)
			cfg.Mirror = memoryOf(t, list)
			s = openScrubbed(t, cfg)
			if st := s.Stats(); st.Scrub.Corrupt != tc.corrupt || st.Healed != tc.corrupt {
				t.Errorf("with a mirror: %d corrupt, %d healed", st.Scrub.Corrupt, st.Healed)
			}
			mustClose(t, s)
			m.SetHook(nil)
			s = openScrubbed(t, configOf(m))
			if got := s.Stats().Scrub; got.Corrupt != 0 || tc.name != "sectors" && (got.Replaced != tc.corrupt || got.BadSeals != tc.badSeals) {
				t.Errorf("after that: %+v", got)
			}
			for _, b := range list {
				wantBlock(t, s, venti.DataType, b)
			}
			mustClose(t, s)
		})
	}
}

// TestScrubGuards has the scrub make the guards of a store that had none.
func TestScrubGuards(t *testing.T) {
	sh := tiny
	sh.further = true
	m, _ := sealedStore(t, sh, blocks(1, 200, 3000))
	cfg := configOf(m)
	if _, err := cfg.Guards.WriteAt(make([]byte, guardsFile), 0); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, cfg)
	before := countMissing(t, s)
	mustClose(t, s)
	s = openScrubbed(t, cfg)
	made := s.Stats().Scrub.Guards
	mustClose(t, s)
	s = openScrubbed(t, cfg)
	defer mustClose(t, s)
	if after := countMissing(t, s); before != 200 || after > 60 || made != int64(before-after) {
		t.Errorf("%d guards were missing, %d are, %d were made", before, after, made)
	}
	if got := s.Stats().Scrub; got.Guards != 0 {
		t.Errorf("%d guards were made again", got.Guards)
	}
}

// TestScrubPace scrubs by a clock of its own: at its rate, at a quarter of that
// while a client reads, once a day, and on from where it was after a restart.
func TestScrubPace(t *testing.T) {
	list := blocks(1, 200, 3000)
	m, sealed := sealedStore(t, tiny, list)
	state := m.NewDisk("scrub", scrubFile)
	const rate = 16 << 10
	cfg := configOf(m)
	cfg.Scrub, cfg.ScrubState = rate, state
	want := func(t *testing.T, s *Store, passes int64) Scrub {
		t.Helper()
		synctest.Wait()
		got := s.Stats().Scrub
		if got.Passes != passes || got.Rate != rate {
			t.Errorf("%+v, want %d passes", got, passes)
		}
		return got
	}
	var whole time.Duration // of a pass
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, cfg)
		start := time.Now()
		for s.Stats().Scrub.Passes == 0 {
			time.Sleep(time.Second)
		}
		whole = time.Since(start)
		got := want(t, s, 1)
		if at := time.Duration(got.Bytes) * time.Second / rate; whole < at || whole > at+at/10+2*time.Second {
			t.Errorf("%d bytes at %d a second took %v", got.Bytes, rate, whole)
		}
		if got.Arenas != int64(sealed) || got.Arena != "" {
			t.Errorf("after a pass: %+v", got)
		}
		time.Sleep(scrubEvery - whole - time.Minute)
		want(t, s, 1)
		time.Sleep(time.Minute + whole/2)
		if got := want(t, s, 1); got.Arena == "" || got.Arenas <= int64(sealed) {
			t.Errorf("in the next pass: %+v", got)
		}
		mustClose(t, s)
	})
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, cfg)
		time.Sleep(whole * 3 / 4)
		if got := want(t, s, 1); got.Arenas == 0 || got.Arenas >= int64(sealed) {
			t.Errorf("it went on with %d of %d arenas", got.Arenas, sealed)
		}
		mustClose(t, s)
		s = mustOpen(t, cfg)
		time.Sleep(time.Hour) // of the day that there is to the next pass
		want(t, s, 0)
		mustClose(t, s)
	})
	cfg.ScrubState = nil
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, cfg)
		start := time.Now()
		for s.Stats().Scrub.Passes == 0 {
			time.Sleep(time.Second)
			s.forget()
			wantBlock(t, s, venti.DataType, list[0])
		}
		if took := time.Since(start); took < 3*whole || took > 5*whole {
			t.Errorf("with a client it took %v, without %v", took, whole)
		}
		mustClose(t, s)
	})
}

func TestScrubState(t *testing.T) {
	at := time.Unix(0x5f5e1000, 0)
	b := packScrub(at, "arena7")
	want := append([]byte("\x5c\x2b\x00\x01\x00\x00\x00\x00\x5f\x5e\x10\x00arena7"), make([]byte, 58)...)
	want = append(want, "\x15\x6f\x7a\x23"...)
	if !bytes.Equal(b, want) {
		t.Errorf("state % x\nwant % x", b, want)
	}
	if began, arena, ok := unpackScrub(b); !ok || !began.Equal(at) || arena != "arena7" {
		t.Errorf("%v, %q, %v", began, arena, ok)
	}
	for i := range b {
		b[i] ^= 1
		if _, _, ok := unpackScrub(b); ok {
			t.Errorf("a state with another byte %d is taken", i)
		}
		b[i] ^= 1
	}
	// Anything else begins at the first arena.
	m := tiny.format(t)
	junk := m.NewDisk("junk", scrubFile)
	if _, err := junk.WriteAt(bytes.Repeat([]byte{7}, scrubFile), 0); err != nil {
		t.Fatal(err)
	}
	cfg := configOf(m)
	cfg.Scrub, cfg.ScrubState = 1, junk
	s := mustOpen(t, cfg)
	if c := newScrubber(s, 1, junk); c.done.Arena != s.arenas[0].Name || !c.done.Began.IsZero() {
		t.Errorf("with junk for a state: %+v", c.done)
	}
	mustClose(t, s)
}

// FuzzScrubState unpacks states.
func FuzzScrubState(f *testing.F) {
	f.Add(packScrub(time.Unix(1, 0), "arena0"))
	f.Add(make([]byte, scrubStateLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		if began, arena, ok := unpackScrub(b); ok && !bytes.HasPrefix(b, packScrub(began, arena)[:12+len(arena)]) {
			t.Errorf("% x is %v, %q", b, began, arena)
		}
	})
}
