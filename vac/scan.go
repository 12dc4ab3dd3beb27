package vac

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
)

const (
	// maxAhead is how many directories, in all, are read before their turn.
	maxAhead = 32
	// aheadOf is how many of those lie in one directory.
	aheadOf = 8
	// statShare is how many files of a directory are looked at by one goroutine.
	statShare = 256
	// maxTries is how often a file that becomes shorter is read again.
	maxTries = 4
)

// A dirNode is a directory on its way into the archive.
type dirNode struct {
	parent *dirNode // nil at the top
	self   *child
	old    *File // the same directory in the older archive, or nil

	// Owned by the goroutine that goes through the directories, until pending is
	// 0, and then by the one that finishes it.
	children []*child
	names    map[string]bool  // of children, where two could be the same
	oldNames map[string]*File // what old holds

	pending atomic.Int64 // children at work, and one while there may be more
}

// An openDir is a directory of the host. It is closed when nobody needs it.
type openDir struct {
	fd   int
	refs atomic.Int64
}

func (d *openDir) hold() { d.refs.Add(1) }

func (d *openDir) release() {
	if d.refs.Add(-1) == 0 && d.fd >= 0 {
		unix.Close(d.fd)
	}
}

// A listing is what a directory of the host holds.
type listing struct {
	done chan struct{} // closed when the fields below are set
	dir  *openDir      // held; nil with err
	err  error

	names    []string // in order
	stats    []unix.Stat_t
	errs     []error
	excluded []bool
	old      map[string]*File // what the older archive has there
	xattrs   bool

	early bool // has a place in archiver.ahead
}

// list reads the directory called at in dir.
func (a *archiver) list(ctx context.Context, dir *openDir, at, path string, old *File) *listing {
	l := &listing{done: make(chan struct{})}
	a.fill(ctx, l, dir, at, path, old)
	return l
}

// listAhead is list that does not wait, or nil if too many are under way.
func (a *archiver) listAhead(ctx context.Context, dir *openDir, at, path string, old *File) *listing {
	select {
	case a.ahead <- struct{}{}:
	default:
		return nil
	}
	l := &listing{done: make(chan struct{}), early: true}
	dir.hold()
	go func() { // scan waits for it
		defer dir.release()
		a.fill(ctx, l, dir, at, path, old)
	}()
	return l
}

func (a *archiver) fill(ctx context.Context, l *listing, dir *openDir, at, path string, old *File) {
	defer close(l.done)
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := openat(dir.fd, at, flags|unix.O_NOATIME)
	if err == unix.EPERM {
		fd, err = openat(dir.fd, at, flags)
	}
	if err != nil {
		l.err = pathError("open", path, err)
		return
	}
	if l.names, err = readNames(fd); err != nil {
		unix.Close(fd)
		l.err = pathError("read", path, err)
		return
	}
	slices.Sort(l.names)
	n, _ := unix.Flistxattr(fd, nil)
	l.xattrs = n > 0
	l.dir = &openDir{fd: fd}
	l.dir.refs.Store(1)
	l.stats = make([]unix.Stat_t, len(l.names))
	l.errs = make([]error, len(l.names))
	l.excluded = make([]bool, len(l.names))
	var wg sync.WaitGroup
	for from := 0; from < len(l.names); from += statShare {
		look := func() {
			for i := from; i < min(from+statShare, len(l.names)); i++ {
				if len(a.opt.Filter.rules) > 0 && a.opt.Filter.Excludes(join(path, l.names[i])) {
					l.excluded[i] = true
					continue
				}
				l.errs[i] = unix.Fstatat(fd, l.names[i], &l.stats[i], unix.AT_SYMLINK_NOFOLLOW)
			}
		}
		if from+statShare >= len(l.names) {
			look()
		} else {
			wg.Go(look)
		}
	}
	l.old = a.oldNames(ctx, old)
	wg.Wait()
}

// readNames returns the names in an open directory.
func readNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// oldNames returns the files of a directory of the older archive.
func (a *archiver) oldNames(ctx context.Context, dir *File) map[string]*File {
	if dir == nil {
		return nil
	}
	m := map[string]*File{}
	for f, err := range dir.ReadDir(ctx) {
		if err == nil {
			m[f.Name] = f
		} else if ctx.Err() == nil {
			a.warn(fmt.Errorf("older archive: %w", err))
		}
	}
	return m
}

// join appends a name to the path of a directory.
func join(dir, name string) string {
	switch {
	case dir == ".":
		return name
	case strings.HasSuffix(dir, "/"):
		return dir + name
	}
	return dir + "/" + name
}

// scan adds what is in a directory of the host to n. It owns l.
func (a *archiver) scan(ctx context.Context, n *dirNode, l *listing, path string) error {
	<-l.done
	if l.early {
		<-a.ahead
	}
	if l.err != nil {
		a.fail(l.err)
		return nil
	}
	defer l.dir.release()
	n.oldNames = l.old
	if n.parent != nil && l.xattrs {
		a.lost(func(l *Lost) { l.Xattrs++ })
	}
	early := map[int]*listing{}
	defer func() { // after an error
		for _, l := range early {
			<-l.done
			<-a.ahead
			if l.dir != nil {
				l.dir.release()
			}
		}
	}()
	next := 0 // where to look for directories to read ahead
	for i, name := range l.names {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		for next = max(next, i); next < len(l.names) && len(early) < aheadOf && next < i+statShare; next++ {
			if l.errs[next] != nil || l.excluded[next] || l.stats[next].Mode&unix.S_IFMT != unix.S_IFDIR {
				continue
			}
			e := a.listAhead(ctx, l.dir, l.names[next], join(path, l.names[next]), oldDir(l.old[l.names[next]]))
			if e == nil {
				break
			}
			early[next] = e
		}
		it := item{dir: l.dir, at: name, name: name, path: join(path, name), st: &l.stats[i], err: l.errs[i],
			excluded: l.excluded[i], old: l.old[name], list: early[i]}
		delete(early, i)
		if err := a.add(ctx, n, it); err != nil {
			return err
		}
	}
	return nil
}

// oldDir returns f if it is a directory.
func oldDir(f *File) *File {
	if f != nil && f.IsDir() {
		return f
	}
	return nil
}

// An item is a file of the host that is to be stored.
type item struct {
	dir      *openDir
	at       string // its name in dir
	name     string // its name in the archive
	path     string // what it is called
	st       *unix.Stat_t
	err      error // of looking at it
	excluded bool
	old      *File    // what the older archive has in its place, or nil
	list     *listing // of a directory, if it is being read already
}

// add stores a file, or has it stored, as a child of n.
func (a *archiver) add(ctx context.Context, n *dirNode, it item) error {
	suffix := ""
	if it.err == nil && it.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		suffix = "/"
	}
	if it.excluded || len(a.opt.Filter.rules) > 0 && a.opt.Filter.Excludes(it.path) {
		a.warn(fmt.Errorf("excluding %s%s", it.path, suffix))
		return nil
	}
	if it.err != nil {
		// A name that an argument gives must be there.
		if it.err == unix.ENOENT && it.dir.fd >= 0 {
			a.changed(pathError("open", it.path, it.err))
		} else {
			a.fail(pathError("open", it.path, it.err))
		}
		return nil
	}
	mode, ok := modeOf(it.st)
	if !ok {
		a.lost(func(l *Lost) { l.Sockets++ })
		a.warn(fmt.Errorf("%s: sockets are not stored", it.path))
		return nil
	}
	if a.opt.Merge && mode.IsRegular() && strings.HasSuffix(it.name, ".vac") {
		if merged, err := a.merge(ctx, n, &it); merged || err != nil {
			return err
		}
	}
	if n.names != nil {
		if n.names[it.name] {
			a.fail(fmt.Errorf("%s: file already exists", it.path))
			return a.drop(it.list)
		}
		n.names[it.name] = true
	}
	if a.opt.Plan9port {
		mode &^= meta.ModeSetuid | meta.ModeSetgid | meta.ModeSticky
	}
	c := a.newChild(it.name, mode)
	a.describe(c, it.st)
	n.children = append(n.children, c)
	if it.st.Nlink > 1 && !mode.IsDir() {
		a.lost(func(l *Lost) { l.Links++ })
	}
	switch {
	case mode.IsDir():
		a.trace(it.path + "/")
		return a.addDir(ctx, n, c, it)
	case mode.IsRegular() && a.opt.Quick && a.unchanged(it.old, it.st):
		c.data = it.old.data
		c.data.Gen = 0
		a.mu.Lock()
		a.result.Files++
		a.result.Skipped++
		a.result.Known += c.data.Size
		a.mu.Unlock()
		return nil
	}
	if a.opt.Quick {
		a.trace("+" + it.path)
	} else {
		a.trace(it.path)
	}
	n.pending.Add(1)
	it.dir.hold()
	job := func(ctx context.Context) error {
		defer it.dir.release()
		store := a.storeFile
		if !mode.IsRegular() {
			store = a.storeSpecial
		}
		ok, err := store(ctx, c, &it)
		if err != nil {
			return err
		}
		if !ok {
			c.data.Flags = 0 // childDone leaves it out
		}
		return a.childDone(ctx, n, nil)
	}
	select {
	case a.jobs <- job:
		return nil
	case <-ctx.Done():
		it.dir.release()
		return context.Cause(ctx)
	}
}

// drop waits for a listing that nobody wants.
func (a *archiver) drop(l *listing) error {
	if l != nil {
		<-l.done
		<-a.ahead
		if l.dir != nil {
			l.dir.release()
		}
	}
	return nil
}

// describe puts what the host says of a file into its entry.
func (a *archiver) describe(c *child, st *unix.Stat_t) {
	e := &c.entry
	e.UID, e.GID = a.ids.user(st.Uid), a.ids.group(st.Gid)
	a.setTimes(c, st)
}

// setTimes puts the times and the identity of a file into its entry.
func (a *archiver) setTimes(c *child, st *unix.Stat_t) {
	e := &c.entry
	e.Mtime, e.Atime = seconds(st.Mtim.Sec), seconds(st.Atim.Sec)
	if !a.opt.Plan9port {
		if e.Mode&meta.ModeLink != 0 {
			e.Atime = e.Mtime // reading a link, as we do, changes the time
		}
		e.Ctime = seconds(st.Ctim.Sec)
		e.Plan9, e.Plan9Path, e.Plan9Version = true, st.Ino, uint32(st.Ctim.Nsec)
	}
}

// unchanged tells whether a file is taken to be what it was: see
// Options.Quick.
func (a *archiver) unchanged(old *File, st *unix.Stat_t) bool {
	switch {
	case old == nil || !old.Mode.IsRegular() || old.data.Size != st.Size || old.Mtime != seconds(st.Mtim.Sec):
		return false
	case old.Plan9:
		return old.Plan9Path == st.Ino && old.Plan9Version == uint32(st.Ctim.Nsec) && old.Ctime == seconds(st.Ctim.Sec)
	}
	return seconds(st.Ctim.Sec) < old.Ctime
}

// addDir goes through a directory.
func (a *archiver) addDir(ctx context.Context, n *dirNode, c *child, it item) error {
	a.mu.Lock()
	a.result.Dirs++
	a.mu.Unlock()
	dir := &dirNode{parent: n, self: c, old: oldDir(it.old)}
	if a.opt.Merge {
		dir.names = map[string]bool{}
	}
	n.pending.Add(1)
	dir.pending.Add(1)
	l := it.list
	if l == nil {
		l = a.list(ctx, it.dir, it.at, it.path, dir.old)
	}
	if err := a.scan(ctx, dir, l, it.path); err != nil {
		return err
	}
	// The workers may have ended it already. If it is left to this goroutine, they
	// have time.
	return a.childDone(ctx, dir, a.jobs)
}

// childDone takes note that a child of n needs no more work. If it was the
// last one the directory is stored, here or by way of jobs.
func (a *archiver) childDone(ctx context.Context, n *dirNode, jobs chan<- func(context.Context) error) error {
	if n.pending.Add(-1) > 0 {
		return nil
	}
	if jobs == nil {
		return a.finish(ctx, n)
	}
	select {
	case jobs <- func(ctx context.Context) error { return a.finish(ctx, n) }:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finish stores a directory whose children are stored, and those above that
// this was the last of.
func (a *archiver) finish(ctx context.Context, n *dirNode) error {
	d := dirContents{owner: n.self.entry, children: slices.DeleteFunc(n.children, func(c *child) bool { return !c.data.Active() })}
	if n.old != nil {
		d.oldData, d.oldMeta = &n.old.data, &n.old.meta
	}
	if n.unchanged(d.children) {
		n.self.data, n.self.meta = n.old.data, n.old.meta
		n.self.data.Gen, n.self.meta.Gen = 0, 0
	} else {
		var err error
		if n.self.data, n.self.meta, err = a.w.dir(ctx, &d); err != nil {
			return pathError("store directory", n.self.entry.Name, err)
		}
	}
	n.children, n.oldNames = nil, nil
	if n.parent == nil {
		return nil
	}
	return a.childDone(ctx, n.parent, nil)
}

// unchanged tells whether the older archive's directory holds just these
// children, in the same slots.
func (n *dirNode) unchanged(children []*child) bool {
	if n.old == nil || len(children) != len(n.oldNames) {
		return false
	}
	slot := uint32(0)
	for _, c := range children {
		old := n.oldNames[c.entry.Name]
		e := c.entry
		e.Entry, e.MEntry = slot, slot+1
		if slot++; e.Mode.IsDir() {
			slot++
		}
		if e.Plan9 && e.Mcount == 0 {
			e.Mcount = e.Plan9Version // as it is read
		}
		if old == nil || e != old.DirEntry || c.data != old.data || c.meta != old.meta {
			return false
		}
	}
	return true
}

// lost takes note of something that the format has no place for.
func (a *archiver) lost(f func(*Lost)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.result.Lost)
}

// storeFile stores a regular file. ok is false if it cannot be read; an error
// is the store's.
func (a *archiver) storeFile(ctx context.Context, c *child, it *item) (ok bool, err error) {
	var old *venti.Entry
	if it.old != nil && it.old.Mode.IsRegular() {
		old = &it.old.data
	}
	share := min(it.st.Size, maxShare)
	if err := a.budget.Acquire(ctx, share); err != nil {
		return false, context.Cause(ctx)
	}
	defer a.budget.Release(share)
	for try := 1; ; try++ {
		f, st, err := openHost(it.dir.fd, it.at)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
			a.changed(pathError("open", it.path, unix.ENOENT))
			return false, nil
		}
		if err != nil {
			a.fail(pathError("open", it.path, err))
			return false, nil
		}
		ok, again, err := a.storeOpen(ctx, c, it, f, &st, old, try)
		f.close()
		if !again || err != nil {
			return ok, err
		}
	}
}

// storeOpen stores a file that is open. again says that it has become shorter
// meanwhile.
func (a *archiver) storeOpen(ctx context.Context, c *child, it *item, f *hostFile, st *unix.Stat_t, old *venti.Entry, try int) (ok, again bool, err error) {
	a.setTimes(c, st)
	var told int64
	var progress func(int64)
	if st.Size > maxShare {
		progress = func(done int64) { a.progress(done - told); told = done }
	}
	var stats hashtree.Stats
	c.data, stats, err = a.w.file(ctx, f.source(st), st.Size, old, progress)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return false, false, context.Cause(ctx)
	case f.err.Load() != nil:
		a.fail(pathError("read", it.path, *f.err.Load()))
		return false, false, nil
	case f.short.Load() && try < maxTries:
		a.progress(-told)
		return false, true, nil
	case f.short.Load() && f.sized(st):
		// It is as long as ever, but ends before: a file of the system's own.
		if c.data, stats, err = a.w.stream(ctx, io.NewSectionReader(f, 0, math.MaxInt64), old); err != nil {
			return false, false, pathError("store", it.path, err)
		}
		a.progress(c.data.Size)
		a.count(stats)
		return true, false, nil
	case f.short.Load():
		a.fail(fmt.Errorf("%s: becomes shorter and shorter", it.path))
		return false, false, nil
	default:
		return false, false, pathError("store", it.path, err)
	}
	a.progress(st.Size - told)
	a.count(stats)
	var now unix.Stat_t
	if err := unix.Fstat(f.fd, &now); err == nil && (try > 1 || !sameTimes(st, &now)) {
		a.changed(fmt.Errorf("%s: changed while it was read", it.path))
	}
	n, _ := unix.Flistxattr(f.fd, nil)
	if n > 0 || st.Mtim.Nsec != 0 {
		a.lost(func(l *Lost) {
			if n > 0 {
				l.Xattrs++
			}
			if st.Mtim.Nsec != 0 {
				l.Fractions++
			}
		})
	}
	return true, false, nil
}

// storeSpecial stores a link, device or pipe.
func (a *archiver) storeSpecial(ctx context.Context, c *child, it *item) (ok bool, err error) {
	b, err := contents(it.dir.fd, it.at, it.st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		a.changed(pathError("read link", it.path, unix.ENOENT))
		return false, nil
	}
	if err != nil {
		a.fail(pathError("read link", it.path, err))
		return false, nil
	}
	var old *venti.Entry
	if it.old != nil && it.old.Mode&(meta.ModeLink|meta.ModeDevice) != 0 {
		old = &it.old.data
	}
	var stats hashtree.Stats
	if c.data, stats, err = a.w.file(ctx, strings.NewReader(string(b)), int64(len(b)), old, nil); err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, pathError("store", it.path, err)
	}
	a.count(stats)
	return true, nil
}

// maxScoreFile bounds the files that merge looks into.
const maxScoreFile = 4096

// merge adds what the archive named by a file holds, or tells that it names
// none.
func (a *archiver) merge(ctx context.Context, n *dirNode, it *item) (merged bool, err error) {
	if it.st.Size > maxScoreFile {
		return false, nil
	}
	// The path, not it.at: this is not the time for races.
	score, err := FindScore(it.path)
	if err != nil {
		return false, nil
	}
	m, err := Open(ctx, a.w.st, score)
	if err != nil {
		if ctx.Err() == nil {
			a.warn(fmt.Errorf("%s: stored as it is: %w", it.path, err))
		}
		return false, ctx.Err()
	}
	a.trace("merging " + it.path)
	limit, err := nextQid(ctx, m.Root)
	if err != nil {
		return false, fmt.Errorf("merge %s: %w", it.path, err)
	}
	for f, err := range m.Root.ReadDir(ctx) {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if err != nil {
			a.fail(fmt.Errorf("merge %s: %w", it.path, err))
			continue
		}
		if n.names[f.Name] {
			a.fail(fmt.Errorf("merge %s: %s: file already exists", it.path, f.Name))
			continue
		}
		n.names[f.Name] = true
		c := &child{entry: f.DirEntry, data: f.data, meta: f.meta}
		c.entry.Gen, c.entry.MGen = 0, 0
		c.data.Gen, c.meta.Gen = 0, 0
		c.entry.QidSpace = true
		c.entry.QidOffset = a.qid + f.qidOffset
		c.entry.QidMax = limit - min(f.qidOffset, limit)
		n.children = append(n.children, c)
	}
	a.qid += limit
	return true, nil
}

// nextQid returns a number above all full qids at and below a directory.
func nextQid(ctx context.Context, dir *File) (uint64, error) {
	if dir.QidSpace {
		return max(dir.FullQid()+1, dir.qidOffset+dir.QidMax), nil
	}
	next := dir.FullQid() + 1
	for f, err := range dir.ReadDir(ctx) {
		if err != nil {
			return 0, err
		}
		n := f.FullQid() + 1
		switch {
		case f.IsDir():
			if n, err = nextQid(ctx, f); err != nil {
				return 0, err
			}
		case f.QidSpace:
			n = max(n, f.qidOffset+f.QidMax)
		}
		next = max(next, n)
	}
	return next, nil
}
