package live

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"

	"strata/internal/ninep"
	"strata/vdisk"
	"strata/vdisk/nbd"
	"strata/venti"
)

// Exports shows images over NBD, besides what others does, by their names:
//
//	web/01             the live disk
//	web/01@2026/1127   a snapshot, by its day or tag
//	.../parts/1        a partition of either
//	throw-away:web/01@2026/1127, throw-away:web/01, throw-away:vdisk:SCORE
//	                   a disk like it that is the connection's own, and gone with it
//	.../shared         a live disk or partition that others may write to, too
//
// A live disk can be written to by one connection, unless somebody else writes
// to it; others may read. Those who call it shared may all write, if no other
// does, and what one flushes are the writes of all. With readOnly all may read
// only: where it is not known who connects.
func Exports(c *Catalogue, others nbd.Exports, readOnly bool) nbd.Exports {
	return &exports{c: c, others: others, readOnly: readOnly}
}

type exports struct {
	c        *Catalogue
	others   nbd.Exports
	readOnly bool
	opened   atomic.Int64
}

// Open implements nbd.Exports.
func (x *exports) Open(ctx context.Context, name string) (*nbd.Export, error) {
	if ref, ok := strings.CutPrefix(name, ThrowAwayPrefix); ok {
		return x.throwAway(ctx, name, ref)
	}
	first, _, _ := strings.Cut(name, "/")
	if _, _, err := venti.ParseTypedScore(first); name == "" || first == "score" || first == "files" || err == nil {
		return x.others.Open(ctx, name)
	}
	ref, part, shared := x.parse(ctx, name)
	image, snap, err := ParseRef(ref)
	if err != nil {
		return nil, fmt.Errorf("export %q: %w", name, ninep.ErrNotExist)
	}
	if snap != "" && !shared {
		s, err := x.c.Find(ctx, image, snap)
		if err != nil {
			return nil, fmt.Errorf("export %q: %w", name, err)
		}
		old := "vdisk:" + s.Score.String()
		if part != "" {
			old += "/parts/" + part
		}
		e, err := x.others.Open(ctx, old)
		if err != nil {
			return nil, err
		}
		e.Name, e.Description = name, fmt.Sprintf("%s, the snapshot %s of %s", e.Description, s.Name, image)
		return e, nil
	}
	if snap != "" {
		return nil, fmt.Errorf("export %q: nobody writes to a snapshot: %w", name, ninep.ErrNotExist)
	}
	e, err := x.live(ctx, image, part, shared)
	if err != nil {
		return nil, fmt.Errorf("export %q: %w", name, err)
	}
	e.Name = name
	return e, nil
}

// ThrowAwayPrefix begins the name of an export that is gone with the connection.
const ThrowAwayPrefix = "throw-away:"

// throwAway opens a disk of the connection's own.
func (x *exports) throwAway(ctx context.Context, name, ref string) (*nbd.Export, error) {
	if x.readOnly {
		return nil, fmt.Errorf("export %q: who connects is not known, and may only read: %w", name, fs.ErrPermission)
	}
	if _, _, err := venti.ParseTypedScore(ref); err != nil {
		if _, _, err := ParseRef(ref); err != nil {
			return nil, fmt.Errorf("export %q: %w", name, ninep.ErrNotExist)
		}
	}
	d, err := x.c.ThrowAway(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("export %q: %w", name, err)
	}
	return &nbd.Export{
		// Each is another disk, so that none is in the way of the next.
		Name:        fmt.Sprintf("%s (%d)", name, x.opened.Add(1)),
		Description: "a disk like " + ref + ", gone with the connection",
		Disk:        &nbdDisk{d: d, length: d.Size()},
		Release:     func() { d.Close(context.WithoutCancel(ctx)) },
	}, nil
}

// parse returns what the name of an export is made of. No image lies in
// another, so what is an image's name is not something in one.
func (x *exports) parse(ctx context.Context, name string) (ref, part string, shared bool) {
	if CheckName(name) == nil {
		if is, err := x.c.isImage(ctx, top+"/"+name); err == nil && is {
			return name, "", false
		}
	}
	ref, shared = strings.CutSuffix(name, "/shared")
	if i := strings.LastIndex(ref, "/parts/"); i >= 0 {
		ref, part = ref[:i], strings.TrimSuffix(ref[i+len("/parts/"):], "/data")
	}
	return ref, part, shared
}

// live opens a live image, for writing if that may be.
func (x *exports) live(ctx context.Context, image, part string, shared bool) (*nbd.Export, error) {
	e := &nbd.Export{Description: "live disk", ReadOnly: x.readOnly, Shared: shared}
	opt := OpenOptions{Write: !x.readOnly, By: fmt.Sprintf("a client of NBD (%d)", x.opened.Add(1)), Shared: shared}
	d, err := x.c.Disk(ctx, image, opt)
	if isInUse(err) {
		e.ReadOnly, e.Description = true, fmt.Sprintf("live disk, to be read only: %v", err)
		d, err = x.c.Disk(ctx, image, OpenOptions{})
	}
	if err != nil {
		return nil, err
	}
	e.Release = func() { d.Close(context.WithoutCancel(ctx)) }
	v := &nbdDisk{d: d, length: d.Size()}
	if part != "" {
		l := d.layout(ctx)
		i, ok := 0, false
		if l != nil {
			i, ok = l.Parts()[part]
		}
		if !ok {
			e.Release()
			return nil, fmt.Errorf("the disk has no partition %s: %w", part, ninep.ErrNotExist)
		}
		v.start, v.length = l.Regions[i].Start, l.PartLength(i)
	}
	e.Disk = v
	return e, nil
}

// layout returns how the disk is cut now, or nil.
func (d *Disk) layout(ctx context.Context) *vdisk.Layout {
	if err := d.enter(ctx, 0, 0); err != nil {
		return nil
	}
	defer d.leave()
	return d.im.layout
}

// maxListedImages is how many images are listed.
const maxListedImages = 1000

// List implements nbd.Exports.
func (x *exports) List(ctx context.Context) ([]nbd.Listing, error) {
	names, err := x.c.List(ctx)
	if err != nil {
		return nil, err
	}
	var list []nbd.Listing
	for _, name := range names[:min(len(names), maxListedImages)] {
		list = append(list, nbd.Listing{Name: name, Description: "live disk"})
	}
	more, err := x.others.List(ctx)
	return append(list, more...), err
}

// An nbdDisk is a live disk or a partition of one.
type nbdDisk struct {
	d             *Disk
	start, length int64
}

// Size implements nbd.Disk.
func (v *nbdDisk) Size() int64 { return v.length }

// ReadAt implements nbd.Disk.
func (v *nbdDisk) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return v.d.ReadAt(ctx, p, v.start+off)
}

// WriteAt implements nbd.Writer.
func (v *nbdDisk) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	return v.d.WriteAt(ctx, p, v.start+off)
}

// Flush implements nbd.Writer.
func (v *nbdDisk) Flush(ctx context.Context) error { return v.d.Flush(ctx) }

// Zero implements nbd.Zeroer. There is no keeping room: zeros are holes in
// any case, also when they are written.
func (v *nbdDisk) Zero(ctx context.Context, off, n int64, _ nbd.Zeroing) error {
	return v.d.Trim(ctx, v.start+off, n)
}

// Trim implements nbd.Trimmer.
func (v *nbdDisk) Trim(ctx context.Context, off, n int64) error {
	return v.d.Trim(ctx, v.start+off, n)
}

// NextData implements nbd.Finder.
func (v *nbdDisk) NextData(ctx context.Context, off int64) (start, end int64, err error) {
	start, end, err = v.d.NextData(ctx, v.start+off)
	return start - v.start, min(end-v.start, v.length), err
}
