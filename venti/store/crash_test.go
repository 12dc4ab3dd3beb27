package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/ventitest"
)

// tiny has arenas of some fifty blocks, so that a workload fills several.
var tiny = shape{parts: 1, partSize: 1 << 20, arenaSize: 160 << 10, sections: 2, secSize: 32 << 10}

// trials returns how many of something to try: n, or n times $STRATA_TRIAL.
func trials(n int) int {
	if k, err := strconv.Atoi(os.Getenv("STRATA_TRIAL")); err == nil && k > 0 {
		return n * k
	}
	return n
}

// A workload writes blocks, some again, and syncs, flushes and checkpoints
// now and then. What it knows to be durable it keeps.
type workload struct {
	seed   uint64
	blocks int

	acked map[int]bool // blocks that a sync has covered
	fresh []int        // blocks written since
}

// block returns block i: half of them compress.
func (w *workload) block(i int) (venti.Type, []byte) {
	n := 1 + int(uint64(i)*7919%4000)
	b := ventitest.Block(w.seed<<32+uint64(i), n)
	if i%2 == 0 {
		b = bytes.Repeat(b[:(n+7)/8], 8)[:n]
	}
	return venti.Type(i % 17), b
}

// run does the workload until it ends or stop tells it to. It returns the
// first error.
func (w *workload) run(ctx context.Context, s *Store, stop func(error) bool) (first error) {
	rng := rand.New(rand.NewPCG(w.seed, 3))
	buf := make([]byte, venti.MaxBlockSize)
	failed := func(err error) bool {
		if err != nil && first == nil {
			first = err
		}
		return err != nil && stop(err)
	}
	for i := range w.blocks {
		typ, b := w.block(i)
		_, err := s.WriteBlock(ctx, typ, b)
		if failed(err) {
			return
		}
		if err == nil {
			w.fresh = append(w.fresh, i)
		}
		switch k := rng.IntN(i + 1); rng.IntN(16) {
		case 0, 1: // write one again
			typ, b := w.block(k)
			_, err := s.WriteBlock(ctx, typ, b)
			if failed(err) {
				return
			}
			if err == nil {
				w.fresh = append(w.fresh, k)
			}
		case 2, 3:
			typ, b := w.block(k)
			_, err := s.ReadBlock(ctx, venti.ScoreOf(b), typ, buf)
			if failed(err) {
				return
			}
		case 4, 5:
			err := s.Sync(ctx)
			if failed(err) {
				return
			}
			if err == nil {
				w.ack()
			}
		case 6:
			if failed(s.checkpoint(ctx)) {
				return
			}
		case 7:
			if rng.IntN(3) == 0 && failed(s.Flush(ctx)) {
				return
			}
		case 8: // let reads go to the disk
			s.lumps.clear()
			s.index.clear()
		}
	}
	return
}

// ack notes that what was written is durable.
func (w *workload) ack() {
	if w.acked == nil {
		w.acked = make(map[int]bool)
	}
	for _, i := range w.fresh {
		w.acked[i] = true
	}
	w.fresh = w.fresh[:0]
}

// check tells whether all that is durable is there.
func (w *workload) check(t *testing.T, s *Store) {
	t.Helper()
	for i := range w.blocks {
		if typ, b := w.block(i); w.acked[i] {
			wantBlock(t, s, typ, b)
		}
	}
}

// cutAt returns a hook that cuts the power at write or sync n.
func cutAt(n int64) func(disk.Op) error {
	var ops int64
	return func(op disk.Op) error {
		if op.Kind == disk.OpRead {
			return nil
		}
		if ops++; ops > n {
			return disk.ErrPowerCut
		}
		return nil
	}
}

// TestCrash cuts the power at a write or sync of a workload, loses some of
// what was not synced, and opens what is left, maybe with another power cut
// meanwhile: all that was acknowledged is there, arenas and index check, and
// the store goes on.
func TestCrash(t *testing.T) {
	two := tiny
	two.parts, two.noBloom = 2, true
	for name, sh := range map[string]shape{"one": tiny, "two": two} {
		t.Run(name, func(t *testing.T) {
			empty := sh.format(t)
			seed := uint64(1)
			w := workload{seed: seed, blocks: 260}
			m := empty.Crash(rand.New(rand.NewPCG(0, 0)))
			s := mustOpen(t, configOf(m))
			before := m.Count(disk.OpWrite) + m.Count(disk.OpSync)
			if err := w.run(t.Context(), s, func(error) bool { return true }); err != nil {
				t.Fatal(err)
			}
			if st := s.Stats(); st.SealedArenas < 2 {
				t.Errorf("only %d arenas were filled", st.SealedArenas)
			}
			mustClose(t, s)
			checkStore(t, m)
			total := m.Count(disk.OpWrite) + m.Count(disk.OpSync) - before
			n := trials(8)
			t.Logf("%d writes and syncs, cut at %d of them", total, n)
			for i := range n {
				seed := uint64(i + 1)
				at := rand.New(rand.NewPCG(seed, 4)).Int64N(total)
				if !t.Run(fmt.Sprintf("seed=%d,at=%d", seed, at), func(t *testing.T) { testCrash(t, empty, seed, at) }) {
					break
				}
			}
		})
	}
}

func testCrash(t *testing.T, empty *disk.Machine, seed uint64, at int64) {
	ctx := t.Context()
	rng := rand.New(rand.NewPCG(seed, 5))
	m := empty.Crash(rng)
	s := mustOpen(t, configOf(m))
	m.SetHook(cutAt(at))
	w := workload{seed: seed, blocks: 260}
	err := w.run(ctx, s, func(error) bool { return true })
	if err != nil && !errors.Is(err, disk.ErrPowerCut) {
		t.Fatalf("workload: %v", err)
	}
	s.Close()
	m = m.Crash(rng)
	for rng.IntN(2) == 0 {
		// Another cut while it recovers, or a little later.
		m.SetHook(cutAt(rng.Int64N(20)))
		if s, err := Open(ctx, configOf(m)); err == nil {
			s.WriteBlock(ctx, venti.DataType, ventitest.Block(seed, 5000))
			s.Sync(ctx)
			s.Close()
		} else if !errors.Is(err, disk.ErrPowerCut) {
			t.Fatalf("recovery: %v", err)
		}
		m = m.Crash(rng)
	}
	ro := configOf(m)
	ro.ReadOnly = true
	s = mustOpen(t, ro)
	w.check(t, s)
	mustClose(t, s)

	cfg := configOf(m)
	cfg.Logger = testLog(t)
	s = mustOpen(t, cfg)
	w.check(t, s)
	checkStore(t, m)
	more := workload{seed: seed + 1000, blocks: 40}
	if err := more.run(ctx, s, func(error) bool { return true }); err != nil && !errors.Is(err, venti.ErrFull) {
		t.Fatalf("after recovery: %v", err)
	}
	mustClose(t, s)
	checkStore(t, m)
	s = mustOpen(t, configOf(m))
	defer mustClose(t, s)
	w.check(t, s)
	more.check(t, s)
}

var errFault = errors.New("input/output error")

// TestFault fails one write, sync or read of a workload. What follows may
// fail, but ends; once the log cannot be written every sync fails; and what a
// sync has acknowledged is there, with and without a crash.
func TestFault(t *testing.T) {
	empty := tiny.format(t)
	m := empty.Crash(rand.New(rand.NewPCG(0, 0)))
	s := mustOpen(t, configOf(m))
	base := [3]int64{m.Count(disk.OpRead), m.Count(disk.OpWrite), m.Count(disk.OpSync)}
	w := workload{seed: 1, blocks: 200}
	if err := w.run(t.Context(), s, func(error) bool { return true }); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	for _, kind := range []disk.OpKind{disk.OpWrite, disk.OpSync, disk.OpRead} {
		total := m.Count(kind) - base[kind]
		n := int64(trials(5))
		for i := range min(n, total) {
			nth := i
			if n < total {
				nth = i * total / n
			}
			if !t.Run(fmt.Sprintf("%v=%d", kind, nth), func(t *testing.T) { testFault(t, empty, kind, nth) }) {
				break
			}
		}
	}
}

func testFault(t *testing.T, empty *disk.Machine, kind disk.OpKind, nth int64) {
	rng := rand.New(rand.NewPCG(uint64(nth), 6))
	m := empty.Crash(rng)
	s := mustOpen(t, configOf(m))
	var failed disk.Op
	n := int64(0)
	m.SetHook(func(op disk.Op) error {
		if op.Kind != kind {
			return nil
		}
		if n++; n == nth+1 {
			failed = op
			return errFault
		}
		return nil
	})
	w := workload{seed: 1, blocks: 200}
	err := w.run(t.Context(), s, func(error) bool { return false })
	if err != nil && !errors.Is(err, errFault) {
		t.Errorf("first error: %v, want that of the %v", err, kind)
	}
	err = s.Sync(t.Context())
	broken := kind != disk.OpRead && failed.Disk == "arenas0"
	if !broken && err == nil {
		w.ack()
	} else if broken != (err != nil) {
		t.Errorf("sync after a failed %v on %q: %v", kind, failed.Disk, err)
	}
	if kind == disk.OpRead {
		m.SetHook(nil)
	}
	w.check(t, s) // reads go on, also of what could not be written
	err = s.Close()
	if kind != disk.OpRead && n > nth && err == nil {
		t.Errorf("close after a failed %v on %s succeeded", kind, failed.Disk)
	}
	m.SetHook(nil)
	for _, after := range []*disk.Machine{m.Crash(rng), m.Crash(rng), m.Crash(rng)} {
		s := mustOpen(t, configOf(after))
		w.check(t, s)
		mustClose(t, s)
		checkStore(t, after)
	}
}
