package tree

import (
	"context"
	"iter"
	"sync"
	"syscall"
	"time"

	"strata/internal/ninep"
)

// A handle is an open file.
type handle struct {
	n     *node
	uid   string // who changes it
	end   bool   // writes go to the end
	lease *lease // nil unless the file is for one at a time
	holds bool   // the file stays though its name may go
}

// Close implements ninep.Handle.
func (h *handle) Close(ctx context.Context) error {
	if !h.release() {
		return nil
	}
	if err := h.n.t.gate.enter(ctx); err != nil {
		return err
	}
	defer h.n.t.gate.leave()
	return h.n.file.Remove(ctx, h.uid)
}

// release gives back what the handle has, and tells whether the file is to be
// removed.
func (h *handle) release() bool {
	if h.lease != nil {
		h.n.t.leases.giveBack(h.lease)
	}
	return h.holds && h.n.file.Release()
}

// drop is Close for one whom the gate has let in.
func (h *handle) drop(ctx context.Context) {
	if h.release() {
		h.n.file.Remove(ctx, h.uid) // or the next who opens the file system does
	}
}

// use returns an error if the file is somebody else's by now.
func (h *handle) use() error {
	if h.lease == nil {
		return nil
	}
	return h.n.t.leases.renew(h.lease)
}

// ReadAt implements ninep.Reader.
func (h *handle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := h.n.t.gate.enter(ctx); err != nil {
		return 0, err
	}
	defer h.n.t.gate.leave()
	if err := h.use(); err != nil {
		return 0, err
	}
	return h.n.file.ReadAt(ctx, p, off)
}

// Lend implements ninep.Lender: the pieces are the cache's, whose blocks do not
// change.
func (h *handle) Lend(bufs [][]byte, n int, off int64) ([][]byte, func(), bool) {
	if h.lease != nil || !h.n.t.gate.tryEnter() {
		return bufs, nil, false
	}
	defer h.n.t.gate.leave()
	bufs, ok := h.n.file.Glance(bufs, n, off)
	return bufs, nil, ok
}

// ReadCached implements ninep.CachedReader.
func (h *handle) ReadCached(p []byte, off int64) (n int, ok bool) {
	pieces, _, ok := h.Lend(nil, len(p), off)
	for _, b := range pieces {
		n += copy(p[n:], b)
	}
	return n, ok
}

// WriteAt implements ninep.Writer.
func (h *handle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := h.n.t.gate.enter(ctx); err != nil {
		return 0, err
	}
	defer h.n.t.gate.leave()
	if err := h.use(); err != nil {
		return 0, err
	}
	if h.end {
		return h.n.file.Append(ctx, p, h.uid)
	}
	return h.n.file.WriteAt(ctx, p, off, h.uid)
}

// Sync implements ninep.Syncer.
func (h *handle) Sync(ctx context.Context) error { return h.n.Sync(ctx) }

// A dirHandle is an open directory.
type dirHandle struct{ n *node }

// Close implements ninep.Handle.
func (h *dirHandle) Close(context.Context) error { return nil }

// Sync implements ninep.Syncer.
func (h *dirHandle) Sync(ctx context.Context) error { return h.n.Sync(ctx) }

// ReadDir implements ninep.DirReader.
func (h *dirHandle) ReadDir(ctx context.Context, cookie uint64) iter.Seq2[ninep.Dir, error] {
	return func(yield func(ninep.Dir, error) bool) {
		if err := h.n.t.gate.enter(ctx); err != nil {
			yield(ninep.Dir{}, err)
			return
		}
		defer h.n.t.gate.leave()
		inside := h.n.at(nil) // in the space of what is in the directory
		for info, err := range h.n.file.ListAfter(ctx, cookie) {
			if err != nil {
				yield(ninep.Dir{}, err)
				return
			}
			if h.n.hides(&info.DirEntry) {
				continue
			}
			if !yield(inside.dir(&info), nil) {
				return
			}
		}
		if h.n.isCtl(CtlName) && cookie < ctlCookie {
			yield(h.n.ctl().dir(), nil)
		}
	}
}

// leaseTime is for how long a file that is for one at a time belongs to who
// has it open and does nothing.
const leaseTime = 5 * time.Minute

// errBroken is for who had a file when its time was over and another took it.
var errBroken = &ninep.Error{Text: "exclusive lock broken", Errno: syscall.EIO}

// leases say who has which files that are for one at a time.
type leases struct {
	now  func() time.Time
	mu   sync.Mutex // guards held and the leases in it
	held map[uint64]*lease
}

// A lease is the right to a file, whose qid's path that is, until some time,
// or as long as nobody else wants it.
type lease struct {
	path  uint64
	until time.Time
}

// take returns a lease of a file, unless somebody has it.
func (l *leases) take(path uint64) (*lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if old := l.held[path]; old != nil && now.Before(old.until) {
		return nil, ninep.ErrExclusive
	}
	n := &lease{path: path, until: now.Add(leaseTime)}
	l.held[path] = n
	return n, nil
}

// renew begins the time of a lease anew, unless the file is somebody else's.
func (l *leases) renew(x *lease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[x.path] != x {
		return errBroken
	}
	x.until = l.now().Add(leaseTime)
	return nil
}

// giveBack ends a lease.
func (l *leases) giveBack(x *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[x.path] == x {
		delete(l.held, x.path)
	}
}
