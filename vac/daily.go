package vac

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"strata/vac/meta"
	"strata/venti/hashtree"
)

// A daily is a run of Options.Daily: the directory of the day, and the two
// above it.
type daily struct {
	year, day *child
	last      *File  // the newest day before this one, or nil
	oldRoot   *File  // or nil
	oldYear   *File  // or nil
	base      uint64 // qids of the day are above this
}

// newDaily finds the place for the files of the day, and makes top a copy of
// what the top directory is.
func (a *archiver) newDaily(ctx context.Context, top *child) (*daily, error) {
	d := new(daily)
	years := map[string]*File{}
	if old := a.opt.Append; old != nil {
		d.oldRoot = old.Root
		top.entry = old.Root.DirEntry
		top.entry.Version, top.entry.Gen, top.entry.MGen = 8, 0, 0
		top.entry.Entry, top.entry.MEntry = 0, 1
		for f, err := range old.Root.ReadDir(ctx) {
			if err != nil {
				return nil, fmt.Errorf("append: %w", err)
			}
			years[f.Name] = f
		}
		if !a.opt.Plan9port {
			var err error
			if d.base, err = nextQid(ctx, old.Root); err != nil {
				return nil, fmt.Errorf("append: %w", err)
			}
			d.base = max(d.base, 1) - 1
		}
	}
	a.qid += d.base
	yearName, dayName := a.opt.Now.Format("2006"), a.opt.Now.Format("0102")
	days := map[string]*File{}
	if d.oldYear = years[yearName]; d.oldYear != nil {
		if !d.oldYear.IsDir() {
			return nil, fmt.Errorf("append: %s is no directory", yearName)
		}
		for f, err := range d.oldYear.ReadDir(ctx) {
			if err != nil {
				return nil, fmt.Errorf("append: %w", err)
			}
			days[f.Name] = f
		}
	} else {
		d.year = a.newDir(yearName)
	}
	var err error
	if d.last, err = newestDay(ctx, years); err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	if d.last != nil {
		a.trace("diff " + d.last.Path())
	}
	name := dayName
	for n := 1; days[name] != nil; n++ {
		name = fmt.Sprintf("%s.%d", dayName, n)
	}
	d.base = a.qid - 1
	if !a.opt.Plan9port {
		a.qid = 1 // from here on they are shifted by base
	}
	d.day = a.newDir(name)
	a.trace("archive " + yearName + "/" + name)
	return d, nil
}

// newDir returns a directory of the archive's own.
func (a *archiver) newDir(name string) *child {
	c := a.newChild(name, meta.ModeDir|0o555)
	c.entry.UID, c.entry.GID = ownName, ownName
	c.entry.Mtime, c.entry.Atime = c.entry.Ctime, c.entry.Ctime
	return c
}

// newestDay returns the directory of the last day, which yyyy/mmdd or
// yyyy/mmdd.n names, or nil.
func newestDay(ctx context.Context, years map[string]*File) (*File, error) {
	var year, day *File
	for name, f := range years {
		if n, err := strconv.Atoi(name); err == nil && len(name) == 4 && n >= 1900 && f.IsDir() && (year == nil || name > year.Name) {
			year = f
		}
	}
	if year == nil {
		return nil, nil
	}
	newest := -1
	for f, err := range year.ReadDir(ctx) {
		if err != nil {
			return nil, err
		}
		if n := dayNumber(f.Name); n > newest && f.IsDir() {
			newest, day = n, f
		}
	}
	return day, nil
}

// dayNumber returns a number that rises with the days that names stand for, or
// -1.
func dayNumber(name string) int {
	day, nth, dotted := strings.Cut(name, ".")
	d, err := strconv.Atoi(day)
	if err != nil || len(day) != 4 || d < 100 || d > 1231 {
		return -1
	}
	n := 0
	if dotted {
		if n, err = strconv.Atoi(nth); err != nil || n < 0 || n > 1e6 {
			return -1
		}
	}
	return d*1e7 + n
}

// finishDaily stores the directories above that of the day.
func (a *archiver) finishDaily(ctx context.Context, d *daily, top *child) error {
	d.day.entry.QidSpace, d.day.entry.QidMax = true, a.qid
	if !a.opt.Plan9port {
		d.day.entry.QidOffset = d.base
		top.entry.QidSpace, top.entry.QidOffset, top.entry.QidMax = true, 0, d.base+a.qid
	}
	year := dirContents{owner: meta.DirEntry{UID: ownName, GID: ownName}, children: []*child{d.day}}
	if err := year.load(ctx, d.oldYear); err != nil {
		return err
	}
	data, m, err := a.w.dir(ctx, &year)
	if err != nil {
		return err
	}
	root := dirContents{owner: top.entry}
	if err := root.load(ctx, d.oldRoot); err != nil {
		return err
	}
	if y := d.oldYear; y != nil {
		data.Gen, m.Gen = y.Gen, y.MGen
		root.entries[y.Entry], root.entries[y.MEntry] = data, m
	} else {
		d.year.data, d.year.meta = data, m
		root.children = []*child{d.year}
	}
	top.data, top.meta, err = a.w.dir(ctx, &root)
	return err
}

// load fills in what a directory of an older archive holds.
func (d *dirContents) load(ctx context.Context, f *File) error {
	if f == nil {
		return nil
	}
	if f.meta.DSize > maxMetaBlock {
		return f.wrap(fmt.Errorf("metadata blocks of %d bytes cannot be added to", f.meta.DSize))
	}
	d.oldData, d.oldMeta = &f.data, &f.meta
	r, err := hashtree.NewReader(f.archive.br, f.meta, hashtree.ReaderConfig{})
	if err != nil {
		return f.wrap(err)
	}
	for off := int64(0); off < r.Size(); off += int64(f.meta.DSize) {
		b := make([]byte, f.meta.DSize)
		if _, err := r.ReadAtContext(ctx, b, off); err != nil && err != io.EOF {
			return f.wrap(err)
		}
		d.blocks = append(d.blocks, b)
	}
	if r, err = f.Open(hashtree.ReaderConfig{}); err != nil {
		return err
	}
	for i := range r.Entries() {
		e, err := r.ReadEntry(ctx, i)
		if err != nil {
			return f.wrap(err)
		}
		d.entries = append(d.entries, e)
	}
	return nil
}
