package ninep

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
)

// handle does what r asks and fills in r.rep, or r.out. Tversion and Tflush
// do not come here: the reader answers them.
func (c *conn) handle(ctx context.Context, r *request) error {
	r.rep.Type = r.f.Type + 1
	switch r.f.Type {
	case Tauth:
		return c.auth(ctx, r)
	case Tattach:
		return c.attach(ctx, r)
	case Twalk:
		return c.walk(ctx, r)
	case Tread:
		return c.read(ctx, r)
	case Twrite:
		return c.write(ctx, r)
	case Tclunk:
		return c.clunk(r)
	case Tremove:
		return c.remove(ctx, r)
	}
	if c.dialect == Linux {
		return c.handleLinux(ctx, r)
	}
	return c.handleClassic(ctx, r)
}

// user returns the name under which a client attaches to aname that says
// it is uname, or number uid in the dialects that have numbers.
func (c *conn) user(uname string, uid uint32, aname string) (string, error) {
	if c.dialect != Classic && uid != NoUID {
		uname = c.srv.cfg.Users.Name(uid)
	}
	if t, ok := c.srv.fs.(Truster); c.rwc == nil || ok && t.Trusts(aname) {
		return orNone(uname), nil
	}
	user, err := c.srv.cfg.User(c.rwc, uname)
	if err != nil {
		c.srv.cfg.Log.Warn("9p attach refused", "peer", remote(c.rwc), "err", err)
	}
	return orNone(user), err
}

// remote returns the address of the other end of a connection, or what it is.
func remote(rwc io.ReadWriteCloser) string {
	if nc, ok := rwc.(net.Conn); ok {
		return nc.RemoteAddr().String()
	}
	return fmt.Sprintf("%T", rwc)
}

func (c *conn) auth(ctx context.Context, r *request) error {
	fs, ok := c.srv.fs.(Authenticator)
	if !ok {
		return ErrAuthNotNeeded
	}
	if err := c.free(r.f.Afid); err != nil {
		return err
	}
	user, err := c.user(r.f.Uname, r.f.UID, r.f.Aname)
	if err != nil {
		return err
	}
	h, err := fs.Auth(ctx, user, r.f.Aname)
	if err != nil {
		return err
	}
	f := &fid{user: user, auth: h, opened: true}
	f.io.Store(&openFile{mode: ORDWR, reader: h, writer: h})
	if err := c.insert(r.f.Afid, f); err != nil {
		h.Close(context.WithoutCancel(ctx))
		return err
	}
	r.rep.Qid = Qid{Type: QTAuth, Path: uint64(r.f.Afid)}
	return nil
}

func (c *conn) attach(ctx context.Context, r *request) error {
	if err := c.free(r.f.Fid); err != nil {
		return err
	}
	user, err := c.user(r.f.Uname, r.f.UID, r.f.Aname)
	if err != nil {
		return err
	}
	switch _, auth := c.srv.fs.(Authenticator); {
	case r.f.Afid != NoFid:
		af, err := c.lookup(r.f.Afid)
		if err != nil {
			return err
		}
		defer c.release(af)
		if af.auth == nil {
			return ErrAuth
		}
		if af.user != user {
			return ErrAuth
		}
		if user, err = af.auth.User(); err != nil {
			return err
		}
	case auth && c.rwc != nil:
		user = NoUser
	}
	if c.dialect != Classic {
		ctx = context.WithValue(ctx, unixKey{}, true)
	}
	root, err := c.srv.fs.Attach(ctx, user, r.f.Aname)
	if err != nil {
		return err
	}
	if err := c.insert(r.f.Fid, &fid{user: user, at: &place{node: root}}); err != nil {
		return err
	}
	r.rep.Qid = root.Qid()
	return nil
}

// checkName says whether a client may give a file this name.
func checkName(name string) error {
	switch {
	case name == "" || strings.ContainsAny(name, "/\x00"):
		return ErrBadName
	case name == "." || name == "..":
		return ErrBadName
	case len(name) > math.MaxUint16/2: // its stat must fit in a message
		return ErrNameTooLong
	}
	return nil
}

func (c *conn) walk(ctx context.Context, r *request) error {
	f, err := c.lookup(r.f.Fid)
	if err != nil {
		return err
	}
	defer c.release(f)
	same := r.f.Newfid == r.f.Fid
	if !same {
		if err := c.free(r.f.Newfid); err != nil {
			return err
		}
	}
	// Linux's client walks from open fids, to others.
	if f.isOpen() && (c.dialect != Linux || same) {
		return ErrFidOpen
	}
	at, err := f.place()
	if err != nil {
		return err
	}
	for i, name := range r.f.Names {
		next, err := at, error(nil)
		if name != "." || c.dialect != Linux { // diodls walks to "."
			next, err = walkOne(ctx, at, name)
		}
		if err != nil {
			if i == 0 {
				return err
			}
			return nil // a part of the way is an answer, and no new fid
		}
		at = next
		r.rep.Qids = append(r.rep.Qids, at.node.Qid())
	}
	if same {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.opened {
			return ErrFidOpen
		}
		f.at = at
		return nil
	}
	return c.insert(r.f.Newfid, &fid{user: f.user, at: at})
}

// walkOne returns the place that name leads to.
func walkOne(ctx context.Context, at *place, name string) (*place, error) {
	if !at.node.Qid().Dir() {
		return nil, ErrNotDir
	}
	if name == ".." {
		return at.parent(ctx)
	}
	if checkName(name) != nil {
		return nil, ErrNotExist // nothing has such a name
	}
	n, err := at.node.Walk(ctx, name)
	if err != nil {
		return nil, err
	}
	return &place{n, at}, nil
}

// openNode opens at for the mode, whose ORCLOSE says to remove it later.
func (c *conn) openNode(ctx context.Context, at *place, mode OpenMode) (*openFile, error) {
	qid := at.node.Qid()
	rclose := mode&orclose != 0
	mode &^= orclose
	if qid.Dir() && (mode != OREAD || rclose) {
		return nil, ErrIsDir
	}
	if rclose {
		if _, ok := at.node.(Remover); !ok || at.up == nil {
			return nil, ErrPermission
		}
	}
	h, err := at.node.Open(ctx, mode)
	if err != nil {
		return nil, err
	}
	o := newOpenFile(h, mode, qid)
	if rclose {
		o.remove = at
	}
	return o, nil
}

// readCount returns how many bytes a read of count may bring.
func (c *conn) readCount(count uint32) int { return int(min(count, c.msize-rreadHeader)) }

// newRead returns the buffer of an Rread, or Rreaddir, with room for n bytes.
func newRead(n int) *buffer { return getBuffer(rreadHeader + n) }

// finishRead packs the header in front of the n bytes of data.
func finishRead(out *buffer, t Type, tag uint16, n int) {
	out.b = out.b[:rreadHeader+n]
	binary.LittleEndian.PutUint32(out.b, uint32(len(out.b)))
	out.b[4] = byte(t)
	binary.LittleEndian.PutUint16(out.b[5:], tag)
	binary.LittleEndian.PutUint32(out.b[headerSize:], uint32(n))
}

// readInline answers r, a Tread, if that can be done at once. It saves a
// goroutine and, where several requests have arrived, all but one of their
// writes: of 4 KiB reads, 16 in flight, nearly twice as many get through. With
// large ones it keeps one buffer in the processor's cache instead of many.
func (c *conn) readInline(r *request) bool {
	n := c.readCount(r.f.Count)
	if r.f.Offset > math.MaxInt64 {
		return false
	}
	c.mu.Lock()
	f := c.fids[r.f.Fid]
	if f == nil || c.tags[r.f.Tag] != nil || c.queued > inlineBatch {
		c.mu.Unlock()
		return false
	}
	o := f.io.Load()
	lends := o != nil && o.lender != nil && n >= minLent
	if !lends && (o == nil || o.cached == nil) {
		c.mu.Unlock()
		return false
	}
	f.refs.Add(1)
	c.mu.Unlock()

	var out *buffer
	var ok bool
	if lends {
		out, ok = lend(o.lender, r.f.Tag, n, int64(r.f.Offset))
	}
	if !ok && o.cached != nil {
		out = newRead(n)
		if n, ok = o.cached.ReadCached(out.b[rreadHeader:], int64(r.f.Offset)); ok {
			finishRead(out, Rread, r.f.Tag, n)
		}
	}
	c.release(f)
	if !ok {
		out.free()
		return false
	}
	r.free()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queueLocked(out)
	if c.queued >= inlineBatch {
		c.writeQueueLocked()
	}
	return true
}

// minLent is how many bytes it takes that lending them is less work than to
// copy them.
const minLent = 16 << 10

// lend returns an Rread of at most n bytes that are not copied.
func lend(l Lender, tag uint16, n int, off int64) (*buffer, bool) {
	out := getBuffer(rreadHeader)
	var ok bool
	if out.lent, out.done, ok = l.Lend(out.lent, n, off); !ok {
		out.free()
		return nil, false
	}
	got := 0
	for i, p := range out.lent {
		out.lent[i] = p[:min(len(p), n-got)] // no frame is longer than it may be
		got += len(out.lent[i])
	}
	finishRead(out, Rread, tag, 0)
	binary.LittleEndian.PutUint32(out.b, uint32(rreadHeader+got))
	binary.LittleEndian.PutUint32(out.b[headerSize:], uint32(got))
	return out, true
}

func (c *conn) read(ctx context.Context, r *request) error {
	f, err := c.lookup(r.f.Fid)
	if err != nil {
		return err
	}
	defer c.release(f)
	o := f.io.Load()
	switch {
	case o == nil:
		return ErrNotReadable
	case r.f.Offset > math.MaxInt64:
		return ErrBadOffset
	case o.dir != nil && c.dialect == Linux:
		return ErrIsDir
	}
	data := r.dst
	if data == nil {
		r.out = newRead(c.readCount(r.f.Count))
		data = r.out.b[rreadHeader:]
	}
	n := 0
	switch {
	case o.dir != nil:
		n, err = c.readClassicDir(ctx, o, data[:0], len(data), r.f.Offset)
	case o.reader != nil:
		n, err = o.reader.ReadAt(ctx, data, int64(r.f.Offset))
		if n > 0 || errors.Is(err, io.EOF) {
			err = nil
		}
	default:
		err = ErrNotReadable
	}
	if err != nil {
		return err
	}
	if r.n = n; r.out != nil {
		finishRead(r.out, Rread, r.f.Tag, n)
	}
	return nil
}

// readClassicDir appends stats of at most n bytes to b, which has the room,
// and returns how many bytes they are.
func (c *conn) readClassicDir(ctx context.Context, o *openFile, b []byte, n int, offset uint64) (int, error) {
	// The reads of one directory depend on one another, so each waits for the
	// one before, with the lock held.
	o.mu.Lock()
	defer o.mu.Unlock()
	switch offset {
	case 0:
		o.offset, o.cookie = 0, 0
	case o.offset:
	default:
		return 0, ErrDirOffset
	}
	var fault error
	for d, err := range o.dir.ReadDir(ctx, o.cookie) {
		if err != nil {
			fault = err
			break
		}
		s := d.stat(c.dialect, c.srv.cfg.Users)
		next, err := s.Pack(b, c.dialect)
		if err != nil {
			fault = err
			break
		}
		if len(next) > n {
			fault = ErrDirCount // unless there is something to return
			break
		}
		b = next
		o.cookie = d.Cookie
	}
	switch {
	case len(b) == 0 && fault == ErrDirCount && n == o.left:
		// Linux's client wants its buffer full and asks again for what is left of
		// it; no bytes make it go on with a new one.
	case len(b) == 0 && fault != nil:
		return 0, fault
	}
	o.left = 0
	if fault == ErrDirCount {
		o.left = n - len(b)
	}
	o.offset += uint64(len(b))
	return len(b), nil
}

func (c *conn) write(ctx context.Context, r *request) error {
	f, err := c.lookup(r.f.Fid)
	if err != nil {
		return err
	}
	defer c.release(f)
	o := f.io.Load()
	switch {
	case o == nil:
		return ErrNotWritable
	case o.xattr != nil:
		n, err := o.xattr.writeAt(r.f.Data, r.f.Offset)
		r.rep.Count = uint32(n)
		return err
	case o.writer == nil:
		return ErrNotWritable
	case r.f.Offset > math.MaxInt64-uint64(len(r.f.Data)):
		return ErrBadOffset
	}
	n, err := o.writer.WriteAt(ctx, r.f.Data, int64(r.f.Offset))
	if n < 0 || n > len(r.f.Data) {
		return fmt.Errorf("write of %d bytes wrote %d", len(r.f.Data), n)
	}
	r.rep.Count = uint32(n)
	if n > 0 {
		return nil // the next write meets the error
	}
	return err
}

func (c *conn) clunk(r *request) error {
	f, err := c.take(r.f.Fid)
	if err != nil {
		return err
	}
	return c.release(f)
}

func (c *conn) remove(ctx context.Context, r *request) error {
	f, err := c.take(r.f.Fid)
	if err != nil {
		return err
	}
	at, err := f.place()
	if err == nil {
		if o := f.io.Load(); o != nil && o.remove != nil {
			o.remove = nil
		}
		err = remove(ctx, at)
	}
	if e := c.release(f); err == nil {
		err = e
	}
	return err
}

// wstat makes the change c of a node.
func wstat(ctx context.Context, n Node, c Change) error {
	w, ok := n.(Wstater)
	if !ok {
		return ErrReadOnly
	}
	return w.Wstat(ctx, c)
}

// syncFile makes an open or closed file durable.
func syncFile(ctx context.Context, f *fid) error {
	if o := f.io.Load(); o != nil {
		if s, ok := o.handle.(Syncer); ok {
			return s.Sync(ctx)
		}
	}
	at, err := f.place()
	if err != nil {
		return err
	}
	if s, ok := at.node.(Syncer); ok {
		return s.Sync(ctx)
	}
	return nil
}

// create makes a file or directory in the fid's directory and opens it.
func create(ctx context.Context, at *place, name string, perm Mode, mode OpenMode) (*place, *openFile, error) {
	if err := checkName(name); err != nil {
		return nil, nil, err
	}
	if !at.node.Qid().Dir() {
		return nil, nil, ErrNotDir
	}
	d, ok := at.node.(Creator)
	if !ok {
		return nil, nil, ErrReadOnly
	}
	rclose := mode&orclose != 0
	mode &^= orclose
	if perm.Dir() && (mode != OREAD || rclose) {
		return nil, nil, ErrBadMode
	}
	n, h, err := d.Create(ctx, name, perm, mode)
	if err != nil {
		return nil, nil, err
	}
	made := &place{n, at}
	o := newOpenFile(h, mode, n.Qid())
	if rclose {
		o.remove = made
	}
	return made, o, nil
}
