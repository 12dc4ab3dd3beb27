package vdisk

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
)

// A changedSource is a disk of which all but some ranges is as an image has
// it, and is not read from the disk. What the image does not have since it
// was free then is read.
//
// BUG: where clusters of a file system do not lie on the grid of its blocks, as
// in some FAT file systems, one that was free in the image, and has been
// allocated since without being written to, reads as zeros if it shares a block
// with one that was not. Nothing that was ever written is lost.
type changedSource struct {
	src    Source
	base   *Image
	ranges []Range         // rising, apart from one another
	ctx    context.Context // of the import, which is all that the source is for
}

func newChangedSource(ctx context.Context, src Source, base *Image, changed []Range) (*changedSource, error) {
	s := &changedSource{src: src, base: base, ctx: ctx}
	sorted := slices.Clone(changed)
	slices.SortFunc(sorted, func(a, b Range) int {
		switch {
		case a.Off < b.Off:
			return -1
		case a.Off > b.Off:
			return 1
		}
		return 0
	})
	for _, r := range sorted {
		if r.Off < 0 || r.Len < 0 || r.Off > src.Size() {
			return nil, fmt.Errorf("changed range %d+%d lies outside the disk of %d bytes", r.Off, r.Len, src.Size())
		}
		r.Len = min(r.Len, src.Size()-r.Off) // whoever counts blocks counts a whole one at the end
		if n := len(s.ranges); n > 0 && r.Off <= s.ranges[n-1].End() {
			last := &s.ranges[n-1]
			last.Len = max(last.End(), r.End()) - last.Off
		} else if r.Len > 0 {
			s.ranges = append(s.ranges, r)
		}
	}
	return s, nil
}

func (s *changedSource) Size() int64 { return s.src.Size() }

// Unchanged asks the disk, if it can tell.
func (s *changedSource) Unchanged() error {
	if c, ok := s.src.(checkedSource); ok {
		return c.Unchanged()
	}
	return nil
}

// after returns the first changed range that ends after off, or an empty one
// at the end of the disk.
func (s *changedSource) after(off int64) Range {
	i := sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].End() > off })
	if i == len(s.ranges) {
		return Range{s.Size(), 0}
	}
	return s.ranges[i]
}

// origin says where a part of the disk comes from.
type origin int

const (
	fromDisk origin = iota
	fromBase
	fromNowhere // zeros
)

// segment returns where the disk comes from at off, and how far that goes.
func (s *changedSource) segment(off int64) (from origin, end int64, err error) {
	r := s.after(off)
	if r.Off <= off {
		return fromDisk, r.End(), nil
	}
	if off >= s.base.Size() {
		return fromDisk, r.Off, nil
	}
	i := s.base.at(off)
	region := &s.base.layout.Regions[i]
	end = min(r.Off, region.Start+region.Length)
	start, stop, err := s.base.readers[i].NextData(s.ctx, off-region.Start)
	if err == io.EOF {
		start, err = region.Length, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("base: region %s: %w", region.Name, err)
	}
	switch start += region.Start; {
	case start <= off:
		return fromBase, min(end, region.Start+stop), nil
	case region.FreeOmitted:
		return fromDisk, min(end, start), nil
	}
	return fromNowhere, min(end, start), nil
}

// ReadAt reads as io.ReaderAt does.
func (s *changedSource) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	if off >= s.Size() {
		return 0, io.EOF
	}
	if int64(len(p)) > s.Size()-off {
		p, err = p[:s.Size()-off], io.EOF
	}
	for n < len(p) {
		at := off + int64(n)
		from, end, serr := s.segment(at)
		if serr != nil {
			return n, serr
		}
		q := p[n : n+int(min(int64(len(p)-n), end-at))]
		m := len(q)
		switch from {
		case fromDisk:
			m, serr = s.src.ReadAt(q, at)
		case fromBase:
			m, serr = s.base.ReadAtContext(s.ctx, q, at)
		case fromNowhere:
			clear(q)
		}
		if m < len(q) {
			if serr == nil || serr == io.EOF {
				serr = io.ErrUnexpectedEOF
			}
			return n + m, serr
		}
		n += m
	}
	return n, err
}

// NextData implements Source.
func (s *changedSource) NextData(off int64) (start, end int64, err error) {
	for off < s.Size() {
		from, end, err := s.segment(off)
		if err != nil {
			return 0, 0, err
		}
		switch from {
		case fromBase:
			return off, end, nil
		case fromDisk:
			start, stop, err := s.src.NextData(off)
			if err != nil && err != io.EOF {
				return 0, 0, err
			}
			if err == nil && start < end {
				return max(start, off), min(stop, end), nil
			}
		}
		off = end
	}
	return 0, 0, io.EOF
}

// same returns what hashtree wants to know of a part: how far it is what the
// base has in its place. It is nil if the base has another part there.
func (s *changedSource) same(p *part) func(off int64) int64 {
	i := s.base.at(p.Start)
	if i == len(s.base.readers) {
		return nil
	}
	if r := &s.base.layout.Regions[i]; r.Start != p.Start || r.Length != p.Length || r.Name != p.Name {
		return nil
	}
	return func(off int64) int64 {
		end := min(s.after(p.Start+off).Off-p.Start, p.Length)
		if x, ok := p.free.next(off); ok {
			end = min(end, x.Off)
		}
		return max(end, off)
	}
}
