package fossil

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"strata/internal/disk"
)

// A tale is what a player did: the model after each step, and which of them
// were synced.
type tale struct {
	states []*node
	synced int
	snaps  map[string]*node
}

// A point is a moment of a tale: of the states from synced to last, one must be
// found.
type point struct {
	at           *disk.Snapshot
	synced, last int
}

// tell plays steps, with a sync now and then, until an error.
func (w *tale) tell(p *player, steps int, before func()) error {
	for range steps {
		// The step may have been done, from its first write on.
		next := p.root.clone()
		w.states = append(w.states, next)
		before()
		err := p.play()
		if errors.Is(err, ErrFull) {
			err = fmt.Errorf("the disk is too small for this test: %w", err)
		}
		*next = *p.root.clone()
		if err != nil {
			return err
		}
		if p.rng.IntN(8) == 0 {
			n := len(w.states) - 1
			sync := p.fs.Sync
			if p.rng.IntN(4) == 0 {
				sync = p.fs.Rest
			}
			if err := sync(context.Background()); err != nil {
				return err
			}
			w.synced = n
		}
	}
	return nil
}

// shape tells whether a directory holds what n does, but for contents.
func shape(dir *File, n *node, found map[int][]byte) error {
	ctx := context.Background()
	seen := 0
	for info, err := range dir.List(ctx) {
		if err != nil {
			return err
		}
		k := n.kids[info.Name]
		if k == nil || info.Mode != k.mode || !k.dir && info.Size != int64(len(k.data)) {
			return fmt.Errorf("%s: %v %d", info.Name, info.Mode, info.Size)
		}
		seen++
		f, err := dir.Walk(ctx, info.Name)
		if err != nil {
			return err
		}
		if k.dir {
			if err := shape(f, k, found); err != nil {
				return err
			}
			continue
		}
		data := make([]byte, len(k.data))
		if m, err := f.ReadAt(ctx, data, 0); err != nil || m != len(data) {
			return fmt.Errorf("%s: %d bytes, %w", info.Name, m, err)
		}
		found[k.id] = data
	}
	if seen != len(n.kids) {
		return fmt.Errorf("%d names, want %d", seen, len(n.kids))
	}
	return nil
}

// contents adds what each file below n holds.
func (n *node) contents(all map[int][][]byte) {
	if !n.dir {
		all[n.id] = append(all[n.id], n.data)
	}
	for _, k := range n.kids {
		k.contents(all)
	}
}

// verify opens what a crash left, and looks whether it is one of the states
// that it may be. Bytes that were overwritten may be old or new.
func (w *tale) verify(t *testing.T, m *disk.Machine, p point) {
	t.Helper()
	fs, err := Open(m.Disk("part"), Config{})
	if err != nil {
		t.Fatalf("open after a crash: %v", err)
	}
	clean(t, fs)
	// A snapshot is whole or not there at all.
	snaps, err := fs.Snapshots(t.Context(), "/")
	if err != nil {
		t.Error(err)
	}
	for _, s := range snaps {
		if w.snaps[s.Path] == nil {
			t.Errorf("snapshot %s was never taken", s.Path)
			continue
		}
		same(t, walk(t, fs, s.Path), w.snaps[s.Path], s.Path)
	}
	isState(t, fs, w.states, p)
	mustClose(t, fs)
}

// isState checks that the active tree is one of the states that it may be.
// Bytes that were overwritten may be old or new, but no others.
func isState(t *testing.T, fs *FS, states []*node, p point) {
	t.Helper()
	active := walk(t, fs, "/active")
	var found map[int][]byte
	why := ""
	for n := p.last; n >= p.synced; n-- {
		found = map[int][]byte{}
		err := shape(active, states[n], found)
		if err == nil {
			why = ""
			break
		}
		why += fmt.Sprintf("state %d: %v\n", n, err)
	}
	if why != "" {
		t.Errorf("what is found is no state from %d to %d:\n%s", p.synced, p.last, why)
	}
	all := map[int][][]byte{}
	for n := p.synced; n <= p.last; n++ {
		states[n].contents(all)
	}
	for id, data := range found {
		for i, c := range data {
			if !slices.ContainsFunc(all[id], func(was []byte) bool { return i < len(was) && was[i] == c }) {
				t.Errorf("file %d: byte %d is %d, which it never was", id, i, c)
				break
			}
		}
	}
}

// TestCrash cuts the power at writes and syncs of a workload.
func TestCrash(t *testing.T) {
	for seed := range uint64(trials(1)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := disk.NewMachine()
			d := newFS(t, m, 8<<20, 1024)
			w := &tale{states: []*node{newNode(true, 0, 0)}, snaps: map[string]*node{}}
			var points []point
			record := func() {
				synced, last := w.synced, len(w.states)-1
				m.Record(func(_ disk.Op, at *disk.Snapshot) { points = append(points, point{at, synced, last}) })
			}
			record()
			fs := mustOpen(t, d, Config{Memory: 300 << 10, Interval: time.Hour})
			p := &player{t: t, fs: fs, rng: rand.New(rand.NewPCG(seed, 5)), root: newNode(true, 0, 0), maxData: 40 << 10, snaps: w.snaps}
			if err := w.tell(p, 250, record); err != nil {
				t.Fatal(err)
			}
			mustClose(t, fs)
			m.Record(nil)
			list := p.rng.Perm(len(points))
			list = list[:min(len(list), trials(40))]
			t.Logf("%d writes and syncs; power cuts at %d of them", len(points), len(list))
			for _, i := range list {
				w.verify(t, points[i].at.Crash(p.rng), points[i])
				if t.Failed() {
					t.Fatalf("seed %d: power cut after operation %d", seed, i)
				}
			}
		})
	}
}

var errFault = errors.New("fault")

// eachFault runs something again and again, of which operation n fails, until
// it has no so many: of some operations only, unless this is a trial.
func eachFault(t *testing.T, run func(n int64) (hit bool)) {
	t.Helper()
	step, n := int64(23), int64(0)
	if trials(1) > 1 {
		step = 1
	}
	for ; run(n) && !t.Failed(); n += step {
	}
	if n == 0 {
		t.Error("nothing ever failed")
	}
}

// eachDiskFault is eachFault for reads, writes and syncs of a machine, whose
// n-th fails, counted from when arm is called.
func eachDiskFault(t *testing.T, run func(t *testing.T, kind disk.OpKind, n int64, arm func(*disk.Machine))) {
	for _, kind := range []disk.OpKind{disk.OpRead, disk.OpWrite, disk.OpSync} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			eachFault(t, func(n int64) (hit bool) {
				run(t, kind, n, func(m *disk.Machine) {
					base := m.Count(kind)
					m.SetHook(func(op disk.Op) error {
						if op.Kind == kind && op.N == base+n {
							hit = true
							return errFault
						}
						return nil
					})
				})
				return hit
			})
		})
	}
}

// TestFault has operations of the disk fail once.
func TestFault(t *testing.T) {
	eachDiskFault(t, func(t *testing.T, kind disk.OpKind, n int64, arm func(*disk.Machine)) {
		m := disk.NewMachine()
		d := newFS(t, m, 8<<20, 1024)
		arm(m)
		w := &tale{states: []*node{newNode(true, 0, 0)}, snaps: map[string]*node{}}
		fs, err := Open(d, Config{Memory: 100 << 10, Interval: time.Hour})
		if err == nil {
			p := &player{t: t, fs: fs, rng: rand.New(rand.NewPCG(uint64(n), 6)), root: newNode(true, 0, 0), maxData: 20 << 10, snaps: w.snaps}
			err = w.tell(p, 60, func() {})
			if err != nil && !errors.Is(err, errFault) {
				t.Errorf("%v %d: %v", kind, n, err)
			}
			cerr := fs.Close(context.Background())
			if err != nil && kind != disk.OpRead && cerr == nil {
				t.Errorf("%v %d: close succeeds after %v", kind, n, err)
			}
			if err != nil && kind == disk.OpRead {
				// A step that could not read did nothing.
				w.states = append(w.states, w.states[max(len(w.states)-2, 0)])
			}
		}
		m.SetHook(nil)
		w.verify(t, m.Snapshot().Restart(), point{nil, w.synced, len(w.states) - 1})
	})
}
