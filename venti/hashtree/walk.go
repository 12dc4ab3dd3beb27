package hashtree

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"strata/venti"
)

// maxNesting bounds how many blocks deep a walk goes: directories may lie in
// directories for as long as somebody had the patience to store them.
const maxNesting = 1 << 12

// SkipBelow, returned by the function that Walk calls, leaves out what is
// below the block.
var SkipBelow = errors.New("skip what is below this block")

// A Block is a block as Walk meets it.
type Block struct {
	Score venti.Score
	// Type is what the block above says that this one is; of an entry that
	// cannot be understood, venti.CorruptType.
	Type venti.Type
	// Depth is the number of blocks on the way from the first one. A root
	// before the first is as deep as the first.
	Depth int
	// Slot is the index of the pointer or entry that leads here.
	Slot int
	// Entry is the entry that leads here, or nil.
	Entry *venti.Entry
	// Data is the block as it is stored. It must not be changed or kept.
	Data []byte
	// Err says why the block, or the entry that leads here, cannot be read.
	Err error
}

// WalkConfig holds the options of Walk.
type WalkConfig struct {
	// After visits a block after what is below it, not before.
	After bool
	// Once visits the blocks below a pointer, directory or root block once,
	// however many others name it. This takes memory for each such block.
	Once bool
	// NoPrev leaves out the roots before the first one, which are otherwise
	// walked too, the oldest first.
	NoPrev bool
	// Parallel is how many blocks are read, and how many calls of the function
	// run, at once; up to 1 they come one by one, in the order of the tree.
	Parallel int
}

// Walk visits the blocks under one that is known by score and type: from a
// root its directory and the roots before it, from a directory its active
// entries, from a pointer block what it points at, whatever the sizes say.
// Holes are not visited. The bytes of every block have been checked against
// its score, so a walk of which no block has an error has found a tree to be
// whole.
//
// f is called for each block, also for one that cannot be read; an error from
// it ends the walk. Other errors of Walk are those of ctx, and that the tree
// is nested too deep.
func Walk(ctx context.Context, br venti.BlockReader, s venti.Score, t venti.Type, cfg WalkConfig, f func(*Block) error) error {
	w := newWalker(br, cfg.Parallel)
	w.noPrev = cfg.NoPrev
	if cfg.Once {
		w.seen = newSeen()
	}
	call := func(n *visit) (skip bool, err error) {
		err = f(&n.Block)
		if err == SkipBelow {
			return true, nil
		}
		return false, err
	}
	w.read = func(ctx context.Context, n *visit) (out outcome, done bool, err error) {
		if cfg.After && n.Err == nil {
			return outcome{}, false, nil
		}
		done, err = call(n)
		return outcome{score: n.Score}, done || n.Err != nil, err
	}
	w.leave = func(ctx context.Context, n *visit, below []outcome) (outcome, error) {
		var err error
		if cfg.After {
			_, err = call(n)
		}
		return outcome{score: n.Score}, err
	}
	_, err := w.run(ctx, &visit{Block: Block{Score: s, Type: t}})
	if err != nil {
		return fmt.Errorf("walk from %v: %w", s, err)
	}
	return nil
}

// A walker goes down trees. Its functions are called by as many goroutines
// as there are slots, and one.
type walker struct {
	br     venti.BlockReader
	noPrev bool
	slots  chan struct{} // one for each goroutine but the first
	bufs   sync.Pool     // of *[]byte
	seen   *seen         // nil if blocks may be visited twice

	// enter, if set, may leave out a block, and all below it, unread.
	enter func(ctx context.Context, n *visit) (skip bool, err error)
	// read is given a block that was read, or could not be: n.Err says so. If
	// it returns done, which it must after an Err, out is what became of the
	// block and nothing more is done with it.
	read func(ctx context.Context, n *visit) (out outcome, done bool, err error)
	// leave is called after all below a block, with what became of each child.
	leave func(ctx context.Context, n *visit, below []outcome) (outcome, error)
}

// A visit is a block on the way.
type visit struct {
	Block
	slots int     // pointers or entries in Data; of a root one, its directory
	buf   *[]byte // holds Data of a leaf; goes back to the pool

	// Of a root, the one before it.
	before venti.Score
	prev   outcome
}

// An outcome says what became of a block and all below it.
type outcome struct {
	score venti.Score // its score from now on
	lost  bool        // it could not be read; score is a hole's
}

func newWalker(br venti.BlockReader, parallel int) *walker {
	w := &walker{br: br, slots: make(chan struct{}, max(parallel, 1)-1)}
	w.bufs.New = func() any {
		b := make([]byte, venti.MaxBlockSize)
		return &b
	}
	return w
}

// run walks from the first block.
func (w *walker) run(ctx context.Context, first *visit) (outcome, error) {
	if first.Type != venti.RootType || w.noPrev {
		return w.walk(ctx, first)
	}
	// A chain of roots may be as long as history, so it is walked from its
	// end, not by going deeper. No root comes twice: its score would be
	// part of what it is the hash of.
	var chain []*visit
	var last outcome
	for n := first; !isHole(n.Score); n = (&visit{Block: Block{Score: n.before, Type: venti.RootType}}) {
		out, done, err := w.open(ctx, n)
		if err != nil {
			return outcome{}, err
		}
		if done {
			last = out
			break
		}
		chain = append(chain, n)
	}
	for i := len(chain) - 1; i >= 0; i-- {
		n := chain[i]
		n.prev = last
		var err error
		if last, err = w.finish(ctx, n); err != nil {
			return outcome{}, err
		}
	}
	return last, nil
}

// walk visits a block and what is below it.
func (w *walker) walk(ctx context.Context, n *visit) (outcome, error) {
	if n.Err != nil { // an entry that cannot be understood
		out, _, err := w.read(ctx, n)
		return out, err
	}
	if isHole(n.Score) {
		return outcome{score: n.Score}, nil
	}
	if w.seen != nil && n.Type != venti.DataType {
		out, done, err := w.seen.begin(ctx, n)
		if done || err != nil {
			return out, err
		}
		out, err = w.visit(ctx, n)
		w.seen.end(n, out, err)
		return out, err
	}
	return w.visit(ctx, n)
}

// visit does the work of walk for a block that was not seen before.
func (w *walker) visit(ctx context.Context, n *visit) (outcome, error) {
	out, done, err := w.open(ctx, n)
	if !done && err == nil {
		out, err = w.finish(ctx, n)
	}
	if n.buf != nil {
		w.bufs.Put(n.buf)
	}
	return out, err
}

// open reads a block.
func (w *walker) open(ctx context.Context, n *visit) (out outcome, done bool, err error) {
	if n.Depth > maxNesting {
		return outcome{}, false, fmt.Errorf("block %v: more than %d blocks deep", n.Score, maxNesting)
	}
	if err := ctx.Err(); err != nil {
		return outcome{}, false, err
	}
	if w.enter != nil {
		if skip, err := w.enter(ctx, n); skip || err != nil {
			return outcome{score: n.Score}, skip, err
		}
	}
	buf := w.bufs.Get().(*[]byte)
	got, err := w.br.ReadBlock(ctx, n.Score, n.Type, *buf)
	switch {
	case err != nil && ctx.Err() != nil:
		err = ctx.Err()
	case err != nil:
		n.Err = fmt.Errorf("read block %v of type %v: %w", n.Score, n.Type, err)
		err = nil
	case n.Type == venti.DataType:
		n.Data, n.buf, buf = (*buf)[:got], buf, nil
	default:
		// Many blocks are held at once while the walk goes down.
		n.Data = append([]byte(nil), (*buf)[:got]...)
		n.Err = n.parse()
	}
	if buf != nil {
		w.bufs.Put(buf)
	}
	if err != nil {
		return outcome{}, false, err
	}
	return w.read(ctx, n)
}

// finish walks what is below an open block, and leaves it.
func (w *walker) finish(ctx context.Context, n *visit) (outcome, error) {
	if n.slots == 0 {
		return w.leave(ctx, n, nil)
	}
	below := make([]outcome, n.slots)
	g, gctx := errgroup.WithContext(ctx)
	for i := range n.slots {
		child, ok := n.child(i)
		if !ok {
			continue
		}
		select {
		case w.slots <- struct{}{}:
			g.Go(func() (err error) {
				defer func() { <-w.slots }()
				below[i], err = w.walk(gctx, &child)
				return err
			})
			continue
		default:
		}
		var err error
		if below[i], err = w.walk(gctx, &child); err != nil {
			g.Go(func() error { return err }) // stops the others
			break
		}
	}
	if err := g.Wait(); err != nil {
		return outcome{}, err
	}
	return w.leave(ctx, n, below)
}

// parse finds out what n's data holds.
func (n *visit) parse() error {
	switch {
	case n.Type == venti.RootType:
		r, err := venti.UnpackRoot(n.Data)
		if err != nil {
			return fmt.Errorf("block %v: %w", n.Score, err)
		}
		n.slots, n.before = 1, r.Prev
	case n.Type == venti.DirType:
		// Truncation may have cut the last entry short.
		n.slots = (len(n.Data) + venti.EntrySize - 1) / venti.EntrySize
	case n.Type.IsPointer():
		n.slots = len(n.Data) / venti.ScoreSize
	}
	return nil
}

// child returns what the i-th slot of a parsed block names. ok is false for
// an entry that is not in use.
func (n *visit) child(i int) (child visit, ok bool) {
	child.Depth, child.Slot = n.Depth+1, i
	switch {
	case n.Type == venti.RootType:
		child.Score, child.Type = venti.Score(n.Data[rootScoreOffset:]), venti.DirType
	case n.Type == venti.DirType:
		e, err := entryAt(n.Data, i)
		if err != nil {
			child.Type, child.Err = venti.CorruptType, fmt.Errorf("entry %d of block %v: %w", i, n.Score, err)
			return child, true
		}
		if !e.Active() {
			return child, false
		}
		child.Score, child.Type, child.Entry = e.Score, e.Type(), &e
	default:
		child.Score, child.Type = scoreAt(n.Data, i), n.Type-1
	}
	return child, true
}

// entryAt returns the i-th entry of a directory block as it is stored, where
// truncation may have cut it short.
func entryAt(data []byte, i int) (venti.Entry, error) {
	var b [venti.EntrySize]byte
	copy(b[:], data[i*venti.EntrySize:])
	return venti.UnpackEntry(b[:])
}

// seen remembers pointer and directory blocks that were visited, or are
// being visited by a goroutine.
type seen struct {
	mu     sync.Mutex // guards the fields below
	going  map[seenKey]chan struct{}
	done   map[seenKey]struct{}
	unlike map[seenKey]outcome // of those done, whose score or state changed
}

// The type is the program's, not the disk's: a pointer block of a directory
// and one of a file may be the same block, but not what is below them.
type seenKey struct {
	score venti.Score
	typ   venti.Type
}

func newSeen() *seen {
	return &seen{
		going:  make(map[seenKey]chan struct{}),
		done:   make(map[seenKey]struct{}),
		unlike: make(map[seenKey]outcome),
	}
}

// begin tells what became of a block. If done is false, the caller is to
// visit it and to call end. While another goroutine does, begin waits: that
// one waits only for blocks further down, so none waits for itself.
func (s *seen) begin(ctx context.Context, n *visit) (out outcome, done bool, err error) {
	key := seenKey{n.Score, n.Type}
	for {
		s.mu.Lock()
		_, done := s.done[key]
		out, changed := s.unlike[key]
		going := s.going[key]
		if !done && going == nil {
			s.going[key] = make(chan struct{})
		}
		s.mu.Unlock()
		switch {
		case changed:
			return out, true, nil
		case done:
			return outcome{score: n.Score}, true, nil
		case going == nil:
			return outcome{}, false, nil
		}
		select {
		case <-going:
		case <-ctx.Done():
			return outcome{}, false, ctx.Err()
		}
	}
}

// end takes note of what became of a block that begin gave to the caller.
func (s *seen) end(n *visit, out outcome, err error) {
	key := seenKey{n.Score, n.Type}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.going[key])
	delete(s.going, key)
	if err != nil {
		return
	}
	s.done[key] = struct{}{}
	if out != (outcome{score: n.Score}) {
		s.unlike[key] = out
	}
}
