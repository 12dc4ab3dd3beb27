package live_test

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"strata/internal/disk"
	"strata/vdisk"
	"strata/vdisk/live"
)

// mbr is a master boot record with partitions at these sectors.
func mbr(parts ...[2]uint32) []byte {
	b := make([]byte, 512)
	copy(b, "boot code")
	for i, p := range parts {
		e := b[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], p[0])
		binary.LittleEndian.PutUint32(e[12:], p[1])
	}
	b[510], b[511] = 0x55, 0xaa
	return b
}

// A moment is what the disk under a file system held, and what images may be
// found then: each byte is that of was or of is. Nil is no image.
type moment struct {
	at      *disk.Snapshot
	was, is []byte
}

// TestCrash cuts the power while images are made, written to, cut anew, rolled
// back and so on, and looks at what is there then.
func TestCrash(t *testing.T) {
	m := newMachine(t, 32<<20)
	ctx := t.Context()
	var mu sync.Mutex
	var moments []moment
	var was, is []byte
	const size = 2<<20 + 4096
	mark := func(next []byte) {
		mu.Lock()
		defer mu.Unlock()
		is = next
	}
	done := func() {
		mu.Lock()
		defer mu.Unlock()
		was = is
	}
	m.m.Record(func(op disk.Op, s *disk.Snapshot) {
		mu.Lock()
		defer mu.Unlock()
		moments = append(moments, moment{s, was, is})
	})
	mark(make([]byte, size))
	m.must(m.cat.Create(ctx, "a/b", size))
	done()
	// write makes the image what next is, and flushes it if it is to last.
	write := func(next []byte, parts ...int) {
		t.Helper()
		d := m.writer("a/b")
		mark(next)
		for _, off := range parts {
			_, err := d.WriteAt(ctx, next[off:off+512], int64(off))
			m.must(err)
		}
		m.must(d.Flush(ctx))
		done()
		m.must(d.Close(ctx)) // which cuts it anew
	}
	one := slices.Clone(was)
	copy(one, mbr([2]uint32{8, 1024}))
	copy(one[4096:], random(1, 512))
	copy(one[600*1024:], random(2, 512))
	write(one, 0, 4096, 600*1024)
	_, err := m.cat.Snapshot(ctx, "a/b", "one")
	m.must(err)
	two := slices.Clone(one)
	copy(two, mbr([2]uint32{8, 2048}, [2]uint32{2064, 1000}))
	copy(two[2064*512:], random(3, 512))
	write(two, 0, 2064*512)
	mark(one)
	m.must(m.cat.Rollback(ctx, "a/b", "one", true))
	done()
	mark(append(slices.Clone(one), make([]byte, 1<<20)...))
	m.must(m.cat.Resize(ctx, "a/b", size+1<<20, false))
	done()
	d := m.writer("a/b") // who has it open while it grows
	mark(append(slices.Clone(is), make([]byte, 1<<20)...))
	m.must(m.cat.Resize(ctx, "a/b", size+2<<20, false))
	done()
	m.must(d.Close(ctx))
	grown := slices.Clone(is)
	copy(grown[size+3<<19:], random(4, 512))
	write(grown, size+3<<19)
	m.must(m.cat.Rename(ctx, "a/b", "a/c"))
	m.must(m.cat.Sync(ctx))
	renamed := len(moments)
	mark(nil)
	m.must(m.cat.Remove(ctx, "a/c"))
	done()
	m.m.Record(nil)

	seed := rand.Uint64()
	t.Logf("seed %d, %d moments", seed, len(moments))
	rng := rand.New(rand.NewPCG(seed, 0))
	tries := 60
	if testing.Short() {
		tries = 15
	}
	for range tries {
		i := rng.IntN(len(moments))
		x := moments[i]
		after := &machine{t: t, clock: m.clock, store: m.store, venti: m.store, m: x.at.Crash(rng)}
		after.disk = after.m.Disk("fossil")
		after.start()
		names, err := after.cat.List(ctx)
		if err != nil {
			t.Fatalf("moment %d: %v", i, err)
		}
		var got []byte
		switch {
		case len(names) == 0:
		case len(names) > 1 || names[0] != "a/b" && names[0] != "a/c" || names[0] == "a/b" && i >= renamed:
			t.Fatalf("moment %d: images %q", i, names)
		default:
			got = after.contents(names[0])
			l, err := after.cat.Layout(ctx, names[0])
			if err != nil {
				t.Fatalf("moment %d: %v", i, err)
			}
			if l.Size != int64(len(got)) {
				t.Errorf("moment %d: %d bytes, of %d", i, len(got), l.Size)
			}
		}
		if !either(got, x.was, x.is) {
			t.Fatalf("moment %d: the disk (%d bytes) is neither what it was nor what it was to be", i, len(got))
		}
		// And it goes on.
		if got != nil {
			after.must(after.cat.Settle(ctx, names[0], false))
			if again := after.contents(names[0]); !either(again, got, got) {
				t.Fatalf("moment %d: settled, the disk is another", i)
			}
			s, err := after.cat.Snapshot(ctx, names[0], "")
			after.must(err)
			if want := after.imported(got); s.Score != want {
				t.Fatalf("moment %d: the score is not that of an import", i)
			}
			after.must(after.cat.Remove(ctx, names[0]))
		}
		if _, err := after.cat.Disk(ctx, "a/b", live.OpenOptions{}); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("moment %d: %v", i, err)
		}
		after.must(after.cat.Create(ctx, "a/b", 1<<20))
		after.stop()
	}
}

// either tells whether each byte of got is that of one of two disks, or of one
// of them the size is.
func either(got, a, b []byte) bool {
	if got == nil || a == nil || b == nil || len(a) != len(b) {
		return same(got, a) || same(got, b)
	}
	if len(got) != len(a) {
		return false
	}
	for i := range got {
		if got[i] != a[i] && got[i] != b[i] {
			return false
		}
	}
	return true
}

func same(a, b []byte) bool { return (a == nil) == (b == nil) && slices.Equal(a, b) }

// TestCutLayout reads the hand-made record as the others do.
func TestCutLayout(t *testing.T) {
	b := make([]byte, 2<<20)
	copy(b, mbr([2]uint32{8, 1024}))
	l, err := vdisk.Inspect(memory(b))
	if err != nil || len(l.Regions) != 4 || l.Regions[2].Name != "p1" {
		t.Fatalf("%+v, %v", l, err)
	}
}
