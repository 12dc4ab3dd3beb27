package buffer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"strata/fossil/internal/format"
	"strata/internal/disk"
)

// digest returns a sum of all that a moment has: labels, and the blocks of
// metadata that its root block leads to.
func digest(ctx context.Context, m *Moment) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%+v\n", m.Super())
	for a := range m.Blocks() {
		l, err := m.Label(ctx, a)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, a, l)
	}
	var walk func(p format.Pointer, typ format.Type, tag uint32) error
	walk = func(p format.Pointer, typ format.Type, tag uint32) error {
		if typ.Level() == 0 && typ != format.Dir {
			return nil
		}
		data, err := m.Get(ctx, p, typ, tag)
		h.Write(data)
		for i := 0; typ.Level() > 0 && err == nil && i < len(data)/format.PointerSize; i++ {
			if p := format.PointerAt(data, i); p.IsLocal() {
				err = walk(p, typ-1, tag)
			}
		}
		for i := 0; typ == format.Dir && err == nil && i < len(data)/format.EntrySize; i++ {
			if e := format.EntryAt(data, i); e.Active && e.Local {
				err = walk(e.Root, e.Type(), e.Tag)
			}
		}
		return err
	}
	if err := walk(format.Local(m.Super().Active), format.Dir, rootTag); err != nil {
		return "", err
	}
	n := 0
	err := m.Closing(ctx, func(uint32) { n++ })
	fmt.Fprintln(h, n)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// TestMoment looks at a moment again and again while updates go on, some of them
// committed and some not.
func TestMoment(t *testing.T) {
	rounds := 0
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 3))
		d := newPart(t, disk.NewMachine(), 8<<20, 1024)
		b := mustOpen(t, d, Config{Memory: 700 << 10})
		work := func() {
			var err error
			switch k := rng.IntN(20); {
			case k < 8:
				err = create(b, rng.IntN(8), 1+rng.IntN(100), 1+rng.IntN(200))
			case k < 12:
				err = remove(b, rng.IntN(8))
			case k < 14:
				err = bump(b)
			case k < 15:
				err = b.SetEpochLow(t.Context(), b.Super().EpochHigh)
			case k < 17:
				err = b.Sync(t.Context())
			default:
				err = create(b, 9, 100, 700)
				if err == nil {
					err = remove(b, 9)
				}
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		for range 20 {
			work()
		}
		settle(t, b) // else what is closed late may be more than a moment keeps
		m, err := b.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want, err := digest(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			for range 3 {
				work()
			}
			got, err := digest(t.Context(), m)
			if errors.Is(err, ErrPassed) {
				break // 8 MiB are full of what is held some time
			}
			if err != nil || got != want {
				t.Fatalf("seed %d: the moment has changed after %d rounds of updates: %v", seed, i, err)
			}
			rounds++
		}
		m.Release()
		settle(t, b)
		if err := b.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, b, 10)
		used, total := b.Used()
		if free := b.free.free; used+free != total {
			t.Errorf("seed %d: %d blocks used and %d free of %d", seed, used, free, total)
		}
		mustClose(t, b)
		if t.Failed() {
			t.FailNow()
		}
	}
	if rounds == 0 {
		t.Error("no moment has lasted")
	}
}

// TestMomentGivesWay has writers need the room that a moment holds.
func TestMomentGivesWay(t *testing.T) {
	b := mustOpen(t, newPart(t, disk.NewMachine(), 2<<20, 1024), Config{})
	defer mustClose(t, b)
	if err := create(b, 0, 1, 500); err != nil {
		t.Fatal(err)
	}
	m, err := b.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release()
	for i := range 10 {
		if err := create(b, 0, 2+i, 500); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Label(t.Context(), 1); !errors.Is(err, ErrPassed) {
		t.Errorf("the moment goes on: %v", err)
	}
}

// TestSetLabel frees blocks and takes them back.
func TestSetLabel(t *testing.T) {
	b := mustOpen(t, newPart(t, disk.NewMachine(), 2<<20, 1024), Config{})
	defer mustClose(t, b)
	if err := create(b, 0, 1, 5); err != nil {
		t.Fatal(err)
	}
	counts := func() string {
		used, _ := b.Used()
		return fmt.Sprint(used, b.free.free)
	}
	set := func(addr uint32, l format.Label) {
		t.Helper()
		if err := b.Update(t.Context(), func(tx *Tx) error { return tx.SetLabel(addr, l) }); err != nil {
			t.Fatal(err)
		}
	}
	root := format.EntryAt(must(b.Peek(t.Context(), b.Super().Active)), 0).Root
	addr, _ := root.Addr()
	was, err := b.Label(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	before := counts()
	set(addr, format.Label{Type: 16})
	if _, err := b.Get(t.Context(), root, was.Type, was.Tag); !errors.Is(err, ErrMismatch) {
		t.Errorf("a block that is free: %v", err)
	}
	// At once, while the block is still to be made free by a commit.
	set(addr, was)
	if got := counts(); got != before {
		t.Errorf("%s used and free, want %s", got, before)
	}
	check(t, b, 1)
	set(addr, format.Label{Type: 16})
	if err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	set(addr, was)
	if got := counts(); got != before {
		t.Errorf("%s used and free, want %s", got, before)
	}
	check(t, b, 1)
	log := b.log.runs[0].addr
	err = b.Update(t.Context(), func(tx *Tx) error { return tx.SetLabel(log, format.Label{}) })
	if !errors.Is(err, ErrLogBlock) {
		t.Errorf("the log's label: %v", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestPatch changes blocks by hand, of metadata and of files, also while they
// are about to be written.
func TestPatch(t *testing.T) {
	d := newPart(t, disk.NewMachine(), 2<<20, 1024)
	b := mustOpen(t, d, Config{})
	if err := create(b, 0, 1, 5); err != nil {
		t.Fatal(err)
	}
	e := format.EntryAt(must(b.Peek(t.Context(), b.Super().Active)), 0)
	top, _ := e.Root.Addr()
	leaf, _ := format.PointerAt(must(b.Peek(t.Context(), top)), 2).Addr()
	want := map[uint32][]byte{}
	for _, addr := range []uint32{top, leaf, b.Super().Active} {
		was := must(b.Peek(t.Context(), addr))
		off := 900
		old, err := b.Patch(t.Context(), addr, off, []byte("by hand"))
		if err != nil || !bytes.Equal(old, was[off:off+7]) {
			t.Fatalf("old bytes %q, %v, want %q", old, err, was[off:off+7])
		}
		if err := overwrite(b, 0, 1, 3); err != nil {
			t.Fatal(err)
		}
		want[addr] = append(bytes.Clone(was[:off]), "by hand"...)
	}
	if _, err := b.Patch(t.Context(), leaf, 1020, []byte("too long")); err == nil {
		t.Error("a patch past the end")
	}
	if _, err := b.Patch(t.Context(), b.Blocks(), 0, []byte("x")); !errors.Is(err, ErrAddress) {
		t.Errorf("a block that is none: %v", err)
	}
	if _, err := b.Patch(t.Context(), b.log.runs[0].addr, 0, []byte("x")); !errors.Is(err, ErrLogBlock) {
		t.Errorf("the log's block: %v", err)
	}
	mustClose(t, b)
	b = mustOpen(t, d, Config{ReadOnly: true})
	for addr, w := range want {
		if got := must(b.Peek(t.Context(), addr)); !bytes.Equal(got[890:907], w[890:]) {
			t.Errorf("block %#x has %q, want %q", addr, got[890:907], w[890:])
		}
	}
	if _, err := b.Patch(t.Context(), leaf, 0, []byte("x")); !errors.Is(err, ErrReadOnly) {
		t.Errorf("opened for reading: %v", err)
	}
	mustClose(t, b)
}
