package index

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"golang.org/x/sync/errgroup"

	"strata/internal/disk"
)

const (
	// maxRun is the most bytes of a section that are read and written at
	// once: enough to keep a disk streaming. Each section has one buffer of
	// this size at most while it is updated.
	maxRun = 4 << 20
	// maxGap is how many bytes of buckets that do not change are read and
	// written along rather than begin another run.
	maxGap = 64 << 10
)

// Update puts entries, which Sort has sorted, into their buckets: one
// ascending sweep over each section, all sections at once. An entry that is
// there already changes nothing; one with the same key and other contents is
// replaced; of several with the same key the last counts.
//
// A full bucket keeps what it has. The entries that it has no room for, and
// all that belong to a bucket that is damaged, come back as overflow.
//
// When Update returns nil, all entries but the overflow are on stable
// storage. After an error it is not known which are, and the same call may be
// made again. A crash meanwhile may tear a bucket: see Recover. The entries
// must be of clumps that are on stable storage. The caller still owns sorted;
// overflow is its own.
func (ix *Index) Update(ctx context.Context, sorted []Entry) (overflow []Entry, err error) {
	for i := 1; i < len(sorted); i++ {
		if sorted[i-1].Compare(&sorted[i]) > 0 {
			return nil, errors.New("index: update: entries are not sorted")
		}
	}
	ix.updating.Lock()
	defer ix.updating.Unlock()
	overflows := make([][]Entry, len(ix.Sections))
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range ix.Sections {
		mine := sorted
		if i < len(ix.Sections)-1 {
			n := sort.Search(len(sorted), func(i int) bool { return ix.Bucket(sorted[i].Score) >= s.Stop })
			mine, sorted = sorted[:n], sorted[n:]
		}
		if len(mine) == 0 {
			continue
		}
		again := ix.again
		g.Go(func() (err error) {
			overflows[i], err = ix.updateSection(ctx, s, mine, again)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	ix.again = false
	for _, o := range overflows {
		overflow = append(overflow, o...)
	}
	return overflow, nil
}

// updateSection does the part of Update that is about one section.
func (ix *Index) updateSection(ctx context.Context, s *Section, entries []Entry, again bool) (overflow []Entry, err error) {
	w := runWriter{s: s}
	for len(entries) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		first := ix.Bucket(entries[0].Score)
		last, n := first, 0 // the run's last bucket, and how many entries are for it
		for n < len(entries) {
			b := ix.Bucket(entries[n].Score)
			if int64(b-last)*int64(s.BlockSize) > maxGap || int64(b-first+1)*int64(s.BlockSize) > maxRun {
				break
			}
			last = b
			n++
		}
		if err := w.read(first, last); err != nil {
			return nil, err
		}
		for n > 0 {
			b := ix.Bucket(entries[0].Score)
			k := 1
			for k < n && ix.Bucket(entries[k].Score) == b {
				k++
			}
			if overflow, err = w.merge(b, entries[:k], overflow); err != nil {
				return nil, err
			}
			if again {
				w.changed(b)
			}
			entries = entries[k:]
			n -= k
		}
		if err := w.write(); err != nil {
			return nil, err
		}
	}
	return overflow, w.sync()
}

// A runWriter changes the buckets of a section, a run at a time: read, then
// merge and replace, then write; and sync at the end.
type runWriter struct {
	s       *Section
	buf     []byte // the run
	first   uint32 // its first bucket
	lo, hi  int    // what changed is buf[lo:hi]
	written bool
}

// read makes the buckets from first to last the run.
func (w *runWriter) read(first, last uint32) error {
	n := int(last-first+1) * w.s.BlockSize
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	w.buf, w.first, w.lo, w.hi = w.buf[:n], first, n, 0
	if err := disk.ReadFull(w.s.file, w.buf, w.s.offset(first)); err != nil {
		return w.s.bucketError(first, fmt.Errorf("read %d buckets: %w", last-first+1, err))
	}
	return nil
}

// reset makes the buckets from first to last the run, without reading them:
// all will be replaced.
func (w *runWriter) reset(first, last uint32) {
	n := int(last-first+1) * w.s.BlockSize
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	w.buf, w.first, w.lo, w.hi = w.buf[:n], first, n, 0
	clear(w.buf)
}

// block returns the run's copy of a bucket.
func (w *runWriter) block(bucket uint32) []byte {
	return w.buf[int(bucket-w.first)*w.s.BlockSize:][:w.s.BlockSize]
}

// changed notes that a bucket of the run must be written.
func (w *runWriter) changed(bucket uint32) {
	off := int(bucket-w.first) * w.s.BlockSize
	w.lo, w.hi = min(w.lo, off), max(w.hi, off+w.s.BlockSize)
}

// merge adds entries to a bucket of the run and appends those that do not go
// in to overflow.
func (w *runWriter) merge(bucket uint32, entries, overflow []Entry) ([]Entry, error) {
	changed, overflow, err := w.s.merge(w.block(bucket), bucket, entries, overflow)
	if errors.Is(err, ErrBadBucket) {
		return append(overflow, entries...), nil
	}
	if changed {
		w.changed(bucket)
	}
	return overflow, err
}

// replace makes entries, which fit, all that a bucket of the run holds.
func (w *runWriter) replace(bucket uint32, entries []Entry) {
	w.s.packBucket(w.block(bucket), bucket, entries)
	w.changed(bucket)
}

// write writes what changed of the run. Lookups that meet the write find the
// buckets in memory.
func (w *runWriter) write() error {
	if w.lo >= w.hi {
		return nil
	}
	s := w.s
	first := w.first + uint32(w.lo/s.BlockSize)
	w.written = true
	s.mu.Lock()
	s.runs++
	s.run, s.runStart = w.buf[w.lo:w.hi], first
	s.mu.Unlock()
	_, err := s.file.WriteAt(w.buf[w.lo:w.hi], s.offset(first))
	s.mu.Lock()
	s.run = nil
	s.written += int64(w.hi - w.lo)
	s.mu.Unlock()
	if err != nil {
		return s.bucketError(first, fmt.Errorf("write %d buckets: %w", (w.hi-w.lo)/s.BlockSize, err))
	}
	return nil
}

// sync makes what was written durable.
func (w *runWriter) sync() error {
	if !w.written {
		return nil // or there is no section yet
	}
	if err := w.s.sync(); err != nil {
		return fmt.Errorf("index section %s: %w", w.s.Name, err)
	}
	return nil
}
