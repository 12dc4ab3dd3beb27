package vdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"sort"
	"strings"

	"strata/vdisk/fsys"
)

// A FileChange is a file that two disks do not have alike.
type FileChange struct {
	What string // Added, Removed, Changed or Unknown
	Part string // the partition: see Layout.OpenFiles
	Path string // in it; "" is all of it
	Err  error  // of Unknown: why it cannot be told
}

// What a FileChange says.
const (
	Added   = "added" // with all that is in it, if it is a directory
	Removed = "removed"
	Changed = "changed" // its contents, or what is known of it but its times; of a file also when that was
	Unknown = "unknown"
)

func (c FileChange) String() string {
	path := c.Part + "/" + c.Path
	if Printable(path) != path || strings.ContainsAny(path, "\"\\") {
		path = fmt.Sprintf("%q", path)
	}
	if c.Err != nil {
		return fmt.Sprintf("%s %s: %s", c.What, path, Printable(c.Err.Error()))
	}
	return c.What + " " + path
}

// DiffFiles yields the files that two disks do not have alike, in the partitions
// whose file systems can be read, by their numbers and in the order of paths. It
// compares what the file systems say of their files, and reads the contents of
// those only that lie where the disks differ (Diff). What is not different is
// read from one disk. An error ends it.
func DiffFiles(ctx context.Context, a, b *Image) iter.Seq2[FileChange, error] {
	return func(yield func(FileChange, error) bool) {
		d := &fileDiff{ctx: ctx, yield: func(c FileChange) error {
			if !yield(c, nil) {
				return errStopped
			}
			return nil
		}}
		if err := d.disks(a, b); err != nil && err != errStopped {
			yield(FileChange{}, fmt.Errorf("diff of files of %v and %v: %w", a.score, b.score, err))
		}
	}
}

// A fileDiff is one DiffFiles.
type fileDiff struct {
	ctx   context.Context
	yield func(FileChange) error

	part    string
	changed rangeSet           // of the region, if both partitions lie in the same place
	known   bool               // changed is right
	seen    map[[2]uint64]bool // directories, by their numbers on both sides
}

func (d *fileDiff) disks(a, b *Image) error {
	var changed rangeSet
	for r, err := range Diff(d.ctx, a, b) {
		if err != nil {
			return err
		}
		changed = append(changed, r)
	}
	places := [2]map[string]Place{a.layout.Places(), b.layout.Places()}
	names := slices.Collect(maps.Keys(places[0]))
	for n := range places[1] {
		if _, ok := places[0][n]; !ok {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		var has [2]bool
		for i, im := range []*Image{a, b} {
			p, ok := places[i][n]
			has[i] = ok && im.layout.Regions[p.Region].HasFiles()
		}
		d.part = n
		var err error
		switch {
		case has[0] && has[1]:
			p, q := places[0][n], places[1][n]
			d.known = slices.Equal(p.Runs, q.Runs)
			if d.changed = p.within(changed); !d.known || len(d.changed) > 0 {
				err = d.parts(a, b)
			}
		case has[0]:
			err = d.say(Removed, "")
		case has[1]:
			err = d.say(Added, "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *fileDiff) say(what, path string) error {
	return d.yield(FileChange{What: what, Part: d.part, Path: path})
}

// unknown says that something cannot be read, unless that is the archive's fault.
func (d *fileDiff) unknown(path string, err error) error {
	if _, ok := fsys.Reason(err); !ok && !errors.Is(err, fs.ErrInvalid) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return d.yield(FileChange{Unknown, d.part, path, err})
}

// parts compares the file systems in a partition of both.
func (d *fileDiff) parts(a, b *Image) error {
	shared := &pageCache{pages: make(map[int64][]byte)}
	var roots [2]fsys.File
	for i, im := range []*Image{a, b} {
		own := &pageCache{pages: make(map[int64][]byte)}
		read := func(_ context.Context, p []byte, off int64) (int, error) { return im.ReadAtContext(d.ctx, p, off) }
		place := im.layout.Places()[d.part]
		r := &pagedReader{r: &placeReader{place, read}, cache: func(x Range) *pageCache {
			if d.known && !d.changed.touch(x) {
				return shared
			}
			return own
		}}
		var err error
		if roots[i], err = opener(im.layout.Regions[place.Region].FileSystem.Type)(r, place.Size()); err != nil {
			return d.unknown("", err)
		}
	}
	d.seen = make(map[[2]uint64]bool)
	return d.dirs(roots[0], roots[1], "", 0)
}

// maxDepth is how deep directories are compared.
const maxDepth = 1000

// dirs compares two directories, whose path ends in a slash or is "".
func (d *fileDiff) dirs(a, b fsys.File, path string, depth int) error {
	id := [2]uint64{a.Info().ID, b.Info().ID}
	switch {
	case depth > maxDepth:
		return d.unknown(path, fsys.Uncertain("it is more than %d directories deep", maxDepth))
	case d.seen[id]: // those of a damaged file system may lie in themselves
		return d.unknown(path, fsys.Uncertain("the directory is at another place too"))
	}
	d.seen[id] = true
	var entries [2]map[string]fsys.File
	for i, dir := range []fsys.File{a, b} {
		entries[i] = make(map[string]fsys.File)
		for e, err := range dir.Entries() {
			if err == nil {
				entries[i][e.Name] = e.File
				continue
			}
			if err := d.unknown(path+e.Name, err); err != nil || e.Name == "" {
				return err
			}
		}
	}
	names := slices.Collect(maps.Keys(entries[0]))
	for n := range entries[1] {
		if entries[0][n] == nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		f, g := entries[0][n], entries[1][n]
		var err error
		switch {
		case g == nil:
			err = d.say(Removed, path+n)
		case f == nil:
			err = d.say(Added, path+n)
		default:
			err = d.files(f, g, path+n, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// files compares two files of any kind.
func (d *fileDiff) files(a, b fsys.File, path string, depth int) error {
	i, j := a.Info(), b.Info()
	same := i.Mode == j.Mode && i.UID == j.UID && i.GID == j.GID && i.Target == j.Target && i.Major == j.Major && i.Minor == j.Minor
	if i.Mode.IsRegular() {
		same = same && i.Size == j.Size && i.ModTime.Equal(j.ModTime)
	}
	if same && i.Mode.IsRegular() {
		var err error
		if same, err = d.sameContents(a, b); err != nil {
			return d.unknown(path, err)
		}
	}
	if !same {
		if err := d.say(Changed, path); err != nil {
			return err
		}
	}
	if i.Mode.IsDir() && j.Mode.IsDir() {
		return d.dirs(a, b, path+"/", depth+1)
	}
	return nil
}

// sameContents compares two regular files of the same size.
func (d *fileDiff) sameContents(a, b fsys.File) (bool, error) {
	f, ok := a.(fsys.Mapped)
	g, ok2 := b.(fsys.Mapped)
	if d.known && ok && ok2 {
		same, err := d.samePlaces(f, g)
		if same || err != nil {
			return same, err
		}
	}
	var bufs [2][]byte
	for off := int64(0); off < a.Info().Size; off += compareBytes {
		n := min(compareBytes, a.Info().Size-off)
		for i, f := range []fsys.File{a, b} {
			if bufs[i] == nil {
				bufs[i] = make([]byte, n)
			}
			if m, err := f.ReadAt(bufs[i][:n], off); int64(m) < n {
				return false, err
			}
		}
		if !bytes.Equal(bufs[0][:n], bufs[1][:n]) {
			return false, nil
		}
		if err := d.ctx.Err(); err != nil {
			return false, err
		}
	}
	return true, nil
}

// samePlaces tells whether two files lie in the same places, in which nothing
// has changed.
func (d *fileDiff) samePlaces(a, b fsys.Mapped) (bool, error) {
	var lists [2][]fsys.Extent
	for i, f := range []fsys.Mapped{a, b} {
		list, ok, err := f.Extents()
		if err != nil || !ok {
			return false, err
		}
		lists[i] = list
	}
	if !slices.Equal(lists[0], lists[1]) {
		return false, nil
	}
	return !slices.ContainsFunc(lists[0], func(x fsys.Extent) bool {
		return x.Off != fsys.Hole && d.changed.touch(Range{x.Off, x.Len})
	}), nil
}

// A rangeSet is ranges in ascending order.
type rangeSet []Range

// touch tells whether a range has something of the set in it.
func (s rangeSet) touch(r Range) bool {
	i := sort.Search(len(s), func(i int) bool { return s[i].End() > r.Off })
	return i < len(s) && s[i].Off < r.End()
}

// within returns what of a set of ranges of the disk lies in a place, by where
// in it that is.
func (p Place) within(s rangeSet) rangeSet {
	var list rangeSet
	start := int64(0)
	for _, run := range p.Runs {
		i := sort.Search(len(s), func(i int) bool { return s[i].End() > run.Off })
		for ; i < len(s) && s[i].Off < run.End(); i++ {
			lo, hi := max(s[i].Off, run.Off), min(s[i].End(), run.End())
			list = append(list, Range{start + lo - run.Off, hi - lo})
		}
		start += run.Len
	}
	return list
}

// A pagedReader reads what file systems are made of in pages, which it keeps:
// inodes, and the links of FAT, are many to a block. Long reads, of contents, go
// to r.
type pagedReader struct {
	r     contents
	cache func(page Range) *pageCache
}

const (
	pageBytes = 16 << 10
	maxPages  = 1024 // of one cache
)

// A pageCache is the pages that were read last, by where they begin.
type pageCache struct {
	pages map[int64][]byte
	order []int64 // as they were read
}

func (p *pagedReader) ReadAt(b []byte, off int64) (n int, err error) {
	if len(b) > pageBytes || off < 0 {
		return p.r.ReadAtContext(context.Background(), b, off)
	}
	for n < len(b) {
		at := (off + int64(n)) / pageBytes * pageBytes
		page, err := p.page(at)
		if err != nil {
			return n, err
		}
		from := int(off + int64(n) - at)
		if from >= len(page) {
			return n, io.EOF
		}
		n += copy(b[n:], page[from:])
	}
	return n, nil
}

func (p *pagedReader) page(at int64) ([]byte, error) {
	c := p.cache(Range{at, pageBytes})
	if page := c.pages[at]; page != nil {
		return page, nil
	}
	page := make([]byte, max(0, min(pageBytes, p.r.Size()-at)))
	if _, err := p.r.ReadAtContext(context.Background(), page, at); err != nil && err != io.EOF {
		return nil, err
	}
	if len(c.order) == maxPages {
		delete(c.pages, c.order[0])
		c.order = c.order[1:]
	}
	c.pages[at], c.order = page, append(c.order, at)
	return page, nil
}
