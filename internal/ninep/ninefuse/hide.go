package ninefuse

import (
	"context"
	"fmt"
	"strings"
	"time"

	"strata/internal/ninep"
)

// Plan 9's servers do not go on to serve what was removed. So a file that is
// removed while it is open gets another name, and the last to close it removes
// it: the kernel tells of that some time after close(2). This mount neither
// lists the name nor finds it, and a directory that holds nothing but such
// files can be removed as if it were empty. It is hidden in its turn, and goes
// with the last of them.
//
// The names begin with what no other mount's do. If this one ends before it can
// remove its files (the program is killed, the connection is lost), others see
// them, and may remove them.
//
// BUG: if another client puts something into a hidden directory, that stays,
// and this mount does not show it.

// A hidden is what was removed while in use: an open file, or a directory of
// hidden ones.
type hidden struct {
	in   *node // its directory, which is not forgotten meanwhile
	name string
	dir  bool // it is a directory
}

// isHidden tells whether a name is one that hide gave.
func (fs *FS) isHidden(name string) bool { return strings.HasPrefix(name, fs.hiding) }

// inUseLocked tells whether what is removed has to stay. n.mu must be held.
func (n *node) inUseLocked() bool {
	if n.dir() {
		return n.holds > 0
	}
	return n.opens > 0
}

// revealLocked returns what n is hidden as once that is at its end, or nil. n.mu
// must be held.
func (n *node) revealLocked() *hidden {
	h := n.hidden
	if n.inUseLocked() {
		return nil
	}
	n.hidden = nil
	return h
}

// hide gives name in the directory d, whose file is dir, another name if it is
// in use here, and tells whether it was.
func (fs *FS) hide(ctx context.Context, d *node, dir *ninep.File, name string) (bool, error) {
	f, err := dir.Walk(ctx, name)
	if err != nil {
		return false, err
	}
	defer fs.clunker.add(f)
	fs.mu.Lock()
	n := fs.byQid[keyOf(f.Qid())]
	fs.mu.Unlock()
	if n == nil {
		return false, nil
	}
	n.mu.Lock()
	inUse := n.inUseLocked() && n.hidden == nil
	n.mu.Unlock()
	if !inUse || n.dir() && !fs.looksEmpty(ctx, f) {
		return false, nil
	}

	fs.mu.Lock()
	fs.lastHidden++
	h := &hidden{d, fmt.Sprintf("%s%d", fs.hiding, fs.lastHidden), n.dir()}
	d.lookups++
	fs.mu.Unlock()
	d.mu.Lock()
	d.holds++
	d.mu.Unlock()
	if err := dir.RenameName(ctx, name, dir, h.name); err != nil {
		fs.dropped(ctx, h)
		return false, err
	}
	fs.moved(ctx, dir, h.name)
	n.mu.Lock()
	n.hidden = h
	h = n.revealLocked() // the last use may have ended meanwhile
	n.mu.Unlock()
	return true, fs.drop(ctx, h)
}

// looksEmpty tells whether an unopened directory holds nothing that this mount
// shows.
func (fs *FS) looksEmpty(ctx context.Context, dir *ninep.File) bool {
	if dir.Open(ctx, ninep.OREAD) != nil {
		return false // the server says what is the matter
	}
	list, err := dir.ReadDir(ctx)
	for _, d := range list {
		if !fs.isHidden(d.Name) {
			return false
		}
	}
	return err == nil
}

// drop removes h, if there is one, and the hidden directory that it was the
// last in.
func (fs *FS) drop(ctx context.Context, h *hidden) error {
	if h == nil {
		return nil
	}
	_, dir, done, err := fs.use(h.in.id)
	if err == nil {
		err = dir.RemoveName(ctx, h.name, h.dir)
		done()
	}
	fs.dropped(ctx, h)
	return err
}

// dropped says that h is no longer in its directory.
func (fs *FS) dropped(ctx context.Context, h *hidden) {
	h.in.mu.Lock()
	h.in.holds--
	up := h.in.revealLocked()
	h.in.mu.Unlock()
	fs.Forget(h.in.id, 1)
	fs.drop(ctx, up)
}

// closed says that a handle of n is no longer open.
func (fs *FS) closed(ctx context.Context, n *node) {
	n.mu.Lock()
	n.opens--
	h := n.revealLocked()
	n.mu.Unlock()
	fs.drop(ctx, h)
}

// dropTime is for how long the end of a mount waits for a server that does not
// answer.
const dropTime = 5 * time.Second

// dropAll removes what is hidden, since the kernel closes nothing any more.
func (fs *FS) dropAll() {
	ctx, cancel := context.WithTimeout(context.Background(), dropTime)
	defer cancel()
	done := make(chan struct{})
	go func() { // ends with the connection at the latest
		defer close(done)
		fs.mu.Lock()
		left := fs.handles
		fs.handles = nil
		fs.mu.Unlock()
		for _, h := range left {
			fs.closed(ctx, h.node)
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
