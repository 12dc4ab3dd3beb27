package tree

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"strata/fossil"
	"strata/fossil/internal/users"
	"strata/internal/ninep"
	"strata/vac/meta"
)

// UsersFile is where a file system keeps its table of users.
const UsersFile = "/active/adm/users"

// maxUsers is how long it may be.
const maxUsers = 4 << 20

// LoadUsers makes the table in UsersFile that of the tree, or the default one
// if there is none: what is to be done first. Lines that make no sense are left
// out; problems says which. When the file cannot be used, the error says why, and
// the table stays what it was.
func (t *Tree) LoadUsers(ctx context.Context) (problems []error, err error) {
	problems, err = t.ReadUsers(ctx, UsersFile)
	if errors.Is(err, ninep.ErrNotExist) {
		t.SetUsers(users.Default())
		err = nil
	}
	return problems, err
}

// ReadUsers makes the table in a file of the file system that of the tree, as
// LoadUsers does.
func (t *Tree) ReadUsers(ctx context.Context, path string) (problems []error, err error) {
	t.editing.Lock()
	defer t.editing.Unlock()
	f, err := t.fs.Walk(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	text := make([]byte, maxUsers+1)
	n, err := f.ReadAt(ctx, text, 0)
	if err == nil && n > maxUsers {
		err = fmt.Errorf("longer than %d bytes", maxUsers)
	}
	if err != nil {
		return nil, fmt.Errorf("read users: %s: %w", path, err)
	}
	u, problems, err := users.Parse(text[:n])
	if err != nil {
		return problems, fmt.Errorf("read users: %s: %w", path, err)
	}
	t.SetUsers(u)
	return problems, nil
}

// WriteUsers writes the table to UsersFile.
func (t *Tree) WriteUsers(ctx context.Context) error {
	t.editing.Lock()
	defer t.editing.Unlock()
	return t.writeUsers(ctx, t.Users())
}

// EditUsers makes what edit makes of the table that of the tree, and writes it
// to UsersFile. If that fails, the table stays what it was.
func (t *Tree) EditUsers(ctx context.Context, edit func(*users.Table) (*users.Table, error)) error {
	t.editing.Lock()
	defer t.editing.Unlock()
	return t.editUsers(ctx, edit)
}

// editUsers is EditUsers for one who holds t.editing.
func (t *Tree) editUsers(ctx context.Context, edit func(*users.Table) (*users.Table, error)) error {
	u, err := edit(t.Users())
	if err != nil {
		return err
	}
	if err := t.writeUsers(ctx, u); err != nil {
		return err
	}
	t.SetUsers(u)
	return nil
}

// writeUsers makes the file, and the directory, if need be. Its contents change
// at once: a crash leaves the old table or the new one.
func (t *Tree) writeUsers(ctx context.Context, u *users.Table) error {
	dir, err := t.ensureDir(ctx, "/active", "adm", users.Adm, users.Adm)
	if err != nil {
		return fmt.Errorf("write users: %w", err)
	}
	f, err := dir.Walk(ctx, "users")
	if errors.Is(err, ninep.ErrNotExist) {
		f, err = dir.Create(ctx, "users", 0o664, users.Adm)
	}
	if err == nil {
		err = f.Replace(ctx, u.Text(), users.Adm)
	}
	if err != nil {
		return fmt.Errorf("write users: %s: %w", UsersFile, err)
	}
	return nil
}

// ensureDir returns a directory of the active tree, which it makes if there is
// none.
func (t *Tree) ensureDir(ctx context.Context, path, name, uid, gid string) (*fossil.File, error) {
	dir, err := t.fs.Walk(ctx, path)
	if err != nil {
		return nil, err
	}
	d, err := dir.Walk(ctx, name)
	if errors.Is(err, ninep.ErrNotExist) {
		if d, err = dir.Create(ctx, name, meta.ModeDir|0o775, uid); err == nil {
			err = d.SetAttr(ctx, fossil.Change{GID: &gid}, uid)
		}
	}
	if err == nil && !d.IsDir() {
		err = ninep.ErrNotDir
	}
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", strings.TrimSuffix(path, "/"), name, err)
	}
	return d, nil
}

// AddUser adds a user, and unless noHome makes the directory
// /active/usr/name, if there is none. All is done or, but for directories,
// nothing.
func (t *Tree) AddUser(ctx context.Context, name, id string, noHome bool) error {
	t.editing.Lock()
	defer t.editing.Unlock()
	return t.editUsers(ctx, func(u *users.Table) (*users.Table, error) {
		next, err := u.Add(id, name)
		if err != nil || noHome {
			return next, err
		}
		if _, err = t.ensureDir(ctx, "/active", "usr", users.Adm, users.Adm); err == nil {
			_, err = t.ensureDir(ctx, "/active/usr", name, id, id)
		}
		return next, err
	})
}
