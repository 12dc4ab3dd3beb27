package hashtree

import (
	"context"
	"fmt"
	"io"
	"sync"

	"strata/venti"
)

// ReaderConfig holds the options of a Reader.
type ReaderConfig struct {
	// CacheBytes is how much memory pointer blocks may take; 0 means 1 MiB.
	CacheBytes int
	// ReadAhead is how many bytes are fetched before they are asked for, once
	// a caller reads forward; 0 means none. Close must be called when it is
	// not 0.
	ReadAhead int
	// Parallel is how many level-1 pointer blocks Export and Stream work under
	// at once; 0 means twice the processors, at least four.
	Parallel int
}

const defaultPointerCache = 1 << 20

// fanout is how many calls of the store one cell, or one read, has
// outstanding. Over a unix socket 8 to 64 make no difference; a server further
// away needs them, and with four cells at work 32 use half of a connection's
// 255 tags.
const fanout = 32

// A Reader reads the file that an entry describes. Its methods may be called
// at once.
type Reader struct {
	ptr      *pointers
	parallel int
	leaves   sync.Pool  // of *[]byte, DSize long
	ahead    *ahead     // nil without read-ahead
	cache    BlockCache // nil if the blocks come from none

	// What ReadCached asks if there is no BlockCache; nil if there is none of
	// these either.
	cached venti.CachedReader
}

// NewReader returns a reader of the tree under e. It reads nothing yet, and
// fails when e's sizes and depth do not make a tree. A depth greater than
// the size needs is accepted.
func NewReader(br venti.BlockReader, e venti.Entry, cfg ReaderConfig) (*Reader, error) {
	if err := checkEntry(&e); err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	if cfg.CacheBytes <= 0 {
		cfg.CacheBytes = defaultPointerCache
	}
	r := &Reader{ptr: newPointers(br, e, cfg.CacheBytes), parallel: defaultParallel(cfg.Parallel)}
	r.cache, _ = br.(BlockCache)
	r.cached, _ = br.(venti.CachedReader)
	r.leaves.New = func() any {
		b := make([]byte, e.DSize)
		return &b
	}
	if cfg.ReadAhead > 0 {
		r.ahead = newAhead(r, cfg.ReadAhead)
	}
	return r, nil
}

// Close ends read-ahead. Without read-ahead it does nothing.
func (r *Reader) Close() error {
	if r.ahead != nil {
		r.ahead.close()
	}
	return nil
}

// Entry returns the entry that r reads.
func (r *Reader) Entry() venti.Entry { return r.ptr.e }

// Size returns the length of the file in bytes.
func (r *Reader) Size() int64 { return r.ptr.e.Size }

// ReadAt reads as io.ReaderAt says, without a way to stop it.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	return r.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext fills p with the bytes at off. Where the file ends first it
// returns their number and io.EOF. After any other error n is 0 and p is
// undefined.
func (r *Reader) ReadAtContext(ctx context.Context, p []byte, off int64) (n int, err error) {
	size := r.Size()
	switch {
	case off < 0:
		return 0, fmt.Errorf("read tree at negative offset %d", off)
	case len(p) == 0:
		return 0, nil
	case off >= size:
		return 0, io.EOF
	}
	if int64(len(p)) > size-off {
		p, err = p[:size-off], io.EOF
	}
	read := r.readLeaves
	if r.ahead != nil {
		read = r.ahead.read
	}
	if e := read(ctx, p, off); e != nil {
		return 0, fmt.Errorf("read tree at %d: %w", off, e)
	}
	return len(p), err
}

// readLeaves fills p, which lies within the file.
func (r *Reader) readLeaves(ctx context.Context, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	ds := int64(r.ptr.sh.dsize)
	first := off / ds
	n := int((off+int64(len(p))-1)/ds - first + 1)
	if n == 1 {
		return r.readLeaf(ctx, p, off)
	}
	return each(ctx, n, fanout, func(ctx context.Context, i int) error {
		lo := max((first+int64(i))*ds, off)
		hi := min((first+int64(i)+1)*ds, off+int64(len(p)))
		return r.readLeaf(ctx, p[lo-off:hi-off], lo)
	})
}

// readLeaf fills p, which lies within one leaf.
func (r *Reader) readLeaf(ctx context.Context, p []byte, off int64) error {
	ds := int64(r.ptr.sh.dsize)
	leaf, skip := off/ds, int(off%ds)
	s, err := r.ptr.score(ctx, 0, leaf)
	if err != nil {
		return err
	}
	if isHole(s) {
		clear(p)
		return nil
	}
	buf := p
	if len(p) < int(ds) {
		// The block may be longer than what is asked for, and than the file:
		// bytes past the size are not always zero.
		b := r.leaves.Get().(*[]byte)
		defer r.leaves.Put(b)
		buf = *b
	}
	n, err := r.ptr.br.ReadBlock(ctx, s, r.ptr.sh.leaf, buf)
	if err != nil {
		return fmt.Errorf("read leaf %d, %v: %w", leaf, s, err)
	}
	if len(p) == int(ds) {
		clear(p[n:])
		return nil
	}
	m := 0
	if skip < n {
		m = copy(p, buf[skip:n])
	}
	clear(p[m:])
	return nil
}

// NextData returns the first range at or after off that may hold a byte that
// is not zero: its ends lie on leaves, except that it begins at off if off
// lies inside, and ends with the file. What lies before it are holes. A range
// ends with its level-1 pointer block, so the next may begin where it ends.
// It returns io.EOF when only holes follow.
func (r *Reader) NextData(ctx context.Context, off int64) (start, end int64, err error) {
	if off < 0 {
		return 0, 0, fmt.Errorf("find data in tree at negative offset %d", off)
	}
	p, ds := r.ptr, int64(r.ptr.sh.dsize)
	if off >= p.e.Size {
		return 0, 0, io.EOF
	}
	leaf, err := p.next(ctx, 0, off/ds)
	if err != nil {
		return 0, 0, fmt.Errorf("find data in tree after %d: %w", off, err)
	}
	if leaf < 0 {
		return 0, 0, io.EOF
	}
	last := leaf + 1
	if p.e.Depth > 0 {
		np := int64(p.sh.np)
		scores, err := p.block(ctx, 1, leaf/np)
		if err != nil {
			return 0, 0, fmt.Errorf("find data in tree after %d: %w", off, err)
		}
		for last%np != 0 && !isHole(scoreAt(scores, int(last%np))) {
			last++
		}
	}
	return max(leaf*ds, off), min(last*ds, p.e.Size), nil
}

// LeafScore returns the score of the i-th leaf. It is EmptyScore for a hole
// and behind the end.
func (r *Reader) LeafScore(ctx context.Context, i int64) (venti.Score, error) {
	if i < 0 || i >= r.ptr.sh.leaves(r.Size()) {
		return venti.EmptyScore, nil
	}
	s, err := r.ptr.score(ctx, 0, i)
	if err != nil {
		return s, fmt.Errorf("read tree: %w", err)
	}
	if isHole(s) {
		return venti.EmptyScore, nil
	}
	return s, nil
}

// Entries returns how many entries the directory has room for.
func (r *Reader) Entries() int64 {
	ds := int64(r.ptr.sh.dsize)
	n := int64(r.ptr.sh.entriesPerLeaf())
	return r.Size()/ds*n + min(r.Size()%ds/venti.EntrySize, n)
}

// ReadEntry returns the i-th entry of a directory, which need not be active.
// Past the end it returns io.EOF.
func (r *Reader) ReadEntry(ctx context.Context, i int64) (venti.Entry, error) {
	if !r.ptr.e.Dir() {
		return venti.Entry{}, fmt.Errorf("read entry %d: not a directory", i)
	}
	if i < 0 || i >= r.Entries() {
		return venti.Entry{}, io.EOF
	}
	var b [venti.EntrySize]byte
	if _, err := r.ReadAtContext(ctx, b[:], r.ptr.sh.entryOffset(i)); err != nil && err != io.EOF {
		return venti.Entry{}, err
	}
	e, err := venti.UnpackEntry(b[:])
	if err != nil {
		return e, fmt.Errorf("entry %d: %w", i, err)
	}
	return e, nil
}
