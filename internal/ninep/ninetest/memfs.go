package ninetest

import (
	"context"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"strata/internal/ninep"
)

// A MemFS is a tree in memory that can do all that the contract knows. It
// checks no permissions; every new file belongs to who made it.
type MemFS struct {
	now func() time.Time // immutable

	mu   sync.Mutex // guards all below it, and every memFile
	root *memFile
	path uint64 // the last qid path given
	open int    // handles that are not closed
	sync int    // calls of Sync
}

// memFile is a file of any kind.
type memFile struct {
	d       ninep.Dir // Qid, Mode and so on; not Name
	parent  *memFile  // of a directory
	names   map[string]*memEntry
	cookie  uint64 // the last given to an entry
	data    contents
	xattrs  map[string][]byte
	removed bool
	handles int // open ones, for exclusive use
}

type memEntry struct {
	file   *memFile
	cookie uint64
}

// memNode is a file as one user sees it under one name. It is a directory's
// or another's: the abilities differ.
type memNode struct {
	fs   *MemFS
	f    *memFile
	dir  *memFile // where it was found, for its name
	name string
	user string
}

type memDir struct{ *memNode }

// maxName is the longest name of a file in bytes, as StatFS says.
const maxName = 255

// NewMemFS returns an empty tree, whose times are now's.
func NewMemFS(now func() time.Time) *MemFS {
	fs := &MemFS{now: now}
	fs.root = fs.newFile("adm", "adm", ninep.ModeDir|0777)
	fs.root.parent = fs.root
	return fs
}

// Open returns how many handles are open.
func (fs *MemFS) Open() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.open
}

// Syncs returns how often a file was made durable.
func (fs *MemFS) Syncs() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.sync
}

// Attach returns the root, whatever aname, but for "missing".
func (fs *MemFS) Attach(_ context.Context, user, aname string) (ninep.Node, error) {
	if aname == "missing" {
		return nil, ninep.ErrNotExist
	}
	return fs.node(fs.root, fs.root, "/", user), nil
}

// StatFS gives figures that tests know again.
func (fs *MemFS) StatFS(context.Context, ninep.Node) (ninep.StatFS, error) {
	return ninep.StatFS{BlockSize: 4096, Blocks: 1000, Free: 500, Available: 400, Files: 100, FilesFree: 50, FSID: 7, NameLen: maxName}, nil
}

// newFile needs fs.mu held, once fs is in use.
func (fs *MemFS) newFile(user, group string, mode ninep.Mode) *memFile {
	fs.path++
	now := fs.now()
	f := &memFile{d: ninep.Dir{
		Qid: ninep.Qid{Path: fs.path, Type: mode.QidType()}, Mode: mode,
		UID: user, GID: group, Muid: user, Mtime: now, Atime: now, Ctime: now, Btime: now, Links: 1,
	}}
	if mode.Dir() {
		f.names = make(map[string]*memEntry)
	}
	return f
}

func (fs *MemFS) node(f, dir *memFile, name, user string) ninep.Node {
	n := &memNode{fs, f, dir, name, user}
	if f.names != nil {
		return memDir{n}
	}
	return n
}

func nodeOf(n ninep.Node) *memNode {
	switch n := n.(type) {
	case memDir:
		return n.memNode
	case *memNode:
		return n
	}
	return nil
}

// put enters f in the directory. fs.mu must be held.
func (d *memFile) put(name string, f *memFile) {
	d.cookie++
	d.names[name] = &memEntry{f, d.cookie}
	if f.names != nil {
		f.parent = d
	}
}

// touch notes a change of contents. fs.mu must be held.
func (n *memNode) touch(f *memFile) {
	f.d.Qid.Vers++
	f.d.Mtime = n.fs.now()
	f.d.Ctime = f.d.Mtime
	f.d.Muid = n.user
}

func (n *memNode) Qid() ninep.Qid {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	return n.f.d.Qid
}

func (n *memNode) Walk(_ context.Context, name string) (ninep.Node, error) {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	e := n.f.names[name]
	if e == nil {
		return nil, ninep.ErrNotExist
	}
	return n.fs.node(e.file, n.f, name, n.user), nil
}

// currentName finds the name by which the file is in a directory now. fs.mu
// must be held.
func (n *memNode) currentName() (*memFile, string, bool) {
	if n.f.removed {
		return nil, "", false
	}
	dir := n.dir
	if n.f.names != nil {
		dir = n.f.parent
	}
	if e := dir.names[n.name]; e != nil && e.file == n.f {
		return dir, n.name, true
	}
	for name, e := range dir.names {
		if e.file == n.f {
			return dir, name, true
		}
	}
	// It has gone to another directory: look everywhere.
	return n.fs.find(n.fs.root, n.f)
}

func (fs *MemFS) find(dir, f *memFile) (*memFile, string, bool) {
	for name, e := range dir.names {
		if e.file == f {
			return dir, name, true
		}
		if e.file.names != nil {
			if d, name, ok := fs.find(e.file, f); ok {
				return d, name, ok
			}
		}
	}
	return nil, "", false
}

func (n *memNode) Stat(context.Context) (ninep.Dir, error) {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	d := n.f.stat()
	d.Name = "/"
	if n.f != n.fs.root {
		d.Name = n.name
		if _, name, ok := n.currentName(); ok {
			d.Name = name
		}
	}
	return d, nil
}

func (f *memFile) stat() ninep.Dir {
	d := f.d
	d.Length = f.data.size
	return d
}

func (n *memNode) Open(_ context.Context, mode ninep.OpenMode) (ninep.Handle, error) {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	return n.openLocked(n.f, mode)
}

func (n *memNode) openLocked(f *memFile, mode ninep.OpenMode) (ninep.Handle, error) {
	if f.d.Mode&ninep.ModeExcl != 0 && f.handles > 0 {
		return nil, ninep.ErrExclusive
	}
	if mode&ninep.OTRUNC != 0 && f.d.Mode&ninep.ModeAppend == 0 {
		f.data.truncate(0)
		n.touch(f)
	}
	f.handles++
	n.fs.open++
	return &memHandle{n, f, mode&ninep.OAPPEND != 0 || f.d.Mode&ninep.ModeAppend != 0}, nil
}

func (n *memNode) Sync(context.Context) error {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	n.fs.sync++
	return nil
}

func (n *memNode) Remove(context.Context) error {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	dir, name, ok := n.currentName()
	switch {
	case n.f == n.fs.root:
		return ninep.ErrNotPermitted
	case !ok:
		return ninep.ErrRemoved
	case len(n.f.names) > 0:
		return ninep.ErrNotEmpty
	}
	n.unlink(dir, name)
	return nil
}

// unlink needs fs.mu held.
func (n *memNode) unlink(dir *memFile, name string) {
	f := dir.names[name].file
	delete(dir.names, name)
	f.d.Links--
	f.d.Ctime = n.fs.now()
	f.removed = f.d.Links <= 0
	n.touch(dir)
}

func (n *memNode) Wstat(_ context.Context, c ninep.Change) error {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	f := n.f
	if c.Length != nil && *c.Length > maxSize {
		return ninep.ErrTooBig
	}
	if c.Name != nil {
		dir, name, ok := n.currentName()
		switch {
		case !ok:
			return ninep.ErrRemoved
		case len(*c.Name) > maxName:
			return ninep.ErrNameTooLong
		case dir.names[*c.Name] != nil && *c.Name != name:
			return ninep.ErrExist
		}
		e := dir.names[name]
		delete(dir.names, name)
		dir.names[*c.Name] = e
		n.touch(dir)
	}
	f.d.Ctime = n.fs.now()
	if c.Length != nil {
		f.data.truncate(*c.Length)
		n.touch(f)
	}
	if c.Mode != nil {
		f.d.Mode = *c.Mode
		f.d.Qid.Type = c.Mode.QidType()
	}
	set(&f.d.UID, c.UID)
	set(&f.d.GID, c.GID)
	set(&f.d.Atime, c.Atime)
	set(&f.d.Mtime, c.Mtime)
	return nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func (n *memNode) Xattrs(context.Context) ([]string, error) {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	return slices.Sorted(maps.Keys(n.f.xattrs)), nil
}

func (n *memNode) Xattr(_ context.Context, name string) ([]byte, error) {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	v, ok := n.f.xattrs[name]
	if !ok {
		return nil, ninep.ErrNoXattr
	}
	return slices.Clone(v), nil
}

func (n *memNode) SetXattr(_ context.Context, name string, value []byte, flags int) error {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	if n.f.xattrs == nil {
		n.f.xattrs = make(map[string][]byte)
	}
	const create, replace = 1, 2
	switch _, ok := n.f.xattrs[name]; {
	case ok && flags&create != 0:
		return ninep.ErrExist
	case !ok && flags&replace != 0:
		return ninep.ErrNoXattr
	}
	n.f.xattrs[name] = slices.Clone(value)
	return nil
}

func (n *memNode) RemoveXattr(_ context.Context, name string) error {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	if _, ok := n.f.xattrs[name]; !ok {
		return ninep.ErrNoXattr
	}
	delete(n.f.xattrs, name)
	return nil
}

// add makes a file in the directory. fs.mu must be held.
func (n memDir) add(name string, mode ninep.Mode) (*memFile, error) {
	switch {
	case n.f.removed:
		return nil, ninep.ErrRemoved
	case len(name) > maxName:
		return nil, ninep.ErrNameTooLong
	case n.f.names[name] != nil:
		return nil, ninep.ErrExist
	}
	f := n.fs.newFile(n.user, n.f.d.GID, mode)
	n.f.put(name, f)
	n.touch(n.f)
	return f, nil
}

func (n memDir) Create(_ context.Context, name string, perm ninep.Mode, mode ninep.OpenMode) (ninep.Node, ninep.Handle, error) {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	f, err := n.add(name, perm)
	if err != nil {
		return nil, nil, err
	}
	h, err := n.openLocked(f, mode)
	return n.fs.node(f, n.f, name, n.user), h, err
}

func (n memDir) Symlink(_ context.Context, name, target string) (ninep.Node, error) {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	f, err := n.add(name, ninep.ModeSymlink|0777)
	if err != nil {
		return nil, err
	}
	f.d.Target = target
	f.data.writeAt([]byte(target), 0) // its length is what Linux expects
	return n.fs.node(f, n.f, name, n.user), nil
}

func (n memDir) Mknod(_ context.Context, name string, perm ninep.Mode, dev ninep.Device) (ninep.Node, error) {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	f, err := n.add(name, perm)
	if err != nil {
		return nil, err
	}
	f.d.Device = dev
	return n.fs.node(f, n.f, name, n.user), nil
}

func (n memDir) Link(_ context.Context, target ninep.Node, name string) error {
	t := nodeOf(target)
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	switch {
	case n.f.removed || t.f.removed:
		return ninep.ErrRemoved
	case len(name) > maxName:
		return ninep.ErrNameTooLong
	case n.f.names[name] != nil:
		return ninep.ErrExist
	}
	n.f.put(name, t.f)
	t.f.d.Links++
	t.f.d.Ctime = n.fs.now()
	n.touch(n.f)
	return nil
}

func (n memDir) Parent(context.Context) (ninep.Node, error) {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	up := n.f.parent
	return n.fs.node(up, up.parent, "", n.user), nil
}

func (n memDir) Rename(_ context.Context, oldname string, newdir ninep.Node, newname string) error {
	to := nodeOf(newdir).f
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	e := n.f.names[oldname]
	if e == nil {
		return ninep.ErrNotExist
	}
	switch {
	case to.removed:
		return ninep.ErrRemoved
	case len(newname) > maxName:
		return ninep.ErrNameTooLong
	}
	f := e.file
	if f.names != nil {
		for d := to; ; d = d.parent {
			if d == f {
				return ninep.ErrInvalid // into itself
			}
			if d == n.fs.root {
				break
			}
		}
	}
	if old := to.names[newname]; old != nil {
		switch {
		case old.file == f:
			return nil
		case f.names != nil && old.file.names == nil:
			return ninep.ErrNotDir
		case f.names == nil && old.file.names != nil:
			return ninep.ErrIsDir
		case len(old.file.names) > 0:
			return ninep.ErrNotEmpty
		}
		n.unlink(to, newname)
	}
	delete(n.f.names, oldname)
	to.put(newname, f)
	f.d.Ctime = n.fs.now()
	n.touch(n.f)
	if to != n.f {
		n.touch(to)
	}
	return nil
}

// A memHandle is an open file or directory.
type memHandle struct {
	n      *memNode
	f      *memFile
	append bool
}

func (h *memHandle) Close(context.Context) error {
	h.n.fs.mu.Lock()
	defer h.n.fs.mu.Unlock()
	h.f.handles--
	h.n.fs.open--
	return nil
}

func (h *memHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	h.n.fs.mu.Lock()
	defer h.n.fs.mu.Unlock()
	n := h.f.data.readAt(p, off)
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (h *memHandle) ReadCached(p []byte, off int64) (int, bool) {
	n, _ := h.ReadAt(context.Background(), p, off)
	return n, true
}

func (h *memHandle) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	h.n.fs.mu.Lock()
	defer h.n.fs.mu.Unlock()
	if h.append {
		off = h.f.data.size
	}
	if off > maxSize-int64(len(p)) {
		return 0, ninep.ErrTooBig
	}
	h.f.data.writeAt(p, off)
	h.n.touch(h.f)
	return len(p), nil
}

func (h *memHandle) Sync(ctx context.Context) error { return h.n.Sync(ctx) }

func (h *memHandle) ReadDir(_ context.Context, cookie uint64) iter.Seq2[ninep.Dir, error] {
	h.n.fs.mu.Lock()
	defer h.n.fs.mu.Unlock()
	var list []ninep.Dir
	for name, e := range h.f.names {
		if e.cookie > cookie {
			d := e.file.stat()
			d.Name, d.Cookie = name, e.cookie
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b ninep.Dir) int { return int(a.Cookie) - int(b.Cookie) })
	return func(yield func(ninep.Dir, error) bool) {
		for _, d := range list {
			if !yield(d, nil) {
				return
			}
		}
	}
}
