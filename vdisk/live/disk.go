package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"strata/internal/ninep"
	"strata/vdisk"
)

// The errors of images. Clients see their texts.
var (
	errNotImage = &ninep.Error{Text: "not an image", Errno: syscall.ENOTDIR}
	errGone     = &ninep.Error{Text: "image has been removed", Errno: syscall.ESTALE}
	errClosed   = &ninep.Error{Text: "disk is closed", Errno: syscall.EBADF}
	errReadOnly = &ninep.Error{Text: "disk is open for reading only", Errno: syscall.EBADF}
	errRange    = &ninep.Error{Text: "no such place on the disk", Errno: syscall.ENOSPC}
)

// allRoom is what one takes who is alone.
const allRoom = math.MaxInt64

// An image is an image that somebody uses: there is one of each in a
// Catalogue.
type image struct {
	cat *Catalogue

	// What changes the image or its history takes turns: holds this one.
	turn *semaphore.Weighted

	// gate is held while the disk is read or written, and all of it while what
	// the disk is made of changes. It is held across requests to the file
	// system: the files must stay what they are meanwhile.
	gate *semaphore.Weighted

	// Changed by who has all of the gate.
	name    string
	layout  *vdisk.Layout // nil until it is loaded
	regions []*region
	gone    bool // removed

	// Immutable.
	thrown bool   // away when nobody uses it: see throw.go
	origin string // the directory of the image that it is a throw-away of, or ""

	size     atomic.Int64  // of the layout
	flushing chan struct{} // holds one while a flush is under way
	marking  chan struct{} // holds one while the file unsettled is made
	changed  atomic.Bool   // written to since it was settled; then that file is there
	table    atomic.Bool   // and where tables and unknown things are
	writes   atomic.Int64
	version  atomic.Uint32         // of the files when they were opened
	failed   atomic.Pointer[error] // of a flush: what was written before may be lost
	watch    atomic.Pointer[watch] // takes note of reads, or nil

	history []Snapshot // of who has the turn
	born    creation
	last    string // the archive that the history has come to
	known   bool   // history is read

	// Guarded by cat.mu.
	users   int // handles, and calls that use it
	writers map[string]int
	start   *start             // of the writers, or nil
	insides map[string]*inside // by partition
}

func newImage(c *Catalogue, name string) *image {
	return &image{
		cat: c, name: name, turn: semaphore.NewWeighted(1), gate: semaphore.NewWeighted(allRoom),
		flushing: make(chan struct{}, 1), marking: make(chan struct{}, 1), writers: make(map[string]int),
		insides: make(map[string]*inside),
	}
}

func (im *image) dir() string { return top + "/" + im.name }

// load finds out what the image is made of and opens it. The caller has all of
// the gate.
func (im *image) load(ctx context.Context) error {
	if im.gone {
		return errGone
	}
	if im.layout != nil {
		return nil
	}
	h := im.cat.host
	f, err := h.readFolder(ctx, im.dir())
	if err == nil {
		f, err = h.finish(ctx, im.dir(), f)
	}
	if err != nil {
		return err
	}
	var list []*region
	version := uint32(0)
	for _, r := range f.layout.Regions {
		g, err := h.openRegion(ctx, im.dir(), r.Name, r)
		if err != nil {
			for _, g := range list {
				g.close(ctx)
			}
			return err
		}
		list = append(list, g)
		version += g.data.Qid().Vers
	}
	im.version.Store(version - uint32(im.writes.Load()))
	im.layout, im.regions = f.layout, list
	im.size.Store(f.layout.Size)
	im.changed.Store(f.names[unsettledFile])
	im.failed.Store(nil)
	return nil
}

// unload closes the image's files. The caller has all of the gate.
func (im *image) unload(ctx context.Context) {
	for _, g := range im.regions {
		g.close(ctx)
	}
	im.layout, im.regions = nil, nil
}

// A Disk is an image that somebody has opened. Its methods may be called at
// once. All Disks of an image are of one disk: what is written to one can be read
// from the others.
type Disk struct {
	im     *image
	by     string // who has it
	writes bool
	closed atomic.Bool
}

// Size returns the bytes of the disk.
func (d *Disk) Size() int64 { return d.im.size.Load() }

// enter begins a call on the disk, which leave ends.
func (d *Disk) enter(ctx context.Context, off, n int64) error {
	switch {
	case d.closed.Load():
		return errClosed
	case d.im.cat.lost.Load():
		return errLost
	}
	if !d.im.gate.TryAcquire(1) {
		if err := d.im.gate.Acquire(ctx, 1); err != nil {
			return err
		}
	}
	switch {
	case d.im.gone || d.im.layout == nil:
		d.leave()
		return errGone
	case off < 0 || n < 0 || off > d.im.layout.Size-n:
		d.leave()
		return errRange
	}
	return nil
}

func (d *Disk) leave() { d.im.gate.Release(1) }

// each calls f for each region that n bytes at off lie in, with what of them
// lies there. The caller has the gate.
func (im *image) each(off, n int64, f func(g *region, off, n int64) error) error {
	i := sort.Search(len(im.regions), func(i int) bool { return off < im.regions[i].Start+im.regions[i].Length })
	for ; n > 0; i++ {
		g := im.regions[i]
		at := off - g.Start
		m := min(n, g.Length-at)
		if err := f(g, at, m); err != nil {
			return err
		}
		off, n = off+m, n-m
	}
	return nil
}

// ReadAt reads len(p) bytes at off, or as many as there are before the end
// with io.EOF.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := d.enter(ctx, off, 0); err != nil {
		return 0, err
	}
	defer d.leave()
	n := min(int64(len(p)), d.im.layout.Size-off)
	if w := d.im.watch.Load(); w != nil {
		w.note(off, n)
	}
	if err := d.im.readAt(ctx, p[:n], off); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// readAt reads all of p. The caller has the gate.
func (im *image) readAt(ctx context.Context, p []byte, off int64) error {
	return im.each(off, int64(len(p)), func(g *region, at, n int64) error {
		q := p[:n]
		p = p[n:]
		return g.readAt(ctx, q, at)
	})
}

// mayWrite begins a change of the disk: n bytes at off become p, or zeros if it
// is nil.
func (d *Disk) mayWrite(ctx context.Context, off, n int64, p []byte) error {
	if !d.writes {
		return errReadOnly
	}
	for {
		if err := d.enter(ctx, off, n); err != nil {
			return err
		}
		if err := d.im.failed.Load(); err != nil {
			d.leave()
			return *err
		}
		g, err := d.im.endsSwap(ctx, off, n, p)
		if g == nil && err == nil {
			return nil
		}
		d.leave()
		if err == nil {
			err = d.im.alone(ctx, func(ctx context.Context) error { return d.im.keepBody(ctx, g.Start) })
		}
		if err != nil {
			return err
		}
	}
}

// WriteAt writes p at off. It is durable after a Flush.
func (d *Disk) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := d.mayWrite(ctx, off, int64(len(p)), p); err != nil {
		return 0, err
	}
	defer d.leave()
	whole := len(p)
	err := d.im.each(off, int64(len(p)), func(g *region, at, n int64) error {
		if err := d.im.touched(ctx, g, at); err != nil {
			return err
		}
		q := p[:n]
		p = p[n:]
		return g.writeAt(ctx, q, at)
	})
	if err != nil {
		return 0, err
	}
	return whole, nil
}

// touched notes a change in a region, before it is made.
func (im *image) touched(ctx context.Context, g *region, at int64) error {
	im.writes.Add(1)
	if at < headBytes || g.Partition == nil && g.Kind != "gap" {
		im.table.Store(true)
	}
	return im.unsettle(ctx)
}

// unsettle notes that the image is to be settled.
func (im *image) unsettle(ctx context.Context) error {
	if im.changed.Load() {
		return nil
	}
	select {
	case im.marking <- struct{}{}:
		defer func() { <-im.marking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	err := im.cat.host.createFile(ctx, im.dir(), unsettledFile, nil)
	if err != nil && !errors.Is(err, ninep.ErrExist) {
		return err
	}
	im.changed.Store(true)
	return nil
}

// headBytes is how much at the start of a region tells what is in it: all
// superblocks are there.
const headBytes = 128 << 10

// Trim makes n bytes at off zeros, which take no space.
func (d *Disk) Trim(ctx context.Context, off, n int64) error {
	if err := d.mayWrite(ctx, off, n, nil); err != nil {
		return err
	}
	defer d.leave()
	return d.im.each(off, n, func(g *region, at, n int64) error {
		if err := d.im.touched(ctx, g, at); err != nil {
			return err
		}
		return g.punch(ctx, at, n)
	})
}

// Flush returns nil only when all that was written by calls that had returned
// before, by whomever, is on stable storage. After an error nothing can be
// written any more until the image is opened anew.
func (d *Disk) Flush(ctx context.Context) error {
	if err := d.enter(ctx, 0, 0); err != nil {
		return err
	}
	defer d.leave()
	return d.im.flush(ctx)
}

// flush is Flush. The caller has the gate.
func (im *image) flush(ctx context.Context) error {
	// One after the other: who finds nothing to do must not return before what
	// another has begun is done.
	select {
	case im.flushing <- struct{}{}:
		defer func() { <-im.flushing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := im.failed.Load(); err != nil {
		return *err
	}
	var group errgroup.Group
	for _, g := range im.regions {
		if g.dirty.Load() {
			group.Go(func() error { return g.sync(ctx) })
		}
	}
	err := group.Wait()
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("flush: %w", err)
		im.failed.Store(&err)
	}
	return err
}

// NextData returns the first range at or after off that may hold something
// besides zeros, or io.EOF when only holes follow.
func (d *Disk) NextData(ctx context.Context, off int64) (start, end int64, err error) {
	if err := d.enter(ctx, off, 0); err != nil {
		return 0, 0, err
	}
	defer d.leave()
	return d.im.nextData(ctx, off)
}

// nextData is NextData. The caller has the gate.
func (im *image) nextData(ctx context.Context, off int64) (start, end int64, err error) {
	for _, g := range im.regions {
		if off >= g.Start+g.Length {
			continue
		}
		start, end, err := g.nextData(ctx, max(off-g.Start, 0))
		if err == io.EOF {
			continue
		}
		return g.Start + start, g.Start + end, err
	}
	return 0, 0, io.EOF
}

// Close ends the use of the disk, which no other call may be using. When its last writer leaves, the image is
// settled: see Catalogue.Settle.
func (d *Disk) Close(ctx context.Context) error {
	if d.closed.Swap(true) {
		return errClosed
	}
	im, c := d.im, d.im.cat
	ctx = context.WithoutCancel(ctx)
	last := false
	var begun *start
	if d.writes {
		c.mu.Lock()
		if im.writers[d.by]--; im.writers[d.by] == 0 {
			delete(im.writers, d.by)
		}
		if last = len(im.writers) == 0; last {
			begun, im.start = im.start, nil
		}
		c.mu.Unlock()
	}
	if begun != nil {
		begun.end()
	}
	var err error
	if last && im.changed.Load() && !im.thrown {
		if err = im.settle(ctx, settling{auto: true}); err != nil {
			c.log.Warn("settle", "error", err)
		}
	}
	return errors.Join(err, c.release(ctx, im))
}

// writersLocked says who has an image open for writing. cat.mu must be held.
func (im *image) writersLocked() []string {
	var list []string
	for by := range im.writers {
		list = append(list, by)
	}
	slices.Sort(list)
	return list
}
