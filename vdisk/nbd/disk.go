package nbd

import (
	"context"
	"errors"
)

// A Disk is what an export shows. Its methods, and those of the optional
// abilities Writer, Zeroer, Trimmer, Finder and CachedReader, which the server
// finds by type assertion, may be called at once, also for ranges that
// overlap; none is called for a range that leaves the disk. The error of
// any of them reaches the client as the error of NBD that its syscall.Errno
// stands for, or else as EIO, with its text where the client can take text.
type Disk interface {
	// Size returns the bytes of the disk. A connection keeps the answer that it
	// got first.
	Size() int64

	// ReadAt fills p with the bytes at off. Fewer are an error, whether or not
	// it says so. p is the caller's again when ReadAt has returned.
	ReadAt(ctx context.Context, p []byte, off int64) (n int, err error)
}

// A Writer is a Disk that can be written to.
type Writer interface {
	// WriteAt writes p at off. p is only read, and the caller's again when
	// WriteAt has returned.
	WriteAt(ctx context.Context, p []byte, off int64) (n int, err error)

	// Flush returns nil only when all that was written by calls that had
	// returned before, on any connection, is on stable storage.
	Flush(ctx context.Context) error
}

// A Zeroer is a Writer that can write zeros without being sent them. Those of
// one that is none are written by WriteAt.
type Zeroer interface {
	// Zero makes n bytes at off zeros.
	Zero(ctx context.Context, off, n int64, how Zeroing) error
}

// Zeroing says how zeros are written.
type Zeroing struct {
	// Allocate keeps the space of the zeros: later writes there must not find
	// the disk full.
	Allocate bool
	// Fast asks for ErrNotFast, at once and with nothing changed, if it would
	// take as long as to write the zeros.
	Fast bool
}

// ErrNotFast is what a Zeroer returns that was asked to be fast and cannot be.
var ErrNotFast = errors.New("zeros cannot be written faster than other data")

// A Trimmer is a Writer that can let go of what is no longer needed.
type Trimmer interface {
	// Trim says that the n bytes at off will not be read before they are
	// written again.
	Trim(ctx context.Context, off, n int64) error
}

// A Finder is a Disk that knows its holes.
type Finder interface {
	// NextData returns the first range at or after off that may hold a byte
	// that is not zero, or io.EOF when only holes follow.
	NextData(ctx context.Context, off int64) (start, end int64, err error)
}

// A CachedReader is a Disk that can answer at once from memory.
type CachedReader interface {
	// ReadCached is ReadAt if that needs no waiting; if it does, ok is false,
	// and p undefined.
	ReadCached(p []byte, off int64) (n int, ok bool)
}

// An Export is a disk as one connection sees it.
type Export struct {
	Name        string // the one that List has, if there are several
	Description string // for people; may be empty
	Disk        Disk

	// ReadOnly refuses what would change a Disk that could be written to.
	ReadOnly bool

	// Shared allows several connections at once that may write. Otherwise there
	// is one to each Name, and others are refused while it lasts.
	Shared bool

	// PreferredBlock is a power of two of at least 512, below which, or across
	// which, writing is dear; 0 means 4096.
	PreferredBlock int

	// Release, if not nil, is called once, when the connection no longer uses
	// the disk.
	Release func()
}

// writer returns the disk's Writer, or nil if it must not be written to.
func (x *Export) writer() Writer {
	if x.ReadOnly {
		return nil
	}
	w, _ := x.Disk.(Writer)
	return w
}

func (x *Export) release() {
	if x.Release != nil {
		x.Release()
	}
}

// A Listing is an entry of the list of exports.
type Listing struct {
	Name        string
	Description string // for people; may be empty
}

// Exports are disks by name. Its methods may be called at once.
type Exports interface {
	// Open returns the export that a client names, which may be "". The error
	// is one for which errors.Is tells fs.ErrNotExist or fs.ErrPermission, or
	// another; clients get its text.
	Open(ctx context.Context, name string) (*Export, error)

	// List returns what there is to be listed. A name that is not in it may
	// open all the same.
	List(ctx context.Context) ([]Listing, error)
}
