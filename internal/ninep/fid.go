package ninep

import (
	"context"
	"sync"
	"sync/atomic"
)

// A place is a node and the way that led to it, so that ".." needs no help
// from trees that never move directories. It does not change.
type place struct {
	node Node
	up   *place // nil at the root that was attached to
}

// parent returns the place above p, which is p itself at the root.
func (p *place) parent(ctx context.Context) (*place, error) {
	if p.up == nil {
		return p, nil
	}
	n, ok := p.node.(Parenter)
	if !ok {
		return p.up, nil
	}
	dir, err := n.Parent(ctx)
	if err != nil {
		return nil, err
	}
	// Where the chain is still right keep it; where the directory has moved,
	// only the root of the chain matters from here on.
	root := p.up
	for q := p.up; q != nil; q = q.up {
		if q.node.Qid().Path == dir.Qid().Path {
			return &place{dir, q.up}, nil
		}
		root = q
	}
	return &place{dir, root}, nil
}

// A fid is what a client calls a number: a place, and what is open there.
type fid struct {
	refs atomic.Int32 // one of the table, and one of each request that uses it

	user string // immutable: for whom it was attached
	auth AuthHandle

	mu     sync.Mutex // guards the fields below
	at     *place
	opened bool // open, or being opened

	// io is set once, when opening is done.
	io atomic.Pointer[openFile]
}

// An openFile is what can be done with an open fid. Its fields above mu do
// not change.
type openFile struct {
	handle  Handle
	mode    OpenMode
	remove  *place // remove it at clunk
	reader  Reader
	cached  CachedReader
	lender  Lender
	writer  Writer
	dir     DirReader
	xattr   *xattrFile
	qidPath uint64

	mu sync.Mutex // guards the fields below, over the reading of a directory: its reads are in sequence

	// Of a classic directory.
	offset uint64 // where the next read goes on
	cookie uint64 // of the last entry returned
	left   int    // of the last read's count, for which the next entry was too long
}

func newOpenFile(h Handle, mode OpenMode, qid Qid) *openFile {
	o := &openFile{handle: h, mode: mode, qidPath: qid.Path}
	if qid.Dir() {
		o.dir, _ = h.(DirReader)
		return o
	}
	if mode.Reads() {
		o.reader, _ = h.(Reader)
		o.cached, _ = h.(CachedReader)
		o.lender, _ = h.(Lender)
	}
	if mode.Writes() {
		o.writer, _ = h.(Writer)
	}
	return o
}

// place returns where the fid is; auth fids and attributes are nowhere.
func (f *fid) place() (*place, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == nil {
		return nil, ErrFidUse
	}
	return f.at, nil
}

// startOpen claims the fid for opening and returns where it is.
func (f *fid) startOpen() (*place, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == nil {
		return nil, ErrFidUse
	}
	if f.opened {
		return nil, ErrFidOpen
	}
	f.opened = true
	return f.at, nil
}

// endOpen makes what startOpen claimed open, at at, or if o is nil gives it
// back.
func (f *fid) endOpen(at *place, o *openFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o == nil {
		f.opened = false
		return
	}
	f.at = at
	f.io.Store(o)
}

// isOpen tells whether the fid is open or being opened.
func (f *fid) isOpen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened
}

// lookup returns the fid with a number. The caller releases it.
func (c *conn) lookup(num uint32) (*fid, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.fids[num]
	if f == nil {
		return nil, ErrFid
	}
	f.refs.Add(1)
	return f, nil
}

// insert puts f in the table, which owns it from then on.
func (c *conn) insert(num uint32, f *fid) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.freeLocked(num); err != nil {
		return err
	}
	f.refs.Store(1)
	c.fids[num] = f
	return nil
}

// freeLocked says why num cannot be given to a new fid. c.mu must be held.
func (c *conn) freeLocked(num uint32) error {
	switch {
	case num == NoFid:
		return ErrFid
	case c.fids[num] != nil:
		return ErrFidInUse
	case len(c.fids) >= c.srv.cfg.MaxFids:
		return ErrTooManyFids
	}
	return nil
}

// free says why num cannot be given to a new fid, before work is done for it.
func (c *conn) free(num uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.freeLocked(num)
}

// take removes a fid from the table. The caller releases what it returns.
func (c *conn) take(num uint32) (*fid, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.fids[num]
	if f == nil {
		return nil, ErrFid
	}
	delete(c.fids, num)
	return f, nil
}

// release gives up one use of f. The last one closes it.
func (c *conn) release(f *fid) error {
	if f.refs.Add(-1) > 0 {
		return nil
	}
	// Closing must be done whole even if the client has gone.
	ctx := context.WithoutCancel(c.ctx)
	var err error
	if o := f.io.Load(); o != nil {
		c.srv.locks.release(f)
		if o.xattr != nil {
			err = o.xattr.commit(ctx)
		}
		if o.handle != nil {
			err = o.handle.Close(ctx)
		}
		if o.remove != nil {
			if e := remove(ctx, o.remove); err == nil {
				err = e
			}
		}
	}
	if f.auth != nil {
		err = f.auth.Close(ctx)
	}
	return err
}

func remove(ctx context.Context, at *place) error {
	if at.up == nil {
		return ErrNotPermitted // the root
	}
	n, ok := at.node.(Remover)
	if !ok {
		return ErrReadOnly
	}
	return n.Remove(ctx)
}
