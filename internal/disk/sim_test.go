package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

func sector(fill byte) []byte { return bytes.Repeat([]byte{fill}, sectorSize) }

func mustWrite(t *testing.T, f File, off int64, b []byte) {
	t.Helper()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func mustSync(t *testing.T, f File) {
	t.Helper()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// contents returns what a read of all of f finds.
func contents(t *testing.T, f File) []byte {
	t.Helper()
	b := make([]byte, f.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCrash checks that what was synced survives, that of the rest any
// version of a sector may, and that every one of them does in some crash.
func TestCrash(t *testing.T) {
	m := NewMachine()
	d := m.NewDisk("d", 4*sectorSize)
	mustWrite(t, d, 0, bytes.Repeat(sector(1), 4))
	mustSync(t, d)
	mustWrite(t, d, sectorSize, bytes.Repeat(sector(2), 2))
	mustWrite(t, d, 2*sectorSize, sector(3))
	var seen [4][4]bool
	for seed := range uint64(200) {
		after := contents(t, m.Crash(rand.New(rand.NewPCG(seed, 1))).Disk("d"))
		again := contents(t, m.Crash(rand.New(rand.NewPCG(seed, 1))).Disk("d"))
		if !bytes.Equal(after, again) {
			t.Fatalf("seed %d gave two different disks", seed)
		}
		for s := range 4 {
			got := after[s*sectorSize:][:sectorSize]
			if !bytes.Equal(got, sector(got[0])) {
				t.Fatalf("seed %d: sector %d is torn", seed, s)
			}
			seen[s][got[0]] = true
		}
	}
	want := [4][4]bool{{1: true}, {1: true, 2: true}, {1: true, 2: true, 3: true}, {1: true}}
	if seen != want {
		t.Errorf("sectors were found as %v, want %v", seen, want)
	}
	if got := contents(t, d)[2*sectorSize]; got != 3 {
		t.Errorf("the crash changed the disk itself: %d", got)
	}
}

func TestPowerCut(t *testing.T) {
	m := NewMachine()
	a, b := m.NewDisk("a", 1024), m.NewDisk("b", 1024)
	m.SetHook(func(op Op) error {
		if op.Kind == OpWrite && op.N == 1 {
			return ErrPowerCut
		}
		return nil
	})
	mustWrite(t, a, 0, sector(1))
	if _, err := b.WriteAt(sector(2), 0); !errors.Is(err, ErrPowerCut) {
		t.Fatalf("got %v, want ErrPowerCut", err)
	}
	if err := a.Sync(); !errors.Is(err, ErrPowerCut) {
		t.Errorf("sync of the other disk: got %v, want ErrPowerCut", err)
	}
	if _, err := b.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrPowerCut) {
		t.Errorf("read: got %v, want ErrPowerCut", err)
	}
	var found [3]bool // the write at which the power went may or may not be there
	for seed := range uint64(50) {
		got := make([]byte, 1)
		if _, err := m.Crash(rand.New(rand.NewPCG(seed, 2))).Disk("b").ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		found[got[0]] = true
	}
	if found != [3]bool{0: true, 2: true} {
		t.Errorf("found %v", found)
	}
}

func TestFailedSyncIsKept(t *testing.T) {
	m := NewMachine()
	d := m.NewDisk("d", 1024)
	errIO := errors.New("input/output error")
	m.SetHook(func(op Op) error {
		if op.Kind == OpSync && op.N == 0 {
			return errIO
		}
		return nil
	})
	mustWrite(t, d, 0, sector(1))
	for range 2 {
		if err := d.Sync(); !errors.Is(err, errIO) {
			t.Errorf("sync: got %v, want %v", err, errIO)
		}
	}
	if _, err := d.WriteAt(sector(1), 0); !errors.Is(err, errIO) {
		t.Errorf("write: got %v, want %v", err, errIO)
	}
	if _, err := d.ReadAt(sector(0), 0); err != nil {
		t.Errorf("read: %v", err)
	}
	if got := m.Count(OpSync); got != 1 {
		t.Errorf("%d syncs reached the disk, want 1", got)
	}
}

// TestSnapshot takes one at every write and sync, and compares what can be
// made of them later with what the disk held then.
func TestSnapshot(t *testing.T) {
	const size = 10*1024 + 100 // the last sector is short
	m := NewMachine()
	d := m.NewDisk("d", size)
	var at []*Snapshot
	var ops []Op
	m.Record(func(op Op, s *Snapshot) { ops, at = append(ops, op), append(at, s) })
	rng := rand.New(rand.NewPCG(1, 1))
	durable := make([]byte, size)
	var held, synced [][]byte // after each operation: what was there, and what was durable
	for i := range 100 {
		if rng.IntN(8) == 0 {
			mustSync(t, d)
			durable = contents(t, d)
		} else {
			off := rng.Int64N(size)
			mustWrite(t, d, off, bytes.Repeat([]byte{byte(i + 1)}, 1+rng.IntN(min(2000, int(size-off)))))
		}
		held, synced = append(held, contents(t, d)), append(synced, durable)
	}
	if len(at) != 100 {
		t.Fatalf("%d snapshots of 100 operations", len(at))
	}
	for i, s := range at {
		if got := contents(t, s.Restart().Disk("d")); !bytes.Equal(got, held[i]) {
			t.Errorf("after %v %d: a restart finds something else", ops[i].Kind, ops[i].N)
		}
		all, none := false, false
		for seed := range uint64(20) {
			got := contents(t, s.Crash(rand.New(rand.NewPCG(seed, 3))).Disk("d"))
			all = all || bytes.Equal(got, held[i])
			none = none || bytes.Equal(got, synced[i])
			for off, b := range got {
				if b != synced[i][off] && bytes.Equal(held[i], synced[i]) {
					t.Fatalf("after %v %d: byte %d was durable, and is lost", ops[i].Kind, ops[i].N, off)
				}
			}
		}
		if !all || !none {
			t.Errorf("after %v %d: no crash keeps all, %v, or none, %v", ops[i].Kind, ops[i].N, !all, !none)
		}
	}
}

// TestRestart loses a sync, starts again, and syncs: only what is written
// again becomes durable.
func TestRestart(t *testing.T) {
	m := NewMachine()
	d := m.NewDisk("d", 3*sectorSize)
	mustWrite(t, d, 0, bytes.Repeat(sector(1), 3))
	m.SetHook(func(Op) error { return errors.New("input/output error") })
	if err := d.Sync(); err == nil {
		t.Fatal("sync did not fail")
	}
	m = m.Snapshot().Restart()
	d = m.Disk("d")
	if got := contents(t, d); !bytes.Equal(got, bytes.Repeat(sector(1), 3)) {
		t.Errorf("after a restart reads find %d", got)
	}
	mustWrite(t, d, sectorSize, sector(1)[:1])
	mustSync(t, d)
	var found [3][2]bool
	for seed := range uint64(50) {
		got := contents(t, m.Crash(rand.New(rand.NewPCG(seed, 4))).Disk("d"))
		for s := range found {
			if b := got[s*sectorSize:][:sectorSize]; !bytes.Equal(b, sector(b[0])) {
				t.Fatalf("sector %d is torn", s)
			} else {
				found[s][b[0]] = true
			}
		}
	}
	if want := [3][2]bool{{true, true}, {1: true}, {true, true}}; found != want {
		t.Errorf("sectors were found as %v, want %v", found, want)
	}
}
