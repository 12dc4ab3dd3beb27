package live

import (
	"context"
	"fmt"
	"slices"
	"time"

	"strata/internal/ninep"
	"strata/vdisk"
	"strata/vdisk/fsys"
)

const (
	// insideAge is how old what is known of a file system may be while somebody
	// writes to its disk: reading a journal again for each name that is looked up
	// would take too long.
	insideAge = time.Second

	// keptOpen is how many images stay open after somebody has looked into them.
	keptOpen = 4
)

// An inside is a file system in a partition of a live image, as it was.
type inside struct {
	layout  *vdisk.Layout
	version uint32
	at      time.Time
	root    fsys.File
}

// Files returns the root directory of the file system in a partition, which is
// called as in a vdisk.Tree, as the disk is now: with what is in its journal, and
// without what a guest has not written yet. While somebody writes to the disk it
// may be a second old, and what has been found in it may be damaged when it is
// read. The version changes when the disk does. done ends the use.
func (c *Catalogue) Files(ctx context.Context, name, part string) (o vdisk.Opened, err error) {
	d, err := c.Disk(ctx, name, OpenOptions{})
	if err != nil {
		return o, err
	}
	o.Done = func() { d.Close(context.WithoutCancel(ctx)) }
	in, err := d.inside(ctx, part)
	if err != nil {
		o.Done()
		return o, err
	}
	c.keepOpen(ctx, name)
	o.File, o.Vers = in.root, in.version
	return o, nil
}

// inside returns the file system in a partition.
func (d *Disk) inside(ctx context.Context, part string) (*inside, error) {
	im, c := d.im, d.im.cat
	c.mu.Lock()
	old, written := im.insides[part], len(im.writers) > 0
	c.mu.Unlock()
	in := &inside{layout: d.layout(ctx), version: im.now(), at: time.Now()}
	switch {
	case in.layout == nil:
		return nil, errGone
	case old != nil && old.layout == in.layout && (old.version == in.version || written && in.at.Sub(old.at) < insideAge):
		return old, nil
	}
	// What is found is read as long as somebody has the image open.
	read := func(ctx context.Context, p []byte, off int64) (int, error) {
		c.mu.Lock()
		name := im.name
		c.mu.Unlock()
		d, err := c.Disk(ctx, name, OpenOptions{})
		if err != nil {
			return 0, err
		}
		defer d.Close(ctx)
		return d.ReadAt(ctx, p, off)
	}
	var err error
	if in.root, err = in.layout.OpenFiles(part, read); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	im.insides[part] = in
	return in, nil
}

// now returns a number that changes with what is written.
func (im *image) now() uint32 { return im.version.Load() + uint32(im.writes.Load()) }

// keepOpen keeps an image open, and lets go of that which was longest ago.
func (c *Catalogue) keepOpen(ctx context.Context, name string) {
	c.mu.Lock()
	known := slices.ContainsFunc(c.kept, func(d *Disk) bool { return d.im.name == name })
	c.mu.Unlock()
	if known {
		return
	}
	d, err := c.Disk(ctx, name, OpenOptions{})
	if err != nil {
		return // it is gone
	}
	c.mu.Lock()
	c.kept = append(c.kept, d)
	var old []*Disk
	if n := len(c.kept) - keptOpen; n > 0 {
		old = slices.Clone(c.kept[:n])
		c.kept = c.kept[n:]
	}
	c.mu.Unlock()
	closeAll(ctx, old)
}

// letGo closes what keepOpen keeps: of an image, or all if name is empty.
func (c *Catalogue) letGo(ctx context.Context, name string) {
	c.mu.Lock()
	var old []*Disk
	c.kept = slices.DeleteFunc(c.kept, func(d *Disk) bool {
		if name != "" && d.im.name != name {
			return false
		}
		old = append(old, d)
		return true
	})
	c.mu.Unlock()
	closeAll(ctx, old)
}

func closeAll(ctx context.Context, list []*Disk) {
	for _, d := range list {
		d.Close(ctx)
	}
}

// filesDir returns the directory fs of a partition.
func (v *view) filesDir(image, part string, number uint64) ninep.Node {
	d := v.file("fs", 0o555, id(number, " ", part, " fs"))
	return v.tree.FilesDir(d, fmt.Sprint("live/", number, " ", part, " fs"), true, func(ctx context.Context) (vdisk.Opened, error) {
		return v.c.Files(ctx, image, part)
	})
}
