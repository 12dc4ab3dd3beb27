package hashtree_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// An ordered is a store that takes a block only after all that it names.
type ordered struct {
	*ventitest.Memory
	t testing.TB
}

func (o ordered) WriteBlock(ctx context.Context, typ venti.Type, data []byte) (venti.Score, error) {
	o.check(typ, data)
	return o.Memory.WriteBlock(ctx, typ, data)
}

func (o ordered) WriteScored(ctx context.Context, s venti.Score, typ venti.Type, data []byte) error {
	o.check(typ, data)
	return o.Memory.WriteScored(ctx, s, typ, data)
}

func (o ordered) check(typ venti.Type, data []byte) {
	need := func(s venti.Score, t venti.Type) {
		if s.IsZero() {
			return
		}
		if has, err := o.HasBlock(context.Background(), s, t); !has || err != nil {
			o.t.Errorf("a block of type %v came before the block %v of type %v that it names", typ, s, t)
		}
	}
	switch {
	case typ == venti.RootType:
		r, err := venti.UnpackRoot(data)
		if err != nil {
			o.t.Error(err)
		}
		need(r.Score, venti.DirType)
		need(r.Prev, venti.RootType)
	case typ == venti.DirType:
		data = append(bytes.Clone(data), make([]byte, 39)...)
		for ; len(data) >= venti.EntrySize; data = data[venti.EntrySize:] {
			if e, err := venti.UnpackEntry(data); err != nil {
				o.t.Error(err)
			} else if e.Active() {
				need(e.Score, e.Type())
			}
		}
	case typ.IsPointer():
		for ; len(data) > 0; data = data[venti.ScoreSize:] {
			need(venti.Score(data), typ-1)
		}
	}
}

// store stores a block as it is to be stored.
func store(t testing.TB, st venti.Store, typ venti.Type, data []byte) venti.Score {
	t.Helper()
	s, err := st.WriteBlock(t.Context(), typ, venti.Truncate(typ, data))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func file(t testing.TB, st venti.Store, data []byte) venti.Entry {
	t.Helper()
	e, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), tiny)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func directory(t testing.TB, st venti.Store, entries ...venti.Entry) venti.Entry {
	t.Helper()
	cfg := tiny
	cfg.Dir = true
	w, err := hashtree.NewWriter(t.Context(), st, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := w.WriteEntry(e); err != nil {
			t.Fatal(err)
		}
	}
	e, _, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// root stores a root over a directory of one leaf.
func root(t testing.TB, st venti.Store, dir venti.Entry, prev venti.Score) venti.Score {
	t.Helper()
	r := venti.Root{Name: "n", Type: "test", Score: dir.Score, BlockSize: 256, Prev: prev}
	b, err := r.Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	return store(t, st, venti.RootType, b)
}

// archive stores two snapshots of three files, one of them sparse, two in a
// directory of two leaves, and returns their roots.
func archive(t testing.TB, st venti.Store) (first, second venti.Score) {
	a := file(t, st, random(1, 5000))
	b := file(t, st, append(make([]byte, 20_000), random(2, 300)...))
	hole := file(t, st, make([]byte, 100_000))
	sub := directory(t, st, a, b, venti.Entry{}, a, a, a, a, hole)
	first = root(t, st, directory(t, st, sub, a), venti.Score{})
	c := file(t, st, random(3, 700))
	second = root(t, st, directory(t, st, sub, c), first)
	return first, second
}

func TestWalk(t *testing.T) {
	st := ventitest.NewMemory()
	_, top := archive(t, st)
	walk := func(cfg hashtree.WalkConfig, f func(*hashtree.Block) error) []string {
		t.Helper()
		var mu sync.Mutex
		var all []string
		err := hashtree.Walk(t.Context(), st, top, venti.RootType, cfg, func(b *hashtree.Block) error {
			mu.Lock()
			defer mu.Unlock()
			if b.Err != nil {
				t.Errorf("block %v: %v", b.Score, b.Err)
			}
			if got := venti.ScoreOf(b.Data); got != b.Score {
				t.Errorf("data of block %v has score %v", b.Score, got)
			}
			all = append(all, fmt.Sprintf("%v %v", b.Type, b.Score))
			if f != nil {
				return f(b)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := walk(hashtree.WalkConfig{}, nil)
	unique := slices.Compact(slices.Sorted(slices.Values(before)))
	if len(unique) != st.Len() {
		t.Errorf("%d blocks visited, %d in the store", len(unique), st.Len())
	}
	if before[0] != fmt.Sprintf("root %v", top) {
		t.Errorf("first block is %s", before[0])
	}
	after := walk(hashtree.WalkConfig{After: true}, nil)
	if after[len(after)-1] != before[0] || !slices.Equal(slices.Sorted(slices.Values(after)), slices.Sorted(slices.Values(before))) {
		t.Errorf("After: %d blocks, want %d; last %s", len(after), len(before), after[len(after)-1])
	}
	for _, cfg := range []hashtree.WalkConfig{{Parallel: 8}, {Parallel: 8, After: true}} {
		if got := walk(cfg, nil); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(before))) {
			t.Errorf("%+v: %d blocks, want %d", cfg, len(got), len(before))
		}
		cfg.Once = true
		got := walk(cfg, nil)
		if len(got) >= len(before) || !slices.Equal(slices.Compact(slices.Sorted(slices.Values(got))), unique) {
			t.Errorf("%+v: %d blocks, %d unique, want %d", cfg, len(got), len(slices.Compact(got)), len(unique))
		}
	}
	if got := walk(hashtree.WalkConfig{NoPrev: true}, nil); len(got) >= len(before) || strings.Count(strings.Join(got, "\n"), "root") != 1 {
		t.Errorf("NoPrev: %d blocks", len(got))
	}
	got := walk(hashtree.WalkConfig{}, func(b *hashtree.Block) error {
		if b.Type == venti.DirType {
			return hashtree.SkipBelow
		}
		return nil
	})
	if len(got) != 4 {
		t.Errorf("SkipBelow: %d blocks, want two roots and two directories", len(got))
	}
	stop := errors.New("stop")
	for _, parallel := range []int{1, 8} {
		err := hashtree.Walk(t.Context(), st, top, venti.RootType, hashtree.WalkConfig{Parallel: parallel}, func(b *hashtree.Block) error {
			if b.Type == venti.DataType {
				return stop
			}
			return nil
		})
		if !errors.Is(err, stop) {
			t.Errorf("Parallel %d: %v, want the function's error", parallel, err)
		}
	}
}

// A kept is a block that a test takes from a store for a while.
type kept struct {
	score venti.Score
	typ   venti.Type
}

// blocksOf counts how often a plain walk meets each block, and keeps them.
func blocksOf(t testing.TB, st *ventitest.Memory, top venti.Score) (met map[kept]int64, data map[kept][]byte) {
	t.Helper()
	met, data = make(map[kept]int64), make(map[kept][]byte)
	err := hashtree.Walk(t.Context(), st, top, venti.RootType, hashtree.WalkConfig{}, func(b *hashtree.Block) error {
		met[kept{b.Score, b.Type}]++
		data[kept{b.Score, b.Type}] = bytes.Clone(b.Data)
		return b.Err
	})
	if err != nil {
		t.Fatal(err)
	}
	return met, data
}

// TestWalkDamage removes each block in turn: the walk says which is missing
// and goes on with the others.
func TestWalkDamage(t *testing.T) {
	st := ventitest.NewMemory()
	_, top := archive(t, st)
	met, data := blocksOf(t, st, top)
	for gone, n := range met {
		st.Remove(gone.score, gone.typ)
		for _, after := range []bool{false, true} {
			missed := int64(0)
			err := hashtree.Walk(t.Context(), st, top, venti.RootType, hashtree.WalkConfig{After: after}, func(b *hashtree.Block) error {
				if b.Err != nil {
					if b.Score != gone.score || !errors.Is(b.Err, venti.ErrNotFound) {
						t.Errorf("without %v: block %v: %v", gone.score, b.Score, b.Err)
					}
					missed++
				}
				return nil
			})
			if err != nil || missed != n {
				t.Errorf("without %v: %v, missed %d times, want %d", gone.score, err, missed, n)
			}
		}
		store(t, st, gone.typ, data[gone])
	}
}

// TestWalkBadBlocks: what cannot be understood is told, and does not end the
// walk.
func TestWalkBadBlocks(t *testing.T) {
	st := ventitest.NewMemory()
	good, err := (&venti.Entry{PSize: 256, DSize: 256, Flags: venti.EntryActive, Size: 3, Score: store(t, st, venti.DataType, []byte("abc"))}).Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[4], bad[5] = 0, 1 // psize
	dir := store(t, st, venti.DirType, append(bad, good...))
	var got []string
	err = hashtree.Walk(t.Context(), st, dir, venti.DirType, hashtree.WalkConfig{}, func(b *hashtree.Block) error {
		got = append(got, fmt.Sprintf("%v %d %v", b.Type, b.Slot, b.Err != nil))
		return nil
	})
	if want := []string{"dir 0 false", "type255 0 true", "data 1 false"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	root := store(t, st, venti.RootType, []byte("not a root"))
	n := 0
	err = hashtree.Walk(t.Context(), st, root, venti.RootType, hashtree.WalkConfig{}, func(b *hashtree.Block) error {
		if n++; b.Err == nil {
			t.Error("a bad root has no error")
		}
		return nil
	})
	if err != nil || n != 1 {
		t.Errorf("bad root: %d blocks, %v", n, err)
	}
}

// TestWalkLongChain: many roots in a row are history, many directories in
// one another are an attack.
func TestWalkLongChain(t *testing.T) {
	st := ventitest.NewMemory()
	dir := directory(t, st, file(t, st, []byte("x")))
	var top venti.Score
	const n = 5000
	for range n {
		top = root(t, st, dir, top)
	}
	roots := 0
	err := hashtree.Walk(t.Context(), st, top, venti.RootType, hashtree.WalkConfig{Once: true}, func(b *hashtree.Block) error {
		if b.Type == venti.RootType {
			roots++
		}
		return nil
	})
	if err != nil || roots != n {
		t.Errorf("%d roots, %v; want %d", roots, err, n)
	}
	for range n {
		dir = directory(t, st, dir)
	}
	for _, parallel := range []int{1, 4} {
		err = hashtree.Walk(t.Context(), st, dir.Score, dir.Type(), hashtree.WalkConfig{Parallel: parallel}, func(*hashtree.Block) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "deep") {
			t.Errorf("%d directories deep: %v", n, err)
		}
	}
	if err := hashtree.Dump(t.Context(), st, dir.Score, dir.Type(), io.Discard); err == nil {
		t.Errorf("dump %d directories deep: no error", n)
	}
}

func TestCopy(t *testing.T) {
	src := ventitest.NewMemory()
	first, top := archive(t, src)
	for _, cfg := range []hashtree.CopyConfig{
		{}, {Parallel: 1}, {Remember: true}, {Fast: true}, {Fast: true, Remember: true, Parallel: 3}, {Rewrite: true}, {IgnoreErrors: true},
	} {
		for _, wrap := range []func(venti.Store) venti.Store{
			func(st venti.Store) venti.Store { return st },
			func(st venti.Store) venti.Store { return noProbe{st} },
		} {
			mem := ventitest.NewMemory()
			dst := wrap(ordered{mem, t})
			r, err := hashtree.Copy(t.Context(), src, dst, top, venti.RootType, cfg)
			if err != nil || r.Score != top || r.Rewritten != 0 {
				t.Fatalf("%+v: %+v, %v", cfg, r, err)
			}
			if mem.Len() != src.Len() {
				t.Errorf("%+v: %d blocks copied, want %d", cfg, mem.Len(), src.Len())
			}
			all := int64(reachable(t, src, top))
			if plain := !cfg.Remember && !cfg.Fast; plain != (r.Written.Blocks == all) {
				t.Errorf("%+v: wrote %d blocks of %d visited", cfg, r.Written.Blocks, all)
			}
			r, err = hashtree.Copy(t.Context(), src, dst, top, venti.RootType, cfg)
			if err != nil || cfg.Fast && (r.Written.Blocks != 0 || r.Skipped.Blocks != 1) {
				t.Errorf("%+v again: %+v, %v", cfg, r, err)
			}
		}
	}
	// A copy of the first snapshot makes that of the second shorter.
	dst := ventitest.NewMemory()
	if _, err := hashtree.Copy(t.Context(), src, dst, first, venti.RootType, hashtree.CopyConfig{}); err != nil {
		t.Fatal(err)
	}
	r, err := hashtree.Copy(t.Context(), src, dst, top, venti.RootType, hashtree.CopyConfig{Fast: true})
	if err != nil || r.Written.Blocks != 6 || dst.Len() != src.Len() { // root, directory, pointers, three leaves
		t.Errorf("second snapshot: %+v, %v; %d of %d blocks", r, err, dst.Len(), src.Len())
	}
}

// reachable counts the blocks that a plain walk visits.
func reachable(t testing.TB, br venti.BlockReader, top venti.Score) (n int) {
	t.Helper()
	err := hashtree.Walk(t.Context(), br, top, venti.RootType, hashtree.WalkConfig{}, func(*hashtree.Block) error { n++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestCopyDamage removes each block in turn.
func TestCopyDamage(t *testing.T) {
	src := ventitest.NewMemory()
	_, top := archive(t, src)
	met, data := blocksOf(t, src, top)
	for gone, n := range met {
		src.Remove(gone.score, gone.typ)
		name := fmt.Sprintf("without %v %v", gone.typ, gone.score)
		if _, err := hashtree.Copy(t.Context(), src, ventitest.NewMemory(), top, venti.RootType, hashtree.CopyConfig{}); !errors.Is(err, venti.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		var warned int64
		cfg := hashtree.CopyConfig{IgnoreErrors: true, Warn: func(error) { warned++ }}
		dst := ventitest.NewMemory()
		r, err := hashtree.Copy(t.Context(), src, dst, top, venti.RootType, cfg)
		if gone.score == top {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
			store(t, src, gone.typ, data[gone])
			continue
		}
		if err != nil || r.Score != top || warned != n || dst.Len() != reachableUnique(t, src, top) {
			t.Errorf("%s: ignoring it: %+v, %v; warned %d times, want %d; %d blocks", name, r, err, warned, n, dst.Len())
		}
		for _, remember := range []bool{false, true} {
			mem := ventitest.NewMemory()
			cfg := hashtree.CopyConfig{Rewrite: true, Remember: remember}
			r, err := hashtree.Copy(t.Context(), src, ordered{mem, t}, top, venti.RootType, cfg)
			if err != nil || r.Score == top || r.Rewritten == 0 || !remember && r.Rewritten != n {
				t.Errorf("%s: rewriting: %+v, %v; want %d pointers", name, r, err, n)
				continue
			}
			// The copy is whole, and what was there is in its place.
			err = hashtree.Walk(t.Context(), mem, r.Score, venti.RootType, hashtree.WalkConfig{}, func(b *hashtree.Block) error { return b.Err })
			if err != nil {
				t.Errorf("%s: the copy: %v", name, err)
			}
		}
		store(t, src, gone.typ, data[gone])
	}
}

func reachableUnique(t testing.TB, br venti.BlockReader, top venti.Score) int {
	t.Helper()
	all := map[string]bool{}
	hashtree.Walk(t.Context(), br, top, venti.RootType, hashtree.WalkConfig{}, func(b *hashtree.Block) error {
		if b.Err == nil {
			all[fmt.Sprint(b.Score, b.Type.Disk())] = true
		}
		return nil
	})
	return len(all)
}

// TestCopyShortEntry copies a directory whose last entry was cut short by
// truncation, since its score ends in a zero byte.
func TestCopyShortEntry(t *testing.T) {
	st := ventitest.NewMemory()
	var leaf []byte
	for i := 0; ; i++ {
		leaf = fmt.Appendf(nil, "leaf %d", i)
		if venti.ScoreOf(leaf)[venti.ScoreSize-1] == 0 {
			break
		}
	}
	lost := file(t, st, []byte("lost"))
	dir := directory(t, st, lost, file(t, st, leaf))
	dst := ventitest.NewMemory()
	if _, err := hashtree.Copy(t.Context(), st, dst, dir.Score, dir.Type(), hashtree.CopyConfig{}); err != nil || dst.Len() != 3 {
		t.Fatalf("%d blocks, %v; want 3", dst.Len(), err)
	}
	st.Remove(lost.Score, venti.DataType)
	dst = ventitest.NewMemory()
	r, err := hashtree.Copy(t.Context(), st, dst, dir.Score, dir.Type(), hashtree.CopyConfig{Rewrite: true})
	lost.Score = venti.EmptyScore
	if want := directory(t, st, lost, file(t, st, leaf)).Score; err != nil || r.Score != want || r.Rewritten != 1 {
		t.Errorf("got %+v, %v; want %v", r, err, want)
	}
}

// TestCopyBroken: a source or destination that breaks ends the copy, whatever
// is to be ignored.
func TestCopyBroken(t *testing.T) {
	src := ventitest.NewMemory()
	_, top := archive(t, src)
	for n := int64(0); n < 60; n += 7 {
		for _, cfg := range []hashtree.CopyConfig{{}, {IgnoreErrors: true}, {Rewrite: true}, {Fast: true, Parallel: 1}} {
			if cfg.Fast && n > 30 {
				continue // by then it may have read all that it needs
			}
			broken := ventitest.NewFaulty(src, ventitest.FailFrom(n))
			if _, err := hashtree.Copy(t.Context(), broken, ventitest.NewMemory(), top, venti.RootType, cfg); !errors.Is(err, ventitest.ErrFault) {
				t.Errorf("%+v: source breaks after %d: %v", cfg, n, err)
			}
			broken = ventitest.NewFaulty(ordered{ventitest.NewMemory(), t}, ventitest.FailFrom(n))
			if _, err := hashtree.Copy(t.Context(), src, broken, top, venti.RootType, cfg); !errors.Is(err, ventitest.ErrFault) {
				t.Errorf("%+v: destination breaks after %d: %v", cfg, n, err)
			}
		}
	}
}

func TestFindType(t *testing.T) {
	st := ventitest.NewMemory()
	for _, want := range []venti.Type{venti.RootType, venti.DirType, venti.DataType, venti.DataType + 1, venti.DataType + 7} {
		s := store(t, st, want, fmt.Appendf(nil, "this is a block of type %v, and long enough", want))
		if got, err := hashtree.FindType(t.Context(), st, s); got != want || err != nil {
			t.Errorf("got %v, %v; want %v", got, err, want)
		}
	}
	if _, err := hashtree.FindType(t.Context(), st, venti.Score{1}); !errors.Is(err, venti.ErrNotFound) {
		t.Errorf("absent block: %v", err)
	}
}

func TestDump(t *testing.T) {
	st := ventitest.NewMemory()
	a := file(t, st, []byte("eighteen bytes, \xff\n"))
	b := file(t, st, append(random(1, 256), make([]byte, 256)...))
	gone := file(t, st, []byte("gone"))
	st.Remove(gone.Score, venti.DataType)
	dir := directory(t, st, a, venti.Entry{Gen: 7}, b, gone)
	top := root(t, st, dir, venti.Score{0xab})
	var out bytes.Buffer
	err := hashtree.Dump(t.Context(), st, top, venti.RootType, &out)
	if err == nil || !strings.Contains(err.Error(), "1 blocks or entries") {
		t.Errorf("error %v", err)
	}
	leaf := venti.ScoreOf(random(1, 256))
	want := fmt.Sprintf(`%v root name=n type=test prev=ab00000000000000000000000000000000000000 bsize=256
    %v dir n=160
        0: gen=0 psize=260 dsize=256 type=0 flags=0x1 size=18 score=%v
            %v data n=18
                 65 69 67 68 74 65 65 6e 20 62 79 74 65 73 2c 20
                 ff 0a
        1: gen=7 psize=0 dsize=0 type=0 flags=0 size=0 score=0000000000000000000000000000000000000000
        2: gen=0 psize=260 dsize=256 type=1 flags=0x1 size=512 score=%v
            %v data+1
                %v data n=256
`, top, dir.Score, a.Score, a.Score, b.Score, b.Score, leaf)
	got := out.String()
	if !strings.HasPrefix(got, want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	end := fmt.Sprintf("        3: gen=0 psize=260 dsize=256 type=0 flags=0x1 size=4 score=%v\n            error reading %v: ", gone.Score, gone.Score)
	if !strings.Contains(got, end) {
		t.Errorf("got\n%swant at the end\n%s", got, end)
	}
	if err := hashtree.Dump(t.Context(), st, top, venti.RootType, failWriter{}); !errors.Is(err, errWrite) {
		t.Errorf("full disk: %v", err)
	}
}

var errWrite = errors.New("no space left on device")

type failWriter struct{}

func (failWriter) Write([]byte) (int, error) { return 0, errWrite }

func (failWriter) WriteAt([]byte, int64) (int, error) { return 0, errWrite }
