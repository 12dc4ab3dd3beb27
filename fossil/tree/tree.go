package tree

import (
	"context"
	"strings"
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
}

// A Tree is a file system as 9P clients see it. It is an ninep.FS.
type Tree struct {
	fs     *fossil.FS
	cfg    Config
	users  atomic.Pointer[users.Table]
	leases leases
}

// New returns the tree of fs. Its users are the default ones until SetUsers.
func New(fs *fossil.FS, cfg Config) *Tree {
	if cfg.Name == "" {
		cfg.Name = "main"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	t := &Tree{fs: fs, cfg: cfg, leases: leases{now: cfg.Now, held: map[uint64]*lease{}}}
	t.users.Store(users.Default())
	return t
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
	n := &node{t: t, file: t.fs.Root(), user: user}
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
func (t *Tree) StatFS(context.Context, ninep.Node) (ninep.StatFS, error) {
	used, total := t.fs.Usage()
	bs := int64(t.fs.BlockSize())
	free := uint64((total - used) / bs)
	return ninep.StatFS{BlockSize: uint32(bs), Blocks: uint64(total / bs), Free: free, Available: free}, nil
}
