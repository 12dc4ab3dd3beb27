package vacfs

import (
	"context"
	"io"
	"iter"
	"sync"

	"strata/internal/ninep"
	"strata/vac"
)

// A dirHandle is an open directory.
type dirHandle struct {
	n *node

	mu  sync.Mutex // guards the field below
	bad error      // the first of what could not be read
}

func (h *dirHandle) Close(context.Context) error { return nil }

// ReadDir yields the entries that can be read, and at the end says if some
// could not.
func (h *dirHandle) ReadDir(ctx context.Context, cookie uint64) iter.Seq2[ninep.Dir, error] {
	return func(yield func(ninep.Dir, error) bool) {
		if cookie == 0 {
			h.setBad(nil)
		}
		for file, err := range h.n.file.ReadDirFrom(ctx, cookie) {
			if err != nil {
				h.setBad(err)
				continue
			}
			d, err := h.n.child(file).Stat(ctx)
			if d.Cookie = file.Cookie(); !yield(d, err) || err != nil {
				return
			}
		}
		h.mu.Lock()
		err := h.bad
		h.mu.Unlock()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			yield(ninep.Dir{}, readError(err))
		}
	}
}

// setBad keeps the first error, until nil clears it.
func (h *dirHandle) setBad(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bad == nil || err == nil {
		h.bad = err
	}
}

const (
	// aheadBytes is how much of a file is fetched before it is asked for, in
	// pieces of half of it. A store over a socket gives a piece in some
	// milliseconds.
	aheadBytes = 1 << 20
	pieceBytes = aheadBytes / 2

	// maxAhead is how many pieces are fetched at once, for all files.
	maxAhead = 8
)

// A fileHandle is an open file with contents. It reads ahead for who reads
// forward and has had to wait.
type fileHandle struct {
	fs   *FS
	file *vac.File

	mu     sync.Mutex         // guards the fields below
	next   int64              // where the reads so far end
	until  int64              // what is fetched up to here, or will be; 0 while nobody has waited
	busy   bool               // a piece is being fetched
	cancel context.CancelFunc // ends that; nil before the first
}

func (h *fileHandle) Close(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cancel != nil {
		h.cancel()
	}
	h.busy = true // no piece is begun any more
	return nil
}

// ReadCached implements ninep.CachedReader.
func (h *fileHandle) ReadCached(p []byte, off int64) (n int, ok bool) {
	r, err := h.fs.reader(h.file)
	if err != nil {
		return 0, false
	}
	if n, ok = r.ReadCached(p, off); ok {
		h.note(off, off+int64(n), false)
	}
	return n, ok
}

// Lend implements ninep.Lender: blocks that are kept are sent from where they
// are.
func (h *fileHandle) Lend(bufs [][]byte, n int, off int64) (lent [][]byte, done func(), ok bool) {
	r, err := h.fs.reader(h.file)
	if err != nil {
		return bufs, nil, false
	}
	if lent, ok = r.Lend(bufs, n, off); ok {
		h.note(off, off+int64(n), false)
	}
	return lent, nil, ok
}

func (h *fileHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	r, err := h.fs.reader(h.file)
	if err != nil {
		return 0, err
	}
	n, ok := r.ReadCached(p, off)
	h.note(off, off+int64(len(p)), !ok)
	if ok {
		return n, nil
	}
	n, err = r.ReadAtContext(ctx, p, off)
	if err != nil && err != io.EOF {
		return n, readError(err)
	}
	return n, err
}

// note takes note of a read of [off, end), and fetches what comes next if it
// should. Reads that are in flight together may come in any order.
func (h *fileHandle) note(off, end int64, waits bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := h.next == 0
	if off < h.next-aheadBytes || off > h.next+aheadBytes {
		h.until, h.next = 0, end
		return
	}
	h.next = max(h.next, end)
	if first {
		return
	}
	if waits || h.until > 0 {
		h.until = max(h.until, h.next)
	}
	size := h.file.Size()
	if h.until == 0 || h.busy || h.until-h.next > pieceBytes || h.until >= size {
		return
	}
	h.fetchLocked(h.until, min(h.until+pieceBytes, size))
}

// fetchLocked starts to fetch [from, to), unless enough is being fetched.
// h.mu must be held.
func (h *fileHandle) fetchLocked(from, to int64) {
	var buf []byte
	select {
	case buf = <-h.fs.ahead:
	default:
		return
	}
	if h.cancel != nil {
		h.cancel() // of the piece before, which is done
	}
	var ctx context.Context
	ctx, h.cancel = context.WithCancel(h.fs.ctx)
	h.until, h.busy = to, true
	h.fs.wg.Go(func() { // FS.Close waits for it
		if buf == nil {
			buf = make([]byte, pieceBytes)
		}
		cached := h.fetch(ctx, buf[:to-from], from)
		h.fs.ahead <- buf
		h.mu.Lock()
		defer h.mu.Unlock()
		if cached {
			h.until = 0 // until somebody waits again
		}
		if ctx.Err() == nil {
			h.busy = false
		}
	})
}

// fetch brings what lies at off into the cache. It returns whether it was
// there. What cannot be read is for the read itself to find out.
func (h *fileHandle) fetch(ctx context.Context, buf []byte, off int64) (cached bool) {
	r, err := h.fs.reader(h.file)
	if err != nil {
		return true
	}
	if _, cached = r.Lend(nil, len(buf), off); !cached {
		_, err = r.ReadAtContext(ctx, buf, off)
	}
	return cached || err != nil && err != io.EOF
}
