package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"strata/venti"
)

// A block whose clump cannot be read, or is not the block, is fetched from a
// mirror, if there is one: another store that has the same blocks. What comes is
// checked, given to whoever asked, and stored as a new clump, to which the index
// leads from then on. So it stays good: the old clump, which may be in a sealed
// arena, is left as it is. A mirror that is down, does not have the block, or
// sends another one changes nothing: the block is corrupt, as without a mirror.

const (
	// mirrorTime is the most that a reader waits for the mirror.
	mirrorTime = 10 * time.Second
	// mirrorPause is how long a mirror that did not answer is left alone.
	mirrorPause = 5 * time.Second
	// mirrorAway is how long a reader waits for a mirror that cannot be reached.
	mirrorAway = time.Second
)

// A mirror is where blocks come from whose clumps are lost. Its nil value has
// none.
type mirror struct {
	from        venti.BlockReader
	time, pause time.Duration // mirrorTime and mirrorPause

	mu    sync.Mutex // guards the fields below
	until time.Time  // it is not asked before
	err   error      // why not
}

// OpenMirror returns the server at addr for Config.Mirror. It may be away now
// and later.
func OpenMirror(addr string) venti.BlockReader {
	return venti.NewRemote(addr, venti.RemoteConfig{Patience: mirrorAway})
}

// newMirror returns a mirror that reads from from, or nil.
func newMirror(from venti.BlockReader) *mirror {
	if from == nil {
		return nil
	}
	return &mirror{from: from, time: mirrorTime, pause: mirrorPause}
}

// close closes what the mirror reads from, if that can be.
func (m *mirror) close() error {
	if m == nil {
		return nil
	}
	if c, ok := m.from.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// errMirrorDown is why a mirror was not asked.
var errMirrorDown = errors.New("mirror does not answer")

// read reads a block into buf, which has room for any, and checks it.
func (m *mirror) read(ctx context.Context, k *key, buf []byte) ([]byte, error) {
	m.mu.Lock()
	err := m.err
	if time.Now().After(m.until) {
		err = nil
	}
	m.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMirrorDown, err)
	}
	asking, cancel := context.WithTimeout(ctx, m.time)
	defer cancel()
	n, err := m.from.ReadBlock(asking, k.score, venti.DiskType(k.disk).Type(), buf)
	switch {
	case err == nil && venti.ScoreOf(buf[:n]) != venti.Score(k.score):
		return nil, fmt.Errorf("mirror sent another block: %w", venti.ErrCorrupt)
	case err == nil:
		return buf[:n], nil
	case errors.Is(err, venti.ErrNotFound), errors.Is(err, venti.ErrCorrupt), ctx.Err() != nil:
		return nil, err
	}
	m.mu.Lock()
	m.until, m.err = time.Now().Add(m.pause), err
	m.mu.Unlock()
	return nil, err
}

// heal gets the block of k, whose clump e leads to and which could not be read,
// from the mirror, and stores it. It returns nil if it did not get it. The block
// lies in buf, which has room for any.
func (s *Store) heal(ctx context.Context, k *key, e *slot, buf []byte) []byte {
	if s.mirror == nil {
		return nil
	}
	data, err := s.mirror.read(ctx, k, buf)
	if err == nil {
		err = s.sameAsLost(k, e, data)
	}
	if err != nil {
		s.stats.mirrorFailed.Add(1)
		if !errors.Is(err, errMirrorDown) && ctx.Err() == nil {
			s.log.Error("block cannot be had from the mirror", "score", venti.Score(k.score), "type", venti.DiskType(k.disk).Type(), "err", err)
		}
		return nil
	}
	s.stats.mirrorReads.Add(1)
	s.lumps.put(k, data, false)
	if s.readOnly {
		return data
	}
	switch healed, err := s.replace(ctx, k, e, data); {
	case err != nil:
		s.log.Error("block from the mirror cannot be stored", "score", venti.Score(k.score), "err", err)
	case healed:
		s.stats.healed.Add(1)
		s.log.Info("corrupt block is stored again from the mirror", "score", venti.Score(k.score), "type", venti.DiskType(k.disk).Type(), "bytes", len(data))
	}
	return data
}

// replace stores a block whose clump e leads to and is lost, unless somebody
// else has done it.
func (s *Store) replace(ctx context.Context, k *key, e *slot, data []byte) (bool, error) {
	for {
		_, _, wait := s.index.claim(k, true)
		if wait == nil {
			break
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	defer s.index.unclaim(k)
	if now, ok, err := s.find(k, false); err != nil || ok && now.addr != e.addr {
		return false, err
	}
	return true, s.store(ctx, k, data, e.addr)
}
