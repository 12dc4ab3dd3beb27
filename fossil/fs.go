package fossil

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"weak"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/stream"
	"strata/internal/disk"
	"strata/vac/meta"
	"strata/venti"
)

// Config holds the options of Open.
type Config struct {
	Venti    venti.Store      // nil if there is none
	Memory   int64            // bytes for blocks; 0 means 32 MiB
	ReadOnly bool             // change nothing
	NoAtime  bool             // reading a file leaves no trace
	Interval time.Duration    // what a crash may lose without a sync; 0 means 5 s
	Patience time.Duration    // how long a read waits for Venti; 0 means 30 s
	Now      func() time.Time // nil means time.Now

	// NoArchiver leaves it to callers of Archive when what waits is archived;
	// else that is done as soon as it waits.
	NoArchiver bool

	Log *slog.Logger // nil means none
}

const (
	defaultInterval = 5 * time.Second
	defaultPatience = 30 * time.Second
)

// A FS is an open file system. Its methods, and those of its files, may be
// called at once.
type FS struct {
	b       *buffer.Buffer
	venti   venti.Store
	cfg     Config
	log     *slog.Logger
	root    *File
	stop    func() // ends workers
	workers sync.WaitGroup

	archiving chan struct{} // has room for the one archiver
	kick      chan struct{} // wakes the archiver
	pause     pause
	progress  progress
	timetable timetable
	counts    counts

	// fetch has a part of a file read into memory, unless too many are already;
	// then it returns false. It is called in views.
	fetch func(f *File, off int64, n int) bool

	// Guarded by the buffer's lock.
	closed bool                          // nothing more is fetched
	files  map[uint64]weak.Pointer[File] // of the active tree, by qid
	dirty  map[*File]bool                // whose attributes in memory are newer; true if not only by a time of access
	unsaid []Snap                        // archival snapshots of which the log has no score yet
	listed bool                          // also those that waited when it was opened

	unnamed *File // where files are that have no name; nil until it is needed
}

// Open opens the file system in file. The file is the caller's, and must not
// be used by anything else until Close.
func Open(file disk.File, cfg Config) (*FS, error) {
	if cfg.Interval == 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var br venti.BlockReader
	if cfg.Venti != nil {
		br = cfg.Venti
	}
	b, err := buffer.Open(file, buffer.Config{Venti: br, Memory: cfg.Memory, Patience: cfg.Patience, ReadOnly: cfg.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("open file system: %w", err)
	}
	fs := &FS{b: b, venti: cfg.Venti, cfg: cfg, log: log, archiving: make(chan struct{}, 1), kick: make(chan struct{}, 1), files: map[uint64]weak.Pointer[File]{}, dirty: map[*File]bool{}}
	fs.timetable.started, fs.timetable.busy = make(chan struct{}), make(chan struct{}, 1)
	ctx, stop := context.WithCancel(context.Background())
	fs.stop = stop
	fs.fetch = fs.fetcher(ctx)
	if err := fs.openRoot(ctx); err != nil {
		stop()
		b.Close(context.Background())
		return nil, fmt.Errorf("open file system: %w", err)
	}
	if !cfg.ReadOnly {
		if err := fs.removeUnnamed(ctx); err != nil {
			log.Error("remove what has no name", "error", err) // the next who opens it may
		}
		fs.workers.Go(func() { fs.writeBack(ctx) })
		fs.workers.Go(func() { fs.archiveAll(ctx) })
		fs.workers.Go(func() { fs.runClock(ctx) })
	}
	return fs, nil
}

// openRoot finds the root directory. Its streams are the first two of the root
// stream; the third has its attributes. They may be on Venti, which may be away
// now: then they are read when somebody needs them, unless nobody can.
func (fs *FS) openRoot(ctx context.Context) error {
	top := stream.Root()
	fs.root = &File{
		fs: fs, data: top.Child(0, 0, true), meta: top.Child(1, 0, false), self: top.Child(2, 0, false),
		dir: meta.DirEntry{Version: 9, Name: "root", Mode: meta.ModeDir | 0o555},
	}
	err := fs.b.View(ctx, fs.root.check)
	if errors.Is(err, buffer.ErrVenti) && (fs.venti != nil || fs.cfg.ReadOnly) {
		fs.log.Error("open: the root directory is on Venti", "error", err)
		return nil
	}
	return translate(err)
}

// readRoot reads the attributes of the root directory f.
func (f *File) readRoot(tx *buffer.Tx) error {
	block, err := metaLeaf(tx, f.self, 0)
	if err != nil {
		return err
	}
	if block.Len() == 0 {
		return fmt.Errorf("%w: no entry for the root directory", ErrBadMeta)
	}
	e, err := block.Entry(0)
	if err == nil {
		f.dir, f.read = e, true
	}
	return err
}

// Root returns the root directory, which holds active, archive and snapshot.
func (fs *FS) Root() *File { return fs.root }

// Walk returns the file at a path from the root directory.
func (fs *FS) Walk(ctx context.Context, path string) (*File, error) {
	f := fs.root
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		next, err := f.Walk(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("walk %s: %w", path, err)
		}
		f = next
	}
	return f, nil
}

// Usage returns how many bytes are in use, and how many there are.
func (fs *FS) Usage() (used, total int64) {
	u, t := fs.b.Used()
	return int64(u) * int64(fs.b.BlockSize()), int64(t) * int64(fs.b.BlockSize())
}

// BlockSize returns how many bytes are in a block.
func (fs *FS) BlockSize() int { return fs.b.BlockSize() }

// Epochs returns the oldest epoch whose snapshot is kept, and that of the
// active tree.
func (fs *FS) Epochs() (low, high uint32) {
	s := fs.b.Super()
	return s.EpochLow, s.EpochHigh
}

// Last returns the score of the last archive, EmptyScore if there is none.
func (fs *FS) Last() venti.Score { return fs.b.Super().Last }

// now returns the time as files keep it.
func (fs *FS) now() uint32 { return uint32(fs.cfg.Now().Unix()) }

// Sync returns when all that was done before is durable.
func (fs *FS) Sync(ctx context.Context) error {
	fs.counts.syncs.Add(1)
	err := fs.flush(ctx)
	return translate(cmp.Or(fs.b.Sync(ctx), err))
}

// Close makes all durable and ends the use of the file system.
func (fs *FS) Close(ctx context.Context) error {
	fs.b.View(context.WithoutCancel(ctx), func(*buffer.Tx) error {
		fs.closed = true
		return nil
	})
	fs.stop()
	fs.workers.Wait()
	var err error
	if !fs.cfg.ReadOnly {
		err = fs.removeUnnamed(ctx)
	}
	if ferr := translate(fs.flush(ctx)); err == nil {
		err = ferr
	}
	if cerr := translate(fs.b.Close(ctx)); err == nil {
		err = cerr
	}
	return err
}

// fetches is how many files are read ahead at once.
const fetches = 8

// fetcher returns what fs.fetch is; its goroutines end with ctx.
func (fs *FS) fetcher(ctx context.Context) func(f *File, off int64, n int) bool {
	running := make(chan struct{}, fetches)
	return func(f *File, off int64, n int) bool {
		if fs.closed {
			return false
		}
		select {
		case running <- struct{}{}:
		default:
			return false
		}
		fs.workers.Go(func() {
			defer func() { <-running }()
			// An error is for the reader to meet.
			fs.b.View(ctx, func(tx *buffer.Tx) error {
				_, err := f.data.Read(tx, off, n)
				return err
			})
		})
		return true
	}
}

// writeBack makes what was done durable now and then, until ctx ends.
func (fs *FS) writeBack(ctx context.Context) {
	tick := time.NewTicker(fs.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := fs.Sync(ctx); err != nil && ctx.Err() == nil {
			fs.log.Error("write back", "error", err)
		}
	}
}

// flushAtOnce is how many files' attributes one update writes.
const flushAtOnce = 32

// flush writes attributes that are in memory only to metadata blocks. On a
// disk that is full, times of access are forgotten.
func (fs *FS) flush(ctx context.Context) error {
	if fs.cfg.ReadOnly {
		return nil
	}
	var list []*File
	if err := fs.b.View(ctx, func(*buffer.Tx) error {
		list = slices.Collect(maps.Keys(fs.dirty))
		return nil
	}); err != nil {
		return err
	}
	var full error
	for part := range slices.Chunk(list, flushAtOnce) {
		err := fs.b.Update(ctx, func(tx *buffer.Tx) error {
			for _, f := range part {
				if err := f.flush(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if errors.Is(err, buffer.ErrFull) {
			for _, f := range part {
				if err = f.flushFull(ctx); errors.Is(err, buffer.ErrFull) {
					full, err = err, nil
				} else if err != nil {
					break
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return full
}

// known returns the file of the active tree with a qid, if anybody uses it.
func (fs *FS) known(qid uint64) *File { return fs.files[qid].Value() }

// remember makes f the file of the active tree with its qid, which stays the
// same wherever f goes.
func (fs *FS) remember(f *File) {
	qid := f.qid()
	fs.files[qid] = weak.Make(f)
	runtime.AddCleanup(f, func(qid uint64) {
		fs.b.View(context.Background(), func(*buffer.Tx) error {
			if p, ok := fs.files[qid]; ok && p.Value() == nil {
				delete(fs.files, qid)
			}
			return nil
		})
	}, qid)
}

// metaLeaf returns the n-th metadata block of a stream, for reading.
func metaLeaf(tx *buffer.Tx, s *stream.Stream, n int64) (*meta.Block, error) {
	e, err := s.Entry(tx)
	if err != nil {
		return nil, err
	}
	data, err := s.Leaf(tx, n)
	if err != nil {
		return nil, err
	}
	data = data[:e.DSize:e.DSize]
	if unwritten(data) {
		return meta.New(bytes.Clone(data), meta.MaxIndex(len(data)), meta.ShorterFirst), nil
	}
	return meta.Open(data)
}

// unwritten tells whether a metadata block is a hole, or as good as one: what was
// there is lost, and a repair has found nothing to save.
func unwritten(data []byte) bool { return data[0] == 0 && len(bytes.Trim(data, "\x00")) == 0 }
