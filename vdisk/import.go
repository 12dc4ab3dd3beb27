package vdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"strata/venti"
	"strata/venti/hashtree"
)

// ImportOptions say how a disk is imported.
type ImportOptions struct {
	// Exact keeps every byte, also those of free blocks.
	Exact bool
	// OmitPaging leaves out the contents of the files in which a machine
	// keeps its memory, pagefile.sys, swapfile.sys and hiberfil.sys of
	// Windows. They read as zeros.
	OmitPaging bool
	// Base is the root of an image that is whole in the store, say yesterday's
	// of the same disk. What has not changed since is not looked up or sent.
	// The resulting score is the same as without.
	Base venti.Score
	// Changed, if not nil, says that only these ranges of the disk differ from
	// Base, which there must be. The rest is not read, but for what Base left
	// out since it was free, and is no longer. The resulting score is the same
	// as without.
	Changed []Range
	// Prev is the root that the image's own root names as the one before it.
	Prev venti.Score
	// Name goes into the root block.
	Name string
	// Parallel is how many pieces of the disk are read, hashed and stored at
	// once; 0 leaves it to hashtree.
	Parallel int
	// Progress, if not nil, is called now and then with how many bytes of the
	// disk, holes included, are done. Calls do not overlap.
	Progress func(done int64)
}

// A Result says what an import did.
type Result struct {
	Score   venti.Score    `json:"score"` // of the root
	Layout  *Layout        `json:"layout"`
	Regions []RegionCounts `json:"regions"`
	Total   Counts         `json:"total"`
	Blocks  int64          `json:"blocks"` // of data and pointers that were sent
	Seconds float64        `json:"seconds"`
}

// RegionCounts are the counts of a region.
type RegionCounts struct {
	Name string `json:"name"`
	Counts
}

// Counts say where the bytes of a disk, or of a region, went: Size is the sum
// of the holes of the file, Free, Zero, Shared and New. (A block that is partly
// a hole counts as what it is stored as.)
type Counts struct {
	Size      int64 `json:"size"`
	Allocated int64 `json:"allocated"` // not holes of the file
	Free      int64 `json:"free"`      // allocated, but left out since free
	Zero      int64 `json:"zero"`      // zeros, in blocks or at their ends, which are not stored
	Shared    int64 `json:"shared"`    // in blocks that the store had
	New       int64 `json:"new"`       // in blocks that were sent

	SharedBlocks int64 `json:"sharedBlocks"`
	NewBlocks    int64 `json:"newBlocks"`
}

func (c *Counts) add(d Counts) {
	c.Size += d.Size
	c.Allocated += d.Allocated
	c.Free += d.Free
	c.Zero += d.Zero
	c.Shared += d.Shared
	c.New += d.New
	c.SharedBlocks += d.SharedBlocks
	c.NewBlocks += d.NewBlocks
}

// Import stores a disk. When it returns a score, all of the image is on
// stable storage. An error, also one of reading src, or that src was changed
// meanwhile, means that there is no image; blocks may have been stored all
// the same, and will be shared by the next import.
func Import(ctx context.Context, st venti.Store, src Source, opt ImportOptions) (*Result, error) {
	began := time.Now()
	im := &importer{st: st, src: src, opt: opt}
	res, err := im.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	res.Seconds = time.Since(began).Seconds()
	return res, nil
}

// An importer is one import.
type importer struct {
	st  venti.Store
	src Source
	opt ImportOptions

	base    *Image         // nil without one
	changed *changedSource // nil without Changed
	flags   uint8          // of entries, besides hashtree's
	entries []venti.Entry
	largest int // bytes of the largest block
	blocks  int64
}

func (im *importer) run(ctx context.Context) (*Result, error) {
	root := venti.Root{Name: im.opt.Name, Type: RootType, BlockSize: maxDSize, Prev: im.opt.Prev}
	if _, err := root.Pack(nil); err != nil {
		return nil, err // at once, not after hours
	}
	if err := im.openOthers(ctx); err != nil {
		return nil, err
	}
	if im.opt.Changed != nil {
		if im.base == nil {
			return nil, errors.New("ranges that have changed, and no base that they are to be changed from")
		}
		changed, err := newChangedSource(ctx, im.src, im.base, im.opt.Changed)
		if err != nil {
			return nil, err
		}
		im.changed, im.src = changed, changed
	}
	l, parts, err := cut(im.src, keep{im.opt.Exact, im.opt.OmitPaging})
	if err != nil {
		return nil, err
	}
	if err := im.storeLayout(ctx, l); err != nil {
		return nil, err
	}
	return im.finish(ctx, root, l, parts)
}

// finish stores the parts, and what names them.
func (im *importer) finish(ctx context.Context, root venti.Root, l *Layout, parts []*part) (*Result, error) {
	res := &Result{Layout: l}
	for _, p := range parts {
		c, err := im.region(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("region %s: %w", p.Name, err)
		}
		res.Regions = append(res.Regions, RegionCounts{p.Name, c})
		res.Total.add(c)
	}
	if s, ok := im.src.(checkedSource); ok {
		if err := s.Unchanged(); err != nil {
			return nil, err
		}
	}
	var err error
	if res.Score, err = im.writeRoot(ctx, root); err != nil {
		return nil, err
	}
	// The commit point: a score is worth something only when all below it
	// will be there tomorrow.
	if err := im.st.Sync(ctx); err != nil {
		return nil, fmt.Errorf("sync: %w", err)
	}
	res.Blocks = im.blocks
	return res, nil
}

// openOthers opens the base image, and sees to it that prev names a root:
// venti/copy would stop at one that does not.
func (im *importer) openOthers(ctx context.Context) (err error) {
	if !im.opt.Prev.IsZero() {
		var buf [venti.RootSize]byte
		n, err := im.st.ReadBlock(ctx, im.opt.Prev, venti.RootType, buf[:])
		if err == nil {
			_, err = venti.UnpackRoot(buf[:n])
		}
		if err != nil {
			return fmt.Errorf("previous image %v: %w", im.opt.Prev, err)
		}
	}
	if !im.opt.Base.IsZero() {
		if im.base, err = Open(ctx, im.st, im.opt.Base); err != nil {
			return fmt.Errorf("base: %w", err)
		}
	}
	return nil
}

// region stores one part of the disk.
func (im *importer) region(ctx context.Context, p *part) (c Counts, err error) {
	c.Size = p.Length
	c.Allocated, c.Free, err = p.measure()
	if err != nil {
		return c, err
	}
	cfg := hashtree.Config{DSize: p.DSize, PSize: p.PSize, Parallel: im.opt.Parallel, Base: im.baseEntry(p)}
	if im.changed != nil && cfg.Base != nil {
		cfg.Same = im.changed.same(p)
	}
	if im.opt.Progress != nil {
		cfg.Progress = func(done int64) { im.opt.Progress(p.Start + min(done, p.Length)) }
	}
	return c, im.store(ctx, p, p.Length, cfg, &c)
}

// baseEntry returns the entry of the base image that is likely to be like
// p's, or nil.
func (im *importer) baseEntry(p *part) *venti.Entry {
	if im.base == nil {
		return nil
	}
	for i, r := range im.base.layout.Regions {
		if r.Name == p.Name && r.Kind == p.Kind && r.DSize == p.DSize && r.PSize == p.PSize {
			return &im.base.entries[i]
		}
	}
	return nil
}

// store stores a stream and appends its entry. c, if not nil, takes the
// counts.
func (im *importer) store(ctx context.Context, src io.ReaderAt, size int64, cfg hashtree.Config, c *Counts) error {
	e, stats, err := hashtree.Write(ctx, im.st, src, size, cfg)
	if err != nil {
		return err
	}
	e.Flags |= im.flags
	im.entries = append(im.entries, e)
	im.largest = max(im.largest, e.DSize, e.PSize)
	im.blocks += stats.Leaves.Sent.Blocks + stats.Pointers.Sent.Blocks
	if c == nil {
		return nil
	}
	l := stats.Leaves
	c.Shared, c.SharedBlocks = l.Base.Bytes+l.Shared.Bytes, l.Base.Blocks+l.Shared.Blocks
	c.New, c.NewBlocks = l.Sent.Bytes, l.Sent.Blocks
	// Less than nothing is left where a block is partly a hole.
	c.Zero = max(0, c.Allocated-c.Free-c.Shared-c.New)
	return nil
}

// WriteImage makes an image of regions that st has already: it stores the
// layout, the directory and the root, and returns the root's score, which is that
// of an import of the same disk. The i-th entry is that of the layout's i-th
// region. All that is written is on stable storage when it returns.
func WriteImage(ctx context.Context, st venti.Store, l *Layout, entries []venti.Entry) (venti.Score, error) {
	s, err := writeImage(ctx, st, l, entries)
	if err != nil {
		return s, fmt.Errorf("write image: %w", err)
	}
	return s, nil
}

func writeImage(ctx context.Context, st venti.Store, l *Layout, entries []venti.Entry) (venti.Score, error) {
	if len(entries) != len(l.Regions) {
		return venti.Score{}, fmt.Errorf("%d entries for %d regions", len(entries), len(l.Regions))
	}
	im := &importer{st: st}
	if err := im.storeLayout(ctx, l); err != nil {
		return venti.Score{}, err
	}
	for i, r := range l.Regions {
		e := entries[i]
		if e.Size != r.Length || e.DSize != r.DSize || e.PSize != r.PSize {
			return venti.Score{}, fmt.Errorf("the entry of region %s does not agree with the layout", r.Name)
		}
		// What else its directory said of the stream is no matter of the disk's.
		e = venti.Entry{PSize: e.PSize, DSize: e.DSize, Depth: e.Depth, Flags: venti.EntryActive, Size: e.Size, Score: e.Score}
		im.entries = append(im.entries, e)
		im.largest = max(im.largest, e.DSize, e.PSize)
	}
	s, err := im.writeRoot(ctx, venti.Root{Type: RootType})
	if err != nil {
		return s, err
	}
	return s, st.Sync(ctx)
}

// storeLayout stores the layout, whose entry is the first.
func (im *importer) storeLayout(ctx context.Context, l *Layout) error {
	b, err := l.Encode()
	if err != nil {
		return err
	}
	return im.store(ctx, bytes.NewReader(b), int64(len(b)), hashtree.Config{DSize: maxDSize, PSize: psize}, nil)
}

// writeRoot writes the directory and the root, and returns the root's score.
func (im *importer) writeRoot(ctx context.Context, root venti.Root) (venti.Score, error) {
	var dir []byte
	var err error
	for i := range im.entries {
		if dir, err = im.entries[i].Pack(dir); err != nil {
			return venti.Score{}, err
		}
	}
	dir = venti.Truncate(venti.DirType, dir)
	root.BlockSize = max(im.largest, len(dir))
	if root.Score, err = im.st.WriteBlock(ctx, venti.DirType, dir); err != nil {
		return venti.Score{}, fmt.Errorf("write directory block: %w", err)
	}
	block, err := root.Pack(nil)
	if err != nil {
		return venti.Score{}, err
	}
	s, err := im.st.WriteBlock(ctx, venti.RootType, block)
	if err != nil {
		return venti.Score{}, fmt.Errorf("write root block: %w", err)
	}
	return s, nil
}
