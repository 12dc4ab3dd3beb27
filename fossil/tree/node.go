package tree

import (
	"context"
	"time"

	"strata/fossil"
	"strata/fossil/internal/users"
	"strata/internal/ninep"
	"strata/vac/meta"
)

// A node is a file as one user sees it.
type node struct {
	t     *Tree
	file  *fossil.File
	user  string
	space uint64 // of the qids: 0 in the active tree, else that of the snapshot
	unix  bool   // the client is Unix, see ninep.FromUnix
}

// A dirNode is the node of a directory: what only directories can do are its
// own methods, for servers look what a node has.
type dirNode struct{ *node }

// face returns the node with the methods that its file has.
func (n *node) face() ninep.Node {
	if n.file.IsDir() {
		return dirNode{n}
	}
	return n
}

// nodeOf returns the node behind a face of this tree.
func nodeOf(n ninep.Node) (*node, bool) {
	switch n := n.(type) {
	case *node:
		return n, true
	case dirNode:
		return n.node, true
	}
	return nil, false
}

// at returns the node of a file in the directory n.
func (n *node) at(file *fossil.File) *node {
	c := &node{t: n.t, file: file, user: n.user, space: n.space, unix: n.unix}
	if e := n.file.DirEntry(); e.Mode&meta.ModeSnapshot != 0 {
		c.space = mix(n.space, e.Qid)
	}
	return c
}

// qid returns that of a file that is in n's space.
func (n *node) qid(e *meta.DirEntry) ninep.Qid {
	q := ninep.Qid{Path: e.Qid, Vers: e.Mcount, Type: fromMeta(e.Mode).QidType()}
	if n.space != 0 {
		q.Path = mix(n.space, e.Qid)
	}
	return q
}

// Qid implements ninep.Node.
func (n *node) Qid() ninep.Qid {
	e := n.file.DirEntry()
	return n.qid(&e)
}

// Walk implements ninep.Node.
func (n *node) Walk(ctx context.Context, name string) (ninep.Node, error) {
	if n.isCtl(name) {
		return n.ctl(), nil
	}
	if err := n.t.gate.enter(ctx); err != nil {
		return nil, err
	}
	defer n.t.gate.leave()
	c, err := n.walk(ctx, name)
	if err != nil {
		return nil, err
	}
	return c.face(), nil
}

func (n *node) walk(ctx context.Context, name string) (*node, error) {
	if err := n.access(permExec); err != nil {
		return nil, err
	}
	f, err := n.file.Walk(ctx, name)
	if err != nil {
		return nil, err
	}
	if e := f.DirEntry(); n.hides(&e) {
		return nil, ninep.ErrNotExist
	}
	return n.at(f), nil
}

// hides tells whether an entry of the directory n is not for clients.
func (n *node) hides(e *meta.DirEntry) bool {
	return n.file == n.t.fs.Root() && fossil.KeepsUnnamed(e)
}

// maxTarget is how much of a symbolic link's target is told: as much as
// Linux's PATH_MAX.
const maxTarget = 4096

// Stat implements ninep.Node.
func (n *node) Stat(ctx context.Context) (ninep.Dir, error) {
	if err := n.t.gate.enter(ctx); err != nil {
		return ninep.Dir{}, err
	}
	defer n.t.gate.leave()
	info, err := n.file.Stat(ctx)
	if err != nil {
		return ninep.Dir{}, err
	}
	d := n.dir(&info)
	if d.Mode&ninep.ModeSymlink != 0 {
		target := make([]byte, min(info.Size, maxTarget))
		got, err := n.file.ReadAt(ctx, target, 0)
		if err != nil {
			return ninep.Dir{}, err
		}
		d.Target = string(target[:got])
	}
	return d, nil
}

// dir describes a file in n's space.
func (n *node) dir(info *fossil.Info) ninep.Dir {
	u := n.t.Users()
	stamp := func(s uint32) time.Time { return time.Unix(int64(s), 0) }
	return ninep.Dir{
		Qid: n.qid(&info.DirEntry), Mode: fromMeta(info.Mode), Name: info.Name, Length: info.Size,
		UID: u.Name(info.UID), GID: u.Name(info.GID), Muid: u.Name(info.MID),
		Atime: stamp(info.Atime), Mtime: stamp(info.Mtime), Ctime: stamp(info.Ctime),
		Cookie: info.Cookie,
	}
}

// Open implements ninep.Node.
func (n *node) Open(ctx context.Context, mode ninep.OpenMode) (ninep.Handle, error) {
	if err := n.t.gate.enter(ctx); err != nil {
		return nil, err
	}
	defer n.t.gate.leave()
	e := n.file.DirEntry()
	truncate := mode&ninep.OTRUNC != 0 && e.Mode&meta.ModeAppend == 0
	var perm meta.Mode
	switch {
	case mode&3 == ninep.OEXEC:
		perm = permExec
	case mode.Reads():
		perm = permRead
	}
	if mode.Writes() || truncate {
		perm |= permWrite
		if err := n.mayChange(); err != nil {
			return nil, err
		}
	}
	if err := n.access(perm); err != nil {
		return nil, err
	}
	h, err := n.open(ctx, mode)
	if err != nil {
		return nil, err
	}
	if truncate {
		var zero int64
		err = n.file.SetAttr(ctx, fossil.Change{Size: &zero}, uid(n.t.Users(), n.user))
	} else {
		_, err = n.file.Stat(ctx) // it may be gone
	}
	if err != nil {
		if h, ok := h.(*handle); ok {
			h.drop(ctx)
		}
		return nil, err
	}
	return h, nil
}

// open returns a handle, whatever the permissions.
func (n *node) open(ctx context.Context, mode ninep.OpenMode) (ninep.Handle, error) {
	if n.file.IsDir() {
		return &dirHandle{n}, nil
	}
	h := &handle{n: n, uid: uid(n.t.Users(), n.user), end: mode&ninep.OAPPEND != 0}
	e := n.file.DirEntry()
	if n.unix && !n.file.IsSnapshot() {
		if err := n.file.Hold(ctx); err != nil {
			return nil, err
		}
		h.holds = true
	}
	if e.Mode&meta.ModeExclusive != 0 && !n.file.IsSnapshot() {
		var err error
		if h.lease, err = n.t.leases.take(e.Qid); err != nil {
			h.drop(ctx)
			return nil, err
		}
	}
	return h, nil
}

// Sync implements ninep.Syncer.
func (n *node) Sync(ctx context.Context) error {
	if err := n.t.gate.enter(ctx); err != nil {
		return err
	}
	defer n.t.gate.leave()
	return n.file.Sync(ctx)
}

// parent returns the directory above, as far as what may be done there goes.
func (n *node) parent(ctx context.Context) (*node, error) {
	f, err := n.file.Parent(ctx)
	return &node{t: n.t, file: f, user: n.user, unix: n.unix}, err
}

// Remove implements ninep.Remover.
func (n *node) Remove(ctx context.Context) error {
	if err := n.t.gate.enter(ctx); err != nil {
		return err
	}
	defer n.t.gate.leave()
	dir, err := n.parent(ctx)
	if err != nil {
		return err
	}
	if err := dir.mayName(); err != nil {
		return err
	}
	return n.file.Remove(ctx, uid(n.t.Users(), n.user))
}

// Parent implements ninep.Parenter. The space of the qids is that of the
// directory, which is another only above a snapshot, where nothing moves.
func (n dirNode) Parent(ctx context.Context) (ninep.Node, error) {
	if err := n.t.gate.enter(ctx); err != nil {
		return nil, err
	}
	defer n.t.gate.leave()
	p, err := n.parent(ctx)
	if err != nil {
		return nil, err
	}
	p.space = n.space
	return p.face(), nil
}

// Create implements ninep.Creator.
func (n dirNode) Create(ctx context.Context, name string, perm ninep.Mode, mode ninep.OpenMode) (ninep.Node, ninep.Handle, error) {
	if err := n.t.gate.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer n.t.gate.leave()
	limit := meta.Mode(0o666)
	if perm.Dir() {
		limit = 0o777
	}
	m := toMeta(perm) & (settable | meta.ModeDir)
	if !n.unix {
		m &= ^limit | n.file.DirEntry().Mode&limit
	}
	c, err := n.create(ctx, name, func(id string) (*fossil.File, error) {
		return n.file.Create(ctx, name, m, id)
	})
	if err != nil {
		return nil, nil, err
	}
	h, err := c.open(ctx, mode)
	if err != nil {
		return nil, nil, err
	}
	return c.face(), h, nil
}

// create has a file made called name, if the user may; id is the user's.
func (n dirNode) create(ctx context.Context, name string, do func(id string) (*fossil.File, error)) (*node, error) {
	if err := n.checkName(name); err != nil {
		return nil, err
	}
	if err := n.mayName(); err != nil {
		return nil, err
	}
	id := uid(n.t.Users(), n.user)
	if id == users.NoWorld {
		return nil, errPermission
	}
	f, err := do(id)
	if err != nil {
		return nil, err
	}
	return n.at(f), nil
}

// Symlink implements ninep.Symlinker.
func (n dirNode) Symlink(ctx context.Context, name, target string) (ninep.Node, error) {
	if err := n.t.gate.enter(ctx); err != nil {
		return nil, err
	}
	defer n.t.gate.leave()
	if len(target) > maxTarget {
		return nil, ninep.ErrNameTooLong
	}
	c, err := n.create(ctx, name, func(id string) (*fossil.File, error) {
		return n.file.Symlink(ctx, name, target, id)
	})
	if err != nil {
		return nil, err
	}
	return c.face(), nil
}

// Rename implements ninep.Renamer.
func (n dirNode) Rename(ctx context.Context, oldname string, newdir ninep.Node, newname string) error {
	if err := n.t.gate.enter(ctx); err != nil {
		return err
	}
	defer n.t.gate.leave()
	to, ok := nodeOf(newdir)
	if !ok || to.t != n.t {
		return ninep.ErrCrossDevice
	}
	if err := to.checkName(newname); err != nil {
		return err
	}
	for _, d := range []*node{n.node, to} {
		if err := d.mayName(); err != nil {
			return err
		}
	}
	f, err := n.walk(ctx, oldname)
	if err != nil {
		return err
	}
	return f.file.Rename(ctx, to.file, newname, true, uid(n.t.Users(), n.user))
}
