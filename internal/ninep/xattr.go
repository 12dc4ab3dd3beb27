package ninep

import (
	"context"
	"io"
	"math"
	"strings"
)

// maxXattr is the longest value of an attribute, as in Linux.
const maxXattr = 64 << 10

// An xattrFile is the value of an extended attribute behind a fid: one that
// Txattrcreate announced, which is set when the fid is clunked.
type xattrFile struct {
	node  Xattrer
	name  string
	flags int
	value []byte // what has been written of it
	size  int    // what it will be
}

// writeAt takes the next bytes of the value.
func (x *xattrFile) writeAt(p []byte, off uint64) (int, error) {
	if off != uint64(len(x.value)) || len(p) > x.size-len(x.value) {
		return 0, ErrInvalid
	}
	x.value = append(x.value, p...)
	return len(p), nil
}

// commit sets the attribute; an empty value removes it, as in Linux's
// client.
func (x *xattrFile) commit(ctx context.Context) error {
	switch {
	case len(x.value) != x.size:
		return ErrInvalid
	case x.size == 0:
		return x.node.RemoveXattr(ctx, x.name)
	}
	return x.node.SetXattr(ctx, x.name, x.value, x.flags)
}

// A bytesReader is a handle on bytes that do not change.
type bytesReader string

func (b bytesReader) Close(context.Context) error { return nil }

func (b bytesReader) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	return copy(p, b[off:]), nil
}

func (b bytesReader) ReadCached(p []byte, off int64) (int, bool) {
	n, _ := b.ReadAt(nil, p, off)
	return n, true
}

// xattrwalk makes newfid the value of an attribute, or with no name the list
// of names, each ended by a NUL.
func (c *conn) xattrwalk(ctx context.Context, r *request, f *fid, at *place) error {
	if err := c.free(r.f.Newfid); err != nil {
		return err
	}
	n, ok := at.node.(Xattrer)
	if !ok {
		return ErrNotSupported
	}
	var value string
	if r.f.Name == "" {
		names, err := n.Xattrs(ctx)
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, name := range names {
			b.WriteString(name)
			b.WriteByte(0)
		}
		value = b.String()
	} else {
		v, err := n.Xattr(ctx, r.f.Name)
		if err != nil {
			return err
		}
		value = string(v)
	}
	x := &fid{user: f.user, opened: true}
	x.io.Store(newOpenFile(bytesReader(value), OREAD, Qid{Path: math.MaxUint64}))
	if err := c.insert(r.f.Newfid, x); err != nil {
		return err
	}
	r.rep.Size = uint64(len(value))
	return nil
}

// xattrcreate turns the fid into the new value of an attribute.
func (c *conn) xattrcreate(r *request, f *fid, at *place) error {
	n, ok := at.node.(Xattrer)
	if !ok {
		return ErrNotSupported
	}
	if r.f.Size > maxXattr {
		return ErrTooBig
	}
	if _, err := f.startOpen(); err != nil {
		return err
	}
	f.endOpen(nil, &openFile{mode: OWRITE, qidPath: math.MaxUint64, xattr: &xattrFile{
		node: n, name: r.f.Name, flags: int(r.f.Flags), size: int(r.f.Size),
	}})
	return nil
}
