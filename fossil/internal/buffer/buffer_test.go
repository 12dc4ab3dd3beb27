package buffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"strata/fossil/internal/format"
	"strata/internal/disk"
	"strata/venti"
	"strata/venti/ventitest"
)

// The tests keep a small file system of their own: a root block of entries,
// each of which is a stream or free.

const rootTag = format.RootTag

// newPart formats a partition of so many bytes on a machine.
func newPart(t testing.TB, m *disk.Machine, size int64, blockSize int) *disk.Sim {
	t.Helper()
	d := m.NewDisk("part", size)
	if err := Format(d, blockSize, "test", format.NewEntry(blockSize, true), 2); err != nil {
		t.Fatal(err)
	}
	return d
}

func mustOpen(t testing.TB, d disk.File, cfg Config) *Buffer {
	t.Helper()
	b, err := Open(d, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustClose(t testing.TB, b *Buffer) {
	t.Helper()
	if err := b.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// Each sector of a stream's leaves begins with the stream's number, the leaf's,
// and a version.
func leaf(bs, stream, n, version int) []byte {
	b := bytes.Repeat([]byte{byte(version), byte(stream), byte(n), 1}, bs/4)
	for i := 0; i < bs; i += sectorSize {
		copy(b[i:], fmt.Sprintf("%d %d %d\n", stream, n, version))
	}
	return b
}

// parseLeaf returns what a leaf says. A power cut may leave an overwrite half
// done: then version is the older.
func parseLeaf(b []byte) (stream, n, version int, err error) {
	for i := 0; i < len(b); i += sectorSize {
		var s, k, v int
		sector := b[i : i+sectorSize]
		line, _, _ := bytes.Cut(sector, []byte("\n"))
		if _, err = fmt.Sscanf(string(line), "%d %d %d", &s, &k, &v); err != nil {
			return
		}
		if !bytes.Equal(sector, leaf(sectorSize, s, k, v)) || i > 0 && (s != stream || k != n) {
			return s, k, v, fmt.Errorf("leaf has %q at %d", line, i)
		}
		if stream, n = s, k; i == 0 || v < version {
			version = v
		}
	}
	return
}

// root returns the root block for a change.
func root(tx *Tx) ([]byte, error) {
	s := tx.Super()
	addr, data, err := tx.Writable(format.Local(s.Active), format.Dir, rootTag)
	if err != nil {
		return nil, err
	}
	if s.Active != addr {
		s.Active = addr
		tx.SetSuper(s)
	}
	return data, nil
}

// build allocates the tree of a stream with so many leaves.
func build(tx *Tx, stream, leaves int) (format.Entry, error) {
	bs := tx.b.h.BlockSize
	tag := uint32(1000 + stream)
	e := format.NewEntry(bs, false)
	e.Size = int64(leaves) * int64(bs)
	var level []format.Pointer
	for n := range leaves {
		addr, _, err := tx.Alloc(format.Data, tag, leaf(bs, stream, n, 0))
		if err != nil {
			return e, err
		}
		level = append(level, format.Local(addr))
	}
	for len(level) > 1 {
		e.Depth++
		var up []format.Pointer
		np := int(e.Pointers())
		for len(level) > 0 {
			n := min(np, len(level))
			addr, buf, err := tx.Alloc(format.Type(e.Depth), tag, nil)
			if err != nil {
				return e, err
			}
			for i, p := range level[:n] {
				format.PutPointer(buf, i, p)
			}
			up, level = append(up, format.Local(addr)), level[n:]
		}
		level = up
	}
	e.Root, e.Local, e.Tag = level[0], true, tag
	return e, nil
}

// create puts a new stream into a slot, in the place of what was there.
func create(b *Buffer, slot, stream, leaves int) error {
	return b.Update(context.Background(), func(tx *Tx) error {
		data, err := root(tx)
		if err != nil {
			return err
		}
		old := format.EntryAt(data, slot)
		if old.Active {
			if err := tx.Unlink(old.Root, old.Type(), old.Tag); err != nil {
				return err
			}
		}
		e, err := build(tx, stream, leaves)
		if err != nil {
			return err
		}
		format.PutEntry(data, slot, &e)
		return nil
	})
}

// remove empties a slot.
func remove(b *Buffer, slot int) error {
	return b.UpdatePrivileged(context.Background(), func(tx *Tx) error {
		data, err := root(tx)
		if err != nil {
			return err
		}
		e := format.EntryAt(data, slot)
		if e.Active {
			if err := tx.Unlink(e.Root, e.Type(), e.Tag); err != nil {
				return err
			}
		}
		e = e.Removed()
		format.PutEntry(data, slot, &e)
		return nil
	})
}

// overwrite gives the first leaf of a stream another version.
func overwrite(b *Buffer, slot, stream, version int) error {
	return b.Update(context.Background(), func(tx *Tx) error {
		data, err := root(tx)
		if err != nil {
			return err
		}
		e := format.EntryAt(data, slot)
		p, typ, in := e.Root, e.Type(), data
		at := slot*format.EntrySize + 20
		for {
			own, err := tx.Own(p, typ, e.Tag)
			if err != nil {
				return err
			}
			addr, _ := p.Addr()
			if typ.Level() == 0 {
				content := leaf(b.BlockSize(), stream, 0, version)
				if own {
					tx.Overwrite(addr, content)
					return nil
				}
				if addr, err = tx.Replace(p, typ, e.Tag, content); err != nil {
					return err
				}
				setPointer(in, at, addr, &e, slot, typ)
				return nil
			}
			addr, below, err := tx.Writable(p, typ, e.Tag)
			if err != nil {
				return err
			}
			setPointer(in, at, addr, &e, slot, typ)
			p, typ, in, at = format.PointerAt(below, 0), typ-1, below, 0
		}
	})
}

// setPointer sets the root of an entry, or the pointer at the start of a block.
func setPointer(in []byte, at int, addr uint32, e *format.Entry, slot int, typ format.Type) {
	if typ == e.Type() {
		e.Root = format.Local(addr)
		format.PutEntry(in, slot, e)
		return
	}
	format.PutPointer(in, at/format.PointerSize, format.Local(addr))
}

// bump starts an epoch.
func bump(b *Buffer) error {
	return b.UpdatePrivileged(context.Background(), func(tx *Tx) error {
		s := tx.Super()
		s.EpochHigh++
		tx.SetSuper(s)
		_, err := root(tx)
		return err
	})
}

// tree visits the blocks of a stream, and returns its leaves' numbers and
// versions. It notes each block in seen.
func tree(t testing.TB, b *Buffer, seen map[uint32]int, p format.Pointer, typ format.Type, tag uint32, f func(leaf []byte)) {
	t.Helper()
	addr, ok := p.Addr()
	if !ok {
		if p != format.Hole {
			t.Errorf("score %v", p)
		}
		return
	}
	data, err := b.Get(t.Context(), p, typ, tag)
	if err != nil {
		t.Errorf("get: %v", err)
		return
	}
	if l, _ := b.Label(t.Context(), addr); l.State&format.Closed != 0 {
		t.Errorf("block %#x of the active tree is closed: %v", addr, l)
	}
	seen[addr]++
	if typ.Level() == 0 {
		f(data)
		return
	}
	for i := range len(data) / format.PointerSize {
		tree(t, b, seen, format.PointerAt(data, i), typ-1, tag, f)
	}
}

// A found is a stream as a check finds it.
type found struct{ stream, leaves, version int }

// check reads the active tree, and looks whether labels agree with it. It
// returns what is in each slot.
func check(t testing.TB, b *Buffer, nslots int) []found {
	t.Helper()
	seen := map[uint32]int{}
	s := b.Super()
	data, err := b.Get(t.Context(), format.Local(s.Active), format.Dir, rootTag)
	if err != nil {
		t.Errorf("root: %v", err)
		return nil
	}
	seen[s.Active]++
	list := make([]found, nslots)
	for i := range list {
		e := format.EntryAt(data, i)
		if !e.Active {
			continue
		}
		if err := e.Check(b.BlockSize()); err != nil {
			t.Errorf("slot %d: %v", i, err)
			continue
		}
		f := &list[i]
		tree(t, b, seen, e.Root, e.Type(), e.Tag, func(data []byte) {
			stream, n, version, err := parseLeaf(data)
			if err != nil || n != f.leaves || n > 0 && (stream != f.stream || version != 0) {
				t.Errorf("slot %d, leaf %d: %d %d %d, %v", i, f.leaves, stream, n, version, err)
			}
			if n == 0 {
				f.stream, f.version = stream, version
			}
			f.leaves++
		})
	}
	used := uint32(0)
	for a := range b.h.Blocks() {
		l, err := b.Label(t.Context(), a)
		if err != nil {
			t.Errorf("label of %#x: %v", a, err)
			continue
		}
		if !l.Free(s.EpochLow) {
			used++
		}
		switch n := seen[a]; {
		case n > 1:
			t.Errorf("block %#x has %d parents: %v", a, n, l)
		case n == 1 && (!l.InUse() || l.Free(s.EpochLow)):
			t.Errorf("block %#x is in use and free: %v", a, l)
		case n == 0 && l.InUse() && l.State&format.Closed == 0:
			t.Errorf("block %#x is lost: %v", a, l)
		}
	}
	if got, _ := b.Used(); got != used {
		t.Errorf("%d blocks in use by count, %d by labels", got, used)
	}
	return list
}

func settle(t testing.TB, b *Buffer) {
	t.Helper()
	if err := b.Settle(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestUpdate(t *testing.T) {
	for _, bs := range []int{1024, 4096, 8192, format.MaxBlockSize} {
		t.Run(strconv.Itoa(bs), func(t *testing.T) {
			m := disk.NewMachine()
			d := newPart(t, m, 64<<20, bs)
			b := mustOpen(t, d, Config{})
			for i := range 10 {
				if err := create(b, i, i+1, 1+i*3); err != nil {
					t.Fatal(err)
				}
			}
			for _, err := range []error{remove(b, 3), create(b, 4, 14, 2), overwrite(b, 5, 6, 7), bump(b), overwrite(b, 6, 7, 1), overwrite(b, 6, 7, 2), remove(b, 7), b.Sync(t.Context())} {
				if err != nil {
					t.Fatal(err)
				}
			}
			want := []found{{1, 1, 0}, {2, 4, 0}, {3, 7, 0}, {}, {14, 2, 0}, {6, 16, 7}, {7, 19, 2}, {}, {9, 25, 0}, {10, 28, 0}}
			if got := check(t, b, 10); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("found %v, want %v", got, want)
			}
			mustClose(t, b)
			mustClose(t, b)
			if err := create(b, 1, 2, 3); !errors.Is(err, ErrClosed) {
				t.Errorf("update after close: %v", err)
			}
			b = mustOpen(t, d, Config{ReadOnly: true})
			if b.Super().Logged {
				t.Error("a log is left after close")
			}
			if got := check(t, b, 10); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("found %v, want %v", got, want)
			}
			if err := create(b, 1, 2, 3); !errors.Is(err, ErrReadOnly) {
				t.Errorf("update when opened for reading: %v", err)
			}
			mustClose(t, b)
		})
	}
}

// TestFailedUpdate has updates fail at every step, and looks for traces.
func TestFailedUpdate(t *testing.T) {
	b := mustOpen(t, newPart(t, disk.NewMachine(), 4<<20, 1024), Config{})
	defer mustClose(t, b)
	if err := create(b, 0, 1, 5); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(check(t, b, 4))
	oops := errors.New("oops")
	err := b.Update(t.Context(), func(tx *Tx) error {
		data, err := root(tx)
		if err != nil {
			return err
		}
		e := format.EntryAt(data, 0)
		if err := tx.Unlink(e.Root, e.Type(), e.Tag); err != nil {
			return err
		}
		if e, err = build(tx, 2, 100); err != nil {
			return err
		}
		format.PutEntry(data, 0, &e)
		return oops
	})
	if err != oops {
		t.Fatalf("error %v", err)
	}
	if got := fmt.Sprint(check(t, b, 4)); got != want {
		t.Errorf("found %v, want %v", got, want)
	}
}

func TestFull(t *testing.T) {
	b := mustOpen(t, newPart(t, disk.NewMachine(), 2<<20, 4096), Config{})
	defer mustClose(t, b)
	n := 0
	for ; ; n++ {
		err := create(b, n, n+1, 10)
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n < 10 {
		t.Fatalf("full after %d streams", n)
	}
	// Room is made at once, though what was removed is free after a commit only.
	for i := range 3 * n {
		if err := remove(b, i%n); err != nil {
			t.Fatal(err)
		}
		if err := create(b, i%n, 1000+i, 10); err != nil {
			t.Fatalf("after removal %d: %v", i, err)
		}
	}
	check(t, b, n)
}

// TestLargeTree lets go of trees that one update cannot close.
func TestLargeTree(t *testing.T) {
	d := newPart(t, disk.NewMachine(), 8<<20, 1024)
	b := mustOpen(t, d, Config{})
	before, _ := b.Used()
	for i := range 3 {
		if err := create(b, i, i+1, 1500); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		if err := remove(b, i); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, b)
	if err := bump(b); err != nil {
		t.Fatal(err)
	}
	if err := remove(b, 2); err != nil {
		t.Fatal(err)
	}
	settle(t, b)
	check(t, b, 3)
	if err := b.SetEpochLow(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if used, _ := b.Used(); used < before+1500 {
		t.Errorf("%d blocks in use, though a snapshot has a tree", used)
	}
	if err := b.SetEpochLow(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if used, _ := b.Used(); used != before {
		t.Errorf("%d blocks in use, want %d", used, before)
	}
	if err := b.SetEpochLow(t.Context(), 1); err == nil {
		t.Error("the low epoch can be lowered")
	}
	mustClose(t, b)
}

// TestVenti reads blocks of a server, each once.
func TestVenti(t *testing.T) {
	st := ventitest.NewMemory()
	reads := 0
	faulty := ventitest.NewFaulty(st, func(op ventitest.Op) error {
		if op.Name == "read" {
			reads++
		}
		return nil
	})
	b := mustOpen(t, newPart(t, disk.NewMachine(), 2<<20, 1024), Config{Venti: faulty})
	defer mustClose(t, b)
	s, err := st.WriteBlock(t.Context(), venti.DataType, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	err = b.View(t.Context(), func(tx *Tx) error {
		data, err := tx.Get(format.Pointer(s), format.Data, 0)
		if err == nil && !bytes.Equal(data[:6], []byte("hello\x00")) {
			t.Errorf("block %q", data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		data, err := b.Get(t.Context(), format.Pointer(s), format.Data, 0)
		if err != nil || !bytes.Equal(data[:6], []byte("hello\x00")) || len(data) != 1024 {
			t.Fatalf("block %q, %v", data, err)
		}
	}
	if _, err := b.Get(t.Context(), format.Pointer(s), format.Dir, 0); !errors.Is(err, ErrVenti) || !errors.Is(err, venti.ErrNotFound) {
		t.Errorf("as a directory: %v", err)
	}
	if reads != 2 {
		t.Errorf("%d reads, want 2", reads)
	}
}

// trials returns how many of something to try: n, or n times $STRATA_TRIAL.
func trials(n int) int {
	if k, err := strconv.Atoi(os.Getenv("STRATA_TRIAL")); err == nil && k > 0 {
		return n * k
	}
	return n
}

const crashSlots = 12

// A history is what a workload did: after each step, the streams in the slots.
type history struct {
	states   [][]int     // states[i] is what there is after i steps
	leaves   map[int]int // of each stream
	versions map[int]int // the last that each stream was given
	synced   int         // states before this one are out of date for good
	floor    map[int]int // versions that were synced
}

func newHistory() *history {
	return &history{states: [][]int{make([]int, crashSlots)}, leaves: map[int]int{0: 0}, versions: map[int]int{}, floor: map[int]int{}}
}

// A mark is a moment in a history.
type mark struct {
	synced, steps int
	floor         map[int]int
}

// work does steps. Errors end it, and are returned.
func (w *history) work(b *Buffer, rng *rand.Rand, steps int) error {
	for range steps {
		now := append([]int(nil), w.states[len(w.states)-1]...)
		slot := rng.IntN(crashSlots)
		var err error
		switch k := rng.IntN(20); {
		case k < 6:
			stream := len(w.leaves)
			n := 1 + rng.IntN(8)
			if rng.IntN(8) == 0 {
				n = 60 + rng.IntN(500)
			}
			now[slot] = stream
			w.leaves[stream] = n
			w.states = append(w.states, now) // it may happen before we know
			err = create(b, slot, stream, n)
			if errors.Is(err, ErrFull) {
				w.states[len(w.states)-1] = w.states[len(w.states)-2]
				err = nil
			}
		case k < 9:
			now[slot] = 0
			w.states = append(w.states, now)
			err = remove(b, slot)
		case k < 14:
			if now[slot] != 0 {
				w.versions[now[slot]]++
				err = overwrite(b, slot, now[slot], w.versions[now[slot]])
				if errors.Is(err, ErrFull) {
					err = nil
				}
			}
		case k < 15:
			err = bump(b)
		case k < 16:
			err = b.SetEpochLow(context.Background(), b.Super().EpochHigh)
			if err == nil {
				w.ack(len(w.states)-1, nil)
			}
		default:
			n, versions := len(w.states)-1, map[int]int{}
			for s, v := range w.versions {
				versions[s] = v
			}
			if err = b.Sync(context.Background()); err == nil {
				w.ack(n, versions)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *history) ack(n int, versions map[int]int) {
	w.synced = n
	if versions != nil {
		w.floor = versions
	}
}

// verify looks whether a partition holds one of the states that it may.
func (w *history) verify(t *testing.T, m *disk.Machine, from mark) {
	t.Helper()
	b, err := Open(m.Disk("part"), Config{})
	if err != nil {
		t.Fatalf("open after a crash: %v", err)
	}
	settle(t, b)
	got := check(t, b, crashSlots)
	ok := false
	for n := from.synced; n <= from.steps && !ok; n++ {
		ok = true
		for slot, stream := range w.states[n] {
			ok = ok && got[slot].stream == stream && got[slot].leaves == w.leaves[stream]
		}
	}
	if !ok {
		t.Errorf("found %v: no state from %d to %d\n%v", got, from.synced, from.steps, w.states[from.synced:from.steps+1])
	}
	for _, f := range got {
		if f.stream != 0 && f.version < from.floor[f.stream] {
			t.Errorf("stream %d has version %d, synced was %d", f.stream, f.version, from.floor[f.stream])
		}
	}
	if err := b.Close(context.Background()); err != nil {
		t.Errorf("close: %v", err)
	}
	b = mustOpen(t, m.Disk("part"), Config{ReadOnly: true})
	if b.Super().Logged {
		t.Error("a log is left after close")
	}
	if again := check(t, b, crashSlots); fmt.Sprint(again) != fmt.Sprint(got) {
		t.Errorf("found %v after close, %v before", again, got)
	}
	mustClose(t, b)
}

// TestCrash cuts the power at writes and syncs of a workload.
func TestCrash(t *testing.T) {
	for seed := range uint64(trials(2)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := disk.NewMachine()
			d := newPart(t, m, 2<<20, 1024)
			for range seed { // the log has been used before
				b := mustOpen(t, d, Config{})
				if err := errors.Join(create(b, 0, 1, 1), remove(b, 0)); err != nil {
					t.Fatal(err)
				}
				mustClose(t, b)
			}
			w := newHistory()
			type point struct {
				at *disk.Snapshot
				mark
			}
			var points []point
			moment := mark{}
			m.Record(func(_ disk.Op, at *disk.Snapshot) { points = append(points, point{at, moment}) })
			b := mustOpen(t, d, Config{Memory: 300 << 10})
			rng := rand.New(rand.NewPCG(seed, 1))
			for range 300 {
				// What the next step does may be there from its first write on.
				m.Record(nil)
				moment = mark{w.synced, len(w.states), w.floor}
				m.Record(func(_ disk.Op, at *disk.Snapshot) { points = append(points, point{at, moment}) })
				if err := w.work(b, rng, 1); err != nil {
					t.Fatal(err)
				}
			}
			m.Record(nil)
			moment = mark{w.synced, len(w.states) - 1, w.floor}
			settle(t, b)
			check(t, b, crashSlots)
			mustClose(t, b)
			list := rng.Perm(len(points))
			list = list[:min(len(list), trials(25))]
			t.Logf("%d writes and syncs; power cuts at %d of them", len(points), len(list))
			for _, i := range list {
				p := points[i]
				p.steps = min(p.steps, len(w.states)-1)
				after := p.at.Crash(rng)
				if i%3 == 0 { // a second crash in the recovery
					again := after.Disk("part")
					var mid []*disk.Snapshot
					after.Record(func(_ disk.Op, at *disk.Snapshot) { mid = append(mid, at) })
					if b, err := Open(again, Config{}); err == nil {
						b.Close(context.Background())
					}
					after.Record(nil)
					if len(mid) > 0 {
						after = mid[rng.IntN(len(mid))].Crash(rng)
					}
				}
				w.verify(t, after, p.mark)
				if t.Failed() {
					t.Fatalf("seed %d: power cut after operation %d", seed, i)
				}
			}
		})
	}
}

// TestFault has each operation of a workload fail once: what fails is not
// taken for done, and the partition opens again.
func TestFault(t *testing.T) {
	errFault := errors.New("fault")
	run := func(t *testing.T, kind disk.OpKind, n int64) (hit bool) {
		m := disk.NewMachine()
		d := newPart(t, m, 2<<20, 1024)
		base := m.Count(kind)
		m.SetHook(func(op disk.Op) error {
			if op.Kind == kind && op.N == base+n {
				hit = true
				return errFault
			}
			return nil
		})
		w := newHistory()
		rng := rand.New(rand.NewPCG(uint64(n), 2))
		b, err := Open(d, Config{Memory: 100 << 10})
		if err == nil {
			for range 60 {
				if err = w.work(b, rng, 1); err != nil && kind == disk.OpRead && b.Super().EpochHigh > 0 {
					if !errors.Is(err, errFault) {
						t.Errorf("read %d: %v", n, err)
					}
					// A step that could not read did nothing.
					if k := len(w.states); k > 1 {
						w.states = append(w.states, w.states[k-2])
					}
					break
				} else if err != nil {
					break
				}
			}
			if cerr := b.Close(context.Background()); cerr == nil && err != nil && kind != disk.OpRead {
				t.Errorf("%v %d: close succeeds after %v", kind, n, err)
			}
		}
		m.SetHook(nil)
		after := m.Snapshot().Restart()
		w.verify(t, after, mark{w.synced, len(w.states) - 1, w.floor})
		return hit
	}
	for _, kind := range []disk.OpKind{disk.OpRead, disk.OpWrite, disk.OpSync} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			step := int64(1)
			if trials(1) == 1 {
				step = 31
			}
			n := int64(0)
			for ; run(t, kind, n) && !t.Failed(); n += step {
			}
			if n == 0 {
				t.Error("nothing ever failed")
			}
		})
	}
}

// TestConcurrent reads blocks and labels while updates change them, with a cache
// that is too small.
func TestConcurrent(t *testing.T) {
	b := mustOpen(t, newPart(t, disk.NewMachine(), 4<<20, 1024), Config{Memory: 1})
	defer mustClose(t, b)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				for a := range b.Blocks() {
					l, err := b.Label(ctx, a)
					if err == nil && l.InUse() {
						_, err = b.Get(ctx, format.Local(a), l.Type, l.Tag)
					}
					if err != nil && ctx.Err() == nil && !errors.Is(err, ErrMismatch) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for i := range 60 {
		if err := create(b, i%8, i+1, 1+i*7%400); err != nil {
			t.Error(err)
		}
	}
	stop()
	readers.Wait()
	settle(t, b)
	check(t, b, 8)
}
