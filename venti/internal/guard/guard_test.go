package guard

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"strata/internal/disk"
	"strata/venti"
)

var arenas = []Arena{{"arena0", 0x11223344, 3 << 20}, {"arena1", 0x55667788, 1<<20 + 1}}

func mustOpen(t testing.TB, f disk.File) *File {
	t.Helper()
	g, err := Open(f, arenas)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// block returns what stands for block i of arena a.
func block(a, i int) []byte { return fmt.Appendf(nil, "block %d of arena %d", i, a) }

// want checks the guard of a block at off.
func want(t testing.TB, g *File, a int, off int64, b []byte, there bool) {
	t.Helper()
	sum, ok, err := g.Find(a, off, venti.ScoreOf(b))
	if err != nil || ok != there || ok && sum != Of(b) {
		t.Errorf("guard at %d of arena %d: %x, %v, %v; want it there %v", off, a, sum, ok, err, there)
	}
}

func TestLayout(t *testing.T) {
	if maxRecords != 26887 || extentRoom != 1077248 || extentRoom < (maxRecords+1)*recordSize {
		t.Errorf("%d guards, %d bytes for an extent", maxRecords, extentRoom)
	}
	if got, want := Size(arenas), int64(4096+5*1077248); got != want {
		t.Errorf("a file of %d bytes, want %d", got, want)
	}
}

// TestGolden compares the bytes of a header and a record.
func TestGolden(t *testing.T) {
	m := disk.NewMachine()
	f := m.NewDisk("guards", Size(arenas))
	g := mustOpen(t, f)
	if err := g.Resume(1, 0); err != nil {
		t.Fatal(err)
	}
	g.Add(1, 0x123, venti.ScoreOf([]byte("abc")), Of([]byte("abc")))
	if err := g.Sync(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		off        int64
	}{
		{"header", "76a49fd100000001001000000000002850266128", 0},
		{"record", "00000124ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015adacfe9453", 4096 + 3*1077248},
	} {
		b := make([]byte, len(c.want)/2)
		if _, err := f.ReadAt(b, c.off); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestFind adds guards over several extents and finds them: in memory, in the
// file, and in the file opened again.
func TestFind(t *testing.T) {
	m := disk.NewMachine()
	f := m.NewDisk("guards", Size(arenas))
	g := mustOpen(t, f)
	const n, step = 3000, 1001
	for a := range arenas {
		if err := g.Resume(a, 0); err != nil {
			t.Fatal(err)
		}
	}
	add := func(from, to int) {
		for i := from; i < to; i++ {
			g.Add(0, int64(i*step), venti.ScoreOf(block(0, i)), Of(block(0, i)))
			if i < 1000 {
				g.Add(1, int64(i*step), venti.ScoreOf(block(1, i)), Of(block(1, i)))
			}
		}
	}
	check := func() {
		t.Helper()
		for i := range n {
			want(t, g, 0, int64(i*step), block(0, i), true)
			if i < 1000 {
				want(t, g, 1, int64(i*step), block(1, i), true)
			}
		}
		want(t, g, 0, 5, block(0, 0), false)      // no clump begins there
		want(t, g, 0, 0, block(0, 1), false)      // another block
		want(t, g, 0, n*step, block(0, n), false) // nothing was added
	}
	add(0, 2000)
	if !errors.Is(g.Write(), nil) {
		t.Error("write failed")
	}
	add(2000, n)
	check()
	if err := g.Sync(); err != nil {
		t.Fatal(err)
	}
	check()
	m = m.Crash(rand.New(rand.NewPCG(1, 1))) // all was synced
	f = m.Disk("guards")
	g = mustOpen(t, f)
	check()

	// What is added again after a crash may be other blocks.
	if err := g.Resume(0, 1500*step); err != nil {
		t.Fatal(err)
	}
	want(t, g, 0, 1499*step, block(0, 1499), true)
	want(t, g, 0, 1500*step, block(0, 1500), false)
	g.Add(0, 1500*step, venti.ScoreOf([]byte("new")), Of([]byte("new")))
	if err := g.Sync(); err != nil {
		t.Fatal(err)
	}
	g = mustOpen(t, f)
	want(t, g, 0, 1499*step, block(0, 1499), true)
	want(t, g, 0, 1500*step, []byte("new"), true)
	want(t, g, 0, 1501*step, block(0, 1501), false)
}

// TestRebuild makes the guards of extents: of one that has some, one that has
// none, and the one that is added to.
func TestRebuild(t *testing.T) {
	m := disk.NewMachine()
	f := m.NewDisk("guards", Size(arenas))
	g := mustOpen(t, f)
	const step = 1 << 18
	if err := g.Resume(0, 6*step); err != nil {
		t.Fatal(err)
	}
	g.Add(0, 6*step, venti.ScoreOf(block(0, 6)), Of(block(0, 6)))
	for e := range 2 {
		var list []Guard
		for i := e * 4; i < min(e*4+4, 6); i++ {
			list = append(list, Guard{int64(i) * step, venti.ScoreOf(block(0, i)), Of(block(0, i))})
		}
		g.Rebuild(0, list)
	}
	g.Add(0, 7*step, venti.ScoreOf(block(0, 7)), Of(block(0, 7)))
	for range 2 {
		for i := range 8 {
			want(t, g, 0, int64(i)*step, block(0, i), true)
		}
		if err := g.Sync(); err != nil {
			t.Fatal(err)
		}
		g = mustOpen(t, f)
	}
}

// TestNoRoom has the file's writes fail: guards stay in memory and are written
// later; past the bound they are dropped.
func TestNoRoom(t *testing.T) {
	m := disk.NewMachine()
	g := mustOpen(t, m.NewDisk("guards", Size(arenas)))
	if err := g.Resume(0, 0); err != nil {
		t.Fatal(err)
	}
	m.SetHook(func(op disk.Op) error {
		if op.Kind == disk.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	g.Add(0, 77, venti.ScoreOf(block(0, 0)), Of(block(0, 0)))
	if err := g.Write(); !disk.NoSpace(err) {
		t.Errorf("write: %v", err)
	}
	want(t, g, 0, 77, block(0, 0), true)
	m.SetHook(nil)
	if err := g.Sync(); err != nil {
		t.Error(err)
	}
	want(t, g, 0, 77, block(0, 0), true)
}

// TestOpenRefuses opens what is no file of guards.
func TestOpenRefuses(t *testing.T) {
	m := disk.NewMachine()
	if _, err := Open(m.NewDisk("short", Size(arenas)-1), arenas); !errors.Is(err, ErrFormat) {
		t.Errorf("a short file: %v", err)
	}
	for i := range packedBytes {
		f := m.NewDisk(fmt.Sprint(i), Size(arenas))
		var b [packedBytes]byte
		packHeader(b[:])
		b[i] ^= 1
		if _, err := f.WriteAt(b[:], 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(f, arenas); !errors.Is(err, ErrFormat) {
			t.Errorf("byte %d of the header is wrong: %v", i, err)
		}
	}
}

// TestCrash cuts the power at every write and sync, and holds what is found
// against what was added: guards may be missing, but not wrong.
func TestCrash(t *testing.T) {
	m := disk.NewMachine()
	f := m.NewDisk("guards", Size(arenas))
	var points []*disk.Snapshot
	m.Record(func(_ disk.Op, s *disk.Snapshot) { points = append(points, s) })
	g := mustOpen(t, f)
	if err := g.Resume(0, 0); err != nil {
		t.Fatal(err)
	}
	const n, step = 300, 5000
	for i := range n {
		g.Add(0, int64(i*step), venti.ScoreOf(block(0, i)), Of(block(0, i)))
		if i%7 == 0 {
			if err := g.Write(); err != nil {
				t.Fatal(err)
			}
		}
		if i%31 == 0 {
			if err := g.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, p := range points {
		after := p.Crash(rand.New(rand.NewPCG(uint64(i), 1)))
		g := mustOpen(t, after.Disk("guards"))
		for k := range n {
			if sum, ok, err := g.Find(0, int64(k*step), venti.ScoreOf(block(0, k))); err != nil || ok && sum != Of(block(0, k)) {
				t.Fatalf("after write or sync %d: guard %d is %x, %v", i, k, sum, err)
			}
		}
	}
}

// FuzzScan reads any bytes as the guards of an extent.
func FuzzScan(f *testing.F) {
	var b [2 * recordSize]byte
	score, sum := venti.ScoreOf([]byte("abc")), Of([]byte("abc"))
	packRecord(b[:], seedOf(arenas[0].Name, arenas[0].ClumpMagic), 0, 7, score, &sum)
	f.Add(b[:])
	f.Add(b[:recordSize-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		m := disk.NewMachine()
		d := m.NewDisk("guards", Size(arenas))
		if _, err := d.WriteAt(b[:min(len(b), extentRoom)], headerSize); err != nil {
			t.Fatal(err)
		}
		g := mustOpen(t, d)
		for off := range int64(300) {
			if got, ok, err := g.Find(0, off, score); err != nil || ok && (got != sum || off != 7) {
				t.Errorf("at %d: %x, %v", off, got, err)
			}
		}
		if err := g.Resume(0, 100); err != nil {
			t.Error(err)
		}
	})
}

// FuzzHeader opens files that begin with any bytes.
func FuzzHeader(f *testing.F) {
	var b [packedBytes]byte
	f.Add(b[:])
	packHeader(b[:])
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < packedBytes {
			return
		}
		if blank, err := unpackHeader(in); err == nil && !blank && [packedBytes]byte(in) != b {
			t.Errorf("%x is taken for a header", in[:packedBytes])
		}
	})
}
