package tree

import (
	"context"
	"syscall"

	"strata/fossil"
	"strata/fossil/internal/users"
	"strata/internal/ninep"
	"strata/vac/meta"
)

// The errors that clients see besides those of package fossil. Their texts are
// those of Plan 9's Fossil.
var (
	errPermission   = ninep.ErrPermission
	errReadOnly     = &ninep.Error{Text: "read-only filesystem", Errno: syscall.EROFS}
	errBadChar      = &ninep.Error{Text: "bad character in file name", Errno: syscall.EINVAL}
	errNotOwner     = &ninep.Error{Text: "wstat -- not owner", Errno: syscall.EPERM}
	errNotLeader    = &ninep.Error{Text: "wstat -- not owner or group leader", Errno: syscall.EPERM}
	errNotLeaders   = &ninep.Error{Text: "wstat -- not owner and not group leaders", Errno: syscall.EPERM}
	errUnknownUID   = &ninep.Error{Text: "wstat -- unknown uid", Errno: syscall.EINVAL}
	errUnknownGID   = &ninep.Error{Text: "wstat -- unknown gid", Errno: syscall.EINVAL}
	errAppendLength = &ninep.Error{Text: "wstat -- attempt to change length of append-only file", Errno: syscall.EPERM}
)

// The permissions that access asks for, as bits of a mode.
const (
	permExec  = 1
	permWrite = 2
	permRead  = 4
)

// uid returns what is kept in files that user makes or changes.
func uid(u *users.Table, user string) string {
	if id, ok := u.ID(user); ok {
		return id
	}
	return users.None
}

// permitted tells whether user may do to a file what one bit of perm says.
func (t *Tree) permitted(u *users.Table, user string, e *meta.DirEntry, perm meta.Mode) bool {
	if t.cfg.NoPermissions {
		return true
	}
	if user != users.None {
		if owner := u.ByID(e.UID); owner != nil && owner.Name == user && e.Mode&(perm<<6) != 0 {
			return true
		}
		if u.Member(e.GID, user) && e.Mode&(perm<<3) != 0 {
			return true
		}
	}
	if e.Mode&perm == 0 {
		return false
	}
	return !u.Member(users.NoWorld, user) || perm == permExec && e.Mode.IsDir()
}

// access returns an error unless the node's user may do to its file what each
// bit of perm says.
func (n *node) access(perm meta.Mode) error {
	u, e := n.t.Users(), n.file.DirEntry()
	for _, bit := range []meta.Mode{permExec, permWrite, permRead} {
		if perm&bit != 0 && !n.t.permitted(u, n.user, &e, bit) {
			return errPermission
		}
	}
	return nil
}

// mayChange returns an error if the node's user may change nothing at all, or
// nothing of this file.
func (n *node) mayChange() error {
	if !n.t.cfg.NoPermissions && !n.t.Users().MayWrite(n.user) {
		return errReadOnly
	}
	if n.file.IsSnapshot() {
		return fossil.ErrReadOnly
	}
	return nil
}

// mayName returns an error unless the user may make and remove names in the
// directory n.
func (n *node) mayName() error {
	if err := n.mayChange(); err != nil {
		return err
	}
	return n.access(permWrite)
}

// maxUnixName is how long a name may be that Unix's clients give: what statfs(2)
// tells them.
const maxUnixName = 255

// checkName returns an error for what no file in the directory n may be called.
func (n *node) checkName(name string) error {
	if n.isCtl(name) {
		return ninep.ErrExist
	}
	if n.unix && len(name) > maxUnixName {
		return ninep.ErrNameTooLong
	}
	for _, c := range []byte(name) {
		if c < ' ' {
			return errBadChar
		}
	}
	return nil
}

// Wstat implements ninep.Wstater.
func (n *node) Wstat(ctx context.Context, c ninep.Change) error {
	if err := n.t.gate.enter(ctx); err != nil {
		return err
	}
	defer n.t.gate.leave()
	if n.user == users.None && !n.t.cfg.NoPermissions {
		return errPermission
	}
	if err := n.mayChange(); err != nil {
		return err
	}
	u, e := n.t.Users(), n.file.DirEntry()
	free := n.t.cfg.AnyWstat || n.t.cfg.NoPermissions
	owner := u.ByID(e.UID) != nil && u.ByID(e.UID).Name == n.user
	ch := fossil.Change{Size: c.Length}

	gid := e.GID
	if c.GID != nil && *c.GID != u.Name(e.GID) {
		var ok bool
		if gid, ok = u.ID(*c.GID); !ok {
			return errUnknownGID
		}
		ch.GID = &gid
	}
	manages := free || owner || u.Leads(e.GID, n.user) || u.Leads(gid, n.user)
	if c.Mode != nil {
		mode := e.Mode&^settable | toMeta(*c.Mode)&settable
		if mode != e.Mode {
			if !manages {
				return errNotLeader
			}
			ch.Mode = &mode
		}
	}
	if c.Mtime != nil {
		if !manages {
			return errNotLeader
		}
		ch.Mtime = seconds(*c.Mtime)
	}
	if c.Atime != nil && manages { // that of others is no error: Plan 9 does not look at it
		ch.Atime = seconds(*c.Atime)
	}
	if c.Length != nil {
		if !manages && !n.t.permitted(u, n.user, &e, permWrite) {
			return errNotLeader
		}
		if e.Mode&meta.ModeAppend != 0 && (ch.Mode == nil || *ch.Mode&meta.ModeAppend != 0) {
			return errAppendLength
		}
	}
	if ch.GID != nil && !free && !(owner && u.Member(gid, n.user)) && !(u.Leads(e.GID, n.user) && u.Leads(gid, n.user)) {
		return errNotLeaders
	}
	if c.UID != nil && *c.UID != u.Name(e.UID) {
		id, ok := u.ID(*c.UID)
		switch {
		case !ok:
			return errUnknownUID
		case !free || id == users.NoWorld:
			return errNotOwner
		}
		ch.UID = &id
	}
	if c.Name != nil {
		dir, err := n.parent(ctx)
		if err != nil {
			return err
		}
		if err := dir.checkName(*c.Name); err != nil {
			return err
		}
		if err := dir.mayName(); err != nil {
			return err
		}
		ch.Name = c.Name
	}
	return n.file.SetAttr(ctx, ch, uid(u, n.user))
}
