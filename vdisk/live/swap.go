package live

import (
	"context"
	"fmt"
	"math"

	"strata/vdisk"
	"strata/vdisk/fsys/swap"
)

// bodyOf returns where the part of a region begins that is never kept, if it
// has one.
//
// BUG: what a swap area that is shorter than its partition has behind its end is
// not kept either; an import keeps it.
func bodyOf(r *vdisk.Region) (split int64, ok bool) {
	fs := r.FileSystem
	ok = fs != nil && fs.Type == "swap" && r.FreeOmitted && int64(fs.BlockSize) < r.Length
	if !ok {
		return math.MaxInt64, false
	}
	return int64(fs.BlockSize), true
}

// A written is a region as it is to be.
type written struct {
	ctx context.Context
	g   *region
	off int64
	n   int64
	p   []byte // nil for zeros
}

func (w written) ReadAt(b []byte, off int64) (int, error) {
	if err := w.g.readAt(w.ctx, b, off); err != nil {
		return 0, err
	}
	lo, hi := max(off, w.off), min(off+int64(len(b)), w.off+w.n)
	if lo >= hi {
		return len(b), nil
	}
	if w.p == nil {
		clear(b[lo-off : hi-off])
	} else {
		copy(b[lo-off:hi-off], w.p[lo-w.off:])
	}
	return len(b), nil
}

// endsSwap returns the first region whose body would be worth keeping after n
// bytes at off have become p: a write to its header makes something else of it,
// or puts a machine to sleep. The caller has the gate.
func (im *image) endsSwap(ctx context.Context, off, n int64, p []byte) (*region, error) {
	for _, g := range im.regions {
		if g.split == math.MaxInt64 || off >= g.Start+g.split || off+n <= g.Start {
			continue
		}
		fs, err := swap.Probe(written{ctx, g, off - g.Start, n, p}, g.Length)
		if err != nil {
			return nil, fmt.Errorf("region %s: %w", g.Name, err)
		}
		if fs == nil || fs.Whole != "" || int64(fs.BlockSize) != g.split {
			return g, nil
		}
	}
	return nil, nil
}

// keptHeader is why all of what was a swap area is kept.
const keptHeader = "its header was written to, so that it may be no swap area any more"

// keepBody puts the body of the swap area at start where it is kept. The caller
// has all of the gate.
func (im *image) keepBody(ctx context.Context, start int64) error {
	if im.gone || im.layout == nil {
		return errGone
	}
	l := *im.layout
	l.Regions = append([]vdisk.Region(nil), l.Regions...)
	for i := range l.Regions {
		if r := &l.Regions[i]; r.Start == start {
			r.FreeOmitted, r.Encoder, r.Whole = false, "plain", keptHeader
		}
	}
	return im.recut(ctx, &l)
}
