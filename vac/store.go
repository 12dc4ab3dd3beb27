package vac

import (
	"context"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
)

// Options say what Store does besides storing files.
type Options struct {
	// BlockSize is from MinBlockSize to venti.MaxBlockSize; 0 means that of the
	// archive to append to, or else 8192.
	BlockSize int

	// Diff is an archive of what the same arguments named before. Files that are
	// in it at the same place are compared with it, which saves asking the store.
	Diff *Archive
	// Quick takes files to be the same as in Diff, unread, whose size, time of
	// change and time of change of the inode agree, and of archives by Store also
	// the number of the inode and the fraction of that second. Of archives that
	// keep no inode, the time must be before the one of the archive's entry.
	Quick bool

	// Daily puts the files into a directory yyyy/mmdd, beside those that Append,
	// which may be nil, has. They are compared with the last one.
	Daily  bool
	Append *Archive

	// Merge takes a file called *.vac, that is the score of an archive in the
	// store, to be what the archive holds.
	Merge bool

	Filter Filter

	// Stdin, if not nil, becomes a file called StdinName.
	Stdin     io.Reader
	StdinName string

	// Now is the time of the run; the zero value means the system's.
	Now time.Time
	// Plan9port makes the archive that plan9port's vac makes of the same files
	// when its clock stands at Now, bit for bit where that one goes by the order of
	// names. Entries have Now for the time of change of their inodes, and no inode
	// numbers; set-id and sticky bits are lost; days of Daily begin with the same
	// qids.
	Plan9port bool

	// Warn is told of files that cannot be read, and of other things that are not
	// as they should be. Trace is told what is stored, excluded and merged.
	// Progress is told how many bytes of files are done. Calls of the three do not
	// overlap. Each may be nil.
	Warn     func(error)
	Trace    func(line string)
	Progress func(bytes int64)
}

// MinBlockSize is the smallest block size of an archive: metadata must fit.
const MinBlockSize = 512

// A Result says what Store has done.
type Result struct {
	Score venti.Score

	Files   int64 // that are no directories, those of Skipped included
	Skipped int64 // taken unread from the older archive
	Dirs    int64
	Failed  int64 // files and directories that are not in the archive, or not whole
	Changed int64 // files that changed while they were read, or were gone

	Written int64 // bytes of files that were sent to the store
	Known   int64 // bytes that the store or the older archive had, or that are zeros

	Lost Lost
}

// Lost counts what the format has no place for.
type Lost struct {
	Sockets   int64 // left out
	Links     int64 // files with several names; each name has a file of its own
	Xattrs    int64 // files with extended attributes
	Fractions int64 // files with a time of change that is not a whole second
}

// Store stores what the arguments name, as files of the host, and returns the
// archive's score: then all is on stable storage. A directory whose name ends
// in nothing of its own (/, ., ..) stands for what is in it. Symbolic links are
// stored as such.
//
// Files that cannot be read are told of and counted; the others are stored. An
// error means that there is no archive.
func Store(ctx context.Context, st venti.Store, args []string, opt Options) (Result, error) {
	if opt.Now.IsZero() {
		opt.Now = time.Now()
	}
	if opt.BlockSize == 0 {
		opt.BlockSize = 8192
		if opt.Append != nil {
			opt.BlockSize = opt.Append.Head.BlockSize
		}
	}
	if opt.BlockSize < MinBlockSize || opt.BlockSize > venti.MaxBlockSize {
		return Result{}, fmt.Errorf("block size %d is not from %d to %d", opt.BlockSize, MinBlockSize, venti.MaxBlockSize)
	}
	a := &archiver{
		opt: opt, w: newWriter(st, opt.BlockSize, opt.Plan9port), ids: newNameCache(), qid: 1,
		jobs: make(chan func(context.Context) error, 2*workers), ahead: make(chan struct{}, maxAhead),
		budget: semaphore.NewWeighted(budget),
	}
	score, err := a.run(ctx, args)
	if err != nil {
		return Result{}, err
	}
	a.result.Score = score
	return a.result, nil
}

const (
	// workers is how many files are stored at once: each waits for the store
	// twice, and a connection takes 255 requests.
	workers = 48
	// budget bounds the bytes of files in memory; one file takes at most
	// maxShare.
	budget   = 64 << 20
	maxShare = 16 << 20
)

// An archiver makes one archive. One goroutine goes through the directories,
// in order; it hands files to the workers, and whoever finishes the last file
// of a directory finishes the directory.
type archiver struct {
	// Immutable.
	opt    Options
	w      *writer
	jobs   chan func(context.Context) error
	ahead  chan struct{} // has room for each directory that is read before its turn
	budget *semaphore.Weighted

	// Owned by the goroutine that goes through the directories.
	ids *nameCache
	qid uint64 // the next one

	bytes atomic.Int64 // of files that are done

	mu     sync.Mutex // guards the field below, and calls of Options' functions
	result Result
}

// run makes the archive.
func (a *archiver) run(ctx context.Context, args []string) (venti.Score, error) {
	top := &child{entry: meta.DirEntry{Version: 8, Name: "/", MEntry: 1, UID: ownName, GID: ownName, Mode: meta.ModeDir | 0o777}}
	var prev venti.Score
	var day *daily
	root := &dirNode{self: top}
	if a.opt.Diff != nil {
		prev = a.opt.Diff.Score
		root.old = a.opt.Diff.Root
	}
	if a.opt.Daily {
		var err error
		if day, err = a.newDaily(ctx, top); err != nil {
			return venti.Score{}, err
		}
		root = &dirNode{self: day.day, old: day.last}
		prev = venti.Score{}
		if a.opt.Append != nil {
			prev = a.opt.Append.Score
		}
	}
	if err := a.runWorkers(ctx, root, args); err != nil {
		return venti.Score{}, err
	}
	if day != nil {
		if err := a.finishDaily(ctx, day, top); err != nil {
			return venti.Score{}, err
		}
	} else {
		top.entry.QidSpace, top.entry.QidMax = true, a.qid
	}
	return a.w.root(ctx, top, prev)
}

// runWorkers stores what lies below root.
func (a *archiver) runWorkers(ctx context.Context, root *dirNode, args []string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for f := range a.jobs { // to the end: each holds a directory open
				if err := f(ctx); err != nil {
					cancel(err)
				}
			}
		})
	}
	root.pending.Add(1)
	err := a.scanArgs(ctx, root, args)
	if err == nil {
		err = a.childDone(ctx, root, a.jobs)
	}
	close(a.jobs)
	if err != nil {
		cancel(err)
	}
	wg.Wait()
	return context.Cause(ctx)
}

// ownName is who owns what is in no file system.
const ownName = "vac"

// scanArgs adds what the arguments name to the root.
func (a *archiver) scanArgs(ctx context.Context, root *dirNode, args []string) error {
	cwd := &openDir{fd: unix.AT_FDCWD}
	cwd.refs.Store(1)
	old := a.oldNames(ctx, root.old)
	root.names, root.oldNames = map[string]bool{}, old
	if a.opt.Stdin != nil {
		if err := a.addStdin(ctx, root, old[a.opt.StdinName]); err != nil {
			return err
		}
	}
	for _, arg := range args {
		arg = filepath.Clean(arg)
		if arg != "/" && arg != "." && arg != ".." && !strings.HasSuffix(arg, "/..") {
			name := filepath.Base(arg)
			var st unix.Stat_t
			err := unix.Fstatat(unix.AT_FDCWD, arg, &st, unix.AT_SYMLINK_NOFOLLOW)
			item := item{dir: cwd, at: arg, name: name, path: arg, st: &st, err: err, old: old[name]}
			if err := a.add(ctx, root, item); err != nil {
				return err
			}
			continue
		}
		l := a.list(ctx, cwd, arg, arg, nil)
		l.old = old
		if err := a.scan(ctx, root, l, arg); err != nil {
			return err
		}
	}
	return nil
}

// addStdin adds the standard input as a file.
func (a *archiver) addStdin(ctx context.Context, root *dirNode, old *File) error {
	c := a.newChild(a.opt.StdinName, 0o666)
	c.entry.UID, c.entry.GID = root.self.entry.UID, root.self.entry.GID
	if !ValidName(c.entry.Name) {
		return fmt.Errorf("bad name %q for the standard input", c.entry.Name)
	}
	now := seconds(a.opt.Now.Unix())
	c.entry.Mtime, c.entry.Atime, c.entry.Ctime = now, now, now
	a.trace(a.opt.StdinName)
	var was *venti.Entry
	if old != nil && old.Mode.IsRegular() {
		was = &old.data
	}
	var stats hashtree.Stats
	var err error
	if c.data, stats, err = a.w.stream(ctx, a.opt.Stdin, was); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	a.count(stats)
	root.children = append(root.children, c)
	root.names[c.entry.Name] = true
	a.bytes.Add(c.data.Size)
	return nil
}

// newChild returns a file that has the next qid.
func (a *archiver) newChild(name string, mode meta.Mode) *child {
	c := &child{entry: meta.DirEntry{Version: 8, Name: name, Mode: mode, Qid: a.qid, Ctime: seconds(a.opt.Now.Unix())}}
	a.qid++
	return c
}

// seconds returns a time as the format has it, with 32 bits.
func seconds(t int64) uint32 { return uint32(min(max(t, 0), math.MaxUint32)) }

// warn tells of something.
func (a *archiver) warn(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.opt.Warn != nil {
		a.opt.Warn(err)
	}
}

// fail tells of a file that is not in the archive.
func (a *archiver) fail(err error) {
	a.warn(err)
	a.mu.Lock()
	a.result.Failed++
	a.mu.Unlock()
}

// changed tells of a file that does not hold still.
func (a *archiver) changed(err error) {
	a.warn(err)
	a.mu.Lock()
	a.result.Changed++
	a.mu.Unlock()
}

func (a *archiver) trace(line string) {
	if a.opt.Trace == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opt.Trace(line)
}

// count takes note of a file that was stored.
func (a *archiver) count(s hashtree.Stats) {
	l := s.Leaves
	a.mu.Lock()
	defer a.mu.Unlock()
	a.result.Files++
	a.result.Written += l.Sent.Bytes
	a.result.Known += l.Base.Bytes + l.Shared.Bytes + l.Zero.Bytes
}

// progress takes note of bytes of files that are done.
func (a *archiver) progress(n int64) {
	done := a.bytes.Add(n)
	if a.opt.Progress == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opt.Progress(done)
}
