package ninep

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A File is a fid. It is open after Open or Create, and is given back by
// Close or Remove. Its methods may be called at once, but for Open, Create,
// Rename and Wstat, which change what it is.
type File struct {
	c    *Client
	fid  uint32
	gone atomic.Bool
	link atomic.Pointer[link] // on which the server knows the fid

	qid    Qid
	name   string
	way    *way // how to find it again; nil is not at all
	opened bool
	mode   OpenMode
	iounit uint32

	unsynced atomic.Bool // written to since the last Sync
	dropped  atomic.Bool // a connection was lost while it was unsynced

	finding sync.Mutex // held while it is found again: all who need it wait for that
}

// A way leads to a file from the root of a tree. It does not change.
type way struct {
	user, aname string
	names       []string
}

// to returns the way on from w.
func (w *way) to(names ...string) *way {
	if w == nil {
		return nil
	}
	next := &way{w.user, w.aname, slices.Clip(slices.Clone(w.names))}
	for _, name := range names {
		switch n := len(next.names); {
		case name != "..":
			next.names = append(next.names, name)
		case n > 0:
			next.names = next.names[:n-1]
		}
	}
	return next
}

func (c *Client) newFile(l *link) *File {
	f := &File{c: c, fid: c.NewFid()}
	f.link.Store(l)
	return f
}

// Attach returns the root of the tree aname.
func (c *Client) Attach(ctx context.Context, user, aname string) (*File, error) {
	for try := 1; ; try++ {
		l, err := c.current(ctx)
		if err != nil {
			return nil, fmt.Errorf("attach %s: %w", aname, err)
		}
		f := c.newFile(l)
		f.name, f.way = "/", &way{user: user, aname: aname}
		req := c.attach(f.fid, f.way)
		rep, err := l.call(ctx, req)
		if err == nil {
			f.qid = rep.Qid
			return f, nil
		}
		c.FreeFid(f.fid)
		if !c.again(try, req, err) {
			return nil, fmt.Errorf("attach %s: %w", aname, err)
		}
	}
}

func (c *Client) attach(fid uint32, w *way) *Fcall {
	uid := NoUID
	if c.cfg.Users != nil {
		uid = c.cfg.Users.ID(w.user)
	}
	return &Fcall{Type: Tattach, Fid: fid, Afid: NoFid, Uname: w.user, Aname: w.aname, UID: uid}
}

// use returns the link to send requests about f on. If that is another than
// before, f is found again first.
func (f *File) use(ctx context.Context) (*link, error) {
	l, err := f.c.current(ctx)
	if err != nil || f.link.Load() == l {
		return l, err
	}
	f.finding.Lock()
	defer f.finding.Unlock()
	if f.link.Load() == l {
		return l, nil
	}
	if err := f.find(ctx, l); err != nil {
		return nil, fmt.Errorf("find again: %w", err)
	}
	f.link.Store(l)
	if f.unsynced.Swap(false) {
		f.dropped.Store(true)
	}
	return l, nil
}

// find makes the server at the other end of l know the fid as before.
func (f *File) find(ctx context.Context, l *link) error {
	if f.way == nil {
		return ErrFid
	}
	root := f.c.NewFid()
	defer f.c.FreeFid(root)
	if _, err := l.call(ctx, f.c.attach(root, f.way)); err != nil {
		return err
	}
	bg := context.WithoutCancel(ctx)
	qid, err := l.walk(ctx, root, f.fid, f.way.names)
	l.call(bg, &Fcall{Type: Tclunk, Fid: root})
	if err != nil {
		return err
	}
	if len(f.way.names) > 0 && (qid.Path != f.qid.Path || qid.Type != f.qid.Type) {
		err = ErrRemoved
	} else if f.opened {
		_, err = l.call(ctx, f.openCall(f.mode&^OTRUNC))
	}
	if err != nil {
		l.call(bg, &Fcall{Type: Tclunk, Fid: f.fid})
	}
	return err
}

// call sends a request about f and others, again if the connection is lost
// and that may be.
func (f *File) call(ctx context.Context, req *Fcall, others ...*File) (Fcall, error) {
	for try := 1; ; try++ {
		for _, o := range others {
			if _, err := o.use(ctx); err != nil {
				return Fcall{}, err
			}
		}
		l, err := f.use(ctx)
		if err != nil {
			return Fcall{}, err
		}
		rep, err := l.call(ctx, req)
		if err == nil || !f.c.again(try, req, err) {
			return rep, err
		}
	}
}

// Qid returns the file's qid as of when it was walked to or opened.
func (f *File) Qid() Qid { return f.qid }

// Walk returns the file that the names lead to from f, which may be none.
func (f *File) Walk(ctx context.Context, names ...string) (*File, error) {
	for try := 1; ; try++ {
		l, err := f.use(ctx)
		if err != nil {
			return nil, fmt.Errorf("walk %s: %w", strings.Join(names, "/"), err)
		}
		g := f.c.newFile(l)
		g.qid, g.name, g.way = f.qid, f.name, f.way
		var qid Qid
		if qid, err = l.walk(ctx, f.fid, g.fid, names); err == nil {
			if n := len(names); n > 0 {
				g.qid, g.name, g.way = qid, names[n-1], f.way.to(names...)
			}
			return g, nil
		}
		f.c.FreeFid(g.fid)
		if !f.c.again(try, &Fcall{Type: Twalk}, err) {
			return nil, fmt.Errorf("walk %s: %w", strings.Join(names, "/"), err)
		}
	}
}

// walk makes to the fid that the names lead to, and returns its qid if there
// are any.
func (l *link) walk(ctx context.Context, from, to uint32, names []string) (Qid, error) {
	var qid Qid
	for left := names; from != to || len(left) > 0; {
		n := min(len(left), MaxNames)
		rep, err := l.call(ctx, &Fcall{Type: Twalk, Fid: from, Newfid: to, Names: left[:n]})
		if err == nil && len(rep.Qids) < n {
			err = ErrNotExist
		}
		if err != nil {
			if from == to {
				l.call(context.WithoutCancel(ctx), &Fcall{Type: Tclunk, Fid: to})
			}
			return qid, err
		}
		if n > 0 {
			qid = rep.Qids[n-1]
		}
		from, left = to, left[n:]
	}
	return qid, nil
}

// flags returns mode for Tlopen and Tlcreate.
func (m OpenMode) flags() uint32 {
	v := uint32(0)
	if m.Writes() {
		v = uint32(m & 3)
	}
	if m&OTRUNC != 0 {
		v |= linuxTrunc
	}
	if m&OAPPEND != 0 {
		v |= linuxAppend
	}
	return v
}

// isOpen notes what the server said of f when it opened it.
func (f *File) isOpen(rep *Fcall, mode OpenMode) {
	f.qid, f.iounit, f.mode, f.opened = rep.Qid, rep.Iounit, mode, true
}

// chunk returns how many bytes one read or write moves, 0 if f is not open.
func (f *File) chunk(l *link) int {
	if !f.opened {
		return 0
	}
	if l.local != nil {
		return localChunk
	}
	n := int(l.msize) - ioHeader
	if u := int(f.iounit); u > 0 && u < n {
		n = u
	}
	return n
}

func (f *File) openCall(mode OpenMode) *Fcall {
	if f.c.dialect == Linux {
		return &Fcall{Type: Tlopen, Fid: f.fid, Flags: mode.flags()}
	}
	return &Fcall{Type: Topen, Fid: f.fid, Mode: uint8(mode)}
}

// Open opens the file.
func (f *File) Open(ctx context.Context, mode OpenMode) error {
	rep, err := f.call(ctx, f.openCall(mode))
	if err != nil {
		return fmt.Errorf("open %s: %w", f.name, err)
	}
	f.isOpen(&rep, mode)
	return nil
}

// Create makes name in the directory f, and opens it; f then is the new
// file.
func (f *File) Create(ctx context.Context, name string, perm Mode, mode OpenMode) error {
	err := f.create(ctx, name, perm, mode)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	f.name, f.way = name, f.way.to(name)
	return nil
}

func (f *File) create(ctx context.Context, name string, perm Mode, mode OpenMode) error {
	req := Fcall{Type: Tcreate, Fid: f.fid, Name: name, Perm: uint32(perm), Mode: uint8(mode)}
	if f.c.dialect == Linux {
		linuxPerm := perm.linux(Device{}) &^ linuxKind
		if perm.Dir() {
			l, err := f.use(ctx)
			if err != nil {
				return err
			}
			if _, err := l.call(ctx, &Fcall{Type: Tmkdir, Fid: f.fid, Name: name, Perm: linuxPerm}); err != nil {
				return err
			}
			if _, err := l.call(ctx, &Fcall{Type: Twalk, Fid: f.fid, Newfid: f.fid, Names: []string{name}}); err != nil {
				return err
			}
			rep, err := l.call(ctx, f.openCall(mode))
			if err != nil {
				return err
			}
			f.isOpen(&rep, mode)
			return nil
		}
		req = Fcall{Type: Tlcreate, Fid: f.fid, Name: name, Flags: mode.flags() | linuxExcl, Perm: linuxPerm}
	}
	rep, err := f.call(ctx, &req)
	if err != nil {
		return err
	}
	f.isOpen(&rep, mode)
	return nil
}

// window is how many requests one ReadAt or WriteAt has in flight.
const window = 16

// ReadAt reads as io.ReaderAt does, in as many requests as it takes, many of
// them at once.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	done := 0
	for try := 1; done < len(p); {
		n, err := f.transfer(ctx, Tread, p[done:], off+int64(done))
		done += n
		switch {
		case err != nil && !f.c.again(try, &Fcall{Type: Tread}, err):
			return done, fmt.Errorf("read %s: %w", f.name, err)
		case err != nil:
			try++
		case n == 0:
			return done, io.EOF
		}
	}
	return done, nil
}

// WriteAt writes all of p, in as many requests as it takes, many of them at
// once.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	// At the end of a file a write has another effect each time.
	appends := f.mode&OAPPEND != 0 || f.qid.Type&QTAppend != 0
	done := 0
	for try := 1; done < len(p); {
		n, err := f.transfer(ctx, Twrite, p[done:], off+int64(done))
		done += n
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		switch {
		case err != nil && (appends || !f.c.again(try, &Fcall{Type: Tread}, err)):
			return done, fmt.Errorf("write %s: %w", f.name, err)
		case err != nil:
			try++
		}
	}
	return done, nil
}

// transfer reads p, or writes it, in chunks. It returns how many bytes from
// the start of p were moved without a gap: less than all after a short answer,
// or an error.
func (f *File) transfer(ctx context.Context, t Type, p []byte, off int64) (n int, err error) {
	l, err := f.use(ctx)
	if err != nil {
		return 0, err
	}
	chunk := f.chunk(l)
	if chunk == 0 {
		return 0, ErrFidUse
	}
	type piece struct {
		x   *call
		len int
	}
	var ring [window]piece
	sent, taken, at := 0, 0, 0
	whole := true // no gap so far
	for {
		for whole && at < len(p) && sent-taken < window {
			b := p[at:min(len(p), at+chunk)]
			x := newCall()
			x.req = Fcall{Type: t, Fid: f.fid, Offset: uint64(off) + uint64(at)}
			if t == Tread {
				x.dst, x.req.Count = b, uint32(len(b))
			} else {
				x.req.Data = b
			}
			if e := l.start(ctx, x); e != nil {
				x.free()
				err, whole = e, false
				break
			}
			ring[sent%window] = piece{x, len(b)}
			sent++
			at += len(b)
		}
		if taken == sent {
			return n, err
		}
		next := ring[taken%window]
		taken++
		e := l.wait(ctx, next.x)
		got := next.x.n
		if t == Twrite {
			got = int(min(next.x.rep.Count, math.MaxInt32))
		}
		next.x.free()
		if e == nil && got > next.len {
			e = ErrBotch
		}
		if e != nil {
			got = 0
		}
		if t == Twrite && got > 0 {
			f.wrote(l)
		}
		if whole {
			n += got
			if e != nil {
				err = e
			}
			whole = got == next.len
		}
	}
}

// wrote notes that the server at the other end of l has answered a write.
func (f *File) wrote(l *link) {
	f.unsynced.Store(true)
	if f.link.Load() != l { // it has been lost meanwhile, with the write perhaps
		f.dropped.Store(true)
	}
}

// dirCount is how much of a directory is read at once.
const dirCount = 64 << 10

// ReadDir returns the entries of an open directory, without "." and "..". From
// a Linux server they have only name, qid and kind.
func (f *File) ReadDir(ctx context.Context) ([]Dir, error) {
	for try := 1; ; try++ {
		list, err := f.readDir(ctx)
		if err == nil {
			return list, nil
		}
		if !f.c.again(try, &Fcall{Type: Tread}, err) {
			return list, fmt.Errorf("read directory %s: %w", f.name, err)
		}
	}
}

// readDir reads all of the directory on one link.
func (f *File) readDir(ctx context.Context) ([]Dir, error) {
	l, err := f.use(ctx)
	if err != nil {
		return nil, err
	}
	var list []Dir
	for off := uint64(0); ; {
		req := Fcall{Type: Tread, Fid: f.fid, Offset: off, Count: min(l.msize-ioHeader, dirCount)}
		if f.c.dialect == Linux {
			req.Type = Treaddir
		}
		rep, err := l.call(ctx, &req)
		if err != nil {
			return list, err
		}
		b := rep.Data
		if len(b) == 0 {
			return list, nil
		}
		if f.c.dialect != Linux {
			off += uint64(len(b))
		}
		for len(b) > 0 {
			var d Dir
			if f.c.dialect == Linux {
				d, b, err = UnpackDirent(b)
				off = d.Cookie
			} else {
				var s Stat
				if s, b, err = UnpackStat(b, f.c.dialect); err == nil {
					d = s.dir()
				}
			}
			if err != nil {
				return list, err
			}
			if d.Name != "." && d.Name != ".." {
				list = append(list, d)
			}
		}
	}
}

// UnpackDirent reads the entry at the start of an Rreaddir's data, and returns
// what is behind it.
func UnpackDirent(b []byte) (Dir, []byte, error) {
	var d Dir
	q, rest, ok := unpackQid(b)
	if !ok || len(rest) < 9 {
		return d, b, ErrBotch
	}
	d.Qid = q
	d.Cookie = binary.LittleEndian.Uint64(rest)
	d.Mode = modeFromLinux(uint32(rest[8]) << 12)
	d.Name, rest, ok = getString(rest[9:])
	if !ok {
		return d, b, ErrBotch
	}
	return d, rest, nil
}

// dir returns what a stat says.
func (s *Stat) dir() Dir {
	d := Dir{
		Qid: s.Qid, Mode: Mode(s.Mode), Name: s.Name, Length: int64(min(s.Length, math.MaxInt64)),
		UID: s.UID, GID: s.GID, Muid: s.Muid,
		Mtime: time.Unix(int64(s.Mtime), 0), Atime: time.Unix(int64(s.Atime), 0),
	}
	switch {
	case d.Mode&ModeSymlink != 0:
		d.Target = s.Ext
	case d.Mode&ModeDevice != 0:
		d.Device, _ = parseDevice(s.Ext) // of number 0, if that is no number
	}
	return d
}

// Stat describes the file.
func (f *File) Stat(ctx context.Context) (Dir, error) {
	req := Fcall{Type: Tstat, Fid: f.fid}
	if f.c.dialect == Linux {
		req = Fcall{Type: Tgetattr, Fid: f.fid, Mask: attrBasic | attrBtime}
	}
	rep, err := f.call(ctx, &req)
	if err != nil {
		return Dir{}, fmt.Errorf("stat %s: %w", f.name, err)
	}
	if f.c.dialect != Linux {
		return rep.Stat.dir(), nil
	}
	a := &rep.Attr
	d := Dir{
		Qid: rep.Qid, Mode: modeFromLinux(a.Mode), Name: f.name, Length: int64(min(a.Size, math.MaxInt64)),
		UID: f.c.cfg.Users.Name(a.UID), GID: f.c.cfg.Users.Name(a.GID), Links: int(a.Nlink),
		Mtime: time.Unix(int64(a.MtimeSec), int64(a.MtimeNsec)),
		Atime: time.Unix(int64(a.AtimeSec), int64(a.AtimeNsec)),
		Ctime: time.Unix(int64(a.CtimeSec), int64(a.CtimeNsec)),
	}
	if rep.Mask&attrBtime != 0 {
		d.Btime = time.Unix(int64(a.BtimeSec), int64(a.BtimeNsec))
	}
	if d.Mode.Dir() {
		d.Length = 0
	}
	return d, nil
}

// Wstat changes what ch says; a name only in the classic dialects: see
// Rename.
func (f *File) Wstat(ctx context.Context, ch Change) error {
	var err error
	if f.c.dialect == Linux && ch.Name != nil {
		err = ErrNotSupported
	} else if f.c.dialect == Linux {
		err = f.setattr(ctx, ch)
	} else {
		s := nullStat
		set(&s.Name, ch.Name)
		set(&s.UID, ch.UID)
		set(&s.GID, ch.GID)
		if ch.Mode != nil {
			s.Mode = uint32(*ch.Mode)
		}
		if ch.Length != nil {
			s.Length = uint64(*ch.Length)
		}
		if ch.Atime != nil {
			s.Atime = wireTime(*ch.Atime)
		}
		if ch.Mtime != nil {
			s.Mtime = wireTime(*ch.Mtime)
		}
		_, err = f.call(ctx, &Fcall{Type: Twstat, Fid: f.fid, Stat: s})
	}
	if err != nil {
		return fmt.Errorf("wstat %s: %w", f.name, err)
	}
	if ch.Name != nil {
		f.renamed(f.way.to(".."), *ch.Name)
	}
	return nil
}

// renamed notes a new name in the directory that dir leads to.
func (f *File) renamed(dir *way, name string) { f.name, f.way = name, dir.to(name) }

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (f *File) setattr(ctx context.Context, ch Change) error {
	req := Fcall{Type: Tsetattr, Fid: f.fid}
	a := &req.Attr
	if ch.Mode != nil {
		req.Valid |= setMode
		a.Mode = ch.Mode.linux(Device{}) &^ linuxKind
	}
	if ch.UID != nil {
		req.Valid |= setUID
		a.UID = f.c.cfg.Users.ID(*ch.UID)
	}
	if ch.GID != nil {
		req.Valid |= setGID
		a.GID = f.c.cfg.Users.ID(*ch.GID)
	}
	if ch.Length != nil {
		req.Valid |= setSize
		a.Size = uint64(*ch.Length)
	}
	if ch.Atime != nil {
		req.Valid |= setAtime | setAtimeSet
		a.AtimeSec, a.AtimeNsec = splitTime(*ch.Atime)
	}
	if ch.Mtime != nil {
		req.Valid |= setMtime | setMtimeSet
		a.MtimeSec, a.MtimeNsec = splitTime(*ch.Mtime)
	}
	_, err := f.call(ctx, &req)
	return err
}

// Rename moves the file to name in dir. In the classic dialects dir must be
// the directory that it is in, and name not there yet.
func (f *File) Rename(ctx context.Context, dir *File, name string) error {
	if f.c.dialect != Linux {
		return f.Wstat(ctx, Change{Name: &name})
	}
	if _, err := f.call(ctx, &Fcall{Type: Trename, Fid: f.fid, Newfid: dir.fid, Name: name}, dir); err != nil {
		return fmt.Errorf("rename %s: %w", f.name, err)
	}
	f.renamed(dir.way, name)
	return nil
}

// Sync makes what was written to the file durable. It fails if a connection
// was lost since the last time, for what was written over it may be too.
func (f *File) Sync(ctx context.Context) error {
	if err := f.sync(ctx); err != nil {
		return fmt.Errorf("sync %s: %w", f.name, err)
	}
	return nil
}

func (f *File) sync(ctx context.Context) error {
	l, err := f.use(ctx)
	if err != nil {
		return err
	}
	if f.dropped.Swap(false) {
		return fmt.Errorf("the connection was lost after writes: %w", ErrIO)
	}
	req := Fcall{Type: Twstat, Fid: f.fid, Stat: nullStat}
	if f.c.dialect == Linux {
		req = Fcall{Type: Tfsync, Fid: f.fid}
	}
	written := f.unsynced.Swap(false)
	if _, err = l.call(ctx, &req); err != nil && written {
		f.wrote(l) // as far as anybody knows
	}
	return err
}

// Remove removes the file, and gives f back whether that works or not.
func (f *File) Remove(ctx context.Context) error { return f.end(ctx, Tremove, "remove") }

// Close gives f back.
func (f *File) Close(ctx context.Context) error { return f.end(ctx, Tclunk, "clunk") }

func (f *File) end(ctx context.Context, t Type, what string) error {
	if f.gone.Swap(true) {
		return fmt.Errorf("%s %s: %w", what, f.name, ErrFid)
	}
	defer f.c.FreeFid(f.fid)
	redial := f.c.cfg.Redial != nil
	l := f.link.Load()
	if redial && !l.alive() && t != Tclunk {
		var err error
		if l, err = f.use(ctx); err != nil {
			return fmt.Errorf("%s %s: %w", what, f.name, err)
		}
	}
	_, err := l.call(context.WithoutCancel(ctx), &Fcall{Type: t, Fid: f.fid})
	if err == nil || redial && t == Tclunk && lost(err) {
		return nil // the loss of a connection clunks as well
	}
	return fmt.Errorf("%s %s: %w", what, f.name, err)
}
