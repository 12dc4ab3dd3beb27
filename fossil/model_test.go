package fossil

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"strata/internal/disk"
	"strata/vac/meta"
)

// trials returns how many of something to try: n, or n times $STRATA_TRIAL.
func trials(n int) int {
	if k, err := strconv.Atoi(os.Getenv("STRATA_TRIAL")); err == nil && k > 0 {
		return n * k
	}
	return n
}

// A node is a file or directory of the model.
type node struct {
	dir  bool
	mode meta.Mode
	data []byte
	kids map[string]*node
	id   int // the step that made it
}

func newNode(dir bool, mode meta.Mode, id int) *node {
	return &node{dir: dir, mode: mode, kids: map[string]*node{}, id: id}
}

func (n *node) clone() *node {
	c := *n
	c.kids = make(map[string]*node, len(n.kids))
	for name, k := range n.kids {
		c.kids[name] = k.clone()
	}
	return &c
}

// at returns the node at a path of names.
func (n *node) at(path []string) *node {
	for _, name := range path {
		n = n.kids[name]
	}
	return n
}

// paths lists the paths of all nodes below n for which want is true.
func (n *node) paths(want func(*node) bool) (list [][]string) {
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		k := n.kids[name]
		if want(k) {
			list = append(list, []string{name})
		}
		for _, p := range k.paths(want) {
			list = append(list, append([]string{name}, p...))
		}
	}
	return list
}

// A player does random operations on a file system and on a model of what is
// below /active.
type player struct {
	t    *testing.T
	fs   *FS
	rng  *rand.Rand
	root *node
	step int

	maxData int
	snaps   map[string]*node // what each snapshot must hold
}

func (p *player) open(path []string) (*File, error) {
	return p.fs.Walk(context.Background(), "/active/"+strings.Join(path, "/"))
}

// pick returns one of the paths for which want is true.
func (p *player) pick(want func(*node) bool, root bool) []string {
	list := p.root.paths(want)
	if root {
		list = append(list, nil)
	}
	if len(list) == 0 {
		return nil
	}
	return list[p.rng.IntN(len(list))]
}

func isDir(n *node) bool  { return n.dir }
func isFile(n *node) bool { return !n.dir }

func join(path []string, name string) []string { return append(slices.Clone(path), name) }

// data returns bytes to write, a third of the time zeros.
func (p *player) data(n int) []byte {
	b := make([]byte, n)
	if p.rng.IntN(3) > 0 {
		for i := range b {
			b[i] = byte(p.step + i/1000 + 1)
		}
	}
	return b
}

// play does one step. The model is changed even if there is an error, which is
// returned: the step may have been done.
func (p *player) play() error {
	ctx := context.Background()
	p.step++
	name := fmt.Sprintf("%s%d", strings.Repeat("x", p.rng.IntN(30)), p.rng.IntN(40))
	mode := meta.Mode(0o600 + p.rng.IntN(0o177))
	switch k := p.rng.IntN(24); {
	case k < 6: // create
		at := p.pick(isDir, true)
		dir := p.root.at(at)
		if k < 2 {
			mode |= meta.ModeDir
		} else if k == 2 {
			mode |= meta.ModeTemporary
		}
		d, err := p.open(at)
		if err != nil {
			return err
		}
		_, err = d.Create(ctx, name, mode, "glenda")
		if dir.kids[name] != nil {
			if !errors.Is(err, ErrExist) {
				return fmt.Errorf("create of what exists: %w", err)
			}
			return nil
		}
		dir.kids[name] = newNode(mode.IsDir(), mode, p.step)
		return err
	case k < 13: // write, truncate, punch
		at := p.pick(isFile, false)
		if at == nil {
			return nil
		}
		n := p.root.at(at)
		f, err := p.open(at)
		if err != nil {
			return err
		}
		off := p.rng.IntN(p.maxData)
		if p.rng.IntN(2) == 0 {
			off = len(n.data)
		}
		switch {
		case k < 10:
			b := p.data(p.rng.IntN(p.maxData/4 + 1))
			if off+len(b) > len(n.data) {
				n.data = append(slices.Clip(n.data), make([]byte, off+len(b)-len(n.data))...)
			} else {
				n.data = slices.Clone(n.data)
			}
			copy(n.data[off:], b)
			_, err = f.WriteAt(ctx, b, int64(off), "ken")
		case k < 12:
			size := int64(off)
			if off < len(n.data) {
				n.data = n.data[:off:off]
			} else {
				n.data = append(slices.Clip(n.data), make([]byte, off-len(n.data))...)
			}
			err = f.SetAttr(ctx, Change{Size: &size}, "ken")
		default:
			l := p.rng.IntN(p.maxData)
			n.data = slices.Clone(n.data)
			if off < len(n.data) {
				clear(n.data[off:min(len(n.data), off+l)])
			}
			err = f.Punch(ctx, int64(off), int64(l), "ken")
		}
		return err
	case k < 17: // remove
		at := p.pick(func(n *node) bool { return true }, false)
		if at == nil {
			return nil
		}
		up, name := p.root.at(at[:len(at)-1]), at[len(at)-1]
		f, err := p.open(at)
		if err != nil {
			return err
		}
		err = f.Remove(ctx, "rob")
		if len(up.kids[name].kids) > 0 {
			if !errors.Is(err, ErrNotEmpty) {
				return fmt.Errorf("remove of a directory that is not empty: %w", err)
			}
			return nil
		}
		delete(up.kids, name)
		return err
	case k < 21: // rename
		at, to := p.pick(func(n *node) bool { return true }, false), p.pick(isDir, true)
		if at == nil {
			return nil
		}
		f, err := p.open(at)
		if err != nil {
			return err
		}
		d, err := p.open(to)
		if err != nil {
			return err
		}
		n, up, dir := p.root.at(at), p.root.at(at[:len(at)-1]), p.root.at(to)
		err = f.Rename(ctx, d, name, true, "rob")
		inside := len(to) >= len(at) && slices.Equal(to[:len(at)], at)
		there := dir.kids[name]
		switch {
		case inside:
			if !errors.Is(err, ErrInside) {
				return fmt.Errorf("rename into itself: %w", err)
			}
			return nil
		case there == n:
			return err
		case there != nil && there.dir != n.dir:
			if !errors.Is(err, ErrNotDir) && !errors.Is(err, ErrNotFile) {
				return fmt.Errorf("rename over another kind: %w", err)
			}
			return nil
		case there != nil && len(there.kids) > 0:
			if !errors.Is(err, ErrNotEmpty) {
				return fmt.Errorf("rename over a directory that is not empty: %w", err)
			}
			return nil
		}
		delete(up.kids, at[len(at)-1])
		dir.kids[name] = n
		return err
	case k < 23: // attributes
		at := p.pick(func(n *node) bool { return true }, false)
		if at == nil {
			return nil
		}
		n := p.root.at(at)
		f, err := p.open(at)
		if err != nil {
			return err
		}
		n.mode = n.mode&meta.ModeDir | mode
		gid := strings.Repeat("g", p.rng.IntN(100))
		return f.SetAttr(ctx, Change{Mode: &n.mode, GID: &gid}, "ken")
	default:
		if p.snaps == nil || p.rng.IntN(2) == 0 {
			return nil
		}
		path, err := p.fs.Snapshot(ctx, SnapConfig{})
		if err == nil {
			p.snaps[path] = p.root.clone()
		}
		return err
	}
}

// same checks that a directory holds what the model does.
func same(t *testing.T, dir *File, n *node, path string) {
	t.Helper()
	ctx := context.Background()
	seen := map[string]bool{}
	for info, err := range dir.List(ctx) {
		if err != nil {
			t.Errorf("list %s: %v", path, err)
			return
		}
		k, p := n.kids[info.Name], path+"/"+info.Name
		if k == nil || seen[info.Name] {
			t.Errorf("%s should not be", p)
			continue
		}
		seen[info.Name] = true
		if info.Mode != k.mode || !k.dir && info.Size != int64(len(k.data)) {
			t.Errorf("%s: mode %o, size %d, want %o, %d", p, info.Mode, info.Size, k.mode, len(k.data))
		}
		f, err := dir.Walk(ctx, info.Name)
		if err != nil {
			t.Errorf("walk %s: %v", p, err)
			continue
		}
		if k.dir {
			if f.snap && k.mode&meta.ModeTemporary != 0 {
				continue
			}
			same(t, f, k, p)
			continue
		}
		got := make([]byte, len(k.data)+1)
		m, err := f.ReadAt(ctx, got, 0)
		if f.snap && k.mode&meta.ModeTemporary != 0 && len(k.data) > 0 {
			if !errors.Is(err, ErrNotArchived) {
				t.Errorf("%s: %v", p, err)
			}
			continue
		}
		if err != nil || !bytes.Equal(got[:m], k.data) {
			t.Errorf("%s: %d bytes, %v, want %d; they differ", p, m, err, len(k.data))
		}
	}
	for name := range n.kids {
		if !seen[name] {
			t.Errorf("%s/%s is missing", path, name)
		}
	}
}

// newFS formats a file system on a disk of a machine.
func newFS(t *testing.T, m *disk.Machine, size int64, blockSize int) *disk.Sim {
	t.Helper()
	d := m.NewDisk("part", size)
	if err := Format(t.Context(), d, FormatConfig{BlockSize: blockSize}); err != nil {
		t.Fatal(err)
	}
	return d
}

func mustOpen(t *testing.T, d disk.File, cfg Config) *FS {
	t.Helper()
	fs, err := Open(d, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func mustClose(t *testing.T, fs *FS) {
	t.Helper()
	if err := fs.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// clean fails on what a check finds.
func clean(t *testing.T, fs *FS) {
	t.Helper()
	for _, f := range checkStill(t, fs).Findings {
		t.Errorf("check: %s (%s)", f.Text, f.Repair)
	}
}

// checkStill checks fs when no removed tree is being closed, and compares the
// count of its blocks. The archiver and the clock may let go of a snapshot
// meanwhile; then it checks again.
func checkStill(t *testing.T, fs *FS) CheckResult {
	t.Helper()
	ctx := context.Background()
	for {
		if !fs.cfg.ReadOnly {
			if err := fs.b.Settle(ctx); err != nil {
				t.Error(err)
			}
		}
		before, _ := fs.b.Used()
		r, err := fs.Check(ctx, CheckConfig{Snapshots: true})
		if err != nil {
			t.Error(err)
		}
		switch after, _ := fs.b.Used(); {
		case after != before:
			continue
		case after != r.Used:
			t.Errorf("check: %d blocks used, by count %d", r.Used, after)
		}
		return r
	}
}

func walk(t *testing.T, fs *FS, path string) *File {
	t.Helper()
	f, err := fs.Walk(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// sameSnaps checks that there are the snapshots of the model and no others.
// Some may be dead.
func sameSnaps(t *testing.T, fs *FS, want map[string]*node) (dead int) {
	t.Helper()
	list, err := fs.Snapshots(context.Background(), "/")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		n := want[s.Path]
		if n == nil {
			t.Errorf("snapshot %s should not be", s.Path)
			continue
		}
		if s.Dead {
			dead++
			continue
		}
		same(t, walk(t, fs, s.Path), n, s.Path)
	}
	if len(list) != len(want) {
		t.Errorf("%d snapshots, want %d", len(list), len(want))
	}
	return dead
}

// TestModel does random operations on a file system and on a model, with
// snapshots and closes between.
func TestModel(t *testing.T) {
	for _, bs := range []int{1024, 8192} {
		t.Run(strconv.Itoa(bs), func(t *testing.T) {
			t.Parallel()
			d := newFS(t, disk.NewMachine(), 64<<20, bs)
			p := &player{
				t: t, rng: rand.New(rand.NewPCG(uint64(bs), 1)), root: newNode(true, 0, 0), maxData: 100 << 10,
				snaps: map[string]*node{},
			}
			for life := range trials(3) {
				p.fs = mustOpen(t, d, Config{Memory: 2 << 20})
				for range 150 {
					if err := p.play(); err != nil {
						t.Fatalf("step %d: %v", p.step, err)
					}
				}
				same(t, walk(t, p.fs, "/active"), p.root, "")
				sameSnaps(t, p.fs, p.snaps)
				mustClose(t, p.fs)
				p.fs = mustOpen(t, d, Config{ReadOnly: true})
				same(t, walk(t, p.fs, "/active"), p.root, "")
				sameSnaps(t, p.fs, p.snaps)
				clean(t, p.fs)
				mustClose(t, p.fs)
				if t.Failed() {
					t.Fatalf("life %d", life)
				}
			}
		})
	}
}
