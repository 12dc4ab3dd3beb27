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
