package hashtree

import (
	"context"
	"errors"
	"fmt"

	"strata/venti"
)

// A Writer makes a tree from a stream. It is what Write is for files that
// can be read anywhere; the same bytes give the same tree. Its methods must
// not be called at once.
type Writer struct {
	b      *builder
	size   int64 // bytes so far
	cell   *cell // being filled, or nil at the start of one
	count  int64 // entries so far
	err    error // the first one
	closed bool
}

var errClosed = errors.New("writer is closed")

// NewWriter returns a writer of an empty file. Its Close must be called;
// when ctx ends, so does the work.
func NewWriter(ctx context.Context, st venti.Store, cfg Config) (*Writer, error) {
	b, err := newBuilder(ctx, st, cfg)
	if err != nil {
		return nil, fmt.Errorf("write tree: %w", err)
	}
	return &Writer{b: b}, nil
}

// Size returns how many bytes were written and skipped.
func (w *Writer) Size() int64 { return w.size }

// Write appends p. It keeps no reference to it.
func (w *Writer) Write(p []byte) (n int, err error) {
	if err := w.ready(int64(len(p))); err != nil {
		return 0, err
	}
	for n < len(p) {
		room, err := w.room()
		if err != nil {
			return n, w.fail(err)
		}
		k := int(min(room, int64(len(p)-n)))
		c := w.cell
		c.buf = append(c.buf, p[n:n+k]...)
		w.mark(int64(k))
		n += k
		if err := w.advance(int64(k)); err != nil {
			return n, w.fail(err)
		}
	}
	return n, nil
}

// mark adds the n bytes after w.size to the cell's data.
func (w *Writer) mark(n int64) {
	c, ds := w.cell, int64(w.b.sh.dsize)
	if k := len(c.data); k > 0 && (c.data[k-1].end == w.size || (c.data[k-1].end-1)/ds == w.size/ds) {
		c.data[k-1].end = w.size + n
	} else {
		c.data = append(c.data, extent{w.size, w.size + n})
	}
}

// Skip appends n zero bytes, at a cost that does not grow with n.
func (w *Writer) Skip(n int64) error {
	if n < 0 {
		return fmt.Errorf("write tree: skip %d bytes", n)
	}
	if err := w.ready(n); err != nil {
		return err
	}
	ds := int64(w.b.sh.dsize)
	for n > 0 {
		if w.cell == nil {
			first, _ := w.b.cellAt((w.size + n) / ds)
			if hole := first*ds - w.size; hole > 0 {
				if err := w.b.skip(hole/ds, hole); err != nil {
					return w.fail(err)
				}
				w.size += hole
				n -= hole
				continue
			}
		}
		room, err := w.room()
		if err != nil {
			return w.fail(err)
		}
		k := min(room, n)
		w.extend(k)
		n -= k
		if err := w.advance(k); err != nil {
			return w.fail(err)
		}
	}
	return nil
}

// extend makes the cell's buffer n bytes longer. Of these, it clears those
// in leaves that may have data before or after.
func (w *Writer) extend(n int64) {
	c, ds := w.cell, int64(w.b.sh.dsize)
	lo := int64(len(c.buf))
	hi := lo + n
	if hi > int64(cap(c.buf)) {
		// Twice as long, as append would, but no longer than a cell.
		buf := make([]byte, lo, min(max(hi, 2*lo), w.b.cell*ds))
		copy(buf, c.buf)
		c.buf = buf
	}
	c.buf = c.buf[:hi]
	clear(c.buf[lo:min((lo+ds-1)/ds*ds, hi)])
	clear(c.buf[max(hi/ds*ds, lo):])
}

// ready tells whether n more bytes can be written.
func (w *Writer) ready(n int64) error {
	switch {
	case w.err != nil:
		return w.err
	case w.closed:
		return fmt.Errorf("write tree: %w", errClosed)
	case n > venti.MaxEntrySize-w.size || w.b.sh.depth(w.size+n) > venti.MaxDepth:
		return w.fail(fmt.Errorf("%w: more than %d bytes", ErrTooBig, w.size))
	}
	return nil
}

func (w *Writer) fail(err error) error {
	w.err = fmt.Errorf("write tree: %w", err)
	return w.err
}

// room returns how many bytes the cell at w.size still takes, at least one.
func (w *Writer) room() (int64, error) {
	ds := int64(w.b.sh.dsize)
	if w.cell == nil {
		c, err := w.b.take(w.size / ds)
		if err != nil {
			return 0, err
		}
		w.cell = c
	}
	_, end := w.b.cellAt(w.cell.leaf)
	return (end-w.cell.leaf)*ds - int64(len(w.cell.buf)), nil
}

// advance takes note of n bytes that were added to the cell, and submits it
// when it is full.
func (w *Writer) advance(n int64) error {
	w.size += n
	c, ds := w.cell, int64(w.b.sh.dsize)
	c.bytes = int64(len(c.buf))
	c.n = (c.bytes + ds - 1) / ds
	if _, end := w.b.cellAt(c.leaf); c.n < end-c.leaf || c.bytes < c.n*ds {
		return nil
	}
	w.cell = nil
	return w.b.submit(c)
}

// WriteEntry appends e to a directory. Entries do not cross leaves.
func (w *Writer) WriteEntry(e venti.Entry) error {
	if !w.b.cfg.Dir {
		return errors.New("write entry: not a directory")
	}
	var buf [venti.EntrySize]byte
	p, err := e.Pack(buf[:0])
	if err != nil {
		return fmt.Errorf("write tree: %w", err)
	}
	if _, err := w.Write(p); err != nil {
		return err
	}
	w.count++
	return w.Skip(w.b.sh.entryOffset(w.count) - w.size)
}

// Close stores what is left and returns the entry of the file, on the terms
// of Write. It returns the first error of any call, and must be called
// after one, too: it waits until the work has stopped. Later calls fail.
func (w *Writer) Close() (venti.Entry, Stats, error) {
	if w.closed {
		return venti.Entry{}, Stats{}, fmt.Errorf("write tree: %w", errClosed)
	}
	w.closed = true
	e, stats, err := w.b.finish(w.cell, w.size, w.err)
	if w.err != nil {
		err = w.err // finish names the package once more
	}
	return e, stats, err
}
