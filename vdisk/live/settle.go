package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"strata/internal/ninep"
	"strata/vdisk"
	"strata/vdisk/fsys"
	"strata/vdisk/partition"
)

// Settling says how an image is settled.
type settling struct {
	auto bool // its last writer has left; if another has come, never mind
	trim bool // also trim what was not unmounted
}

// Settle makes an image what an import of the same disk would be: it is cut
// anew if its partition table or what is in its partitions has changed, and what
// is free is trimmed. That happens by itself when the last writer leaves, but for
// file systems that were not unmounted: their user may have lost the connection
// only, and have written where the disk says that nothing is. With all, those are
// trimmed too, and swap areas emptied; so nobody may go on using them.
//
// It fails while somebody writes to the image.
func (c *Catalogue) Settle(ctx context.Context, name string, all bool) error {
	im, err := c.use(ctx, name)
	if err != nil {
		return err
	}
	defer c.release(context.WithoutCancel(ctx), im)
	return im.settle(ctx, settling{trim: all})
}

func (im *image) settle(ctx context.Context, how settling) error {
	if err := im.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer im.turn.Release(1)
	return im.settleNow(ctx, how)
}

// settleNow is settle for who has the turn.
func (im *image) settleNow(ctx context.Context, how settling) error {
	err := im.quiet(ctx, func(ctx context.Context) error {
		if err := im.tidy(ctx, how); err != nil {
			return fmt.Errorf("settle %s: %w", im.name, err)
		}
		return nil
	})
	if how.auto && isInUse(err) {
		return nil
	}
	return err
}

// A source is an image as something to look at, perhaps of another size. The
// caller has all of the gate while it is used.
type source struct {
	ctx  context.Context
	im   *image
	size int64
}

func (s source) Size() int64 { return s.size }

// has returns how many of the bytes before end the image has.
func (s source) has(end int64) int64 { return min(end, s.im.layout.Size) }

func (s source) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), s.size-off))
	have := max(0, min(n, s.has(off+n)-off))
	if err := s.im.readAt(s.ctx, p[:have], off); err != nil {
		return 0, err
	}
	clear(p[have:n])
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (s source) NextData(off int64) (start, end int64, err error) {
	start, end, err = s.im.nextData(s.ctx, off)
	if err == nil && start >= s.size {
		err = io.EOF
	}
	return start, min(end, s.size), err
}

// Why free blocks of a live image are kept.
const (
	keptMounted   = "it was not unmounted, so that what is free may be in use"
	keptUntrimmed = "what is free was not trimmed"
)

// tidy is Settle. The caller has all of the gate, and nobody writes.
func (im *image) tidy(ctx context.Context, how settling) error {
	s, err := vdisk.NewSurvey(source{ctx, im, im.layout.Size}, im.layout.Exact())
	if err != nil {
		return err
	}
	for i := range s.Layout.Regions {
		r := &s.Layout.Regions[i]
		_, body := bodyOf(r)
		switch {
		case !r.FreeOmitted:
		case how.trim, s.Clean(i) && !im.cat.cfg.NoTrim:
			if err := im.trim(ctx, r, s.Free(i)); err != nil {
				return err
			}
		case body: // is never kept, but nobody says that it is not needed
		case im.wasTrimmed(r): // and what was written since stays
		default:
			r.FreeOmitted, r.Encoder, r.Whole = false, "plain", keptMounted
			if s.Clean(i) {
				r.Whole = keptUntrimmed
			}
		}
	}
	if err := im.recut(ctx, s.Layout); err != nil {
		return err
	}
	if err := im.flush(ctx); err != nil {
		return err
	}
	return im.settled(ctx)
}

// settled notes that the image is settled.
func (im *image) settled(ctx context.Context) error {
	err := im.cat.host.remove(ctx, im.dir(), unsettledFile)
	if err != nil && !errors.Is(err, ninep.ErrNotExist) {
		return err
	}
	im.changed.Store(false)
	im.table.Store(false)
	return nil
}

// trim makes holes of what is free in a region, of this layout or another.
func (im *image) trim(ctx context.Context, r *vdisk.Region, free func(func(fsys.Extent) bool)) error {
	var data []span // on the disk
	err := im.each(r.Start, min(r.Length, im.layout.Size-r.Start), func(g *region, off, n int64) error {
		return g.eachData(ctx, off, n, func(off, n int64) error {
			data = append(data, span{g.Start + off, n})
			return nil
		})
	})
	for x := range free {
		if err != nil || len(data) == 0 {
			break
		}
		lo, hi := r.Start+x.Off, r.Start+x.End()
		for len(data) > 0 && data[0].off+data[0].n <= lo {
			data = data[1:]
		}
		for _, d := range data {
			if d.off >= hi || err != nil {
				break
			}
			from, to := max(lo, d.off), min(hi, d.off+d.n)
			err = im.each(from, to-from, func(g *region, off, n int64) error { return g.punch(ctx, off, n) })
		}
	}
	return err
}

// recut makes the image one of regions as l has them. What is in a file at the
// same place and on the same grid stays there. The caller has all of the gate.
func (im *image) recut(ctx context.Context, l *vdisk.Layout) error {
	was, err := im.layout.Encode()
	if err != nil {
		return err
	}
	is, err := l.Encode()
	if err != nil || bytes.Equal(was, is) {
		return err
	}
	h := im.cat.host
	moves, err := im.prepare(ctx, l)
	if err == nil {
		err = im.flush(ctx)
	}
	if err == nil {
		err = h.commit(ctx, im.dir(), l, moves)
	}
	// Whatever became of it, what the directory says now is what there is.
	bg := context.WithoutCancel(ctx)
	im.unload(bg)
	return errors.Join(err, im.load(bg))
}

// prepare makes what is new of an edit.
func (im *image) prepare(ctx context.Context, l *vdisk.Layout) (moves map[string]string, err error) {
	old := make(map[int64]*region)
	for _, g := range im.regions {
		old[g.Start] = g
	}
	moves = make(map[string]string)
	for i := range l.Regions {
		r := &l.Regions[i]
		split, body := bodyOf(r)
		g := old[r.Start]
		if g == nil || g.DSize != r.DSize || g.PSize != r.PSize || g.split != split {
			if err := im.makeRegion(ctx, r); err != nil {
				return nil, fmt.Errorf("region %s: %w", r.Name, err)
			}
			continue
		}
		if err := im.copyTo(ctx, g, r.Start, g.Length, r.Length); err != nil {
			return nil, fmt.Errorf("region %s: %w", r.Name, err)
		}
		if g.Name != r.Name {
			moves[r.Name] = g.Name
			if body {
				moves[bodyPrefix+r.Name] = bodyPrefix + g.Name
			}
		}
	}
	return moves, nil
}

// makeRegion makes a new file of what the disk has at the place of a region.
func (im *image) makeRegion(ctx context.Context, r *vdisk.Region) error {
	h, dir := im.cat.host, im.dir()
	if err := im.cat.emptyFile(ctx, dir+"/"+newPrefix+r.Name, r); err != nil {
		return err
	}
	g := &region{Region: *r, h: h, path: dir + "/" + newPrefix + r.Name}
	defer func() { g.close(context.WithoutCancel(ctx)) }()
	var err error
	if g.data, err = h.open(ctx, g.path, ninep.ORDWR); err != nil {
		return err
	}
	var body bool
	if g.split, body = bodyOf(r); body {
		g.bodyPath = dir + "/" + newPrefix + bodyPrefix + r.Name
		if g.body, err = h.openBody(ctx, g.bodyPath, r.Length); err != nil {
			return err
		}
	}
	return im.copyTo(ctx, g, r.Start, 0, r.Length)
}

// copyBytes is how much is copied at once.
const copyBytes = 1 << 20

// copyTo copies to a region, whose start on the disk that is, what the disk
// has from one offset of it to another.
func (im *image) copyTo(ctx context.Context, g *region, start, from, to int64) error {
	to = min(to, im.layout.Size-start)
	if from >= to {
		return nil
	}
	buf := make([]byte, min(copyBytes, to-from))
	return im.each(start+from, to-from, func(old *region, off, n int64) error {
		return old.eachData(ctx, off, n, func(off, n int64) error {
			for n > 0 {
				p := buf[:min(n, int64(len(buf)))]
				if err := old.readAt(ctx, p, off); err != nil {
					return err
				}
				if err := g.writeAt(ctx, p, old.Start+off-start); err != nil {
					return err
				}
				off, n = off+int64(len(p)), n-int64(len(p))
			}
			return nil
		})
	})
}

// errData is why a disk does not get shorter.
var errData = &ninep.Error{Text: "the disk has data behind its new end", Errno: ninep.ErrInvalid.Errno}

// Resize gives an image another size. It refuses to take away what is not empty,
// but with force. While somebody writes to the image it can only grow; then it is
// cut as it was, with a gap at its end, until the last writer has left. Clients
// see the new size when they open the disk anew.
func (c *Catalogue) Resize(ctx context.Context, name string, size int64, force bool) error {
	if err := checkSize(size); err != nil {
		return err
	}
	err := c.with(ctx, name, func(ctx context.Context, im *image) error {
		err := im.quiet(ctx, func(ctx context.Context) error {
			if err := im.mayLose(ctx); err != nil {
				return err
			}
			if !force && size < im.layout.Size {
				if _, _, err := im.nextData(ctx, size); err != io.EOF {
					return errors.Join(err, errData)
				}
			}
			s, err := vdisk.NewSurvey(source{ctx, im, size}, im.layout.Exact())
			if err != nil {
				return err
			}
			// What is left out of the new layout must be so of the disk.
			for i := range s.Layout.Regions {
				r := &s.Layout.Regions[i]
				if _, body := bodyOf(r); r.FreeOmitted && !body && !im.wasTrimmed(r) {
					r.FreeOmitted, r.Encoder, r.Whole = false, "plain", keptUntrimmed
				}
			}
			if err := im.recut(ctx, s.Layout); err != nil {
				return err
			}
			return c.host.sync(ctx)
		})
		if isInUse(err) && size > im.size.Load() {
			err = im.alone(ctx, func(ctx context.Context) error { return im.grow(ctx, size) })
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("resize %s: %w", name, err)
	}
	return nil
}

// grow makes an image longer that somebody may be writing to, whose table may be
// half written: nothing is made of that now. The caller has all of the gate.
func (im *image) grow(ctx context.Context, size int64) error {
	if im.gone {
		return errGone
	}
	if err := im.mayLose(ctx); err != nil {
		return err
	}
	l := *im.layout
	l.Regions = slices.Clone(l.Regions)
	last := &l.Regions[len(l.Regions)-1]
	switch kind := partition.Kind(last.Kind); {
	case size <= l.Size:
		return nil // somebody was faster
	case kind == partition.KindGap, kind == partition.KindDisk:
		last.Length += size - l.Size
	default:
		l.Regions = append(l.Regions, vdisk.Region{
			Name: fmt.Sprintf("%s-%d", partition.KindGap, l.Size), Start: l.Size, Length: size - l.Size,
			Kind: string(partition.KindGap), Encoder: "plain", DSize: maxDSize, PSize: psize,
		})
	}
	l.Size = size
	if err := im.unsettle(ctx); err != nil {
		return err
	}
	im.table.Store(true)
	return errors.Join(im.recut(ctx, &l), im.cat.host.sync(ctx))
}

// wasTrimmed tells whether free blocks are left out of a region that the image
// has too.
func (im *image) wasTrimmed(r *vdisk.Region) bool {
	for _, g := range im.regions {
		if g.Start == r.Start && g.Length == r.Length {
			return g.FreeOmitted && g.Encoder == r.Encoder
		}
	}
	return false
}
