package hashtree

import (
	"context"
	"fmt"
	"io"
	"sync"

	"strata/venti"
)

// A builder makes a tree from cells and holes that come in the order of the
// file, from one goroutine. Cells are hashed and stored in parallel; the
// assembler takes their scores in order and builds the pointer blocks.
//
// The goroutines are: one for each cell at work; the assembler; and those
// that it starts to store pointer blocks. finish waits for all of them.
type builder struct {
	// Immutable.
	ctx    context.Context // ends at the first error
	cancel context.CancelCauseFunc
	cfg    Config
	sh     shape
	cell   int64 // leaves in a cell, at most
	put    *Putter
	base   *pointers   // nil without a base
	src    io.ReaderAt // read by cells whose load is set

	// Owned by the caller.
	started bool
	made    int // cells that exist

	free    chan *cell    // cells that nobody uses
	ordered chan *cell    // cells and holes, from the caller to the assembler
	ended   chan struct{} // closed when the assembler has ended

	// Owned by the assembler; by the caller before it starts and after it
	// has ended.
	levels [venti.MaxDepth + 2]level // levels[k] builds blocks of level k, from 1
	done   int64                     // bytes of the file in the tree
	stats  Stats                     // but for Pointers.Shared and Pointers.Sent

	slots   chan struct{}  // bounds the pointer blocks being stored
	storing sync.WaitGroup // waits for them
	mu      sync.Mutex     // guards the field below
	stored  Tally          // of pointer blocks
}

// A cell is a run of leaves under one level-1 block, or a hole of any
// length. It belongs to one goroutine at a time: the caller, who fills it;
// the one that hashes it; the assembler.
type cell struct {
	leaf  int64 // the first one
	n     int64 // leaves
	bytes int64 // of the file
	hole  bool  // if so, the fields below are not used

	buf    []byte        // bytes long
	data   []extent      // what of buf may be other than zeros
	load   bool          // data is to be read first
	blocks []leafBlock   // leaves that are not zero
	scores []byte        // of the n leaves
	tally  Tally         // of the n leaves
	done   chan struct{} // closed when scores and tally are right
}

// An extent is a range of bytes of the file. No two of a cell share a leaf;
// in a cell that is not to be loaded, the rest of their leaves is zero.
type extent struct{ start, end int64 }

// A leafBlock is what is stored of a leaf.
type leafBlock struct {
	i    int64 // in the cell
	data []byte
	sent bool
}

// A level collects the scores of one unfinished pointer block.
type level struct {
	total  int64 // scores that ever came
	scores []byte
	below  *sync.WaitGroup // blocks in scores that are not acknowledged yet; may be nil
}

func newBuilder(ctx context.Context, st venti.Store, cfg Config) (*builder, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	b := &builder{
		cfg: cfg, sh: newShape(cfg.PSize, cfg.DSize, cfg.Dir), put: cfg.Putter,
		free:    make(chan *cell, cfg.Parallel+1),
		ordered: make(chan *cell, 2*cfg.Parallel),
		ended:   make(chan struct{}),
		slots:   make(chan struct{}, fanout),
	}
	if b.put == nil {
		b.put = NewPutter(st)
	}
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	b.cell = min(int64(b.sh.np), max(1, maxCellBytes/int64(cfg.DSize)))
	if cfg.Base != nil {
		b.base = newPointers(st, *cfg.Base, defaultPointerCache)
	}
	return b, nil
}

// cellAt returns the bounds, in leaves, of the cell that leaf lies in: cells
// do not cross level-1 blocks.
func (b *builder) cellAt(leaf int64) (first, end int64) {
	np := int64(b.sh.np)
	block := leaf / np * np
	first = block + (leaf-block)/b.cell*b.cell
	return first, min(first+b.cell, block+np)
}

// take returns an empty cell that begins at leaf. It waits while all are at
// work.
func (b *builder) take(leaf int64) (*cell, error) {
	var c *cell
	select {
	case c = <-b.free:
	default:
		if b.made <= b.cfg.Parallel { // one is with the caller
			b.made++
			c = new(cell)
			break
		}
		select {
		case c = <-b.free:
		case <-b.ctx.Done():
			return nil, context.Cause(b.ctx)
		}
	}
	*c = cell{leaf: leaf, buf: c.buf[:0], data: c.data[:0], blocks: c.blocks[:0], scores: c.scores[:0]}
	return c, nil
}

// submit hands on a cell, or a hole, that begins where the last one ended.
func (b *builder) submit(c *cell) error {
	if !b.started {
		b.started = true
		go b.assemble() // finish waits for it
	}
	c.done = make(chan struct{})
	select {
	case b.ordered <- c:
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
	if c.hole {
		close(c.done)
		return nil
	}
	go func() { // the assembler waits for it
		defer close(c.done)
		if err := b.work(c); err != nil {
			b.cancel(err)
		}
	}()
	return nil
}

// skip submits a hole of n leaves, which stands for so many bytes.
func (b *builder) skip(n, bytes int64) error {
	return b.submit(&cell{n: n, bytes: bytes, hole: true})
}

// work hashes the leaves of c and stores them. When it returns nil, all are
// acknowledged.
func (b *builder) work(c *cell) error {
	ds := int64(b.sh.dsize)
	for range c.n {
		c.scores = append(c.scores, venti.EmptyScore[:]...)
	}
	c.tally.Zero.Add(c.n, c.bytes)
	if c.load {
		if err := b.takeSame(c); err != nil {
			return err
		}
		if err := b.load(c); err != nil {
			return err
		}
	}
	for _, x := range c.data {
		for i := x.start/ds - c.leaf; i*ds < x.end-c.leaf*ds; i++ {
			leaf := c.buf[i*ds : min((i+1)*ds, c.bytes)]
			if data := venti.Truncate(b.sh.leaf, leaf); len(data) > 0 {
				s := venti.ScoreOf(data)
				copy(c.scores[i*venti.ScoreSize:], s[:])
				c.blocks = append(c.blocks, leafBlock{i: i, data: data})
				c.tally.Zero.Add(-1, -int64(len(leaf)))
			}
		}
	}
	if err := b.dropBase(c); err != nil {
		return err
	}
	err := each(b.ctx, len(c.blocks), fanout, func(ctx context.Context, i int) (err error) {
		l := &c.blocks[i]
		l.sent, err = b.put.Put(ctx, scoreAt(c.scores, int(l.i)), b.sh.leaf, l.data)
		return err
	})
	for _, l := range c.blocks {
		c.tally.put(l.sent, len(l.data))
	}
	return err
}

// takeSame takes from the base the scores of leaves that are known to be the
// same, and takes these leaves out of c's data.
func (b *builder) takeSame(c *cell) error {
	if b.cfg.Same == nil || b.base == nil || len(c.data) == 0 {
		return nil
	}
	old, err := b.baseScores(c)
	if err != nil {
		return err
	}
	ds, start := int64(b.sh.dsize), c.leaf*int64(b.sh.dsize)
	var data []extent // as no leaf belongs to two extents, there may be more of them
	same := int64(0)  // where what is known to be the same ends
	for _, x := range c.data {
		for lo := x.start; lo < x.end; {
			leaf := lo / ds
			begin, end := leaf*ds, min((leaf+1)*ds, start+c.bytes)
			hi := min(x.end, end)
			if same <= begin {
				same = b.cfg.Same(begin)
			}
			s := scoreAt(old, int(leaf%int64(b.sh.np)))
			switch {
			case same >= end && !isHole(s):
				copy(c.scores[(leaf-c.leaf)*venti.ScoreSize:], s[:])
				c.tally.Zero.Add(-1, begin-end)
				c.tally.Base.Add(1, end-begin)
			case len(data) > 0 && data[len(data)-1].end == lo:
				data[len(data)-1].end = hi
			default:
				data = append(data, extent{lo, hi})
			}
			lo = hi
		}
	}
	c.data = data
	return nil
}

// load reads the data of c and clears the rest of its leaves.
func (b *builder) load(c *cell) error {
	ds, start := int64(b.sh.dsize), c.leaf*int64(b.sh.dsize)
	for _, x := range c.data {
		if err := b.ctx.Err(); err != nil {
			return context.Cause(b.ctx)
		}
		lo, hi := x.start-start, x.end-start
		clear(c.buf[lo/ds*ds : lo])
		clear(c.buf[hi:min((hi+ds-1)/ds*ds, c.bytes)])
		n, err := b.src.ReadAt(c.buf[lo:hi], x.start)
		if n == int(hi-lo) {
			continue
		}
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %d bytes at %d: %w", hi-lo, x.start, err)
	}
	return nil
}

// dropBase drops from c's blocks those that the base tree has in the same
// place, and counts them.
func (b *builder) dropBase(c *cell) error {
	if b.base == nil || len(c.blocks) == 0 {
		return nil
	}
	np := int64(b.sh.np)
	// A cell that is a whole level-1 block is compared by that block's score
	// first, which saves reading the base's block.
	if b.cell == np {
		old, err := b.base.score(b.ctx, 1, c.leaf/np)
		if err := b.baseError(err); err != nil {
			return err
		}
		if err == nil && old == venti.ScoreOf(venti.Truncate(b.sh.typ(1), c.scores)) {
			for _, l := range c.blocks {
				c.tally.Base.Add(1, int64(len(l.data)))
			}
			c.blocks = c.blocks[:0]
			return nil
		}
	}
	old, err := b.baseScores(c)
	if err != nil {
		return err
	}
	blocks := c.blocks[:0]
	for _, l := range c.blocks {
		if scoreAt(old, int((c.leaf+l.i)%np)) == scoreAt(c.scores, int(l.i)) {
			c.tally.Base.Add(1, int64(len(l.data)))
		} else {
			blocks = append(blocks, l)
		}
	}
	c.blocks = blocks
	return nil
}

// baseScores returns the scores of the base's leaves under the level-1 block
// that c lies under, as far as they can be had.
func (b *builder) baseScores(c *cell) ([]byte, error) {
	if b.base.e.Depth > 0 {
		old, err := b.base.block(b.ctx, 1, c.leaf/int64(b.sh.np))
		return old, b.baseError(err)
	}
	if c.leaf == 0 {
		return b.base.e.Score[:], nil
	}
	return nil, nil
}

// baseError passes on what ends the whole write. That a block of the base
// cannot be read means only that it saves nothing.
func (b *builder) baseError(err error) error {
	if err != nil && b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	return nil
}

// assemble takes cells in order until there are no more, and waits for each
// also after one has failed.
func (b *builder) assemble() {
	defer close(b.ended)
	for c := range b.ordered {
		<-c.done
		if b.ctx.Err() != nil {
			continue
		}
		if err := b.add(c); err != nil {
			b.cancel(err)
			continue
		}
		if !c.hole {
			b.free <- c // has room for every cell
		}
	}
}

// add appends a cell's leaves to the tree.
func (b *builder) add(c *cell) error {
	var err error
	if c.hole {
		b.stats.Leaves.Zero.Add(c.n, c.bytes)
		err = b.pushHoles(1, c.n)
	} else {
		b.stats.Leaves.add(&c.tally)
		for i := 0; i < int(c.n) && err == nil; i++ {
			err = b.push(1, scoreAt(c.scores, i))
		}
	}
	b.done += c.bytes
	if err == nil && b.cfg.Progress != nil {
		b.cfg.Progress(b.done)
	}
	return err
}

// push appends a score to the block being built at level k.
func (b *builder) push(k int, s venti.Score) error {
	l := &b.levels[k]
	if k > venti.MaxDepth && l.total > 0 {
		return ErrTooBig // two blocks with nothing to join them
	}
	l.total++
	l.scores = append(l.scores, s[:]...)
	if len(l.scores) == b.sh.np*venti.ScoreSize {
		return b.flush(k)
	}
	return nil
}

// pushHoles appends n empty scores at level k, at a cost that does not grow
// with n.
func (b *builder) pushHoles(k int, n int64) error {
	np := int64(b.sh.np)
	for n > 0 {
		l := &b.levels[k]
		if len(l.scores) == 0 && n >= np && k <= venti.MaxDepth {
			// Whole blocks of holes are holes of the level above.
			l.total += n / np * np
			if err := b.pushHoles(k+1, n/np); err != nil {
				return err
			}
			n %= np
			continue
		}
		if err := b.push(k, venti.EmptyScore); err != nil {
			return err
		}
		n--
	}
	return nil
}

// flush ends the block being built at level k: stores it, unless the base
// has it there, and appends its score to the level above. It does not wait
// until the block is stored.
func (b *builder) flush(k int) error {
	l := &b.levels[k]
	index := (l.total - 1) / int64(b.sh.np)
	data, below := venti.Truncate(b.sh.typ(k), l.scores), l.below
	l.below = nil
	if len(data) == 0 {
		l.scores = l.scores[:0]
		return b.push(k+1, venti.EmptyScore)
	}
	s := venti.ScoreOf(data)
	if b.base != nil {
		old, err := b.base.score(b.ctx, k, index)
		if err := b.baseError(err); err != nil {
			return err
		}
		if err == nil && old == s {
			// All below it is in the base, too: there is nothing to wait for.
			b.stats.Pointers.Base.Add(1, int64(len(data)))
			l.scores = l.scores[:0]
			return b.push(k+1, s)
		}
	}
	// Slots are taken in the order in which blocks are finished. So a block
	// that waits for those below it, with a slot in hand, waits for blocks that
	// have theirs.
	select {
	case b.slots <- struct{}{}:
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
	l.scores = make([]byte, 0, cap(l.scores))
	up := &b.levels[k+1]
	if up.below == nil {
		up.below = new(sync.WaitGroup)
	}
	waits := up.below
	waits.Add(1)
	b.storing.Go(func() {
		defer func() { <-b.slots; waits.Done() }()
		if below != nil {
			below.Wait()
		}
		if b.ctx.Err() != nil { // perhaps because one below has failed
			return
		}
		sent, err := b.put.Put(b.ctx, s, b.sh.typ(k), data)
		if err != nil {
			b.cancel(err)
			return
		}
		b.mu.Lock()
		b.stored.put(sent, len(data))
		b.mu.Unlock()
	})
	return b.push(k+1, s)
}

// finish takes the last cell, or nil, and returns the entry of the whole
// file. It must be called, if only with the error that ended the work; then
// it stops what still runs and returns that error.
func (b *builder) finish(last *cell, size int64, err error) (venti.Entry, Stats, error) {
	switch {
	case err != nil:
		b.cancel(err)
	case last == nil:
	case b.started:
		if err := b.submit(last); err != nil {
			b.cancel(err)
		}
	default: // a file of one cell needs no other goroutines
		err := b.work(last)
		if err == nil {
			err = b.add(last)
		}
		if err != nil {
			b.cancel(err)
		}
	}
	if b.started {
		close(b.ordered)
		<-b.ended
	}
	e := venti.Entry{
		PSize: b.sh.psize, DSize: b.sh.dsize,
		Flags: venti.EntryActive, Size: size, Score: venti.EmptyScore,
	}
	if b.cfg.Dir {
		e.Flags |= venti.EntryDir
	}
	// Finish the last block of each level, up to the level with one score.
	for k := 1; b.done > 0 && b.ctx.Err() == nil; k++ {
		l := &b.levels[k]
		if l.total == 1 {
			e.Depth, e.Score = k-1, venti.Score(l.scores)
			break
		}
		if len(l.scores) > 0 {
			if err := b.flush(k); err != nil {
				b.cancel(err)
			}
		}
	}
	b.storing.Wait()
	if b.ctx.Err() != nil {
		err := context.Cause(b.ctx)
		return venti.Entry{}, Stats{}, fmt.Errorf("write tree: %w", err)
	}
	b.cancel(nil)
	b.stats.Pointers.add(&b.stored)
	return e, b.stats, nil
}
