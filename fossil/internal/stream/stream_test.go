package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/internal/disk"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// newBuffer returns a formatted buffer.
func newBuffer(t testing.TB, size int64, blockSize int, cfg buffer.Config) *buffer.Buffer {
	t.Helper()
	d := disk.NewMachine().NewDisk("part", size)
	if err := buffer.Format(d, blockSize, "test", format.NewEntry(blockSize, true), 2); err != nil {
		t.Fatal(err)
	}
	b, err := buffer.Open(d, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func update(t testing.TB, b *buffer.Buffer, f func(tx *buffer.Tx) error) {
	t.Helper()
	if err := b.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func newStream(t testing.TB, b *buffer.Buffer, in *Stream, dir bool) (s *Stream) {
	t.Helper()
	update(t, b, func(tx *buffer.Tx) (err error) {
		s, err = in.Create(tx, -1, dir)
		return err
	})
	return s
}

// bump starts an epoch: what there is now is a snapshot's.
func bump(t testing.TB, b *buffer.Buffer) {
	t.Helper()
	update(t, b, func(tx *buffer.Tx) error {
		s := tx.Super()
		s.EpochHigh++
		tx.SetSuper(s)
		_, err := Root().own(tx)
		return err
	})
}

func read(t testing.TB, b *buffer.Buffer, s *Stream, off int64, n int) []byte {
	t.Helper()
	var got []byte
	err := b.View(t.Context(), func(tx *buffer.Tx) error {
		list, err := s.Read(tx, off, n)
		got = bytes.Join(list, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func entry(t testing.TB, b *buffer.Buffer, s *Stream) (e format.Entry) {
	t.Helper()
	if err := b.View(t.Context(), func(tx *buffer.Tx) (err error) {
		e, err = s.Entry(tx)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return e
}

// holds checks a stream's contents, and that it has no leaf of zeros.
func holds(t testing.TB, b *buffer.Buffer, s *Stream, want []byte) {
	t.Helper()
	e := entry(t, b, s)
	if e.Size != int64(len(want)) {
		t.Fatalf("size %d, want %d", e.Size, len(want))
	}
	if got := read(t, b, s, 0, len(want)+1); !bytes.Equal(got, want) {
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("byte %d of %d is %d, want %d", i, len(want), got[i], want[i])
			}
		}
		t.Fatalf("%d bytes, want %d", len(got), len(want))
	}
	at := int64(0)
	for at < e.Size {
		var start, end int64
		if err := b.View(t.Context(), func(tx *buffer.Tx) (err error) {
			start, end, err = s.Data(tx, at)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if start < at || end < start || end > e.Size || start < e.Size && end == start {
			t.Fatalf("data after %d: [%d, %d)", at, start, end)
		}
		if !zero(want[at:start]) {
			t.Fatalf("hole at [%d, %d) has data", at, start)
		}
		for n := start; n < end; n += int64(e.DSize) {
			if n%int64(e.DSize) == 0 && zero(want[n:min(end, n+int64(e.DSize))]) {
				t.Fatalf("leaf at %d has only zeros", n)
			}
		}
		at = end
	}
}

// TestModel does random operations on a stream and on a slice of bytes, with
// epochs that begin between, and checks that no block is left at the end.
func TestModel(t *testing.T) {
	for _, bs := range []int{1024, 2048, 8192} {
		t.Run(fmt.Sprint(bs), func(t *testing.T) {
			t.Parallel()
			b := newBuffer(t, 48<<20, bs, buffer.Config{Memory: 1 << 20})
			dir := newStream(t, b, Root(), true)
			s := newStream(t, b, dir, false)
			before, _ := b.Used()
			rng := rand.New(rand.NewPCG(uint64(bs), 1))
			limit := 400 * bs // two levels of pointers at 1 KiB
			var want []byte
			for i := range 400 {
				off := rng.IntN(limit)
				if rng.IntN(2) == 0 {
					off = rng.IntN(8) * bs * 8
				}
				n := 1 + rng.IntN(20*bs)
				if rng.IntN(3) == 0 {
					n = bs * (1 + rng.IntN(30))
				}
				switch k := rng.IntN(12); {
				case k < 6: // write
					p := make([]byte, n)
					if rng.IntN(4) > 0 {
						for j := range p {
							p[j] = byte(rng.IntN(255) + 1)
						}
					}
					update(t, b, func(tx *buffer.Tx) error { return s.Write(tx, p, int64(off)) })
					if off+n > len(want) {
						want = append(want, make([]byte, off+n-len(want))...)
					}
					copy(want[off:], p)
				case k < 8: // resize
					size := rng.IntN(limit)
					if rng.IntN(4) == 0 {
						size = rng.IntN(3 * bs)
					}
					update(t, b, func(tx *buffer.Tx) error { return s.Resize(tx, int64(size)) })
					if size <= len(want) {
						want = want[:size:size]
					} else {
						want = append(want, make([]byte, size-len(want))...)
					}
				case k < 10: // punch
					if rng.IntN(3) == 0 {
						n = rng.IntN(limit)
					}
					update(t, b, func(tx *buffer.Tx) error { return s.Punch(tx, int64(off), int64(n)) })
					if off < len(want) {
						clear(want[off:min(len(want), off+n)])
					}
				default:
					bump(t, b)
				}
				holds(t, b, s, want)
				if t.Failed() {
					t.Fatalf("step %d", i)
				}
			}
			update(t, b, func(tx *buffer.Tx) error { return s.Remove(tx) })
			if err := b.View(t.Context(), func(tx *buffer.Tx) error { _, err := s.Entry(tx); return err }); !errors.Is(err, ErrRemoved) {
				t.Errorf("entry of what was removed: %v", err)
			}
			if err := b.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := b.SetEpochLow(t.Context(), b.Super().EpochHigh); err != nil {
				t.Fatal(err)
			}
			if after, _ := b.Used(); after != before {
				t.Errorf("%d blocks in use, %d before", after, before)
			}
		})
	}
}

// TestFromVenti changes a stream that is on Venti.
func TestFromVenti(t *testing.T) {
	st := ventitest.NewMemory()
	want := ventitest.Block(3, 300<<10)
	ve, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(want), int64(len(want)), hashtree.Config{DSize: 1024})
	if err != nil {
		t.Fatal(err)
	}
	packed, err := ve.Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := newBuffer(t, 8<<20, 2048, buffer.Config{Venti: st})
	s := newStream(t, b, Root(), false)
	before, _ := b.Used()
	update(t, b, func(tx *buffer.Tx) error { return s.Set(tx, format.UnpackEntry(packed)) })
	holds(t, b, s, want)
	if used, _ := b.Used(); used > before {
		t.Errorf("%d blocks used to read", used-before)
	}
	copy(want[100<<10:], "hello")
	update(t, b, func(tx *buffer.Tx) error { return s.Write(tx, []byte("hello"), 100<<10) })
	holds(t, b, s, want)
	if used, _ := b.Used(); used != before+3 {
		t.Errorf("%d blocks used to change one leaf, want 3", used-before)
	}
	update(t, b, func(tx *buffer.Tx) error { return s.Resize(tx, 3000) })
	holds(t, b, s, want[:3000])
	update(t, b, func(tx *buffer.Tx) error { return s.Write(tx, want[3000:200000], 3000) })
	holds(t, b, s, want[:200000])
}

// TestSlots fills a directory, removes, and fills again: slots are used again
// with another generation.
func TestSlots(t *testing.T) {
	b := newBuffer(t, 8<<20, 1024, buffer.Config{})
	dir := newStream(t, b, Root(), true)
	live := map[int64]*Stream{}
	rng := rand.New(rand.NewPCG(1, 1))
	most := int64(0)
	for i := range 2000 {
		if rng.IntN(3) > 0 || len(live) == 0 {
			s := newStream(t, b, dir, i%2 == 0)
			slot, _ := s.Slot()
			if live[slot] != nil {
				t.Fatalf("slot %d is in use", slot)
			}
			if e := entry(t, b, s); !e.Active || e.Size != 0 || e.Dir != (i%2 == 0) || e.Root != format.Hole {
				t.Fatalf("new entry %+v", e)
			}
			live[slot] = s
			most = max(most, slot)
			continue
		}
		for slot, s := range live {
			_, gen := s.Slot()
			update(t, b, func(tx *buffer.Tx) error { return s.Remove(tx) })
			delete(live, slot)
			again := dir.Child(slot, gen+1, false)
			if err := b.View(t.Context(), func(tx *buffer.Tx) error { _, err := again.Entry(tx); return err }); !errors.Is(err, ErrRemoved) {
				t.Fatalf("a free slot: %v", err)
			}
			break
		}
	}
	var n int64
	if err := b.View(t.Context(), func(tx *buffer.Tx) (err error) { n, err = dir.Slots(tx); return err }); err != nil || n != most+1 {
		t.Errorf("%d slots, %v, want %d", n, err, most+1)
	}
	for _, s := range live {
		entry(t, b, s)
	}
}

// TestSnapshotEntries has entries of snapshots refuse what they must.
func TestSnapshotEntries(t *testing.T) {
	b := newBuffer(t, 8<<20, 1024, buffer.Config{})
	s, snap := newStream(t, b, Root(), false), newStream(t, b, Root(), false)
	update(t, b, func(tx *buffer.Tx) error { return s.Write(tx, []byte("old"), 0) })
	bump(t, b)
	update(t, b, func(tx *buffer.Tx) error {
		e, err := s.Entry(tx)
		if err != nil {
			return err
		}
		e.Snap = tx.Epoch() - 1
		return snap.Set(tx, e)
	})
	update(t, b, func(tx *buffer.Tx) error { return s.Write(tx, []byte("new"), 0) })
	holds(t, b, s, []byte("new"))
	holds(t, b, snap, []byte("old"))
	if err := b.Update(t.Context(), func(tx *buffer.Tx) error { return snap.Write(tx, []byte("x"), 0) }); !errors.Is(err, ErrReadOnly) {
		t.Errorf("write: %v", err)
	}
	if err := b.SetEpochLow(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if err := b.View(t.Context(), func(tx *buffer.Tx) error { _, err := snap.Entry(tx); return err }); !errors.Is(err, ErrDeleted) {
		t.Errorf("entry of a snapshot that is gone: %v", err)
	}
}

func TestTooBig(t *testing.T) {
	b := newBuffer(t, 4<<20, 8192, buffer.Config{})
	s := newStream(t, b, Root(), false)
	e := entry(t, b, s)
	most := e.MaxSize()
	update(t, b, func(tx *buffer.Tx) error { return s.Write(tx, []byte("x"), most-1) })
	if got := read(t, b, s, most-2, 10); !bytes.Equal(got, []byte("\x00x")) {
		t.Errorf("end of the largest stream: %q", got)
	}
	for _, f := range []func(tx *buffer.Tx) error{
		func(tx *buffer.Tx) error { return s.Write(tx, []byte("xx"), most-1) },
		func(tx *buffer.Tx) error { return s.Resize(tx, most+1) },
	} {
		if err := b.Update(t.Context(), f); !errors.Is(err, ErrTooBig) {
			t.Errorf("beyond: %v", err)
		}
	}
	update(t, b, func(tx *buffer.Tx) error { return s.Punch(tx, 0, most) })
	if e = entry(t, b, s); e.Size != most || e.Root != format.Hole {
		t.Errorf("all punched: %+v", e)
	}
}
