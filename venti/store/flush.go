package store

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"strata/internal/disk"
	"strata/venti/internal/index"
)

// When the background work is done, in ticks of Config.Interval and bytes.
const (
	quietTicks      = 3         // without a new block, before the index is flushed
	checkpointTicks = 8         // between checkpoints while blocks come
	checkpointBytes = 256 << 20 // of log between checkpoints, at the next tick
)

// waitForIndex returns when there is room for another entry that the index
// on disk lacks, or the reason why there will not be.
func (s *Store) waitForIndex(ctx context.Context) error {
	if s.index.stuck.Load() >= s.maxDirty {
		return errIndexFull
	}
	n := s.index.dirty.Load()
	if n < s.maxDirty/2 {
		return nil
	}
	notify(s.flushNow)
	for waited := false; s.index.dirty.Load() >= s.maxDirty; waited = true {
		s.flushMu.Lock()
		done, err := s.flushDone, s.flushErr
		s.flushMu.Unlock()
		if waited && err != nil {
			return fmt.Errorf("index is full of what cannot be written: %w", err)
		}
		if s.index.dirty.Load() < s.maxDirty {
			break
		}
		if !waited {
			s.stats.indexWaits.Add(1)
		}
		notify(s.flushNow)
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// notify leaves word in a channel of capacity 1.
func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Flush writes what the index and the Bloom filter on disk lack, and brings
// the arenas' directories and trailers up to date. Nothing depends on it but
// the time that the next Open takes: the store does it by itself.
func (s *Store) Flush(ctx context.Context) error {
	switch {
	case s.closed.Load():
		return ErrClosed
	case s.readOnly:
		return nil
	}
	return s.flush(ctx)
}

func (s *Store) flush(ctx context.Context) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	interrupted := s.retry
	err := s.flushLocked(ctx)
	if err == nil && interrupted {
		err = s.flushLocked(ctx) // what came since
	}
	s.flushMu.Lock()
	if err != nil && ctx.Err() == nil && (s.flushErr == nil || err.Error() != s.flushErr.Error()) {
		s.log.Error("index flush", "err", err)
	}
	s.flushErr = err
	close(s.flushDone)
	s.flushDone = make(chan struct{})
	s.flushMu.Unlock()
	return err
}

// flushLocked is flush; s.flushing must be held.
//
// First a line is drawn: what was appended before it is flushed. When the
// clumps are on stable storage, the index and the filter are written and
// synced, and only then do the trailers say that the clumps are indexed.
// A crash before that leaves entries to be indexed again, and maybe a torn
// bucket, which index.Recover finds among theirs.
func (s *Store) flushLocked(ctx context.Context) error {
	if s.retry {
		// A read of what could not be written, or synced, may show it all the
		// same: do not take it for done.
		for _, f := range s.sections {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		if s.overflow != nil {
			if err := s.overflow.Sync(); err != nil {
				return err
			}
		}
	} else {
		// With every partition locked no clump is between the log and the index
		// cache.
		for _, p := range s.parts {
			p.mu.Lock()
		}
		s.index.startFlush()
		for _, a := range s.arenas {
			a.flushTo = a.mem
		}
		for _, p := range s.parts {
			p.mu.Unlock()
		}
		s.retry = true
	}
	if err := s.syncLog(ctx); err != nil {
		return err
	}
	s.writeGuards(true) // before the trailers say that these clumps need no recovery
	entries := s.index.flushing()
	index.Sort(entries)
	var left []index.Entry
	var g errgroup.Group
	spilt := s.ix.Spilt()
	g.Go(func() (err error) {
		left, err = s.ix.Update(ctx, entries)
		return err
	})
	if s.bloom != nil && len(entries) > 0 {
		g.Go(s.saveBloom)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.index.endFlush(left)
	if spilt == 0 && s.ix.Spilt() > 0 {
		s.log.Warn("index buckets are full: entries go to the overflow; a larger index (fmtisect, fmtindex, buildindex) is faster",
			"entries", s.ix.Spilt())
	}
	s.retry = false
	s.stats.flushes.Add(1)
	s.stats.flushedEntries.Add(int64(len(entries)))

	s.noteStuck(left)
	for _, p := range s.parts {
		p.mu.Lock()
		for _, a := range p.arenas {
			if !a.stuck && !a.damaged && a.disk != a.flushTo {
				a.disk = a.flushTo
				a.stale = true
			}
		}
		p.mu.Unlock()
	}
	return s.checkpoint(ctx)
}

func (s *Store) saveBloom() error {
	if err := s.bloom.Save(); err != nil {
		return err
	}
	if err := s.bloomOut.Sync(); err != nil {
		return fmt.Errorf("bloom filter: %w", err)
	}
	return nil
}

// noteStuck keeps the trailers of the arenas that have these clumps from
// saying that they are indexed.
func (s *Store) noteStuck(left []index.Entry) {
	if len(left) == 0 {
		return
	}
	s.log.Warn("index buckets are full or damaged: entries are kept in memory",
		"entries", len(left), "in all", s.index.stuck.Load(), "bound", s.maxDirty)
	for i := range left {
		if a, _, ok := s.arenaOf(left[i].Addr); ok {
			a.part.mu.Lock()
			a.stuck = true
			a.part.mu.Unlock()
		}
	}
}

// checkpoint brings the directories and trailers of all partitions up to
// date.
func (s *Store) checkpoint(ctx context.Context) error {
	var g errgroup.Group
	for _, p := range s.parts {
		g.Go(func() error { return p.checkpoint(ctx) })
	}
	err := g.Wait()
	notify(s.sumNow)
	return err
}

// maintain is the goroutine that checkpoints and flushes when it is time, or
// when it is told to.
func (s *Store) maintain(ctx context.Context) {
	var tick <-chan time.Time
	if s.interval > 0 {
		t := time.NewTicker(s.interval)
		defer t.Stop()
		tick = t.C
	}
	var last, checkpointed int64 // bytes of log appended at the last tick, checkpoint
	quiet, busy := 0, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.flushNow:
			if s.index.dirty.Load() >= s.maxDirty/2 {
				s.flush(ctx) // who waits for it gets the error
			}
			continue
		case <-tick:
		}
		appended, sealing := s.progress()
		if busy++; appended == last {
			quiet++
		} else {
			quiet, last = 0, appended
		}
		s.flushMu.Lock()
		flushed := s.flushErr == nil || disk.NoSpace(s.flushErr) // else only those who need it try again
		s.flushMu.Unlock()
		switch {
		case flushed && (sealing || quiet >= quietTicks && s.index.dirty.Load() > 0):
			s.flush(ctx) // an error is logged and kept
		case appended != checkpointed && (quiet > 0 || busy >= checkpointTicks || appended-checkpointed >= checkpointBytes):
			s.checkpoint(ctx) // an error stays with the partition
		default:
			continue
		}
		checkpointed, busy = appended, 0
	}
}

// progress returns how many bytes of log were appended, and whether there is
// an arena that is full and only waits for the index.
func (s *Store) progress() (appended int64, sealing bool) {
	for _, p := range s.parts {
		p.mu.Lock()
		appended += p.appended
		for _, a := range p.arenas {
			sealing = sealing || a.mem.Sealed && !a.disk.Sealed && !a.stuck && !a.damaged
		}
		p.mu.Unlock()
	}
	return appended, sealing
}

// sum is the goroutine that computes the seals of full arenas.
func (s *Store) sum(ctx context.Context) {
	for {
		for _, a := range s.arenas {
			if a.summing.Load() && ctx.Err() == nil {
				if err := s.seal(ctx, a); err != nil && ctx.Err() == nil {
					s.log.Error("seal arena", "arena", a.Name, "err", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.sumNow:
		}
	}
}

// seal computes and writes the seal of an arena whose trailer says that it is
// sealed. Nothing of such an arena changes but the seal. A crash before the
// seal is written leaves it to the next Open.
func (s *Store) seal(ctx context.Context, a *logArena) error {
	seal, err := a.Sum(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.summing.Store(false) // not again before the next Open
		}
		return err
	}
	p := a.part
	p.checkpointing.Lock()
	defer p.checkpointing.Unlock()
	a.summing.Store(false)
	s.stats.sums.Add(1)
	s.stats.sumBytes.Add(a.Stop - a.Start)
	p.mu.Lock()
	a.seal = seal
	t, err := a.trailerLocked(), p.err
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if err := a.WriteTrailer(&t); err != nil {
		return p.failIfBroken(err)
	}
	s.log.Info("arena is sealed", "arena", a.Name, "seal", seal)
	return nil
}
