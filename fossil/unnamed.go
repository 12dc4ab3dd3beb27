package fossil

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"strata/fossil/internal/buffer"
	"strata/vac/meta"
)

// A file that is held goes on to be one when its name is removed, as programs
// of Unix expect of one that they have open. Until the last who holds it lets go
// it is in a directory beside active, archive and snapshot, that is made when it
// is needed and removed when the file system is closed. What a crash leaves in
// such directories goes when the file system is opened again. To Plan 9's
// programs they are directories like others; nothing in them is archived.

// unnamedPrefix is how the names of such directories begin. unnamedMode tells
// them from what a user has made.
const (
	unnamedPrefix = ".removed"
	unnamedMode   = meta.ModeDir | meta.ModeHidden | meta.ModeSystem
)

// Hold keeps f, though it may lose its name, until as many calls of Release.
func (f *File) Hold(ctx context.Context) error {
	return f.view(ctx, func(*buffer.Tx) error {
		if f.removed {
			return ErrRemoved
		}
		f.holds++
		return nil
	})
}

// Release undoes a Hold. If it returns true, f has no name any more, and is to be
// removed.
func (f *File) Release() (unnamed bool) {
	f.fs.b.View(context.Background(), func(*buffer.Tx) error {
		f.holds--
		unnamed = f.holds == 0 && f.unnamed && !f.removed
		return nil
	})
	return unnamed
}

// unlink takes the name of f, which is held. uid is who does.
func (f *File) unlink(tx *buffer.Tx, uid string) error {
	to := f.fs.unnamed
	if to == nil {
		var err error
		name := fmt.Sprintf("%s%x", unnamedPrefix, tx.Super().QID)
		if to, err = f.fs.root.create(tx, name, unnamedMode, adm); err != nil {
			return err
		}
		tx.OnPublish(func() { f.fs.unnamed = to })
	}
	e := f.dir
	e.Name = fmt.Sprintf("%x", f.qid())
	if err := f.move(tx, to, e, uid); err != nil {
		return err
	}
	tx.OnPublish(func() { f.unnamed = true })
	return nil
}

// KeepsUnnamed tells whether an entry of the root directory is that of one in
// which files without a name are.
func KeepsUnnamed(e *meta.DirEntry) bool {
	return e.Mode&unnamedMode == unnamedMode && strings.HasPrefix(e.Name, unnamedPrefix)
}

// removeUnnamed removes the directories that keep files without names, and the
// files. It is called before anybody has a file, and when nobody has any more.
func (fs *FS) removeUnnamed(ctx context.Context) error {
	var dirs []string
	for info, err := range fs.root.List(ctx) {
		if err != nil {
			return err
		}
		if KeepsUnnamed(&info.DirEntry) {
			dirs = append(dirs, info.Name)
		}
	}
	for _, name := range dirs {
		d, err := fs.root.Walk(ctx, name)
		if err != nil {
			return err
		}
		var names []string
		for info, err := range d.List(ctx) {
			if err != nil {
				return err
			}
			names = append(names, info.Name)
		}
		for _, n := range names {
			f, err := d.Walk(ctx, n)
			if err == nil {
				err = f.Remove(ctx, adm)
			}
			if err != nil && !errors.Is(err, ErrNotExist) && !errors.Is(err, ErrRemoved) { // it is being removed
				return fmt.Errorf("remove %s/%s: %w", name, n, err)
			}
		}
		if err := d.Remove(ctx, adm); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
}
