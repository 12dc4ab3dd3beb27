package fossil

import (
	"sync"
	"sync/atomic"
	"time"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
)

// An ArchiveStatus says how far the archiver is.
type ArchiveStatus struct {
	Waiting bool      // there is something to archive
	Running bool      // and it is worked on
	Began   time.Time // the work, or the last
	Took    time.Duration
	Blocks  int64  // sent to Venti by it
	Bytes   int64  // of them
	Local   uint32 // blocks in use when it began: at most so many are to be sent

	Done   int64 // archives since Open
	Failed int64 // attempts that failed
	Err    error // why the last did; nil after one that did not
}

// Archiving says how far the archiver is.
func (fs *FS) Archiving() ArchiveStatus {
	super := fs.b.Super()
	fs.progress.mu.Lock()
	defer fs.progress.mu.Unlock()
	s := fs.progress.s
	s.Waiting = super.Next != format.None || super.Current != format.None
	return s
}

// A progress keeps an ArchiveStatus.
type progress struct {
	mu     sync.Mutex // guards the fields below
	s      ArchiveStatus
	report time.Time // the next one
}

func (p *progress) begin(now time.Time, local uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s.Running, p.s.Began, p.s.Took, p.s.Blocks, p.s.Bytes, p.s.Local = true, now, 0, 0, 0, local
	p.report = now.Add(archiveReport)
}

// sent counts a block. ok is true if it is time for a report.
func (p *progress) sent(now time.Time, n int) (s ArchiveStatus, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s.Blocks++
	p.s.Bytes += int64(n)
	if now.Before(p.report) {
		return s, false
	}
	p.report = now.Add(archiveReport)
	return p.s, true
}

func (p *progress) end(now time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s.Running, p.s.Took, p.s.Err = false, now.Sub(p.s.Began), err
	if err != nil {
		p.s.Failed++
	} else {
		p.s.Done++
	}
}

// counts are what a FS counts itself.
type counts struct {
	reads, readBytes   atomic.Int64
	writes, writeBytes atomic.Int64
	syncs, snapshots   atomic.Int64
}

// Stats says what a file system has, and has done since Open.
type Stats struct {
	Buffer buffer.Stats

	Reads, ReadBytes   int64 // of files
	Writes, WriteBytes int64
	Syncs              int64 // of files and of all
	Snapshots          int64 // taken
	EpochLow           uint32
	EpochHigh          uint32
	Archive            ArchiveStatus
}

// Stats returns the file system's numbers.
func (fs *FS) Stats() Stats {
	c := &fs.counts
	s := Stats{
		Buffer: fs.b.Stats(),
		Reads:  c.reads.Load(), ReadBytes: c.readBytes.Load(),
		Writes: c.writes.Load(), WriteBytes: c.writeBytes.Load(),
		Syncs: c.syncs.Load(), Snapshots: c.snapshots.Load(),
		Archive: fs.Archiving(),
	}
	s.EpochLow, s.EpochHigh = fs.Epochs()
	return s
}

// Err returns why nothing can be changed any more, if a write has failed. To
// open the file system again is what there is to do.
func (fs *FS) Err() error {
	err := fs.b.Err()
	if err == buffer.ErrReadOnly || err == buffer.ErrClosed {
		return nil
	}
	return translate(err)
}
