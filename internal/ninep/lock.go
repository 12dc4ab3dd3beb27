package ninep

import (
	"math"
	"sync"
)

// The values of Lock.Type.
const (
	lockRead   = 0
	lockWrite  = 1
	lockUnlock = 2
)

// The values of Rlock's status.
const (
	lockSuccess = 0
	lockBlocked = 1
)

// A Lock is an advisory lock of a range of a file, as Tlock asks for it.
type Lock struct {
	Type   uint8
	Start  uint64
	Length uint64 // 0 is to the end of the file, wherever that will be
	Proc   uint32
	Client string // who Proc is a process of
}

// end returns the last byte of the range.
func (l *Lock) end() uint64 {
	if l.Length == 0 || l.Length-1 > math.MaxUint64-l.Start {
		return math.MaxUint64
	}
	return l.Start + l.Length - 1
}

func (l *Lock) overlaps(o *Lock) bool { return l.Start <= o.end() && o.Start <= l.end() }

func (l *Lock) sameOwner(o *Lock) bool { return l.Proc == o.Proc && l.Client == o.Client }

// setEnd makes end the last byte of the range.
func (l *Lock) setEnd(end uint64) {
	if end == math.MaxUint64 {
		l.Length = 0
	} else {
		l.Length = end - l.Start + 1
	}
}

// locks holds the advisory locks of all clients of a server, by qid path.
type locks struct {
	mu   sync.Mutex // guards the fields below
	held map[uint64][]heldLock
}

type heldLock struct {
	Lock
	f *fid // whose end ends it
}

// conflict returns the first lock of another owner that l cannot be granted
// beside. t.mu must be held.
func (t *locks) conflictLocked(path uint64, l *Lock) *Lock {
	for i := range t.held[path] {
		h := &t.held[path][i].Lock
		if !h.sameOwner(l) && h.overlaps(l) && (h.Type == lockWrite || l.Type == lockWrite) {
			return h
		}
	}
	return nil
}

// set grants or releases l on behalf of f, as fcntl(2) does: the range
// becomes what l says, whatever locks of the same owner it was part of. It
// returns false if another's lock is in the way.
func (t *locks) set(f *fid, path uint64, l Lock) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.Type != lockUnlock && t.conflictLocked(path, &l) != nil {
		return false
	}
	var next []heldLock
	for _, h := range t.held[path] {
		if !h.sameOwner(&l) || !h.overlaps(&l) {
			next = append(next, h)
			continue
		}
		if h.Start < l.Start {
			left := h
			left.setEnd(l.Start - 1)
			next = append(next, left)
		}
		if h.end() > l.end() {
			right := h
			right.Start = l.end() + 1
			right.setEnd(h.end())
			next = append(next, right)
		}
	}
	if l.Type != lockUnlock {
		next = append(next, heldLock{l, f})
	}
	t.putLocked(path, next)
	return true
}

// putLocked keeps the locks of a path. t.mu must be held.
func (t *locks) putLocked(path uint64, held []heldLock) {
	if len(held) == 0 {
		delete(t.held, path)
		return
	}
	if t.held == nil {
		t.held = make(map[uint64][]heldLock)
	}
	t.held[path] = held
}

// get returns the lock that keeps l from being granted.
func (t *locks) get(path uint64, l Lock) (Lock, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.conflictLocked(path, &l); h != nil {
		return *h, true
	}
	return Lock{}, false
}

// release ends all locks that were set through f.
func (t *locks) release(f *fid) {
	o := f.io.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	held := t.held[o.qidPath]
	if len(held) == 0 {
		return
	}
	var next []heldLock
	for _, h := range held {
		if h.f != f {
			next = append(next, h)
		}
	}
	t.putLocked(o.qidPath, next)
}

// lock does a Tlock. A lock that cannot be had is never waited for: the
// client asks again.
func (c *conn) lock(r *request, f *fid) error {
	o := f.io.Load()
	if _, err := f.place(); err != nil || o == nil {
		return ErrFidUse // an attribute, or not open
	}
	switch l := r.f.Lock; {
	case l.Type > lockUnlock:
		return ErrInvalid
	case !c.srv.locks.set(f, o.qidPath, l):
		r.rep.Status = lockBlocked
	}
	return nil
}

// getlock does a Tgetlock.
func (c *conn) getlock(r *request, f *fid) error {
	o := f.io.Load()
	if _, err := f.place(); err != nil || o == nil {
		return ErrFidUse
	}
	l := r.f.Lock
	switch {
	case l.Type > lockUnlock:
		return ErrInvalid
	case l.Type == lockUnlock:
		l.Type = lockWrite // Linux's client does not say what the test is for
	}
	if held, ok := c.srv.locks.get(o.qidPath, l); ok {
		l = held
	} else {
		l.Type = lockUnlock
	}
	r.rep.Lock = l
	return nil
}
