package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/ventitest"
)

// spoiltBlocks are how many of the blocks that spoilt stores are lost.
const spoiltBlocks = 5

// spoilt returns a machine with a store of these blocks, of which the first
// spoiltBlocks are corrupt.
func spoilt(t *testing.T, sh shape, list [][]byte) *disk.Machine {
	t.Helper()
	m := sh.format(t)
	s := mustOpen(t, configOf(m))
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	for i, b := range list[:spoiltBlocks] {
		a, off := clumpAt(t, s, b)
		mustSync(t, s)
		defer func() {
			at := a.Base() + off + arena.ClumpHeaderSize + 99
			if i == 0 {
				at = a.Base() + off // the header
			}
			spoil(t, m.Disk(a.part.file.(*disk.Sim).Name()), at)
		}()
	}
	mustClose(t, s)
	return m
}

// wantCorrupt reads blocks that cannot be had: they are corrupt, not absent.
func wantCorrupt(t *testing.T, s *Store, list [][]byte) {
	t.Helper()
	for i, b := range list {
		_, err := s.ReadBlock(t.Context(), venti.ScoreOf(b), venti.DataType, make([]byte, len(b)))
		if !errors.Is(err, venti.ErrCorrupt) || errors.Is(err, venti.ErrNotFound) {
			t.Errorf("block %d: %v, want ErrCorrupt", i, err)
		}
	}
}

// TestMirror reads a store with corrupt clumps through a server, with another
// server as its mirror: every block is there, and stays when the mirror is gone.
func TestMirror(t *testing.T) {
	ctx := t.Context()
	for _, sh := range []shape{small, {parts: 2, partSize: 4 << 20, arenaSize: 1 << 20, sections: 1, secSize: 1 << 20, further: true}} {
		t.Run(fmt.Sprintf("%d partitions", sh.parts), func(t *testing.T) {
			list := blocks(1, 600, 3000)
			other := mustOpen(t, configOf(small.format(t)))
			t.Cleanup(func() { mustClose(t, other) })
			for _, b := range list {
				mustWrite(t, other, venti.DataType, b)
			}
			m := spoilt(t, sh, list)
			s := mustOpen(t, configOf(m))
			wantCorrupt(t, s, list[:spoiltBlocks])
			mustClose(t, s)

			cfg := configOf(m)
			cfg.ReadOnly = true
			cfg.Mirror = OpenMirror(ventitest.Serve(t, other))
			s = mustOpen(t, cfg)
			for _, b := range list {
				wantBlock(t, s, venti.DataType, b)
			}
			if st := s.Stats(); st.MirrorReads != spoiltBlocks || st.Healed != 0 {
				t.Errorf("open read-only: %d blocks from the mirror, %d healed", st.MirrorReads, st.Healed)
			}
			mustClose(t, s)

			cfg = configOf(m)
			cfg.Mirror = OpenMirror(ventitest.Serve(t, other))
			cfg.Logger = testLog(t)
			s = mustOpen(t, cfg)
			c, err := venti.Dial(ctx, ventitest.Serve(t, s))
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, venti.MaxBlockSize)
			if _, err := c.ReadBlock(ctx, venti.ScoreOf(list[0]), venti.DataType, buf[:100]); !errors.Is(err, venti.ErrTooLong) {
				t.Errorf("read of a corrupt block into too little: %v", err)
			}
			for range 2 {
				for i, b := range list {
					if n, err := c.ReadBlock(ctx, venti.ScoreOf(b), venti.DataType, buf); err != nil || string(buf[:n]) != string(b) {
						t.Errorf("block %d: %d bytes, %v", i, n, err)
					}
				}
				s.forget()
			}
			c.Close()
			if st := s.Stats(); st.MirrorReads != spoiltBlocks || st.Healed != spoiltBlocks || st.MirrorFailed != 0 {
				t.Errorf("%d blocks from the mirror, %d healed, %d failed", st.MirrorReads, st.Healed, st.MirrorFailed)
			}
			mustSync(t, s)
			m = kill(m, s)
			for range 2 {
				s = mustOpen(t, configOf(m))
				for _, b := range list {
					wantBlock(t, s, venti.DataType, b)
				}
				mustClose(t, s)
			}
		})
	}
}

// TestHealsBadSectors has a mirror make good what the disk cannot read.
func TestHealsBadSectors(t *testing.T) {
	list := blocks(1, 20, 3000)
	other := ventitest.NewMemory()
	for _, b := range list {
		if _, err := other.WriteBlock(t.Context(), venti.DataType, b); err != nil {
			t.Fatal(err)
		}
	}
	m := small.format(t)
	cfg := configOf(m)
	cfg.Mirror = other
	s := mustOpen(t, cfg)
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	mustSync(t, s)
	s.forget()
	a, off := clumpAt(t, s, list[7])
	m.SetHook(func(op disk.Op) error {
		if op.Kind == disk.OpRead && op.Disk == "arenas0" && op.Off <= a.Base()+off && op.Off+int64(op.Len) > a.Base()+off {
			return errFault
		}
		return nil
	})
	for range 2 {
		wantBlock(t, s, venti.DataType, list[7])
		s.forget()
	}
	if st := s.Stats(); st.MirrorReads != 1 || st.Healed != 1 {
		t.Errorf("%d blocks from the mirror, %d healed", st.MirrorReads, st.Healed)
	}
	mustClose(t, s)
}

// A reader is a venti.BlockReader.
type reader func(ctx context.Context, score venti.Score, buf []byte) (int, error)

func (r reader) ReadBlock(ctx context.Context, score venti.Score, t venti.Type, buf []byte) (int, error) {
	return r(ctx, score, buf)
}

// TestBadMirror asks mirrors that are no help: the blocks are corrupt, nothing
// is stored, and one that comes back is asked again.
func TestBadMirror(t *testing.T) {
	list := blocks(1, 20, 3000)
	lie := reader(func(ctx context.Context, score venti.Score, buf []byte) (int, error) {
		return copy(buf, "something else"), nil
	})
	sock := filepath.Join(t.TempDir(), "sock")
	for _, tc := range []struct {
		name string
		from venti.BlockReader
	}{
		{"is down", OpenMirror(sock)},
		{"lies", lie},
		{"lies behind a client", OpenMirror(ventitest.Serve(t, lyingStore{ventitest.NewMemory(), lie}))},
		{"lacks the blocks", OpenMirror(ventitest.Serve(t, ventitest.NewMemory()))},
		{"fails", reader(func(context.Context, venti.Score, []byte) (int, error) { return 0, errFault })},
		{"hangs", reader(func(ctx context.Context, _ venti.Score, _ []byte) (int, error) { <-ctx.Done(); return 0, ctx.Err() })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := spoilt(t, small, list)
			cfg := configOf(m)
			cfg.Mirror = tc.from
			cfg.Logger = testLog(t)
			s := mustOpen(t, cfg)
			s.mirror.time /= 1000
			clumps := s.Stats().Clumps
			for range 2 {
				wantCorrupt(t, s, list[:spoiltBlocks])
			}
			for _, b := range list[spoiltBlocks:] {
				wantBlock(t, s, venti.DataType, b)
			}
			if st := s.Stats(); st.Clumps != clumps || st.Healed != 0 || st.MirrorFailed != 2*spoiltBlocks {
				t.Errorf("%d clumps, before %d; %d healed, %d failed", st.Clumps, clumps, st.Healed, st.MirrorFailed)
			}
			if has, err := s.HasBlock(t.Context(), venti.ScoreOf(list[1]), venti.DataType); has || err != nil {
				t.Errorf("has a corrupt block: %v, %v", has, err)
			}
			mustClose(t, s)
		})
	}

	// One that does not answer is not asked by everybody, and then again.
	var asked atomic.Int64
	up := false
	m := spoilt(t, small, list)
	cfg := configOf(m)
	cfg.Mirror = reader(func(_ context.Context, score venti.Score, buf []byte) (int, error) {
		if asked.Add(1); !up {
			return 0, errFault
		}
		for _, b := range list {
			if venti.ScoreOf(b) == score {
				return copy(buf, b), nil
			}
		}
		return 0, venti.ErrNotFound
	})
	s := mustOpen(t, cfg)
	wantCorrupt(t, s, list[:spoiltBlocks])
	if n := asked.Load(); n != 1 {
		t.Errorf("a mirror that does not answer was asked %d times", n)
	}
	up, s.mirror.until = true, s.mirror.until.Add(-mirrorPause)
	for _, b := range list {
		wantBlock(t, s, venti.DataType, b)
	}
	mustClose(t, s)
}

// A lyingStore reads something else.
type lyingStore struct {
	venti.Store
	lie reader
}

func (l lyingStore) ReadBlock(ctx context.Context, score venti.Score, t venti.Type, buf []byte) (int, error) {
	return l.lie(ctx, score, buf)
}

// TestMirrorCollision has the mirror send a block that only shares the SHA-1 of
// the one that is corrupt: its guard tells.
func TestMirrorCollision(t *testing.T) {
	one, two := shattered(t, strings.Repeat("behind", 100))
	sh := small
	sh.further = true
	list := append([][]byte{one}, blocks(1, 20, 3000)...)
	m := spoilt(t, sh, list)
	cfg := configOf(m)
	cfg.Mirror = reader(func(_ context.Context, _ venti.Score, buf []byte) (int, error) { return copy(buf, two), nil })
	s := mustOpen(t, cfg)
	defer mustClose(t, s)
	wantCorrupt(t, s, list[:1])
	if _, err := s.WriteBlock(t.Context(), venti.DataType, two); !errors.Is(err, venti.ErrCollision) {
		t.Errorf("write of the other block: %v", err)
	}
	mustWrite(t, s, venti.DataType, one)
	wantBlock(t, s, venti.DataType, one)
}

// TestHealCrash cuts the power at every write and sync of a store that heals
// its blocks: those whose healing a sync has covered are there without a mirror,
// the others are corrupt or there, and none is absent.
func TestHealCrash(t *testing.T) {
	for _, sh := range []shape{tiny, {parts: 2, partSize: 1 << 20, arenaSize: 160 << 10, sections: 2, secSize: 8 << 10, bucket: 512, further: true}} {
		list := blocks(1, 90, 3000)
		mirror := ventitest.NewMemory()
		for _, b := range list {
			if _, err := mirror.WriteBlock(t.Context(), venti.DataType, b); err != nil {
				t.Fatal(err)
			}
		}
		m := spoilt(t, sh, list)
		var healed atomic.Int64 // blocks of the list that were, and are durable
		type point struct {
			at     *disk.Snapshot
			healed int64
		}
		var points []point
		m.Record(func(_ disk.Op, at *disk.Snapshot) { points = append(points, point{at, healed.Load()}) })
		cfg := configOf(m)
		cfg.Mirror = mirror
		s := mustOpen(t, cfg)
		for i, b := range list {
			wantBlock(t, s, venti.DataType, b)
			if i%2 == 0 {
				mustSync(t, s)
				healed.Store(int64(i + 1))
			}
			if i == 3 {
				if err := s.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		mustClose(t, s)
		m.Record(nil)
		if len(points) < 10 {
			t.Fatalf("%d writes and syncs", len(points))
		}
		buf := make([]byte, 3000)
		for i, p := range points {
			after := p.at.Crash(rand.New(rand.NewPCG(1, uint64(i))))
			s := mustOpen(t, configOf(after))
			for k, b := range list {
				n, err := s.ReadBlock(t.Context(), venti.ScoreOf(b), venti.DataType, buf)
				if err == nil && string(buf[:n]) != string(b) {
					err = errDifferent
				}
				if err != nil && (int64(k) < p.healed || k >= spoiltBlocks || !errors.Is(err, venti.ErrCorrupt)) {
					t.Errorf("point %d of %d, block %d, %d healed: %v", i, len(points), k, p.healed, err)
				}
			}
			mustClose(t, s)
			cfg := configOf(after)
			cfg.Mirror = mirror
			s = mustOpen(t, cfg)
			for _, b := range list {
				wantBlock(t, s, venti.DataType, b)
			}
			mustClose(t, s)
		}
	}
}

// TestHealFault fails each operation in turn of a store that heals its blocks, a
// read, write or sync: blocks may be corrupt then, and are never absent or another;
// and after a restart all are there.
func TestHealFault(t *testing.T) {
	list := blocks(1, 40, 3000)
	mirror := memoryOf(t, list)
	sh := tiny
	sh.further = true
	start := spoilt(t, sh, list).Snapshot()
	for _, kind := range []disk.OpKind{disk.OpRead, disk.OpWrite, disk.OpSync} {
		for nth := int64(0); ; nth++ {
			m := start.Restart()
			var n atomic.Int64
			m.SetHook(func(op disk.Op) error {
				if op.Kind == kind && n.Add(1) == nth+1 {
					return errFault
				}
				return nil
			})
			cfg := configOf(m)
			cfg.Mirror = mirror
			s, err := Open(t.Context(), cfg)
			if err != nil && !errors.Is(err, errFault) {
				t.Fatalf("%v %d: open: %v", kind, nth, err)
			}
			if err == nil {
				buf := make([]byte, 3000)
				for i, b := range list {
					n, err := s.ReadBlock(t.Context(), venti.ScoreOf(b), venti.DataType, buf)
					if err == nil && string(buf[:n]) != string(b) {
						err = errDifferent
					}
					if err != nil && !errors.Is(err, errFault) && !errors.Is(err, venti.ErrCorrupt) {
						t.Errorf("%v %d: block %d: %v", kind, nth, i, err)
					}
				}
				s.Sync(t.Context()) // may fail, as may the close
				s.Close()
			}
			done := n.Load() <= nth
			m = m.Snapshot().Restart()
			cfg = configOf(m)
			cfg.Mirror = mirror
			s = mustOpen(t, cfg)
			for _, b := range list {
				wantBlock(t, s, venti.DataType, b)
			}
			mustClose(t, s)
			if done {
				if nth < 3 {
					t.Errorf("there were %d operations of kind %v", nth, kind)
				}
				break
			}
		}
	}
}
