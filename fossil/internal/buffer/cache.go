package buffer

import (
	"container/list"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"strata/fossil/internal/format"
	"strata/venti"
)

// A key names a block: one of the partition by its number, one on Venti by
// its score and, since the same bytes may be a leaf here and pointers there,
// by its level.
type key struct {
	block uint32 // from the beginning of the partition, or onVenti
	score venti.Score
	level int8 // 0 data, -1 directory, or that of a pointer block
}

const onVenti = format.None

func localKey(block uint32) key { return key{block: block} }

func scoreKey(s venti.Score, t format.Type) key {
	level := int8(t.Level())
	if t == format.Dir {
		level = -1
	}
	return key{onVenti, s, level}
}

// typ returns the type by which a block on Venti is asked for.
func (k key) typ() format.Type {
	if k.level < 0 {
		return format.Dir
	}
	return format.Type(k.level)
}

// A cached is a block in the cache, or on its way there. The cache's lock
// guards what is below key and done.
type cached struct {
	key  key
	done chan struct{} // closed when data or err is there
	data []byte        // its bytes do not change; nil until done
	err  error         // of the load

	pins int           // reasons to keep it
	elem *list.Element // its place in the order, if pins is 0 and it is there
}

// A cache holds blocks, of each at most one. What is pinned counts: there are
// fewer others then, but for a quarter of the limit. Who pins sees to it that
// there is not much.
type cache struct {
	limit int // of blocks
	load  func(context.Context, key) ([]byte, error)

	mu     sync.Mutex // guards the fields below
	blocks map[key]*cached
	order  *list.List // of *cached that nobody pins, the last used first
	hits   int64
	misses int64
}

func newCache(limit int, load func(context.Context, key) ([]byte, error)) *cache {
	return &cache{limit: limit, load: load, blocks: map[key]*cached{}, order: list.New()}
}

// peek returns a block if it is there.
func (c *cache) peek(k key) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.blocks[k]
	if e == nil || e.data == nil {
		return nil, false
	}
	c.touchLocked(e)
	c.hits++
	return e.data, true
}

func (c *cache) touchLocked(e *cached) {
	if e.elem != nil {
		c.order.MoveToFront(e.elem)
	}
}

// get returns a block, which it loads if need be. Those who want the same
// block share one load.
func (c *cache) get(ctx context.Context, k key) ([]byte, error) {
	for {
		c.mu.Lock()
		e := c.blocks[k]
		if e != nil && e.data != nil {
			c.touchLocked(e)
			c.hits++
			data := e.data
			c.mu.Unlock()
			return data, nil
		}
		if e == nil {
			e = &cached{key: k, done: make(chan struct{})}
			c.blocks[k] = e
			c.misses++
			c.mu.Unlock()
			data, err := c.load(ctx, k)
			c.finish(e, data, err)
			return data, err
		}
		c.mu.Unlock()
		select {
		case <-e.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		c.mu.Lock()
		data, err := e.data, e.err
		c.mu.Unlock()
		// Another's load that was given up says nothing about this one.
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return data, err
		}
	}
}

// How many blocks are loaded at once: enough to wait for Venti, or for the disk.
const (
	ventiLoads = 64
	localLoads = 8
)

// getAll has blocks loaded that are not there, many at once.
func (c *cache) getAll(ctx context.Context, keys []key) error {
	n := localLoads
	if slices.ContainsFunc(keys, func(k key) bool { return k.block == onVenti }) {
		n = ventiLoads
	}
	if n = min(n, len(keys)); n == 1 { // most often
		_, err := c.get(ctx, keys[0])
		return err
	}
	// The stack of a goroutine grows on the way to a block, so each loads several.
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range n {
		g.Go(func() error {
			for i := next.Add(1); i <= int64(len(keys)); i = next.Add(1) {
				if _, err := c.get(ctx, keys[i-1]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// once returns a block for one who will not need it again: if it is not there,
// it is not kept.
func (c *cache) once(ctx context.Context, k key) ([]byte, error) {
	c.mu.Lock()
	there := c.blocks[k] != nil
	if !there {
		c.misses++
	}
	c.mu.Unlock()
	if there {
		return c.get(ctx, k)
	}
	return c.load(ctx, k)
}

// alias has a block that is there under another key, too.
func (c *cache) alias(from, to key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.blocks[from]
	if e == nil || e.data == nil || c.blocks[to] != nil {
		return
	}
	e = &cached{key: to, done: closed, data: e.data}
	c.blocks[to] = e
	c.addLocked(e)
}

// finish ends the load of e. A block that was put meanwhile stays.
func (c *cache) finish(e *cached, data []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.data, e.err = data, err
	close(e.done)
	if c.blocks[e.key] != e {
		return
	}
	if err != nil {
		delete(c.blocks, e.key)
		return
	}
	if e.pins == 0 {
		c.addLocked(e)
	}
}

// addLocked puts e into the order.
func (c *cache) addLocked(e *cached) {
	e.elem = c.order.PushFront(e)
	c.trimLocked()
}

// trimLocked drops what is too much.
func (c *cache) trimLocked() {
	for len(c.blocks) > c.limit && c.order.Len() > c.limit/4 {
		old := c.order.Remove(c.order.Back()).(*cached)
		old.elem = nil
		delete(c.blocks, old.key)
	}
}

// stats puts the cache's numbers into s.
func (c *cache) stats(s *Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Cached, s.Pinned, s.CacheLimit = len(c.blocks), len(c.blocks)-c.order.Len(), c.limit
	s.Hits, s.Misses = c.hits, c.misses
}

// put replaces a block, or adds it, and pins it so many times more.
func (c *cache) put(k key, data []byte, pins int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.blocks[k]
	if e == nil || e.data == nil {
		old := e
		e = &cached{key: k, done: closed}
		if old != nil {
			e.pins = old.pins
		}
		c.blocks[k] = e
	}
	if e.elem != nil {
		c.order.Remove(e.elem)
		e.elem = nil
	}
	e.data = data
	e.pins += pins
	if e.pins == 0 {
		c.addLocked(e)
	} else {
		c.trimLocked()
	}
}

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// pin keeps a block that is there; it returns false if it is not.
func (c *cache) pin(k key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.blocks[k]
	if e == nil || e.data == nil {
		return false
	}
	if e.elem != nil {
		c.order.Remove(e.elem)
		e.elem = nil
	}
	e.pins++
	return true
}

// pinned returns a block if somebody keeps it.
func (c *cache) pinned(k key) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.blocks[k]
	if e == nil || e.data == nil || e.pins == 0 {
		return nil, false
	}
	return e.data, true
}

// unpin undoes one pin.
func (c *cache) unpin(k key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.blocks[k]
	if e == nil {
		return
	}
	if e.pins--; e.pins == 0 {
		c.addLocked(e)
	}
}
