package hashtree

import (
	"context"
	"sync"
)

// An ahead fetches what a caller that reads forward will ask for next. The
// store is asked for whole windows, which are handed out as they are read.
type ahead struct {
	r      *Reader
	window int64 // bytes in a window: whole leaves

	ctx    context.Context // ends with close; outlives the read that starts a window
	cancel context.CancelFunc
	wg     sync.WaitGroup // waits for the windows being fetched

	mu      sync.Mutex // guards the fields below
	closed  bool
	next    int64     // where the last read ended
	windows []*window // at most two, rising, without a gap
}

// A window is a part of the file that is being fetched, or has been.
type window struct {
	off  int64
	data []byte
	done chan struct{} // closed when data and err are set
	err  error
}

func newAhead(r *Reader, bytes int) *ahead {
	ds := int64(r.ptr.sh.dsize)
	// Half is read while the other half is fetched.
	a := &ahead{r: r, window: max(1, int64(bytes)/2/ds) * ds}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

func (a *ahead) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.wg.Wait()
}

// read fills p, which lies within the file, from windows where they have it.
func (a *ahead) read(ctx context.Context, p []byte, off int64) error {
	windows := a.note(off, off+int64(len(p)))
	for _, w := range windows {
		end := w.off + int64(len(w.data))
		if len(p) == 0 || end <= off || w.off >= off+int64(len(p)) {
			continue
		}
		if off < w.off {
			if err := a.r.readLeaves(ctx, p[:w.off-off], off); err != nil {
				return err
			}
			p, off = p[w.off-off:], w.off
		}
		select {
		case <-w.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if w.err != nil {
			break // the read itself will find out whether it still fails
		}
		n := copy(p, w.data[off-w.off:])
		p, off = p[n:], off+int64(n)
	}
	return a.r.readLeaves(ctx, p, off)
}

// note takes note of a read and returns the windows that it may use. If the
// read goes on where the last one ended, it starts to fetch what follows.
func (a *ahead) note(off, end int64) []*window {
	a.mu.Lock()
	defer a.mu.Unlock()
	forward := off == a.next && off > 0
	a.next = end
	old := a.windows
	if !forward || a.closed {
		return old
	}
	var keep []*window
	at := end // where fetching goes on
	for _, w := range old {
		if e := w.off + int64(len(w.data)); e > end && w.off <= at {
			keep = append(keep, w)
			at = e
		}
	}
	if len(keep) == 0 {
		ds := int64(a.r.ptr.sh.dsize)
		at = (at + ds - 1) / ds * ds
	}
	for len(keep) < 2 && at < a.r.Size() {
		w := &window{off: at, data: make([]byte, min(a.window, a.r.Size()-at)), done: make(chan struct{})}
		keep = append(keep, w)
		at += int64(len(w.data))
		a.wg.Go(func() {
			defer close(w.done)
			w.err = a.r.readLeaves(a.ctx, w.data, w.off)
		})
	}
	a.windows = keep
	return append(old[:len(old):len(old)], keep...)
}
