package ventitest

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"strata/venti"
)

// shards is how many parts Memory has, so that many goroutines seldom meet.
const shards = 64

// A Memory is a store that keeps its blocks in memory. It has every optional
// ability. Its methods may be called at once.
type Memory struct {
	shards [shards]shard
}

type shard struct {
	mu     sync.RWMutex   // guards the map, not the blocks in it, which never change
	blocks map[key][]byte // by name
}

type key struct {
	score venti.Score
	disk  venti.DiskType
}

var (
	_ venti.Store        = (*Memory)(nil)
	_ venti.Prober       = (*Memory)(nil)
	_ venti.CachedReader = (*Memory)(nil)
	_ venti.ScoredWriter = (*Memory)(nil)
)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	m := new(Memory)
	for i := range m.shards {
		m.shards[i].blocks = make(map[key][]byte)
	}
	return m
}

func (m *Memory) shard(s venti.Score) *shard { return &m.shards[s[0]%shards] }

func (m *Memory) block(s venti.Score, t venti.Type) ([]byte, bool) {
	sh := m.shard(s)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	b, ok := sh.blocks[key{s, t.Disk()}]
	return b, ok
}

// Len returns how many blocks the store holds.
func (m *Memory) Len() int {
	n := 0
	for i := range m.shards {
		m.shards[i].mu.RLock()
		n += len(m.shards[i].blocks)
		m.shards[i].mu.RUnlock()
	}
	return n
}

// Remove forgets the block (s, t.Disk()), as no real store does.
func (m *Memory) Remove(s venti.Score, t venti.Type) {
	sh := m.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.blocks, key{s, t.Disk()})
}

// ReadBlock implements venti.BlockReader.
func (m *Memory) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n, _, err := m.ReadCached(s, t, buf)
	if err != nil {
		return 0, fmt.Errorf("read block %v/%v: %w", s, t, err)
	}
	return n, nil
}

// ReadCached implements venti.CachedReader: every block is in memory.
func (m *Memory) ReadCached(s venti.Score, t venti.Type, buf []byte) (int, bool, error) {
	if s == venti.EmptyScore || s.IsZero() {
		return 0, true, nil
	}
	if !t.Valid() {
		return 0, true, venti.ErrBadType
	}
	b, ok := m.block(s, t)
	switch {
	case !ok:
		return 0, true, venti.ErrNotFound
	case len(b) > len(buf):
		return 0, true, venti.ErrTooLong
	}
	return copy(buf, b), true, nil
}

// HasBlock implements venti.Prober.
func (m *Memory) HasBlock(ctx context.Context, s venti.Score, t venti.Type) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if s == venti.EmptyScore || s.IsZero() {
		return true, nil
	}
	if !t.Valid() {
		return false, fmt.Errorf("probe %v/%v: %w", s, t, venti.ErrBadType)
	}
	_, ok := m.block(s, t)
	return ok, nil
}

// WriteBlock implements venti.BlockWriter.
func (m *Memory) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	s := venti.ScoreOf(data)
	return s, m.write(ctx, s, t, data)
}

// WriteScored implements venti.ScoredWriter. It checks the score.
func (m *Memory) WriteScored(ctx context.Context, s venti.Score, t venti.Type, data []byte) error {
	if venti.ScoreOf(data) != s {
		return fmt.Errorf("write block: the data does not have the score %v: %w", s, venti.ErrCorrupt)
	}
	return m.write(ctx, s, t, data)
}

func (m *Memory) write(ctx context.Context, s venti.Score, t venti.Type, data []byte) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !t.Valid():
		return fmt.Errorf("write block: %w %d", venti.ErrBadType, t)
	case len(data) > venti.MaxBlockSize:
		return fmt.Errorf("write block of %d bytes: %w", len(data), venti.ErrTooLarge)
	case len(data) == 0:
		return nil
	}
	if _, ok := m.block(s, t); ok {
		return nil
	}
	b := bytes.Clone(data)
	sh := m.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.blocks[key{s, t.Disk()}] = b
	return nil
}

// Sync implements venti.Syncer; memory is as stable as it gets.
func (m *Memory) Sync(ctx context.Context) error { return ctx.Err() }
