package fsys

import (
	"io"
	"io/fs"
	"iter"
	"time"
)

// A File is a file or directory inside a file system, read-only and as it is
// on the disk. It is read while it is used, from the region that its file
// system was opened on; its methods may be called at once if the region's
// ReadAt may. Damage is an error when it is met.
type File interface {
	// Info describes the file.
	Info() FileInfo

	// ReadAt reads the contents of a regular file; holes are zeros.
	io.ReaderAt

	// Lookup returns what has a name in a directory, or fs.ErrNotExist.
	Lookup(name string) (File, error)

	// Entries yields what is in a directory, but not "." and "..". An error
	// with a name is of that file alone; one without ends it.
	Entries() iter.Seq2[Entry, error]
}

// A Mapped is a File that can tell where its contents lie.
type Mapped interface {
	File

	// Extents returns where in the region the contents of a regular file are, in
	// their order. A hole is at Hole; the last extent may go on past the file's
	// end. ok is false if they cannot be said to lie in certain places: they are
	// in an inode, say, or in more than MaxExtents pieces.
	Extents() (list []Extent, ok bool, err error)
}

const (
	Hole       = -1      // the place of what is not there, and reads as zeros
	MaxExtents = 1 << 20 // of one file
)

// Join appends an extent to others, or makes the last one longer.
func Join(list []Extent, x Extent) []Extent {
	if n := len(list); n > 0 {
		last := &list[n-1]
		if last.Off == Hole && x.Off == Hole || last.Off != Hole && last.End() == x.Off {
			last.Len += x.Len
			return list
		}
	}
	return append(list, x)
}

// A FileInfo describes a file, in all but its name.
type FileInfo struct {
	ID           uint64 // no other file of the file system has it
	Mode         fs.FileMode
	Size         int64
	ModTime      time.Time
	UID, GID     uint32
	Links        int
	Target       string // of a symbolic link
	Major, Minor uint32 // of a device
}

// An Entry is a file in a directory.
type Entry struct {
	Name string
	File File
}
