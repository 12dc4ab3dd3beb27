package fossil

import (
	"context"
	"errors"
	"strings"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/stream"
	"strata/vac/meta"
)

// writable returns an error if f may not be changed.
func (f *File) writable(tx *buffer.Tx) error {
	if f.snap {
		return ErrReadOnly
	}
	return f.check(tx)
}

// checkName returns an error for what cannot be the name of a file.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return ErrName
	}
	return nil
}

// kept are the bits of a mode that only the file system sets.
const kept = meta.ModeDir | meta.ModeSnapshot

// Create makes a file called name in the directory f. uid is who does. Its
// group is the directory's.
func (f *File) Create(ctx context.Context, name string, mode meta.Mode, uid string) (*File, error) {
	if mode&meta.ModeSnapshot != 0 {
		return nil, ErrMode
	}
	var c *File
	err := f.update(ctx, func(tx *buffer.Tx) (err error) {
		c, err = f.create(tx, name, mode, uid)
		return err
	})
	return c, err
}

func (f *File) create(tx *buffer.Tx, name string, mode meta.Mode, uid string) (*File, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if !f.IsDir() {
		return nil, ErrNotDir
	}
	if err := f.writable(tx); err != nil {
		return nil, err
	}
	if _, _, err := f.find(tx, name); err == nil {
		return nil, ErrExist
	} else if !errors.Is(err, ErrNotExist) {
		return nil, err
	}
	now, super := f.fs.now(), tx.Super()
	e := meta.DirEntry{
		Version: 9, Name: name, Qid: super.QID - f.offset(), UID: uid, GID: f.dir.GID, MID: uid,
		Mtime: now, Ctime: now, Atime: now, Mode: mode,
	}
	super.QID++
	tx.SetSuper(super)

	slot, gen, err := f.createStream(tx, -1, mode.IsDir(), mode)
	if err != nil {
		return nil, err
	}
	e.Entry, e.Gen = uint32(slot), gen
	if mode.IsDir() {
		if slot, gen, err = f.createStream(tx, slot, false, mode); err != nil {
			return nil, err
		}
		e.MEntry, e.MGen = uint32(slot), gen
	}
	block, err := f.insert(tx, &e)
	if err != nil {
		return nil, err
	}
	c := f.child(&e, block)
	if mode.IsDir() {
		c.index = &index{blocks: map[string]int64{}}
	}
	f.touch(tx, uid)
	if !c.snap {
		tx.OnPublish(func() { f.fs.remember(c) })
	}
	return c, nil
}

// Symlink makes a symbolic link called name in the directory f: a file of
// which the target is the contents. uid is who does.
func (f *File) Symlink(ctx context.Context, name, target, uid string) (*File, error) {
	var c *File
	err := f.update(ctx, func(tx *buffer.Tx) (err error) {
		if c, err = f.create(tx, name, meta.ModeLink|meta.ModePerm, uid); err != nil {
			return err
		}
		return c.data.Write(tx, []byte(target), 0)
	})
	return c, err
}

// createStream makes a stream for a file of the directory f.
func (f *File) createStream(tx *buffer.Tx, hint int64, dir bool, mode meta.Mode) (slot int64, gen uint32, err error) {
	s, err := f.data.Create(tx, hint, dir)
	if err != nil {
		return 0, 0, err
	}
	if mode&meta.ModeTemporary != 0 {
		if err := setNoArchive(tx, s, true); err != nil {
			return 0, 0, err
		}
	}
	slot, gen = s.Slot()
	return slot, gen, nil
}

// setNoArchive says whether a stream is kept out of archives.
func setNoArchive(tx *buffer.Tx, s *stream.Stream, no bool) error {
	e, err := s.Entry(tx)
	if err != nil || e.NoArchive == no {
		return err
	}
	e.NoArchive = no
	return s.Set(tx, e)
}

// WriteAt writes p at off, or at the end of a file that can only be appended
// to. uid is who does. After an error, n bytes were written.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64, uid string) (n int, err error) {
	return f.write(ctx, p, off, false, uid)
}

// Append writes p at the end of the file, wherever that is by then. A large p
// is written in pieces, between which others may append.
func (f *File) Append(ctx context.Context, p []byte, uid string) (n int, err error) {
	return f.write(ctx, p, 0, true, uid)
}

func (f *File) write(ctx context.Context, p []byte, off int64, end bool, uid string) (n int, err error) {
	if f.IsDir() {
		return 0, ErrNotFile
	}
	if off < 0 {
		return 0, ErrOffset
	}
	f.fs.counts.writes.Add(1)
	defer func() { f.fs.counts.writeBytes.Add(int64(n)) }()
	for first := true; first || n < len(p); first = false {
		part := p[n:min(len(p), n+stream.MaxWrite)]
		err := f.update(ctx, func(tx *buffer.Tx) error {
			if err := f.writable(tx); err != nil {
				return err
			}
			at := off + int64(n)
			if end || f.dir.Mode&meta.ModeAppend != 0 {
				e, err := f.data.Entry(tx)
				if err != nil {
					return err
				}
				at = e.Size
			}
			if err := f.data.Write(tx, part, at); err != nil {
				return err
			}
			f.touch(tx, uid)
			return nil
		})
		if err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// Replace makes data, which should not be very long, all that the file has: a
// crash leaves the old contents or the new. uid is who does.
func (f *File) Replace(ctx context.Context, data []byte, uid string) error {
	if f.IsDir() {
		return ErrNotFile
	}
	return f.update(ctx, func(tx *buffer.Tx) error {
		if err := f.writable(tx); err != nil {
			return err
		}
		if err := f.data.Resize(tx, 0); err != nil {
			return err
		}
		f.touch(tx, uid)
		return f.data.Write(tx, data, 0)
	})
}

// Punch makes a hole of n bytes at off.
func (f *File) Punch(ctx context.Context, off, n int64, uid string) error {
	if f.IsDir() {
		return ErrNotFile
	}
	return f.updatePrivileged(ctx, func(tx *buffer.Tx) error {
		if err := f.writable(tx); err != nil {
			return err
		}
		f.touch(tx, uid)
		return f.data.Punch(tx, off, n)
	})
}

// Remove removes f. A directory must be empty. uid is who does.
func (f *File) Remove(ctx context.Context, uid string) error {
	err := f.updatePrivileged(ctx, func(tx *buffer.Tx) error { return f.remove(tx, uid, true) })
	if errors.Is(err, ErrFull) {
		// What is held cannot be kept, then.
		err = f.updatePrivileged(ctx, func(tx *buffer.Tx) error { return f.remove(tx, uid, false) })
	}
	return err
}

// remove removes f. With keep, what is held only loses its name.
func (f *File) remove(tx *buffer.Tx, uid string, keep bool) error {
	switch {
	case f.removed:
		return ErrRemoved
	case f.parent == nil:
		return ErrRemoveRoot
	case f.parent.snap:
		return ErrReadOnly
	}
	if err := f.writable(tx); err != nil {
		return err
	}
	if keep && f.holds > 0 && !f.unnamed {
		return f.unlink(tx, uid)
	}
	if f.IsDir() {
		if empty, err := f.isEmpty(tx); err != nil {
			return err
		} else if !empty {
			return ErrNotEmpty
		}
		if err := f.meta.Remove(tx); err != nil {
			return err
		}
	}
	if err := f.data.Remove(tx); err != nil {
		return err
	}
	return f.unname(tx, uid)
}

// unname takes the name of f out of its directory.
func (f *File) unname(tx *buffer.Tx, uid string) error {
	if err := f.parent.delete(tx, f.block, f.dir.Name); err != nil {
		return err
	}
	f.parent.touch(tx, uid)
	tx.OnPublish(func() {
		f.removed = true
		delete(f.fs.dirty, f)
		if qid := f.qid(); f.fs.known(qid) == f {
			delete(f.fs.files, qid)
		}
	})
	return nil
}

// Clri takes a name out of the directory f, whatever it names: that of a
// snapshot that is gone, for one. Blocks that it still has are lost until a
// check finds them.
func (f *File) Clri(ctx context.Context, name, uid string) error {
	return f.updatePrivileged(ctx, func(tx *buffer.Tx) error { return f.clri(tx, name, uid) })
}

func (f *File) clri(tx *buffer.Tx, name, uid string) error {
	if !f.IsDir() {
		return ErrNotDir
	}
	if err := f.writable(tx); err != nil {
		return err
	}
	e, block, err := f.find(tx, name)
	if err != nil {
		return err
	}
	c := f.child(&e, block)
	if known := f.fs.known(c.qid()); known != nil && known.parent == f && known.dir.Name == name {
		c = known
	}
	return c.unname(tx, uid)
}

// Rename moves f to newname in the directory to, which may be that in which it
// is. With replace, it takes the place of what was there: a file that of a
// file, a directory that of an empty directory. uid is who does.
func (f *File) Rename(ctx context.Context, to *File, newname string, replace bool, uid string) error {
	return f.updateReserved(ctx, func(tx *buffer.Tx) error {
		return f.rename(tx, to, newname, replace, uid)
	})
}

func (f *File) rename(tx *buffer.Tx, to *File, newname string, replace bool, uid string) error {
	if err := checkName(newname); err != nil {
		return err
	}
	if f.parent == nil {
		return ErrRemoveRoot
	}
	if f.unnamed {
		return ErrRemoved
	}
	if f.parent.snap || to.snap {
		return ErrReadOnly
	}
	if err := f.writable(tx); err != nil {
		return err
	}
	if !to.IsDir() {
		return ErrNotDir
	}
	if err := to.writable(tx); err != nil {
		return err
	}
	for up := to; up != nil; up = up.parent {
		if up == f {
			return ErrInside
		}
	}
	if to == f.parent && newname == f.dir.Name {
		return nil
	}
	switch old, block, err := to.find(tx, newname); {
	case err == nil && !replace:
		return ErrExist
	case err == nil:
		there, err := to.open(tx, &old, block)
		if err != nil {
			return err
		}
		if there.IsDir() != f.IsDir() {
			if f.IsDir() {
				return ErrNotDir
			}
			return ErrNotFile
		}
		if err := there.remove(tx, uid, true); err != nil {
			return err
		}
	case !errors.Is(err, ErrNotExist):
		return err
	}
	from := f.parent
	e := f.dir
	e.Name = newname
	if from == to {
		if err := f.put(tx, f.dir.Name, e); err != nil {
			return err
		}
		from.touch(tx, uid)
		return nil
	}
	return f.move(tx, to, e, uid)
}

// move moves f to another directory, in which e is its entry, but for what says
// where its streams are. uid is who does.
func (f *File) move(tx *buffer.Tx, to *File, e meta.DirEntry, uid string) error {
	from := f.parent
	if err := from.delete(tx, f.block, f.dir.Name); err != nil {
		return err
	}
	data, err := f.data.Move(tx, to.data, -1)
	if err != nil {
		return err
	}
	slot, gen := data.Slot()
	e.Entry, e.Gen = uint32(slot), gen
	if f.IsDir() {
		meta, err := f.meta.Move(tx, to.data, slot)
		if err != nil {
			return err
		}
		slot, gen := meta.Slot()
		e.MEntry, e.MGen = uint32(slot), gen
	}
	// Qids stay what they are, whatever is added to them there.
	switch shift := from.offset() - to.offset(); {
	case shift == 0:
	case f.IsDir():
		if !e.QidSpace {
			e.QidSpace, e.QidOffset = true, 0
		}
		e.QidOffset += shift
	default:
		e.Qid += shift
	}
	modernize(&e)
	block, err := to.insert(tx, &e)
	if err != nil {
		return err
	}
	from.touch(tx, uid)
	to.touch(tx, uid)
	tx.OnPublish(func() { f.dir, f.block, f.parent = e, block, to })
	return nil
}

// A Change says what SetAttr changes: what is not nil.
type Change struct {
	Name     *string
	Mode     *meta.Mode // but for the bits of directories and snapshots
	Size     *int64
	UID, GID *string
	Mtime    *uint32
	Atime    *uint32
}

// SetAttr changes all that c says or nothing. uid is who does.
func (f *File) SetAttr(ctx context.Context, c Change, uid string) error {
	update := f.updateReserved
	if c.Size != nil && !f.IsDir() {
		// To make a file longer is to write; to make it shorter makes room.
		info, err := f.Stat(ctx)
		if err != nil {
			return err
		}
		update = f.update
		if *c.Size < info.Size {
			update = f.updatePrivileged
		}
	}
	return update(ctx, func(tx *buffer.Tx) error {
		if err := f.writable(tx); err != nil {
			return err
		}
		e := f.dir
		if c.Name != nil && *c.Name != e.Name {
			if f.parent == nil {
				return ErrRemoveRoot
			}
			if f.unnamed {
				return ErrRemoved
			}
			if err := checkName(*c.Name); err != nil {
				return err
			}
			if _, _, err := f.parent.find(tx, *c.Name); err == nil {
				return ErrExist
			} else if !errors.Is(err, ErrNotExist) {
				return err
			}
			e.Name = *c.Name
			f.parent.touch(tx, uid)
		}
		if c.Size != nil {
			if f.IsDir() {
				return ErrNotFile
			}
			if *c.Size < 0 {
				return ErrOffset
			}
			if err := f.data.Resize(tx, *c.Size); err != nil {
				return err
			}
			now := f.fs.now()
			e.Mtime, e.Atime, e.MID = now, now, uid
			e.Mcount++
		}
		if c.Mode != nil {
			e.Mode = e.Mode&kept | *c.Mode&^kept
			if err := f.setTemporary(tx, e.Mode&meta.ModeTemporary != 0); err != nil {
				return err
			}
		}
		if c.UID != nil {
			e.UID = *c.UID
		}
		if c.GID != nil {
			e.GID = *c.GID
		}
		if c.Mtime != nil {
			e.Mtime = *c.Mtime
		}
		if c.Atime != nil {
			e.Atime = *c.Atime
		}
		return f.put(tx, f.dir.Name, e)
	})
}

// setTemporary says whether f is kept out of archives.
func (f *File) setTemporary(tx *buffer.Tx, is bool) error {
	if err := setNoArchive(tx, f.data, is); err != nil || !f.IsDir() {
		return err
	}
	return setNoArchive(tx, f.meta, is)
}
