package vac

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
)

// maxMetaBlock is the longest metadata block: their offsets have 16 bits.
const maxMetaBlock = 56 << 10

// smallFile is how long a file may be that is read or written in one piece.
const smallFile = 1 << 20

// A writer stores the parts of an archive: files, then the directories that
// hold them, then the root. Its methods may be called at once.
type writer struct {
	st        venti.Store
	put       *hashtree.Putter
	blockSize int
	exact     bool      // see Options.Plan9port
	bufs      sync.Pool // of *[]byte, smallFile long
}

func newWriter(st venti.Store, blockSize int, exact bool) *writer {
	w := &writer{st: st, put: hashtree.NewPutter(st), blockSize: blockSize, exact: exact}
	w.bufs.New = func() any {
		b := make([]byte, smallFile)
		return &b
	}
	return w
}

// config returns how a stream is cut: as the one that it takes the place of,
// if there is one.
func (w *writer) config(old *venti.Entry, blockSize int, dir bool) hashtree.Config {
	cfg := hashtree.Config{DSize: blockSize, Dir: dir, Putter: w.put}
	if old != nil && old.Active() && old.Dir() == dir && old.DSize <= venti.MaxBlockSize && old.PSize <= venti.MaxBlockSize {
		cfg.DSize, cfg.PSize, cfg.Base = old.DSize, old.PSize, old
	}
	return cfg
}

// file stores size bytes of src, which is likely to be like old.
func (w *writer) file(ctx context.Context, src io.ReaderAt, size int64, old *venti.Entry, progress func(int64)) (venti.Entry, hashtree.Stats, error) {
	cfg := w.config(old, w.blockSize, false)
	cfg.Progress = progress
	var e venti.Entry
	var stats hashtree.Stats
	var err error
	if size <= smallFile {
		buf := w.bufs.Get().(*[]byte)
		defer w.bufs.Put(buf)
		b := (*buf)[:size]
		if n, err := src.ReadAt(b, 0); n < len(b) {
			return e, stats, fmt.Errorf("read %d bytes: %w", len(b), err)
		}
		e, stats, err = hashtree.WriteBytes(ctx, w.st, b, cfg)
	} else {
		e, stats, err = hashtree.Write(ctx, w.st, src, size, cfg)
	}
	return markLocal(e, old, true), stats, err
}

// stream stores all that src gives.
func (w *writer) stream(ctx context.Context, src io.Reader, old *venti.Entry) (venti.Entry, hashtree.Stats, error) {
	tree, err := hashtree.NewWriter(ctx, w.st, w.config(old, w.blockSize, false))
	if err != nil {
		return venti.Entry{}, hashtree.Stats{}, err
	}
	_, copyErr := io.CopyBuffer(struct{ io.Writer }{tree}, src, make([]byte, 1<<20))
	e, stats, err := tree.Close()
	return markLocal(e, old, true), stats, errors.Join(copyErr, err)
}

// markLocal sets the flag in e that plan9port's vac leaves in what it stores,
// but for empty streams and files of one full block. The same tree has the flag
// that it had.
func markLocal(e venti.Entry, old *venti.Entry, file bool) venti.Entry {
	if old != nil {
		was := *old
		was.Flags &^= venti.EntryLocal
		if was == e {
			return *old
		}
	}
	if e.Size > 0 && !(file && e.Size == int64(e.DSize)) {
		e.Flags |= venti.EntryLocal
	}
	return e
}

// A child is a file of a directory that is being made, with its contents.
type child struct {
	entry meta.DirEntry // but for its slots
	data  venti.Entry
	meta  venti.Entry // of directories
}

// A dirContents is what is known of a directory that is being made.
type dirContents struct {
	blocks   [][]byte      // metadata blocks that are there already
	entries  []venti.Entry // slots that are there already
	children []*child      // what is added, in order

	// owner describes the directory. plan9port's vac gives new files its owner and
	// group before they get their own.
	owner meta.DirEntry

	// The streams that are likely to be like those to be written, or nil.
	oldData, oldMeta *venti.Entry
}

// dir stores a directory and returns the entries of its two streams.
func (w *writer) dir(ctx context.Context, d *dirContents) (data, m venti.Entry, err error) {
	metaSize := min(w.blockSize, maxMetaBlock)
	mcfg := w.config(d.oldMeta, metaSize, false)
	if mcfg.DSize > maxMetaBlock {
		mcfg = w.config(nil, metaSize, false)
	}
	names := names{blocks: d.blocks, size: mcfg.DSize}
	for _, c := range d.children {
		if err := w.addChild(&names, c, d); err != nil {
			return data, m, err
		}
	}
	if data, err = w.entries(ctx, d); err != nil {
		return data, m, err
	}
	tree, err := hashtree.NewWriter(ctx, w.st, mcfg)
	if err != nil {
		return data, m, err
	}
	for _, b := range names.blocks {
		if _, err := tree.Write(b); err != nil {
			break // Close has it, too
		}
	}
	if m, _, err = tree.Close(); err != nil {
		return data, m, fmt.Errorf("metadata: %w", err)
	}
	return data, markLocal(m, d.oldMeta, false), nil
}

// addChild gives c its slots and adds its entry to the metadata.
func (w *writer) addChild(n *names, c *child, d *dirContents) error {
	c.entry.Version = 8
	c.entry.Entry = uint32(len(d.entries))
	c.entry.MEntry = c.entry.Entry + 1
	d.entries = append(d.entries, c.data)
	if c.entry.Mode.IsDir() {
		d.entries = append(d.entries, c.meta)
	}
	first := c.entry.Size()
	if w.exact {
		// plan9port's vac makes an entry with the owner and group of the directory
		// and no options; what it grows by later is counted as free.
		first = (&meta.DirEntry{Version: 8, Name: c.entry.Name, UID: d.owner.UID, GID: d.owner.GID}).Size()
	}
	return n.add(&c.entry, first)
}

// names makes the metadata blocks of a directory.
type names struct {
	blocks [][]byte
	size   int         // of a block
	last   *meta.Block // of blocks, or nil if nothing was added yet
}

// add adds an entry to the last block or to a new one. The entry had size
// first when it was made, before it was changed.
func (n *names) add(e *meta.DirEntry, first int) (err error) {
	if n.last == nil && len(n.blocks) > 0 {
		if n.last, err = meta.Open(n.blocks[len(n.blocks)-1]); err != nil {
			return err
		}
	}
	err = meta.ErrFull
	if n.last != nil && n.last.Takes(first) {
		err = n.last.Insert(e)
	}
	if errors.Is(err, meta.ErrFull) {
		n.last = meta.New(make([]byte, n.size), max(meta.MaxIndex(n.size), 1), meta.LongerFirst)
		n.blocks = append(n.blocks, n.last.Bytes())
		err = n.last.Insert(e)
	}
	if err != nil {
		return fmt.Errorf("%q in metadata blocks of %d bytes: %w", e.Name, n.size, err)
	}
	if grown := e.Size() - first; grown > 0 {
		n.last.MiscountFree(grown)
	}
	return nil
}

// entries stores the entry stream.
func (w *writer) entries(ctx context.Context, d *dirContents) (venti.Entry, error) {
	tree, err := hashtree.NewWriter(ctx, w.st, w.config(d.oldData, w.blockSize, true))
	if err != nil {
		return venti.Entry{}, err
	}
	for _, e := range d.entries {
		if err := tree.WriteEntry(e); err != nil {
			break // Close has it, too
		}
	}
	data, _, err := tree.Close()
	if err != nil {
		return venti.Entry{}, fmt.Errorf("entries: %w", err)
	}
	return markLocal(data, d.oldData, false), nil
}

// root stores what lies above the top directory, and syncs the store.
func (w *writer) root(ctx context.Context, top *child, prev venti.Score) (venti.Score, error) {
	// The entry lies alone in a block of the size that metadata blocks have.
	size := min(w.blockSize, maxMetaBlock)
	names := names{size: size}
	first := top.entry
	first.QidSpace = first.QidSpace && !w.exact
	if err := names.add(&top.entry, first.Size()); err != nil {
		return venti.Score{}, err
	}
	tree, err := hashtree.NewWriter(ctx, w.st, w.config(nil, size, false))
	if err != nil {
		return venti.Score{}, err
	}
	tree.Write(names.blocks[0]) // Close has its error, too
	self, _, err := tree.Close()
	if err != nil {
		return venti.Score{}, err
	}
	if top.entry.QidSpace {
		self.Flags |= venti.EntryLocal // it was changed once more
	}
	var buf []byte
	for _, e := range []venti.Entry{top.data, top.meta, self} {
		if buf, err = e.Pack(buf); err != nil {
			return venti.Score{}, err
		}
	}
	score, err := w.block(ctx, venti.DirType, venti.Truncate(venti.DirType, buf))
	if err != nil {
		return venti.Score{}, err
	}
	head := venti.Root{Type: RootType, Score: score, BlockSize: w.blockSize, Prev: prev}
	if buf, err = head.Pack(buf[:0]); err != nil {
		return venti.Score{}, err
	}
	if score, err = w.block(ctx, venti.RootType, buf); err != nil {
		return venti.Score{}, err
	}
	if err := w.st.Sync(ctx); err != nil {
		return venti.Score{}, err
	}
	return score, nil
}

func (w *writer) block(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	s := venti.ScoreOf(data)
	_, err := w.put.Put(ctx, s, t, data)
	return s, err
}
