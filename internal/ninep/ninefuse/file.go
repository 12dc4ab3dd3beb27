package ninefuse

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"strata/internal/ninep"
)

// A handle is an open file or directory.
type handle struct {
	node   *node
	file   *ninep.File
	direct bool // reads mean what the server makes of each
	list   listing
}

// request returns the context of a read or write. Those of a file that is made
// up as it is read may wait for something that never comes: any signal ends
// them.
func (h *handle) request(cancel <-chan struct{}, pid uint32) *request {
	r := newRequest(cancel, pid)
	r.any = h.direct
	return r
}

// newHandle gives f, which is open, a number. It takes f.
func (fs *FS) newHandle(h *handle) uint64 {
	h.node.mu.Lock()
	h.node.opens++
	h.node.mu.Unlock()
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.lastHandle++
	fs.handles[fs.lastHandle] = h
	return fs.lastHandle
}

func (fs *FS) handle(fh uint64) *handle {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.handles[fh]
}

// openMode returns the mode that open(2)'s flags ask for. Truncation comes as
// a SetAttr of its own.
func openMode(flags uint32) ninep.OpenMode {
	mode := ninep.OpenMode(flags & syscall.O_ACCMODE)
	if flags&syscall.O_APPEND != 0 {
		mode |= ninep.OAPPEND
	}
	return mode
}

// open opens another fid of f.
func open(ctx context.Context, f *ninep.File, mode ninep.OpenMode) (*ninep.File, error) {
	g, err := f.Walk(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.Open(ctx, mode); err != nil {
		g.Close(ctx)
		return nil, err
	}
	return g, nil
}

// Open implements fuse.RawFileSystem.
func (fs *FS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	n, f, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	g, err := open(ctx, f, openMode(in.Flags))
	if err != nil {
		return status(err)
	}
	fs.opened(n, g, false, out)
	return fuse.OK
}

// opened makes g, an open fid of n, a handle. fresh says that the file was
// made by opening it.
func (fs *FS) opened(n *node, g *ninep.File, fresh bool, out *fuse.OpenOut) {
	h := &handle{node: n, file: g}
	v := g.Qid().Vers
	n.mu.Lock()
	same := n.seen && n.version == v && v != 0
	changed := n.seen && n.version != v
	n.version, n.seen = v, true
	n.plain = n.plain || fresh
	h.direct = !n.plain && v == 0
	n.mu.Unlock()
	if changed && fs.server != nil {
		fs.server.InodeNotify(n.id, -1, 0) // the length that the kernel knows may be old
	}
	switch {
	case fs.cfg.Cache == CacheNone, h.direct:
		out.OpenFlags |= fuse.FOPEN_DIRECT_IO
	case same, fs.cfg.Cache == CacheLoose:
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	out.Fh = fs.newHandle(h)
}

// Create implements fuse.RawFileSystem.
func (fs *FS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	_, dir, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	g, err := dir.Walk(ctx)
	if err != nil {
		return status(err)
	}
	err = g.Create(ctx, name, ninep.ModeFromUnix(in.Mode&^syscall.S_IFMT), openMode(in.Flags))
	if err != nil {
		g.Close(ctx)
		if status(err) != fuse.Status(syscall.EEXIST) || in.Flags&syscall.O_EXCL != 0 {
			return status(err)
		}
		// Somebody else was quicker.
		n, err := fs.look(ctx, dir, name, &out.EntryOut)
		if err != nil {
			return status(err)
		}
		return fs.openFound(ctx, n, in, out)
	}
	n, err := fs.look(ctx, dir, name, &out.EntryOut)
	if err != nil {
		g.Close(ctx)
		return status(err)
	}
	fs.opened(n, g, true, &out.OpenOut)
	return fuse.OK
}

// openFound opens the file that Create met, and forgets it if that fails.
func (fs *FS) openFound(ctx context.Context, n *node, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	_, f, done, err := fs.use(n.id)
	var g *ninep.File
	if err == nil {
		defer done()
		if in.Flags&syscall.O_TRUNC != 0 {
			zero := int64(0)
			err = f.Wstat(ctx, ninep.Change{Length: &zero})
		}
		if err == nil {
			g, err = open(ctx, f, openMode(in.Flags))
		}
	}
	if err != nil {
		fs.Forget(n.id, 1)
		return status(err)
	}
	fs.opened(n, g, true, &out.OpenOut)
	return fuse.OK
}

// Read implements fuse.RawFileSystem.
func (fs *FS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := fs.handle(in.Fh)
	if h == nil {
		return nil, fuse.EBADF
	}
	ctx := h.request(cancel, in.Pid)
	defer ctx.end()
	buf = buf[:min(len(buf), int(in.Size))]
	h.node.mu.Lock()
	size := h.node.size
	h.node.mu.Unlock()
	done := 0
	for done < len(buf) {
		n, err := h.file.ReadOnce(ctx, buf[done:], int64(in.Offset)+int64(done))
		if err != nil {
			if done > 0 {
				break // the next read meets it
			}
			return nil, status(err)
		}
		done += n
		// Less than was asked for may be the end, if that is where it should be;
		// of a file that is made up it is an answer.
		if n == 0 || h.direct || int64(in.Offset)+int64(done) == size {
			break
		}
	}
	return fuse.ReadResultData(buf[:done]), fuse.OK
}

// Write implements fuse.RawFileSystem.
func (fs *FS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h := fs.handle(in.Fh)
	if h == nil {
		return 0, fuse.EBADF
	}
	ctx := h.request(cancel, in.Pid)
	defer ctx.end()
	n, err := h.file.WriteAt(ctx, data, int64(in.Offset))
	h.node.mu.Lock()
	h.node.sizeLocked(max(h.node.size, int64(in.Offset)+int64(n)))
	h.node.mu.Unlock()
	if n > 0 {
		return uint32(n), fuse.OK
	}
	return 0, status(err)
}

// Fsync implements fuse.RawFileSystem.
func (fs *FS) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := fs.handle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	return status(h.file.Sync(ctx))
}

// Flush implements fuse.RawFileSystem: nothing is kept back that close(2)
// would have to write.
func (fs *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// Release implements fuse.RawFileSystem.
func (fs *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { fs.release(in.Fh) }

func (fs *FS) release(fh uint64) {
	fs.mu.Lock()
	h := fs.handles[fh]
	delete(fs.handles, fh)
	fs.mu.Unlock()
	if h == nil {
		return
	}
	ctx := context.Background()
	h.file.Close(ctx)
	fs.closed(ctx, h.node)
}
