// Package lru keeps in memory what was used last, and has one fetch what many
// want at once.
//
//	kept := lru.New[venti.Score, *vac.Index](64 << 20)
//	kept.Put(score, index, cost)
//	index, ok := kept.Get(score)
package lru

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// A Cache keeps the values that were used last, as many as have room. Its
// methods may be called at once.
type Cache[K comparable, V any] struct {
	limit int64 // immutable

	mu    sync.Mutex // guards the fields below
	used  int64
	known map[K]*list.Element
	order *list.List // of *kept[K, V]; the one used last in front
}

type kept[K comparable, V any] struct {
	key   K
	value V
	cost  int64
}

// New returns a cache with room for values whose costs are limit together.
func New[K comparable, V any](limit int64) *Cache[K, V] {
	return &Cache[K, V]{limit: limit, known: make(map[K]*list.Element), order: list.New()}
}

// Get returns the value of a key, if it is kept.
func (l *Cache[K, V]) Get(k K) (v V, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	el := l.known[k]
	if el == nil {
		return v, false
	}
	l.order.MoveToFront(el)
	return el.Value.(*kept[K, V]).value, true
}

// Put keeps v, unless its cost is more than there is room for at all, or k is
// there already.
func (l *Cache[K, V]) Put(k K, v V, cost int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[k] != nil || cost > l.limit {
		return
	}
	l.known[k] = l.order.PushFront(&kept[K, V]{k, v, cost})
	for l.used += cost; l.used > l.limit; {
		old := l.order.Remove(l.order.Back()).(*kept[K, V])
		delete(l.known, old.key)
		l.used -= old.cost
	}
}

// Used returns the costs of what is kept.
func (l *Cache[K, V]) Used() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used
}

// Flights lets one of those who want the same thing at once fetch it for all.
type Flights[K comparable, V any] struct {
	mu sync.Mutex // guards the field below
	m  map[K]*flight[V]
}

type flight[V any] struct {
	done chan struct{} // closed when the fields below are set
	v    V
	err  error
}

// Do calls f, or waits for a call that is under way. When that was given up
// with its own context, this one tries itself.
func (g *Flights[K, V]) Do(ctx context.Context, k K, f func() (V, error)) (V, error) {
	for {
		fl, mine := g.enter(k)
		if mine {
			fl.v, fl.err = f()
			g.mu.Lock()
			delete(g.m, k)
			g.mu.Unlock()
			close(fl.done)
			return fl.v, fl.err
		}
		select {
		case <-fl.done:
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		}
		if fl.err == nil || ctx.Err() != nil || !isContextError(fl.err) {
			return fl.v, fl.err
		}
	}
}

func (g *Flights[K, V]) enter(k K) (fl *flight[V], mine bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if fl := g.m[k]; fl != nil {
		return fl, false
	}
	if g.m == nil {
		g.m = make(map[K]*flight[V])
	}
	fl = &flight[V]{done: make(chan struct{})}
	g.m[k] = fl
	return fl, true
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
