package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"strata/internal/ninep"
	"strata/vdisk"
)

// A region is one region of a disk, open. Offsets are from its start.
type region struct {
	vdisk.Region
	h    *host
	path string      // of its file
	data *ninep.File // open for reading and writing
	// What lies at split and behind it is in body: of a swap area all but its
	// header. The archive has nothing of that file, and zeros in its place.
	split    int64
	bodyPath string
	body     *ninep.File

	dirty atomic.Bool // written to since the last sync
}

// openRegion opens a region whose file is called name, in the directory dir.
func (h *host) openRegion(ctx context.Context, dir, name string, r vdisk.Region) (_ *region, err error) {
	g := &region{Region: r, h: h, path: dir + "/" + name}
	if g.data, err = h.open(ctx, g.path, ninep.ORDWR); err != nil {
		return nil, err
	}
	var ok bool
	if g.split, ok = bodyOf(&r); !ok {
		return g, nil
	}
	g.bodyPath = dir + "/" + bodyPrefix + r.Name
	if g.body, err = h.openBody(ctx, g.bodyPath, r.Length); err != nil {
		g.data.Close(ctx)
		return nil, err
	}
	return g, nil
}

// openBody opens the body of a swap region, or makes it: one who restores the
// file system from an archive has none.
func (h *host) openBody(ctx context.Context, path string, size int64) (*ninep.File, error) {
	f, err := h.open(ctx, path, ninep.ORDWR)
	if !errors.Is(err, ninep.ErrNotExist) {
		return f, err
	}
	if err := h.tell(ctx, "create %s %s %s T664", path, h.uid, h.uid); err != nil {
		return nil, err
	}
	if err := h.resize(ctx, path, size); err != nil {
		return nil, err
	}
	return h.open(ctx, path, ninep.ORDWR)
}

func (g *region) close(ctx context.Context) {
	for _, f := range []*ninep.File{g.data, g.body} {
		if f != nil {
			f.Close(ctx)
		}
	}
}

// A piece is a part of a region that is in one file.
type piece struct {
	f      *ninep.File
	path   string
	off, n int64
}

// pieces returns the parts of n bytes at off.
func (g *region) pieces(off, n int64) []piece {
	end := off + n
	if end <= g.split {
		return []piece{{g.data, g.path, off, n}}
	}
	if off >= g.split {
		return []piece{{g.body, g.bodyPath, off, n}}
	}
	return []piece{{g.data, g.path, off, g.split - off}, {g.body, g.bodyPath, g.split, end - g.split}}
}

func (g *region) readAt(ctx context.Context, p []byte, off int64) error {
	for _, x := range g.pieces(off, int64(len(p))) {
		if _, err := x.f.ReadAt(ctx, p[:x.n], x.off); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%s: %w", x.path, err)
		}
		p = p[x.n:]
	}
	return nil
}

func (g *region) writeAt(ctx context.Context, p []byte, off int64) error {
	// Also of a write that fails something may be there.
	defer g.dirty.Store(true)
	for _, x := range g.pieces(off, int64(len(p))) {
		if _, err := x.f.WriteAt(ctx, p[:x.n], x.off); err != nil {
			return fmt.Errorf("%s: %w", x.path, err)
		}
		p = p[x.n:]
	}
	return nil
}

func (g *region) punch(ctx context.Context, off, n int64) error {
	defer g.dirty.Store(true)
	for _, x := range g.pieces(off, n) {
		if err := g.h.punch(ctx, x.path, x.off, x.n); err != nil {
			return err
		}
	}
	return nil
}

// What one request for extents looks through, at first and at most: ranges of
// data are many where holes are long and few.
const (
	firstWindow = 16 << 20
	maxWindow   = 1 << 40
)

// nextData returns the first range at or after off that is no hole, or io.EOF.
func (g *region) nextData(ctx context.Context, off int64) (start, end int64, err error) {
	for window := int64(firstWindow); off < g.Length; window = min(4*window, maxWindow) {
		n := min(window, g.Length-off)
		for _, x := range g.pieces(off, n) {
			list, err := g.h.extents(ctx, x.path, x.off, x.n)
			if err != nil {
				return 0, 0, err
			}
			if len(list) > 0 {
				return max(list[0].off, x.off), min(list[0].off+list[0].n, x.off+x.n), nil
			}
		}
		off += n
	}
	return 0, 0, io.EOF
}

// eachData calls f for each range that is no hole in n bytes at off.
func (g *region) eachData(ctx context.Context, off, n int64, f func(off, n int64) error) error {
	for _, x := range g.pieces(off, n) {
		for at := x.off; at < x.off+x.n; {
			m := min(maxWindow, x.off+x.n-at)
			list, err := g.h.extents(ctx, x.path, at, m)
			if err != nil {
				return err
			}
			for _, s := range list {
				lo, hi := max(s.off, at), min(s.off+s.n, at+m)
				if err := f(lo, hi-lo); err != nil {
					return err
				}
			}
			at += m
		}
	}
	return nil
}

// sync makes what was written durable.
func (g *region) sync(ctx context.Context) error {
	if !g.dirty.Swap(false) {
		return nil
	}
	err := g.data.Sync(ctx)
	if err == nil && g.body != nil {
		err = g.body.Sync(ctx)
	}
	if err != nil {
		g.dirty.Store(true)
	}
	return err
}
