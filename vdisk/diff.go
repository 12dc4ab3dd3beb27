package vdisk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"

	"golang.org/x/sync/errgroup"

	"strata/venti"
)

// A Range is a run of bytes of a disk.
type Range struct{ Off, Len int64 }

// End returns the offset of the first byte after r.
func (r Range) End() int64 { return r.Off + r.Len }

// Diff yields the ranges in which two disks differ, in order; what one has
// behind the end of the other differs. Regions that lie at the same place in
// both and are stored in the same way are compared by the scores in their
// pointer blocks, so that it takes as long as the difference is large; a
// difference there is one of blocks. Others are read. An error ends it.
func Diff(ctx context.Context, a, b *Image) iter.Seq2[Range, error] {
	return func(yield func(Range, error) bool) {
		var last Range
		stopped := false
		// emit joins ranges that touch.
		emit := func(r Range) error {
			if last.Len > 0 && last.End() == r.Off {
				last.Len += r.Len
				return nil
			}
			if last.Len > 0 && !yield(last, nil) {
				stopped = true
				return errStopped
			}
			last = r
			return nil
		}
		err := diff(ctx, a, b, emit)
		switch {
		case stopped:
		case err != nil:
			yield(Range{}, fmt.Errorf("diff of images %v and %v: %w", a.score, b.score, err))
		case last.Len > 0:
			yield(last, nil)
		}
	}
}

// errStopped ends a walk of which no more is wanted.
var errStopped = fmt.Errorf("stopped: %w", context.Canceled)

func diff(ctx context.Context, a, b *Image, emit func(Range) error) error {
	small := min(a.Size(), b.Size())
	for off, i := int64(0), 0; off < small; {
		for i < len(a.layout.Regions) && a.layout.Regions[i].Start < off {
			i++
		}
		if i < len(a.layout.Regions) && a.layout.Regions[i].Start == off {
			r := &a.layout.Regions[i]
			if j, ok := b.alike(r, a.entries[i].Depth); ok {
				err := walkNew(ctx, a.br, &a.entries[i], []*venti.Entry{&b.entries[j]}, func(x Range, _ bool) error {
					return emit(Range{off + x.Off, x.Len})
				})
				if err != nil {
					return fmt.Errorf("region %s: %w", r.Name, err)
				}
				off += r.Length
				continue
			}
		}
		// To where both may be alike again.
		end := small
		for i, r := range a.layout.Regions {
			if _, ok := b.alike(&r, a.entries[i].Depth); ok && r.Start > off {
				end = min(end, r.Start)
				break
			}
		}
		if err := diffBytes(ctx, a, b, Range{off, end - off}, emit); err != nil {
			return err
		}
		off = end
	}
	if n := max(a.Size(), b.Size()); n > small {
		return emit(Range{small, n - small})
	}
	return nil
}

// alike returns the index of the region that lies where r does and is stored
// in the same way, in a tree of that depth.
func (im *Image) alike(r *Region, depth int) (int, bool) {
	for i := range im.layout.Regions {
		s := &im.layout.Regions[i]
		if s.Start == r.Start && s.Length == r.Length && s.DSize == r.DSize && s.PSize == r.PSize && im.entries[i].Depth == depth {
			return i, true
		}
	}
	return 0, false
}

// diffBytes is Diff for a range by what is in it.
func diffBytes(ctx context.Context, a, b *Image, r Range, emit func(Range) error) error {
	bufs := [2][]byte{make([]byte, compareBytes), make([]byte, compareBytes)}
	for off := r.Off; off < r.End(); {
		// Where both have nothing there is nothing to compare.
		next := r.End()
		for _, im := range []*Image{a, b} {
			start, _, err := im.NextData(ctx, off)
			if err != nil && err != io.EOF {
				return err
			}
			if err == nil {
				next = min(next, start)
			}
		}
		if off = max(off, next/compareBlock*compareBlock); off >= r.End() {
			return nil
		}
		n := int(min(compareBytes, r.End()-off))
		for i, im := range []*Image{a, b} {
			if _, err := im.ReadAtContext(ctx, bufs[i][:n], off); err != nil && err != io.EOF {
				return err
			}
		}
		for at := 0; at < n; at += compareBlock {
			end := min(at+compareBlock, n)
			if bytes.Equal(bufs[0][at:end], bufs[1][at:end]) {
				continue
			}
			if err := emit(Range{off + int64(at), int64(end - at)}); err != nil {
				return err
			}
		}
		off += int64(n)
	}
	return nil
}

// walkNew calls f, in order, for the leaves of a tree that none of some others,
// of the same size and grid, has at the same place. hole tells that it is one
// of zeros, which is not stored.
func walkNew(ctx context.Context, br venti.BlockReader, e *venti.Entry, others []*venti.Entry, f func(r Range, hole bool) error) error {
	w := &newWalk{ctx, br, e, f}
	scores := make([]venti.Score, len(others))
	for i, o := range others {
		scores[i] = o.Score
	}
	return w.visit(e.Score, scores, e.Depth, 0, e.Size)
}

// A newWalk is one walk of walkNew.
type newWalk struct {
	ctx context.Context
	br  venti.BlockReader
	e   *venti.Entry
	f   func(Range, bool) error
}

func isHole(s venti.Score) bool { return s == venti.EmptyScore || s.IsZero() }

func (w *newWalk) visit(score venti.Score, others []venti.Score, depth int, off, length int64) error {
	for _, o := range others {
		if o == score || isHole(o) && isHole(score) {
			return nil
		}
	}
	if depth == 0 {
		return w.f(Range{off, length}, isHole(score))
	}
	// The others' blocks at the same time; what is not there has holes.
	blocks := make([][]venti.Score, 1+len(others))
	group, ctx := errgroup.WithContext(w.ctx)
	for i, s := range append([]venti.Score{score}, others...) {
		if isHole(s) {
			continue
		}
		group.Go(func() (err error) {
			blocks[i], err = w.pointers(ctx, s, depth)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	at := func(list []venti.Score, i int) venti.Score {
		if i < len(list) {
			return list[i]
		}
		return venti.EmptyScore
	}
	per := int64(w.e.DSize)
	for range depth - 1 {
		per *= int64(w.e.PSize / venti.ScoreSize)
	}
	longest := 0
	for _, b := range blocks {
		longest = max(longest, len(b))
	}
	below := make([]venti.Score, len(others))
	for i := 0; i < longest && int64(i)*per < length; i++ {
		for j := range below {
			below[j] = at(blocks[1+j], i)
		}
		from := int64(i) * per
		if err := w.visit(at(blocks[0], i), below, depth-1, off+from, min(per, length-from)); err != nil {
			return err
		}
	}
	return nil
}

// pointers reads a pointer block.
func (w *newWalk) pointers(ctx context.Context, s venti.Score, depth int) ([]venti.Score, error) {
	buf := make([]byte, w.e.PSize)
	n, err := w.br.ReadBlock(ctx, s, venti.DataType+venti.Type(depth), buf)
	if err != nil {
		return nil, fmt.Errorf("block %v: %w", s, err)
	}
	list := make([]venti.Score, n/venti.ScoreSize)
	for i := range list {
		list[i] = venti.Score(buf[i*venti.ScoreSize:])
	}
	return list, nil
}

// NewBytes returns how many bytes of blocks an image has that none of some
// others has at the same place, not counting pointers: what is at most freed if
// it goes and they stay.
func NewBytes(ctx context.Context, im *Image, others []*Image) (n int64, err error) {
	for i := range im.entries {
		var list []*venti.Entry
		for _, o := range others {
			if j, ok := o.alike(&im.layout.Regions[i], im.entries[i].Depth); ok {
				list = append(list, &o.entries[j])
			}
		}
		err := walkNew(ctx, im.br, &im.entries[i], list, func(r Range, hole bool) error {
			if !hole {
				n += r.Len
			}
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("image %v: region %s: %w", im.score, im.layout.Regions[i].Name, err)
		}
	}
	return n, nil
}
