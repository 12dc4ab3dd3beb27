package hashtree

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"

	"strata/venti"
)

// pointers finds the scores of a tree's blocks by their place. It keeps the
// pointer blocks used last. Its methods may be called at once.
type pointers struct {
	br   venti.BlockReader
	e    venti.Entry
	sh   shape
	keep int       // how many pointer blocks
	bufs sync.Pool // of *[]byte, PSize long

	mu    sync.Mutex // guards the fields below
	known map[place]*list.Element
	order *list.List // of *node; the one used last in front
}

// A place is where a block lies in a tree.
type place struct {
	level int
	index int64
}

// A node is a pointer block that is being fetched, or has been.
type node struct {
	at   place
	done chan struct{} // closed when scores and err are set
	// scores is what is stored of the block: whole scores, at most np.
	scores []byte
	err    error
}

func newPointers(br venti.BlockReader, e venti.Entry, cacheBytes int) *pointers {
	p := &pointers{
		br: br, e: e, sh: newShape(e.PSize, e.DSize, e.Dir()),
		// Paths from the top must stay while callers go down others.
		keep:  max(cacheBytes/e.PSize, 4*venti.MaxDepth),
		known: make(map[place]*list.Element), order: list.New(),
	}
	p.bufs.New = func() any {
		b := make([]byte, e.PSize)
		return &b
	}
	return p
}

// score returns the score of the block at a place, which is a hole's when
// the place lies outside the tree.
func (p *pointers) score(ctx context.Context, level int, index int64) (venti.Score, error) {
	if level >= p.e.Depth {
		if level == p.e.Depth && index == 0 {
			return p.e.Score, nil
		}
		return venti.EmptyScore, nil
	}
	np := int64(p.sh.np)
	scores, err := p.block(ctx, level+1, index/np)
	if err != nil {
		return venti.Score{}, err
	}
	return scoreAt(scores, int(index%np)), nil
}

// scoreAt returns the i-th score of a pointer block as it is stored.
func scoreAt(scores []byte, i int) venti.Score {
	if o := i * venti.ScoreSize; o < len(scores) {
		return venti.Score(scores[o : o+venti.ScoreSize])
	}
	return venti.EmptyScore
}

// block returns the scores in the pointer block at a place, without the
// empty ones at the end. They are shared and must not be changed.
func (p *pointers) block(ctx context.Context, level int, index int64) ([]byte, error) {
	at := place{level, index}
	if n := p.cached(at); n != nil {
		if scores, err, ok := p.wait(ctx, n); ok {
			return scores, err
		}
	}
	s, err := p.score(ctx, level, index)
	if err != nil || isHole(s) {
		return nil, err
	}
	for {
		n, mine := p.enter(at)
		if mine {
			p.fetch(ctx, n, s)
			return n.scores, n.err
		}
		if scores, err, ok := p.wait(ctx, n); ok {
			return scores, err
		}
	}
}

// cached returns the node at a place, or nil.
func (p *pointers) cached(at place) *node {
	p.mu.Lock()
	defer p.mu.Unlock()
	el := p.known[at]
	if el == nil {
		return nil
	}
	p.order.MoveToFront(el)
	return el.Value.(*node)
}

// enter returns the node at a place; mine tells that it is new and the
// caller has to fetch it.
func (p *pointers) enter(at place) (n *node, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if el := p.known[at]; el != nil {
		p.order.MoveToFront(el)
		return el.Value.(*node), false
	}
	n = &node{at: at, done: make(chan struct{})}
	p.known[at] = p.order.PushFront(n)
	for p.order.Len() > p.keep {
		el := p.order.Back()
		delete(p.known, el.Value.(*node).at)
		p.order.Remove(el)
	}
	return n, true
}

// wait waits for a node that another call fetches. ok is false when that
// call was cancelled and this one was not: the caller tries itself.
func (p *pointers) wait(ctx context.Context, n *node) (scores []byte, err error, ok bool) {
	select {
	case <-n.done:
	default:
		select {
		case <-n.done:
		case <-ctx.Done():
			return nil, ctx.Err(), true
		}
	}
	if n.err != nil && isContextError(n.err) && ctx.Err() == nil {
		return nil, nil, false
	}
	return n.scores, n.err, true
}

// fetch reads n's block. A failure is told to all who wait and forgotten, so
// that a later call tries again.
func (p *pointers) fetch(ctx context.Context, n *node, s venti.Score) {
	defer close(n.done)
	t := p.sh.typ(n.at.level)
	buf := p.bufs.Get().(*[]byte)
	defer p.bufs.Put(buf)
	got, err := p.br.ReadBlock(ctx, s, t, *buf)
	if err != nil {
		n.err = fmt.Errorf("read pointer block %v of type %v: %w", s, t, err)
		p.mu.Lock()
		if el := p.known[n.at]; el != nil && el.Value.(*node) == n {
			delete(p.known, n.at)
			p.order.Remove(el)
		}
		p.mu.Unlock()
		return
	}
	n.scores = append([]byte(nil), (*buf)[:got-got%venti.ScoreSize]...)
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// next returns the first block of a level, at or after index and within the
// size, that is not a hole, or -1. It costs no more than the pointer blocks
// between. level is at most the depth.
func (p *pointers) next(ctx context.Context, level int, index int64) (int64, error) {
	leaves, np := p.sh.leaves(p.e.Size), int64(p.sh.np)
	if leaves == 0 || isHole(p.e.Score) {
		return -1, nil
	}
	last := (leaves - 1) / p.sh.under[level]
search:
	for index <= last {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		// Go down from the top; i is the block of level k on the way.
		for k, i := p.e.Depth, int64(0); k > level; k-- {
			scores, err := p.block(ctx, k, i)
			if err != nil {
				return 0, err
			}
			below := p.sh.under[k-1-level] // blocks of the level under each child
			first := int(index / below % np)
			j := first
			for j*venti.ScoreSize < len(scores) && isHole(scoreAt(scores, j)) {
				j++
			}
			if j*venti.ScoreSize >= len(scores) {
				j = p.sh.np // nothing here: go on behind block i
			}
			child := i*np + int64(j)
			if child > last/below {
				return -1, nil
			}
			if j > first {
				index = child * below
			}
			if j == p.sh.np {
				continue search
			}
			i = child
		}
		return index, nil
	}
	return -1, nil
}
