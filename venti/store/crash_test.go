package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/ventitest"
)

// The tests of this file have a store do a workload of some thousand steps
// on simulated disks, in several lives, and then look at each write and sync
// that it made: what a power cut or a kill leaves there, a second one in the
// recovery from the first, and what happens if that one operation fails.
// They try a sample, or with STRATA_TRIAL=n a sample n times as large, up to
// every operation there is; STRATA_SEED chooses another.

// tiny has arenas of some fifty blocks, so that a workload fills several.
var tiny = shape{parts: 1, partSize: 1 << 20, arenaSize: 160 << 10, sections: 2, secSize: 32 << 10}

// crashShapes are the stores that the workload is done in.
var crashShapes = []struct {
	name string
	shape
}{
	{"one partition", shape{parts: 1, partSize: 3 << 20, arenaSize: 160 << 10, sections: 2, secSize: 64 << 10, further: true}},
	{"two partitions, no filter", shape{parts: 2, partSize: 3 << 20 / 2, arenaSize: 160 << 10, sections: 1, secSize: 128 << 10, noBloom: true}},
	{"full buckets", shape{parts: 1, partSize: 3 << 20, arenaSize: 160 << 10, sections: 2, secSize: 16 << 10}},
	{"overflow", shape{parts: 1, partSize: 3 << 20, arenaSize: 160 << 10, sections: 2, secSize: 8 << 10, bucket: 4 << 10, further: true, crowded: true}},
}

const (
	workSteps = 2000 // each writes a block
	workLives = 8    // between them the store is closed, or killed
)

// trials returns how many of something to try: n, or n times $STRATA_TRIAL.
func trials(n int) int {
	if k, err := strconv.Atoi(os.Getenv("STRATA_TRIAL")); err == nil && k > 0 {
		return n * k
	}
	return n
}

// trialSeed returns what chooses the sample.
func trialSeed(t *testing.T) uint64 {
	text := os.Getenv("STRATA_SEED")
	if text == "" {
		return 1
	}
	n, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		t.Fatalf("STRATA_SEED=%q is not a number", text)
	}
	return n
}

// sample returns n of the numbers below total, in no order, or all of them.
func sample(rng *rand.Rand, n, total int) []int {
	list := rng.Perm(total)
	return list[:min(n, total)]
}

// A workBlock is what a step of the workload writes.
type workBlock struct {
	typ   venti.Type
	data  []byte
	score venti.Score
}

// workBlocks are those of all steps. Most are small; half of them compress.
var workBlocks = sync.OnceValue(func() []workBlock {
	list := make([]workBlock, workSteps)
	for i := range list {
		n := 1 + i*7919%1500
		if i%100 == 50 {
			n = venti.MaxBlockSize - i
		}
		b := ventitest.Block(7<<32+uint64(i), n)
		if i%2 == 0 {
			b = bytes.Repeat(b[:(n+7)/8], 8)[:n]
		}
		list[i] = workBlock{venti.Type(i % 17), b, venti.ScoreOf(b)}
	}
	return list
})

// A workload is what a store has done so far, and what of it must be there.
type workload struct {
	blocks []workBlock
	fresh  []int // written since the last sync

	mu    sync.Mutex // guards begun and acked, which are also read while a disk is written
	begun int        // blocks up to this one may be there, the others not
	acked []int      // blocks that a sync has covered, in that order
	known []bool     // whether a block is among them
}

func newWorkload() *workload {
	w := &workload{blocks: workBlocks()}
	w.known = make([]bool, len(w.blocks))
	return w
}

// begin notes that block i is about to be written.
func (w *workload) begin(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = max(w.begun, i+1)
}

// ack notes that what was written is durable.
func (w *workload) ack() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range w.fresh {
		if !w.known[i] {
			w.known[i] = true
			w.acked = append(w.acked, i)
		}
	}
	w.fresh = w.fresh[:0]
}

// now returns how many blocks may be there now, and which are known to be
// durable.
func (w *workload) now() (begun int, acked []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.begun, w.acked[:len(w.acked):len(w.acked)]
}

// run does the steps from first up to limit, or until stop tells it to after
// an error. It returns the first error. fault, if not nil, tells whether some
// clump or sync can no longer be written: then no sync may succeed that has
// something to do.
func (w *workload) run(ctx context.Context, t *testing.T, s *Store, first, limit int, fault func() bool, stop func(error) bool) (err error) {
	buf := make([]byte, venti.MaxBlockSize)
	broken := false // since before the last block that was taken
	failed := func(e error) bool {
		if e != nil && err == nil {
			err = e
		}
		return e != nil && stop(e)
	}
	write := func(i int) error {
		before := fault != nil && fault()
		_, err := s.WriteBlock(ctx, w.blocks[i].typ, w.blocks[i].data)
		if err == nil {
			w.fresh = append(w.fresh, i)
			if !w.known[i] {
				broken = broken || before
			}
		}
		return err
	}
	for i := first; i < limit; i++ {
		rng := rand.New(rand.NewPCG(uint64(i), 3))
		w.begin(i)
		if failed(write(i)) {
			return
		}
		switch k := rng.IntN(i + 1); rng.IntN(16) {
		case 0, 1: // one again
			if failed(write(k)) {
				return
			}
		case 2, 3:
			if failed(readBack(ctx, s, &w.blocks[k], buf)) {
				return
			}
		case 4, 5:
			e := s.Sync(ctx)
			if failed(e) {
				return
			}
			if e == nil {
				w.ack()
				if broken {
					t.Errorf("step %d: a sync succeeds after a fault", i)
				}
			}
		case 6:
			if failed(s.checkpoint(ctx)) {
				return
			}
		case 7:
			if rng.IntN(2) == 0 && failed(s.Flush(ctx)) {
				return
			}
		case 8: // let reads go to the disk
			s.forget()
		}
	}
	return
}

func untilError(error) bool { return true }

var errDifferent = errors.New("the block is another")

// readBack reads a block. That there is none is no error.
func readBack(ctx context.Context, s *Store, b *workBlock, buf []byte) error {
	n, err := s.ReadBlock(ctx, b.score, b.typ, buf)
	if errors.Is(err, venti.ErrNotFound) {
		return nil
	}
	if err == nil && !bytes.Equal(buf[:n], b.data) {
		err = errDifferent
	}
	return err
}

// check tells whether what is in acked is there, and whether all others that
// were written are there or absent.
func (w *workload) check(t *testing.T, s *Store, acked []int) {
	t.Helper()
	buf := make([]byte, venti.MaxBlockSize)
	must := make([]bool, len(w.blocks))
	for _, i := range acked {
		must[i] = true
	}
	for i, b := range w.blocks[:w.begun] {
		n, err := s.ReadBlock(context.Background(), b.score, b.typ, buf)
		if err == nil && !bytes.Equal(buf[:n], b.data) {
			err = errDifferent
		}
		if err != nil && (must[i] || !errors.Is(err, venti.ErrNotFound)) {
			t.Errorf("block %d, acknowledged %v: %v", i, must[i], err)
		}
	}
}

// A point is a moment after a write or sync.
type point struct {
	op    disk.Op
	at    *disk.Snapshot
	begun int
	acked []int
}

// point returns the moment of m that is now.
func (w *workload) point(m *disk.Machine) point {
	begun, acked := w.now()
	return point{at: m.Snapshot(), begun: begun, acked: acked}
}

// record has points collected from m.
func (w *workload) record(m *disk.Machine, list *[]point) {
	m.Record(func(op disk.Op, at *disk.Snapshot) {
		begun, acked := w.now()
		*list = append(*list, point{op, at, begun, acked})
	})
}

// resume returns the workload as it was known at a point.
func (p *point) resume() *workload {
	w := newWorkload()
	w.begun = p.begun
	w.fresh = append(w.fresh, p.acked...)
	w.ack()
	return w
}

// A life is a part of the workload from an open to an end.
type life struct {
	start       point // what it begins with
	first, last int   // its steps
}

// live does the whole workload and returns its lives and all points in them.
// Every second life ends with a kill, the others with a close.
func live(t *testing.T, sh shape) (lives []life, points []point) {
	w := newWorkload()
	m := sh.format(t)
	spilt := int64(0)
	for i := range workLives {
		l := life{w.point(m), i * workSteps / workLives, (i + 1) * workSteps / workLives}
		lives = append(lives, l)
		w.record(m, &points)
		s := mustOpen(t, configOf(m))
		if err := w.run(t.Context(), t, s, l.first, l.last, nil, untilError); err != nil {
			t.Fatal(err)
		}
		spilt += s.Stats().SpiltEntries
		if i%2 == 1 {
			mustClose(t, s)
			w.ack()
			m.Record(nil)
		} else {
			m = kill(m, s)
			w.fresh = nil
		}
	}
	if st := m.Count(disk.OpSync); st == 0 {
		t.Error("nothing was ever synced")
	}
	if (spilt > 0) != sh.crowded {
		t.Errorf("%d entries went to the overflow, crowded: %v", spilt, sh.crowded)
	}
	checkStore(t, m)
	return lives, points
}

// kill ends a store as kill -9 does, and returns the machine as its next
// program finds it.
func kill(m *disk.Machine, s *Store) *disk.Machine {
	after := m.Snapshot().Restart()
	m.Record(nil)
	m.CutPower()
	s.Close()
	return after
}

// TestCrash cuts the power, or kills the store, at writes and syncs of the
// workload, and maybe again while it recovers: all that was acknowledged is
// there, arenas, index and further files check, and the store goes on.
func TestCrash(t *testing.T) {
	for _, sh := range crashShapes {
		t.Run(sh.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, points := live(t, sh.shape)
			seed := trialSeed(t)
			list := sample(rand.New(rand.NewPCG(seed, 4)), trials(24), len(points))
			t.Logf("%d writes and syncs in %v; power cuts at %d of them", len(points), time.Since(start).Round(time.Millisecond), len(list))
			for _, i := range list {
				p := points[i]
				t.Run(fmt.Sprintf("seed=%d,%d=%v of %s", seed, i, p.op.Kind, p.op.Disk), func(t *testing.T) {
					t.Parallel()
					crash(t, &p, rand.New(rand.NewPCG(seed, uint64(i))))
				})
			}
		})
	}
}

// lose returns a machine after a power cut or, once in four, a mere kill.
func (p *point) lose(rng *rand.Rand) *disk.Machine {
	if rng.IntN(4) == 0 {
		return p.at.Restart()
	}
	return p.at.Crash(rng)
}

func crash(t *testing.T, p *point, rng *rand.Rand) {
	w := p.resume()
	m := p.lose(rng)
	for rng.IntN(2) == 0 {
		// Again while it recovers, or at the end.
		var during []point
		w.record(m, &during)
		s := mustOpen(t, configOf(m))
		mustClose(t, s)
		m.Record(nil)
		if len(during) > 0 {
			m = during[rng.IntN(len(during))].lose(rng)
		}
	}
	if rng.IntN(4) == 0 {
		cfg := configOf(m)
		cfg.ReadOnly = true
		s := mustOpen(t, cfg)
		w.check(t, s, w.acked)
		mustClose(t, s)
	}
	cfg := configOf(m)
	cfg.Logger = testLog(t)
	s := mustOpen(t, cfg)
	w.check(t, s, w.acked)
	checkStore(t, m)

	// It goes on: what may be lost is written again, and more. And then the
	// power goes once more.
	var more []point
	w.record(m, &more)
	if err := w.run(t.Context(), t, s, max(0, w.begun-20), min(workSteps, w.begun+10), nil, untilError); err != nil && !errors.Is(err, venti.ErrFull) {
		t.Fatalf("after recovery: %v", err)
	}
	mustSync(t, s)
	w.ack()
	more = append(more, w.point(m))
	if rng.IntN(2) == 0 {
		mustClose(t, s)
		m.Record(nil)
		checkStore(t, m)
	} else {
		kill(m, s)
	}
	last := more[rng.IntN(len(more))]
	w = last.resume()
	m = last.lose(rng)
	s = mustOpen(t, configOf(m))
	defer mustClose(t, s)
	w.check(t, s, w.acked)
	checkStore(t, m)
}

var errFault = errors.New("input/output error")

// TestFault fails one write, sync or read of the workload. What follows may
// fail, but ends; once the log cannot be written every sync fails; what a
// sync has acknowledged is there, and after a restart or a power cut the
// store is clean.
func TestFault(t *testing.T) {
	for _, sh := range crashShapes {
		t.Run(sh.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			lives, _ := live(t, sh.shape)
			// How many operations of each kind each life has. One that is
			// done again may have some more or less.
			type fault struct {
				life int
				kind disk.OpKind
				nth  int64
			}
			var faults []fault
			for i := range lives {
				l := &lives[i]
				m := l.start.at.Restart()
				w := l.start.resume()
				s := mustOpen(t, configOf(m))
				if err := w.run(t.Context(), t, s, l.first, l.last, nil, untilError); err != nil {
					t.Fatal(err)
				}
				mustClose(t, s)
				for _, kind := range []disk.OpKind{disk.OpRead, disk.OpWrite, disk.OpSync} {
					for n := range m.Count(kind) {
						faults = append(faults, fault{i, kind, n})
					}
				}
			}
			seed := trialSeed(t)
			list := sample(rand.New(rand.NewPCG(seed, 5)), trials(15), len(faults))
			t.Logf("%d operations in %v; %d of them fail", len(faults), time.Since(start).Round(time.Millisecond), len(list))
			for _, i := range list {
				f := faults[i]
				t.Run(fmt.Sprintf("seed=%d,life=%d,%v=%d", seed, f.life, f.kind, f.nth), func(t *testing.T) {
					t.Parallel()
					failOne(t, &lives[f.life], f.kind, f.nth, rand.New(rand.NewPCG(seed, uint64(i))))
				})
			}
		})
	}
}

// faultTime bounds everything that a store does after a fault.
const faultTime = time.Minute

func failOne(t *testing.T, l *life, kind disk.OpKind, nth int64, rng *rand.Rand) {
	ctx, cancel := context.WithTimeout(t.Context(), faultTime)
	defer cancel()
	w := l.start.resume()
	m := l.start.at.Restart()
	var mu sync.Mutex // guards failed and n
	var failed disk.Op
	var n int64
	m.SetHook(func(op disk.Op) error {
		if op.Kind != kind {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if n++; n == nth+1 {
			failed = op
			return errFault
		}
		return nil
	})
	// logFails tells whether syncs have to fail, which is not so if they have
	// no part in what failed.
	logFails := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if n <= nth || kind == disk.OpRead {
			return false
		}
		for _, f := range furtherFiles {
			if f.name == failed.Disk {
				return f.synced
			}
		}
		return strings.HasPrefix(failed.Disk, "arenas")
	}
	s, err := Open(ctx, configOf(m))
	if err != nil {
		if !errors.Is(err, errFault) {
			t.Errorf("open: %v, want the error of the %v", err, kind)
		}
	} else {
		err = w.run(ctx, t, s, l.first, l.last, logFails, func(error) bool { return false })
		if err != nil && !errors.Is(err, errFault) {
			t.Errorf("first error: %v, want that of the %v", err, kind)
		}
		for err = s.Sync(ctx); err == nil && logFails() && ctx.Err() == nil; {
			// What failed may be something that the store did in the background,
			// after everything was durable.
			err = s.Sync(ctx)
		}
		if err == nil {
			w.ack()
		} else if !logFails() {
			t.Errorf("sync after a failed %v on %q: %v", kind, failed.Disk, err)
		}
		m.SetHook(nil)         // one that has not come yet will not
		w.check(t, s, w.acked) // reads go on, also of what could not be written
		ended := make(chan error, 1)
		go func() { ended <- s.Close() }()
		select {
		case err = <-ended:
		case <-ctx.Done():
			t.Fatal("close does not end")
		}
		if err == nil {
			w.ack()
			if kind != disk.OpRead && n > nth {
				t.Errorf("close after a failed %v on %s succeeded", kind, failed.Disk)
			}
		}
	}
	m.SetHook(nil)
	left := w.point(m)
	for _, m := range []*disk.Machine{left.at.Restart(), left.at.Crash(rng), left.at.Crash(rng)} {
		w := left.resume()
		s := mustOpen(t, configOf(m))
		w.check(t, s, w.acked)
		// What is there only because the kernel still has it is not taken for
		// stored.
		for i := max(0, w.begun-30); i < w.begun; i++ {
			mustWrite(t, s, w.blocks[i].typ, w.blocks[i].data)
			w.fresh = append(w.fresh, i)
		}
		mustSync(t, s)
		w.ack()
		after := (&point{at: m.Snapshot()}).lose(rng)
		kill(m, s)
		m = after
		s = mustOpen(t, configOf(m))
		w.check(t, s, w.acked)
		mustClose(t, s)
		checkStore(t, m)
	}
}
