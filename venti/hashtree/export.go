package hashtree

import (
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Export writes the file to w, but for its holes: w must be as good as
// zeros there. Runs of leaves are written in one call of WriteAt, in no order
// and several at once. progress, if not nil, is called now and then with how
// many bytes of the file, holes included, are done; its calls do not overlap.
// Export returns the number of bytes that it wrote.
func (r *Reader) Export(ctx context.Context, w io.WriterAt, progress func(done int64)) (written int64, err error) {
	p := r.ptr
	level := min(1, p.e.Depth) // of the blocks that are handed out
	bytes := p.sh.under[level] * int64(p.sh.dsize)
	start := func(block int64) int64 { return min(block*bytes, r.Size()) }

	var mu sync.Mutex // guards done and written, and calls of progress
	var done int64
	account := func(covered, n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += covered
		written += n
		if progress != nil && covered > 0 {
			progress(done)
		}
	}
	blocks := make(chan int64) // blocks that are not holes
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(blocks)
		for from := int64(0); start(from) < r.Size(); {
			block, err := p.next(ctx, level, from)
			if err != nil {
				return err
			}
			if block < 0 {
				account(r.Size()-start(from), 0)
				break
			}
			account(start(block)-start(from), 0)
			select {
			case blocks <- block:
			case <-ctx.Done():
				return ctx.Err()
			}
			from = block + 1
		}
		return nil
	})
	for range r.parallel {
		g.Go(func() error {
			var buf []byte
			for block := range blocks {
				if buf == nil {
					buf = make([]byte, min(bytes, max(1, maxCellBytes/int64(p.sh.dsize))*int64(p.sh.dsize), r.Size()))
				}
				n, err := r.exportRange(ctx, w, start(block), start(block+1), buf)
				account(start(block+1)-start(block), n)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return written, fmt.Errorf("export tree: %w", err)
	}
	return written, nil
}

// exportRange writes the data of a range of whole leaves, in pieces that fit
// buf.
func (r *Reader) exportRange(ctx context.Context, w io.WriterAt, off, end int64, buf []byte) (written int64, err error) {
	ds := int64(r.ptr.sh.dsize)
	for off < end {
		// stop is the end of the run of data that begins at off.
		stop := off
		for stop < end && stop-off < int64(len(buf)) {
			s, err := r.ptr.score(ctx, 0, stop/ds)
			if err != nil {
				return written, err
			}
			if isHole(s) {
				break
			}
			stop = min(stop+ds, end)
		}
		if stop == off {
			off = min(off+ds, end)
			continue
		}
		b := buf[:stop-off]
		if err := r.readLeaves(ctx, b, off); err != nil {
			return written, err
		}
		n, err := w.WriteAt(b, off)
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
