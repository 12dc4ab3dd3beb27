// Package blockcache keeps blocks of a Venti server in memory.
//
//	c := blockcache.New(client, 64<<20)
//	n, err := c.ReadBlock(ctx, score, venti.DataType, buf)
package blockcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"strata/internal/lru"
	"strata/venti"
)

// A Cache is a reader of blocks that keeps those used last in memory, and
// shows them there (hashtree.BlockCache). Its methods may be called at once.
type Cache struct {
	br      venti.BlockReader
	shards  [shards]*lru.Cache[blockKey, []byte]
	flights lru.Flights[blockKey, []byte]
	bufs    sync.Pool // of *[]byte, as long as a block can be
}

type blockKey struct {
	score venti.Score
	typ   venti.DiskType
}

const (
	shards = 16 // a power of two

	// blockCost is what a block takes besides its bytes: its key twice, the
	// element of the list, a slot of the map.
	blockCost = 256
)

// Least is the smallest limit of a cache: with less it could not keep the largest
// block.
const Least = shards * (venti.MaxBlockSize + blockCost)

// New returns a cache of the blocks that br has, which takes no more than limit
// bytes.
func New(br venti.BlockReader, limit int64) *Cache {
	c := &Cache{br: br}
	for i := range c.shards {
		c.shards[i] = lru.New[blockKey, []byte](limit / shards)
	}
	c.bufs.New = func() any {
		b := make([]byte, venti.MaxBlockSize)
		return &b
	}
	return c
}

func (c *Cache) shard(s venti.Score) *lru.Cache[blockKey, []byte] { return c.shards[s[0]%shards] }

// CachedBlock returns a block that is kept. It must not be changed.
func (c *Cache) CachedBlock(s venti.Score, t venti.Type) ([]byte, bool) {
	return c.shard(s).Get(blockKey{s, t.Disk()})
}

// ReadBlock implements venti.BlockReader.
func (c *Cache) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	if !t.Valid() || s == venti.EmptyScore || s.IsZero() {
		return c.br.ReadBlock(ctx, s, t, buf)
	}
	b, ok := c.CachedBlock(s, t)
	if !ok {
		var err error
		k := blockKey{s, t.Disk()}
		b, err = c.flights.Do(ctx, k, func() ([]byte, error) {
			// Another flight may have landed just now.
			if b, ok := c.CachedBlock(s, t); ok {
				return b, nil
			}
			return c.fetch(ctx, s, t, buf)
		})
		if err != nil {
			return 0, err
		}
	}
	if len(b) > len(buf) {
		return 0, fmt.Errorf("block %v of type %v: %w: %d bytes, room for %d", s, t, venti.ErrTooLong, len(b), len(buf))
	}
	return copy(buf, b), nil
}

// fetch reads a block, on its way through the caller's buffer, if there is room in it.
func (c *Cache) fetch(ctx context.Context, s venti.Score, t venti.Type, buf []byte) ([]byte, error) {
	n, err := c.br.ReadBlock(ctx, s, t, buf)
	if errors.Is(err, venti.ErrTooLong) {
		large := c.bufs.Get().(*[]byte)
		defer c.bufs.Put(large)
		buf = *large
		n, err = c.br.ReadBlock(ctx, s, t, buf)
	}
	if err != nil {
		return nil, err
	}
	b := bytes.Clone(buf[:n])
	c.shard(s).Put(blockKey{s, t.Disk()}, b, int64(n)+blockCost)
	return b, nil
}
