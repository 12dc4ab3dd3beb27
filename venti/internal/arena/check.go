package arena

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"strata/venti"
)

// CheckOptions say how thorough a check is. The zero value looks at the
// header, the trailer, the directory's sums and what follows the end of the
// log, and writes nothing.
type CheckOptions struct {
	Data   bool // read every clump, and compute the seal
	Repair bool // mend what can be mended without loss
}

// A Finding is one thing that a check came by.
type Finding struct {
	Arena    string
	Pos            // of the clump, or Clump is -1 where it is about the arena
	Err      error // what it is
	Fault    bool  // false: worth knowing, and as it may be
	Repaired bool  // all is well again
}

// String returns a line such as "arena0: clump=8 failed to read correctly:
// corrupted; ..." for a log.
func (f *Finding) String() string {
	s := f.Arena + ": "
	switch {
	case f.Clump < 0:
		s += f.Err.Error()
	case f.Fault:
		s += fmt.Sprintf("clump=%d at %d failed to read correctly: %v", f.Clump, f.Off, f.Err)
	default:
		s += fmt.Sprintf("clump=%d at %d: %v", f.Clump, f.Off, f.Err)
	}
	if f.Repaired {
		s += " (repaired)"
	}
	return s
}

// Check looks for whatever is not as it should be in an arena that nobody
// writes to, and calls report with each finding. It goes past what is damaged
// to the next clump that is whole. Its error is that of ctx, of a write, or
// of a read without which it cannot go on.
//
// With Repair, nothing is thrown away. What the log proves, by a lump that
// has its score, replaces what contradicts it in a clump's header, the
// directory or the trailer; clumps that the trailer does not count yet are
// counted, and left for a server to index; clumps whose lump is lost are
// marked with type 255. The log is never made shorter. In an arena that has
// its seal only what the seal covered is put back: a trailer that gives
// another seal is not written, and no clump is marked.
func (a *Arena) Check(ctx context.Context, o CheckOptions, report func(*Finding)) error {
	t, err := a.ReadTrailer()
	if err != nil {
		return err
	}
	c := &checker{Arena: a, CheckOptions: o, report: report, t: t, certain: true, w: window{a: a}}
	if err := c.header(); err != nil {
		return err
	}
	end := t.Mem.End()
	if o.Data {
		end, err = c.log(ctx)
	} else {
		err = c.sums()
	}
	if err != nil {
		return err
	}
	if err := c.tail(ctx, end); err != nil {
		return err
	}
	if err := c.trailer(ctx); err != nil {
		return err
	}
	if o.Data {
		if err := c.seal(ctx); err != nil {
			return err
		}
	}
	if o.Repair {
		if err := a.file.Sync(); err != nil {
			return a.errorf("sync: %w", err)
		}
	}
	return nil
}

// A checker is one call of Check.
type checker struct {
	*Arena
	CheckOptions
	report func(*Finding)
	t      Trailer // as it was read
	w      window
	lump   []byte

	// What the log says, if certain: every clump was followed to the next.
	certain bool
	disk    Stats  // up to as many clumps as t.Disk counts
	counted Stats  // up to as many clumps as t.Mem counts
	more    Stats  // from there on
	mem     Stats  // all, up to the end of the log
	created uint32 // time of the first clump, if the trailer has none
	last    uint32 // time of the last clump that was read

	dir   []ClumpInfo // directory entries
	first int         // from this on

	number   map[ClumpInfo]int // of the searchClumps directory entries
	numbered int               // from this on
}

// arenaFault reports a fault of the arena as a whole.
func (c *checker) arenaFault(repaired bool, format string, args ...any) {
	c.report(&Finding{Arena: c.Name, Pos: Pos{Clump: -1}, Err: fmt.Errorf(format, args...), Fault: true, Repaired: repaired})
}

// note reports what is no fault.
func (c *checker) note(at Pos, repaired bool, format string, args ...any) {
	c.report(&Finding{Arena: c.Name, Pos: at, Err: fmt.Errorf(format, args...), Repaired: repaired})
}

// header checks the header block, and repairs it: all it says is known.
func (c *checker) header() error {
	err := c.CheckHeader()
	if err == nil {
		return nil
	}
	repair := c.Repair && errors.Is(err, ErrFormat)
	if repair {
		var b [headerSize5]byte
		h := c.Arena.header()
		h.pack(b[:])
		if _, err := c.file.WriteAt(b[:h.packedSize()], c.Start); err != nil {
			return c.errorf("write header: %w", err)
		}
	}
	c.arenaFault(repair, "%w", err)
	return nil
}

// sums adds up the directory and compares it with the trailer.
func (c *checker) sums() error {
	for i := range int(c.t.Mem.Clumps) {
		if i == int(c.t.Disk.Clumps) {
			c.disk = c.mem
		}
		d, err := c.info(i)
		if err != nil {
			return err
		}
		c.mem.Add(&d)
	}
	if c.t.Mem.Clumps == c.t.Disk.Clumps {
		c.disk = c.mem
	}
	c.disk.Sealed, c.mem.Sealed = c.t.Disk.Sealed, c.t.Mem.Sealed
	if c.disk != c.t.Disk || c.mem != c.t.Mem {
		// Which of the two is right only the log can tell.
		c.certain = false
		c.arenaFault(false, "directory adds up to %v (indexed: %v), trailer has %v (indexed: %v)", c.mem, c.disk, c.t.Mem, c.t.Disk)
	}
	c.disk, c.mem = c.t.Disk, c.t.Mem
	return nil
}

// String returns the counts.
func (s Stats) String() string {
	return fmt.Sprintf("%d clumps, %d compressed, %d bytes in %d", s.Clumps, s.CClumps, s.UncSize, s.Used)
}

// dirChunk is how many directory entries a check has in memory.
const dirChunk = 8192

// info returns the directory's entry i.
func (c *checker) info(i int) (ClumpInfo, error) {
	if i < c.first || i >= c.first+len(c.dir) {
		if c.dir == nil {
			c.dir = make([]ClumpInfo, dirChunk)
		}
		first := i / dirChunk * dirChunk
		c.dir = c.dir[:min(dirChunk, int(c.t.Mem.Clumps)-first)]
		if err := c.ReadInfos(c.dir, first); err != nil {
			return ClumpInfo{}, err
		}
		c.first = first
	}
	return c.dir[i-c.first], nil
}

// setInfo changes the directory's entry i.
func (c *checker) setInfo(i int, d ClumpInfo) error {
	return c.WriteInfos([]ClumpInfo{d}, i)
}

// log goes through all clumps that the trailer counts, each with its
// directory entry, and returns the place after the last.
func (c *checker) log(ctx context.Context) (Pos, error) {
	at := Pos{}
	for c.count(at); at.Clump < int(c.t.Mem.Clumps); c.count(at) {
		if err := ctx.Err(); err != nil {
			return at, err
		}
		d, err := c.info(at.Clump)
		if err != nil {
			return at, err
		}
		h, err := c.examine(at, d)
		if err != nil {
			// The lump is lost: find the next one.
			var next Pos
			if next, err = c.lost(at, d, h, err); err != nil {
				return at, err
			}
			if next == at {
				c.certain = false
				c.arenaFault(false, "log cannot be followed from clump %d at %d to its end, clump %d at %d",
					at.Clump, at.Off, c.t.Mem.Clumps, c.t.Mem.Used)
				return c.t.Mem.End(), nil
			}
			at = next
			continue
		}
		if h.ClumpInfo != d {
			// Lump and score do not tell which of two types is right.
			same := d
			same.Type = h.Type
			repair := c.Repair && c.certain && (same != h.ClumpInfo || !d.Type.Valid())
			if repair {
				if err := c.setInfo(at.Clump, h.ClumpInfo); err != nil {
					return at, err
				}
			}
			c.fault(at, repair, fmt.Errorf("directory has %v, header %v: %w", d, h.ClumpInfo, ErrFormat))
		}
		c.mem.Add(&h.ClumpInfo)
		c.last = max(c.last, h.Time)
		at = Pos{at.Off + h.LogSize(), at.Clump + 1}
	}
	return at, nil
}

// count keeps the statistics of the clumps that are in the index.
func (c *checker) count(at Pos) {
	if at.Clump == int(c.t.Disk.Clumps) {
		c.disk = c.mem
	}
}

func (c *checker) fault(at Pos, repaired bool, err error) {
	c.report(&Finding{Arena: c.Name, Pos: at, Err: err, Fault: true, Repaired: repaired})
}

// examine reads the clump at a place and returns its header if its lump has
// the score that the header names, or is marked as lost. Where the lump has
// the score that the directory names the header is at fault, and examine
// reports and repairs it. Else it returns what the header says, if anything
// (Magic is 0 if not), and why not.
func (c *checker) examine(at Pos, d ClumpInfo) (ClumpHeader, error) {
	h, err := c.try(at, nil)
	if err == nil {
		return h, nil
	}
	marked := h.Magic != 0 && !h.Type.Valid()
	if marked && h.ClumpInfo == d {
		c.note(at, false, "lost, and marked so")
		return h, nil
	}
	// As the directory knows it.
	g, ok, err2 := c.heal(at, d, err)
	if err2 != nil || ok {
		return g, err2
	}
	return h, err
}

// heal tells whether the clump at a place makes its lump under a header with
// info, and if so reports and repairs the header, which was wrong as why
// says, and returns it.
func (c *checker) heal(at Pos, info ClumpInfo, why error) (ClumpHeader, bool, error) {
	h := ClumpHeader{Magic: c.ClumpMagic, ClumpInfo: info, Encoding: Plain}
	if info.Compressed() {
		h.Encoding = Whack
	}
	if _, err := c.try(at, &h); err != nil {
		return h, false, nil
	}
	if c.Repair {
		// Creator and time may be right, and nothing else tells them.
		var b [ClumpHeaderSize]byte
		h.Pack(b[:])
		if err := c.WriteLog(b[:clumpCreatOffset], at.Off); err != nil {
			return h, false, err
		}
	}
	c.fault(at, c.Repair, fmt.Errorf("header is damaged, and the lump whole: %w", why))
	return h, true, nil
}

// try decodes the clump at a place, with the header that is there or, if g
// is not nil, with g. It returns the header, or one with Magic 0 if there is
// none.
func (c *checker) try(at Pos, g *ClumpHeader) (ClumpHeader, error) {
	var h ClumpHeader
	b, err := c.w.bytes(at.Off, ClumpHeaderSize)
	if err != nil {
		return h, err
	}
	if g != nil {
		h = *g
		if len(b) == ClumpHeaderSize {
			// Only to have the sizes checked.
			var p [ClumpHeaderSize]byte
			h.Pack(p[:])
			b = p[:]
		}
	}
	if h, err = UnpackClumpHeader(b, c.ClumpMagic); err != nil {
		return ClumpHeader{}, err
	}
	if b, err = c.w.bytes(at.Off, int(h.LogSize())); err != nil {
		return h, err
	}
	if len(b) < int(h.LogSize()) {
		return h, fmt.Errorf("clump reaches past the end: %w", venti.ErrCorrupt)
	}
	if c.lump == nil {
		c.lump = make([]byte, venti.MaxBlockSize)
	}
	_, err = h.Decode(c.lump, b[ClumpHeaderSize:])
	return h, err
}

// lost reports a clump whose lump is lost, and returns the place of the next
// clump, or the same place if there is none. h is the header that was found
// there, with Magic 0 if none was.
func (c *checker) lost(at Pos, d ClumpInfo, h ClumpHeader, why error) (Pos, error) {
	// Its length is what the directory or the header says, or where the next
	// clump begins.
	info := d
	next := Pos{at.Off + d.LogSize(), at.Clump + 1}
	ok := c.follows(next)
	if !ok && h.Magic != 0 && h.Size != d.Size {
		info = h.ClumpInfo
		next.Off = at.Off + h.LogSize()
		ok = c.follows(next)
	}
	if !ok {
		var err error
		if next, err = c.search(at); err != nil {
			return at, err
		}
		size := next.Off - at.Off - ClumpHeaderSize
		ok = next.Clump == at.Clump+1 && 0 < size && size <= venti.MaxBlockSize
		info = ClumpInfo{Size: uint16(size), UncSize: uint16(size), Score: d.Score}
	}
	if !ok {
		if next != at {
			// More clumps than one are gone, and how long each was is not known.
			c.certain = false
			why = fmt.Errorf("all up to clump %d at %d: %w", next.Clump, next.Off, why)
		}
		c.fault(at, false, why)
		return next, nil
	}
	// A read that failed may succeed some day, an unknown encoding may be known
	// to another program, and a seal vouches for what it covers.
	mark := c.Repair && c.certain && c.t.Seal.IsZero() && (errors.Is(why, venti.ErrCorrupt) || errors.Is(why, ErrFormat))
	if mark {
		if err := c.mark(at, info, h); err != nil {
			return at, err
		}
		why = fmt.Errorf("%w; marked corrupt", why)
	}
	c.fault(at, false, why)
	c.mem.Add(&info)
	return next, nil
}

// mark makes the clump at a place, which info gives the length of, one that
// is marked corrupt. h is its header as it is.
func (c *checker) mark(at Pos, info ClumpInfo, h ClumpHeader) error {
	if h.Magic == 0 || h.ClumpInfo != info {
		h = ClumpHeader{Magic: c.ClumpMagic, ClumpInfo: info, Encoding: Plain, Time: c.last}
		if info.Compressed() {
			h.Encoding = Whack
		}
	}
	h.Type = venti.DiskCorrupt
	var b [ClumpHeaderSize]byte
	h.Pack(b[:])
	if err := c.WriteLog(b[:], at.Off); err != nil {
		return err
	}
	return c.setInfo(at.Clump, h.ClumpInfo)
}

// follows tells whether a clump, or the end of the log, is at a place.
func (c *checker) follows(at Pos) bool {
	if at.Off >= c.t.Mem.Used || at.Clump >= int(c.t.Mem.Clumps) {
		return at == c.t.Mem.End()
	}
	h, err := c.try(at, nil)
	if err == nil {
		return true
	}
	// Another that is lost: it has to be as long as the directory says.
	d, err := c.info(at.Clump)
	return err == nil && h.Magic != 0 && h.Size == d.Size && h.UncSize == d.UncSize
}

// searchClumps is how many clumps' directory entries a search looks for.
const searchClumps = 4096

// expect makes number hold the directory's entries from clump first on, at
// least half of searchClumps if there are as many.
func (c *checker) expect(first int) error {
	if c.number != nil && first >= c.numbered && (c.numbered+searchClumps-first > searchClumps/2 ||
		c.numbered+searchClumps >= int(c.t.Mem.Clumps)) {
		return nil
	}
	infos := make([]ClumpInfo, max(0, min(searchClumps, int(c.t.Mem.Clumps)-first)))
	if err := c.ReadInfos(infos, first); err != nil {
		return err
	}
	c.number = make(map[ClumpInfo]int, len(infos))
	for i, d := range slices.Backward(infos) {
		c.number[d] = first + i
	}
	c.numbered = first
	return nil
}

// search looks for a whole clump behind a place, and returns its place, or
// the same place if it finds none that the directory has among the next.
func (c *checker) search(at Pos) (Pos, error) {
	if err := c.expect(at.Clump + 1); err != nil {
		return at, err
	}
	magic := binary.BigEndian.AppendUint32(nil, c.ClumpMagic)
	for off := at.Off + 1; off < c.t.Mem.Used; {
		b, err := c.w.bytes(off, chunkSize)
		if err != nil {
			return at, nil // what is behind cannot be read either
		}
		i := bytes.Index(b, magic)
		if i < 0 {
			if len(b) < len(magic) {
				break
			}
			off += int64(len(b) - len(magic) + 1)
			continue
		}
		off += int64(i)
		if len(b)-i >= ClumpHeaderSize {
			if n, ok := c.number[unpackClumpInfo(b[i+clumpInfoOffset:])]; ok && n > at.Clump {
				if _, err := c.try(Pos{off, n}, nil); err == nil {
					return Pos{off, n}, nil
				}
			}
		} else if len(b) < chunkSize {
			break
		}
		off++
	}
	return at, nil
}

// tail looks for clumps behind the end of the log.
func (c *checker) tail(ctx context.Context, from Pos) error {
	c.counted = c.mem
	var (
		more  Stats
		infos []ClumpInfo // not yet compared with the directory
		same  = true      // the directory has them
	)
	flush := func() error {
		if !c.certain || len(infos) == 0 {
			return nil
		}
		first := from.Clump + int(more.Clumps) - len(infos)
		dir := make([]ClumpInfo, len(infos))
		if err := c.ReadInfos(dir, first); err != nil {
			return err
		}
		if !slices.Equal(infos, dir) {
			same = false
			if c.Repair && c.t.Seal.IsZero() {
				if err := c.WriteInfos(infos, first); err != nil {
					return err
				}
			}
		}
		infos = infos[:0]
		return nil
	}
	end, err := c.Scan(ctx, from, -1, func(cl *Clump) error {
		if c.t.CTime == 0 && more.Clumps == 0 {
			c.created = cl.Header.Time
		}
		c.last = max(c.last, cl.Header.Time)
		switch {
		case errors.Is(cl.Err, ErrEncoding):
			_, ok, err := c.heal(cl.Pos, cl.Header.ClumpInfo, cl.Err)
			if err != nil {
				return err
			}
			if !ok {
				c.fault(cl.Pos, false, cl.Err)
			}
		case cl.Err != nil:
			mark := c.Repair && c.certain && c.t.Seal.IsZero() && cl.Header.Type.Valid()
			if mark {
				if err := c.MarkCorrupt(cl.Off); err != nil {
					return err
				}
				cl.Header.Type = venti.DiskCorrupt
				cl.Err = fmt.Errorf("%w; marked corrupt", cl.Err)
			}
			c.fault(cl.Pos, false, cl.Err)
		}
		more.Add(&cl.Header.ClumpInfo)
		infos = append(infos, cl.Header.ClumpInfo)
		if len(infos) == dirChunk {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	if end.Reason == EndTorn && !c.t.Mem.Sealed {
		c.note(end.Pos, false, "not written whole; a server writes over it")
	}
	c.more = more
	if same || c.t.Seal.IsZero() {
		c.mem.Clumps += more.Clumps
		c.mem.CClumps += more.CClumps
		c.mem.Used += more.Used
		c.mem.UncSize += more.UncSize
	}
	return nil
}

// trailer compares the trailer with the log, and makes it say how far the
// log goes.
func (c *checker) trailer(ctx context.Context) error {
	if !c.certain {
		c.reportMore(false)
		return nil
	}
	t := c.t
	c.disk.Sealed, c.counted.Sealed, c.mem.Sealed = t.Disk.Sealed, t.Mem.Sealed, t.Mem.Sealed
	t.Mem = c.mem
	wrong := c.counted != c.t.Mem || c.disk != c.t.Disk
	switch {
	case t.Disk.Sealed:
		t.Disk = t.Mem
	case c.disk != c.t.Disk:
		t.Disk = Stats{} // a server puts all of it in the index again
	}
	if t == c.t {
		c.reportMore(false)
		return nil
	}
	t.WTime = max(t.WTime, c.last)
	if t.CTime == 0 {
		t.CTime = c.created
	}
	repair := c.Repair
	switch {
	case !repair:
	case !t.Seal.IsZero():
		t.WTime = c.t.WTime
		sum, err := c.sum(ctx, &t)
		if err != nil {
			return err
		}
		repair = sum == t.Seal
	default:
		repair = t.Mem.Used >= c.t.Mem.Used && t.Mem.Clumps >= c.t.Mem.Clumps
	}
	if repair {
		// The directory goes to the disk before the trailer that counts it.
		if err := c.file.Sync(); err != nil {
			return c.errorf("sync: %w", err)
		}
		if err := c.WriteTrailer(&t); err != nil {
			return err
		}
	}
	c.reportMore(repair)
	if wrong {
		c.arenaFault(repair, "trailer has %v (indexed: %v), log has %v (indexed: %v): %w", c.t.Mem, c.t.Disk, c.counted, c.disk, ErrFormat)
	}
	return nil
}

// reportMore reports the clumps behind the end of the log.
func (c *checker) reportMore(repaired bool) {
	switch {
	case c.more.Clumps == 0:
	case !c.certain || c.t.Mem.Sealed:
		// The trailer is damaged, or was cut short by a repair of plan9port's.
		c.arenaFault(repaired, "%v follow the end of the log", c.more)
	default:
		c.note(Pos{Clump: -1}, repaired, "%v are not in the trailer; a server counts them when it starts", c.more)
	}
}

// seal computes the seal and compares it with the trailer's.
func (c *checker) seal(ctx context.Context) error {
	if !c.t.Disk.Sealed {
		return nil
	}
	if c.t.Seal.IsZero() {
		c.note(Pos{Clump: -1}, false, "sealed, and without its seal; a server computes it")
		return nil
	}
	sum, err := c.Sum(ctx)
	if err != nil {
		return err
	}
	if sum != c.t.Seal {
		c.arenaFault(false, "mismatch checksum - found=%v calculated=%v: %w", c.t.Seal, sum, venti.ErrCorrupt)
	}
	return nil
}
