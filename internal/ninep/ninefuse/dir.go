package ninefuse

import (
	"context"
	"errors"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"strata/internal/ninep"
)

// A listing is what an open directory had when it was read from its start.
type listing struct {
	mu      sync.Mutex // guards the fields below, and is held while the server is asked for them: the reads of one directory wait for each other
	read    bool
	entries []fuse.DirEntry
}

// OpenDir implements fuse.RawFileSystem.
func (fs *FS) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, f, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	g, err := open(ctx, f, ninep.OREAD)
	if err != nil {
		return status(err)
	}
	out.Fh = fs.newHandle(&handle{node: n, file: g})
	return fuse.OK
}

// list returns the entries from off on. Offset 0 reads the directory anew.
func (fs *FS) list(ctx context.Context, h *handle, off uint64) ([]fuse.DirEntry, error) {
	l := &h.list
	l.mu.Lock()
	defer l.mu.Unlock()
	if off == 0 || !l.read {
		dirs, err := h.file.ReadDir(ctx)
		if err != nil {
			return nil, err
		}
		self := fuse.DirEntry{Mode: syscall.S_IFDIR, Ino: h.node.key.path}
		l.entries = append(l.entries[:0:0], self, self)
		l.entries[0].Name, l.entries[1].Name = ".", ".."
		for _, d := range dirs {
			if fs.isHidden(d.Name) {
				continue
			}
			l.entries = append(l.entries, fuse.DirEntry{Name: d.Name, Mode: d.Mode.Unix() & syscall.S_IFMT, Ino: d.Qid.Path})
		}
		for i := range l.entries {
			l.entries[i].Off = uint64(i) + 1
		}
		l.read = true
	}
	return l.entries[min(off, uint64(len(l.entries))):], nil
}

// ReadDir implements fuse.RawFileSystem.
func (fs *FS) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	h := fs.handle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	entries, err := fs.list(ctx, h, in.Offset)
	if err != nil {
		return status(err)
	}
	for _, e := range entries {
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

// lookAhead is how many entries ReadDirPlus looks up at a time.
const lookAhead = 32

// ReadDirPlus implements fuse.RawFileSystem: a look-up comes with each entry.
func (fs *FS) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	h := fs.handle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	entries, err := fs.list(ctx, h, in.Offset)
	if err != nil {
		return status(err)
	}
	_, dir, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	for len(entries) > 0 {
		batch := entries[:min(lookAhead, len(entries))]
		entries = entries[len(batch):]
		found := make([]fuse.EntryOut, len(batch)) // NodeId 0: not looked up, and the kernel will
		var wg sync.WaitGroup
		for i, e := range batch {
			if e.Name != "." && e.Name != ".." {
				wg.Go(func() {
					if _, err := fs.look(ctx, dir, e.Name, &found[i]); err != nil {
						found[i] = fuse.EntryOut{}
					}
				})
			}
		}
		wg.Wait()
		for i, e := range batch {
			slot := out.AddDirLookupEntry(e)
			if slot == nil {
				for _, f := range found[i:] {
					fs.Forget(f.NodeId, 1)
				}
				return fuse.OK
			}
			*slot = found[i]
		}
	}
	return fuse.OK
}

// ReleaseDir implements fuse.RawFileSystem.
func (fs *FS) ReleaseDir(in *fuse.ReleaseIn) { fs.release(in.Fh) }

// FsyncDir implements fuse.RawFileSystem.
func (fs *FS) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fs.Fsync(cancel, in)
}

// make has do make name in a directory, and enters it.
func (fs *FS) make(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut, do func(context.Context, *ninep.File) error) fuse.Status {
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	_, dir, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	if err = do(ctx, dir); err == nil {
		_, err = fs.look(ctx, dir, name, out)
	}
	return status(err)
}

// Mkdir implements fuse.RawFileSystem.
func (fs *FS) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.make(cancel, &in.InHeader, name, out, func(ctx context.Context, dir *ninep.File) error {
		return dir.Mkdir(ctx, name, ninep.ModeFromUnix(in.Mode&^syscall.S_IFMT))
	})
}

// Mknod implements fuse.RawFileSystem.
func (fs *FS) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.make(cancel, &in.InHeader, name, out, func(ctx context.Context, dir *ninep.File) error {
		if kind := in.Mode & syscall.S_IFMT; kind == syscall.S_IFREG || kind == 0 {
			g, err := dir.Walk(ctx)
			if err != nil {
				return err
			}
			err = g.Create(ctx, name, ninep.ModeFromUnix(in.Mode&^syscall.S_IFMT), ninep.OREAD)
			return errors.Join(err, g.Close(ctx))
		}
		dev := ninep.Device{
			Block: in.Mode&syscall.S_IFMT == syscall.S_IFBLK,
			Major: in.Rdev >> 8 & 0xfff, Minor: in.Rdev&0xff | in.Rdev>>12&^0xff,
		}
		return dir.Mknod(ctx, name, ninep.ModeFromUnix(in.Mode), dev)
	})
}

// Symlink implements fuse.RawFileSystem.
func (fs *FS) Symlink(cancel <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return fs.make(cancel, in, name, out, func(ctx context.Context, dir *ninep.File) error {
		return dir.Symlink(ctx, name, target)
	})
}

// Link implements fuse.RawFileSystem.
func (fs *FS) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	_, target, done, err := fs.use(in.Oldnodeid)
	if err != nil {
		return status(err)
	}
	defer done()
	return fs.make(cancel, &in.InHeader, name, out, func(ctx context.Context, dir *ninep.File) error {
		return dir.Link(ctx, target, name)
	})
}

// Unlink implements fuse.RawFileSystem.
func (fs *FS) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	return fs.remove(ctx, in.NodeId, name, false)
}

// Rmdir implements fuse.RawFileSystem.
func (fs *FS) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	return fs.remove(ctx, in.NodeId, name, true)
}

func (fs *FS) remove(ctx context.Context, dirID uint64, name string, isDir bool) fuse.Status {
	d, dir, done, err := fs.use(dirID)
	if err != nil {
		return status(err)
	}
	defer done()
	if !fs.linux {
		if hidden, err := fs.hide(ctx, d, dir, name); hidden || err != nil {
			return status(err)
		}
	}
	return status(dir.RemoveName(ctx, name, isDir))
}

// renameNoReplace is RENAME_NOREPLACE of renameat2(2), the only flag there
// that 9P can do.
const renameNoReplace = 1

// Rename implements fuse.RawFileSystem.
func (fs *FS) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldname, newname string) fuse.Status {
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	if in.Flags&^renameNoReplace != 0 {
		return fuse.EINVAL
	}
	_, olddir, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	_, newdir, done, err := fs.use(in.Newdir)
	if err != nil {
		return status(err)
	}
	defer done()
	if in.Flags&renameNoReplace != 0 || !fs.linux {
		there, err := newdir.Walk(ctx, newname)
		switch {
		case err == nil:
			isDir := there.Qid().Dir()
			fs.clunker.add(there)
			if in.Flags&renameNoReplace != 0 {
				return fuse.Status(syscall.EEXIST)
			}
			if in.NodeId != in.Newdir {
				return fuse.EXDEV
			}
			if s := fs.remove(ctx, in.Newdir, newname, isDir); s != fuse.OK {
				return s
			}
		case status(err) != fuse.ENOENT:
			return status(err)
		}
	}
	if err := olddir.RenameName(ctx, oldname, newdir, newname); err != nil {
		return status(err)
	}
	if fs.moved(ctx, newdir, newname) && fs.server != nil {
		// What the kernel knows below it has to be looked up again, since there
		// are servers whose fids are paths. The kernel holds locks until the
		// rename has been answered. This ends soon after that, or with the mount.
		go fs.server.EntryNotify(in.Newdir, newname)
	}
	return fuse.OK
}

// moved walks once more to what was renamed, since there are servers whose
// fids are paths. It tells whether that is a directory that the kernel knows.
func (fs *FS) moved(ctx context.Context, dir *ninep.File, name string) bool {
	f, err := dir.Walk(ctx, name)
	if err != nil {
		return false // the next look-up meets it
	}
	fs.mu.Lock()
	n := fs.byQid[keyOf(f.Qid())]
	fs.mu.Unlock()
	if n == nil {
		fs.clunker.add(f)
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	fs.dropLocked(n.fid)
	n.fid = &fid{f, 1}
	return n.dir()
}
