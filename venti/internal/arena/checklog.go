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
