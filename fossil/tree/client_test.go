package tree

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"strata/fossil"
	"strata/internal/ninep"
)

// A client does operations, one after the other.
type client struct {
	w           *world
	letter      string
	rng         *rand.Rand
	linux, wire bool
	root        *ninep.File
	handles     []*held
	last        int // id that an item has got
	steps       int

	mu     sync.Mutex // guards the fields below
	states []*item    // what its files were after each operation
	done   int        // operations that have ended
}

// A held is an open file.
type held struct {
	f       *ninep.File
	id      int
	atEnd   bool // writes go to the end
	removed bool
}

func (c *client) newID() int {
	c.last++
	return c.last
}

// progress returns the numbers of the states that the files may have now.
func (c *client) progress() (from, to int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done, len(c.states) - 1
}

func (c *client) state(n int) *item {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.states[n]
}

// begin notes what the files will be.
func (c *client) begin(next *item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states = append(c.states, next)
}

func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = len(c.states) - 1
	if c.done > 2000 { // nobody asks for those from long ago
		for i := range c.done - 1000 {
			c.states[i] = nil
		}
	}
}

// do does an operation after which the files are as next says, or which fails
// with an error.
func (c *client) do(what string, next *item, want *ninep.Error, op func(ctx context.Context) error) error {
	c.w.operations.Add(1)
	if want != nil {
		c.w.refused.Add(1)
	}
	c.begin(next)
	err := op(context.Background())
	c.end()
	var got *ninep.Error
	switch {
	case want == nil && err == nil:
		return nil
	case want != nil && errors.As(err, &got) && (got.Errno == want.Errno || got.Text == want.Text):
		return nil
	case want == nil:
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %v, want %w", what, err, want)
}

// name returns one that may be there already.
func (c *client) name() string {
	name := fmt.Sprintf("%s%d", c.letter, c.rng.IntN(14))
	if c.rng.IntN(8) == 0 {
		name += strings.Repeat("long", 1+c.rng.IntN(40))
	}
	return name
}

func isDir(n *item) bool  { return n.mode.Dir() }
func isFile(n *item) bool { return n.mode&(ninep.ModeDir|ninep.ModeSymlink) == 0 }
func isAny(n *item) bool  { return true }

// pick returns the path of one of the files for which want is true, nil if
// there is none. The directories that all share are none of them.
func (c *client) pick(root *item, want func(*item) bool) []string {
	list := root.paths(func(n *item) bool { return n.id != 0 && want(n) })
	if len(list) == 0 {
		return nil
	}
	return list[c.rng.IntN(len(list))]
}

// place returns the path of a directory, which may be one that all share.
func (c *client) place(root *item) []string {
	list := append(root.paths(isDir), nil)
	for range 3 {
		if p := list[c.rng.IntN(len(list))]; len(p) < 6 {
			return p
		}
	}
	return []string{everybodys[0]}
}

// walk has do work on the file at a path.
func (c *client) walk(ctx context.Context, path []string, do func(f *ninep.File) error) error {
	f, err := c.root.Walk(ctx, path...)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close(ctx))
}

// offset returns one in a file, or behind its end, sometimes far.
func (c *client) offset(size int64) int64 {
	bs := int64(c.w.bs)
	switch c.rng.IntN(8) {
	case 0:
		return size
	case 1:
		return size/bs*bs + bs*c.rng.Int64N(3)
	case 2:
		return c.rng.Int64N(size+1) / bs * bs
	case 3:
		return size + c.rng.Int64N(200*bs)
	case 4:
		if c.rng.IntN(10) == 0 {
			return c.rng.Int64N(1 << 40)
		}
		return c.rng.Int64N(3 * bs)
	}
	return c.rng.Int64N(min(size, 80*bs) + 1)
}

// bytes returns some to write.
func (c *client) bytes() []byte {
	n := 1 + c.rng.IntN(3*c.w.bs)
	switch c.rng.IntN(6) {
	case 0:
		n = c.w.bs * (1 + c.rng.IntN(8))
	case 1:
		n = 1 + c.rng.IntN(20*c.w.bs)
	}
	p := make([]byte, n)
	kind := c.rng.IntN(4)
	for i := 0; i < n && kind > 0; i++ {
		if kind == 1 && i/c.w.bs%2 == 0 { // zeros now and then
			continue
		}
		p[i] = byte(c.steps + i/97 + i)
	}
	return p
}

// step does one operation.
func (c *client) step() error {
	c.steps++
	_, n := c.progress()
	root := c.state(n)
	switch k := c.rng.IntN(100); {
	case k < 14:
		return c.create(root)
	case k < 17:
		return c.symlink(root)
	case k < 38:
		return c.write(root)
	case k < 44:
		return c.resize(root)
	case k < 47:
		return c.punchSome(root)
	case k < 56:
		return c.read(root)
	case k < 60:
		return c.list(root)
	case k < 66:
		return c.wstat(root)
	case k < 74:
		return c.rename(root)
	case k < 82:
		return c.remove(root)
	case k < 86:
		return c.hold(root)
	case k < 95:
		return c.useHeld(root)
	case k < 96:
		return c.removeAll(root)
	case k < 98:
		return c.do("sync", root, nil, func(ctx context.Context) error {
			return c.walk(ctx, []string{everybodys[0]}, func(f *ninep.File) error { return f.Sync(ctx) })
		})
	default:
		path := c.pick(root, isAny)
		if path == nil {
			return nil
		}
		n := root.at(path)
		return c.do("stat "+strings.Join(path, "/"), root, nil, func(ctx context.Context) error {
			return c.walk(ctx, path, func(f *ninep.File) error {
				d, err := f.Stat(ctx)
				if err == nil && (d.Name != path[len(path)-1] || isFile(n) && d.Length != n.data.size) {
					err = fmt.Errorf("got %+v", d)
				}
				return err
			})
		})
	}
}

// create makes a file or directory, and sometimes keeps it open.
func (c *client) create(root *item) error {
	dir, name := c.place(root), c.name()
	up := root.at(dir)
	perm := ninep.Mode(0o600 + c.rng.IntN(0o200))
	if c.rng.IntN(4) == 0 {
		perm |= ninep.ModeDir
	}
	if !c.linux {
		switch c.rng.IntN(8) {
		case 0:
			if !perm.Dir() {
				perm |= ninep.ModeAppend
			}
		case 1:
			perm |= ninep.ModeExcl
		case 2:
			perm |= ninep.ModeTmp
		}
	}
	path := append(slices.Clone(dir), name)
	what := fmt.Sprintf("create %s %#o", strings.Join(path, "/"), perm)
	next, want := root, (*ninep.Error)(nil)
	var it *item
	if up.kids[name] != nil {
		want = ninep.ErrExist
	} else {
		limit := ninep.Mode(0o666)
		if perm.Dir() {
			limit = 0o777
		}
		mode := perm
		if c.linux { // it has what it asks for
		} else if up.mode != anyMode && len(dir) > 0 {
			mode &= ^limit | up.mode&limit
		} else if len(dir) == 0 {
			mode &= ^limit | 0o555&limit // as active has
		} else {
			return nil
		}
		it = &item{id: c.newID(), mode: mode, mtime: c.w.now.Load(), gid: up.gid, kids: map[string]*item{}}
		next = root.with(path, it, it.mtime)
	}
	return c.do(what, next, want, func(ctx context.Context) error {
		f, err := c.root.Walk(ctx, dir...)
		if err != nil {
			return err
		}
		mode := ninep.OpenMode(ninep.ORDWR)
		if perm.Dir() {
			mode = ninep.OREAD
		}
		err = f.Create(ctx, name, perm, mode)
		if err == nil && !perm.Dir() && len(c.handles) < 6 && c.rng.IntN(3) == 0 {
			c.handles = append(c.handles, &held{f: f, id: it.id})
			return nil
		}
		return errors.Join(err, f.Close(ctx))
	})
}

// symlink makes a symbolic link, where the dialect has them.
func (c *client) symlink(root *item) error {
	dir, name := c.place(root), c.name()
	if !c.linux || root.at(dir).kids[name] != nil {
		return nil
	}
	path := append(slices.Clone(dir), name)
	target := strings.Repeat("../", c.rng.IntN(200)) + "x"
	it := &item{id: c.newID(), mode: ninep.ModeSymlink | 0o777, mtime: c.w.now.Load(), data: content{}.change([]byte(target), 0)}
	return c.do("symlink "+strings.Join(path, "/"), root.with(path, it, it.mtime), nil, func(ctx context.Context) error {
		return c.walk(ctx, dir, func(f *ninep.File) error {
			if err := f.Symlink(ctx, name, target); err != nil {
				return err
			}
			return c.walk(ctx, path, func(f *ninep.File) error {
				got, err := f.Readlink(ctx)
				if err == nil && got != target {
					err = fmt.Errorf("target %q, want %q", got, target)
				}
				return err
			})
		})
	})
}

// open has do work on a file that is open.
func (c *client) open(ctx context.Context, path []string, mode ninep.OpenMode, do func(f *ninep.File) error) error {
	return c.walk(ctx, path, func(f *ninep.File) error {
		if err := f.Open(ctx, mode); err != nil {
			return err
		}
		return do(f)
	})
}

// mine tells whether a file that is for one at a time is open already.
func (c *client) mine(n *item) bool {
	return n.mode&ninep.ModeExcl != 0 && slices.ContainsFunc(c.handles, func(h *held) bool { return h.id == n.id })
}

// written returns the file n with p written to it.
func (c *client) written(n *item, p []byte, off int64) *item {
	k := *n
	k.data, k.mtime = n.data.change(p, off), c.w.now.Load()
	return &k
}

// write writes to a file, sometimes after cutting it.
func (c *client) write(root *item) error {
	path := c.pick(root, isFile)
	if path == nil {
		return nil
	}
	n, p := root.at(path), c.bytes()
	off := c.offset(n.data.size)
	mode := ninep.OpenMode(ninep.OWRITE)
	what := fmt.Sprintf("write %d bytes at %d of %s", len(p), off, strings.Join(path, "/"))
	if c.mine(n) {
		return c.do(what, root, ninep.ErrExclusive, func(ctx context.Context) error {
			return c.open(ctx, path, mode, func(*ninep.File) error { return nil })
		})
	}
	at, base := off, *n
	atEnd := n.mode&ninep.ModeAppend != 0
	switch {
	case c.rng.IntN(12) == 0:
		mode |= ninep.OTRUNC
		if !atEnd {
			base.data = content{}
		}
	case c.linux && c.rng.IntN(8) == 0:
		mode |= ninep.OAPPEND
		atEnd = true
	}
	if atEnd {
		at = base.data.size
	}
	first := root
	if mode&ninep.OTRUNC != 0 && n.mode&ninep.ModeAppend == 0 { // a step of its own
		base.mtime = c.w.now.Load()
		first = root.with(path, &base, 0)
	}
	next := first.with(path, c.written(&base, p, at), 0)
	if first != root {
		c.begin(first)
	}
	return c.do(what, next, nil, func(ctx context.Context) error {
		return c.open(ctx, path, mode, func(f *ninep.File) error {
			_, err := f.WriteAt(ctx, p, off)
			return err
		})
	})
}

// resize changes a file's length.
func (c *client) resize(root *item) error {
	path := c.pick(root, isFile)
	if path == nil {
		return nil
	}
	n := root.at(path)
	size := c.offset(n.data.size)
	if c.rng.IntN(4) == 0 {
		size = 0
	}
	next, want := root, (*ninep.Error)(nil)
	if n.mode&ninep.ModeAppend != 0 && size != n.data.size {
		want = errAppendLength
	} else if size == n.data.size {
		return nil // what that does depends on the dialect
	} else {
		k := *n
		k.data, k.mtime = n.data.resize(size), c.w.now.Load()
		next = root.with(path, &k, 0)
	}
	return c.do(fmt.Sprintf("resize %s to %d", strings.Join(path, "/"), size), next, want, func(ctx context.Context) error {
		return c.walk(ctx, path, func(f *ninep.File) error { return f.Wstat(ctx, ninep.Change{Length: &size}) })
	})
}

// punchSome makes a hole in a file.
func (c *client) punchSome(root *item) error {
	path := c.pick(root, isFile)
	if path == nil {
		return nil
	}
	n := root.at(path)
	off := c.offset(n.data.size)
	length := 1 + c.offset(n.data.size)
	k := *n
	k.mtime = c.w.now.Load()
	if off < n.data.size {
		k.data = n.data.punch(off, min(off+length, n.data.size))
	}
	return c.do(fmt.Sprintf("punch %s at %d, %d bytes", strings.Join(path, "/"), off, length), root.with(path, &k, 0), nil, func(ctx context.Context) error {
		f, err := c.w.fs.Walk(ctx, "/active/"+strings.Join(path, "/"))
		if err != nil {
			return err
		}
		return f.Punch(ctx, off, length, "glenda")
	})
}

// same returns an error unless a part of an open file is what the model has.
func (c *client) same(ctx context.Context, f *ninep.File, n *item) error {
	off := c.offset(n.data.size)
	got, want := make([]byte, 1+c.rng.IntN(5*c.w.bs)), []byte(nil)
	want = make([]byte, len(got))
	m, err := f.ReadAt(ctx, got, off)
	if err == io.EOF {
		err = nil
	}
	if k := n.data.read(want, off); err == nil && !bytes.Equal(got[:m], want[:k]) {
		err = fmt.Errorf("%d bytes at %d, want %d; they differ", m, off, k)
	}
	return err
}

// read reads a part of a file.
func (c *client) read(root *item) error {
	path := c.pick(root, isFile)
	if path == nil {
		return nil
	}
	n := root.at(path)
	if c.mine(n) {
		return nil
	}
	return c.do("read "+strings.Join(path, "/"), root, nil, func(ctx context.Context) error {
		return c.open(ctx, path, ninep.OREAD, func(f *ninep.File) error { return c.same(ctx, f, n) })
	})
}

// list reads a directory.
func (c *client) list(root *item) error {
	path := c.place(root)
	n := root.at(path)
	return c.do("list "+strings.Join(path, "/"), root, nil, func(ctx context.Context) error {
		return c.open(ctx, path, ninep.OREAD, func(f *ninep.File) error {
			list, err := f.ReadDir(ctx)
			if err != nil {
				return err
			}
			var got []string
			for _, d := range list {
				if n.id != 0 || strings.HasPrefix(d.Name, c.letter) || slices.Contains(everybodys, d.Name) {
					got = append(got, d.Name)
				}
			}
			slices.Sort(got)
			if want := slices.Sorted(maps.Keys(n.kids)); !slices.Equal(got, want) {
				return fmt.Errorf("%q, want %q", got, want)
			}
			return nil
		})
	})
}

// wstat changes what is told of a file.
func (c *client) wstat(root *item) error {
	path := c.pick(root, func(n *item) bool { return n.mode != anyMode && n.mode&ninep.ModeSymlink == 0 })
	if path == nil {
		return nil
	}
	k := *root.at(path)
	var ch ninep.Change
	if c.rng.IntN(2) == 0 {
		mode := k.mode&^0o177 | ninep.Mode(c.rng.IntN(0o200)) | 0o700
		if !c.linux && c.rng.IntN(4) == 0 {
			mode ^= ninep.ModeTmp
		}
		if !c.linux && !mode.Dir() && c.rng.IntN(4) == 0 {
			mode ^= ninep.ModeAppend
		}
		ch.Mode, k.mode = &mode, mode
	}
	if c.rng.IntN(2) == 0 {
		when := time.Unix(1+c.rng.Int64N(1<<32-2), 0)
		ch.Mtime, k.mtime = &when, when.Unix()
	}
	if !c.linux && c.rng.IntN(3) == 0 {
		gid := []string{"adm", "sys", "glenda"}[c.rng.IntN(3)]
		ch.GID, k.gid = &gid, gid
	}
	return c.do("wstat "+strings.Join(path, "/"), root.with(path, &k, 0), nil, func(ctx context.Context) error {
		return c.walk(ctx, path, func(f *ninep.File) error { return f.Wstat(ctx, ch) })
	})
}

// rename moves a file; with Linux across directories, and in the place of
// others.
func (c *client) rename(root *item) error {
	path := c.pick(root, isAny)
	if path == nil {
		return nil
	}
	from, old := path[:len(path)-1], path[len(path)-1]
	to, name := from, c.name()
	if c.linux {
		to = c.place(root)
	}
	n, dir := root.at(path), root.at(to)
	there := dir.kids[name]
	next, want := root, (*ninep.Error)(nil)
	now := c.w.now.Load()
	switch {
	case len(to) >= len(path) && slices.Equal(to[:len(path)], path):
		want = fossil.ErrInside
	case there == n:
	case there != nil && !c.linux:
		want = ninep.ErrExist
	case there != nil && n.mode.Dir() && !there.mode.Dir():
		want = ninep.ErrNotDir
	case there != nil && !n.mode.Dir() && there.mode.Dir():
		want = ninep.ErrIsDir
	case there != nil && len(there.kids) > 0:
		want = ninep.ErrNotEmpty
	default:
		next = root.with(path, nil, now).with(append(slices.Clone(to), name), n, now)
		if there != nil {
			c.gone(there.id)
		}
	}
	what := fmt.Sprintf("rename %s to %s/%s", strings.Join(path, "/"), strings.Join(to, "/"), name)
	byFid := c.rng.IntN(2) == 0
	return c.do(what, next, want, func(ctx context.Context) error {
		if !c.linux {
			return c.walk(ctx, path, func(f *ninep.File) error { return f.Wstat(ctx, ninep.Change{Name: &name}) })
		}
		return c.walk(ctx, to, func(d *ninep.File) error {
			if byFid {
				return c.walk(ctx, path, func(f *ninep.File) error { return f.Rename(ctx, d, name) })
			}
			return c.walk(ctx, from, func(f *ninep.File) error { return f.RenameName(ctx, old, d, name) })
		})
	})
}

// gone notes that a file has no name any more.
func (c *client) gone(id int) {
	for _, h := range c.handles {
		if h.id == id {
			h.removed = true
		}
	}
}

// remove removes a file, or an empty directory.
func (c *client) remove(root *item) error {
	path := c.pick(root, isAny)
	if path == nil {
		return nil
	}
	n := root.at(path)
	next, want := root, (*ninep.Error)(nil)
	if len(n.kids) > 0 {
		want = ninep.ErrNotEmpty
	} else {
		next = root.with(path, nil, c.w.now.Load())
		c.gone(n.id)
	}
	byName := c.linux && c.rng.IntN(2) == 0
	return c.do("remove "+strings.Join(path, "/"), next, want, func(ctx context.Context) error {
		if byName {
			return c.walk(ctx, path[:len(path)-1], func(d *ninep.File) error {
				return d.RemoveName(ctx, path[len(path)-1], n.mode.Dir())
			})
		}
		f, err := c.root.Walk(ctx, path...)
		if err != nil {
			return err
		}
		return f.Remove(ctx)
	})
}

// removeAll removes a directory with all that is in it.
func (c *client) removeAll(root *item) error {
	path := c.pick(root, isDir)
	if path == nil {
		return nil
	}
	list := append(root.at(path).paths(isAny), nil)
	slices.SortStableFunc(list, func(a, b []string) int { return cmp.Compare(len(b), len(a)) })
	for _, p := range list {
		_, n := c.progress()
		root := c.state(n)
		p = slices.Concat(path, p)
		c.gone(root.at(p).id)
		err := c.do("remove all: "+strings.Join(p, "/"), root.with(p, nil, c.w.now.Load()), nil, func(ctx context.Context) error {
			f, err := c.root.Walk(ctx, p...)
			if err != nil {
				return err
			}
			return f.Remove(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hold opens a file, to be used for some time, wherever it goes.
func (c *client) hold(root *item) error {
	if len(c.handles) >= 6 {
		h := c.handles[0]
		c.handles = c.handles[1:]
		return c.do("close", root, nil, h.f.Close)
	}
	path := c.pick(root, isFile)
	if path == nil {
		return nil
	}
	n := root.at(path)
	h := &held{id: n.id}
	want := (*ninep.Error)(nil)
	if c.mine(n) {
		want = ninep.ErrExclusive
	}
	mode := ninep.OpenMode(ninep.ORDWR)
	if c.linux && c.rng.IntN(4) == 0 {
		mode |= ninep.OAPPEND
		h.atEnd = true
	}
	return c.do("open "+strings.Join(path, "/"), root, want, func(ctx context.Context) (err error) {
		if h.f, err = c.root.Walk(ctx, path...); err != nil {
			return err
		}
		if err := h.f.Open(ctx, mode); err != nil {
			return errors.Join(err, h.f.Close(ctx))
		}
		c.handles = append(c.handles, h)
		return nil
	})
}

// useHeld reads or writes an open file, or closes it.
func (c *client) useHeld(root *item) error {
	if len(c.handles) == 0 {
		return nil
	}
	i := c.rng.IntN(len(c.handles))
	h := c.handles[i]
	k := c.rng.IntN(10)
	if k == 0 {
		c.handles = slices.Delete(c.handles, i, i+1)
		return c.do("close an open file", root, nil, h.f.Close)
	}
	if h.removed {
		want := ninep.ErrRemoved
		if c.linux {
			want = nil // it goes on until it is closed
		}
		return c.do("use a file that was removed", root, want, func(ctx context.Context) error {
			if k < 5 {
				_, err := h.f.ReadAt(ctx, make([]byte, 10), 0)
				if err == io.EOF {
					err = nil
				}
				return err
			}
			_, err := h.f.WriteAt(ctx, make([]byte, 10), 0)
			return err
		})
	}
	path := root.find(h.id)
	n := root.at(path)
	if k < 5 {
		return c.do("read an open file, "+strings.Join(path, "/"), root, nil, func(ctx context.Context) error { return c.same(ctx, h.f, n) })
	}
	p := c.bytes()
	off := c.offset(n.data.size)
	at := off
	if h.atEnd || n.mode&ninep.ModeAppend != 0 {
		at = n.data.size
	}
	next := root.with(path, c.written(n, p, at), 0)
	return c.do(fmt.Sprintf("write %d bytes at %d of an open file, %s", len(p), off, strings.Join(path, "/")), next, nil, func(ctx context.Context) error {
		_, err := h.f.WriteAt(ctx, p, off)
		return err
	})
}
