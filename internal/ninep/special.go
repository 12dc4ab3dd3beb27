package ninep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// What follows is what Linux knows of files and Plan 9 does not. A dialect
// that cannot say it gets ErrNotSupported, as a server does that cannot do it.

// do sends a request about a file, and others perhaps, and wraps its error.
func (f *File) do(ctx context.Context, what string, req *Fcall, others ...*File) (Fcall, error) {
	rep, err := f.call(ctx, req, others...)
	if err != nil {
		return rep, fmt.Errorf("%s %s: %w", what, f.name, err)
	}
	return rep, nil
}

// linuxOnly is ErrNotSupported unless the dialect is Linux.
func (f *File) linuxOnly(what string) error {
	if f.c.dialect != Linux {
		return fmt.Errorf("%s %s: in %v: %w", what, f.name, f.c.dialect, ErrNotSupported)
	}
	return nil
}

// Attr describes the file as stat(2) does, with the numbers of users that
// the server gave or, in the classic dialects, that the client's Users have.
func (f *File) Attr(ctx context.Context) (Attr, Qid, error) {
	if f.c.dialect == Linux {
		rep, err := f.do(ctx, "getattr", &Fcall{Type: Tgetattr, Fid: f.fid, Mask: attrBasic | attrBtime})
		return rep.Attr, rep.Qid, err
	}
	d, err := f.Stat(ctx)
	if err != nil {
		return Attr{}, Qid{}, err
	}
	return d.attr(f.c.cfg.Users), d.Qid, nil
}

// ReadOnce reads with one request, at most as much as one reply carries: from
// a file whose every read has a meaning of its own. No bytes are its end.
func (f *File) ReadOnce(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := 0, error(ErrFidUse)
	if l, e := f.use(ctx); e != nil {
		err = e
	} else if chunk := f.chunk(l); chunk > 0 {
		x := newCall()
		defer x.free()
		x.dst = p[:min(len(p), chunk)]
		x.req = Fcall{Type: Tread, Fid: f.fid, Offset: uint64(off), Count: uint32(len(x.dst))}
		if err = l.start(ctx, x); err == nil {
			err = l.wait(ctx, x)
			n = x.n
		}
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", f.name, err)
	}
	return n, nil
}

// Mkdir makes a directory in the directory f.
func (f *File) Mkdir(ctx context.Context, name string, perm Mode) error {
	if f.c.dialect == Linux {
		_, err := f.do(ctx, "mkdir in", &Fcall{Type: Tmkdir, Fid: f.fid, Name: name, Perm: perm.linux(Device{}) &^ linuxKind})
		return err
	}
	return f.createIn(ctx, name, perm|ModeDir, "")
}

// createIn makes a file with Tcreate and leaves it closed.
func (f *File) createIn(ctx context.Context, name string, perm Mode, ext string) error {
	g, err := f.Walk(ctx)
	if err != nil {
		return err
	}
	_, err = g.do(ctx, "create in", &Fcall{Type: Tcreate, Fid: g.fid, Name: name, Perm: uint32(perm), Ext: ext})
	return errors.Join(err, g.Close(ctx))
}

// Symlink makes a symbolic link in the directory f.
func (f *File) Symlink(ctx context.Context, name, target string) error {
	if f.c.dialect == Unix {
		return f.createIn(ctx, name, ModeSymlink|0o777, target)
	}
	if err := f.linuxOnly("symlink in"); err != nil {
		return err
	}
	_, err := f.do(ctx, "symlink in", &Fcall{Type: Tsymlink, Fid: f.fid, Name: name, Newname: target})
	return err
}

// Readlink returns a symbolic link's target.
func (f *File) Readlink(ctx context.Context) (string, error) {
	if f.c.dialect == Unix {
		d, err := f.Stat(ctx)
		if err == nil && d.Mode&ModeSymlink == 0 {
			err = fmt.Errorf("readlink %s: %w", f.name, ErrInvalid)
		}
		return d.Target, err
	}
	if err := f.linuxOnly("readlink"); err != nil {
		return "", err
	}
	rep, err := f.do(ctx, "readlink", &Fcall{Type: Treadlink, Fid: f.fid})
	return rep.Newname, err
}

// Mknod makes a device, pipe or socket in the directory f: perm says which.
func (f *File) Mknod(ctx context.Context, name string, perm Mode, dev Device) error {
	if f.c.dialect == Unix {
		ext := ""
		if perm&ModeDevice != 0 {
			ext = dev.String()
		}
		return f.createIn(ctx, name, perm, ext)
	}
	if err := f.linuxOnly("mknod in"); err != nil {
		return err
	}
	_, err := f.do(ctx, "mknod in", &Fcall{Type: Tmknod, Fid: f.fid, Name: name, Perm: perm.linux(dev), Major: dev.Major, Minor: dev.Minor})
	return err
}

// Link gives target a second name, in the directory f.
func (f *File) Link(ctx context.Context, target *File, name string) error {
	if err := f.linuxOnly("link in"); err != nil {
		return err
	}
	_, err := f.do(ctx, "link in", &Fcall{Type: Tlink, Newfid: f.fid, Fid: target.fid, Name: name}, target)
	return err
}

// RemoveName removes name, a directory or not, from the directory f.
func (f *File) RemoveName(ctx context.Context, name string, dir bool) error {
	if f.c.dialect == Linux {
		req := Fcall{Type: Tunlinkat, Fid: f.fid, Name: name}
		if dir {
			req.Flags = atRemoveDir
		}
		_, err := f.do(ctx, "remove from", &req)
		if !errors.Is(err, ErrNotSupported) {
			return err
		}
		// A server, such as diod, that has only the older message.
	}
	g, err := f.Walk(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case dir && !g.qid.Dir():
		err = ErrNotDir
	case !dir && g.qid.Dir():
		err = ErrIsDir
	default:
		return g.Remove(ctx)
	}
	g.Close(ctx)
	return fmt.Errorf("remove %s: %w", name, err)
}

// RenameName moves oldname in the directory f to newname in newdir, with
// Linux in the place of what may be there. In the classic dialects newdir must
// be f, and newname free.
func (f *File) RenameName(ctx context.Context, oldname string, newdir *File, newname string) error {
	if f.c.dialect == Linux {
		_, err := f.do(ctx, "rename in", &Fcall{Type: Trenameat, Fid: f.fid, Name: oldname, Newfid: newdir.fid, Newname: newname}, newdir)
		if !errors.Is(err, ErrNotSupported) {
			return err
		}
		// A server that has only the older message.
	}
	if f.c.dialect != Linux && f.qid.Path != newdir.qid.Path {
		return fmt.Errorf("rename %s: %w", oldname, ErrCrossDevice)
	}
	g, err := f.Walk(ctx, oldname)
	if err != nil {
		return err
	}
	return errors.Join(g.Rename(ctx, newdir, newname), g.Close(ctx))
}

// StatFS describes the file system that f is in.
func (f *File) StatFS(ctx context.Context) (StatFS, error) {
	if err := f.linuxOnly("statfs"); err != nil {
		return StatFS{}, err
	}
	rep, err := f.do(ctx, "statfs", &Fcall{Type: Tstatfs, Fid: f.fid})
	return rep.StatFS, err
}

// xattr reads the value of an attribute, or the list of their names.
func (f *File) xattr(ctx context.Context, name string) ([]byte, error) {
	if err := f.linuxOnly("xattr of"); err != nil {
		return nil, err
	}
	l, err := f.use(ctx)
	if err != nil {
		return nil, err
	}
	g := f.c.newFile(l)
	g.name, g.opened = f.name, true
	rep, err := l.call(ctx, &Fcall{Type: Txattrwalk, Fid: f.fid, Newfid: g.fid, Name: name})
	if err != nil {
		f.c.FreeFid(g.fid)
		return nil, fmt.Errorf("xattr of %s: %w", f.name, err)
	}
	defer g.Close(ctx)
	if rep.Size > maxXattr {
		return nil, fmt.Errorf("xattr of %s: %d bytes: %w", f.name, rep.Size, ErrTooBig)
	}
	b := make([]byte, rep.Size)
	n, err := g.ReadAt(ctx, b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

// Xattr returns the value of an extended attribute; ErrNoXattr says that
// there is none.
func (f *File) Xattr(ctx context.Context, name string) ([]byte, error) {
	if name == "" {
		return nil, fmt.Errorf("xattr of %s: %w", f.name, ErrInvalid)
	}
	return f.xattr(ctx, name)
}

// Xattrs returns the names of the extended attributes.
func (f *File) Xattrs(ctx context.Context) ([]string, error) {
	b, err := f.xattr(ctx, "")
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// SetXattr sets an extended attribute. The flags are those of setxattr(2).
// The protocol has no empty value: setting one removes the attribute.
func (f *File) SetXattr(ctx context.Context, name string, value []byte, flags int) error {
	if err := f.linuxOnly("setxattr of"); err != nil {
		return err
	}
	g, err := f.Walk(ctx)
	if err != nil {
		return err
	}
	req := Fcall{Type: Txattrcreate, Fid: g.fid, Name: name, Size: uint64(len(value)), Flags: uint32(flags)}
	if _, err = g.do(ctx, "setxattr of", &req); err == nil && len(value) > 0 {
		g.opened, g.way = true, nil // it is no file any more
		_, err = g.WriteAt(ctx, value, 0)
	}
	if cerr := g.Close(ctx); err == nil { // which sets it
		err = cerr
	}
	return err
}

// RemoveXattr removes an extended attribute.
func (f *File) RemoveXattr(ctx context.Context, name string) error {
	return f.SetXattr(ctx, name, nil, 0)
}

// UnpackDevice returns the device that a dev_t of 64 bits names, as
// Attr.Rdev has it.
func UnpackDevice(rdev uint64, block bool) Device {
	return Device{
		Block: block,
		Major: uint32(rdev>>8&0xfff | rdev>>32&^uint64(0xfff)),
		Minor: uint32(rdev&0xff | rdev>>12&^uint64(0xff)),
	}
}
