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
	// written along rather than begin another run: what a system call costs. Of
	// a new index, what is written along takes room on the disk at once.
	maxGap = 16 << 10
)

// Update puts entries, which Sort has sorted, into their buckets: one
// ascending sweep over each section, all sections at once. An entry that is
// there already changes nothing; one with the same key and other contents is
// replaced; of several with the same key the last counts.
//
// A full bucket keeps what it has. The entries that it has no room for go to the
// overflow, if there is one and it has room; the others, and all that belong to
// a bucket that is damaged, come back as left.
//
// When Update returns nil, all entries but those left are on stable
// storage. After an error it is not known which are, and the same call may be
// made again. A crash meanwhile may tear a bucket: see Recover. The entries
// must be of clumps that are on stable storage. The caller still owns sorted;
// left is its own.
func (ix *Index) Update(ctx context.Context, sorted []Entry) (left []Entry, err error) {
	for i := 1; i < len(sorted); i++ {
		if sorted[i-1].Compare(&sorted[i]) > 0 {
			return nil, errors.New("index: update: entries are not sorted")
		}
	}
	ix.updating.Lock()
	defer ix.updating.Unlock()
	// A level comes when the one before it is on stable storage: then a crash
	// that tears one of its buckets leaves those before it in the chain full.
	rest, left, err := ix.updateSections(ctx, ix.Sections, sorted)
	for _, s := range ix.levels() {
		if err != nil || len(rest) == 0 {
			break
		}
		if err = ix.readyOverflow(); err != nil {
			return nil, fmt.Errorf("index %s: %w", ix.Name, err)
		}
		var bad []Entry
		spilt := len(rest)
		rest, bad, err = ix.updateSections(ctx, []*Section{s}, rest)
		left = append(left, bad...)
		if err == nil {
			ix.spilt.Add(int64(spilt - len(rest) - len(bad)))
		}
	}
	if err != nil {
		return nil, err
	}
	ix.again = false
	return append(left, rest...), nil
}

// updateSections puts entries into the buckets of these sections. Those that
// find their bucket full come back as rest, in order, and those of damaged
// buckets as bad.
func (ix *Index) updateSections(ctx context.Context, sections []*Section, sorted []Entry) (rest, bad []Entry, err error) {
	updates := make([]update, len(sections))
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range sections {
		mine := sorted
		if i < len(sections)-1 {
			n := sort.Search(len(sorted), func(i int) bool { return ix.Bucket(sorted[i].Score) >= s.Stop })
			mine, sorted = sorted[:n], sorted[n:]
		}
		if len(mine) == 0 {
			continue
		}
		u := &updates[i]
		*u = update{ix: ix, w: runWriter{s: s}, again: ix.again}
		g.Go(func() error { return u.run(ctx, mine) })
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for i := range updates {
		rest, bad = append(rest, updates[i].rest...), append(bad, updates[i].bad...)
	}
	return rest, bad, nil
}

// An update is the part of Update that is about one section.
type update struct {
	ix        *Index
	w         runWriter
	again     bool    // write buckets that do not change too
	rest, bad []Entry // see updateSections
}

// run puts entries, which are sorted, into their buckets.
func (u *update) run(ctx context.Context, entries []Entry) error {
	ix, s := u.ix, u.w.s
	for len(entries) > 0 {
		if err := ctx.Err(); err != nil {
			return err
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
		if err := u.w.read(first, last); err != nil {
			return err
		}
		for n > 0 {
			b := ix.Bucket(entries[0].Score)
			k := 1
			for k < n && ix.Bucket(entries[k].Score) == b {
				k++
			}
			if err := u.merge(b, entries[:k]); err != nil {
				return err
			}
			entries = entries[k:]
			n -= k
		}
		if err := u.w.write(); err != nil {
			return err
		}
	}
	return u.w.sync()
}

// merge adds entries to a bucket of the run.
func (u *update) merge(bucket uint32, entries []Entry) error {
	changed, rest, err := u.w.s.merge(u.w.block(bucket), bucket, entries, u.rest)
	if errors.Is(err, ErrBadBucket) {
		u.bad = append(u.bad, entries...)
		err = nil
	}
	if u.rest = rest; changed || u.again {
		u.w.changed(bucket)
	}
	return err
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
