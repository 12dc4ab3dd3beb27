package guard

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"

	"strata/internal/disk"
	"strata/venti"
)

// An Arena is what guards know of an arena.
type Arena struct {
	Name       string
	ClumpMagic uint32
	Size       int64 // bytes of log
}

func (a *Arena) extents() int64 { return (a.Size + extentSize - 1) / extentSize }

// Size returns how long a file of guards for these arenas is, in bytes.
func Size(arenas []Arena) int64 {
	n := int64(headerSize)
	for i := range arenas {
		n += arenas[i].extents() * extentRoom
	}
	return n
}

// Bounds of what is in memory, in bytes.
const (
	writeAt    = 256 << 10 // of guards that are not written: Full
	maxPending = 64 << 20  // of those that cannot be: then they are dropped
)

// A File is an open file of guards. Its methods may be called at once.
type File struct {
	f      disk.File
	arenas []arena // immutable, but for what mu guards

	writing sync.Mutex // held through writes, which only those who write wait for; before mu

	mu      sync.Mutex // guards the fields below, and of the arenas
	pending int        // bytes that are not written
	dropped bool       // guards were dropped, and no more are taken
}

type arena struct {
	seed    uint32
	base    int64 // of its first extent in the file
	extents int

	// Guarded by File.mu:
	cur int             // the extent that is added to; it is in mem
	mem map[int]*extent // those that are not written whole
}

// An extent is the guards of one, in memory.
type extent struct {
	records []byte // packed, whole
	written int    // bytes of them that are in the file
}

// Open opens the guards in f for these arenas, in the order of the index. A
// file of zeros becomes one without guards. The error is ErrFormat if f is
// something else, or too short.
//
// No arena takes guards before Resume.
func Open(f disk.File, arenas []Arena) (*File, error) {
	if size := Size(arenas); f.Size() < size {
		return nil, fmt.Errorf("guards: file has %d bytes, fewer than the %d that these arenas take: %w", f.Size(), size, ErrFormat)
	}
	var b [packedBytes]byte
	if err := disk.ReadFull(f, b[:], 0); err != nil {
		return nil, fmt.Errorf("guards: %w", err)
	}
	blank, err := unpackHeader(b[:])
	if err != nil {
		return nil, err
	}
	if blank {
		packHeader(b[:])
		if _, err := f.WriteAt(b[:], 0); err != nil {
			return nil, fmt.Errorf("guards: %w", err)
		}
	}
	g := &File{f: f}
	base := int64(headerSize)
	for i := range arenas {
		n := arenas[i].extents()
		g.arenas = append(g.arenas, arena{
			seed: seedOf(arenas[i].Name, arenas[i].ClumpMagic), base: base, extents: int(n),
			cur: -1, mem: make(map[int]*extent),
		})
		base += n * extentRoom
	}
	return g, nil
}

// Resume drops the guards of an arena's clumps from offset off on, and takes
// those that follow. A read that fails costs the guards of an extent.
func (g *File) Resume(i int, off int64) error {
	a := &g.arenas[i]
	n := int(off / extentSize)
	if n >= a.extents {
		return nil
	}
	e := new(extent)
	var err error
	if off%extentSize != 0 {
		err = g.scan(a, n, func(b []byte) bool {
			if recordOff(b) > uint32(off%extentSize) {
				return false
			}
			e.records = append(e.records, b...)
			return true
		})
		if err != nil {
			e.records = nil
		}
	}
	e.written = len(e.records)
	g.mu.Lock()
	a.cur, a.mem[n] = n, e
	g.mu.Unlock()
	return err
}

// Add adds the guard of a clump that is appended to an arena at off. It waits
// for nothing.
func (g *File) Add(i int, off int64, score venti.Score, sum Sum) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := &g.arenas[i]
	if g.dropped || a.cur < 0 {
		return
	}
	n := int(off / extentSize)
	e := a.mem[n]
	if e == nil {
		e = new(extent)
		a.mem[n] = e
	}
	if n != a.cur {
		a.letGo(a.cur)
		a.cur = n
	}
	var b [recordSize]byte
	packRecord(b[:], a.seed, n, off, score, &sum)
	e.records = append(e.records, b[:]...)
	g.pending += recordSize
}

// letGo forgets an extent that is not added to if all of it is in the file.
func (a *arena) letGo(n int) {
	if e := a.mem[n]; e != nil && e.written == len(e.records) {
		delete(a.mem, n)
	}
}

// Full tells whether there is enough in memory that Write is worth its while.
func (g *File) Full() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pending >= writeAt
}

// Find returns the guard of the clump with this score at off of an arena, and
// whether there is one.
func (g *File) Find(i int, off int64, score venti.Score) (Sum, bool, error) {
	a := &g.arenas[i]
	n, want := int(off/extentSize), uint32(off%extentSize)+1
	g.mu.Lock()
	if e := a.mem[n]; e != nil {
		defer g.mu.Unlock()
		k := sort.Search(len(e.records)/recordSize, func(k int) bool { return recordOff(e.records[k*recordSize:]) >= want }) * recordSize
		if k == len(e.records) || recordOff(e.records[k:]) != want {
			return Sum{}, false, nil
		}
		sum, ok := unpackRecord(e.records[k:], a.seed, n, score)
		return sum, ok, nil
	}
	g.mu.Unlock()
	var sum Sum
	var ok bool
	err := g.scan(a, n, func(b []byte) bool {
		if recordOff(b) == want {
			sum, ok = unpackRecord(b, a.seed, n, score)
		}
		return recordOff(b) < want
	})
	return sum, ok, err
}

// scan calls fn with the records of an extent in the file, in order, until it
// returns false.
func (g *File) scan(a *arena, n int, fn func(b []byte) bool) error {
	const piece = 400 * recordSize
	buf := make([]byte, piece)
	last := uint32(0)
	for off := 0; off < maxRecords*recordSize; off += piece {
		b := buf[:min(piece, maxRecords*recordSize-off)]
		if err := disk.ReadFull(g.f, b, a.base+int64(n)*extentRoom+int64(off)); err != nil {
			return fmt.Errorf("guards: %w", err)
		}
		for ; len(b) > 0; b = b[recordSize:] {
			if at := recordOff(b); at <= last || at > extentSize {
				return nil
			} else if last = at; !fn(b[:recordSize]) {
				return nil
			}
		}
	}
	return nil
}

// A Guard is one for Rebuild.
type Guard struct {
	Off   int64 // of the clump in the log of its arena
	Score venti.Score
	Sum   Sum
}

// Extent returns in which extent of its arena an offset lies. Rebuild works on
// one at a time.
func Extent(off int64) int64 { return off / extentSize }

// Complete tells whether there are these guards, which are of one extent and in
// log order.
func (g *File) Complete(i int, list []Guard) (bool, error) {
	if len(list) == 0 {
		return true, nil
	}
	a := &g.arenas[i]
	n := int(Extent(list[0].Off))
	var want [recordSize]byte
	next := func(b []byte) bool { // whether to go on
		if off := int64(recordOff(b)) - 1; off < list[0].Off%extentSize {
			return true
		}
		packRecord(want[:], a.seed, n, list[0].Off, list[0].Score, &list[0].Sum)
		if string(b) != string(want[:]) {
			return false
		}
		list = list[1:]
		return len(list) > 0
	}
	g.mu.Lock()
	if e := a.mem[n]; e != nil {
		defer g.mu.Unlock()
		for b := e.records; len(b) > 0 && next(b[:recordSize]); b = b[recordSize:] {
		}
		return len(list) == 0, nil
	}
	g.mu.Unlock()
	err := g.scan(a, n, next)
	return len(list) == 0, err
}

// Rebuild makes the guards of an extent, in log order, what it is given; those
// that are in memory and not among them stay. The caller goes without the
// guards of an extent that are in the file and not among them.
func (g *File) Rebuild(i int, list []Guard) {
	if len(list) == 0 {
		return
	}
	a := &g.arenas[i]
	n := int(Extent(list[0].Off))
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dropped {
		return
	}
	made := make([]byte, 0, len(list)*recordSize)
	e := a.mem[n]
	var have []byte
	if e != nil {
		have = e.records
		g.pending -= len(e.records) - e.written
	}
	for k := range list {
		at := uint32(list[k].Off%extentSize) + 1
		for len(have) > 0 && recordOff(have) <= at {
			if recordOff(have) < at {
				made = append(made, have[:recordSize]...)
			}
			have = have[recordSize:]
		}
		made = append(made, make([]byte, recordSize)...)
		packRecord(made[len(made)-recordSize:], a.seed, n, list[k].Off, list[k].Score, &list[k].Sum)
	}
	made = append(made, have...)
	// A write that is under way goes on with the old extent, and is done again.
	a.mem[n] = &extent{records: made}
	g.pending += len(made)
}

// Write writes what is in memory. After an error it may be tried again; when
// too much has gathered that cannot be written, it is dropped, and the error is
// ErrDropped, once.
func (g *File) Write() error {
	g.writing.Lock()
	defer g.writing.Unlock()
	return g.write()
}

// ErrDropped tells that no more guards are kept, because they could not be
// written for long.
var ErrDropped = errors.New("no more guards are written")

func (g *File) write() error {
	type piece struct {
		a       *arena
		n       int
		e       *extent
		records []byte
		from    int
	}
	var list []piece
	g.mu.Lock()
	for i := range g.arenas {
		a := &g.arenas[i]
		for n, e := range a.mem {
			if e.written < len(e.records) {
				list = append(list, piece{a, n, e, e.records[:len(e.records):len(e.records)], e.written})
			}
		}
	}
	g.mu.Unlock()
	slices.SortFunc(list, func(x, y piece) int {
		return cmp.Compare(x.a.base+int64(x.n)*extentRoom, y.a.base+int64(y.n)*extentRoom)
	})
	for _, p := range list {
		b := append(slices.Clone(p.records[p.from:]), make([]byte, recordSize)...)
		if _, err := g.f.WriteAt(b, p.a.base+int64(p.n)*extentRoom+int64(p.from)); err != nil {
			err = fmt.Errorf("guards: %w", err)
			if g.drop() {
				err = fmt.Errorf("%w: %w", ErrDropped, err)
			}
			return err
		}
		g.mu.Lock()
		if p.a.mem[p.n] == p.e {
			p.e.written = len(p.records)
			g.pending -= len(p.records) - p.from
			if p.n != p.a.cur {
				p.a.letGo(p.n)
			}
		}
		g.mu.Unlock()
	}
	return nil
}

// drop drops what is in memory if that is too much.
func (g *File) drop() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dropped || g.pending < maxPending {
		return false
	}
	g.dropped, g.pending = true, 0
	for i := range g.arenas {
		clear(g.arenas[i].mem)
	}
	return true
}

// Sync makes all guards durable that were added before.
func (g *File) Sync() error {
	g.writing.Lock()
	defer g.writing.Unlock()
	if err := g.write(); err != nil {
		return err
	}
	if err := g.f.Sync(); err != nil {
		return fmt.Errorf("guards: %w", err)
	}
	return nil
}
