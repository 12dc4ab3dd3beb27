// Package disk is the storage under every format of ours: files and
// partitions of the machine, locked while they are open, and simulated disks
// that lose, tear and reorder what was not synced.
//
//	p, err := disk.Open("/dev/sdb:12m-16g", disk.Options{})
//	defer p.Close()
//
// A File that failed stays failed. When a write or a sync of it has gone
// wrong nobody knows what its medium holds, and the kernel may forget the
// loss once it has told it, so the first error is kept and every later
// WriteAt and Sync returns it; only opening the file again, and what its
// format does for recovery, can make it good. Reads go on.
//
// Only a WriteAt that found no room on a full file system (NoSpace) is not
// kept: what it should have written the caller still has, what was there
// before is as it was, and the same write may go through when there is room
// again. A Sync that fails for want of room has lost something: that is kept, and
// is not NoSpace.
package disk

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
)

// A File is a fixed range of bytes that outlives the process.
//
// ReadAt and WriteAt follow io.ReaderAt and io.WriterAt and may be called at
// once from several goroutines. Both refuse a range that is not inside
// [0, Size). What WriteAt wrote can be read back at once, and is on stable
// storage when a Sync that began after it has returned nil. After a failed
// WriteAt or Sync, all later ones return its error, but for a WriteAt that is
// NoSpace: of that any part may have been written, and it can be done again.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Size() int64
}

// ReadFull fills b from offset off of r. That r ends before is
// io.ErrUnexpectedEOF.
func ReadFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
}

// checkRange returns an error unless [off, off+n) lies inside [0, size).
func checkRange(name, verb string, off int64, n int, size int64) error {
	if off < 0 || off > size || int64(n) > size-off {
		return fmt.Errorf("%s: %s of %d bytes at %d is outside its %d bytes", name, verb, n, off, size)
	}
	return nil
}

// A sticky keeps the first error it is given. Its zero value has none.
type sticky struct{ first atomic.Pointer[error] }

func (s *sticky) err() error {
	if p := s.first.Load(); p != nil {
		return *p
	}
	return nil
}

// fail keeps err unless there is one already, and returns the one kept.
func (s *sticky) fail(err error) error {
	s.first.CompareAndSwap(nil, &err)
	return s.err()
}

// failWrite is fail for the error of a write: want of room is not kept.
func (s *sticky) failWrite(err error) error {
	if NoSpace(err) {
		return err
	}
	return s.fail(err)
}

// failSync is fail for the error of a sync of name. Want of room is hidden:
// nothing is as good as before when there is room again.
func (s *sticky) failSync(name string, err error) error {
	if NoSpace(err) {
		err = errors.New(err.Error())
	}
	return s.fail(fmt.Errorf("%s: sync: %w", name, err))
}

// NoSpace tells whether an error is that of a full file system, or of a quota
// that is used up.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
