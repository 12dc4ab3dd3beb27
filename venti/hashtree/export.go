package hashtree

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// Export writes the file to w, but for its holes: w must be as good as
// zeros there. Runs of leaves are written in one call of WriteAt, in no order
// and several at once. progress, if not nil, is called now and then with how
// many bytes of the file, holes included, are done; its calls do not overlap.
// Export returns the number of bytes that it wrote.
func (r *Reader) Export(ctx context.Context, w io.WriterAt, progress func(done int64)) (written int64, err error) {
	p := r.ptr
	ds, size := int64(p.sh.dsize), r.Size()
	level := min(1, p.e.Depth) // of the blocks that are handed out
	var (
		mu   sync.Mutex // guards done and written, and calls of progress
		done int64
	)
	account := func(covered, n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += covered
		written += n
		if progress != nil && covered > 0 {
			progress(done)
		}
	}
	// Blocks are found in order by whoever is free, and read in parallel.
	var find sync.Mutex // guards from
	from, last := int64(0), (p.sh.leaves(size)-1)/p.sh.under[level]
	width := int(min(int64(r.parallel), last+1))
	err = each(ctx, width, width, func(ctx context.Context, _ int) error {
		var buf []byte
		for {
			find.Lock()
			old := from
			block := int64(-1)
			var err error
			if from <= last {
				block, err = p.next(ctx, level, from)
			}
			if from = last + 1; block >= 0 {
				from = block + 1
			}
			find.Unlock()
			if err != nil {
				return err
			}
			start := func(block int64) int64 { return min(block*p.sh.under[level], p.sh.leaves(size)) * ds }
			if block < 0 {
				account(max(0, size-min(start(old), size)), 0)
				return nil
			}
			account(start(block)-start(old), 0)
			end := min(start(block+1), size)
			if buf == nil {
				buf = make([]byte, min(p.sh.under[level]*ds, max(ds, maxCellBytes/ds*ds), size))
			}
			n, err := r.exportRange(ctx, w, start(block), end, buf)
			account(end-start(block), n)
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		err = fmt.Errorf("export tree: %w", err)
	}
	return written, err
}

// exportRange writes the data of a range of whole leaves under one level-1
// block, in pieces that fit buf.
func (r *Reader) exportRange(ctx context.Context, w io.WriterAt, off, end int64, buf []byte) (written int64, err error) {
	for off < end {
		start, stop, err := r.NextData(ctx, off)
		if err == io.EOF || err == nil && start >= end {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		stop = min(stop, end, start+int64(len(buf)))
		b := buf[:stop-start]
		if err := r.readLeaves(ctx, b, start); err != nil {
			return written, err
		}
		n, err := w.WriteAt(b, start)
		written += int64(n)
		if err != nil {
			return written, err
		}
		off = stop
	}
	return written, nil
}

// Stream writes the whole file to w in order, holes as zeros, and returns
// the number of bytes that w took. It reads ahead of what it writes.
func (r *Reader) Stream(ctx context.Context, w io.Writer) (written int64, err error) {
	type piece struct {
		buf  []byte
		err  error
		done chan struct{}
	}
	var (
		size    = r.Size()
		ds      = int64(r.ptr.sh.dsize)
		bytes   = min(max(ds, streamBytes/ds*ds), size)
		ordered = make(chan *piece, r.parallel)
		free    = make(chan []byte, r.parallel+2)
		wg      sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(ctx)
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		defer close(ordered)
		for off := int64(0); off < size; off += bytes {
			p := &piece{done: make(chan struct{})}
			select {
			case p.buf = <-free:
			default:
				p.buf = make([]byte, bytes)
			}
			p.buf = p.buf[:min(bytes, size-off)]
			select {
			case ordered <- p:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				defer close(p.done)
				p.err = r.readLeaves(ctx, p.buf, off)
			})
		}
	})
	for p := range ordered {
		<-p.done
		if p.err != nil {
			return written, fmt.Errorf("read tree at %d: %w", written, p.err)
		}
		n, err := w.Write(p.buf)
		written += int64(n)
		if err != nil {
			return written, err
		}
		select {
		case free <- p.buf[:cap(p.buf)]:
		default:
		}
	}
	if err := ctx.Err(); err != nil && written < size {
		return written, err
	}
	return written, nil
}

// streamBytes is how much of the file one piece of a Stream holds.
const streamBytes = 1 << 20
