package ninep

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"
)

// handleClassic does the requests that 9P2000 and 9P2000.u have for
// themselves.
func (c *conn) handleClassic(ctx context.Context, r *request) error {
	f, err := c.lookup(r.f.Fid)
	if err != nil {
		return err
	}
	defer c.release(f)
	switch r.f.Type {
	case Topen:
		return c.open(ctx, r, f)
	case Tcreate:
		return c.create(ctx, r, f)
	case Tstat:
		at, err := f.place()
		if err != nil {
			return err
		}
		d, err := at.node.Stat(ctx)
		if err != nil {
			return err
		}
		r.rep.Stat = d.stat(c.dialect, c.srv.cfg.Users)
		return nil
	case Twstat:
		return c.wstat(ctx, r, f)
	}
	return ErrBotch
}

// Bits of Topen's mode.
const (
	ocexec     = 0x20 // close on exec: nothing to a server
	unixAppend = 0x80 // OAPPEND, in 9P2000.u
)

// openMode checks the mode of a Topen or Tcreate.
func (c *conn) openMode(mode uint8) (OpenMode, error) {
	m := OpenMode(mode &^ ocexec)
	if c.dialect == Unix && m&unixAppend != 0 {
		m = m&^unixAppend | OAPPEND
	}
	if m&^(3|OTRUNC|OAPPEND|orclose) != 0 || m&3 == OEXEC && m&OTRUNC != 0 {
		return 0, ErrBadMode
	}
	return m, nil
}

func (c *conn) iounit() uint32 { return c.msize - ioHeader }

func (c *conn) open(ctx context.Context, r *request, f *fid) error {
	mode, err := c.openMode(r.f.Mode)
	if err != nil {
		return err
	}
	at, err := f.startOpen()
	if err != nil {
		return err
	}
	o, err := c.openNode(ctx, at, mode)
	f.endOpen(at, o)
	if err != nil {
		return err
	}
	r.rep.Qid = at.node.Qid()
	r.rep.Iounit = c.iounit()
	return nil
}

func (c *conn) create(ctx context.Context, r *request, f *fid) error {
	perm := Mode(r.f.Perm)
	if c.dialect == Unix && perm&(ModeSpecial|modeLink) != 0 {
		return c.createSpecial(ctx, r, f, perm)
	}
	mode, err := c.openMode(r.f.Mode)
	if err != nil {
		return err
	}
	if perm&^(ModePerm|modeSetID|ModeDir|ModeAppend|ModeExcl|ModeTmp) != 0 {
		return ErrBadMode
	}
	at, err := f.startOpen()
	if err != nil {
		return err
	}
	at, o, err := create(ctx, at, r.f.Name, perm, mode)
	f.endOpen(at, o)
	if err != nil {
		return err
	}
	r.rep.Qid = at.node.Qid()
	r.rep.Iounit = c.iounit()
	return nil
}

// createSpecial makes what 9P2000.u describes in the extension of a Tcreate.
// The fid then is at the new file, but not open.
func (c *conn) createSpecial(ctx context.Context, r *request, f *fid, perm Mode) error {
	at, err := f.startOpen()
	if err != nil {
		return err
	}
	n, err := c.makeSpecial(ctx, at, r.f.Name, perm, r.f.Ext)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened = false
	if err != nil {
		return err
	}
	f.at = &place{n, at}
	r.rep.Qid = n.Qid()
	return nil
}

func (c *conn) makeSpecial(ctx context.Context, at *place, name string, perm Mode, ext string) (Node, error) {
	switch perm & (ModeSpecial | modeLink) {
	case modeLink:
		return c.linkFid(ctx, at, name, ext)
	case ModeSymlink:
		return symlink(ctx, at, name, ext)
	case ModeDevice:
		dev, err := parseDevice(ext)
		if err != nil {
			return nil, err
		}
		return mknod(ctx, at, name, perm, dev)
	case ModePipe, ModeSocket:
		return mknod(ctx, at, name, perm, Device{})
	}
	return nil, ErrInvalid
}

// linkFid makes name another name of the file whose fid is ext, in decimal.
func (c *conn) linkFid(ctx context.Context, at *place, name, ext string) (Node, error) {
	n, err := strconv.ParseUint(strings.TrimSuffix(ext, "\n"), 10, 32)
	if err != nil {
		return nil, ErrInvalid
	}
	f, err := c.lookup(uint32(n))
	if err != nil {
		return nil, err
	}
	defer c.release(f)
	target, err := f.place()
	if err != nil {
		return nil, err
	}
	if err := linkFile(ctx, at, target, name); err != nil {
		return nil, err
	}
	return at.node.Walk(ctx, name)
}

func (c *conn) wstat(ctx context.Context, r *request, f *fid) error {
	at, err := f.place()
	if err != nil {
		return err
	}
	s := &r.f.Stat
	d, err := at.node.Stat(ctx)
	if err != nil {
		return err
	}
	now := d.stat(c.dialect, c.srv.cfg.Users)
	change, touched, err := c.change(s, &now)
	switch {
	case err != nil:
		return err
	case !touched:
		return syncFile(ctx, f) // as stat(5) says
	case change.empty():
		return nil
	}
	if change.Name != nil && at.up == nil {
		return ErrWstat
	}
	return wstat(ctx, at.node, change)
}

// change returns what the wstat s changes of the file that is as now says.
// touched is false for a wstat in which everything says "don't touch".
func (c *conn) change(s, now *Stat) (ch Change, touched bool, err error) {
	differ := func(set, differs bool) bool {
		touched = touched || set
		return set && differs
	}
	q := s.Qid
	switch {
	case differ(q.Path != math.MaxUint64, q.Path != now.Qid.Path),
		differ(q.Vers != math.MaxUint32, q.Vers != now.Qid.Vers):
		return ch, true, ErrWstat
	}
	// Linux's client sends its own name as muid when it renames; who changed a
	// file is nothing to be told.
	differ(s.Muid != "", false)
	mode := s.Mode
	if differ(mode != math.MaxUint32, mode != now.Mode) {
		const kind = ModeDir | ModeSpecial | ModeAuth | ModeMount
		m := Mode(mode)
		if (m^Mode(now.Mode))&kind != 0 || m&^(kind|ModePerm|modeSetID|ModeAppend|ModeExcl|ModeTmp) != 0 {
			return ch, true, ErrWstat
		}
		ch.Mode = &m
	}
	if differ(q.Type != math.MaxUint8, q.Type != now.Qid.Type) && (ch.Mode == nil || q.Type != ch.Mode.QidType()) {
		return ch, true, ErrWstat
	}
	differ(s.Type != math.MaxUint16 || s.Dev != math.MaxUint32, false)
	if differ(s.Length != math.MaxUint64, s.Length != now.Length) {
		switch {
		case Mode(now.Mode).Dir():
			return ch, true, ErrIsDir
		case s.Length > math.MaxInt64:
			return ch, true, ErrBadOffset
		}
		n := int64(s.Length)
		ch.Length = &n
	}
	if differ(s.Mtime != math.MaxUint32, s.Mtime != now.Mtime) {
		t := time.Unix(int64(s.Mtime), 0)
		ch.Mtime = &t
	}
	if differ(s.Atime != math.MaxUint32, s.Atime != now.Atime) {
		t := time.Unix(int64(s.Atime), 0)
		ch.Atime = &t
	}
	if differ(s.Name != "", s.Name != now.Name) {
		if err := checkName(s.Name); err != nil {
			return ch, true, err
		}
		ch.Name = &s.Name
	}
	users := c.srv.cfg.Users
	uid, gid := s.UID, s.GID
	if c.dialect == Unix {
		// Numbers are what Unix clients set; the kernel leaves the names empty.
		if uid == "" && s.NUID != NoUID {
			uid = users.Name(s.NUID)
		}
		if gid == "" && s.NGID != NoUID {
			gid = users.Name(s.NGID)
		}
	}
	if differ(uid != "", uid != now.UID) {
		ch.UID = &uid
	}
	if differ(gid != "", gid != now.GID) {
		ch.GID = &gid
	}
	return ch, touched, nil
}

// symlink makes a symbolic link in the directory at.
func symlink(ctx context.Context, at *place, name, target string) (Node, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if !at.node.Qid().Dir() {
		return nil, ErrNotDir
	}
	d, ok := at.node.(Symlinker)
	if !ok {
		return nil, lacks(at.node)
	}
	return d.Symlink(ctx, name, target)
}

// mknod makes a special file in the directory at.
func mknod(ctx context.Context, at *place, name string, perm Mode, dev Device) (Node, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if !at.node.Qid().Dir() {
		return nil, ErrNotDir
	}
	d, ok := at.node.(Mknoder)
	if !ok {
		return nil, lacks(at.node)
	}
	return d.Mknod(ctx, name, perm, dev)
}

// lacks returns the error for a kind of file that the tree does not store.
func lacks(dir Node) error {
	if _, ok := dir.(Creator); !ok {
		return ErrReadOnly
	}
	return ErrNotSupported
}
