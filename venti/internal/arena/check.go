package arena

import (
	"context"
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

// fault reports a fault of the clump at a place.
func (c *checker) fault(at Pos, repaired bool, err error) {
	c.report(&Finding{Arena: c.Name, Pos: at, Err: err, Fault: true, Repaired: repaired})
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
		sum, err := c.sum(ctx, &t, nil, nil)
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
