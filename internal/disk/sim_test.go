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

// TestCrash checks that what was synced survives, that of the rest any
// version of a sector may, and that every one of them does in some crash.
func TestCrash(t *testing.T) {
	m := NewMachine()
	d := m.NewDisk("d", 4*sectorSize)
	mustWrite(t, d, 0, bytes.Repeat(sector(1), 4))
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, d, sectorSize, bytes.Repeat(sector(2), 2))
	mustWrite(t, d, 2*sectorSize, sector(3))
	var seen [4][4]bool
	for seed := range uint64(200) {
		after := m.Crash(rand.New(rand.NewPCG(seed, 1))).Disk("d")
		again := m.Crash(rand.New(rand.NewPCG(seed, 1))).Disk("d")
		if !bytes.Equal(after.image, again.image) {
			t.Fatalf("seed %d gave two different disks", seed)
		}
		for s := range 4 {
			got := after.image[s*sectorSize:][:sectorSize]
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
	if got := d.image[2*sectorSize]; got != 3 {
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
