package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"strata/internal/ninep"
	"strata/vdisk"
	"strata/venti"
)

// The grid of regions' files: see vdisk. The file system makes files of its own
// block size, so that new files come from grafts of empty streams.
const (
	minDSize = 512
	maxDSize = 4096
	psize    = 4080
)

// makeEmpties stores a root of empty streams, one of each size of leaf.
func makeEmpties(ctx context.Context, st venti.Store) (venti.Score, error) {
	var dir []byte
	var err error
	for n := minDSize; n <= maxDSize; n *= 2 {
		e := venti.Entry{PSize: psize, DSize: n, Flags: venti.EntryActive, Score: venti.EmptyScore}
		if dir, err = e.Pack(dir); err != nil {
			return venti.Score{}, err
		}
	}
	root := venti.Root{Name: "empty", Type: "file", BlockSize: maxDSize}
	if root.Score, err = st.WriteBlock(ctx, venti.DirType, venti.Truncate(venti.DirType, dir)); err != nil {
		return venti.Score{}, err
	}
	block, err := root.Pack(nil)
	if err != nil {
		return venti.Score{}, err
	}
	s, err := st.WriteBlock(ctx, venti.RootType, block)
	if err != nil {
		return s, err
	}
	return s, st.Sync(ctx)
}

// emptyFile makes a file of holes on the grid of a region.
func (c *Catalogue) emptyFile(ctx context.Context, path string, r *vdisk.Region) error {
	n := 0
	for minDSize<<n < r.DSize {
		n++
	}
	if minDSize<<n != r.DSize || r.DSize > maxDSize || r.PSize != psize {
		return fmt.Errorf("region %s: no files with blocks of %d/%d bytes", r.Name, r.PSize, r.DSize)
	}
	if err := c.host.tell(ctx, "graft %s %v/%d", path, c.empties, n); err != nil {
		return err
	}
	return c.host.resize(ctx, path, r.Length)
}

// zeros is a disk on which nothing was written yet.
type zeros int64

func (z zeros) Size() int64 { return int64(z) }

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), int64(z)-off))
	clear(p[:n])
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (z zeros) NextData(int64) (start, end int64, err error) { return 0, 0, io.EOF }

// MaxSize is the largest disk that can be made, in bytes.
const MaxSize = venti.MaxEntrySize

func checkSize(size int64) error {
	if size <= 0 || size > MaxSize {
		return &ninep.Error{Text: fmt.Sprintf("bad size %d: from 1 to %d bytes", size, int64(MaxSize)), Errno: syscall.EINVAL}
	}
	return nil
}

// Create makes an image of zeros.
func (c *Catalogue) Create(ctx context.Context, name string, size int64) error {
	if err := checkSize(size); err != nil {
		return err
	}
	l, err := vdisk.Inspect(zeros(size))
	if err != nil {
		return err
	}
	return c.build(ctx, name, l, "created", nil, func(ctx context.Context, dir string) error {
		for i := range l.Regions {
			r := &l.Regions[i]
			if err := c.emptyFile(ctx, dir+"/"+r.Name, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// Import makes a disk of the host an image: it is stored, and grafted.
func (c *Catalogue) Import(ctx context.Context, name string, src vdisk.Source, opt vdisk.ImportOptions) (*vdisk.Result, error) {
	if err := c.free(ctx, name); err != nil { // at once, not after hours
		return nil, err
	}
	res, err := vdisk.Import(ctx, c.store, src, opt)
	if err != nil {
		return nil, err
	}
	return res, c.graft(ctx, name, res.Score, "vdisk:"+res.Score.String(), false, nil)
}

// Graft makes a stored disk an image. Nothing is copied, however large it is. If
// its root is of a chain, the image has the history that this is of.
func (c *Catalogue) Graft(ctx context.Context, name string, score venti.Score) error {
	// Perhaps only the chain was copied.
	past, err := c.unchain(ctx, score, func(r venti.Root) (venti.Score, error) { return c.writeRoot(ctx, r) })
	if err == nil {
		err = c.store.Sync(ctx)
	}
	if err != nil {
		return err
	}
	// Whoever stored it may not have looked how it is to be cut.
	return c.graft(ctx, name, score, "vdisk:"+score.String(), true, past)
}

// graft is Graft of something that is settled, or not.
func (c *Catalogue) graft(ctx context.Context, name string, score venti.Score, from string, live bool, past []Snapshot) error {
	src, err := vdisk.Open(ctx, c.store, score)
	if err != nil {
		return err
	}
	l := src.Layout()
	return c.build(ctx, name, l, from, past, func(ctx context.Context, dir string) error {
		for i := range l.Regions {
			r := &l.Regions[i]
			if err := c.graftRegion(ctx, src, i, dir+"/"+r.Name); err != nil {
				return fmt.Errorf("region %s: %w", r.Name, err)
			}
		}
		if live {
			return c.host.createFile(ctx, dir, unsettledFile, nil)
		}
		return nil
	})
}

// graftRegion makes the i-th region of a stored disk a file.
func (c *Catalogue) graftRegion(ctx context.Context, src *vdisk.Image, i int, path string) error {
	n := i
	if src.Root().Type == vdisk.RootType {
		n++ // the first is the layout
	}
	return c.host.tell(ctx, "graft %s %v/%d", path, src.Score(), n)
}

// free returns an error unless an image could be called name.
func (c *Catalogue) free(ctx context.Context, name string) error {
	if err := checkFree(name); err != nil {
		return err
	}
	if c.lost.Load() {
		return errLost
	}
	list := elements(name)
	for i := range list {
		path := strings.Join(list[:i+1], "/")
		f, err := c.host.walk(ctx, top+"/"+path)
		if errors.Is(err, ninep.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		f.Close(ctx)
		image, err := c.isImage(ctx, top+"/"+path)
		switch {
		case err != nil:
			return err
		case image && i+1 < len(list):
			return &ninep.Error{Text: fmt.Sprintf("%s is an image: no other can lie in it", path), Errno: syscall.ENOTDIR}
		}
	}
	return fmt.Errorf("image %s: %w", name, ninep.ErrExist)
}

// makeParents makes the directories that an image is to be in.
func (c *Catalogue) makeParents(ctx context.Context, name string) error {
	dir := top
	parent, _ := split(name)
	for _, e := range elements(parent) {
		if err := c.host.mkdir(ctx, dir, e); err != nil && !errors.Is(err, ninep.ErrExist) {
			return err
		}
		dir += "/" + e
	}
	return nil
}

// pruneParents removes the directories that an image was in and in which there
// is nothing now.
func (c *Catalogue) pruneParents(ctx context.Context, name string) error {
	for dir, _ := split(name); dir != ""; dir, _ = split(dir) {
		parent, last := split(dir)
		err := c.host.remove(ctx, top+"/"+parent, last)
		if errors.Is(err, ninep.ErrNotEmpty) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// build makes an image with a history: fill makes the files of its regions in a directory. The
// image is there when all of it is, and durable when build returns.
func (c *Catalogue) build(ctx context.Context, name string, l *vdisk.Layout, from string, past []Snapshot, fill func(ctx context.Context, dir string) error) error {
	text, err := l.Encode()
	if err != nil {
		return err
	}
	if err := c.shape.Acquire(ctx, 1); err != nil {
		return err
	}
	defer c.shape.Release(1)
	if err := c.free(ctx, name); err != nil {
		return err
	}
	if err := c.makeParents(ctx, name); err != nil {
		return err
	}
	parent, last := split(name)
	dir, tmp := top+"/"+parent, buildPrefix+last
	if err := c.host.removeAll(ctx, dir, tmp); err != nil {
		return err
	}
	born := creation{Time: c.cfg.Now(), From: from}
	if born.After, err = c.host.lastArchive(ctx); err != nil {
		return err
	}
	err = c.host.mkdir(ctx, dir, tmp)
	if err == nil {
		err = fill(ctx, dir+"/"+tmp)
	}
	if err == nil {
		history := born.line()
		for i := range past {
			history = append(history, past[i].line()...)
		}
		err = c.host.createFile(ctx, dir+"/"+tmp, historyFile, history)
	}
	if err == nil {
		err = c.host.createFile(ctx, dir+"/"+tmp, layoutFile, text)
	}
	if err == nil {
		err = c.host.sync(ctx)
	}
	if err == nil {
		err = c.host.rename(ctx, dir, tmp, dir, last)
	}
	if err != nil {
		bg := context.WithoutCancel(ctx)
		return errors.Join(fmt.Errorf("make image %s: %w", name, err), c.host.removeAll(bg, dir, tmp), c.pruneParents(bg, name))
	}
	return c.host.sync(ctx)
}

// errProtected is what stands in the way of what would lose a protected
// image's contents.
var errProtected = &ninep.Error{Text: "image is protected", Errno: syscall.EPERM}

func (im *image) protected(ctx context.Context) (bool, error) {
	f, err := im.cat.host.walk(ctx, im.dir()+"/"+protectFile)
	switch {
	case err == nil:
		return true, f.Close(ctx)
	case errors.Is(err, ninep.ErrNotExist):
		return false, nil
	}
	return false, err
}

func (im *image) mayLose(ctx context.Context) error {
	p, err := im.protected(ctx)
	if err == nil && p {
		err = errProtected
	}
	return err
}

// Protect keeps an image from being removed, rolled back and resized, or lets
// that happen again.
func (c *Catalogue) Protect(ctx context.Context, name string, on bool) error {
	return c.with(ctx, name, func(ctx context.Context, im *image) error {
		return im.alone(ctx, func(ctx context.Context) error {
			if im.gone {
				return errGone
			}
			var err error
			if on {
				err = c.host.createFile(ctx, im.dir(), protectFile, nil)
			} else {
				err = c.host.remove(ctx, im.dir(), protectFile)
			}
			if err != nil && !errors.Is(err, ninep.ErrExist) && !errors.Is(err, ninep.ErrNotExist) {
				return err
			}
			return c.host.sync(ctx)
		})
	})
}

// Remove removes an image that nobody has open, with its history. What of it is
// archived stays so.
func (c *Catalogue) Remove(ctx context.Context, name string) error {
	if err := c.shape.Acquire(ctx, 1); err != nil {
		return err
	}
	defer c.shape.Release(1)
	c.letGo(ctx, name)
	err := c.with(ctx, name, func(ctx context.Context, im *image) error {
		return im.quiet(ctx, func(ctx context.Context) error {
			if err := im.idle(); err != nil {
				return err
			}
			if err := im.mayLose(ctx); err != nil {
				return err
			}
			parent, last := split(im.name)
			dir := top + "/" + parent
			if err := c.host.removeAll(ctx, dir, oldPrefix+last); err != nil {
				return err
			}
			if err := c.host.rename(ctx, dir, last, dir, oldPrefix+last); err != nil {
				return err
			}
			im.unload(ctx)
			im.gone = true
			c.mu.Lock()
			delete(c.images, im.name)
			c.mu.Unlock()
			return errors.Join(c.host.removeAll(ctx, dir, oldPrefix+last), c.pruneParents(ctx, im.name), c.host.sync(ctx))
		})
	})
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// idle returns an error unless only the caller uses the image. The caller has
// all of the gate.
func (im *image) idle() error {
	im.cat.mu.Lock()
	defer im.cat.mu.Unlock()
	if im.users > 1 {
		return inUse("%s is open", im.name)
	}
	return nil
}

// Rename gives an image another name. Who has it open keeps it.
func (c *Catalogue) Rename(ctx context.Context, from, to string) error {
	if err := c.shape.Acquire(ctx, 1); err != nil {
		return err
	}
	defer c.shape.Release(1)
	if err := c.free(ctx, to); err != nil {
		return err
	}
	err := c.with(ctx, from, func(ctx context.Context, im *image) error {
		// What the archives have under the old name is its history too.
		if err := im.catchUp(ctx); err != nil {
			return err
		}
		return im.alone(ctx, func(ctx context.Context) error {
			if im.gone {
				return errGone
			}
			if err := c.makeParents(ctx, to); err != nil {
				return err
			}
			fromDir, fromName := split(im.name)
			toDir, toName := split(to)
			if err := c.host.rename(ctx, top+"/"+fromDir, fromName, top+"/"+toDir, toName); err != nil {
				return errors.Join(err, c.pruneParents(ctx, to))
			}
			c.mu.Lock()
			delete(c.images, im.name)
			im.name = to
			c.images[to] = im
			c.mu.Unlock()
			im.unload(ctx) // the ways to its files are others now
			return errors.Join(im.load(ctx), c.pruneParents(ctx, from), c.host.sync(ctx))
		})
	})
	if err != nil {
		return fmt.Errorf("rename %s to %s: %w", from, to, err)
	}
	return nil
}
