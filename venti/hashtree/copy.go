package hashtree

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"strata/venti"
)

// CopyConfig holds the options of Copy.
type CopyConfig struct {
	// Fast leaves out a block that the destination has, and all below it: right
	// if that was copied whole.
	Fast bool
	// Remember visits what is below a pointer or directory block once, however
	// many others name it. This takes memory for each such block.
	Remember bool
	// IgnoreErrors goes on when a block is missing or corrupt: the copy is
	// without it, and what names it names nothing.
	IgnoreErrors bool
	// Rewrite puts a hole where a block is missing or corrupt, which changes
	// the scores of all above it.
	Rewrite bool
	// Parallel is how many blocks are on their way at once; 0 means 64.
	Parallel int
	// Trace, if set, is told what is done to each block, as it happens. Warn, if
	// set, is told of each error that IgnoreErrors or Rewrite went on after. Calls
	// of either do not overlap.
	Trace func(what CopyStep, b *Block)
	Warn  func(error)
}

// A CopyStep is what Copy does to a block.
type CopyStep int

// The steps of a copy.
const (
	CopyEnter CopyStep = iota // its turn has come
	CopySkip                  // the destination has it (Fast)
	CopyLeave                 // it and all below it have been written; Score is the new one
)

// CopyResult says what Copy did.
type CopyResult struct {
	Score     venti.Score // of the copy; only Rewrite makes another than the original's
	Rewritten int64       // pointers that became holes
	Skipped   Count       // left out for Fast; their bytes are not known
	Written   Count       // written to the destination
}

// defaultCopies keeps half of a connection's tags in use.
const defaultCopies = 128

// Copy copies a tree of blocks, given by the score and type of its first
// block, from one store to another, and syncs it. Blocks are copied byte for
// byte, each after all that is below it: of a root, the roots before it first,
// the oldest first of all. The first block must be readable whatever cfg says;
// so must the source: errors other than a block's being missing or corrupt
// end the copy.
func Copy(ctx context.Context, src venti.BlockReader, dst venti.Store, s venti.Score, t venti.Type, cfg CopyConfig) (CopyResult, error) {
	if cfg.Parallel <= 0 {
		cfg.Parallel = defaultCopies
	}
	c := &copier{dst: dst, cfg: cfg, first: s}
	c.put = NewPutter(dst)
	c.put.prober = nil // Fast has probed, and else it is not wanted
	w := newWalker(src, cfg.Parallel)
	w.enter, w.read, w.leave = c.enter, c.read, c.leave
	if cfg.Remember {
		w.seen = newSeen()
	}
	out, err := w.run(ctx, &visit{Block: Block{Score: s, Type: t}})
	if err == nil {
		err = dst.Sync(ctx)
	}
	if err != nil {
		return CopyResult{}, fmt.Errorf("copy %v: %w", s, err)
	}
	c.result.Score = out.score
	return c.result, nil
}

type copier struct {
	dst   venti.Store
	put   *Putter
	cfg   CopyConfig
	first venti.Score

	mu     sync.Mutex // guards result, and calls of Trace and Warn
	result CopyResult
}

func (c *copier) trace(what CopyStep, b *Block) {
	if c.cfg.Trace != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cfg.Trace(what, b)
	}
}

func (c *copier) enter(ctx context.Context, n *visit) (skip bool, err error) {
	c.trace(CopyEnter, &n.Block)
	if !c.cfg.Fast {
		return false, nil
	}
	has, err := hasBlock(ctx, c.dst, n.Score, n.Type)
	if err != nil {
		return false, fmt.Errorf("look for block %v of type %v at the destination: %w", n.Score, n.Type, err)
	}
	if has {
		c.trace(CopySkip, &n.Block)
		c.mu.Lock()
		c.result.Skipped.Add(1, 0)
		c.mu.Unlock()
	}
	return has, nil
}

// hasBlock asks st for a block, by reading nothing of it if there is no
// other way.
func hasBlock(ctx context.Context, st venti.Store, s venti.Score, t venti.Type) (bool, error) {
	if p, ok := st.(venti.Prober); ok {
		return p.HasBlock(ctx, s, t)
	}
	_, err := st.ReadBlock(ctx, s, t, nil)
	switch {
	case err == nil, errors.Is(err, venti.ErrTooLong):
		return true, nil
	case errors.Is(err, venti.ErrNotFound), errors.Is(err, venti.ErrCorrupt):
		return false, nil // a corrupt one is written again
	}
	return false, err
}

// read decides what to do about a block that cannot be read, or a root or
// entry that cannot be understood.
func (c *copier) read(ctx context.Context, n *visit) (out outcome, done bool, err error) {
	if n.Err == nil {
		return outcome{}, false, nil
	}
	unknown := n.Data != nil || n.Type == venti.CorruptType // it could be read, at least
	if n.Score == c.first || !c.cfg.IgnoreErrors && !c.cfg.Rewrite || !unknown && !damaged(n.Err) {
		return outcome{}, false, n.Err
	}
	c.mu.Lock()
	if c.cfg.Warn != nil {
		c.cfg.Warn(n.Err)
	}
	c.mu.Unlock()
	if c.cfg.Rewrite && n.Type != venti.CorruptType {
		return outcome{score: venti.EmptyScore, lost: true}, true, nil
	}
	return outcome{score: n.Score}, true, nil
}

// damaged tells whether err is about one block, not the whole store.
func damaged(err error) bool {
	return errors.Is(err, venti.ErrNotFound) || errors.Is(err, venti.ErrCorrupt) ||
		errors.Is(err, venti.ErrTooLong) || errors.Is(err, venti.ErrBadType)
}

// leave writes a block, all of whose children were written.
func (c *copier) leave(ctx context.Context, n *visit, below []outcome) (outcome, error) {
	data, lost := n.patch(below)
	if lost > 0 {
		c.mu.Lock()
		c.result.Rewritten += lost
		c.mu.Unlock()
	}
	s := n.Score
	if data == nil {
		data = n.Data
	} else if data = venti.Truncate(n.Type, data); len(data) == 0 {
		s = venti.EmptyScore
	} else {
		s = venti.ScoreOf(data)
	}
	if s != venti.EmptyScore {
		if _, err := c.put.Put(ctx, s, n.Type, data); err != nil {
			return outcome{}, err
		}
		c.mu.Lock()
		c.result.Written.Add(1, int64(len(data)))
		c.mu.Unlock()
	}
	b := n.Block
	b.Score = s
	c.trace(CopyLeave, &b)
	return outcome{score: s}, nil
}

// patch returns a copy of n's data that names its children by their new
// scores, or nil if all are as they were; and how many of them were lost.
// All other bytes stay.
func (n *visit) patch(below []outcome) (data []byte, lost int64) {
	set := func(off int, was venti.Score, now outcome) {
		if now.lost {
			lost++
		}
		if was == now.score {
			return
		}
		if data == nil {
			// Truncation may have cut the last entry short.
			data = append([]byte(nil), n.Data...)
			for n.Type == venti.DirType && len(data)%venti.EntrySize != 0 {
				data = append(data, 0)
			}
		}
		copy(data[off:], now.score[:])
	}
	for i := range below {
		child, ok := n.child(i)
		switch {
		case !ok, child.Type == venti.CorruptType:
		case n.Type == venti.RootType:
			set(rootScoreOffset, child.Score, below[i])
		case n.Type == venti.DirType:
			set(i*venti.EntrySize+entryScoreOffset, child.Score, below[i])
		default:
			set(i*venti.ScoreSize, child.Score, below[i])
		}
	}
	if n.Type == venti.RootType && !isHole(n.before) {
		if n.prev.lost {
			n.prev.score = venti.Score{} // as in a first root
		}
		set(rootPrevOffset, n.before, n.prev)
	}
	return data, lost
}

// Where scores lie in a packed venti.Root and venti.Entry.
const (
	rootScoreOffset  = 258
	rootPrevOffset   = 280
	entryScoreOffset = 20
)

// FindType returns a type under which src has a block: a root, a directory,
// data, or pointers to data, in this order; for the tools that are given
// nothing but a score. Where there is none, the error is venti.ErrNotFound.
func FindType(ctx context.Context, src venti.BlockReader, s venti.Score) (venti.Type, error) {
	types := []venti.Type{venti.RootType, venti.DirType}
	for t := venti.DataType; t <= venti.DataType+venti.MaxDepth; t++ {
		types = append(types, t)
	}
	buf := make([]byte, venti.MaxBlockSize)
	for _, t := range types {
		_, err := src.ReadBlock(ctx, s, t, buf)
		if !errors.Is(err, venti.ErrNotFound) {
			return t, err
		}
	}
	return 0, fmt.Errorf("%w: %v of any type", venti.ErrNotFound, s)
}
