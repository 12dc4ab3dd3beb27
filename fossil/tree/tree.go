package tree

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"strata/fossil"
	"strata/fossil/internal/users"
	"strata/internal/ninep"
)

// Config holds the options of New; its zero value is the default.
type Config struct {
	Name          string           // of the file system, in what clients attach with; "" means main
	NoPermissions bool             // everybody may do everything that can be done
	AnyWstat      bool             // whoever may change anything may change owners, groups, modes and times
	Now           func() time.Time // nil means time.Now

	// Ctl, if it is not nil, is called for each opening of the file ctl in the
	// root directory, which adm and its group may. It returns what runs the
	// lines that are written there.
	Ctl func() Runner
}

// A Tree is a file system as 9P clients see it. It is an ninep.FS.
type Tree struct {
	fs  *fossil.FS
	cfg Config
	*shared
}

// What all trees of one file system share.
type shared struct {
	users  atomic.Pointer[users.Table]
	leases leases
	gate   gate

	editing sync.Mutex // held by who reads or writes the table's file
}

// New returns the tree of fs. Its users are the default ones until LoadUsers or
// SetUsers.
func New(fs *fossil.FS, cfg Config) *Tree {
	if cfg.Name == "" {
		cfg.Name = "main"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	t := &Tree{fs: fs, cfg: cfg, shared: &shared{leases: leases{now: cfg.Now, held: map[uint64]*lease{}}, gate: newGate()}}
	t.users.Store(users.Default())
	return t
}

// Loose returns a tree of the same file system that allows more: what t does,
// and what the arguments say as those of Config do.
func (t *Tree) Loose(noPermissions, anyWstat bool) *Tree {
	l := &Tree{fs: t.fs, cfg: t.cfg, shared: t.shared}
	l.cfg.NoPermissions = t.cfg.NoPermissions || noPermissions
	l.cfg.AnyWstat = t.cfg.AnyWstat || anyWstat
	return l
}

// Of returns the tree that a node is of, nil if it is of no such.
func Of(n ninep.Node) *Tree {
	if c, ok := n.(*ctlNode); ok {
		return c.t
	}
	if n, ok := nodeOf(n); ok {
		return n.t
	}
	return nil
}

// Users returns the table of users.
func (t *Tree) Users() *users.Table { return t.users.Load() }

// SetUsers makes u the table of users, also for those who are attached.
func (t *Tree) SetUsers(u *users.Table) { t.users.Store(u) }

// Attach implements ninep.FS.
func (t *Tree) Attach(ctx context.Context, user, aname string) (ninep.Node, error) {
	path, err := t.path(aname)
	if err != nil {
		return nil, err
	}
	if err := t.gate.enter(ctx); err != nil {
		return nil, err
	}
	defer t.gate.leave()
	n := &node{t: t, file: t.fs.Root(), user: user, unix: ninep.FromUnix(ctx)}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		if n, err = n.walk(ctx, name); err != nil {
			return nil, err
		}
	}
	return n.face(), nil
}

// path returns the path of what a client attaches to from the root directory.
func (t *Tree) path(aname string) (string, error) {
	switch name, rest, _ := strings.Cut(aname, "/"); {
	case aname == "":
		return "active", nil
	case name == "", name == t.cfg.Name:
		return rest, nil
	default:
		return "", &ninep.Error{Text: "fsys: '" + name + "' not found", Errno: ninep.ErrNotExist.Errno}
	}
}

// StatFS implements ninep.StatFSer.
func (t *Tree) StatFS(ctx context.Context, _ ninep.Node) (ninep.StatFS, error) {
	if err := t.gate.enter(ctx); err != nil {
		return ninep.StatFS{}, err
	}
	defer t.gate.leave()
	used, total := t.fs.Usage()
	bs := int64(t.fs.BlockSize())
	free := uint64((total - used) / bs)
	return ninep.StatFS{BlockSize: uint32(bs), Blocks: uint64(total / bs), Free: free, Available: free}, nil
}
