package hashtree

import (
	"bytes"
	"context"
	"fmt"

	"strata/venti"
)

// WriteBytes is Write of data, which is only read and the caller's again when
// it returns. A file of one cell, as most files of a file system are, costs no
// buffer and no goroutine of its own but those that store its leaves.
func WriteBytes(ctx context.Context, st venti.Store, data []byte, cfg Config) (venti.Entry, Stats, error) {
	progress := cfg.Progress
	cfg, err := cfg.complete()
	if err != nil {
		return venti.Entry{}, Stats{}, fmt.Errorf("write tree: %w", err)
	}
	sh := newShape(cfg.PSize, cfg.DSize, cfg.Dir)
	if sh.leaves(int64(len(data))) > int64(sh.np) || len(data) > maxCellBytes {
		return Write(ctx, st, bytes.NewReader(data), int64(len(data)), cfg)
	}
	if cfg.Putter == nil {
		cfg.Putter = NewPutter(st)
	}
	e, stats, err := writeCell(ctx, st, data, cfg, sh)
	if err != nil {
		return venti.Entry{}, Stats{}, fmt.Errorf("write tree: %w", err)
	}
	if progress != nil {
		progress(int64(len(data)))
	}
	return e, stats, nil
}

// writeCell stores a file of one cell.
func writeCell(ctx context.Context, st venti.Store, data []byte, cfg Config, sh shape) (e venti.Entry, stats Stats, err error) {
	e = venti.Entry{
		PSize: sh.psize, DSize: sh.dsize,
		Flags: venti.EntryActive, Size: int64(len(data)), Score: venti.EmptyScore,
	}
	if cfg.Dir {
		e.Flags |= venti.EntryDir
	}
	n := int(sh.leaves(int64(len(data))))
	scores := make([]byte, 0, n*venti.ScoreSize)
	blocks := make([]leafBlock, 0, n)
	for i := range n {
		leaf := data[i*sh.dsize : min((i+1)*sh.dsize, len(data))]
		d := venti.Truncate(sh.leaf, leaf)
		s := venti.EmptyScore
		if len(d) > 0 {
			s = venti.ScoreOf(d)
			blocks = append(blocks, leafBlock{i: int64(i), data: d})
		} else {
			stats.Leaves.Zero.Add(1, int64(len(leaf)))
		}
		scores = append(scores, s[:]...)
	}
	var pointers []byte
	switch {
	case n == 1:
		e.Score = venti.Score(scores)
	case n > 1:
		e.Depth = 1
		if pointers = venti.Truncate(sh.typ(1), scores); len(pointers) > 0 {
			e.Score = venti.ScoreOf(pointers)
		}
	}
	if len(blocks) == 0 {
		return e, stats, nil
	}
	blocks, same, err := dropKnown(ctx, st, cfg.Base, &e, scores, blocks, &stats.Leaves)
	if err != nil {
		return e, stats, err
	}
	err = each(ctx, len(blocks), fanout, func(ctx context.Context, i int) (err error) {
		l := &blocks[i]
		l.sent, err = cfg.Putter.Put(ctx, scoreAt(scores, int(l.i)), sh.leaf, l.data)
		return err
	})
	if err != nil {
		return e, stats, err
	}
	for _, l := range blocks {
		stats.Leaves.put(l.sent, len(l.data))
	}
	if e.Depth == 0 {
		return e, stats, nil
	}
	if same {
		stats.Pointers.Base.Add(1, int64(len(pointers)))
		return e, stats, nil
	}
	sent, err := cfg.Putter.Put(ctx, e.Score, sh.typ(1), pointers)
	if err == nil {
		stats.Pointers.put(sent, len(pointers))
	}
	return e, stats, err
}

// dropKnown drops from blocks those that the base has in the same place, and
// counts them. same tells that e is the base.
func dropKnown(ctx context.Context, st venti.Store, base, e *venti.Entry, scores []byte, blocks []leafBlock, tally *Tally) (rest []leafBlock, same bool, err error) {
	if base == nil {
		return blocks, false, nil
	}
	same = base.Depth == e.Depth && base.Score == e.Score
	var old []byte // scores of the base's first leaves
	switch {
	case same:
		old = scores
	case base.Depth == 0:
		old = base.Score[:]
	default:
		old, err = newPointers(st, *base, defaultPointerCache).block(ctx, 1, 0)
		if ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
		if err != nil {
			old = nil // it only saves nothing
		}
	}
	rest = blocks[:0]
	for _, l := range blocks {
		if scoreAt(old, int(l.i)) == scoreAt(scores, int(l.i)) {
			tally.Base.Add(1, int64(len(l.data)))
		} else {
			rest = append(rest, l)
		}
	}
	return rest, same, nil
}
