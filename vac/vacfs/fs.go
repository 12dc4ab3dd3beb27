package vacfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"syscall"

	"strata/internal/lru"
	"strata/internal/ninep"
	"strata/vac"
	"strata/venti"
	"strata/venti/blockcache"
	"strata/venti/hashtree"
)

// A Config holds the options of an FS. Its zero value is the default.
type Config struct {
	// Memory is how many bytes of blocks are kept; 0 means DefaultMemory.
	Memory int64
	// NoPermissions lets everybody read everything.
	NoPermissions bool
}

// DefaultMemory is how many bytes of blocks an FS keeps.
const DefaultMemory = 64 << 20

// An Archive is one that an FS shows. Source is a score, vac:<40 hex>, or a file
// that begins with one. The file is read at each attach: who attaches sees what
// vac -a made of it last night.
type Archive struct {
	Name   string // in the root, where several are shown
	Source string
}

// An FS shows archives.
type FS struct {
	archives []Archive
	cfg      Config
	blocks   *blockcache.Cache
	open     *lru.Cache[venti.Score, *vac.Archive]
	readers  *lru.Cache[venti.Entry, *hashtree.Reader]
	indexes  *lru.Cache[venti.Score, *vac.Index] // by a directory's id
	indexing lru.Flights[venti.Score, *vac.Index]

	// Of read-ahead, which Close ends and waits for.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ahead  chan []byte // buffers that nobody uses
}

const (
	// maxArchives is how many archives are kept open. One takes next to nothing.
	maxArchives = 256

	// maxReaders is how many files' pointer blocks are at hand; of more they come
	// from the cache, which takes longer. A reader keeps 28 blocks at most.
	maxReaders = 64

	// indexShare is which part of Config.Memory indexes of large directories may
	// take, besides the blocks.
	indexShare = 8
	// indexCost is what an index takes besides its names.
	indexCost = 256
)

// New returns an FS of archives in the store that br reads. It opens none of
// them. Close must be called when the FS is served no more.
func New(br venti.BlockReader, archives []Archive, cfg Config) (*FS, error) {
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	if cfg.Memory < blockcache.Least {
		return nil, fmt.Errorf("%d bytes of memory are too few, it takes %d", cfg.Memory, blockcache.Least)
	}
	names := make(map[string]bool)
	for _, a := range archives {
		if len(archives) > 1 && (!vac.ValidName(a.Name) || names[a.Name]) {
			return nil, fmt.Errorf("archive %s: its name, %q, is none or that of another", a.Source, a.Name)
		}
		names[a.Name] = true
	}
	f := &FS{
		archives: archives, cfg: cfg, blocks: blockcache.New(br, cfg.Memory),
		open:    lru.New[venti.Score, *vac.Archive](maxArchives),
		readers: lru.New[venti.Entry, *hashtree.Reader](maxReaders),
		indexes: lru.New[venti.Score, *vac.Index](cfg.Memory / indexShare),
		ahead:   make(chan []byte, maxAhead),
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	for range maxAhead {
		f.ahead <- nil // made when it is needed
	}
	return f, nil
}

// Close ends what the FS does by itself, and waits for it. Its files must be
// closed.
func (f *FS) Close() error {
	f.cancel()
	f.wg.Wait()
	return nil
}

// Attach returns the directory that aname names, as the package comment says.
func (f *FS) Attach(ctx context.Context, user, aname string) (ninep.Node, error) {
	names := strings.FieldsFunc(aname, func(r rune) bool { return r == '/' })
	var n ninep.Node
	var err error
	switch {
	case len(names) > 0 && strings.HasPrefix(names[0], vac.RootType+":") && !f.shows(names[0]):
		n, err = f.top(ctx, Archive{Source: names[0]}, "/", user)
		names = names[1:]
	case len(f.archives) == 1:
		n, err = f.top(ctx, f.archives[0], "/", user)
	default:
		n = f.root(user)
	}
	for i := 0; i < len(names) && err == nil; i++ {
		if n, err = n.Walk(ctx, names[i]); err == nil && !n.Qid().Dir() {
			err = ninep.ErrNotDir
		}
	}
	if err != nil {
		return nil, err
	}
	if d, ok := n.(*node); ok {
		return &node{f, d.file, d.id, "/", user}, nil
	}
	return n, nil
}

// shows tells whether name is that of an archive in the root.
func (f *FS) shows(name string) bool {
	for _, a := range f.archives {
		if len(f.archives) > 1 && a.Name == name {
			return true
		}
	}
	return false
}

// root returns the directory of all archives.
func (f *FS) root(user string) ninep.Node {
	lookup := func(ctx context.Context, name string) (ninep.Node, error) {
		for _, a := range f.archives {
			if a.Name == name {
				return f.top(ctx, a, a.Name, user)
			}
		}
		return nil, ninep.ErrNotExist
	}
	list := func(ctx context.Context) ([]ninep.Dir, error) {
		var list []ninep.Dir
		for _, a := range f.archives {
			// One that cannot be opened is there: opening it says why it is no use.
			d := ninep.Dir{Name: a.Name, Mode: ninep.ModeDir, Qid: ninep.Qid{Path: ninep.QidPath(a.Source), Type: ninep.QTDir}}
			if n, err := f.top(ctx, a, a.Name, user); err == nil {
				if d, err = n.Stat(ctx); err != nil {
					return nil, err
				}
			}
			list = append(list, d)
		}
		return list, nil
	}
	return ninep.LookupDir(ninep.Dir{Name: "/", Mode: 0o555, Qid: ninep.Qid{Path: ninep.QidPath("vacfs")}}, lookup, list)
}

// top returns the top directory of an archive, under a name.
func (f *FS) top(ctx context.Context, a Archive, name, user string) (ninep.Node, error) {
	ar, err := f.archive(ctx, a)
	if err != nil {
		return nil, readError(err)
	}
	return &node{f, ar.Root, ar.Score, name, user}, nil
}

func (f *FS) archive(ctx context.Context, a Archive) (*vac.Archive, error) {
	s, err := vac.FindScore(a.Source)
	if err != nil {
		return nil, err
	}
	ar, ok := f.open.Get(s)
	if !ok {
		if ar, err = vac.Open(ctx, f.blocks, s); err != nil {
			return nil, err
		}
		f.open.Put(s, ar, 1)
	}
	return ar, nil
}

// Check opens an archive, and returns why it cannot be shown.
func (f *FS) Check(ctx context.Context, a Archive) error {
	if _, err := f.archive(ctx, a); err != nil {
		return fmt.Errorf("archive %s: %w", a.Source, err)
	}
	return nil
}

// readError is what a client is told of an error of package vac: a block that
// is missing is not a file that does not exist, and what became of the connection
// to the store is not what became of the client's.
func readError(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return ninep.ErrNotExist
	}
	return &ninep.Error{Text: "venti i/o error: " + err.Error(), Errno: syscall.EIO}
}

// reader returns a reader of a file's contents.
func (f *FS) reader(file *vac.File) (*hashtree.Reader, error) {
	e := file.Data()
	if r, ok := f.readers.Get(e); ok {
		return r, nil
	}
	r, err := file.Open(hashtree.ReaderConfig{CacheBytes: 1}) // the least
	if err != nil {
		return nil, readError(err)
	}
	f.readers.Put(e, r, 1)
	return r, nil
}

// smallDir is how many blocks of metadata are read to find a name, before an
// index is made.
const smallDir = 4

// walk returns the file that a directory, whose id is given, has under a name.
func (f *FS) walk(ctx context.Context, dir *vac.File, id venti.Score, name string) (*vac.File, error) {
	if m := dir.Meta(); m.Size <= smallDir*int64(m.DSize) {
		return dir.Walk(ctx, name)
	}
	x, ok := f.indexes.Get(id)
	if !ok {
		var err error
		if x, err = f.indexing.Do(ctx, id, func() (*vac.Index, error) { return f.index(ctx, dir, id) }); err != nil {
			return nil, err
		}
	}
	if x == nil {
		return dir.Walk(ctx, name)
	}
	return x.Walk(ctx, name)
}

// index makes the index of a directory, and keeps it: nil if it has too many
// names.
func (f *FS) index(ctx context.Context, dir *vac.File, id venti.Score) (*vac.Index, error) {
	if x, ok := f.indexes.Get(id); ok { // made just now
		return x, nil
	}
	x, err := vac.NewIndex(ctx, dir)
	if err != nil && !errors.Is(err, vac.ErrTooManyNames) {
		return nil, err
	}
	cost := int64(indexCost)
	if x != nil && cost+int64(x.Bytes()) <= f.cfg.Memory/indexShare {
		cost += int64(x.Bytes())
	} else {
		x = nil
	}
	f.indexes.Put(id, x, cost)
	return x, nil
}
