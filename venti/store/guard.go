package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/guard"
)

// With guards, a block that is written again must have the SHA-256 of the one
// that is stored, besides its SHA-1; where the guard of that one is missing the
// two are compared. HasBlock cannot know: it is told a score and nothing else.
//
// Guards are added as clumps are appended, and synced before the trailers say
// that clumps are indexed; recovery begins at the last of those, and adds the
// guards of what it finds again. So a crash loses none.

// openGuards opens the guards of the arenas, which are in the order of the
// index.
func (s *Store) openGuards(f disk.File) error {
	var list []guard.Arena
	for i, a := range s.arenas {
		a.number = i
		list = append(list, guard.Arena{Name: a.Name, ClumpMagic: a.ClumpMagic, Size: a.Size()})
	}
	var err error
	if s.guards, err = guard.Open(f, list); err != nil {
		return fmt.Errorf("%s: %w", fileName(f), err)
	}
	return nil
}

// guardSize returns how long a file of guards for these arena partitions is.
func guardSize(files []disk.File) (int64, error) {
	var list []guard.Arena
	for _, f := range files {
		p, err := arena.OpenPartition(f)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", fileName(f), err)
		}
		for _, a := range indexArenas(p) {
			list = append(list, guard.Arena{Name: a.Name, Size: a.Size})
		}
	}
	return guard.Size(list), nil
}

// makeGuards makes the file of guards if it is not there, and makes it longer if
// there are more arenas now.
func makeGuards(name string, arenas []disk.File) error {
	size, err := guardSize(arenas)
	if err != nil {
		return err
	}
	fi, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return disk.Create(name, size)
	case err != nil:
		return err
	case fi.Mode().IsRegular() && fi.Size() < size:
		return os.Truncate(name, size)
	}
	return nil
}

// sumOf returns the guard of a block, if there are guards.
func (s *Store) sumOf(data []byte) (sum guard.Sum) {
	if s.guards != nil {
		sum = guard.Of(data)
	}
	return sum
}

// addGuard adds the guard of a clump, in log order.
func (s *Store) addGuard(a *logArena, off int64, score venti.Score, sum guard.Sum) {
	if s.guards != nil {
		s.guards.Add(a.number, off, score, sum)
	}
}

// addGuard adds the guard of a clump that recovery found, if it is whole.
func (r *recovery) addGuard(at arena.Pos, score venti.Score, data []byte, err error) {
	if err == nil {
		r.s.addGuard(r.a, at.Off, score, r.s.sumOf(data))
	}
}

// writeGuards writes the guards that are in memory, if there are many, or
// makes all of them durable. That they cannot be written is no reason not to
// store blocks.
func (s *Store) writeGuards(sync bool) {
	if s.guards == nil || !sync && !s.guards.Full() {
		return
	}
	write := s.guards.Write
	if sync {
		write = s.guards.Sync
	}
	err := write()
	switch failed := s.guardsFailed.Swap(err != nil); {
	case err != nil && (!failed || errors.Is(err, guard.ErrDropped)):
		s.log.Error("guards cannot be written: blocks are compared instead", "err", err)
	case err == nil && failed:
		s.log.Info("guards can be written again")
	}
}

// closeGuards writes the last guards.
func (s *Store) closeGuards() error {
	if s.guards == nil {
		return nil
	}
	return s.guards.Sync()
}

// guardOf returns the guard of the clump that e leads to.
func (s *Store) guardOf(k *key, e *slot) (guard.Sum, bool) {
	a, off, ok := s.arenaOf(e.addr)
	if !ok {
		return guard.Sum{}, false
	}
	sum, ok, err := s.guards.Find(a.number, off, k.score)
	if err != nil {
		s.log.Warn("guard cannot be read", "arena", a.Name, "offset", off, "err", err)
	}
	return sum, ok
}

// same returns nil if data is the block that e leads to, as far as the store
// can tell, or venti.ErrCollision. It is venti.ErrCorrupt if there is no guard
// and the block cannot be read; then its clump is one of s.bad.
func (s *Store) same(k *key, e *slot, data []byte) error {
	if s.guards == nil {
		return nil
	}
	s.stats.guardChecks.Add(1)
	if sum, ok := s.guardOf(k, e); ok {
		if sum != guard.Of(data) {
			return s.collision(k)
		}
		return nil
	}
	s.stats.guardCompares.Add(1)
	b := s.blocks.Get().(*[]byte)
	defer s.blocks.Put(b)
	n, err := s.readClump(k, e, *b)
	if err == nil && !bytes.Equal(data, (*b)[:n]) {
		return s.collision(k)
	}
	return err
}

// sameAsLost is same for a clump that is corrupt: only its guard can tell.
func (s *Store) sameAsLost(k *key, e *slot, data []byte) error {
	if s.guards == nil {
		return nil
	}
	if sum, ok := s.guardOf(k, e); ok && sum != guard.Of(data) {
		return s.collision(k)
	}
	return nil
}

// collision counts and logs that a block was refused because another one has
// its score.
func (s *Store) collision(k *key) error {
	s.stats.collisions.Add(1)
	s.log.Error("score collision: a write was refused, for another block with its score is stored",
		"score", venti.Score(k.score), "type", venti.DiskType(k.disk).Type())
	return fmt.Errorf("%w: another block has score %v", venti.ErrCollision, venti.Score(k.score))
}
