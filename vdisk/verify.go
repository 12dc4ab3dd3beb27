package vdisk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"strata/venti"
)

// A Report says what Verify or Compare found.
type Report struct {
	Blocks int64 `json:"blocks"` // that were read and are right
	Bytes  int64 `json:"bytes"`  // in them
	Failed int64 `json:"failed"` // blocks that are not, or ranges that differ

	// Failures are where, in the order of the disk: the first maxFailures that
	// were found.
	Failures []Failure `json:"failures,omitempty"`

	mu sync.Mutex // guards the fields above while they grow
}

// A Failure is a piece of a disk that is not what it should be.
type Failure struct {
	Region string `json:"region"`
	Offset int64  `json:"offset"` // from the start of the region
	Length int64  `json:"length"` // how many bytes of the region it takes with it
	Reason string `json:"reason"`

	start int64 // of the region
}

// String says it in a line.
func (f Failure) String() string {
	return fmt.Sprintf("region %s, %d bytes at %d: %s", f.Region, f.Length, f.Offset, f.Reason)
}

const (
	maxFailures = 1000

	// verifyWidth is how many blocks are asked for at once.
	verifyWidth = 64
)

func (r *Report) good(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Blocks++
	r.Bytes += int64(n)
}

func (r *Report) fail(f Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Failed++
	if len(r.Failures) < maxFailures {
		r.Failures = append(r.Failures, f)
	}
}

func (r *Report) sort() {
	slices.SortStableFunc(r.Failures, func(a, b Failure) int { return cmp.Compare(a.start+a.Offset, b.start+b.Offset) })
}

// Verify reads every block under the root with the given score. That the
// root, the directory or the layout is missing or wrong is its error, as is
// that br cannot be asked any more; what is wrong with the regions is in the
// report. progress, if not nil, is called now and then with how many bytes of
// the disk, holes included, are done; calls do not overlap.
func Verify(ctx context.Context, br venti.BlockReader, score venti.Score, progress func(done int64)) (*Report, error) {
	im, err := Open(ctx, br, score)
	if err != nil {
		return nil, err
	}
	rep := new(Report)
	for i := range im.entries {
		v := &verifier{
			br: br, r: &im.layout.Regions[i], e: &im.entries[i], rep: rep, progress: progress,
			seen: make(map[seenBlock]bool),
		}
		if err := v.run(ctx); err != nil {
			return nil, fmt.Errorf("verify image %v: %w", score, err)
		}
	}
	rep.sort()
	if progress != nil {
		progress(im.Size())
	}
	return rep, nil
}

// A verifier reads the tree of one region.
type verifier struct {
	br       venti.BlockReader
	r        *Region
	e        *venti.Entry
	rep      *Report
	progress func(int64)
	group    *errgroup.Group
	leaves   sync.Pool // of *[]byte, DSize long

	mu   sync.Mutex // guards the fields below, and calls of progress
	seen map[seenBlock]bool
	done int64 // bytes of the region
}

// seenBlock is a pointer block that has been verified with all below it.
// Without this an image that repeats itself, which is small, would take as
// long as the disk is large. Leaves are not kept: they are too many.
type seenBlock struct {
	score venti.Score
	depth int
}

func (v *verifier) run(ctx context.Context) error {
	v.leaves.New = func() any {
		b := make([]byte, v.e.DSize)
		return &b
	}
	v.group, ctx = errgroup.WithContext(ctx)
	v.group.SetLimit(verifyWidth)
	err := v.visit(ctx, v.e.Score, v.e.Depth, 0, v.e.Size)
	return cmp.Or(v.group.Wait(), err)
}

// visit reads the block with depth levels below it, which stands for length
// bytes of the region from off on.
func (v *verifier) visit(ctx context.Context, score venti.Score, depth int, off, length int64) error {
	if score == venti.EmptyScore || score.IsZero() || depth > 0 && v.again(score, depth) {
		v.account(length)
		return nil
	}
	t := venti.DataType + venti.Type(depth)
	var buf []byte
	if depth > 0 {
		buf = make([]byte, v.e.PSize)
	} else {
		b := v.leaves.Get().(*[]byte)
		defer v.leaves.Put(b)
		buf = *b
	}
	n, err := v.br.ReadBlock(ctx, score, t, buf)
	switch {
	case err == nil:
		v.rep.good(n)
	case errors.Is(err, venti.ErrNotFound), errors.Is(err, venti.ErrCorrupt), errors.Is(err, venti.ErrTooLong):
		v.fail(off, length, fmt.Errorf("block %v of type %v: %w", score, t, err))
		return nil
	default:
		return err
	}
	if depth == 0 {
		v.account(length)
		return nil
	}
	if n%venti.ScoreSize != 0 {
		v.fail(off, length, fmt.Errorf("block %v of type %v: %d bytes are not whole scores", score, t, n))
		return nil
	}
	return v.children(ctx, buf[:n], depth, off, length)
}

// children visits what a pointer block points at.
func (v *verifier) children(ctx context.Context, scores []byte, depth int, off, length int64) error {
	per := v.span(depth - 1)
	for at := int64(0); at < length; at += per {
		m := min(per, length-at)
		if len(scores) == 0 {
			v.account(length - at)
			return nil
		}
		s := venti.Score(scores[:venti.ScoreSize])
		scores = scores[venti.ScoreSize:]
		visit := func() error { return v.visit(ctx, s, depth-1, off+at, m) }
		if v.group.TryGo(visit) {
			continue
		}
		if err := visit(); err != nil {
			return err
		}
	}
	return nil
}

// span returns how many bytes a block with depth levels below it stands for,
// or more than any region has.
func (v *verifier) span(depth int) int64 {
	n := int64(v.e.DSize)
	for range depth {
		if n > venti.MaxEntrySize {
			break
		}
		n *= int64(v.e.PSize / venti.ScoreSize)
	}
	return n
}

// again tells whether a pointer block has been visited before.
func (v *verifier) again(score venti.Score, depth int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := seenBlock{score, depth}
	old := v.seen[k]
	v.seen[k] = true
	return old
}

func (v *verifier) fail(off, length int64, err error) {
	v.rep.fail(Failure{Region: v.r.Name, Offset: off, Length: length, Reason: err.Error(), start: v.r.Start})
	v.account(length)
}

func (v *verifier) account(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done += n
	if v.progress != nil {
		v.progress(v.r.Start + v.done)
	}
}
