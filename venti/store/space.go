package store

import (
	"context"

	"strata/internal/disk"
	"strata/venti"
)

// A full disk.
//
// Partitions are often sparse files, and the file system under them may have no
// room for another piece of log. Such a write has failed and nothing else has:
// the segments are still in memory and go to the same place when there is room.
// So the partition is full, not broken. Every write that needs the log and
// every sync that has something to make durable first has the pending segments
// tried again, and fails if there is still no room; reads go on. When somebody
// has made room the next of them goes through, with no restart: a sync that
// then returns nil covers also the blocks that were in memory all the time.
//
// The directory, trailers, index and Bloom filter are made from the log: a
// checkpoint or flush that found no room is done again when there is work for
// the next one.
//
// A sync of the file that fails, whatever the reason, is different: the kernel
// may have dropped what it could not write. Then the partition is broken, and
// the log says that it needs a restart.

// errNoSpace returns a venti.ErrFull that says that it is the file system that
// has no room.
func errNoSpace(err error) error {
	if _, ok := err.(*noSpaceError); ok {
		return err
	}
	return &noSpaceError{err}
}

type noSpaceError struct{ err error }

// The text begins with that of ErrFull, by which clients know it.
func (e *noSpaceError) Error() string        { return venti.ErrFull.Error() + ": " + e.err.Error() }
func (e *noSpaceError) Unwrap() error        { return e.err }
func (e *noSpaceError) Is(target error) bool { return target == venti.ErrFull }

// noteFullLocked keeps the error of the writing goroutine until the next try if
// it is want of room.
func (p *logPart) noteFullLocked(err error) {
	if !disk.NoSpace(err) || p.err != nil {
		return
	}
	if !p.wasFull {
		p.log.Error("no room for the log: writes fail until there is some, reads go on", "err", err)
	}
	p.full, p.wasFull = err, true
	p.broadcastLocked()
}

// tryAgainLocked has the writing goroutine try what it found no room for, and
// returns how that ended. It gives mu up meanwhile.
func (p *logPart) tryAgainLocked(ctx context.Context) error {
	p.full = nil
	p.closeLocked()
	p.work.Signal()
	for p.err == nil && p.full == nil && len(p.segments) > 0 {
		if err := p.waitLocked(ctx); err != nil {
			return err
		}
	}
	if p.err != nil {
		return p.err
	}
	return p.full
}

// notFullLocked tells that the log could be written.
func (p *logPart) notFullLocked() {
	p.full = nil
	if p.wasFull {
		p.log.Info("there is room for the log again")
		p.wasFull = false
	}
}
