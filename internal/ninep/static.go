package ninep

import (
	"cmp"
	"context"
	"hash/fnv"
	"io"
	"iter"
	"maps"
	"slices"
)

// NewDir returns a read-only directory of children that stay the same. d
// describes the directory, as the children's Stat does them, names included;
// its Qid and Mode get the bits of a directory.
func NewDir(d Dir, children map[string]Node) Node {
	return &staticDir{fileBase{dirOf(d)}, children, slices.Sorted(maps.Keys(children))}
}

// LookupDir returns a read-only directory whose children are made when they
// are walked to. list yields the entries of those that a reader is to see, or
// is nil if there are none; it need not set their cookies.
func LookupDir(d Dir, lookup func(ctx context.Context, name string) (Node, error), list func(ctx context.Context) ([]Dir, error)) Node {
	return &lookupDir{fileBase{dirOf(d)}, lookup, list}
}

// NewFile returns a read-only file of d.Length bytes that r reads. If r is a
// CachedReader or Lender, reads that it can answer at once are.
func NewFile(d Dir, r Reader) Node {
	cached, _ := r.(CachedReader)
	lender, _ := r.(Lender)
	return &readerFile{fileBase{d}, r, cached, lender}
}

// NewText returns a read-only file whose text is made anew each time that it
// is opened.
func NewText(d Dir, text func(ctx context.Context) (string, error)) Node {
	return &textFile{fileBase{d}, text}
}

// FromReaderAt returns r as a Reader. Its reads do not end early when their
// context does.
func FromReaderAt(r io.ReaderAt) Reader { return readerAt{r} }

type readerAt struct{ r io.ReaderAt }

func (r readerAt) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return r.r.ReadAt(p, off)
}

func dirOf(d Dir) Dir {
	d.Mode |= ModeDir
	d.Qid.Type |= QTDir
	d.Length = 0
	return d
}

// A fileBase is what the nodes here have in common.
type fileBase struct{ d Dir }

func (f *fileBase) Qid() Qid                                   { return f.d.Qid }
func (f *fileBase) Stat(context.Context) (Dir, error)          { return f.d, nil }
func (f *fileBase) Walk(context.Context, string) (Node, error) { return nil, ErrNotDir }
func (f *fileBase) Close(context.Context) error                { return nil }
func (f *fileBase) check(mode OpenMode) error {
	if mode&^OAPPEND == OREAD || mode == OEXEC && !f.d.Mode.Dir() && f.d.Mode&0111 != 0 {
		return nil
	}
	return ErrReadOnly
}

type staticDir struct {
	fileBase
	children map[string]Node
	names    []string // sorted
}

func (n *staticDir) Walk(_ context.Context, name string) (Node, error) {
	if c := n.children[name]; c != nil {
		return c, nil
	}
	return nil, ErrNotExist
}

func (n *staticDir) Open(_ context.Context, mode OpenMode) (Handle, error) { return n, n.check(mode) }

func (n *staticDir) ReadDir(ctx context.Context, cookie uint64) iter.Seq2[Dir, error] {
	return func(yield func(Dir, error) bool) {
		for i := cookie; i < uint64(len(n.names)); i++ {
			d, err := n.children[n.names[i]].Stat(ctx)
			d.Name, d.Cookie = n.names[i], i+1
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}

type lookupDir struct {
	fileBase
	lookup func(context.Context, string) (Node, error)
	list   func(context.Context) ([]Dir, error)
}

func (n *lookupDir) Walk(ctx context.Context, name string) (Node, error) { return n.lookup(ctx, name) }

// Open lists the directory, so that who reads it sees one state of it.
func (n *lookupDir) Open(ctx context.Context, mode OpenMode) (Handle, error) {
	if err := n.check(mode); err != nil || n.list == nil {
		return dirList(nil), err
	}
	list, err := n.list(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Dir) int { return cmp.Compare(a.Name, b.Name) })
	return dirList(list), nil
}

// A dirList is an open directory with a list of its entries.
type dirList []Dir

func (l dirList) Close(context.Context) error { return nil }

func (l dirList) ReadDir(_ context.Context, cookie uint64) iter.Seq2[Dir, error] {
	return func(yield func(Dir, error) bool) {
		for i := cookie; i < uint64(len(l)); i++ {
			d := l[i]
			d.Cookie = i + 1
			if !yield(d, nil) {
				return
			}
		}
	}
}

type readerFile struct {
	fileBase
	r      Reader
	cached CachedReader // or nil
	lender Lender       // or nil
}

func (n *readerFile) Open(_ context.Context, mode OpenMode) (Handle, error) {
	if err := n.check(mode); err != nil {
		return nil, err
	}
	switch {
	case n.lender != nil:
		return lendingFile{cachedFile{n}}, nil
	case n.cached != nil:
		return cachedFile{n}, nil
	}
	return n, nil
}

func (n *readerFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off >= n.d.Length {
		return 0, io.EOF
	}
	return n.r.ReadAt(ctx, p[:min(int64(len(p)), n.d.Length-off)], off)
}

// A cachedFile is a readerFile that can be a CachedReader.
type cachedFile struct{ *readerFile }

func (n cachedFile) ReadCached(p []byte, off int64) (int, bool) {
	switch {
	case off >= n.d.Length:
		return 0, true
	case n.cached == nil:
		return 0, false
	}
	return n.cached.ReadCached(p[:min(int64(len(p)), n.d.Length-off)], off)
}

// A lendingFile is one that can be a Lender.
type lendingFile struct{ cachedFile }

func (n lendingFile) Lend(bufs [][]byte, most int, off int64) ([][]byte, func(), bool) {
	if off >= n.d.Length {
		return bufs, nil, true
	}
	return n.lender.Lend(bufs, int(min(int64(most), n.d.Length-off)), off)
}

type textFile struct {
	fileBase
	text func(context.Context) (string, error)
}

// Stat makes the text too: Linux's client reads no further than the length.
func (n *textFile) Stat(ctx context.Context) (Dir, error) {
	text, err := n.text(ctx)
	d := n.d
	d.Length = int64(len(text))
	return d, err
}

func (n *textFile) Open(ctx context.Context, mode OpenMode) (Handle, error) {
	if err := n.check(mode); err != nil {
		return nil, err
	}
	text, err := n.text(ctx)
	return bytesReader(text), err
}

// QidPath returns a qid path for a file that its name alone identifies, in a
// tree that makes files up: names that differ share one only by a chance of
// one in 2^64.
func QidPath(name string) uint64 {
	h := fnv.New64a()
	io.WriteString(h, name)
	return h.Sum64()
}
