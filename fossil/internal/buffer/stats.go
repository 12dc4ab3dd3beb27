package buffer

import (
	"sync/atomic"
	"time"
)

// Stats are a buffer's numbers. Those that count began with Open.
type Stats struct {
	BlockSize int
	Blocks    uint32 // data blocks
	Used      uint32 // of them
	Reserve   uint32 // what Update leaves of the others
	Trees     int    // that are being closed

	Cached     int // blocks in memory
	Pinned     int // of them, those that must stay: they are newer than on the disk, or in use
	CacheLimit int
	Hits       int64 // blocks that were in memory
	Misses     int64 // and that were not

	DiskReads    int64 // blocks
	VentiReads   int64 // blocks asked for
	VentiErrors  int64 // of them, without success
	VentiBytes   int64
	VentiRunning int64         // requests under way
	VentiTime    time.Duration // of all together

	Commits     int64
	CommitTime  time.Duration
	Changed     int64 // blocks of which commits made something durable
	Written     int64 // blocks written to their places
	LogBytes    int64 // written to the log
	Checkpoints int64
	Full        int64 // updates that found no room
}

// counts are what Stats counts.
type counts struct {
	diskReads                                                          atomic.Int64
	ventiReads, ventiErrors, ventiBytes, ventiRunning, ventiTime       atomic.Int64
	commits, commitTime, changed, written, logBytes, checkpoints, full atomic.Int64
}

// Stats returns the buffer's numbers.
func (b *Buffer) Stats() Stats {
	c := &b.counts
	s := Stats{
		BlockSize: b.h.BlockSize, Blocks: b.h.Blocks(),
		DiskReads: c.diskReads.Load(), VentiReads: c.ventiReads.Load(), VentiErrors: c.ventiErrors.Load(),
		VentiBytes: c.ventiBytes.Load(), VentiRunning: c.ventiRunning.Load(), VentiTime: time.Duration(c.ventiTime.Load()),
		Commits: c.commits.Load(), CommitTime: time.Duration(c.commitTime.Load()), Changed: c.changed.Load(), Written: c.written.Load(),
		LogBytes: c.logBytes.Load(), Checkpoints: c.checkpoints.Load(), Full: c.full.Load(),
	}
	b.mu.Lock()
	s.Used, s.Reserve, s.Trees = b.used, b.reserve, len(b.intents)
	b.mu.Unlock()
	b.cache.stats(&s)
	return s
}
