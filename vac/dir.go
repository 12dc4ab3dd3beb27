package vac

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"golang.org/x/sync/errgroup"

	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
)

const (
	// chunkBytes is how much of a metadata stream is read at once, when it is
	// read on and on: it begins with a block.
	chunkBytes = 512 << 10

	// inFlight is how many blocks of an entry stream are read at once.
	inFlight = 32

	// maxMetaBytes bounds a metadata stream: fifty million names. A stream that
	// never ends costs nothing to make.
	maxMetaBytes = 1 << 32

	// maxBad is how many bad blocks of one directory are told of, each.
	maxBad = 1000
)

// ReadDir yields the files of a directory: block by block, in a block by
// name. For what cannot be read it yields an error, which says where, and goes
// on behind it; only an error of ctx ends it.
func (f *File) ReadDir(ctx context.Context) iter.Seq2[*File, error] { return f.ReadDirFrom(ctx, 0) }

// ReadDirFrom is ReadDir for what is behind the file with that Cookie; behind 0
// is all of the directory.
func (f *File) ReadDirFrom(ctx context.Context, cookie uint64) iter.Seq2[*File, error] {
	return func(yield func(*File, error) bool) {
		d, err := f.openDir()
		if err != nil {
			yield(nil, err)
			return
		}
		block, size := int64(d.block), d.meta.Size()
		if cookie>>cookieShift >= uint64((size+block-1)/block) {
			return
		}
		bad := 0
		for off := int64(cookie>>cookieShift) * block; off < size; {
			var blocks []metaBlock
			blocks, off, err = d.next(ctx, off)
			if ctx.Err() != nil {
				yield(nil, f.wrap(ctx.Err()))
				return
			}
			if err != nil {
				blocks = append(blocks, metaBlock{err: f.wrap(err)})
			}
			d.load(ctx, blocks)
			for _, b := range blocks {
				if b.err != nil {
					if bad++; bad == maxBad {
						yield(nil, f.wrap(fmt.Errorf("%w: too many bad metadata blocks", meta.ErrCorrupt)))
						return
					}
					if !yield(nil, b.err) {
						return
					}
				}
				for i, e := range b.entries {
					at := uint64(b.number)<<cookieShift | uint64(i+1)
					if at <= cookie {
						continue
					}
					if e.err == nil {
						e.file, e.err = d.file(e.dir)
					}
					if e.err == nil {
						e.file.cookie = at
					}
					if ctx.Err() != nil {
						e.err = f.wrap(ctx.Err())
					}
					if !yield(e.file, e.err) || ctx.Err() != nil {
						return
					}
				}
			}
		}
	}
}

// cookieShift is how far up in a cookie the number of the metadata block is;
// below it is the entry's in the block, from 1.
const cookieShift = 16

// Walk returns the file of a directory that has the name. ErrNotExist of
// package fs says that there is none. Where metadata cannot be read, the name
// might be there: that is another error.
func (f *File) Walk(ctx context.Context, name string) (*File, error) {
	d, err := f.openDir()
	if err != nil {
		return nil, err
	}
	if !ValidName(name) {
		return nil, f.notThere(name)
	}
	var file *File
	unread, err := d.eachBlock(ctx, func(_ int64, b *meta.Block) bool {
		file, err = d.find(ctx, b, name)
		return file == nil && err == nil
	})
	switch {
	case file != nil || err != nil:
		return file, err
	case unread != nil:
		return nil, unread
	}
	return nil, f.notThere(name)
}

func (f *File) notThere(name string) error {
	return fmt.Errorf("%s: %w: %q", f.Path(), fs.ErrNotExist, name)
}

// A dirReader reads the two streams of a directory.
type dirReader struct {
	f       *File
	entries *hashtree.Reader
	meta    *hashtree.Reader
	block   int   // bytes in a metadata block
	perLeaf int   // entries in a leaf of the entry stream
	chunk   int64 // bytes of metadata to read next

	leaves map[int64]leaf // of the entry stream: those that the chunk at hand needs
}

type leaf struct {
	data []byte
	err  error
}

func (f *File) openDir() (*dirReader, error) {
	if !f.IsDir() {
		return nil, f.wrap(errNotDir)
	}
	if f.meta.Size > maxMetaBytes {
		return nil, f.wrap(fmt.Errorf("%w: %d bytes of metadata", meta.ErrCorrupt, f.meta.Size))
	}
	d := &dirReader{f: f, block: f.meta.DSize, chunk: int64(f.meta.DSize)}
	var err error
	if d.meta, err = hashtree.NewReader(f.archive.br, f.meta, hashtree.ReaderConfig{}); err != nil {
		return nil, f.wrap(fmt.Errorf("metadata: %w", err))
	}
	if d.entries, err = hashtree.NewReader(f.archive.br, f.data, hashtree.ReaderConfig{}); err != nil {
		return nil, f.wrap(err)
	}
	d.perLeaf = f.data.DSize / venti.EntrySize
	return d, nil
}

// read reads metadata blocks at or after off, all of one run or up to a
// chunk, and returns where they begin and where to go on. With an error it has
// passed over what cannot be read, and data may be nil.
func (d *dirReader) read(ctx context.Context, off int64) (data []byte, start, next int64, err error) {
	size, block := d.meta.Size(), int64(d.block)
	start, end, err := d.meta.NextData(ctx, off)
	if err == io.EOF {
		return nil, off, size, fmt.Errorf("%w: %d metadata blocks are holes", meta.ErrCorrupt, (size-off+block-1)/block)
	}
	if err != nil {
		// A pointer block is lost, with all blocks below it.
		below := int64(d.f.meta.PSize/venti.ScoreSize) * block
		return nil, off, min((off/below+1)*below, size), fmt.Errorf("metadata: %w", err)
	}
	if start > off {
		err = fmt.Errorf("%w: %d metadata blocks are holes", meta.ErrCorrupt, (start-off)/block)
	}
	end = min(end, start+d.chunk)
	d.chunk = max(min(2*d.chunk, chunkBytes/block*block), block)
	data = make([]byte, end-start)
	if _, e := d.meta.ReadAtContext(ctx, data, start); e == nil || e == io.EOF {
		return data, start, end, err
	}
	// Find out which one it is.
	end = min(start+block, end)
	data = data[:end-start]
	if _, e := d.meta.ReadAtContext(ctx, data, start); e != nil && e != io.EOF {
		return nil, start, end, fmt.Errorf("metadata block %d: %w", start/block, e)
	}
	return data, start, end, err
}

// eachBlock calls visit with each metadata block and its number, until it
// returns false. unread is the first error of what could not be read, err that
// of ctx.
func (d *dirReader) eachBlock(ctx context.Context, visit func(number int64, b *meta.Block) bool) (unread, err error) {
	for off, size := int64(0), d.meta.Size(); off < size; {
		var data []byte
		var start int64
		data, start, off, err = d.read(ctx, off)
		if ctx.Err() != nil {
			return unread, d.f.wrap(ctx.Err())
		}
		if err != nil && unread == nil {
			unread = d.f.wrap(err)
		}
		for i := 0; i < len(data); i += d.block {
			number := (start + int64(i)) / int64(d.block)
			b, err := d.open(data[i:], number)
			if err != nil {
				if unread == nil {
					unread = err
				}
				continue
			}
			if !visit(number, b) {
				return unread, nil
			}
		}
	}
	return unread, nil
}

// open returns the metadata block with this number, which data begins with.
func (d *dirReader) open(data []byte, number int64) (*meta.Block, error) {
	b, err := meta.Open(data[:min(d.block, len(data))])
	if err != nil {
		return nil, fmt.Errorf("%s: metadata block %d: %w", d.f.Path(), number, err)
	}
	return b, nil
}

// find returns the file that a metadata block has under a name, or nil.
func (d *dirReader) find(ctx context.Context, b *meta.Block, name string) (*File, error) {
	i, found := b.Search(name)
	if !found {
		return nil, nil
	}
	e, err := b.Entry(i)
	if err != nil {
		return nil, fmt.Errorf("%s: %q: %w", d.f.Path(), name, err)
	}
	d.fetch(ctx, slots(nil, &e))
	return d.file(e)
}

// A metaBlock is what a metadata block holds, or err.
type metaBlock struct {
	number  int64
	entries []dirItem
	err     error
}

type dirItem struct {
	dir  meta.DirEntry
	file *File
	err  error
}

// next is read with the entries unpacked.
func (d *dirReader) next(ctx context.Context, off int64) (blocks []metaBlock, next int64, err error) {
	data, start, next, err := d.read(ctx, off)
	for i := 0; i < len(data); i += d.block {
		mb := metaBlock{number: (start + int64(i)) / int64(d.block)}
		b, err := d.open(data[i:], mb.number)
		if err != nil {
			mb.err = err
			blocks = append(blocks, mb)
			continue
		}
		mb.entries = make([]dirItem, b.Len())
		for k := range mb.entries {
			e := &mb.entries[k]
			if e.dir, e.err = b.Entry(k); e.err != nil {
				e.err = fmt.Errorf("%s: %q: %w", d.f.Path(), b.Name(k), e.err)
			}
		}
		blocks = append(blocks, mb)
	}
	return blocks, next, err
}

// slots appends the slots that an entry names.
func slots(list []uint32, e *meta.DirEntry) []uint32 {
	list = append(list, e.Entry)
	if e.Mode.IsDir() {
		list = append(list, e.MEntry)
	}
	return list
}

// load fetches the leaves that the files of blocks lie in.
func (d *dirReader) load(ctx context.Context, blocks []metaBlock) {
	var list []uint32
	for _, b := range blocks {
		for i := range b.entries {
			if b.entries[i].err == nil {
				list = slots(list, &b.entries[i].dir)
			}
		}
	}
	d.fetch(ctx, list)
}

// fetch makes d.leaves those that hold the slots.
func (d *dirReader) fetch(ctx context.Context, slots []uint32) {
	old := d.leaves
	d.leaves = make(map[int64]leaf)
	ds, size := int64(d.f.data.DSize), d.entries.Size()
	var missing []int64
	for _, s := range slots {
		i := int64(s) / int64(d.perLeaf)
		if _, ok := d.leaves[i]; ok || i*ds >= size {
			continue
		}
		l, ok := old[i]
		if d.leaves[i] = l; !ok {
			missing = append(missing, i)
		}
	}
	got := make([]leaf, len(missing))
	var g errgroup.Group
	g.SetLimit(inFlight)
	for k, i := range missing {
		g.Go(func() error {
			b := make([]byte, min(ds, size-i*ds))
			if _, err := d.entries.ReadAtContext(ctx, b, i*ds); err != nil && err != io.EOF {
				got[k].err = err
			}
			got[k].data = b
			return nil
		})
	}
	g.Wait() // errors are the leaves'
	for k, i := range missing {
		d.leaves[i] = got[k]
	}
}

// entry returns the entry in a slot that was fetched.
func (d *dirReader) entry(slot uint32) (venti.Entry, error) {
	l, ok := d.leaves[int64(slot)/int64(d.perLeaf)]
	off := int(slot) % d.perLeaf * venti.EntrySize
	switch {
	case l.err != nil:
		return venti.Entry{}, l.err
	case !ok || off+venti.EntrySize > len(l.data):
		return venti.Entry{}, fmt.Errorf("%w: no slot %d", meta.ErrCorrupt, slot)
	}
	return venti.UnpackEntry(l.data[off:])
}

// file makes the File of an entry whose slots were fetched.
func (d *dirReader) file(e meta.DirEntry) (*File, error) {
	if !ValidName(e.Name) {
		return nil, fmt.Errorf("%s: %w: bad name %q", d.f.Path(), meta.ErrCorrupt, e.Name)
	}
	fail := func(err error) (*File, error) {
		return nil, fmt.Errorf("%s: %w", (&File{DirEntry: e, parent: d.f}).Path(), err)
	}
	data, err := d.entry(e.Entry)
	if err != nil {
		return fail(err)
	}
	var m venti.Entry
	if e.Mode.IsDir() {
		if m, err = d.entry(e.MEntry); err != nil {
			return fail(err)
		}
	}
	return d.f.child(e, data, m)
}
