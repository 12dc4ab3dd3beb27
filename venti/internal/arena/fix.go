package arena

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"strata/internal/disk"
	"strata/venti"
)

// FixOptions say what Fix may suppose and do. The zero value changes nothing
// and tells what is wrong.
type FixOptions struct {
	Write  bool // repair; without it Fix only says what it would do
	Unseal bool // take the seals away, so that arenas are summed again

	// What is used where it cannot be found: the size of a block, of an arena,
	// and the name of an arena without its number. 0 and "" are what the
	// formatter uses.
	BlockSize int
	ArenaSize int64
	Name      string

	// Only, if not nil, says which arenas are looked at, by their number. The
	// table of the partition is made right in any case.
	Only func(i int) bool
}

// Fix makes the structures around the clumps of a partition that nobody uses
// right again, from each other and from the clumps: its header and table from
// the arenas' headers and trailers; an arena's header and trailer from each
// other, the table and the log. It calls report with each thing that it finds.
//
// No clump and no directory entry is touched: what Check finds there is
// Check's to mend. A trailer that was lost counts all clumps in the log and
// none in the index: a server indexes them when it starts, and sums the arena
// once more if it is full, or if the log does not end as a log does: then
// nothing is ever written to it again. What Fix did is on stable storage when it returns
// nil. The error is ErrFormat if nothing is there to go by.
func Fix(ctx context.Context, f disk.File, o FixOptions, report func(*Finding)) error {
	x := &fixer{f: f, o: o, report: report}
	p, err := x.partition(ctx)
	if err != nil {
		return fmt.Errorf("fix arena partition: %w", err)
	}
	for i, e := range p.Arenas {
		if err := ctx.Err(); err != nil {
			return err
		}
		if o.Only != nil && !o.Only(i) {
			continue
		}
		if err := x.arena(ctx, p, i); err != nil {
			return fmt.Errorf("fix arena %s: %w", e.Name, err)
		}
	}
	if o.Write {
		return f.Sync()
	}
	return nil
}

// A fixer is one call of Fix.
type fixer struct {
	f      disk.File
	o      FixOptions
	report func(*Finding)
}

// fault reports a fault of an arena, or of the partition, and that it is
// repaired if anything is written.
func (x *fixer) fault(arena string, err error) {
	x.report(&Finding{Arena: arena, Pos: Pos{Clump: -1}, Err: err, Fault: true, Repaired: x.o.Write})
}

// partition returns the partition as it should be, and writes its header and
// table if they are not.
func (x *fixer) partition(ctx context.Context) (*Partition, error) {
	p, err := OpenPartition(x.f)
	if err == nil {
		return p, nil
	}
	if !errors.Is(err, ErrFormat) {
		return nil, err
	}
	x.fault("partition", err)
	if p, err = x.table(); err == nil && p == nil {
		p, err = x.survey(ctx)
	}
	if err != nil {
		return nil, err
	}
	if !x.o.Write {
		return p, nil
	}
	h := partHeader{p.BlockSize, p.ArenaBase}
	table := make([]byte, p.TableSize())
	if n := copy(table, packTable(p.Arenas)); n == len(table) {
		return nil, fmt.Errorf("table of %d arenas does not fit: %w", len(p.Arenas), ErrFormat)
	}
	if err := p.writeAt(table, h.tableBase()); err != nil {
		return nil, err
	}
	if err := x.f.Sync(); err != nil {
		return nil, err
	}
	var b [partHeaderSize]byte
	h.pack(b[:])
	return p, p.writeAt(b[:], PartBlank)
}

// table returns the partition that a table describes whose header is lost, or
// nil. Where the table is tells the size of blocks.
func (x *fixer) table() (*Partition, error) {
	for bs := minBlockSize; bs <= maxBlockSize; bs *= 2 {
		h := partHeader{blockSize: bs}
		limit := roundDown(x.f.Size(), int64(bs))
		text := make([]byte, max(0, min(defaultTableSize, limit-h.tableBase())))
		if err := disk.ReadFull(x.f, text, h.tableBase()); err != nil {
			return nil, err
		}
		arenas, err := unpackTable(text, bs, h.tableBase()+int64(bs), limit)
		if err == nil && len(arenas) > 0 && arenas[0].Start%int64(bs) == 0 {
			return &Partition{BlockSize: bs, ArenaBase: arenas[0].Start, Arenas: arenas, file: x.f}, nil
		}
	}
	return nil, nil
}

// survey finds the arenas of a partition without its table. They lie one
// behind the other; what is between two is an arena of which neither header
// nor trailer is left.
func (x *fixer) survey(ctx context.Context) (*Partition, error) {
	bs, base, err := x.findFirst(ctx)
	if err != nil {
		return nil, err
	}
	p := &Partition{BlockSize: bs, ArenaBase: base, file: x.f}
	limit := roundDown(x.f.Size(), int64(bs))
	for at := base; at+2*int64(bs) <= limit && limit-at >= minRest/2; {
		e, err := x.extent(ctx, at, bs, limit)
		if err != nil {
			return nil, err
		}
		p.Arenas = append(p.Arenas, e)
		at = e.Stop
	}
	if len(p.Arenas) == 0 {
		return nil, fmt.Errorf("no arena found: %w", ErrFormat)
	}
	// Names come from arenas that have one.
	prefix := x.o.Name
	if prefix == "" {
		prefix = "arena"
		for i, e := range p.Arenas {
			if have, ok := cutNumber(e.Name, i); ok {
				prefix = have
				break
			}
		}
	}
	names := make(map[string]bool)
	for i := range p.Arenas {
		e := &p.Arenas[i]
		if e.Name == "" {
			e.Name = prefix + strconv.Itoa(i)
		}
		if names[e.Name] || !validName(e.Name) {
			return nil, fmt.Errorf("arena %d would be a second %q: %w", i, e.Name, ErrFormat)
		}
		names[e.Name] = true
		x.report(&Finding{Arena: e.Name, Pos: Pos{Clump: -1}, Err: fmt.Errorf("found at [%d,%d)", e.Start, e.Stop)})
	}
	return p, nil
}

// cutNumber takes the number i off the end of a name.
func cutNumber(name string, i int) (string, bool) {
	n := strconv.Itoa(i)
	if len(name) <= len(n) || name[len(name)-len(n):] != n {
		return "", false
	}
	return name[:len(name)-len(n)], true
}

// findFirst returns the size of blocks and where the first arena starts.
func (x *fixer) findFirst(ctx context.Context) (int, int64, error) {
	// The header of the partition may be whole, and only the table lost.
	var b [partHeaderSize]byte
	if x.f.Size() >= PartBlank+partHeaderRoom {
		if err := disk.ReadFull(x.f, b[:], PartBlank); err != nil {
			return 0, 0, err
		}
		if h, err := unpackPartHeader(b[:]); err == nil && h.arenaBase < x.f.Size() {
			return h.blockSize, h.arenaBase, nil
		}
	}
	place := func(bs int) int64 {
		h := partHeader{blockSize: bs}
		return roundUp(h.tableBase()+defaultTableSize, int64(bs))
	}
	for bs := minBlockSize; bs <= maxBlockSize; bs *= 2 {
		if h, err := x.headerAt(place(bs)); err != nil {
			return 0, 0, err
		} else if h != nil && h.blockSize == bs {
			return bs, place(bs), nil
		}
	}
	// Not the formatter's layout, or the first header is lost too. A header
	// further on tells the size of a block at least.
	if bs := x.o.BlockSize; bs != 0 {
		if !validBlockSize(bs) {
			return 0, 0, fmt.Errorf("bad block size %d", bs)
		}
		return bs, place(bs), nil
	}
	at, h, err := x.search(ctx, PartBlank, headerMagic, func(at int64) (*header, error) { return x.headerAt(at) })
	if err != nil {
		return 0, 0, err
	}
	if h == nil {
		return 0, 0, fmt.Errorf("no arena header found: %w", ErrFormat)
	}
	bs := h.blockSize
	if size := x.arenaSize(bs); at >= place(bs)+size && (at-place(bs))%size == 0 {
		return bs, place(bs), nil // whole arenas before it
	}
	return bs, at, nil
}

// arenaSize returns what an arena probably has, in whole blocks.
func (x *fixer) arenaSize(bs int) int64 {
	size := x.o.ArenaSize
	if size == 0 {
		size = DefaultArenaSize
	}
	return roundDown(size, int64(bs))
}

// headerAt returns the arena header at an offset, or nil.
func (x *fixer) headerAt(at int64) (*header, error) {
	var b [headerSize5]byte
	if at+headerSize5 > x.f.Size() {
		return nil, nil
	}
	if err := disk.ReadFull(x.f, b[:], at); err != nil {
		return nil, err
	}
	h, err := unpackHeader(b[:])
	if err != nil || h.size < 2*int64(h.blockSize) || h.size > x.f.Size()-at {
		return nil, nil
	}
	return &h, nil
}

// trailerAt returns the trailer in the block at an offset, or nil.
func (x *fixer) trailerAt(at int64, bs int) (*Trailer, error) {
	if at < 0 || at+int64(bs) > x.f.Size() {
		return nil, nil
	}
	block := make([]byte, bs)
	if err := disk.ReadFull(x.f, block, at); err != nil {
		return nil, err
	}
	t, err := UnpackTrailer(block)
	if err != nil {
		return nil, nil
	}
	return &t, nil
}

// search looks for a structure with a magic at multiples of a sector from an
// offset on; get says whether it is one.
func (x *fixer) search(ctx context.Context, from int64, magic uint32, get func(at int64) (*header, error)) (int64, *header, error) {
	var want [4]byte
	binary.BigEndian.PutUint32(want[:], magic)
	buf := make([]byte, chunkSize)
	for off := roundDown(from, minBlockSize); off < x.f.Size(); off += chunkSize {
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		b := buf[:min(chunkSize, x.f.Size()-off)]
		if err := disk.ReadFull(x.f, b, off); err != nil {
			return 0, nil, err
		}
		for i := 0; i+4 <= len(b); i += minBlockSize {
			if !bytes.Equal(b[i:i+4], want[:]) {
				continue
			}
			if h, err := get(off + int64(i)); h != nil || err != nil {
				return off + int64(i), h, err
			}
		}
	}
	return 0, nil, nil
}

// extent returns the arena that starts at an offset: by its header, or else
// by the next trailer or header, or as long as others are.
func (x *fixer) extent(ctx context.Context, at int64, bs int, limit int64) (Extent, error) {
	h, err := x.headerAt(at)
	if err != nil {
		return Extent{}, err
	}
	if h != nil && h.blockSize == bs {
		return Extent{h.name, at, at + h.size}, nil
	}
	// The common sizes first, so that what looks like a trailer inside a
	// clump is not met.
	size := x.arenaSize(bs)
	for _, stop := range []int64{at + size, limit} {
		if stop > limit {
			continue
		}
		if t, err := x.trailerAt(stop-int64(bs), bs); err != nil {
			return Extent{}, err
		} else if t != nil {
			return Extent{t.Name, at, stop}, nil
		}
	}
	if next, err := x.headerAt(at + size); err != nil {
		return Extent{}, err
	} else if next != nil {
		return Extent{"", at, at + size}, nil
	}
	var found *Trailer
	end, _, err := x.search(ctx, at+int64(bs), trailerMagic, func(off int64) (*header, error) {
		t, err := x.trailerAt(off, bs)
		if found = t; t == nil || (off-at)%int64(bs) != 0 {
			return nil, err
		}
		return &header{}, err
	})
	if err != nil {
		return Extent{}, err
	}
	if found != nil && end > 0 && end+int64(bs) <= limit {
		return Extent{found.Name, at, end + int64(bs)}, nil
	}
	stop := at + size
	if stop > limit || limit-stop < minRest {
		stop = limit
	}
	return Extent{"", at, stop}, nil
}

// arena makes the header and the trailer of arena i right.
func (x *fixer) arena(ctx context.Context, p *Partition, i int) error {
	e := p.Arenas[i]
	h, err := x.headerAt(e.Start)
	if err != nil {
		return err
	}
	a, err := p.OpenArena(i)
	switch {
	case errors.Is(err, ErrFormat):
		x.fault(e.Name, err)
		if a, err = x.trailer(ctx, p, i, h); err != nil || a == nil {
			return err
		}
	case err != nil:
		return err
	}
	if x.o.Unseal {
		if err := x.unseal(a); err != nil {
			return err
		}
	}
	if want := a.header(); h == nil || *h != want {
		x.fault(e.Name, fmt.Errorf("header is damaged: %w", ErrFormat))
		if x.o.Write {
			block := make([]byte, p.BlockSize)
			want.pack(block)
			return p.writeAt(block, e.Start)
		}
	}
	return nil
}

// trailer makes the trailer of arena i from its log. It returns nil if not
// even the magic of its clumps can be told.
func (x *fixer) trailer(ctx context.Context, p *Partition, i int, h *header) (*Arena, error) {
	e := p.Arenas[i]
	a := &Arena{Extent: e, BlockSize: p.BlockSize, file: x.f}
	if h != nil && h.name == e.Name {
		a.Version, a.ClumpMagic = h.version, h.clumpMagic
		if h.version == Version4 {
			a.ClumpMagic = v4ClumpMagic
		}
	} else if err := x.magic(a); err != nil {
		return nil, err
	}
	if a.Version == 0 {
		x.report(&Finding{Arena: e.Name, Pos: Pos{Clump: -1}, Fault: true,
			Err: errors.New("neither header nor trailer is left, and the log does not start with a clump: nothing can be done")})
		return nil, nil
	}
	t := Trailer{Version: a.Version, Name: a.Name, ClumpMagic: a.ClumpMagic}
	end, err := a.Scan(ctx, Pos{}, -1, func(c *Clump) error {
		t.Mem.Add(&c.Header.ClumpInfo)
		if t.CTime == 0 {
			t.CTime = c.Header.Time
		}
		t.WTime = c.Header.Time
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Behind the last clump is a free word. If it is not, there may be clumps
	// behind one that is damaged, and nothing must be written over them.
	t.Mem.Sealed = end.Reason == EndStale || end.Reason == EndTorn
	// The next arena is begun when this one is full.
	if i+1 < len(p.Arenas) && !t.Mem.Sealed {
		if next, err := p.OpenArena(i + 1); err == nil {
			nt, err := next.ReadTrailer()
			t.Mem.Sealed = err == nil && nt.Mem.Clumps > 0
		}
	}
	x.report(&Finding{Arena: e.Name, Pos: Pos{Clump: -1},
		Err: fmt.Errorf("the log has %d clumps in %d bytes, which a server will index again", t.Mem.Clumps, t.Mem.Used)})
	if !x.o.Write {
		return a, nil
	}
	if err := x.infos(ctx, a, &t); err != nil {
		return nil, err
	}
	if err := x.f.Sync(); err != nil {
		return nil, err
	}
	block := make([]byte, p.BlockSize)
	off := e.Stop - int64(p.BlockSize)
	if err := disk.ReadFull(x.f, block, off); err != nil {
		return nil, err
	}
	// A block that was some other thing has no bytes to keep.
	if binary.BigEndian.Uint32(block) != trailerMagic {
		clear(block)
	}
	t.Pack(block)
	return a, p.writeAt(block, off)
}

// infos makes the directory say what the log says, where it does not: the
// trailer that comes counts those entries.
func (x *fixer) infos(ctx context.Context, a *Arena, t *Trailer) error {
	var pending []ClumpInfo
	first := 0
	flush := func() error {
		if len(pending) == 0 {
			return nil
		}
		have := make([]ClumpInfo, len(pending))
		err := a.ReadInfos(have, first)
		for i := range have {
			if err == nil && have[i] != pending[i] {
				err = a.WriteInfos(pending, first)
				break
			}
		}
		first += len(pending)
		pending = pending[:0]
		return err
	}
	_, err := a.Scan(ctx, Pos{}, t.Mem.Used, func(c *Clump) error {
		info := c.Header.ClumpInfo
		pending = append(pending, info)
		if len(pending) == 4096 {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// magic finds the version and clump magic of an arena from its first clump.
func (x *fixer) magic(a *Arena) error {
	var b [4]byte
	if _, err := a.ReadLog(b[:], 0); err != nil && err != io.EOF {
		return err
	}
	a.ClumpMagic = binary.BigEndian.Uint32(b[:])
	if a.ClumpMagic == 0 {
		return nil // empty, or lost
	}
	h, data, err := a.ReadClump(0, make([]byte, ClumpHeaderSize))
	if err == nil {
		_, err = h.Decode(make([]byte, venti.MaxBlockSize), data)
	}
	switch {
	case err != nil && !errors.Is(err, venti.ErrCorrupt):
		return err
	case err != nil:
		return nil
	case a.ClumpMagic == v4ClumpMagic:
		a.Version = Version4
	default:
		a.Version = Version5
	}
	return nil
}

// unseal takes the seal of an arena away; a server sums it again.
func (x *fixer) unseal(a *Arena) error {
	t, err := a.ReadTrailer()
	if err != nil || t.Seal.IsZero() {
		return err
	}
	x.report(&Finding{Arena: a.Name, Pos: Pos{Clump: -1}, Err: errors.New("seal is taken away"), Repaired: x.o.Write})
	if !x.o.Write {
		return nil
	}
	t.Seal = venti.Score{}
	return a.WriteTrailer(&t)
}

// Reseal computes the seal of a sealed arena again and writes it. Unless
// force is set, it first checks that the seal that is there is right, so that
// damage is not sealed in. It returns the seal. The error is venti.ErrCorrupt if
// the arena is damaged. Nobody may use the arena meanwhile.
func (a *Arena) Reseal(ctx context.Context, force bool) (venti.Score, error) {
	t, err := a.ReadTrailer()
	if err != nil {
		return venti.Score{}, err
	}
	if !t.Disk.Sealed {
		return venti.Score{}, a.errorf("not sealed")
	}
	got, err := a.Sum(ctx)
	if err != nil {
		return got, err
	}
	if !force && got != t.Seal {
		return got, a.errorf("its bytes sum to %v and its seal is %v: %w", got, t.Seal, venti.ErrCorrupt)
	}
	t.Seal = got
	if err := a.WriteTrailer(&t); err != nil {
		return got, err
	}
	// Packing may have put bytes in order that the old seal covered.
	if got, err = a.Sum(ctx); err != nil {
		return got, err
	}
	t.Seal = got
	if err := a.WriteTrailer(&t); err != nil {
		return got, err
	}
	if err := a.file.Sync(); err != nil {
		return got, err
	}
	if again, err := a.Sum(ctx); err != nil {
		return got, err
	} else if again != got {
		return got, a.errorf("its bytes sum to %v right after it was sealed with %v: %w", again, got, venti.ErrCorrupt)
	}
	return got, nil
}
