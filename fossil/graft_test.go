package fossil

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strata/internal/disk"
	"strata/vac"
	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// vacTree has vac archive a directory of the host, which it makes. The names
// fill several metadata blocks.
func vacTree(t *testing.T, st venti.Store) (venti.Score, *node) {
	t.Helper()
	dir := t.TempDir()
	root := newNode(true, meta.ModeDir|0o777, 0) // as vac has its top
	t.Chdir(dir)
	for i := range 120 {
		at, path := root, ""
		if i%10 == 9 {
			path = fmt.Sprintf("sub%d/", i%4)
			if at = root.kids[path[:4]]; at == nil {
				at = newNode(true, meta.ModeDir|0o755, 0)
				root.kids[path[:4]] = at
			}
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		name := strings.Repeat("n", i%50) + fmt.Sprint(i)
		f := newNode(false, 0o640, 0)
		f.data = ventitest.Block(uint64(i), i*200)
		at.kids[name] = f
		if err := os.WriteFile(filepath.Join(path, name), f.data, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	r, err := vac.Store(t.Context(), st, []string{"."}, vac.Options{BlockSize: 1024})
	if err != nil {
		t.Fatal(err)
	}
	return r.Score, root
}

// TestGraft makes an archive of vac's a part of the active tree, twice, and
// works on it.
func TestGraft(t *testing.T) {
	st := ventitest.NewMemory()
	score, want := vacTree(t, st)
	d := newFS(t, disk.NewMachine(), 16<<20, 2048)
	c := newClock()
	cfg := Config{Venti: st, Now: c.Now, Interval: time.Hour, NoArchiver: true}
	fs := mustOpen(t, d, cfg)
	active := walk(t, fs, "/active")
	used := fs.used(t)
	for _, name := range []string{"one", "two"} {
		if _, err := active.Graft(t.Context(), name, score, 0, "ken"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := active.Graft(t.Context(), "one", score, 0, "ken"); !errors.Is(err, ErrExist) {
		t.Errorf("a name twice: %v", err)
	}
	if n := fs.used(t); n > used+4 {
		t.Errorf("%d blocks used", n-used)
	}
	one, two := want, want.clone()
	same(t, walk(t, fs, "/active/one"), one, "")
	same(t, walk(t, fs, "/active/two"), two, "")

	// Work on the first: all that its directories' blocks are changed for.
	p := &player{t: t, fs: fs, root: newNode(true, 0, 0), snaps: map[string]*node{}}
	p.root.kids["one"], p.root.kids["two"] = one, two
	dir := walk(t, fs, "/active/one")
	if _, err := dir.Create(t.Context(), "new", 0o644, "ken"); err != nil {
		t.Fatal(err)
	}
	one.kids["new"] = newNode(false, 0o644, 0)
	f := walk(t, fs, "/active/one/0")
	if _, err := f.WriteAt(t.Context(), []byte("hello"), 3000, "ken"); err != nil {
		t.Fatal(err)
	}
	one.kids["0"].data = append(make([]byte, 3000), "hello"...)
	if err := walk(t, fs, "/active/one/n1").Remove(t.Context(), "ken"); err != nil {
		t.Fatal(err)
	}
	delete(one.kids, "n1")
	mode := meta.Mode(0o600)
	for name, k := range one.kids {
		if k.dir {
			continue
		}
		if err := walk(t, fs, "/active/one/"+name).SetAttr(t.Context(), Change{Mode: &mode}, "ken"); err != nil {
			t.Fatal(err)
		}
		k.mode = mode
	}
	// Files and directories change their places between both, and out of them.
	for _, m := range []struct{ from, to, name string }{
		{"one/sub1", "two", "moved"}, {"two/sub3", "", "out"}, {"one/nn2", "two/sub1", "deep"}, {"out", "one", "in"},
	} {
		if err := walk(t, fs, "/active/"+m.from).Rename(t.Context(), walk(t, fs, "/active/"+m.to), m.name, false, "ken"); err != nil {
			t.Fatalf("move %s: %v", m.from, err)
		}
		from := strings.Split(m.from, "/")
		to := p.root
		if m.to != "" {
			to = p.root.at(strings.Split(m.to, "/"))
		}
		up := p.root.at(from[:len(from)-1])
		to.kids[m.name] = up.kids[from[len(from)-1]]
		delete(up.kids, from[len(from)-1])
	}
	c.now = c.now.Add(time.Hour)
	check := func() {
		t.Helper()
		same(t, walk(t, fs, "/active"), p.root, "")
		clean(t, fs)
		qids := map[uint64]string{}
		uniqueQids(t, walk(t, fs, "/active"), "/active", qids)
	}
	before := map[uint64]string{}
	uniqueQids(t, walk(t, fs, "/active"), "/active", before)
	check()
	p.archive()
	check()
	mustClose(t, fs)
	fs = mustOpen(t, d, cfg)
	p.fs = fs
	check()
	sameSnaps(t, fs, p.snaps)
	mustClose(t, fs)
}

// uniqueQids notes the qids below a directory, and fails on one that is there
// twice.
func uniqueQids(t *testing.T, dir *File, path string, seen map[uint64]string) {
	t.Helper()
	for info, err := range dir.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		p := path + "/" + info.Name
		if was, ok := seen[info.Qid]; ok {
			t.Errorf("%s and %s have qid %d", was, p, info.Qid)
		}
		seen[info.Qid] = p
		if info.Mode.IsDir() {
			f, err := dir.Walk(t.Context(), info.Name)
			if err != nil {
				t.Fatal(err)
			}
			uniqueQids(t, f, p, seen)
		}
	}
}

// TestGraftFile makes streams below another root files.
func TestGraftFile(t *testing.T) {
	st := ventitest.NewMemory()
	var dir []byte
	var want [][]byte
	for i, bs := range []int{4096, 1024, 8192} {
		data := ventitest.Block(uint64(i), 100000*i+5)
		want = append(want, data)
		e, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), hashtree.Config{DSize: bs})
		if err != nil {
			t.Fatal(err)
		}
		if dir, err = e.Pack(dir); err != nil {
			t.Fatal(err)
		}
	}
	score, err := st.WriteBlock(t.Context(), venti.DirType, dir)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := (&venti.Root{Name: "disk", Type: "vdisk", Score: score, BlockSize: 8192}).Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	if score, err = st.WriteBlock(t.Context(), venti.RootType, packed); err != nil {
		t.Fatal(err)
	}
	fs := mustOpen(t, newFS(t, disk.NewMachine(), 8<<20, 4096), Config{Venti: st, Interval: time.Hour})
	defer mustClose(t, fs)
	active := walk(t, fs, "/active")
	for n := range 2 {
		f, err := active.Graft(t.Context(), fmt.Sprint("f", n), score, n, "ken")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(t.Context(), []byte("x"), 2, "ken"); err != nil {
			t.Fatal(err)
		}
		want[n][2] = 'x'
		got := make([]byte, len(want[n])+1)
		if m, err := f.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got[:m], want[n]) {
			t.Errorf("entry %d: %d bytes, %v, want %d", n, m, err, len(want[n]))
		}
	}
	if _, err := active.Graft(t.Context(), "large", score, 2, "ken"); !errors.Is(err, ErrBadEntry) || !strings.Contains(err.Error(), "blocks of 4096 bytes") {
		t.Errorf("larger blocks: %v", err)
	}
	if _, err := active.Graft(t.Context(), "none", score, 3, "ken"); !errors.Is(err, ErrBadEntry) {
		t.Errorf("no such entry: %v", err)
	}
	if _, err := active.Graft(t.Context(), "none", venti.ScoreOf([]byte("none")), 0, "ken"); !errors.Is(err, ErrVenti) || !errors.Is(err, venti.ErrNotFound) {
		t.Errorf("no such root: %v", err)
	}
	if _, err := active.Walk(t.Context(), "none"); !errors.Is(err, ErrNotExist) {
		t.Errorf("a file is left of a graft that failed: %v", err)
	}
	clean(t, fs)
}
