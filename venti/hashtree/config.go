package hashtree

import (
	"errors"
	"fmt"
	"runtime"

	"strata/venti"
)

// ErrTooBig is returned for a file that no tree of the block sizes given can
// hold, or that is longer than venti.MaxEntrySize. (The original library
// cannot read past the first 1<<31 leaves of a tree. There is no such limit
// here.)
var ErrTooBig = errors.New("file too big for its block sizes")

// Config says how a file is made into a tree.
type Config struct {
	// DSize is the length of a leaf in bytes; 0 means 8192. PSize is that of
	// a pointer block; 0 means DefaultPSize(DSize). Both are from
	// venti.MinBlockSize to venti.MaxBlockSize.
	DSize, PSize int
	// Dir makes a directory stream: the leaves are of venti.DirType.
	Dir bool
	// Parallel is how many cells are hashed and stored at once; 0 means twice
	// the processors, at least four. A cell takes up to 4 MiB of memory.
	Parallel int
	// Base is a tree like the one to be written, say yesterday's, that is
	// whole in the store. What has the same score in the same place is not
	// looked up or sent; the result is the same as without. A base of other
	// block sizes is of no use and is ignored, and so is what cannot be read
	// of its pointer blocks.
	Base *venti.Entry
	// Same, if set, tells where the file is known to be what Base is: from off on
	// up to what it returns, which is off where it is not. There Write takes the
	// scores of Base, and does not read the file; of what Base has holes for it
	// reads it all the same. Such leaves count with their full length. Several
	// goroutines call it at once.
	Same func(off int64) (end int64)
	// Putter, if set, is what blocks are stored with: one of the same store, that
	// other writes use too.
	Putter *Putter
	// Progress, if set, is called now and then with how many bytes of the
	// file, holes included, are done. Calls do not overlap.
	Progress func(done int64)
}

const (
	defaultDSize = 8192

	// maxCellBytes bounds a cell's buffer. 8 KiB leaves under 8180 bytes of
	// pointers, 3.2 MiB, still make one cell.
	maxCellBytes = 4 << 20
)

// DefaultPSize returns the length of the pointer blocks that go with leaves
// of dsize bytes: whole scores, as many as fit a leaf, as plan9port's vac
// and vbackup have it (4080 for 4096, 8180 for 8192).
func DefaultPSize(dsize int) int {
	return max(min(dsize, venti.MaxBlockSize)/venti.ScoreSize*venti.ScoreSize, venti.MinBlockSize)
}

// complete returns cfg with its defaults filled in, or an error.
func (cfg Config) complete() (Config, error) {
	if cfg.DSize == 0 {
		cfg.DSize = defaultDSize
	}
	if cfg.PSize == 0 {
		cfg.PSize = DefaultPSize(cfg.DSize)
	}
	for _, n := range []int{cfg.DSize, cfg.PSize} {
		if n < venti.MinBlockSize || n > venti.MaxBlockSize {
			return cfg, fmt.Errorf("bad block size %d/%d", cfg.PSize, cfg.DSize)
		}
	}
	if b := cfg.Base; b != nil && (b.PSize != cfg.PSize || b.DSize != cfg.DSize || b.Dir() != cfg.Dir ||
		checkEntry(b) != nil) {
		cfg.Base = nil
	}
	cfg.Parallel = defaultParallel(cfg.Parallel)
	return cfg, nil
}

func defaultParallel(n int) int {
	if n > 0 {
		return n
	}
	return max(4, 2*runtime.GOMAXPROCS(0))
}
