package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"strata/internal/ninep"
	"strata/vac"
	"strata/vdisk"
	"strata/venti"
	"strata/venti/hashtree"
)

// Snapshot keeps the state that an image is in now, whoever writes to it, and
// archives it. A tag is a name for it; one that an older snapshot has becomes
// this one's. An image that nobody writes to is settled before, if need be.
func (c *Catalogue) Snapshot(ctx context.Context, name, tag string) (Snapshot, error) {
	s, _, err := c.snapshot(ctx, name, tag, Asked)
	if err != nil {
		return s, fmt.Errorf("snapshot of %s: %w", name, err)
	}
	return s, nil
}

// snapshot also returns how many writes there had been.
func (c *Catalogue) snapshot(ctx context.Context, name, tag, kind string) (s Snapshot, writes int64, err error) {
	if tag != "" {
		if err := checkTag(tag); err != nil {
			return s, 0, err
		}
	}
	im, err := c.use(ctx, name)
	if err != nil {
		return s, 0, err
	}
	defer c.release(context.WithoutCancel(ctx), im)
	s = Snapshot{Tag: tag, Kind: kind}
	path, writes, err := im.freeze(ctx, &s)
	if err != nil {
		return s, 0, err
	}
	if s.Score, s.Live, err = c.archived(ctx, path); err != nil {
		return s, 0, err
	}
	if err := im.turn.Acquire(ctx, 1); err != nil {
		return s, 0, err
	}
	defer im.turn.Release(1)
	if err := im.readHistory(ctx); err != nil {
		return s, 0, err
	}
	s, err = im.add(ctx, s)
	if err == nil {
		err = c.host.sync(ctx)
	}
	return s, writes, err
}

// freeze has the file system take a snapshot of an image's directory, and
// returns its path.
func (im *image) freeze(ctx context.Context, s *Snapshot) (path string, writes int64, err error) {
	if err := im.turn.Acquire(ctx, 1); err != nil {
		return "", 0, err
	}
	defer im.turn.Release(1)
	if im.changed.Load() {
		if err := im.settleNow(ctx, settling{auto: true}); err != nil {
			return "", 0, err
		}
	}
	if err := im.catchUp(ctx); err != nil {
		return "", 0, err
	}
	h := im.cat.host
	dir := archives
	for _, e := range elements(im.name) {
		dir += "/" + e
		if err := im.cat.makeDir(ctx, dir); err != nil {
			return "", 0, err
		}
	}
	s.Time = im.cat.cfg.Now().Truncate(time.Second)
	for n := 0; ; n++ {
		path = dir + "/" + s.Time.Format("20060102T150405")
		if n > 0 {
			path += fmt.Sprintf(".%d", n)
		}
		writes = im.writes.Load()
		err := h.tell(ctx, "snap -a -s %s -d %s", im.dir(), path)
		if !errors.Is(err, ninep.ErrExist) {
			return path, writes, err
		}
	}
}

// How often to look whether a snapshot has been archived.
const (
	firstLook = 2 * time.Millisecond
	maxLook   = 250 * time.Millisecond
)

// archived is scoreOf when the snapshot has been archived.
func (c *Catalogue) archived(ctx context.Context, path string) (score venti.Score, live bool, err error) {
	for wait := firstLook; ; wait = min(2*wait, maxLook) {
		score, live, err = c.scoreOf(ctx, path)
		if !isUnarchived(err) {
			return score, live, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return score, live, ctx.Err()
		}
	}
}

// isUnarchived tells whether the file system has said that the directory of a
// snapshot waits for its archiver.
func isUnarchived(err error) bool {
	var e *ninep.Error
	return errors.As(err, &e) && e.Errno == syscall.EAGAIN
}

// scoreOf returns the score of the image in a directory that is archived; live
// tells that it was not settled.
func (c *Catalogue) scoreOf(ctx context.Context, path string) (score venti.Score, live bool, err error) {
	text, err := c.host.ask(ctx, "vac %s", path)
	if err != nil {
		return score, false, err
	}
	kind, score, err := venti.ParseTypedScore(strings.TrimSpace(text))
	if err != nil || kind != vac.RootType {
		return score, false, fmt.Errorf("vac %s: got %q", path, text)
	}
	if score, live, err = c.imageIn(ctx, score); err != nil {
		return score, false, fmt.Errorf("%s: %w", path, err)
	}
	return score, live, nil
}

// imageIn makes an image of the files in an archive of its directory. Their
// blocks are shared: only the layout, a directory and a root are written.
func (c *Catalogue) imageIn(ctx context.Context, score venti.Score) (_ venti.Score, live bool, err error) {
	a, err := vac.Open(ctx, c.store, score)
	if err != nil {
		return score, false, err
	}
	files := make(map[string]*vac.File)
	names := make(map[string]bool)
	for f, err := range a.Root.ReadDir(ctx) {
		if err != nil {
			return score, false, err
		}
		files[f.Name], names[f.Name] = f, true
	}
	if !isImage(names) {
		return score, false, errNotImage
	}
	dir, err := openFolder(names, func(name string) ([]byte, error) { return readVac(ctx, files[name]) })
	if err != nil {
		return score, false, err
	}
	var entries []venti.Entry
	for i := range dir.layout.Regions {
		r := &dir.layout.Regions[i]
		f := files[dir.file(r.Name)]
		if f == nil || f.IsDir() {
			return score, false, fmt.Errorf("region %s: %w", r.Name, ninep.ErrNotExist)
		}
		e, err := c.entryOf(ctx, f, r)
		if err != nil {
			return score, false, fmt.Errorf("region %s: %w", r.Name, err)
		}
		entries = append(entries, e)
	}
	score, err = vdisk.WriteImage(ctx, c.store, dir.layout, entries)
	return score, names[unsettledFile], err
}

// readVac returns what a file of an archive holds.
func readVac(ctx context.Context, f *vac.File) ([]byte, error) {
	r, err := f.Open(hashtree.ReaderConfig{})
	if err != nil {
		return nil, err
	}
	const most = 16 << 20
	if f.Size() > most {
		return nil, fmt.Errorf("%s: %w", f.Name, ninep.ErrTooBig)
	}
	b := make([]byte, f.Size())
	if _, err := r.ReadAtContext(ctx, b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// entryOf returns the entry of a region: that of its file, unless the archive
// was made while an edit changed the file's length, or its blocks are not the
// region's. Then what the region is to be is stored.
func (c *Catalogue) entryOf(ctx context.Context, f *vac.File, r *vdisk.Region) (venti.Entry, error) {
	e := f.Data()
	if e.Size == r.Length && e.DSize == r.DSize && e.PSize == r.PSize {
		return e, nil
	}
	src, err := f.Open(hashtree.ReaderConfig{})
	if err != nil {
		return e, err
	}
	e, _, err = hashtree.Write(ctx, c.store, cutShort{ctx, src, r.Length}, r.Length, hashtree.Config{DSize: r.DSize, PSize: r.PSize})
	return e, err
}

// cutShort is a file of another length: a shorter one goes on with zeros.
type cutShort struct {
	ctx  context.Context
	r    *hashtree.Reader
	size int64
}

func (c cutShort) ReadAt(p []byte, off int64) (int, error) {
	want := max(0, min(int64(len(p)), c.size-off))
	n, err := c.r.ReadAtContext(c.ctx, p[:want], off)
	if err != nil && err != io.EOF {
		return n, err
	}
	clear(p[n:want])
	if want < int64(len(p)) {
		return int(want), io.EOF
	}
	return int(want), nil
}

func (c cutShort) NextData(off int64) (start, end int64, err error) {
	start, end, err = c.r.NextData(c.ctx, off)
	if err == nil && start >= c.size {
		err = io.EOF
	}
	return start, min(end, c.size), err
}

// Clone makes a new image of an image or a snapshot. Of an image a snapshot is
// taken first. Nothing is copied.
func (c *Catalogue) Clone(ctx context.Context, ref, name string) error {
	if err := c.free(ctx, name); err != nil {
		return err
	}
	s, err := c.Resolve(ctx, ref)
	if err == nil {
		err = c.graft(ctx, name, s.Score, ref, s.Live, nil)
	}
	if err != nil {
		return fmt.Errorf("clone %s: %w", ref, err)
	}
	if err := c.cloneBootSet(ctx, ref, name); err != nil {
		c.log.Warn("a clone begins without a boot set", "image", name, "error", err)
	}
	return nil
}

// cloneBootSet gives a clone the boot set of the image it is of.
func (c *Catalogue) cloneBootSet(ctx context.Context, ref, name string) error {
	from, _, _ := strings.Cut(ref, "@")
	text, err := c.host.readFile(ctx, top+"/"+from+"/"+bootFile)
	if errors.Is(err, ninep.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.host.replaceFile(ctx, top+"/"+name, bootFile, text)
}

// errUnsteady is why an image is not rolled back.
var errUnsteady = &ninep.Error{Text: "it is being written to again and again", Errno: ninep.ErrInUse.Errno}

// rollbackTries is how often a snapshot is taken before a rollback, of an image
// that somebody has written to since.
const rollbackTries = 3

// Rollback makes an image that nobody writes to what it was. What it is now is
// kept as a snapshot, unless it is to be lost.
func (c *Catalogue) Rollback(ctx context.Context, name, snap string, lose bool) error {
	err := c.rollback(ctx, name, snap, lose)
	if err != nil {
		return fmt.Errorf("roll back %s: %w", name, err)
	}
	return nil
}

func (c *Catalogue) rollback(ctx context.Context, name, snap string, lose bool) error {
	s, err := c.Find(ctx, name, snap)
	if err != nil {
		return err
	}
	src, err := vdisk.Open(ctx, c.store, s.Score)
	if err != nil {
		return err
	}
	im, err := c.use(ctx, name) // so that writes are counted all the time
	if err != nil {
		return err
	}
	defer c.release(context.WithoutCancel(ctx), im)
	for range rollbackTries {
		// What cannot be done is not prepared.
		check := func(ctx context.Context) error { return im.mayLose(ctx) }
		if err := im.quiet(ctx, check); err != nil {
			return err
		}
		writes := int64(0)
		if !lose {
			if _, writes, err = c.snapshot(ctx, name, "", Before); err != nil {
				return err
			}
		}
		err := c.with(ctx, name, func(ctx context.Context, im *image) error {
			return im.quiet(ctx, func(ctx context.Context) error {
				if !lose && im.writes.Load() != writes {
					return errUnsteady
				}
				if err := im.mayLose(ctx); err != nil {
					return err
				}
				return im.become(ctx, src, s.Live)
			})
		})
		if !errors.Is(err, errUnsteady) {
			return err
		}
	}
	return errUnsteady
}

// become makes the image what a stored one is, which is settled or not. The
// caller has all of the gate.
func (im *image) become(ctx context.Context, src *vdisk.Image, live bool) error {
	l, h := src.Layout(), im.cat.host
	var err error
	for i := range l.Regions {
		path := im.dir() + "/" + newPrefix + l.Regions[i].Name
		if err = im.cat.graftRegion(ctx, src, i, path); err != nil {
			break
		}
	}
	if err == nil {
		err = h.commit(ctx, im.dir(), l, nil)
	}
	bg := context.WithoutCancel(ctx)
	im.unload(bg)
	if err = errors.Join(err, im.load(bg)); err != nil {
		return err
	}
	if live {
		err = im.unsettle(ctx)
	} else {
		err = im.settled(ctx)
	}
	return errors.Join(err, h.sync(ctx))
}
