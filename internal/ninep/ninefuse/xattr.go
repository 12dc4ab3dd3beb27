package ninefuse

import (
	"context"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"strata/internal/ninep"
)

// xattr answers with a value, or its length if dest has no room at all.
func (fs *FS) xattr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte, get func(context.Context, *ninep.File) ([]byte, error)) (uint32, fuse.Status) {
	_, f, done, err := fs.use(in.NodeId)
	if err != nil {
		return 0, status(err)
	}
	defer done()
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	v, err := get(ctx, f)
	switch {
	case err != nil:
		return 0, status(err)
	case len(dest) == 0:
		return uint32(len(v)), fuse.OK
	case len(dest) < len(v):
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

// acl tells whether an attribute is an access control list. The kernel hands
// these on as bytes; as the protocol has no word of what they do to a file's
// mode, they are not supported, like in Linux's own client unless told otherwise.
func acl(name string) bool { return strings.HasPrefix(name, "system.posix_acl_") }

// GetXAttr implements fuse.RawFileSystem.
func (fs *FS) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if acl(name) {
		return 0, fuse.Status(syscall.EOPNOTSUPP)
	}
	return fs.xattr(cancel, in, dest, func(ctx context.Context, f *ninep.File) ([]byte, error) {
		return f.Xattr(ctx, name)
	})
}

// ListXAttr implements fuse.RawFileSystem.
func (fs *FS) ListXAttr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, s := fs.xattr(cancel, in, dest, func(ctx context.Context, f *ninep.File) ([]byte, error) {
		names, err := f.Xattrs(ctx)
		if err != nil || len(names) == 0 {
			return nil, err
		}
		return []byte(strings.Join(names, "\x00") + "\x00"), nil
	})
	if s == fuse.Status(syscall.EOPNOTSUPP) {
		return 0, fuse.OK // ls(1) and cp(1) ask of every file
	}
	return n, s
}

// SetXAttr implements fuse.RawFileSystem.
func (fs *FS) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	if acl(name) {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	_, f, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	return status(f.SetXattr(ctx, name, value, int(in.Flags)))
}

// RemoveXAttr implements fuse.RawFileSystem.
func (fs *FS) RemoveXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	_, f, done, err := fs.use(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer done()
	ctx := newRequest(cancel, in.Pid)
	defer ctx.end()
	return status(f.RemoveXattr(ctx, name))
}
