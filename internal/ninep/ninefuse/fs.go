package ninefuse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"strata/internal/ninep"
)

// The values of Config.Cache.
const (
	CacheVersions = ""      // pages are kept while the qid's version stays
	CacheNone     = "none"  // every read and write goes to the server
	CacheLoose    = "loose" // pages, attributes and names are kept whatever others do
)

// A Config says how a tree is shown. Its zero value is the default.
type Config struct {
	Cache string // CacheVersions, CacheNone or CacheLoose

	// For how long the kernel believes attributes, names, and that there is no
	// such name. Zero is a second for the first two, or an hour with CacheLoose,
	// and not at all for the last. Negative is not at all.
	AttrTime, EntryTime, NegativeTime time.Duration

	// UID and GID, where they are not nil, are whom every file belongs to.
	UID, GID *uint32

	ReadOnly     bool
	AllowOther   bool     // other users too, as the one who attached
	ServerChecks bool     // with AllowOther the kernel checks permissions, unless this is set
	Source       string   // what mount(8) says is mounted
	MountFlags   []string // further options of mount(8), such as "nodev"
	Debug        bool     // every request to standard error
}

// An FS is the tree between the kernel and a client.
type FS struct {
	fuse.RawFileSystem // answers ENOSYS for what is not below

	client  *ninep.Client
	cfg     Config
	linux   bool   // the dialect
	hiding  string // how the names begin that hide gives
	clunker clunker
	server  *fuse.Server // set by Init, before any request

	mu         sync.Mutex // guards the fields below
	nodes      map[uint64]*node
	byQid      map[qidKey]*node
	lastNode   uint64
	handles    map[uint64]*handle
	lastHandle uint64
	lastHidden uint64
}

// qidKey is what tells a file from others. Trees are known that give a
// directory and a file one path.
type qidKey struct {
	path uint64
	kind uint8
}

func keyOf(q ninep.Qid) qidKey { return qidKey{q.Path, q.Type & (ninep.QTDir | ninep.QTSymlink)} }

// A node is a file that the kernel knows.
type node struct {
	id  uint64
	key qidKey

	lookups uint64 // that the kernel has not forgotten; guarded by FS.mu

	mu      sync.Mutex // guards the fields below
	fid     *fid
	size    int64  // as last seen
	plain   bool   // it has had a length, or was made here: nothing that is made up as it is read
	version uint32 // of what the kernel may have pages of
	seen    bool   // version means something
	opens   int    // handles
	holds   int    // hidden ones in this directory
	hidden  *hidden
}

func (n *node) dir() bool { return n.key.kind&ninep.QTDir != 0 }

// sizeLocked notes the file's length. n.mu must be held.
func (n *node) sizeLocked(size int64) {
	n.size = size
	n.plain = n.plain || size > 0
}

// A fid is an unopened file of the client's that several requests may be
// using.
type fid struct {
	*ninep.File
	uses int // with the node's; guarded by node.mu
}

// status returns the errno that the kernel gets for err.
func status(err error) fuse.Status {
	var e *ninep.Error
	switch {
	case err == nil:
		return fuse.OK
	case errors.As(err, &e):
		return fuse.Status(e.Errno)
	case errors.Is(err, context.Canceled):
		return fuse.EINTR
	}
	return fuse.EIO
}

// New returns the tree below root, which it owns from then on. The client's
// Users should be HostUsers.
func New(client *ninep.Client, root *ninep.File, cfg Config) *FS {
	fallback := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
		*d = max(*d, 0)
	}
	keep := time.Second
	if cfg.Cache == CacheLoose {
		keep = time.Hour
	}
	fallback(&cfg.AttrTime, keep)
	fallback(&cfg.EntryTime, keep)
	fallback(&cfg.NegativeTime, 0)
	fs := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		client:        client, cfg: cfg, linux: client.Dialect() == ninep.Linux,
		hiding: fmt.Sprintf(".9pfuse-%016x-", rand.Uint64()),
		nodes:  make(map[uint64]*node), byQid: make(map[qidKey]*node), handles: make(map[uint64]*handle),
		lastNode: fuse.FUSE_ROOT_ID,
	}
	n := &node{id: fuse.FUSE_ROOT_ID, key: keyOf(root.Qid()), lookups: 1, fid: &fid{root, 1}}
	fs.nodes[n.id], fs.byQid[n.key] = n, n
	return fs
}

// String implements fuse.RawFileSystem.
func (fs *FS) String() string { return "9P" }

// Init implements fuse.RawFileSystem.
func (fs *FS) Init(server *fuse.Server) { fs.server = server }

// OnUnmount implements fuse.RawFileSystem: nothing comes after it.
func (fs *FS) OnUnmount() {
	fs.clunker.stop()
	fs.dropAll()
}

// A clunker gives fids back in the background, since the kernel must not wait
// for that. The zero value is ready.
type clunker struct {
	mu      sync.Mutex // guards the fields below
	files   []*ninep.File
	workers int
	stopped bool
}

const clunkers = 4

func (c *clunker) add(f *ninep.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return // they end with the connection
	}
	c.files = append(c.files, f)
	if c.workers < clunkers {
		c.workers++
		go c.work() // ends when there are no more files
	}
}

func (c *clunker) work() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.files) > 0 && !c.stopped {
		f := c.files[0]
		c.files = c.files[1:]
		c.mu.Unlock()
		f.Close(context.Background())
		c.mu.Lock()
	}
	c.workers--
}

func (c *clunker) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
}

// node returns a node that the kernel knows.
func (fs *FS) node(id uint64) *node {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.nodes[id]
}

// use returns the node's unopened file, until done is called.
func (fs *FS) use(id uint64) (n *node, f *ninep.File, done func(), err error) {
	n = fs.node(id)
	if n == nil {
		return nil, nil, nil, ninep.ErrRemoved
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	x := n.fid
	x.uses++
	return n, x.File, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		fs.dropLocked(x)
	}, nil
}

// dropLocked gives up one use of x. Its node's mu must be held.
func (fs *FS) dropLocked(x *fid) {
	if x.uses--; x.uses == 0 {
		fs.clunker.add(x.File)
	}
}

// enter gives the file f, which it takes, a node or finds the one that it has,
// counts one more look-up by the kernel, and describes it.
func (fs *FS) enter(f *ninep.File, a *ninep.Attr, q ninep.Qid, out *fuse.EntryOut) *node {
	key := keyOf(q)
	fs.mu.Lock()
	n := fs.byQid[key]
	if n == nil {
		fs.lastNode++
		n = &node{id: fs.lastNode, key: key}
		fs.nodes[n.id], fs.byQid[key] = n, n
	}
	n.lookups++
	fs.mu.Unlock()

	n.mu.Lock()
	// The newest way to the file is the one that is sure to be right.
	if old := n.fid; old != nil {
		fs.dropLocked(old)
	}
	n.fid = &fid{f, 1}
	n.sizeLocked(int64(a.Size))
	n.mu.Unlock()

	out.NodeId = n.id
	fs.attr(&out.Attr, n, a)
	out.SetEntryTimeout(fs.cfg.EntryTime)
	out.SetAttrTimeout(fs.cfg.AttrTime)
	return n
}

// Forget implements fuse.RawFileSystem.
func (fs *FS) Forget(id, count uint64) {
	fs.mu.Lock()
	n := fs.nodes[id]
	if n == nil || id == fuse.FUSE_ROOT_ID {
		fs.mu.Unlock()
		return
	}
	n.lookups -= min(n.lookups, count)
	gone := n.lookups == 0
	if gone {
		delete(fs.nodes, id)
		if fs.byQid[n.key] == n {
			delete(fs.byQid, n.key)
		}
	}
	fs.mu.Unlock()
	if gone {
		n.mu.Lock()
		defer n.mu.Unlock()
		fs.dropLocked(n.fid)
	}
}

// attr fills in out.
func (fs *FS) attr(out *fuse.Attr, n *node, a *ninep.Attr) {
	*out = fuse.Attr{
		Ino: n.key.path, Size: a.Size, Blocks: a.Blocks, Blksize: uint32(a.Blksize),
		Atime: a.AtimeSec, Atimensec: uint32(a.AtimeNsec),
		Mtime: a.MtimeSec, Mtimensec: uint32(a.MtimeNsec),
		Ctime: a.CtimeSec, Ctimensec: uint32(a.CtimeNsec),
		Mode: a.Mode, Nlink: uint32(a.Nlink), Owner: fuse.Owner{Uid: a.UID, Gid: a.GID},
	}
	dev := ninep.UnpackDevice(a.Rdev, false)
	out.Rdev = dev.Minor&0xff | dev.Major<<8 | dev.Minor&^0xff<<12
	if fs.cfg.UID != nil {
		out.Uid = *fs.cfg.UID
	}
	if fs.cfg.GID != nil {
		out.Gid = *fs.cfg.GID
	}
}

// look walks from dir to name and enters what is there.
func (fs *FS) look(ctx context.Context, dir *ninep.File, name string, out *fuse.EntryOut) (*node, error) {
	f, err := dir.Walk(ctx, name)
	if err != nil {
		return nil, err
	}
	a, q, err := f.Attr(ctx)
	if err != nil {
		fs.clunker.add(f)
		return nil, err
	}
	return fs.enter(f, &a, q, out), nil
}

// Lookup implements fuse.RawFileSystem.
func (fs *FS) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	_, dir, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	if fs.isHidden(name) {
		return fuse.ENOENT
	}
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	_, err = fs.look(ctx, dir, name, out)
	if s := status(err); s != fuse.ENOENT || fs.cfg.NegativeTime == 0 {
		return s
	}
	*out = fuse.EntryOut{}
	out.SetEntryTimeout(fs.cfg.NegativeTime)
	return fuse.OK
}

// GetAttr implements fuse.RawFileSystem.
func (fs *FS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, f, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	return status(fs.stat(ctx, n, f, out))
}

func (fs *FS) stat(ctx context.Context, n *node, f *ninep.File, out *fuse.AttrOut) error {
	a, _, err := f.Attr(ctx)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.sizeLocked(int64(a.Size))
	n.mu.Unlock()
	fs.attr(&out.Attr, n, &a)
	out.SetTimeout(fs.cfg.AttrTime)
	return nil
}

// SetAttr implements fuse.RawFileSystem.
func (fs *FS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	n, f, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	var ch ninep.Change
	if mode, ok := in.GetMode(); ok {
		m := ninep.ModeFromUnix(mode)
		if !fs.linux {
			// What Unix does not know of the mode stays.
			d, err := f.Stat(ctx)
			if err != nil {
				return status(err)
			}
			m |= d.Mode &^ (ninep.ModePerm | ninep.ModeSetuid | ninep.ModeSetgid | ninep.ModeSticky)
		}
		ch.Mode = &m
	}
	users := fs.client.Users()
	if uid, ok := in.GetUID(); ok && fs.cfg.UID == nil {
		name := users.Name(uid)
		ch.UID = &name
	}
	if gid, ok := in.GetGID(); ok && fs.cfg.GID == nil {
		name := users.Name(gid)
		ch.GID = &name
	}
	if size, ok := in.GetSize(); ok {
		length := int64(size)
		ch.Length = &length
	}
	if t, ok := in.GetATime(); ok {
		ch.Atime = &t
	}
	if t, ok := in.GetMTime(); ok {
		ch.Mtime = &t
	}
	if ch != (ninep.Change{}) { // of the ctime alone, or of owners that are not shown
		if err := f.Wstat(ctx, ch); err != nil {
			return status(err)
		}
	}
	return status(fs.stat(ctx, n, f, out))
}

// Readlink implements fuse.RawFileSystem.
func (fs *FS) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	_, f, done, err := fs.use(in.NodeId)
	if err != nil {
		return nil, status(err)
	}
	defer done()
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	target, err := f.Readlink(ctx)
	return []byte(target), status(err)
}

// StatFs implements fuse.RawFileSystem.
func (fs *FS) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	_, f, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	st, err := f.StatFS(ctx)
	if err == nil {
		*out = fuse.StatfsOut{
			Blocks: st.Blocks, Bfree: st.Free, Bavail: st.Available, Files: st.Files, Ffree: st.FilesFree,
			Bsize: st.BlockSize, Frsize: st.BlockSize, NameLen: st.NameLen,
		}
		return fuse.OK
	}
	// The dialect or the server cannot tell.
	if s := status(err); s != fuse.Status(syscall.EOPNOTSUPP) && s != fuse.ENOSYS {
		return s
	}
	*out = fuse.StatfsOut{Bsize: 4096, Frsize: 4096, NameLen: 255}
	return fuse.OK
}
