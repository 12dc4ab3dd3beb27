package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"strata/internal/disk"
	"strata/venti"
)

// An Index is an open index. Lookup, LookupAddr and the methods that compute
// may be called at once, also while Update, Recover or Check runs; those take
// turns.
type Index struct {
	// Immutable after Open.
	Name      string
	BlockSize int        // bytes in a bucket
	Sections  []*Section // in the order of their buckets
	Arenas    []AMap     // in the order of their addresses
	Buckets   uint32     // in all sections
	Div       uint64     // a score whose first 32 bits are n is in bucket n / Div

	over  *overflow    // nil if there is none; immutable after OpenOverflow
	spilt atomic.Int64 // entries that Update gave to it

	updating sync.Mutex // held by whoever writes buckets, through its waits for the disk
	again    bool       // Update writes buckets that it does not change too; guarded by updating
}

// An Arena is what the index knows of an arena.
type Arena struct {
	Name string
	Size int64 // bytes for clumps and their directory
}

// Format makes an index of sections that belong to none, or to the same one
// in the same places, and writes it to all of them. The arenas get addresses
// in the order given. It refuses whatever would make entries that are in the
// sections wrong.
//
// Sections are written and synced one after the other, the table before the
// header that names the index; after a crash Format is to be called again.
func Format(name string, sections []*Section, arenas []Arena) (*Index, error) {
	ix, err := format(name, sections, arenas)
	if err != nil {
		return nil, fmt.Errorf("index %s: format: %w", name, err)
	}
	return ix, nil
}

func format(name string, sections []*Section, arenas []Arena) (*Index, error) {
	if len(sections) == 0 {
		return nil, errors.New("no sections")
	}
	t := &table{index: name, blockSize: sections[0].BlockSize}
	var total uint64
	for _, s := range sections {
		total += uint64(s.Blocks)
	}
	buckets := bucketsOf(total)
	// The buckets that the rounding of div leaves over are taken evenly from
	// all sections, the rest of that from the last.
	excess := total - uint64(buckets)
	start := uint64(0)
	for i, s := range sections {
		stop := start + uint64(s.Blocks) - excess/uint64(len(sections))
		if i == len(sections)-1 {
			stop = uint64(buckets)
		}
		if excess/uint64(len(sections)) >= uint64(s.Blocks) || stop <= start || stop > uint64(buckets) {
			return nil, fmt.Errorf("section %s is too small to share an index of %d buckets", s.Name, buckets)
		}
		if s.BlockSize != t.blockSize {
			return nil, fmt.Errorf("section %s has buckets of %d bytes, section %s of %d", s.Name, s.BlockSize, sections[0].Name, t.blockSize)
		}
		t.sections = append(t.sections, sectionRange{s.Name, uint32(start), uint32(stop)})
		start = stop
	}
	t.addArenas(arenas)
	for i, s := range sections {
		if s.Index == "" {
			continue
		}
		// A table that cannot be read was being written when the machine
		// crashed.
		old, err := s.readTable()
		if s.Index != name || t.sections[i] != (sectionRange{s.Name, s.Start, s.Stop}) || err == nil && !t.extends(old) {
			return nil, fmt.Errorf("section %s already has the buckets [%d,%d) of index %s, which is another; format it again to use it here",
				s.Name, s.Start, s.Stop, s.Index)
		}
	}
	ix := newIndex(t, sections)
	if err := ix.write(t); err != nil {
		return nil, err
	}
	return ix, nil
}

// extends tells whether entries made under old are right under t.
func (t *table) extends(old *table) bool {
	return t.blockSize == old.blockSize && slices.Equal(t.sections, old.sections) &&
		len(t.arenas) >= len(old.arenas) && slices.Equal(t.arenas[:len(old.arenas)], old.arenas)
}

// Append adds arenas to an index that Format made. arenas are those that it
// has, in the same order, and after them the new ones. Like Format it may be
// called again after a crash.
func Append(name string, sections []*Section, arenas []Arena) (*Index, error) {
	ix, err := add(name, sections, arenas)
	if err != nil {
		return nil, fmt.Errorf("index %s: append arenas: %w", name, err)
	}
	return ix, nil
}

func add(name string, sections []*Section, arenas []Arena) (*Index, error) {
	// After a crash some sections have more arenas than others.
	t, _, err := readTables(name, sections)
	if err != nil {
		return nil, err
	}
	if len(t.arenas) > len(arenas) {
		return nil, fmt.Errorf("it has %d arenas, only %d are given", len(t.arenas), len(arenas))
	}
	for i, a := range t.arenas {
		if a.Name != arenas[i].Name || int64(a.Stop-a.Start) != arenas[i].Size {
			return nil, fmt.Errorf("arena %d is %s with %d bytes; given is %s with %d: new arenas go last",
				i, a.Name, a.Stop-a.Start, arenas[i].Name, arenas[i].Size)
		}
	}
	t.addArenas(arenas[len(t.arenas):])
	ix := newIndex(t, sections)
	if err := ix.write(t); err != nil {
		return nil, err
	}
	return ix, nil
}

// addArenas gives arenas the addresses after those that are taken.
func (t *table) addArenas(arenas []Arena) {
	addr := uint64(FirstAddr)
	if n := len(t.arenas); n > 0 {
		addr = t.arenas[n-1].Stop
	}
	for _, a := range arenas {
		t.arenas = append(t.arenas, AMap{a.Name, addr, addr + uint64(a.Size)})
		addr += uint64(a.Size)
	}
}

// Open opens the index that sections, in their order, make up. All sections
// must agree about it, and every arena of the index must be among those
// given, with the size that the index has noted. Arenas that the index does
// not have are passed over: Append makes them part of it.
func Open(name string, sections []*Section, arenas []Arena) (*Index, error) {
	ix, err := open(name, sections, arenas)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", name, err)
	}
	return ix, nil
}

func open(name string, sections []*Section, arenas []Arena) (*Index, error) {
	t, same, err := readTables(name, sections)
	if err != nil {
		return nil, err
	}
	if !same {
		return nil, errors.New("sections have different lists of arenas: adding one was interrupted; do it again with fmtindex -a")
	}
	sizes := make(map[string]int64)
	for _, a := range arenas {
		if _, twice := sizes[a.Name]; twice {
			return nil, fmt.Errorf("there are two arenas %s", a.Name)
		}
		sizes[a.Name] = a.Size
	}
	for _, a := range t.arenas {
		size, ok := sizes[a.Name]
		if !ok {
			return nil, fmt.Errorf("arena %s is missing", a.Name)
		}
		if size != int64(a.Stop-a.Start) {
			return nil, fmt.Errorf("arena %s has %d bytes, the index says %d", a.Name, size, a.Stop-a.Start)
		}
	}
	return newIndex(t, sections), nil
}

// newIndex returns the index that t describes.
func newIndex(t *table, sections []*Section) *Index {
	buckets := t.sections[len(t.sections)-1].stop
	return &Index{
		Name: t.index, BlockSize: t.blockSize, Sections: sections, Arenas: t.arenas,
		Buckets: buckets, Div: divisor(uint64(buckets)),
	}
}

// heads is how many values the first 32 bits of a score have.
const heads = 1 << 32

// divisor returns how many heads each of n buckets gets, the last maybe
// fewer.
func divisor(n uint64) uint64 { return (heads + n - 1) / n }

// bucketsOf returns how many of total blocks can be buckets: dividing heads by
// a whole number must leave none empty. A bucket gets at least 100 heads.
func bucketsOf(total uint64) uint32 {
	div := max(100, divisor(min(total, heads-1)))
	return uint32((heads-1)/div + 1)
}

// readTables reads the tables of all sections and checks them against the
// sections. Where some list more arenas than others, but the same ones as far
// as both go, same is false and the longest table is returned.
func readTables(name string, sections []*Section) (t *table, same bool, err error) {
	if len(sections) == 0 {
		return nil, false, errors.New("no sections")
	}
	same = true
	for i, s := range sections {
		if s.Index != name {
			if s.Index == "" {
				if t, err := s.readTable(); err == nil && t.index == name {
					return nil, false, fmt.Errorf("section %s: %w", s.Name, ErrUnfinished)
				}
				return nil, false, fmt.Errorf("section %s is part of no index: see fmtindex", s.Name)
			}
			return nil, false, fmt.Errorf("section %s is part of index %s", s.Name, s.Index)
		}
		u, err := s.readTable()
		if err == nil {
			err = u.match(name, sections)
		}
		if err != nil {
			return nil, false, fmt.Errorf("section %s: %w", s.Name, err)
		}
		if i == 0 {
			t = u
			continue
		}
		n := min(len(t.arenas), len(u.arenas))
		for j := range n {
			if t.arenas[j] != u.arenas[j] {
				return nil, false, fmt.Errorf("sections %s and %s disagree about arena %d: %s or %s",
					sections[0].Name, s.Name, j, t.arenas[j].Name, u.arenas[j].Name)
			}
		}
		if len(u.arenas) != len(t.arenas) {
			same = false
		}
		if len(u.arenas) > len(t.arenas) {
			t = u
		}
	}
	return t, same, nil
}

// readTable reads the table of s, which is much shorter than its room.
func (s *Section) readTable() (*table, error) {
	var text []byte
	for size := s.TableSize(); len(text) < size && bytes.IndexByte(text, 0) < 0; {
		n := len(text)
		text = append(text, make([]byte, min(32<<10, size-n))...)
		if err := disk.ReadFull(s.file, text[n:], s.tableBase()+int64(n)); err != nil {
			return nil, fmt.Errorf("read index table: %w", err)
		}
	}
	return unpackTable(text)
}

// match checks t against the sections that it should be about.
func (t *table) match(name string, sections []*Section) error {
	if t.index != name {
		return fmt.Errorf("index table: it is about index %s", t.index)
	}
	if len(t.sections) != len(sections) {
		return fmt.Errorf("index table: it has %d sections, %d are given", len(t.sections), len(sections))
	}
	for i, s := range sections {
		r := t.sections[i]
		if r.name != s.Name || r.start != s.Start || r.stop != s.Stop {
			return fmt.Errorf("index table: section %d is %s with the buckets [%d,%d); given is %s with [%d,%d)",
				i, r.name, r.start, r.stop, s.Name, s.Start, s.Stop)
		}
		if t.blockSize != s.BlockSize {
			return fmt.Errorf("index table: buckets have %d bytes, those of section %s %d", t.blockSize, s.Name, s.BlockSize)
		}
	}
	buckets := uint64(t.sections[len(sections)-1].stop)
	if (heads-1)/divisor(buckets)+1 != buckets {
		return fmt.Errorf("index table: scores cannot be spread over %d buckets", buckets)
	}
	return nil
}

// write makes t the table of all sections and them part of its index.
func (ix *Index) write(t *table) error {
	for _, a := range t.arenas {
		if a.Stop <= a.Start || a.Stop > maxAddr {
			return fmt.Errorf("arena %s has no size, or there is no address left for it", a.Name)
		}
	}
	text := t.pack()
	if _, err := unpackTable(text); err != nil {
		return err // a bad name, or one that is there twice
	}
	for _, s := range ix.Sections {
		if len(text) >= s.TableSize() {
			return fmt.Errorf("section %s: the table needs %d bytes and has %d: there are too many arenas", s.Name, len(text)+1, s.TableSize())
		}
	}
	for i, s := range ix.Sections {
		table := make([]byte, s.TableSize())
		copy(table, text)
		if _, err := s.file.WriteAt(table, s.tableBase()); err != nil {
			return fmt.Errorf("section %s: write table: %w", s.Name, err)
		}
		if err := s.sync(); err != nil {
			return fmt.Errorf("section %s: %w", s.Name, err)
		}
		s.Index, s.Start, s.Stop = t.index, t.sections[i].start, t.sections[i].stop
		if err := s.writeHeader(); err != nil {
			return fmt.Errorf("section %s: %w", s.Name, err)
		}
	}
	return nil
}

// Bucket returns the number of the bucket that a score belongs to.
func (ix *Index) Bucket(score venti.Score) uint32 {
	return uint32(uint64(binary.BigEndian.Uint32(score[:])) / ix.Div)
}

// section returns the section that has the given bucket.
func (ix *Index) section(bucket uint32) *Section {
	i := sort.Search(len(ix.Sections), func(i int) bool { return bucket < ix.Sections[i].Stop })
	return ix.Sections[i]
}

// Lookup finds the entry of the block named (score, t), with one read of the
// disk; and one more for each full bucket, if there is an overflow. buf has room
// for a bucket of ix.BlockSize bytes. An ErrBadBucket means that the index
// cannot tell whether it has the block.
func (ix *Index) Lookup(score venti.Score, t venti.DiskType, buf []byte) (Entry, bool, error) {
	bucket := ix.Bucket(score)
	e, ok, full, err := ix.section(bucket).lookup(bucket, &score, t, buf)
	for _, s := range ix.levels() {
		if ok || !full || err != nil {
			break
		}
		e, ok, full, err = s.lookup(bucket, &score, t, buf)
	}
	return e, ok, err
}

// LookupAddr returns the place in ix.Arenas of the arena that an address is
// in, and the offset from the arena's first clump.
func (ix *Index) LookupAddr(addr uint64) (arena int, offset uint64, ok bool) {
	i := sort.Search(len(ix.Arenas), func(i int) bool { return addr < ix.Arenas[i].Stop })
	if i == len(ix.Arenas) || addr < ix.Arenas[i].Start {
		return 0, 0, false
	}
	return i, addr - ix.Arenas[i].Start, true
}

// Reads returns how many buckets Lookup has read.
func (ix *Index) Reads() int64 {
	var n int64
	for _, list := range [][]*Section{ix.Sections, ix.levels()} {
		for _, s := range list {
			n += s.reads.Load()
		}
	}
	return n
}

// Spilt returns how many entries Update has put into the overflow.
func (ix *Index) Spilt() int64 { return ix.spilt.Load() }

// Written returns how many bytes of buckets Update and Recover have written.
func (ix *Index) Written() int64 {
	var n int64
	for _, list := range [][]*Section{ix.Sections, ix.levels()} {
		for _, s := range list {
			s.mu.RLock()
			n += s.written
			s.mu.RUnlock()
		}
	}
	return n
}
