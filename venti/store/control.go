package store

import (
	"context"
	"sync/atomic"
)

// Tuning is what may be changed of a store while it runs. None of it changes
// what is stored or what is durable.
type Tuning struct {
	// IgnoreBloom looks everything up in the index, as if there were no Bloom
	// filter.
	IgnoreBloom bool
	// NoPrefetch takes from the index the entries that are asked for and no
	// others.
	NoPrefetch bool
}

type tuning struct{ ignoreBloom, noPrefetch atomic.Bool }

// Tuning returns what Tune has set last.
func (s *Store) Tuning() Tuning {
	return Tuning{s.tuning.ignoreBloom.Load(), s.tuning.noPrefetch.Load()}
}

// Tune changes how the store runs, from the next request on.
func (s *Store) Tune(t Tuning) {
	s.tuning.ignoreBloom.Store(t.IgnoreBloom)
	s.tuning.noPrefetch.Store(t.NoPrefetch)
}

// Encoding returns how new clumps are stored: plain, whack, zstd.
func (s *Store) Encoding() string { return s.encoding.String() }

// denied tells whether the Bloom filter says that no block has the score of
// a key.
func (s *Store) denied(k *key) bool {
	return s.bloom != nil && !s.bloom.Has(k.score) && !s.tuning.ignoreBloom.Load()
}

// Checkpoint brings the directories and trailers of the arenas up to date
// with their logs, and makes both durable. Like Flush it only shortens the
// next Open.
func (s *Store) Checkpoint(ctx context.Context) error {
	switch {
	case s.closed.Load():
		return ErrClosed
	case s.readOnly:
		return nil
	}
	return s.checkpoint(ctx)
}

// EmptyLumpCache forgets all blocks in memory that are in the log too.
func (s *Store) EmptyLumpCache() { s.lumps.clear() }

// EmptyIndexCache forgets all entries in memory that the index on disk has.
func (s *Store) EmptyIndexCache() { s.index.clear() }
