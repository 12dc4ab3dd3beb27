package vac

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os/user"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
)

// ExtractOptions say what Extract does besides writing files.
type ExtractOptions struct {
	// Update compares files that are there, block by block, with those of the
	// archive, and reads and writes only what differs. Without it they are made
	// anew.
	Update bool
	// Times sets the times of change and access.
	Times bool
	// Resume leaves alone files that have the size and the time of change that the
	// archive has. A run with Times that was interrupted has given that time only
	// to files that are whole.
	Resume bool
	// Owners sets owner, group and all bits of permission. Without it modes go
	// through the umask, and have no set-id bits.
	Owners bool
	// Devices makes devices. Without it they are warned of.
	Devices bool

	// Select chooses files; nil means all.
	Select *Selection

	// Warn is told of what is not restored. Trace is told of each file that is.
	// Progress is told how many bytes of files are done. Calls of the three do not
	// overlap. Each may be nil.
	Warn     func(error)
	Trace    func(*File)
	Progress func(bytes int64)
}

// An ExtractResult says what Extract has done.
type ExtractResult struct {
	Files, Dirs int64
	Failed      int64 // files and directories that are not restored, or not whole
	Read        int64 // bytes of files that were read from the store
	Skipped     int64 // bytes of files that were there already, or are holes
}

// Extract writes the files of a directory of an archive, and all below, into a
// directory of the host, which need not exist.
//
// It does not go outside that directory, whatever the archive says: a name is a
// single element, and a symbolic link is never followed, not even one that was
// there before. What cannot be restored is told of and counted; the rest is
// restored.
func Extract(ctx context.Context, dir *File, into string, opt ExtractOptions) (ExtractResult, error) {
	if err := unix.Mkdir(into, 0o777); err != nil && err != unix.EEXIST {
		return ExtractResult{}, pathError("make", into, err)
	}
	fd, err := openat(unix.AT_FDCWD, into, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return ExtractResult{}, pathError("open", into, err)
	}
	x := &extractor{opt: opt, large: semaphore.NewWeighted(maxLarge), ids: newIDCache()}
	x.work.L = &x.mu
	x.umask = meta.Mode(unix.Umask(0))
	unix.Umask(int(x.umask))
	top := &outDir{file: dir, open: true, top: true}
	top.dir = &openDir{fd: fd}
	top.dir.refs.Store(1)
	top.pending.Store(1)
	x.push(func(ctx context.Context) { x.extractDir(ctx, top, opt.Select == nil) })
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() { x.run(ctx) })
	}
	wg.Wait()
	return x.result, ctx.Err()
}

// maxLarge is how many files that are not small are written at once.
const maxLarge = 3

// An extractor restores one tree. Its workers take tasks from a stack, the
// directory opened last first, so that few are open.
type extractor struct {
	opt   ExtractOptions
	umask meta.Mode
	large *semaphore.Weighted
	ids   *idCache
	bytes atomic.Int64
	bufs  sync.Pool // of *[]byte, smallFile long

	mu    sync.Mutex // guards the fields below
	work  sync.Cond  // tells that tasks or busy have changed
	tasks []func(context.Context)
	busy  int // tasks at work

	told   sync.Mutex // guards result, and calls of the options' functions
	result ExtractResult
}

// push adds tasks, the first of which is done first.
func (x *extractor) push(tasks ...func(context.Context)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := len(tasks) - 1; i >= 0; i-- {
		x.tasks = append(x.tasks, tasks[i])
	}
	x.work.Broadcast()
}

// run does tasks until there are none, and nobody is left to make some.
func (x *extractor) run(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		for len(x.tasks) == 0 && x.busy > 0 {
			x.work.Wait()
		}
		n := len(x.tasks)
		if n == 0 {
			return
		}
		task := x.tasks[n-1]
		x.tasks = x.tasks[:n-1]
		x.busy++
		x.mu.Unlock()
		task(ctx)
		x.mu.Lock()
		if x.busy--; x.busy == 0 {
			x.work.Broadcast()
		}
	}
}

// An outDir is a directory that is being restored.
type outDir struct {
	parent *outDir
	file   *File
	top    bool

	pending atomic.Int64 // files and directories below, and itself while it is read

	mu   sync.Mutex // guards the fields below; taken before that of parent
	open bool
	made bool     // it was not there before
	dir  *openDir // with open and no err
	err  error
}

// enter opens the directory, and those above it, and makes those that are not
// there.
func (x *extractor) enter(d *outDir) (*openDir, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open {
		return d.dir, d.err
	}
	d.open = true
	up, err := x.enter(d.parent)
	if err != nil {
		d.err = err
		return nil, err
	}
	err = unix.Mkdirat(up.fd, d.file.Name, uint32(0o700|d.file.Mode&meta.ModePerm))
	d.made = err == nil
	var fd int
	if err == nil || err == unix.EEXIST {
		fd, err = openat(up.fd, d.file.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	}
	if err != nil {
		d.err = pathError("make", d.file.Path(), err)
		return nil, d.err
	}
	d.dir = &openDir{fd: fd}
	d.dir.refs.Store(1)
	return d.dir, nil
}

// leave takes note that something in d is done. With the last, d is.
func (x *extractor) leave(d *outDir) {
	for ; d != nil && d.pending.Add(-1) == 0; d = d.parent {
		if d.dir == nil {
			continue
		}
		if !d.top {
			if err := x.setDir(d); err != nil {
				x.fail(pathError("set", d.file.Path(), err))
			}
		}
		d.dir.release()
	}
}

// setDir gives a directory its mode, owner and times.
func (x *extractor) setDir(d *outDir) error {
	return x.set(d.dir.fd, d.file, d.made || x.opt.Owners)
}

// set gives an open file its owner, mode and times.
func (x *extractor) set(fd int, f *File, mode bool) error {
	if x.opt.Owners {
		uid, gid := x.ids.user(f.UID), x.ids.group(f.GID)
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return fmt.Errorf("owner %s, group %s: %w", f.UID, f.GID, err)
		}
	}
	if mode {
		if err := unix.Fchmod(fd, x.mode(f)); err != nil {
			return err
		}
	}
	if x.opt.Times || x.opt.Resume {
		ts := []unix.Timeval{{Sec: int64(f.Atime)}, {Sec: int64(f.Mtime)}}
		return unix.Futimes(fd, ts)
	}
	return nil
}

// mode returns the bits of permission that a file gets.
func (x *extractor) mode(f *File) uint32 {
	m := uint32(f.Mode & meta.ModePerm)
	if !x.opt.Owners {
		return m &^ uint32(x.umask)
	}
	for _, bit := range []struct {
		mode meta.Mode
		host uint32
	}{{meta.ModeSticky, unix.S_ISVTX}, {meta.ModeSetuid, unix.S_ISUID}, {meta.ModeSetgid, unix.S_ISGID}} {
		if f.Mode&bit.mode != 0 {
			m |= bit.host
		}
	}
	return m
}

// extractDir restores what a directory holds. all says that it was selected,
// and with it what lies below.
func (x *extractor) extractDir(ctx context.Context, d *outDir, all bool) {
	defer x.leave(d)
	if all && !d.top {
		if _, err := x.enter(d); err != nil {
			x.fail(err)
			return
		}
		x.done(d.file)
	}
	var tasks []func(context.Context)
	for f, err := range d.file.ReadDir(ctx) {
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			x.fail(err)
			continue
		}
		selected := all || x.opt.Select.Match(f.Path())
		if f.IsDir() && (selected || x.opt.Select.Below(f.Path())) {
			d.pending.Add(1)
			sub := &outDir{parent: d, file: f}
			sub.pending.Store(1)
			tasks = append(tasks, func(ctx context.Context) { x.extractDir(ctx, sub, selected) })
		} else if !f.IsDir() && selected {
			d.pending.Add(1)
			tasks = append(tasks, func(ctx context.Context) { x.extract(ctx, d, f) })
		}
	}
	x.push(tasks...)
}

// extract restores a file that is no directory.
func (x *extractor) extract(ctx context.Context, d *outDir, f *File) {
	defer x.leave(d)
	if ctx.Err() != nil {
		return
	}
	dir, err := x.enter(d)
	if err == nil {
		switch {
		case f.Mode.IsRegular():
			err = x.extractFile(ctx, dir.fd, f)
		default:
			err = x.extractSpecial(ctx, dir.fd, f)
		}
		if err != nil && ctx.Err() == nil {
			err = pathError("restore", f.Path(), err)
		}
	}
	switch {
	case err == nil:
		x.done(f)
	case ctx.Err() == nil:
		x.fail(err)
	}
}

func (x *extractor) extractFile(ctx context.Context, dir int, f *File) error {
	var st unix.Stat_t
	exists := unix.Fstatat(dir, f.Name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	regular := exists && st.Mode&unix.S_IFMT == unix.S_IFREG
	if x.opt.Resume && regular && st.Size == f.Size() && st.Mtim.Sec == int64(f.Mtime) && st.Mtim.Nsec == 0 {
		x.account(0, f.Size())
		return nil
	}
	if x.opt.Update && regular {
		return x.update(ctx, dir, f)
	}
	if exists {
		if err := unix.Unlinkat(dir, f.Name, 0); err != nil {
			return err
		}
	}
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, f.Name, flags, 0o600)
	if err != nil {
		return err
	}
	out := outFile(fd)
	err = x.fill(ctx, out, f)
	if err == nil {
		err = x.set(fd, f, true)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err != nil { // half a file must not be taken for a whole one
		unix.Unlinkat(dir, f.Name, 0)
	}
	return err
}

// An outFile is an open file of the host that is written. Its writes may be
// at once.
type outFile int

// WriteAt implements io.WriterAt.
func (f outFile) WriteAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pwrite(int(f), p[n:], off+int64(n))
		if err != nil && err != unix.EINTR {
			return n, err
		}
		n += max(m, 0)
	}
	return n, nil
}

// fill writes the contents of f into an empty file, and leaves holes where it
// can.
func (x *extractor) fill(ctx context.Context, out outFile, f *File) error {
	size := f.Size()
	if size > smallFile {
		if err := x.large.Acquire(ctx, 1); err != nil {
			return err
		}
		defer x.large.Release(1)
	}
	r, err := hashtree.NewReader(f.archive.br, f.data, hashtree.ReaderConfig{})
	if err != nil {
		return err
	}
	if size > smallFile {
		if err := unix.Ftruncate(int(out), size); err != nil {
			return err
		}
		var told int64
		written, err := r.Export(ctx, out, func(done int64) { x.progress(done - told); told = done })
		x.progress(-told) // account tells the rest
		if err != nil {
			return err
		}
		x.account(written, size-written)
		return nil
	}
	buf, _ := x.bufs.Get().(*[]byte)
	if buf == nil {
		b := make([]byte, smallFile)
		buf = &b
	}
	defer x.bufs.Put(buf)
	b := (*buf)[:size]
	if _, err := r.ReadAtContext(ctx, b, 0); err != nil && err != io.EOF {
		return err
	}
	written, err := writeSparse(out, b, f.data.DSize)
	if err != nil {
		return err
	}
	x.account(written, size-written)
	return nil
}

// writeSparse writes b at the beginning of an empty file, but for blocks of
// zeros.
func writeSparse(out outFile, b []byte, block int) (written int64, err error) {
	end := 0 // of the file
	for from := 0; from < len(b); {
		to := from
		for to < len(b) && len(venti.Truncate(venti.DataType, b[to:min(to+block, len(b))])) > 0 {
			to = min(to+block, len(b))
		}
		if to == from {
			from = min(from+block, len(b))
			continue
		}
		if _, err := out.WriteAt(b[from:to], int64(from)); err != nil {
			return written, err
		}
		written += int64(to - from)
		from, end = to, to
	}
	if end < len(b) {
		err = unix.Ftruncate(int(out), int64(len(b)))
	}
	return written, err
}

// update makes a file that is there equal to f.
func (x *extractor) update(ctx context.Context, dir int, f *File) error {
	fd, err := openat(dir, f.Name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	err = x.updateOpen(ctx, fd, f)
	if err == nil {
		err = x.set(fd, f, x.opt.Owners)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	return err
}

func (x *extractor) updateOpen(ctx context.Context, fd int, f *File) error {
	if err := x.large.Acquire(ctx, 1); err != nil {
		return err
	}
	defer x.large.Release(1)
	r, err := hashtree.NewReader(f.archive.br, f.data, hashtree.ReaderConfig{})
	if err != nil {
		return err
	}
	size, ds := r.Size(), int64(f.data.DSize)
	if err := unix.Ftruncate(fd, size); err != nil {
		return err
	}
	in, out := &hostFile{fd: fd}, outFile(fd)
	buf := make([]byte, max(smallFile/ds, 1)*ds)
	var read, skipped int64
	for off := int64(0); off < size; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), size-off)]
		if _, err := in.ReadAt(b, off); err != nil {
			return err
		}
		// Runs of leaves that differ are read at once.
		var from, to int64 // of the run, in b
		flush := func() error {
			if from == to {
				return nil
			}
			if _, err := r.ReadAtContext(ctx, b[from:to], off+from); err != nil && err != io.EOF {
				return err
			}
			_, err := out.WriteAt(b[from:to], off+from)
			read += to - from
			return err
		}
		for i := int64(0); i < int64(len(b)); i += ds {
			end := min(i+ds, int64(len(b)))
			want, err := r.LeafScore(ctx, (off+i)/ds)
			if err != nil {
				return err
			}
			if venti.ScoreOf(venti.Truncate(venti.DataType, b[i:end])) == want {
				skipped += end - i
				continue
			}
			if to != i {
				if err := flush(); err != nil {
					return err
				}
				from = i
			}
			to = end
		}
		if err := flush(); err != nil {
			return err
		}
	}
	x.account(read, skipped)
	return nil
}

// errIgnored is why something is not made that could be.
var errIgnored = errors.New("devices are made only on request")

// extractSpecial restores a link, device or pipe.
func (x *extractor) extractSpecial(ctx context.Context, dir int, f *File) error {
	var make func() error
	switch {
	case f.Mode&meta.ModeLink != 0:
		target, err := f.Link(ctx)
		if err != nil {
			return err
		}
		make = func() error { return unix.Symlinkat(target, dir, f.Name) }
	case f.Mode&meta.ModePipe != 0:
		make = func() error { return unix.Mknodat(dir, f.Name, unix.S_IFIFO|uint32(f.Mode&meta.ModePerm), 0) }
	default:
		if !x.opt.Devices {
			return errIgnored
		}
		dev, err := f.Device(ctx)
		if err != nil {
			return err
		}
		kind := uint32(unix.S_IFCHR)
		if dev.Block {
			kind = unix.S_IFBLK
		}
		make = func() error {
			return unix.Mknodat(dir, f.Name, kind|uint32(f.Mode&meta.ModePerm), int(unix.Mkdev(dev.Major, dev.Minor)))
		}
	}
	err := make()
	if err == unix.EEXIST {
		if err = unix.Unlinkat(dir, f.Name, 0); err == nil {
			err = make()
		}
	}
	if err != nil {
		return err
	}
	x.account(0, f.Size())
	return x.setAt(dir, f)
}

// setAt is set for a file that is not open: it must not be.
func (x *extractor) setAt(dir int, f *File) error {
	if x.opt.Owners {
		if err := unix.Fchownat(dir, f.Name, x.ids.user(f.UID), x.ids.group(f.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("owner %s, group %s: %w", f.UID, f.GID, err)
		}
	}
	if f.Mode&meta.ModeLink == 0 && x.opt.Owners {
		// Linux before 6.6 cannot: then the umask stays in force.
		if err := unix.Fchmodat(dir, f.Name, x.mode(f), unix.AT_SYMLINK_NOFOLLOW); err != nil && err != unix.EOPNOTSUPP {
			return err
		}
	}
	if x.opt.Times || x.opt.Resume {
		ts := []unix.Timespec{{Sec: int64(f.Atime)}, {Sec: int64(f.Mtime)}}
		return unix.UtimesNanoAt(dir, f.Name, ts, unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

func (x *extractor) fail(err error) {
	x.told.Lock()
	defer x.told.Unlock()
	x.result.Failed++
	if x.opt.Warn != nil {
		x.opt.Warn(err)
	}
}

// done takes note of a file that is restored.
func (x *extractor) done(f *File) {
	x.told.Lock()
	defer x.told.Unlock()
	if f.IsDir() {
		x.result.Dirs++
	} else {
		x.result.Files++
	}
	if x.opt.Trace != nil {
		x.opt.Trace(f)
	}
}

// account takes note of bytes that were read, and others that were not.
func (x *extractor) account(read, skipped int64) {
	x.told.Lock()
	x.result.Read += read
	x.result.Skipped += skipped
	x.told.Unlock()
	x.progress(read + skipped)
}

func (x *extractor) progress(n int64) {
	done := x.bytes.Add(n)
	if x.opt.Progress == nil {
		return
	}
	x.told.Lock()
	defer x.told.Unlock()
	x.opt.Progress(done)
}

// An idCache finds the numbers of users and groups. Its methods may be called
// at once.
type idCache struct {
	mu            sync.Mutex // guards the maps
	users, groups map[string]int
}

func newIDCache() *idCache { return &idCache{users: map[string]int{}, groups: map[string]int{}} }

// user returns the number of a user, or -1, which means not to change it.
func (c *idCache) user(name string) int {
	return c.find(c.users, name, func() (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

// group returns the number of a group, or -1.
func (c *idCache) group(name string) int {
	return c.find(c.groups, name, func() (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

func (c *idCache) find(m map[string]int, name string, lookup func() (string, error)) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := m[name]
	if !ok {
		text, err := lookup()
		if err != nil {
			text = name // a number, perhaps
		}
		n, err := strconv.ParseUint(text, 10, 32)
		if id = int(n); err != nil || n == math.MaxUint32 {
			id = -1
		}
		m[name] = id
	}
	return id
}
