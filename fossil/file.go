package fossil

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/fossil/internal/stream"
	"strata/vac/meta"
)

// A File is a file or directory. It goes on to stand for the same one when
// that is renamed. Files of the active tree that are the same are one File.
type File struct {
	fs   *FS
	data *stream.Stream // contents, or the entries of a directory's children
	meta *stream.Stream // of a directory, the names and attributes of its children
	self *stream.Stream // of the root directory, its own attributes
	snap bool           // of a snapshot: never changes

	// Guarded by the buffer's lock.
	parent  *File // nil for the root directory
	dir     meta.DirEntry
	block   int64 // of the parent's metadata that has the entry
	index   *index
	removed bool
	holds   int   // calls of Hold without one of Release
	unnamed bool  // it has lost its name, and is held
	read    bool  // of the root directory: dir is what its entry says
	next    int64 // where the last read ended
	ahead   int64 // up to here was read ahead
}

// Info describes a file. Its Qid is the one that is unique in the active tree.
type Info struct {
	meta.DirEntry
	Size    int64  // 0 for directories
	Snap    uint32 // of the root of a snapshot, its epoch
	Archive bool   // the snapshot is to be archived
	OnVenti bool   // all contents are on Venti, and there are some
	Cookie  uint64 // of an entry in a listing, where it is
}

// DirEntry returns what is known of f in memory, without waiting for anything.
func (f *File) DirEntry() (e meta.DirEntry) {
	f.fs.b.View(context.Background(), func(*buffer.Tx) error {
		e = f.dir
		return nil
	})
	return e
}

// IsDir tells whether f is a directory.
func (f *File) IsDir() bool { return f.meta != nil }

// IsSnapshot tells whether f is of a snapshot.
func (f *File) IsSnapshot() bool { return f.snap }

// view runs fn in a view of the buffer.
func (f *File) view(ctx context.Context, fn func(tx *buffer.Tx) error) error {
	return translate(f.fs.b.View(ctx, fn))
}

// update runs fn in an update of the buffer.
func (f *File) update(ctx context.Context, fn func(tx *buffer.Tx) error) error {
	return translate(f.fs.b.Update(ctx, fn))
}

// updatePrivileged is update for what makes room.
func (f *File) updatePrivileged(ctx context.Context, fn func(tx *buffer.Tx) error) error {
	return translate(f.fs.b.UpdatePrivileged(ctx, fn))
}

// updateReserved is update for what must not fail because others have filled
// the disk.
func (f *File) updateReserved(ctx context.Context, fn func(tx *buffer.Tx) error) error {
	return translate(f.fs.b.UpdateReserved(ctx, fn))
}

// child returns the file that an entry of the directory f describes, without
// looking whether it is there.
func (f *File) child(e *meta.DirEntry, block int64) *File {
	c := &File{fs: f.fs, parent: f, dir: *e, block: block, snap: f.snap || e.Mode&meta.ModeSnapshot != 0}
	c.data = f.data.Child(int64(e.Entry), e.Gen, e.Mode.IsDir())
	if e.Mode.IsDir() {
		c.meta = f.data.Child(int64(e.MEntry), e.MGen, false)
	}
	return c
}

// check returns an error if f cannot be used.
func (f *File) check(tx *buffer.Tx) error {
	if f.removed {
		return ErrRemoved
	}
	if f.parent == nil && !f.read {
		if err := f.readRoot(tx); err != nil {
			return err
		}
	}
	if _, err := f.data.Entry(tx); err != nil {
		return err
	}
	if f.IsDir() {
		_, err := f.meta.Entry(tx)
		return err
	}
	return nil
}

// archived returns an error if f is of a snapshot that does not keep it. In
// archives there is nothing of it, and no error.
func (f *File) archived(tx *buffer.Tx) error {
	if !f.snap {
		return nil
	}
	s := f.data
	if f.IsDir() {
		s = f.meta
	}
	e, err := s.Entry(tx)
	if err == nil && e.NoArchive && e.Size > 0 {
		err = ErrNotArchived
	}
	return err
}

// Walk returns the file called name in the directory f.
func (f *File) Walk(ctx context.Context, name string) (*File, error) {
	var c *File
	err := f.view(ctx, func(tx *buffer.Tx) (err error) {
		c, err = f.walk(tx, name)
		return err
	})
	return c, err
}

func (f *File) walk(tx *buffer.Tx, name string) (*File, error) {
	if !f.IsDir() {
		return nil, ErrNotDir
	}
	if err := f.check(tx); err != nil {
		return nil, err
	}
	if err := f.archived(tx); err != nil {
		return nil, err
	}
	e, block, err := f.find(tx, name)
	if err != nil {
		return nil, err
	}
	c, err := f.open(tx, &e, block)
	if err == nil {
		f.accessed()
	}
	return c, err
}

// open returns the file that an entry of the directory f describes.
func (f *File) open(tx *buffer.Tx, e *meta.DirEntry, block int64) (*File, error) {
	c := f.child(e, block)
	if known := f.fs.known(c.qid()); !f.snap && known != nil && known.parent == f && known.dir.Name == e.Name && !known.removed {
		return known, nil
	}
	if err := c.check(tx); err != nil {
		return nil, err
	}
	if !c.snap {
		f.fs.remember(c)
	}
	return c, nil
}

// Parent returns the directory that f is in; the root directory is in itself.
func (f *File) Parent(ctx context.Context) (*File, error) {
	p := f
	err := f.view(ctx, func(*buffer.Tx) error {
		if f.parent != nil {
			p = f.parent
		}
		return nil
	})
	return p, err
}

// Path returns the path of f from the root directory.
func (f *File) Path(ctx context.Context) (path string, err error) {
	err = f.view(ctx, func(*buffer.Tx) error {
		path = f.path()
		return nil
	})
	return path, err
}

func (f *File) path() string {
	path := ""
	for ; f.parent != nil; f = f.parent {
		path = "/" + f.dir.Name + path
	}
	return cmp.Or(path, "/")
}

// offset returns what is added to the qids of f and of what is in it: a tree
// that was grafted keeps the qids that it has, in a space of its own.
func (f *File) offset() (n uint64) {
	for ; f != nil; f = f.parent {
		if f.dir.QidSpace {
			n += f.dir.QidOffset
		}
	}
	return n
}

// qid returns the number that f alone has in the active tree.
func (f *File) qid() uint64 { return f.dir.Qid + f.offset() }

// described returns the entry of f with that number.
func (f *File) described() meta.DirEntry {
	e := f.dir
	e.Qid = f.qid()
	return e
}

// accessed notes that f was read. It is called in views and updates.
func (f *File) accessed() {
	if f.snap || f.fs.cfg.NoAtime || f.fs.cfg.ReadOnly {
		return
	}
	if now := f.fs.now(); f.dir.Atime != now {
		f.dir.Atime = now
		f.fs.dirty[f] = f.fs.dirty[f]
	}
}

// touch has f changed by uid when the update is published.
func (f *File) touch(tx *buffer.Tx, uid string) {
	tx.OnPublish(func() {
		now := f.fs.now()
		f.dir.Mtime, f.dir.Atime, f.dir.MID = now, now, uid
		f.dir.Mcount++
		f.fs.dirty[f] = true
	})
}

// flush writes the attributes that are in memory.
func (f *File) flush(tx *buffer.Tx) error {
	if _, ok := f.fs.dirty[f]; !ok {
		return nil
	}
	if !f.removed {
		if err := f.put(tx, f.dir.Name, f.dir); err != nil {
			return err
		}
	}
	tx.OnPublish(func() { delete(f.fs.dirty, f) })
	return nil
}

// flushFull is flush when the disk is full. The error is that of the buffer.
func (f *File) flushFull(ctx context.Context) error {
	must := false
	if err := f.fs.b.View(ctx, func(*buffer.Tx) error {
		if must = f.fs.dirty[f]; !must {
			delete(f.fs.dirty, f)
		}
		return nil
	}); err != nil || !must {
		return err
	}
	return f.fs.b.UpdateReserved(ctx, f.flush)
}

// put makes e the entry of f, whose name was that.
func (f *File) put(tx *buffer.Tx, name string, e meta.DirEntry) error {
	modernize(&e)
	if f.parent == nil {
		data, err := f.self.ChangeLeaf(tx, 0)
		if err != nil {
			return err
		}
		b, err := meta.Open(data)
		if err != nil {
			return err
		}
		if err := b.Replace(0, &e); err != nil {
			return err
		}
		tx.OnPublish(func() { f.dir = e })
		return nil
	}
	block, err := f.parent.replace(tx, f.block, name, &e)
	if err != nil {
		return err
	}
	tx.OnPublish(func() { f.dir, f.block = e, block })
	return nil
}

// Stat describes f.
func (f *File) Stat(ctx context.Context) (Info, error) {
	var info Info
	err := f.view(ctx, func(tx *buffer.Tx) (err error) {
		if err := f.check(tx); err != nil {
			return err
		}
		info, err = f.stat(tx)
		return err
	})
	return info, err
}

func (f *File) stat(tx *buffer.Tx) (Info, error) {
	e, err := f.data.Entry(tx)
	info := Info{DirEntry: f.described(), Snap: e.Snap, Archive: e.Archive, OnVenti: !e.Local && e.Root != format.Hole}
	if !f.IsDir() {
		info.Size = e.Size
		return info, err
	}
	if err != nil {
		return info, err
	}
	// Either stream may be all on Venti, and the other not.
	m, err := f.meta.Entry(tx)
	if info.Snap == 0 {
		info.Snap, info.Archive = m.Snap, m.Archive
	}
	info.OnVenti = info.OnVenti && !m.Local
	return info, err
}

// List yields what is in the directory f, in no order; what comes or goes
// meanwhile may be among it or not. An entry whose file cannot be opened, like
// that of a snapshot that is gone, is as its directory has it.
func (f *File) List(ctx context.Context) iter.Seq2[Info, error] { return f.ListAfter(ctx, 0) }

// ListAfter is List for what comes after the entry with a Cookie. An entry
// keeps its cookie unless it is renamed or grows: its metadata block's number,
// and that of its slot, which is not 0.
func (f *File) ListAfter(ctx context.Context, cookie uint64) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for n := int64(cookie >> 32); ; n++ {
			var list []Info
			end := false
			err := f.view(ctx, func(tx *buffer.Tx) (err error) {
				list, end, err = f.listBlock(tx, n)
				return err
			})
			if err != nil {
				yield(Info{}, err)
				return
			}
			if end {
				return
			}
			for i := range list {
				list[i].Cookie = uint64(n)<<32 + uint64(list[i].Entry) + 1
			}
			slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Cookie, b.Cookie) })
			for _, info := range list {
				if info.Cookie > cookie && !yield(info, nil) {
					return
				}
			}
		}
	}
}

// listBlock describes the files in a metadata block of the directory f.
func (f *File) listBlock(tx *buffer.Tx, n int64) (list []Info, end bool, err error) {
	if !f.IsDir() {
		return nil, false, ErrNotDir
	}
	if err := f.check(tx); err != nil {
		return nil, false, err
	}
	if err := f.archived(tx); err != nil {
		return nil, false, err
	}
	blocks, err := f.blocks(tx)
	if err != nil || n >= blocks {
		return nil, true, err
	}
	b, err := metaLeaf(tx, f.meta, n)
	if err != nil {
		return nil, false, err
	}
	for i := range b.Len() {
		e, err := b.Entry(i)
		if err != nil {
			return nil, false, err
		}
		c := f.child(&e, n)
		if !f.snap {
			if known := f.fs.known(c.qid()); known != nil && known.parent == f && known.dir.Name == e.Name {
				c = known
			}
		}
		info, err := c.stat(tx)
		if missing := tx.Missing(); missing != nil {
			return nil, false, missing
		}
		if err != nil {
			info = Info{DirEntry: c.described()}
		}
		list = append(list, info)
	}
	f.accessed()
	return list, false, nil
}

// maxRead is how many bytes a view reads at once.
const maxRead = 256 << 10

// ReadAt reads up to len(p) bytes at off; it returns less only at the end of
// the file, where it returns none.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	if f.IsDir() {
		return 0, ErrNotFile
	}
	if off < 0 {
		return 0, ErrOffset
	}
	for n < len(p) {
		want := min(len(p)-n, maxRead)
		var pieces [][]byte
		err := f.view(ctx, func(tx *buffer.Tx) (err error) {
			if f.removed {
				return ErrRemoved
			}
			if err := f.archived(tx); err != nil {
				return err
			}
			if pieces, err = f.data.Read(tx, off+int64(n), want); err == nil {
				f.accessed()
				f.readAhead(off+int64(n), want)
			}
			return err
		})
		if err != nil {
			return n, err
		}
		got := 0
		for _, piece := range pieces {
			got += copy(p[n+got:], piece)
		}
		n += got
		if got < want {
			break
		}
	}
	f.fs.counts.reads.Add(1)
	f.fs.counts.readBytes.Add(int64(n))
	return n, nil
}

// Glance appends to bufs what ReadAt would read, in pieces that do not change
// and are not the caller's. It returns false, and does nothing, if that needs
// any waiting, or fails.
func (f *File) Glance(bufs [][]byte, n int, off int64) ([][]byte, bool) {
	if f.IsDir() || off < 0 {
		return bufs, false
	}
	var pieces [][]byte
	ok := f.fs.b.Glance(func(tx *buffer.Tx) (err error) {
		if f.removed {
			return ErrRemoved
		}
		if err := f.archived(tx); err != nil {
			return err
		}
		if pieces, err = f.data.Read(tx, off, n); err == nil {
			f.accessed()
			f.readAhead(off, n)
		}
		return err
	})
	if !ok {
		return bufs, false
	}
	return append(bufs, pieces...), true
}

// aheadBytes is how far a file that is read from one place on is read ahead:
// enough for some round trips to Venti, or a disk's seek.
const aheadBytes = 1 << 20

// readAhead is told of a read of n bytes at off, in a view. If it began where
// the last one ended, what follows is fetched.
func (f *File) readAhead(off int64, n int) {
	end := off + int64(n)
	follows := off == f.next && off > 0
	f.next = end
	if !follows {
		f.ahead = end
		return
	}
	from := max(f.ahead, end)
	if to := end + aheadBytes; to-from >= aheadBytes/2 && f.fs.fetch(f, from, int(to-from)) {
		f.ahead = to
	}
}

// Data returns the first range at or after off that is not a hole, or the size
// twice.
func (f *File) Data(ctx context.Context, off int64) (start, end int64, err error) {
	if f.IsDir() {
		return 0, 0, ErrNotFile
	}
	err = f.view(ctx, func(tx *buffer.Tx) (err error) {
		start, end, err = f.data.Data(tx, off)
		return err
	})
	return start, end, err
}

// Sync returns when all that was done to f before is durable.
func (f *File) Sync(ctx context.Context) error {
	if f.snap || f.fs.cfg.ReadOnly {
		return nil
	}
	f.fs.counts.syncs.Add(1)
	err := f.fs.b.Update(ctx, f.flush)
	if errors.Is(err, buffer.ErrFull) {
		err = f.flushFull(ctx)
	}
	return translate(cmp.Or(f.fs.b.Sync(ctx), err))
}
