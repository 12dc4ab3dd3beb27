package fossil

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/fossil/internal/stream"
	"strata/vac/meta"
)

// SnapConfig says what Snapshot does.
type SnapConfig struct {
	Archive bool   // keep it on Venti, for ever
	Source  string // the directory; "" means /active
	Path    string // what the snapshot is to be called; "" means by its time
}

// Snapshot takes a snapshot of a directory, and returns its path: below
// /snapshot, or below /archive for one that is to be archived. It is one
// transaction, however large the directory is.
func (fs *FS) Snapshot(ctx context.Context, cfg SnapConfig) (path string, err error) {
	if cfg.Source == "" {
		cfg.Source = "/active"
	}
	src, err := fs.Walk(ctx, cfg.Source)
	if err != nil {
		return "", fmt.Errorf("snapshot: %w", err)
	}
	if err := fs.flush(ctx); err != nil && !errors.Is(err, buffer.ErrFull) {
		return "", fmt.Errorf("snapshot: %w", translate(err))
	}
	when := fs.cfg.Now()
	err = fs.b.UpdateReserved(ctx, func(tx *buffer.Tx) error {
		path, err = fs.snapshot(tx, src, cfg, when)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("snapshot: %w", translate(err))
	}
	fs.counts.snapshots.Add(1)
	fs.log.Info("snapshot", "path", path)
	if cfg.Archive {
		fs.wakeArchiver()
	}
	return path, nil
}

func (fs *FS) snapshot(tx *buffer.Tx, src *File, cfg SnapConfig, when time.Time) (string, error) {
	if !src.IsDir() {
		return "", ErrNotDir
	}
	if err := src.writable(tx); err != nil {
		return "", err
	}
	// What is above the source's streams gets blocks of the new epoch; the old
	// ones, and all below, are the snapshot's from now on.
	if err := bumpEpoch(tx, false); err != nil {
		return "", err
	}
	data, err := src.data.OwnEntry(tx)
	if err != nil {
		return "", err
	}
	names, err := src.meta.OwnEntry(tx)
	if err != nil {
		return "", err
	}
	dir, name, err := fs.snapDir(tx, cfg.Path, cfg.Archive, when)
	if err != nil {
		return "", err
	}
	dst, err := dir.create(tx, name, meta.ModeDir|meta.ModeSnapshot|0o555, adm)
	if err != nil {
		return "", err
	}
	for _, s := range []struct {
		to *stream.Stream
		e  format.Entry
	}{{dst.data, data}, {dst.meta, names}} {
		if s.e.Local { // what is all on Venti is kept anyway
			s.e.Snap, s.e.Archive = tx.Epoch()-1, cfg.Archive
		}
		if err := s.to.Set(tx, s.e); err != nil {
			return "", err
		}
	}
	if cfg.Archive {
		waits := Snap{Path: dst.path(), Epoch: tx.Epoch() - 1, Archive: true, Mtime: dst.dir.Mtime}
		tx.OnPublish(func() { fs.unsaid = append(fs.unsaid, waits) })
		if err := fs.saveQids(tx); err != nil {
			return "", err
		}
		if err := bumpEpoch(tx, true); err != nil {
			return "", err
		}
	}
	return dst.path(), nil
}

// bumpEpoch starts an epoch. The new root block has a hint of the old one for
// those who check; with archive, the old one is what is archived next.
func bumpEpoch(tx *buffer.Tx, archive bool) error {
	super := tx.Super()
	old := format.Local(super.Active)
	l, err := tx.Label(super.Active)
	if err != nil {
		return err
	}
	if archive {
		super.Next = super.Active
	}
	super.EpochHigh++
	tx.SetSuper(super)
	addr, data, err := tx.Writable(old, format.Dir, format.RootTag)
	if err != nil {
		return err
	}
	format.PutEntry(data, 1, &format.Entry{
		Active: true, Dir: true, Local: true, Tag: format.RootTag, Snap: l.Epoch, Root: old,
	})
	super.Active = addr
	tx.SetSuper(super)
	return nil
}

// saveQids has the root directory's entry say how many qids there are, for one
// who makes a file system of the archive.
func (fs *FS) saveQids(tx *buffer.Tx) error {
	e := fs.root.dir
	e.QidSpace, e.QidOffset, e.QidMax = true, 0, tx.Super().QID
	return fs.root.put(tx, e.Name, e)
}

// snapDir returns the directory that a snapshot goes into, which it makes if
// need be, and a name that is free there. The date is that of a user's clock.
func (fs *FS) snapDir(tx *buffer.Tx, path string, archive bool, when time.Time) (*File, string, error) {
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	byTime := len(names) == 0
	if byTime {
		names = []string{"snapshot", when.Format("2006"), when.Format("0102"), when.Format("1504")}
		if archive {
			names = []string{"archive", when.Format("2006"), when.Format("0102")}
		}
	}
	dir, last := fs.root, names[len(names)-1]
	for _, name := range names[:len(names)-1] {
		next, err := dir.walk(tx, name)
		if errors.Is(err, ErrNotExist) && byTime {
			next, err = dir.create(tx, name, meta.ModeDir|0o555, adm)
		}
		if err != nil {
			return nil, "", err
		}
		dir = next
	}
	if !byTime {
		return dir, last, nil
	}
	// The name of a dead snapshot is taken, though nobody can walk to it.
	name := last
	for n := 1; ; n++ {
		_, _, err := dir.find(tx, name)
		if errors.Is(err, ErrNotExist) {
			return dir, name, nil
		}
		if err != nil {
			return nil, "", err
		}
		name = fmt.Sprintf("%s.%d", last, n)
	}
}

// A Snap is a snapshot that a directory names.
type Snap struct {
	Path    string
	Epoch   uint32 // 0 of one that is all on Venti
	Archive bool
	Mtime   uint32
	Dead    bool // gone, but for its name
}

// Snapshots lists the snapshots below a directory, not those inside of others.
func (fs *FS) Snapshots(ctx context.Context, path string) ([]Snap, error) {
	return fs.snapshots(ctx, path, false)
}

// LocalSnapshots lists those that are in the partition, and some others: it
// does not look into directories that are on Venti.
func (fs *FS) LocalSnapshots(ctx context.Context, path string) ([]Snap, error) {
	return fs.snapshots(ctx, path, true)
}

func (fs *FS) snapshots(ctx context.Context, path string, local bool) ([]Snap, error) {
	dir, err := fs.Walk(ctx, path)
	if err != nil {
		return nil, err
	}
	var list []Snap
	err = fs.snapshotsIn(ctx, dir, strings.TrimSuffix(path, "/"), local, &list)
	return list, err
}

func (fs *FS) snapshotsIn(ctx context.Context, dir *File, path string, local bool, list *[]Snap) error {
	for info, err := range dir.List(ctx) {
		if err != nil {
			return err
		}
		if !info.Mode.IsDir() || local && info.OnVenti && info.Mode&meta.ModeSnapshot == 0 {
			continue
		}
		p := path + "/" + info.Name
		f, err := dir.Walk(ctx, info.Name)
		if info.Mode&meta.ModeSnapshot != 0 {
			dead := errors.Is(err, ErrDeleted)
			if err != nil && !dead {
				return err
			}
			*list = append(*list, Snap{p, info.Snap, info.Archive, info.Mtime, dead})
			continue
		}
		if err == nil {
			err = fs.snapshotsIn(ctx, f, p, local, list)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Keep, as the age for SnapClean, keeps all temporary snapshots.
const Keep = time.Duration(-1)

// SnapClean lets go of the temporary snapshots that are older than age, and of
// the names of those that are gone. Snapshots that wait to be archived stay,
// and with them what is newer, but for what was all on Venti when the snapshot
// was taken: that is a name only.
func (fs *FS) SnapClean(ctx context.Context, age time.Duration) error {
	super := fs.b.Super()
	low := super.EpochHigh
	archives, err := fs.LocalSnapshots(ctx, "/archive")
	if err != nil {
		return fmt.Errorf("clean snapshots: %w", err)
	}
	temporary, err := fs.LocalSnapshots(ctx, "/snapshot")
	if err != nil {
		return fmt.Errorf("clean snapshots: %w", err)
	}
	for _, s := range archives {
		if s.Epoch != 0 && !s.Dead {
			low = min(low, s.Epoch)
		}
	}
	now := fs.cfg.Now()
	old := func(mtime uint32) bool { return age != Keep && now.Sub(time.Unix(int64(mtime), 0)) > age }
	for _, s := range temporary {
		if s.Epoch != 0 && !s.Dead && !old(s.Mtime) {
			low = min(low, s.Epoch)
		}
	}
	oldest, err := fs.unarchived(ctx)
	if err != nil {
		return fmt.Errorf("clean snapshots: %w", err)
	}
	low = min(low, oldest)
	if low > super.EpochLow {
		if err := fs.SetEpochLow(ctx, low); err != nil {
			return fmt.Errorf("clean snapshots: %w", err)
		}
	}
	dir, err := fs.Walk(ctx, "/snapshot")
	if err == nil {
		_, err = fs.forgetDead(ctx, dir, true, old)
	}
	if err != nil {
		return fmt.Errorf("clean snapshots: %w", err)
	}
	return nil
}

// SetEpochLow lets go of all snapshots from before an epoch. Those that are to
// be archived must stay.
func (fs *FS) SetEpochLow(ctx context.Context, low uint32) error {
	oldest, err := fs.unarchived(ctx)
	if err == nil && low > oldest {
		err = fmt.Errorf("bad low epoch %d: the snapshot of %d is to be archived", low, oldest)
	}
	if err != nil {
		return err
	}
	if err := translate(fs.b.SetEpochLow(ctx, low)); err != nil {
		return err
	}
	fs.log.Info("snapshots are gone", "before", low)
	return nil
}

// unarchived returns the oldest epoch of what the archiver has or gets, or that
// of the active tree. A snapshot that is to be archived is one epoch older than
// the tree that it is archived with, or more if that waits for the next.
func (fs *FS) unarchived(ctx context.Context) (uint32, error) {
	super := fs.b.Super()
	oldest := super.EpochHigh
	for _, root := range []uint32{super.Next, super.Current} {
		if root == format.None {
			continue
		}
		l, err := fs.b.Label(ctx, root)
		if err != nil {
			return 0, translate(err)
		}
		oldest = min(oldest, l.Epoch)
	}
	if oldest == super.EpochHigh {
		return oldest, nil
	}
	for _, path := range []string{"/archive", "/snapshot"} {
		list, err := fs.Snapshots(ctx, path)
		if err != nil {
			return 0, err
		}
		for _, s := range list {
			if s.Archive && s.Epoch != 0 && !s.Dead {
				oldest = min(oldest, s.Epoch)
			}
		}
	}
	return oldest, nil
}

// ForgetDead removes the names of snapshots that are gone below /snapshot, and
// directories that are empty then.
func (fs *FS) ForgetDead(ctx context.Context) error {
	dir, err := fs.Walk(ctx, "/snapshot")
	if err == nil {
		_, err = fs.forgetDead(ctx, dir, true, func(uint32) bool { return false })
	}
	return err
}

// forgetDead removes the names of dead snapshots below a directory, of old ones
// that are all on Venti, and the directories that are empty then. It tells whether
// this one is.
func (fs *FS) forgetDead(ctx context.Context, dir *File, top bool, old func(mtime uint32) bool) (empty bool, err error) {
	var dirs, dead []string
	left := 0
	for info, err := range dir.List(ctx) {
		if err != nil {
			return false, err
		}
		left++
		if !info.Mode.IsDir() {
			continue
		}
		if info.Mode&meta.ModeSnapshot == 0 {
			dirs = append(dirs, info.Name)
		} else if _, err := dir.Walk(ctx, info.Name); errors.Is(err, ErrDeleted) || err == nil && info.Snap == 0 && old(info.Mtime) {
			dead = append(dead, info.Name)
		}
	}
	for _, name := range dead {
		err := dir.updatePrivileged(ctx, func(tx *buffer.Tx) error { return dir.forget(tx, name) })
		if err != nil {
			return false, err
		}
		left--
	}
	for _, name := range dirs {
		d, err := dir.Walk(ctx, name)
		if err != nil {
			return false, err
		}
		gone, err := fs.forgetDead(ctx, d, false, old)
		if err != nil {
			return false, err
		}
		if gone {
			left--
		}
	}
	if left > 0 || top || len(dead)+len(dirs) == 0 {
		return false, nil
	}
	err = dir.Remove(ctx, adm)
	return err == nil, err
}

// forget removes the name of a dead snapshot from the directory f, or of one
// that is all on Venti, and frees its slots: blocks that it had are free
// already.
func (f *File) forget(tx *buffer.Tx, name string) error {
	if err := f.writable(tx); err != nil {
		return err
	}
	e, block, err := f.find(tx, name)
	if err != nil {
		return err
	}
	c := f.child(&e, block)
	for _, s := range []*stream.Stream{c.data, c.meta} {
		free := s.Remove
		if _, err := s.Entry(tx); errors.Is(err, stream.ErrDeleted) {
			free = s.Forget
		}
		if err := free(tx); err != nil {
			return err
		}
	}
	return c.unname(tx, adm)
}
