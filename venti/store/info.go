package store

import (
	"cmp"
	"fmt"

	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/index"
)

// Info says what a store consists of and how far it is filled. It is the
// caller's.
type Info struct {
	Index    IndexInfo
	Arenas   []ArenaInfo // in the order of the index
	Bloom    *BloomInfo  // nil if there is none
	Parts    []string    // arena partitions, as the configuration names them
	Encoding string      // of new clumps
	ReadOnly bool
}

// IndexInfo is about an index, as fmtindex has made it.
type IndexInfo struct {
	Name      string
	BlockSize int // bytes in a bucket
	TableSize int // bytes for the table of sections and arenas
	Buckets   uint32
	Div       uint64
	Sections  []SectionInfo
}

// SectionInfo is about the section with the buckets from Start up to Stop.
type SectionInfo struct {
	Name, Partition string
	Start, Stop     uint32
	Capacity        int // entries in a bucket
}

// ArenaInfo is about an arena.
type ArenaInfo struct {
	Name, Partition string
	Version         int
	BlockSize       int
	Start, Stop     uint64 // its addresses in the index
	Base            int64  // where in the partition its clumps begin
	Size            int64  // bytes for clumps and their directory
	Created         uint32 // time of the first write and of the last, in seconds since 1970
	Modified        uint32
	Written         arena.Stats // all that was appended
	Indexed         arena.Stats // of that, what the index on disk has
	Seal            venti.Score // zero until it is sealed and summed
	Summing         bool        // it is sealed, and its sum is being computed or waits for that
	Stuck           bool        // it has clumps for which the index has no room
	Damaged         bool        // nothing is appended: its trailer and its log contradict each other
	Failed          bool        // nothing is appended: its partition could not be written
}

// BloomInfo is about a Bloom filter. Ones is how many of the Bits are set,
// estimated from a sample where there are many.
type BloomInfo struct {
	Partition  string
	Size       int // bytes, with the header
	Hashes     int // bits for each score
	Ones, Bits int64
}

// Info returns what the store consists of. The numbers are not all of one
// moment.
func (s *Store) Info() Info {
	info := Info{
		Index: IndexInfo{
			Name: s.ix.Name, BlockSize: s.ix.BlockSize, TableSize: s.ix.Sections[0].TableSize(),
			Buckets: s.ix.Buckets, Div: s.ix.Div,
		},
		Arenas:   make([]ArenaInfo, 0, len(s.arenas)),
		Encoding: s.encoding.String(),
		ReadOnly: s.readOnly,
	}
	for i, sec := range s.ix.Sections {
		info.Index.Sections = append(info.Index.Sections, SectionInfo{
			Name: sec.Name, Partition: fileName(s.sections[i]), Start: sec.Start, Stop: sec.Stop, Capacity: sec.Capacity(),
		})
	}
	for _, p := range s.parts {
		info.Parts = append(info.Parts, fileName(p.file))
	}
	s.eachArenaLocked(func(i int, a *logArena) {
		m := s.ix.Arenas[i]
		info.Arenas = append(info.Arenas, ArenaInfo{
			Name: a.Name, Partition: fileName(a.part.file), Version: a.Version, BlockSize: a.BlockSize,
			Start: m.Start, Stop: m.Stop, Base: a.Base(), Size: a.Size(), Created: a.ctime, Modified: a.wtime,
			Written: a.mem, Indexed: a.disk, Seal: a.seal, Summing: a.summing.Load(),
			Stuck: a.stuck, Damaged: a.damaged, Failed: a.part.err != nil,
		})
	})
	if s.bloom != nil {
		b := s.BloomInfo()
		info.Bloom = &b
	}
	return info
}

// BloomInfo returns what Info says of the Bloom filter; it is zero if there is
// none.
func (s *Store) BloomInfo() BloomInfo {
	if s.bloom == nil {
		return BloomInfo{}
	}
	bits := int64(s.bloom.Size()) * 8
	return BloomInfo{
		Partition: fileName(s.bloomOut), Size: s.bloom.Size(), Hashes: s.bloom.Hashes(),
		Ones: int64(s.bloom.Fill() * float64(bits)), Bits: bits,
	}
}

// lockedArenas is how many arenas eachArenaLocked looks at before it lets go
// of the lock of their partition, which appends take.
const lockedArenas = 256

// eachArenaLocked calls f for all arenas, in the order of the index, with the
// lock of the arena's partition held.
func (s *Store) eachArenaLocked(f func(i int, a *logArena)) {
	var locked *logPart
	for i, a := range s.arenas {
		if a.part != locked || i%lockedArenas == 0 {
			if locked != nil {
				locked.mu.Unlock()
			}
			locked = a.part
			locked.mu.Lock()
		}
		f(i, a)
	}
	if locked != nil {
		locked.mu.Unlock()
	}
}

// Health returns why the store can take no more writes, or nil. That of a
// store that is open read-only is none of its health.
func (s *Store) Health() error {
	switch {
	case s.closed.Load():
		return ErrClosed
	case s.readOnly:
		return nil
	case s.index.stuck.Load() >= s.maxDirty:
		return errIndexFull
	}
	s.flushMu.Lock()
	flushErr := s.flushErr
	s.flushMu.Unlock()
	if flushErr != nil && s.index.dirty.Load() >= s.maxDirty {
		return fmt.Errorf("index is full of what cannot be written: %w", flushErr)
	}
	// A sync is for all partitions, so that one that failed fails it.
	full := true
	for _, p := range s.parts {
		p.mu.Lock()
		err := cmp.Or(p.err, p.full)
		for _, a := range p.arenas[p.cur:] {
			if !a.mem.Sealed && !a.damaged {
				full = false
				break
			}
		}
		p.mu.Unlock()
		if err != nil {
			return fmt.Errorf("%s: %w", fileName(p.file), err)
		}
	}
	if full {
		return venti.ErrFull
	}
	return nil
}

// A Place is where a block was looked for, and what came of it. The steps are
// those that a read takes, but each is tried, whatever the one before it
// found.
type Place struct {
	LumpCache  bool // the block is in memory
	IndexCache bool // its entry is
	Bloom      bool // the Bloom filter does not deny it; true if there is none
	Indexed    bool // its entry is in the index on disk
	IndexErr   error

	Found    bool // one of the two has an entry; the rest is of that
	Addr     uint64
	Arena    string
	Offset   int64 // of the clump in the log of the arena
	Clump    arena.ClumpHeader
	ClumpErr error // why it cannot be read, or is not the block
}

// Locate looks for a block step by step, changes nothing, and counts nothing.
// It fails for a type that there cannot be.
func (s *Store) Locate(score venti.Score, t venti.Type) (Place, error) {
	k, err := s.keyOf(score, t)
	if err != nil {
		return Place{}, err
	}
	var p Place
	_, p.LumpCache = s.lumps.get(&k, nil)
	p.Bloom = s.bloom == nil || s.bloom.Has(k.score)
	buf := s.blocks.Get().(*[]byte)
	defer s.blocks.Put(buf)
	var e index.Entry
	e, p.Indexed, p.IndexErr = s.ix.Lookup(k.score, venti.DiskType(k.disk), *buf)
	if sl, ok := s.index.get(&k); ok {
		p.IndexCache, e = true, sl.entry()
	}
	if p.Found = p.Indexed || p.IndexCache; !p.Found {
		return p, nil
	}
	p.Addr = e.Addr
	a, off, ok := s.arenaOf(e.Addr)
	if !ok {
		p.ClumpErr = fmt.Errorf("address %#x is in no arena: %w", e.Addr, venti.ErrCorrupt)
		return p, nil
	}
	p.Arena, p.Offset = a.Name, off
	var data []byte
	if p.Clump, data, p.ClumpErr = s.rawClump(a, off, int(e.Blocks)*512, *buf); p.ClumpErr != nil {
		return p, nil
	}
	lump := s.blocks.Get().(*[]byte)
	defer s.blocks.Put(lump)
	if p.Clump.Score != score || uint8(p.Clump.Type) != k.disk {
		p.ClumpErr = fmt.Errorf("it is of block %v/%v: %w", p.Clump.Score, p.Clump.Type, venti.ErrCorrupt)
	} else {
		_, p.ClumpErr = p.Clump.Decode(*lump, data)
	}
	return p, nil
}
