package ninep

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// Linux's open flags, as 9P2000.L fixes them.
const (
	linuxAccess    = 0o3
	linuxExcl      = 0o200
	linuxTrunc     = 0o1000
	linuxAppend    = 0o2000
	linuxDirectory = 0o200000

	atRemoveDir = 0x200 // of Tunlinkat
)

// The bits of Tsetattr's valid.
const (
	setMode     = 1 << 0
	setUID      = 1 << 1
	setGID      = 1 << 2
	setSize     = 1 << 3
	setAtime    = 1 << 4
	setMtime    = 1 << 5
	setCtime    = 1 << 6
	setAtimeSet = 1 << 7 // to the time given, not now
	setMtimeSet = 1 << 8
)

// The bits of Tgetattr's mask.
const (
	attrBasic       = 0x7ff
	attrBtime       = 0x800
	attrDataVersion = 0x2000
)

const v9fsMagic = 0x01021997

// handleLinux does the requests that only 9P2000.L has.
func (c *conn) handleLinux(ctx context.Context, r *request) error {
	f, err := c.lookup(r.f.Fid)
	if err != nil {
		return err
	}
	defer c.release(f)
	switch r.f.Type {
	case Tlopen:
		return c.lopen(ctx, r, f)
	case Tlcreate:
		return c.lcreate(ctx, r, f)
	case Treaddir:
		return c.readdir(ctx, r, f)
	case Tfsync:
		return syncFile(ctx, f)
	case Tlock:
		return c.lock(r, f)
	case Tgetlock:
		return c.getlock(r, f)
	}
	at, err := f.place()
	if err != nil {
		return err
	}
	switch r.f.Type {
	case Tgetattr:
		return c.getattr(ctx, r, at)
	case Tsetattr:
		return c.setattr(ctx, r, at)
	case Tstatfs:
		return c.statfs(ctx, r, at)
	case Tmkdir:
		return c.mkdir(ctx, r, at)
	case Tsymlink:
		n, err := symlink(ctx, at, r.f.Name, r.f.Newname)
		if err != nil {
			return err
		}
		r.rep.Qid = n.Qid()
		return nil
	case Tmknod:
		return c.mknod(ctx, r, at)
	case Treadlink:
		return c.readlink(ctx, r, at)
	case Tlink:
		return c.link(ctx, r, at)
	case Tunlinkat:
		return c.unlinkat(ctx, r, at)
	case Trename:
		return c.rename(ctx, r, f, at)
	case Trenameat:
		return c.renameat(ctx, r, at)
	case Txattrwalk:
		return c.xattrwalk(ctx, r, f, at)
	case Txattrcreate:
		return c.xattrcreate(r, f, at)
	}
	return ErrBotch
}

func modeFromFlags(flags uint32) OpenMode {
	mode := OpenMode(flags & linuxAccess)
	if mode == OEXEC { // in Linux 3 is no more than an odd way to say ORDWR
		mode = ORDWR
	}
	if flags&linuxTrunc != 0 {
		mode |= OTRUNC
	}
	if flags&linuxAppend != 0 {
		mode |= OAPPEND
	}
	return mode
}

func (c *conn) lopen(ctx context.Context, r *request, f *fid) error {
	at, err := f.startOpen()
	if err != nil {
		return err
	}
	dir := at.node.Qid().Dir()
	mode := modeFromFlags(r.f.Flags)
	if dir && !mode.Writes() {
		mode = OREAD // truncation and appending mean nothing here
	}
	var o *openFile
	if !dir && r.f.Flags&linuxDirectory != 0 {
		err = ErrNotDir
	} else {
		o, err = c.openNode(ctx, at, mode)
	}
	f.endOpen(at, o)
	if err != nil {
		return err
	}
	r.rep.Qid = at.node.Qid()
	r.rep.Iounit = c.iounit()
	return nil
}

func (c *conn) lcreate(ctx context.Context, r *request, f *fid) error {
	dir, err := f.startOpen()
	if err != nil {
		return err
	}
	mode := modeFromFlags(r.f.Flags)
	perm := modeFromLinux(r.f.Perm) & modeChange
	at, o, err := create(ctx, dir, r.f.Name, perm, mode)
	if errors.Is(err, ErrExist) && r.f.Flags&linuxExcl == 0 {
		// As open(2) with O_CREAT: what is there will do.
		if at, err = walkOne(ctx, dir, r.f.Name); err == nil {
			o, err = c.openNode(ctx, at, mode)
		}
	}
	f.endOpen(at, o)
	if err != nil {
		return err
	}
	r.rep.Qid = at.node.Qid()
	r.rep.Iounit = c.iounit()
	return nil
}

func (c *conn) getattr(ctx context.Context, r *request, at *place) error {
	d, err := at.node.Stat(ctx)
	if err != nil {
		return err
	}
	r.rep.Qid = d.Qid
	r.rep.Attr = d.attr(c.srv.cfg.Users)
	r.rep.Mask = attrBasic | attrDataVersion
	if !d.Btime.IsZero() {
		r.rep.Mask |= attrBtime
	}
	return nil
}

func (c *conn) setattr(ctx context.Context, r *request, at *place) error {
	var ch Change
	a := &r.f.Attr
	valid := r.f.Valid
	users := c.srv.cfg.Users
	if valid&setMode != 0 {
		// Linux knows nothing of append-only and the like: they stay.
		d, err := at.node.Stat(ctx)
		if err != nil {
			return err
		}
		m := d.Mode&^modeChange | modeFromLinux(a.Mode)&modeChange
		ch.Mode = &m
	}
	if valid&setUID != 0 {
		s := users.Name(a.UID)
		ch.UID = &s
	}
	if valid&setGID != 0 {
		s := users.Name(a.GID)
		ch.GID = &s
	}
	if valid&setSize != 0 {
		if at.node.Qid().Dir() {
			if _, err := at.node.Stat(ctx); err != nil { // it is gone, as a wstat would find
				return err
			}
			return ErrIsDir
		}
		if a.Size > math.MaxInt64 {
			return ErrBadOffset
		}
		n := int64(a.Size)
		ch.Length = &n
	}
	setTime := func(t **time.Time, bit, given uint32, sec, nsec uint64) {
		if valid&bit == 0 {
			return
		}
		v := time.Now()
		if valid&given != 0 {
			v = time.Unix(int64(sec), int64(nsec))
		}
		*t = &v
	}
	setTime(&ch.Atime, setAtime, setAtimeSet, a.AtimeSec, a.AtimeNsec)
	setTime(&ch.Mtime, setMtime, setMtimeSet, a.MtimeSec, a.MtimeNsec)
	if ch.empty() {
		return nil // of the ctime alone: the tree keeps it
	}
	return wstat(ctx, at.node, ch)
}

func (c *conn) statfs(ctx context.Context, r *request, at *place) error {
	s := &r.rep.StatFS
	if fs, ok := c.srv.fs.(StatFSer); ok {
		var err error
		if *s, err = fs.StatFS(ctx, at.node); err != nil {
			return err
		}
	}
	if s.Type == 0 {
		s.Type = v9fsMagic
	}
	if s.BlockSize == 0 {
		s.BlockSize = 4096
	}
	if s.NameLen == 0 {
		s.NameLen = 255
	}
	return nil
}

// readdir packs entries as
//
//	qid[13] offset[8] type[1] name[s]
//
// where offset is what the next Treaddir asks for, and type a DT_ value of
// readdir(3).
func (c *conn) readdir(ctx context.Context, r *request, f *fid) error {
	o := f.io.Load()
	switch {
	case o == nil:
		return ErrNotReadable
	case o.dir == nil:
		return ErrNotDir
	}
	at, err := f.place()
	if err != nil {
		return err
	}
	// The offsets of the first two entries come before the tree's cookies.
	const dot, dotdot = 1, 2
	n := c.readCount(r.f.Count)
	r.out = newRead(n)
	b := r.out.b[rreadHeader:rreadHeader]
	full := false
	add := func(q Qid, offset uint64, mode Mode, dev Device, name string) {
		if full = len(b)+qidSize+8+1+2+len(name) > n; full {
			return
		}
		b = q.pack(b)
		b = binary.LittleEndian.AppendUint64(b, offset)
		b = append(b, byte(mode.linux(dev)>>12)) // DT_DIR is S_IFDIR>>12, and so on
		b = binary.LittleEndian.AppendUint16(b, uint16(len(name)))
		b = append(b, name...)
	}
	if r.f.Offset < dot {
		add(at.node.Qid(), dot, ModeDir, Device{}, ".")
	}
	if r.f.Offset < dotdot && !full {
		up, err := at.parent(ctx)
		if err != nil {
			return err
		}
		add(up.node.Qid(), dotdot, ModeDir, Device{}, "..")
	}
	var fault error
	if !full {
		cookie := uint64(0)
		if r.f.Offset > dotdot {
			cookie = r.f.Offset - dotdot
		}
		for d, err := range o.dir.ReadDir(ctx, cookie) {
			if fault = err; fault != nil {
				break
			}
			if add(d.Qid, d.Cookie+dotdot, d.Mode, d.Device, d.Name); full {
				break
			}
		}
	}
	if len(b) == 0 {
		if full {
			return ErrDirCount
		}
		if fault != nil {
			return fault
		}
	}
	finishRead(r.out, Rreaddir, r.f.Tag, len(b))
	return nil
}

func (c *conn) mkdir(ctx context.Context, r *request, at *place) error {
	made, o, err := create(ctx, at, r.f.Name, ModeDir|modeFromLinux(r.f.Perm)&modeChange, OREAD)
	if err != nil {
		return err
	}
	r.rep.Qid = made.node.Qid()
	return o.handle.Close(context.WithoutCancel(ctx))
}

func (c *conn) mknod(ctx context.Context, r *request, at *place) error {
	perm := modeFromLinux(r.f.Perm)
	if perm&^modeChange == 0 { // a plain file
		made, o, err := create(ctx, at, r.f.Name, perm, OREAD)
		if err != nil {
			return err
		}
		r.rep.Qid = made.node.Qid()
		return o.handle.Close(context.WithoutCancel(ctx))
	}
	if perm&(ModeDevice|ModePipe|ModeSocket) == 0 {
		return ErrInvalid
	}
	dev := Device{Block: r.f.Perm&linuxKind == linuxBlock, Major: r.f.Major, Minor: r.f.Minor}
	n, err := mknod(ctx, at, r.f.Name, perm, dev)
	if err != nil {
		return err
	}
	r.rep.Qid = n.Qid()
	return nil
}

func (c *conn) readlink(ctx context.Context, r *request, at *place) error {
	d, err := at.node.Stat(ctx)
	if err != nil {
		return err
	}
	if d.Mode&ModeSymlink == 0 {
		return ErrInvalid
	}
	r.rep.Newname = d.Target
	return nil
}

func (c *conn) link(ctx context.Context, r *request, target *place) error {
	f, err := c.lookup(r.f.Newfid)
	if err != nil {
		return err
	}
	defer c.release(f)
	dir, err := f.place()
	if err != nil {
		return err
	}
	return linkFile(ctx, dir, target, r.f.Name)
}

// linkFile makes name in the directory dir another name of target.
func linkFile(ctx context.Context, dir, target *place, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if !dir.node.Qid().Dir() {
		return ErrNotDir
	}
	if target.node.Qid().Dir() {
		return ErrNotPermitted
	}
	d, ok := dir.node.(Linker)
	if !ok {
		return lacks(dir.node)
	}
	return d.Link(ctx, target.node, name)
}

func (c *conn) unlinkat(ctx context.Context, r *request, at *place) error {
	if err := checkName(r.f.Name); err != nil {
		return err
	}
	victim, err := walkOne(ctx, at, r.f.Name)
	if err != nil {
		return err
	}
	switch dir := victim.node.Qid().Dir(); {
	case dir && r.f.Flags&atRemoveDir == 0:
		return ErrIsDir
	case !dir && r.f.Flags&atRemoveDir != 0:
		return ErrNotDir
	}
	return remove(ctx, victim)
}

// rename moves the fid's own file, whose name the fid does not know, to a
// directory.
func (c *conn) rename(ctx context.Context, r *request, f *fid, at *place) error {
	if at.up == nil {
		return ErrNotPermitted
	}
	to, err := c.lookup(r.f.Newfid)
	if err != nil {
		return err
	}
	defer c.release(to)
	newdir, err := to.place()
	if err != nil {
		return err
	}
	d, err := at.node.Stat(ctx)
	if err != nil {
		return err
	}
	olddir, err := at.parent(ctx)
	if err != nil {
		return err
	}
	if err := rename(ctx, olddir, d.Name, newdir, r.f.Name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == at {
		f.at = &place{at.node, newdir}
	}
	return nil
}

func (c *conn) renameat(ctx context.Context, r *request, olddir *place) error {
	to, err := c.lookup(r.f.Newfid)
	if err != nil {
		return err
	}
	defer c.release(to)
	newdir, err := to.place()
	if err != nil {
		return err
	}
	return rename(ctx, olddir, r.f.Name, newdir, r.f.Newname)
}

func rename(ctx context.Context, olddir *place, oldname string, newdir *place, newname string) error {
	for _, name := range []string{oldname, newname} {
		if err := checkName(name); err != nil {
			return err
		}
	}
	if !olddir.node.Qid().Dir() || !newdir.node.Qid().Dir() {
		return ErrNotDir
	}
	if d, ok := olddir.node.(Renamer); ok {
		return d.Rename(ctx, oldname, newdir.node, newname)
	}
	if olddir.node.Qid().Path != newdir.node.Qid().Path {
		return ErrCrossDevice
	}
	at, err := walkOne(ctx, olddir, oldname)
	if err != nil {
		return err
	}
	if oldname == newname {
		return nil
	}
	return wstat(ctx, at.node, Change{Name: &newname})
}
