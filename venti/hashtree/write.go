package hashtree

import (
	"context"
	"fmt"
	"io"

	"strata/venti"
)

// A DataSeeker is a source that knows where it has holes. It is an optional
// ability of what Write reads, found by type assertion.
type DataSeeker interface {
	// NextData returns the first range [start, end) at or after off that may
	// hold a byte that is not zero: all before start are zeros. It returns
	// io.EOF when only zeros follow. Offsets rise from call to call, and calls
	// do not overlap each other, though they do calls of ReadAt.
	NextData(off int64) (start, end int64, err error)
}

// Write stores size bytes of src, which may be a DataSeeker, as a tree, and
// returns its entry: the tree's blocks have been acknowledged, but are not
// durable before the store is synced. src.ReadAt is called for large ranges
// in rising order, from several goroutines at once; ranges that a DataSeeker
// leaves out are not read, but for the rest of a leaf between two ranges.
//
// After an error there is no entry. Blocks may have been stored; no pointer
// block among them names one that was not.
func Write(ctx context.Context, st venti.Store, src io.ReaderAt, size int64, cfg Config) (venti.Entry, Stats, error) {
	b, err := newBuilder(ctx, st, cfg)
	if err != nil {
		return venti.Entry{}, Stats{}, fmt.Errorf("write tree: %w", err)
	}
	b.src = src
	var last *cell
	if size < 0 || size > venti.MaxEntrySize || b.sh.depth(size) > venti.MaxDepth {
		err = fmt.Errorf("%w: %d bytes", ErrTooBig, size)
	} else {
		last, err = b.cut(size)
	}
	return b.finish(last, size, err)
}

// cut submits all cells of b.src but for the last one, which it returns if
// the file ends in a cell.
func (b *builder) cut(size int64) (last *cell, err error) {
	ds, leaves := int64(b.sh.dsize), b.sh.leaves(size)
	next := b.extents(size)
	for leaf := int64(0); leaf < leaves; {
		x, err := next(leaf * ds)
		if err == io.EOF {
			return nil, b.skip(leaves-leaf, size-leaf*ds)
		}
		if err != nil {
			return nil, err
		}
		first, end := b.cellAt(x.start / ds)
		end = min(end, leaves)
		if first > leaf {
			if err := b.skip(first-leaf, (first-leaf)*ds); err != nil {
				return nil, err
			}
		}
		leaf = end
		c, err := b.take(first)
		if err != nil {
			return nil, err
		}
		c.n, c.load = end-first, true
		c.bytes = min(end*ds, size) - first*ds
		for off := first * ds; off < first*ds+c.bytes; {
			x, err := next(off)
			if err == io.EOF || err == nil && x.start >= first*ds+c.bytes {
				break
			}
			if err != nil {
				return nil, err
			}
			x.end = min(x.end, first*ds+c.bytes)
			if n := len(c.data); n > 0 && (c.data[n-1].end-1)/ds == x.start/ds {
				c.data[n-1].end = x.end
			} else {
				c.data = append(c.data, x)
			}
			off = x.end
		}
		if int64(cap(c.buf)) < c.bytes {
			c.buf = make([]byte, c.bytes)
		}
		c.buf = c.buf[:c.bytes]
		if leaf == leaves {
			return c, nil
		}
		if err := b.submit(c); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// extents returns a function that gives the first range of data at or after
// off, or io.EOF, asking the source as seldom as it can.
func (b *builder) extents(size int64) func(off int64) (extent, error) {
	seeker, ok := b.src.(DataSeeker)
	if !ok {
		return func(off int64) (extent, error) { return extent{off, size}, nil }
	}
	var x extent
	var err error
	return func(off int64) (extent, error) {
		if err != nil {
			return extent{}, err
		}
		if x.end <= off {
			x.start, x.end, err = seeker.NextData(off)
			switch {
			case err == io.EOF:
			case err != nil:
				err = fmt.Errorf("find data after %d: %w", off, err)
			case x.start >= size:
				err = io.EOF
			case x.end <= x.start || x.end <= off:
				err = fmt.Errorf("find data after %d: got %d to %d", off, x.start, x.end)
			}
			x.end = min(x.end, size)
		}
		return extent{max(x.start, off), x.end}, err
	}
}
