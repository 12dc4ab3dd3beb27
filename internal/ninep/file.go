package ninep

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
	"sync/atomic"
	"time"
)

// A File is a fid. It is open after Open or Create, and is given back by
// Close or Remove.
type File struct {
	c     *Client
	fid   uint32
	qid   Qid
	name  string
	chunk int // bytes of one read or write
	gone  atomic.Bool
}

// Attach returns the root of the tree aname.
func (c *Client) Attach(ctx context.Context, user, aname string) (*File, error) {
	uid := NoUID
	if c.users != nil {
		uid = c.users.ID(user)
	}
	f := &File{c: c, fid: c.NewFid(), name: "/"}
	rep, err := c.Call(ctx, &Fcall{Type: Tattach, Fid: f.fid, Afid: NoFid, Uname: user, Aname: aname, UID: uid})
	if err != nil {
		c.FreeFid(f.fid)
		return nil, fmt.Errorf("attach %s: %w", aname, err)
	}
	f.qid = rep.Qid
	return f, nil
}

// Qid returns the file's qid as of when it was walked to or opened.
func (f *File) Qid() Qid { return f.qid }

// Walk returns the file that the names lead to from f, which may be none.
func (f *File) Walk(ctx context.Context, names ...string) (*File, error) {
	g := &File{c: f.c, fid: f.c.NewFid(), qid: f.qid, name: f.name}
	from := f.fid
	for left := names; from != g.fid || len(left) > 0; {
		n := min(len(left), MaxNames)
		rep, err := f.c.Call(ctx, &Fcall{Type: Twalk, Fid: from, Newfid: g.fid, Names: left[:n]})
		if err == nil && len(rep.Qids) < n {
			err = ErrNotExist
		}
		if err != nil {
			if from != g.fid {
				f.c.FreeFid(g.fid)
			} else {
				g.Close(context.WithoutCancel(ctx))
			}
			return nil, fmt.Errorf("walk %s: %w", strings.Join(names, "/"), err)
		}
		if n > 0 {
			g.qid, g.name = rep.Qids[n-1], left[n-1]
		}
		from, left = g.fid, left[n:]
	}
	return g, nil
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

func (f *File) opened(rep *Fcall) {
	f.qid = rep.Qid
	f.chunk = int(f.c.msize) - ioHeader
	if u := int(rep.Iounit); u > 0 && u < f.chunk {
		f.chunk = u
	}
}

// Open opens the file.
func (f *File) Open(ctx context.Context, mode OpenMode) error {
	req := Fcall{Type: Topen, Fid: f.fid, Mode: uint8(mode)}
	if f.c.dialect == Linux {
		req = Fcall{Type: Tlopen, Fid: f.fid, Flags: mode.flags()}
	}
	rep, err := f.c.Call(ctx, &req)
	if err != nil {
		return fmt.Errorf("open %s: %w", f.name, err)
	}
	f.opened(&rep)
	return nil
}

// Create makes name in the directory f, and opens it; f then is the new
// file.
func (f *File) Create(ctx context.Context, name string, perm Mode, mode OpenMode) error {
	err := f.create(ctx, name, perm, mode)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	f.name = name
	return nil
}

func (f *File) create(ctx context.Context, name string, perm Mode, mode OpenMode) error {
	req := Fcall{Type: Tcreate, Fid: f.fid, Name: name, Perm: uint32(perm), Mode: uint8(mode)}
	if f.c.dialect == Linux {
		linuxPerm := perm.linux(Device{}) &^ linuxKind
		if perm.Dir() {
			_, err := f.c.Call(ctx, &Fcall{Type: Tmkdir, Fid: f.fid, Name: name, Perm: linuxPerm})
			if err != nil {
				return err
			}
			if _, err := f.c.Call(ctx, &Fcall{Type: Twalk, Fid: f.fid, Newfid: f.fid, Names: []string{name}}); err != nil {
				return err
			}
			return f.Open(ctx, mode)
		}
		req = Fcall{Type: Tlcreate, Fid: f.fid, Name: name, Flags: mode.flags() | linuxExcl, Perm: linuxPerm}
	}
	rep, err := f.c.Call(ctx, &req)
	if err != nil {
		return err
	}
	f.opened(&rep)
	return nil
}

// window is how many requests one ReadAt or WriteAt has in flight.
const window = 16

// ReadAt reads as io.ReaderAt does, in as many requests as it takes, many of
// them at once.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, want, err := f.transfer(ctx, p[done:], off+int64(done), func(b []byte, off int64) (*call, error) {
			return f.c.start(ctx, &Fcall{Type: Tread, Fid: f.fid, Offset: uint64(off), Count: uint32(len(b))}, b)
		}, nil)
		done += n
		if err != nil {
			return done, fmt.Errorf("read %s: %w", f.name, err)
		}
		if n == 0 && want > 0 {
			return done, io.EOF
		}
	}
	return done, nil
}

// WriteAt writes all of p, in as many requests as it takes, many of them at
// once.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, _, err := f.transfer(ctx, p[done:], off+int64(done), func(b []byte, off int64) (*call, error) {
			return f.c.start(ctx, &Fcall{Type: Twrite, Fid: f.fid, Offset: uint64(off), Data: b}, nil)
		}, new(Fcall))
		done += n
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return done, fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	return done, nil
}

// transfer cuts p into chunks, and moves each with a call that start begins.
// It returns how many bytes from the start of p were moved without a gap: less
// than all after a short answer, or an error. rep is where replies go that
// have the count; nil if it is the call's.
func (f *File) transfer(ctx context.Context, p []byte, off int64, start func(b []byte, off int64) (*call, error), rep *Fcall) (n, want int, err error) {
	if f.chunk == 0 {
		return 0, 0, ErrFidUse
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
			b := p[at:min(len(p), at+f.chunk)]
			x, e := start(b, off+int64(at))
			if e != nil {
				err, whole = e, false
				break
			}
			ring[sent%window] = piece{x, len(b)}
			sent++
			at += len(b)
		}
		if taken == sent {
			return n, len(p), err
		}
		next := ring[taken%window]
		taken++
		got, e := f.c.finish(ctx, next.x, rep)
		if rep != nil && e == nil {
			got = int(min(rep.Count, math.MaxInt32))
		}
		if e == nil && got > next.len {
			e = ErrBotch
		}
		if e != nil {
			got = 0
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

// ReadDir returns the entries of an open directory, without "." and "..". From
// a Linux server they have only name, qid and kind.
func (f *File) ReadDir(ctx context.Context) ([]Dir, error) {
	var list []Dir
	for off := uint64(0); ; {
		req := Fcall{Type: Tread, Fid: f.fid, Offset: off, Count: f.c.msize - ioHeader}
		if f.c.dialect == Linux {
			req.Type = Treaddir
		}
		rep, err := f.c.Call(ctx, &req)
		if err != nil {
			return list, fmt.Errorf("read directory %s: %w", f.name, err)
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
			var err error
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
				return list, fmt.Errorf("read directory %s: %w", f.name, err)
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
	if d.Mode&ModeSymlink != 0 {
		d.Target = s.Ext
	}
	return d
}

// Stat describes the file.
func (f *File) Stat(ctx context.Context) (Dir, error) {
	req := Fcall{Type: Tstat, Fid: f.fid}
	if f.c.dialect == Linux {
		req = Fcall{Type: Tgetattr, Fid: f.fid, Mask: attrBasic | attrBtime}
	}
	rep, err := f.c.Call(ctx, &req)
	if err != nil {
		return Dir{}, fmt.Errorf("stat %s: %w", f.name, err)
	}
	if f.c.dialect != Linux {
		return rep.Stat.dir(), nil
	}
	a := &rep.Attr
	d := Dir{
		Qid: rep.Qid, Mode: modeFromLinux(a.Mode), Name: f.name, Length: int64(min(a.Size, math.MaxInt64)),
		UID: f.c.users.Name(a.UID), GID: f.c.users.Name(a.GID), Links: int(a.Nlink),
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
		_, err = f.c.Call(ctx, &Fcall{Type: Twstat, Fid: f.fid, Stat: s})
	}
	if err != nil {
		return fmt.Errorf("wstat %s: %w", f.name, err)
	}
	set(&f.name, ch.Name)
	return nil
}

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
		a.UID = f.c.users.ID(*ch.UID)
	}
	if ch.GID != nil {
		req.Valid |= setGID
		a.GID = f.c.users.ID(*ch.GID)
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
	_, err := f.c.Call(ctx, &req)
	return err
}

// Rename moves the file to name in dir. In the classic dialects dir must be
// the directory that it is in, and name not there yet.
func (f *File) Rename(ctx context.Context, dir *File, name string) error {
	if f.c.dialect != Linux {
		return f.Wstat(ctx, Change{Name: &name})
	}
	if _, err := f.c.Call(ctx, &Fcall{Type: Trename, Fid: f.fid, Newfid: dir.fid, Name: name}); err != nil {
		return fmt.Errorf("rename %s: %w", f.name, err)
	}
	f.name = name
	return nil
}

// Sync makes what was written to the file durable.
func (f *File) Sync(ctx context.Context) error {
	req := Fcall{Type: Twstat, Fid: f.fid, Stat: nullStat}
	if f.c.dialect == Linux {
		req = Fcall{Type: Tfsync, Fid: f.fid}
	}
	if _, err := f.c.Call(ctx, &req); err != nil {
		return fmt.Errorf("sync %s: %w", f.name, err)
	}
	return nil
}

// Remove removes the file, and gives f back whether that works or not.
func (f *File) Remove(ctx context.Context) error { return f.end(ctx, Tremove, "remove") }

// Close gives f back.
func (f *File) Close(ctx context.Context) error { return f.end(ctx, Tclunk, "clunk") }

func (f *File) end(ctx context.Context, t Type, what string) error {
	if f.gone.Swap(true) {
		return fmt.Errorf("%s %s: %w", what, f.name, ErrFid)
	}
	_, err := f.c.Call(context.WithoutCancel(ctx), &Fcall{Type: t, Fid: f.fid})
	f.c.FreeFid(f.fid)
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, f.name, err)
	}
	return nil
}
