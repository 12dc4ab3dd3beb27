package store

import (
	"sync"

	"strata/venti/internal/arena"
	"strata/venti/internal/index"
)

// How the index cache learns from clump directories.
//
// Blocks that were written one after the other are mostly read, and written
// again, in the same order, and their clumps lie in the log in that order. So
// when two look-ups in a row had to read the index and led to places of an
// arena near each other, the entries of the clumps from there on are taken
// from the clump directory: one read brings hundreds.
const (
	// learnNear is how near two places in a log are that tell of a reader in
	// log order, in bytes. Two random places in an arena of 512 MiB are that
	// near once in thirty times.
	learnNear = 8 << 20
	// learnClumps is how many entries are taken at a time.
	learnClumps = 512
	// dirStep is how many clumps lie between those whose offset is remembered.
	dirStep = 256
)

// A directory knows where in the log the clumps of an arena's directory lie,
// which is the sum of the sizes of all before. It is read once, when it is
// first needed, and then kept up with.
type directory struct {
	mu     sync.Mutex // guards the fields below; held through reads of the directory, which only those who learn wait for
	steps  []int64    // offsets of clumps 0, dirStep, 2*dirStep...
	next   arena.Pos  // the first clump that steps does not count
	clumps int        // how many entries the directory on disk has
	last   int64      // where the last look-up led, or -1

	from, to int64 // where the clumps lie whose entries were taken last
	count    int64 // Store.learned then
}

// grow tells that the directory on disk has n entries.
func (d *directory) grow(n int) {
	d.mu.Lock()
	d.clumps = n
	d.mu.Unlock()
}

// readUpTo reads the directory until it knows where offset off lies.
func (d *directory) readUpTo(a *arena.Arena, off int64) error {
	var infos []arena.ClumpInfo
	for d.next.Off <= off && d.next.Clump < d.clumps {
		if infos == nil {
			infos = make([]arena.ClumpInfo, 8192)
		}
		infos = infos[:min(cap(infos), d.clumps-d.next.Clump)]
		if err := a.ReadInfos(infos, d.next.Clump); err != nil {
			return err
		}
		for i := range infos {
			if d.next.Clump%dirStep == 0 {
				d.steps = append(d.steps, d.next.Off)
			}
			d.next.Off += infos[i].LogSize()
			d.next.Clump++
		}
	}
	return nil
}

// step returns the last clump of steps that is not behind off.
func (d *directory) step(off int64) arena.Pos {
	lo, hi := 0, len(d.steps)
	for lo < hi {
		if mid := (lo + hi) / 2; d.steps[mid] <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return arena.Pos{}
	}
	return arena.Pos{Off: d.steps[lo-1], Clump: (lo - 1) * dirStep}
}

// learn is told that a look-up, which began when Store.learned was count, read
// the index and led to an offset of an arena.
func (s *Store) learn(a *logArena, off, count int64) {
	d := &a.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	near := off-d.last < learnNear && d.last-off < learnNear
	d.last = off
	if !near || d.count > count && d.from <= off && off < d.to { // or another has just learned it
		return
	}
	err := d.readUpTo(a.Arena, off)
	if err != nil {
		s.log.Warn("read clump directory", "arena", a.Name, "err", err)
		return
	}
	at := d.step(off)
	infos := make([]arena.ClumpInfo, min(learnClumps+dirStep, d.clumps-at.Clump))
	if len(infos) == 0 {
		return
	}
	if err := a.ReadInfos(infos, at.Clump); err != nil {
		s.log.Warn("read clump directory", "arena", a.Name, "err", err)
		return
	}
	for i := range infos {
		if at.Off >= off && infos[i].Type.Valid() {
			e := entryOf(a, at.Off, &infos[i])
			s.index.putClean(slotOf(&e), true)
		}
		at.Off += infos[i].LogSize()
	}
	d.from, d.to, d.count = off, at.Off, s.learned.Add(1)
	s.stats.indexLearned.Add(int64(len(infos)))
}

// entryOf returns the entry of a clump in the index.
func entryOf(a *logArena, off int64, info *arena.ClumpInfo) index.Entry {
	return index.Entry{
		Score: info.Score, Addr: a.addr(off), Type: info.Type,
		Size: info.UncSize, Blocks: index.SectorsOf(int(info.Size)),
	}
}
