package hashtree

import (
	"fmt"
	"math"

	"strata/venti"
)

// maxReadBlock bounds the block sizes that an entry may claim, and with them
// the memory that reading takes. No store holds blocks as long; but a block
// shortened by truncation may come from a tree of longer ones (vac -b 128k).
const maxReadBlock = 1 << 20

// A shape is the geometry of a tree: what its sizes say about where a block
// lies. Level 0 is the leaves, level k the blocks that point at level k-1,
// and blocks of a level are counted from 0. It is immutable.
type shape struct {
	psize, dsize int
	np           int                       // scores in a pointer block
	leaf         venti.Type                // DataType or DirType
	under        [venti.MaxDepth + 2]int64 // leaves under a block of each level, or MaxInt64
}

func newShape(psize, dsize int, dir bool) shape {
	s := shape{psize: psize, dsize: dsize, np: psize / venti.ScoreSize, leaf: venti.DataType}
	if dir {
		s.leaf = venti.DirType
	}
	s.under[0] = 1
	for k := 1; k < len(s.under); k++ {
		s.under[k] = math.MaxInt64
		if s.under[k-1] <= math.MaxInt64/int64(s.np) {
			s.under[k] = s.under[k-1] * int64(s.np)
		}
	}
	return s
}

// leaves returns how many leaves size bytes take.
func (s *shape) leaves(size int64) int64 {
	n := size / int64(s.dsize)
	if size%int64(s.dsize) != 0 {
		n++
	}
	return n
}

// depth returns the number of pointer levels that size bytes need, which is
// more than venti.MaxDepth if they fit no tree.
func (s *shape) depth(size int64) int {
	n := s.leaves(size)
	d := 0
	for d < len(s.under) && s.under[d] < n {
		d++
	}
	return d
}

// typ returns the type of blocks at a level.
func (s *shape) typ(level int) venti.Type { return s.leaf + venti.Type(level) }

// entriesPerLeaf returns how many entries a directory's leaf holds.
func (s *shape) entriesPerLeaf() int { return s.dsize / venti.EntrySize }

// entryOffset returns where the i-th entry of a directory lies. It is also
// the size of a directory of i entries.
func (s *shape) entryOffset(i int64) int64 {
	n := int64(s.entriesPerLeaf())
	return i/n*int64(s.dsize) + i%n*venti.EntrySize
}

// checkEntry tells whether e can be read as a tree.
func checkEntry(e *venti.Entry) error {
	switch {
	case !e.Active():
		return fmt.Errorf("entry is not active")
	case e.PSize < venti.MinBlockSize || e.PSize > maxReadBlock,
		e.DSize < venti.MinBlockSize || e.DSize > maxReadBlock:
		return fmt.Errorf("bad block size %d/%d", e.PSize, e.DSize)
	case e.Size < 0 || e.Size > venti.MaxEntrySize:
		return fmt.Errorf("bad size %d", e.Size)
	case e.Depth < 0 || e.Depth > venti.MaxDepth:
		return fmt.Errorf("bad depth %d", e.Depth)
	}
	s := newShape(e.PSize, e.DSize, e.Dir())
	if need := s.depth(e.Size); e.Depth < need {
		return fmt.Errorf("bad depth %d: %d bytes need %d", e.Depth, e.Size, need)
	}
	return nil
}

// isHole tells whether a pointer stands for zeros. No writer makes Score{},
// but a store reads it as the empty block.
func isHole(s venti.Score) bool { return s == venti.EmptyScore || s.IsZero() }
