package live

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"strata/internal/ninep"
	"strata/vdisk"
	"strata/venti"
)

// Where images are in the file system: live ones, and the snapshots of one
// image that were asked for.
const (
	top      = "/active/vdisk"
	archives = "/archive/vdisk"
)

// Config holds the options of Open; its zero value is the default.
type Config struct {
	User   string           // whose images are; "" means adm, who may give commands
	NoTrim bool             // do not trim an image when its last writer leaves
	Now    func() time.Time // nil means time.Now
	Log    *slog.Logger     // nil means none

	// StartTime is for how long it is watched what is read of a disk that was
	// opened for writing, see BootSet; 0 means two minutes.
	StartTime time.Duration
	// Ahead is how many bytes of what a start reads are read before the guest
	// does: they must have room in the file system's cache. 0 means 16 MiB.
	Ahead int64
}

// A Catalogue is the images that live in one file system. Its methods may be
// called at once. Only one Catalogue can be open on a file system.
type Catalogue struct {
	host  *host
	store venti.Store
	cfg   Config
	log   *slog.Logger

	empties venti.Score         // see makeEmpties
	shape   *semaphore.Weighted // of one: held by who makes, moves or removes directories of images
	lost    atomic.Bool         // another may have the file system's images open
	stop    func()              // ends the goroutine that holds them, and waits for it

	throws atomic.Int64 // images that were to be thrown away

	mu     sync.Mutex // guards the fields below, and some of images'
	images map[string]*image
	kept   []*Disk // see keepOpen
}

// Open opens the images in a file system that c is a client of, and makes a
// place for them if there is none. st is the Venti server that the file system
// archives to. What a crash has left half done is undone. c and st are used until
// Close.
func Open(ctx context.Context, c *ninep.Client, st venti.Store, cfg Config) (*Catalogue, error) {
	if cfg.User == "" {
		cfg.User = "adm"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h, err := openHost(ctx, c, cfg.User)
	if err != nil {
		return nil, fmt.Errorf("open images: %w", err)
	}
	cat := &Catalogue{
		host: h, store: st, cfg: cfg, log: cfg.Log,
		shape: semaphore.NewWeighted(1), images: make(map[string]*image),
	}
	if err := cat.prepare(ctx); err != nil {
		h.close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("open images: %w", err)
	}
	bg, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	group.Go(func() { cat.keepHold(bg) })
	cat.stop = func() {
		cancel()
		group.Wait()
	}
	return cat, nil
}

// How often the lock is used, so that it stays ours, and how often that may fail:
// until another can have it, when the connection was lost and the file system has
// not noticed.
const (
	holdTime  = time.Minute
	holdTries = 6
)

var errLost = &ninep.Error{Text: "another vdisk has the images of this file system now", Errno: syscall.EIO}

// keepHold uses the lock now and then.
func (c *Catalogue) keepHold(ctx context.Context) {
	ticker := time.NewTicker(holdTime)
	defer ticker.Stop()
	for failed := 0; ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if failed = c.checkHold(ctx, failed); failed >= holdTries {
			return
		}
	}
}

// checkHold uses the lock, and returns how often in a row that has failed now.
func (c *Catalogue) checkHold(ctx context.Context, failed int) int {
	err := c.host.holds(ctx)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		return failed
	case isIO(err):
		failed = holdTries // it is broken for good
	default:
		failed++
	}
	if failed >= holdTries {
		c.lost.Store(true)
		c.log.Error("images", "error", errLost, "because", err)
	}
	return failed
}

func isIO(err error) bool {
	var e *ninep.Error
	return errors.As(err, &e) && e.Errno == syscall.EIO
}

// prepare makes what must be there, and removes what must not.
func (c *Catalogue) prepare(ctx context.Context) error {
	var err error
	if c.empties, err = makeEmpties(ctx, c.store); err != nil {
		return err
	}
	for _, dir := range []string{top, archives} {
		if err := c.makeDir(ctx, dir); err != nil {
			return err
		}
	}
	if err := c.host.hold(ctx, top+"/"+lockFile); err != nil {
		if errors.Is(err, ninep.ErrExclusive) {
			err = inUse("another vdisk has them open")
		}
		return err
	}
	return c.clean(ctx, top)
}

// makeDir makes a directory where only commands can, if it is not there.
func (c *Catalogue) makeDir(ctx context.Context, path string) error {
	f, err := c.host.walk(ctx, path)
	if err == nil {
		return f.Close(ctx)
	}
	if !errors.Is(err, ninep.ErrNotExist) {
		return err
	}
	return c.host.tell(ctx, "create %s %s %s d775", path, c.host.uid, c.host.uid)
}

// clean removes what was being made or removed in a directory of the
// catalogue, and below, and what was to be thrown away.
func (c *Catalogue) clean(ctx context.Context, dir string) error {
	return c.each(ctx, dir, func(dir, name string, image bool) error {
		if strings.HasPrefix(name, buildPrefix) || strings.HasPrefix(name, oldPrefix) || strings.HasPrefix(name, throwPrefix) {
			return c.host.removeAll(ctx, dir, name)
		}
		return nil
	})
}

// each calls f for what is in a directory of the catalogue, and in those below
// that are no images, in the order of names.
func (c *Catalogue) each(ctx context.Context, dir string, f func(dir, name string, image bool) error) error {
	list, err := c.host.list(ctx, dir)
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b ninep.Dir) int { return strings.Compare(a.Name, b.Name) })
	for _, d := range list {
		if !d.Qid.Dir() {
			continue
		}
		image, err := c.isImage(ctx, dir+"/"+d.Name)
		if err != nil {
			return err
		}
		if err := f(dir, d.Name, image); err != nil {
			return err
		}
		if !image && isElement(d.Name) {
			if err := c.each(ctx, dir+"/"+d.Name, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// isImage tells whether a directory is an image.
func (c *Catalogue) isImage(ctx context.Context, dir string) (bool, error) {
	for _, name := range []string{layoutFile, commitFile, finishFile} {
		f, err := c.host.walk(ctx, dir+"/"+name)
		if err == nil {
			return true, f.Close(ctx)
		}
		if !errors.Is(err, ninep.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// Close ends the use of the catalogue. All Disks are closed before.
func (c *Catalogue) Close(ctx context.Context) error {
	c.letGo(ctx, "")
	c.stop()
	return c.host.close(ctx)
}

// Sync makes all that was done durable.
func (c *Catalogue) Sync(ctx context.Context) error { return c.host.sync(ctx) }

// List returns the names of all images, in order.
func (c *Catalogue) List(ctx context.Context) ([]string, error) {
	var list []string
	err := c.each(ctx, top, func(dir, name string, image bool) error {
		if image && isElement(name) {
			list = append(list, strings.TrimPrefix(dir+"/"+name, top+"/"))
		}
		return nil
	})
	slices.Sort(list)
	return list, err
}

// OpenOptions say how a disk is opened.
type OpenOptions struct {
	Write bool

	// By says who opens it, for others who would like to. While one writes only
	// those of the same name may too, unless both share.
	By     string
	Shared bool
}

// Disk opens an image. The error is that of a file that does not exist if
// there is no such image.
func (c *Catalogue) Disk(ctx context.Context, name string, opt OpenOptions) (*Disk, error) {
	im, err := c.use(ctx, name)
	if err != nil {
		return nil, err
	}
	d := &Disk{im: im, by: opt.By, writes: opt.Write}
	if !opt.Write {
		return d, nil
	}
	if opt.Shared {
		d.by = sharedBy
	}
	c.mu.Lock()
	for _, by := range im.writersLocked() {
		if by != d.by {
			c.mu.Unlock()
			c.release(context.WithoutCancel(ctx), im)
			return nil, inUse("%s is being written to by %s", name, by)
		}
	}
	im.writers[d.by]++
	if im.start == nil {
		im.start = im.begin(ctx)
	}
	c.mu.Unlock()
	return d, nil
}

// sharedBy is who those are who share.
const sharedBy = "several who share it"

// inUse returns an error that says what is in the way.
func inUse(format string, args ...any) error {
	return &ninep.Error{Text: fmt.Sprintf(format, args...), Errno: syscall.EBUSY}
}

func isInUse(err error) bool {
	var e *ninep.Error
	return errors.As(err, &e) && e.Errno == syscall.EBUSY
}

// use returns an image, loaded. release ends its use.
func (c *Catalogue) use(ctx context.Context, name string) (*image, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if c.lost.Load() {
		return nil, errLost
	}
	for {
		c.mu.Lock()
		im := c.images[name]
		if im == nil {
			im = newImage(c, name)
			c.images[name] = im
		}
		im.users++
		c.mu.Unlock()
		err := im.gate.Acquire(ctx, 1)
		if err == nil {
			loaded := im.layout != nil && !im.gone
			im.gate.Release(1)
			if loaded {
				return im, nil
			}
			err = im.alone(ctx, im.load)
		}
		if err == nil {
			return im, nil
		}
		c.release(context.WithoutCancel(ctx), im)
		if errors.Is(err, errGone) {
			continue // another has its name now, or nobody
		}
		if errors.Is(err, errNotImage) {
			err = ninep.ErrNotExist
		}
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
}

// alone runs f with all of the gate.
func (im *image) alone(ctx context.Context, f func(ctx context.Context) error) error {
	if err := im.gate.Acquire(ctx, allRoom); err != nil {
		return err
	}
	defer im.gate.Release(allRoom)
	return f(ctx)
}

// release ends the use of an image. What nobody uses is closed.
func (c *Catalogue) release(ctx context.Context, im *image) error {
	c.mu.Lock()
	im.users--
	last := im.users == 0
	c.mu.Unlock()
	if !last {
		return nil
	}
	return im.alone(ctx, func(ctx context.Context) error {
		c.mu.Lock()
		idle := im.users == 0
		if idle && c.images[im.name] == im {
			delete(c.images, im.name)
		}
		c.mu.Unlock()
		if !idle {
			return nil
		}
		im.unload(ctx)
		im.gone = true // for this image: the next user makes another
		if im.thrown {
			return c.host.removeAll(ctx, top, im.name)
		}
		return nil
	})
}

// with runs f with an image, whose turn it has.
func (c *Catalogue) with(ctx context.Context, name string, f func(ctx context.Context, im *image) error) error {
	im, err := c.use(ctx, name)
	if err != nil {
		return err
	}
	defer c.release(context.WithoutCancel(ctx), im)
	if err := im.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer im.turn.Release(1)
	return f(ctx, im)
}

// quiet runs f with all of the gate of an image that nobody writes to.
func (im *image) quiet(ctx context.Context, f func(ctx context.Context) error) error {
	return im.alone(ctx, func(ctx context.Context) error {
		if im.gone {
			return errGone
		}
		im.cat.mu.Lock()
		writers := im.writersLocked()
		im.cat.mu.Unlock()
		if len(writers) > 0 {
			return inUse("%s is being written to by %s", im.name, strings.Join(writers, ", "))
		}
		return f(ctx)
	})
}

// Layout returns how an image is cut. It must not be changed.
func (c *Catalogue) Layout(ctx context.Context, name string) (*vdisk.Layout, error) {
	im, err := c.use(ctx, name)
	if err != nil {
		return nil, err
	}
	defer c.release(context.WithoutCancel(ctx), im)
	if err := im.gate.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer im.gate.Release(1)
	if im.layout == nil {
		return nil, errGone
	}
	return im.layout, nil
}

// A State is what there is to know of an image besides its layout.
type State struct {
	Writers   []string
	Protected bool
	Changed   bool // written to since it was settled
	Table     bool // maybe also what tells how it is cut
}

// State returns what state an image is in.
func (c *Catalogue) State(ctx context.Context, name string) (State, error) {
	var s State
	im, err := c.use(ctx, name)
	if err != nil {
		return s, err
	}
	defer c.release(context.WithoutCancel(ctx), im)
	if err := im.gate.Acquire(ctx, 1); err != nil {
		return s, err
	}
	s.Protected, err = im.protected(ctx)
	im.gate.Release(1)
	if err != nil {
		return s, err
	}
	s.Changed, s.Table = im.changed.Load(), im.table.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Writers = im.writersLocked()
	return s, nil
}
