package vdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"strata/vdisk/fsys"
	"strata/venti"
	"strata/venti/hashtree"
)

// RootType is the type of an image's root block, and the word in front of
// its score: vdisk:<40 hex digits>.
const RootType = "vdisk"

// ErrNotImage says that a score names something, but no disk.
var ErrNotImage = errors.New("not a disk image")

// rootSkipsFree are the types of root under which vbackup keeps a partition
// without its free blocks.
var rootSkipsFree = map[string]bool{"ext2": true, "ffs": true, "hfs": true}

// An Image is a disk in the archive. Its methods may be called at once.
type Image struct {
	br      venti.BlockReader
	score   venti.Score
	root    venti.Root
	layout  *Layout
	entries []venti.Entry      // of the regions
	readers []*hashtree.Reader // of the regions

	mu    sync.Mutex           // guards files; held while the archive is read
	files map[string]fsys.File // what Files has opened, by partition
}

// OpenText opens the image that text names: "vdisk:" and 40 hex digits, the
// digits alone, or another word that is the type of the root block.
func OpenText(ctx context.Context, br venti.BlockReader, text string) (*Image, error) {
	kind, score, err := venti.ParseTypedScore(text)
	if err != nil {
		return nil, err
	}
	im, err := Open(ctx, br, score)
	if err != nil {
		return nil, err
	}
	if kind != "" && kind != im.root.Type {
		return nil, fmt.Errorf("open %s: %w: its root is of type %q", text, ErrNotImage, im.root.Type)
	}
	return im, nil
}

// Open opens the image whose root block has the given score. A file kept as a
// single stream (the root types "file", "rawdisk", and "ext2", "ffs" and "hfs"
// as vbackup writes them) opens as a disk of one region, whose kind is the
// root's type. br is used as long as the image is.
//
// The error is ErrNotImage when there is such a root but not of a disk, and
// that of br when a block could not be read.
func Open(ctx context.Context, br venti.BlockReader, score venti.Score) (*Image, error) {
	im, err := open(ctx, br, score)
	if err != nil {
		return nil, fmt.Errorf("open image %v: %w", score, err)
	}
	return im, nil
}

func open(ctx context.Context, br venti.BlockReader, score venti.Score) (*Image, error) {
	im := &Image{br: br, score: score}
	var buf [venti.RootSize]byte
	n, err := br.ReadBlock(ctx, score, venti.RootType, buf[:])
	if errors.Is(err, venti.ErrTooLong) {
		return nil, fmt.Errorf("%w: root block is too long", ErrNotImage)
	}
	if err != nil {
		return nil, fmt.Errorf("read root block: %w", err)
	}
	im.root, err = venti.UnpackRoot(buf[:n])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotImage, err)
	}
	entries, err := readDirectory(ctx, br, im.root.Score)
	if err != nil {
		return nil, err
	}
	if im.root.Type == RootType {
		err = im.openRegions(ctx, br, entries)
	} else {
		err = im.openStream(entries)
	}
	if err != nil {
		return nil, err
	}
	for i, e := range im.entries {
		r, err := hashtree.NewReader(br, e, hashtree.ReaderConfig{})
		if err != nil {
			return nil, fmt.Errorf("%w: region %s: %w", ErrNotImage, im.layout.Regions[i].Name, err)
		}
		im.readers = append(im.readers, r)
	}
	return im, nil
}

// readDirectory reads the directory block under a root.
func readDirectory(ctx context.Context, br venti.BlockReader, score venti.Score) ([]venti.Entry, error) {
	buf := make([]byte, venti.MaxBlockSize+venti.EntrySize)
	n, err := br.ReadBlock(ctx, score, venti.DirType, buf[:venti.MaxBlockSize])
	if err != nil {
		return nil, fmt.Errorf("read directory block %v: %w", score, err)
	}
	var entries []venti.Entry
	for i := 0; i < n; i += venti.EntrySize {
		e, err := venti.UnpackEntry(buf[i : i+venti.EntrySize])
		if err != nil {
			return nil, fmt.Errorf("%w: entry %d: %w", ErrNotImage, len(entries), err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// openRegions reads the layout and matches it with the entries of an image.
func (im *Image) openRegions(ctx context.Context, br venti.BlockReader, entries []venti.Entry) error {
	if len(entries) == 0 {
		return fmt.Errorf("%w: no layout", ErrNotImage)
	}
	e := entries[0]
	if !e.Active() || e.Dir() || e.Size > maxLayout {
		return fmt.Errorf("%w: bad entry of the layout", ErrNotImage)
	}
	r, err := hashtree.NewReader(br, e, hashtree.ReaderConfig{})
	if err != nil {
		return fmt.Errorf("%w: layout: %w", ErrNotImage, err)
	}
	buf := make([]byte, e.Size)
	if _, err := r.ReadAtContext(ctx, buf, 0); err != nil && err != io.EOF {
		return fmt.Errorf("read layout: %w", err)
	}
	if im.layout, err = DecodeLayout(buf); err != nil {
		return fmt.Errorf("%w: %w", ErrNotImage, err)
	}
	im.entries = entries[1:]
	if len(im.entries) != len(im.layout.Regions) {
		return fmt.Errorf("%w: %d entries for %d regions", ErrNotImage, len(im.entries), len(im.layout.Regions))
	}
	for i, r := range im.layout.Regions {
		e := im.entries[i]
		if !e.Active() || e.Dir() || e.Size != r.Length || e.DSize != r.DSize || e.PSize != r.PSize {
			return fmt.Errorf("%w: the entry of region %s does not agree with the layout", ErrNotImage, r.Name)
		}
	}
	return nil
}

// openStream makes up the layout of a root that has one stream.
func (im *Image) openStream(entries []venti.Entry) error {
	if len(entries) != 1 || !entries[0].Active() || entries[0].Dir() {
		return fmt.Errorf("%w: its root is of type %q", ErrNotImage, im.root.Type)
	}
	e := entries[0]
	im.layout = &Layout{Version: LayoutVersion, Size: e.Size, Table: "none", Regions: []Region{}}
	if e.Size == 0 {
		return nil
	}
	kind := im.root.Type
	if !isWord(kind) {
		kind = "unknown"
	}
	im.entries = entries
	im.layout.Regions = append(im.layout.Regions, Region{
		Name: "disk", Length: e.Size, Kind: kind, Encoder: "plain",
		DSize: e.DSize, PSize: e.PSize, FreeOmitted: rootSkipsFree[kind],
	})
	return nil
}

// Score returns the score of the root block.
func (im *Image) Score() venti.Score { return im.score }

// Root returns the root block.
func (im *Image) Root() venti.Root { return im.root }

// Layout returns the layout, which must not be changed.
func (im *Image) Layout() *Layout { return im.layout }

// Size returns the bytes of the disk.
func (im *Image) Size() int64 { return im.layout.Size }

// Region returns a reader of the i-th region of the layout.
func (im *Image) Region(i int) *hashtree.Reader { return im.readers[i] }

// ReadAt reads the disk as io.ReaderAt says.
func (im *Image) ReadAt(p []byte, off int64) (int, error) {
	return im.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext is ReadAt, ended early by ctx.
func (im *Image) ReadAtContext(ctx context.Context, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read image at negative offset %d", off)
	}
	for i := im.at(off); n < len(p); i++ {
		if i >= len(im.readers) {
			return n, io.EOF
		}
		r := &im.layout.Regions[i]
		at := off + int64(n) - r.Start
		m := int(min(int64(len(p)-n), r.Length-at))
		if _, err := im.readers[i].ReadAtContext(ctx, p[n:n+m], at); err != nil && err != io.EOF {
			return n, fmt.Errorf("region %s: %w", r.Name, err)
		}
		n += m
	}
	return n, nil
}

// ReadCached is ReadAt for what needs no waiting: ok is false, and p undefined,
// if some block of it is not in memory.
func (im *Image) ReadCached(p []byte, off int64) (n int, ok bool) {
	if off < 0 {
		return 0, false
	}
	for i := im.at(off); n < len(p) && i < len(im.readers); i++ {
		r := &im.layout.Regions[i]
		at := off + int64(n) - r.Start
		m := int(min(int64(len(p)-n), r.Length-at))
		if _, ok := im.readers[i].ReadCached(p[n:n+m], at); !ok {
			return 0, false
		}
		n += m
	}
	return n, true
}

// NextData returns the first range of the disk at or after off that may hold
// a byte that is not zero, or io.EOF when only holes follow.
func (im *Image) NextData(ctx context.Context, off int64) (start, end int64, err error) {
	if off < 0 {
		return 0, 0, fmt.Errorf("next data of image at negative offset %d", off)
	}
	for i := im.at(off); i < len(im.readers); i++ {
		r := &im.layout.Regions[i]
		start, end, err := im.readers[i].NextData(ctx, max(off-r.Start, 0))
		if err == io.EOF {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("region %s: %w", r.Name, err)
		}
		return r.Start + start, r.Start + end, nil
	}
	return 0, 0, io.EOF
}

// at returns the index of the region that off lies in, or the number of
// regions when it lies past the end.
func (im *Image) at(off int64) int {
	regions := im.layout.Regions
	return sort.Search(len(regions), func(i int) bool { return off < regions[i].Start+regions[i].Length })
}
