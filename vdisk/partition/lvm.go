package partition

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// A physical volume of LVM2 has a label in one of its first four sectors:
//
//	0x00 magic[8] "LABELONE"  0x08 sector[8]  0x10 checksum[4]
//	0x14 header[4]            0x18 type[8] "LVM2 001"
//
// where checksum is of what follows it, to the end of the sector. At header,
// counted from the label, there is
//
//	uuid[32] size[8]
//
// then the data areas, offset[8] size[8], ended by zeros, the metadata areas in
// the same way, and version[4] flags[4] of an extension. A metadata area
// begins with
//
//	0x00 checksum[4] 0x04 magic[16] 0x14 version[4] 0x18 start[8] 0x20 size[8]
//
// in a sector, and with up to four places of text in it:
//
//	0x28 offset[8] size[8] checksum[4] flags[4]
//
// The first is what holds, the second what is being agreed upon. A text goes on
// behind the area's first sector where it reaches its end. Integers are
// little-endian.
const (
	lvmSector   = 512
	labelMagic  = "LABELONE"
	labelType   = "LVM2 001"
	labelCRC    = 0x14
	pvHeader    = 0x20
	pvAreas     = pvHeader + 40
	mdaMagic    = " LVM2 x[5A%r0N*>"
	mdaPlaces   = 0x28
	mdaPlace    = 24
	mdaIgnored  = 1 << 0
	pvInUse     = 1 << 0
	maxMetadata = 16 << 20

	// MaxPieces is the most pieces that a physical volume is cut into.
	MaxPieces = 128
)

// A PhysicalVolume is what LVM2 has made of a region.
type PhysicalVolume struct {
	UUID    string
	Group   string
	Volumes []LogicalVolume
	Pieces  []Piece // by place, from 0 to the end of the region, without gaps
}

// A LogicalVolume is one whose pieces lie one after the other.
type LogicalVolume struct {
	Name   string
	UUID   string
	Length int64 // bytes
	Here   bool  // all of it is on this physical volume
}

// A Piece is a run of bytes of a physical volume.
type Piece struct {
	Start, Length int64
	Volume        int   // index of the logical volume that has it, or -1
	Offset        int64 // in the logical volume
	Free          bool  // no logical volume has it, and it is not LVM's own
}

// lvmSum is the checksum of LVM: that of IEEE with another beginning, and
// without an end.
func lvmSum(b []byte) uint32 { return ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, b) }

// ReadLVM reads a physical volume of size bytes. It returns nil, nil for what
// is none. The error is that of reading, or, as fsys.Uncertain says, why the
// volume cannot be cut: whatever is not linear, or not known, is left as it is.
func ReadLVM(r io.ReaderAt, size int64) (*PhysicalVolume, error) {
	var label []byte
	b := make([]byte, lvmSector)
	for i := int64(0); i < 4 && (i+1)*lvmSector <= size; i++ {
		if err := disk.ReadFull(r, b, i*lvmSector); err != nil {
			return nil, err
		}
		if string(b[:8]) != labelMagic || string(b[0x18:0x20]) != labelType {
			continue
		}
		if label != nil {
			return nil, fsys.Uncertain("it has two labels of LVM")
		}
		label = bytes.Clone(b)
		if binary.LittleEndian.Uint64(b[8:]) != uint64(i) || binary.LittleEndian.Uint32(b[0x10:]) != lvmSum(b[labelCRC:]) ||
			binary.LittleEndian.Uint32(b[0x14:]) != pvHeader {
			return nil, fsys.Uncertain("bad label of LVM")
		}
	}
	if label == nil {
		return nil, nil
	}
	l := &lvm{r: r, size: size, uuid: string(label[pvHeader : pvHeader+32])}
	metadata, err := l.readHeader(label)
	if err != nil {
		return nil, err
	}
	group, err := parseLVM(metadata)
	if err != nil {
		return nil, err
	}
	return l.cut(group)
}

// lvm is a physical volume that is being read.
type lvm struct {
	r    io.ReaderAt
	size int64
	uuid string // 32 letters
	data int64  // where the extents begin
}

// readHeader returns the text of the metadata.
func (l *lvm) readHeader(label []byte) ([]byte, error) {
	b := label[pvAreas:]
	if n := binary.LittleEndian.Uint64(label[pvAreas-8:]); n > uint64(l.size) {
		return nil, fsys.Uncertain("the physical volume is of %d bytes, its region of %d", n, l.size)
	}
	areas := func() (list [][2]uint64, ok bool) {
		for len(b) >= 16 {
			off, n := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
			b = b[16:]
			if off == 0 {
				return list, true
			}
			list = append(list, [2]uint64{off, n})
		}
		return nil, false
	}
	data, ok1 := areas()
	meta, ok2 := areas()
	switch {
	case !ok1 || !ok2 || len(data) != 1 || len(meta) == 0 || len(meta) > 2 || data[0][0] >= uint64(l.size):
		return nil, fsys.Uncertain("the physical volume has %d areas of data and %d of metadata", len(data), len(meta))
	case len(b) >= 8 && binary.LittleEndian.Uint32(b) > 0 && binary.LittleEndian.Uint32(b[4:])&^pvInUse != 0:
		return nil, fsys.Uncertain("unknown flags %#x of a physical volume", binary.LittleEndian.Uint32(b[4:]))
	}
	l.data = int64(data[0][0])
	var text []byte
	for i, m := range meta {
		t, err := l.readMetadata(m[0], m[1])
		if err != nil {
			return nil, err
		}
		if i > 0 && !bytes.Equal(t, text) {
			return nil, fsys.Uncertain("the metadata of the physical volume differ")
		}
		text = t
	}
	return text, nil
}

// readMetadata returns the text in a metadata area.
func (l *lvm) readMetadata(off, n uint64) ([]byte, error) {
	if n < 2*lvmSector || n > uint64(l.size) || off > uint64(l.size)-n {
		return nil, fsys.Uncertain("metadata of %d bytes at %d", n, off)
	}
	b := make([]byte, lvmSector)
	if err := disk.ReadFull(l.r, b, int64(off)); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if le.Uint32(b) != lvmSum(b[4:]) || string(b[4:20]) != mdaMagic || le.Uint32(b[0x14:]) != 1 || le.Uint64(b[0x18:]) != off || le.Uint64(b[0x20:]) != n {
		return nil, fsys.Uncertain("bad header of the metadata at %d", off)
	}
	place := b[mdaPlaces:]
	at, length, sum, flags := le.Uint64(place), le.Uint64(place[8:]), le.Uint32(place[16:]), le.Uint32(place[20:])
	switch {
	case le.Uint64(place[mdaPlace+8:]) != 0:
		return nil, fsys.Uncertain("the metadata at %d are being changed", off)
	case flags != 0:
		return nil, fsys.Uncertain("the metadata at %d are not kept up to date", off)
	case at == 0 || length == 0:
		return nil, fsys.Uncertain("the physical volume is in no group")
	case at < lvmSector || at >= n || length > n-lvmSector || length > maxMetadata:
		return nil, fsys.Uncertain("metadata of %d bytes at %d+%d", length, off, at)
	}
	text := make([]byte, length)
	first := min(length, n-at)
	if err := disk.ReadFull(l.r, text[:first], int64(off+at)); err != nil {
		return nil, err
	}
	if err := disk.ReadFull(l.r, text[first:], int64(off+lvmSector)); err != nil {
		return nil, err
	}
	if lvmSum(text) != sum {
		return nil, fsys.Uncertain("bad checksum of the metadata at %d", off)
	}
	return bytes.TrimRight(text, "\x00"), nil
}

// cut makes pieces of what the metadata say.
func (l *lvm) cut(root *section) (*PhysicalVolume, error) {
	if root.text("contents") != "Text Format Volume Group" || root.number("version") != 1 || len(root.sections) != 1 {
		return nil, fsys.Uncertain("unknown kind of metadata of a physical volume")
	}
	group := root.sections[0]
	if group.text("format") != "lvm2" {
		return nil, fsys.Uncertain("unknown format %q of a volume group", group.text("format"))
	}
	pv := &PhysicalVolume{UUID: dashed(l.uuid), Group: group.name}
	extent := group.number("extent_size") * lvmSector
	if extent < lvmSector || extent > 1<<40 {
		return nil, fsys.Uncertain("extents of %d bytes", extent)
	}
	var own string
	var extents int64
	for _, s := range group.sections {
		switch s.name {
		case "physical_volumes":
			for _, p := range s.sections {
				if strings.ReplaceAll(p.text("id"), "-", "") != l.uuid {
					continue
				}
				own, extents = p.name, p.number("pe_count")
				if p.number("pe_start")*lvmSector != l.data {
					return nil, fsys.Uncertain("the extents begin at %d, and at sector %d", l.data, p.number("pe_start"))
				}
			}
		case "logical_volumes", "historical_logical_volumes":
		default:
			return nil, fsys.Uncertain("unknown %s of a volume group", s.name)
		}
	}
	if own == "" || extents < 0 || extents > (l.size-l.data)/extent {
		return nil, fsys.Uncertain("the physical volume has %d extents of %d bytes", extents, extent)
	}
	var used []Piece
	for _, s := range group.sections {
		if s.name != "logical_volumes" {
			continue
		}
		for _, lv := range s.sections {
			pieces, err := pv.volume(lv, own, extent, extents)
			if err != nil {
				return nil, err
			}
			used = append(used, pieces...)
		}
	}
	return pv, l.fill(pv, used, extents*extent)
}

// volume adds a logical volume, and returns the pieces of it that are here,
// counted from the first extent.
func (pv *PhysicalVolume) volume(lv *section, own string, extent, extents int64) ([]Piece, error) {
	index := len(pv.Volumes)
	v := LogicalVolume{Name: lv.name, UUID: lv.text("id"), Here: true}
	segments := slices.Clone(lv.sections)
	slices.SortStableFunc(segments, func(a, b *section) int { return cmp.Compare(a.number("start_extent"), b.number("start_extent")) })
	if int64(len(segments)) != lv.number("segment_count") {
		return nil, fsys.Uncertain("logical volume %s has %d segments", lv.name, len(segments))
	}
	var pieces []Piece
	next := int64(0)
	for _, s := range segments {
		if kind := s.text("type"); kind != "striped" && kind != "linear" || s.number("stripe_count") != 1 {
			return nil, fsys.Uncertain("logical volume %s is not linear, but %s of %d stripes", lv.name, kind, s.number("stripe_count"))
		}
		name, at, ok := s.stripe()
		n := s.number("extent_count")
		if !ok || s.number("start_extent") != next || n <= 0 || n > 1<<32 || len(s.sections) > 0 {
			return nil, fsys.Uncertain("logical volume %s is not in order at extent %d", lv.name, next)
		}
		if name != own {
			v.Here = false
		} else if at < 0 || at > extents || n > extents-at {
			return nil, fsys.Uncertain("logical volume %s has extents %d+%d of %d", lv.name, at, n, extents)
		} else {
			pieces = append(pieces, Piece{Start: at * extent, Length: n * extent, Volume: index, Offset: next * extent})
		}
		next += n
		if next > (1<<62)/extent {
			return nil, fsys.Uncertain("logical volume %s has %d extents", lv.name, next)
		}
	}
	v.Length = next * extent
	pv.Volumes = append(pv.Volumes, v)
	return pieces, nil
}

// fill sets the pieces of pv: used ones, and what is around them. data is the
// length of all extents.
func (l *lvm) fill(pv *PhysicalVolume, used []Piece, data int64) error {
	slices.SortFunc(used, func(a, b Piece) int { return cmp.Compare(a.Start, b.Start) })
	pv.Pieces = append(pv.Pieces, Piece{Length: l.data, Volume: -1})
	end := int64(0)
	for _, p := range used {
		if p.Start < end {
			return fsys.Uncertain("logical volume %s has what another has", pv.Volumes[p.Volume].Name)
		}
		if p.Start > end {
			pv.Pieces = append(pv.Pieces, Piece{Start: l.data + end, Length: p.Start - end, Volume: -1, Free: true})
		}
		end = p.Start + p.Length
		p.Start += l.data
		pv.Pieces = append(pv.Pieces, p)
	}
	if end < data {
		pv.Pieces = append(pv.Pieces, Piece{Start: l.data + end, Length: data - end, Volume: -1, Free: true})
	}
	if rest := l.size - l.data - data; rest > 0 {
		pv.Pieces = append(pv.Pieces, Piece{Start: l.data + data, Length: rest, Volume: -1})
	}
	if len(pv.Pieces) > MaxPieces {
		return fsys.Uncertain("the physical volume is in %d pieces, more than %d", len(pv.Pieces), MaxPieces)
	}
	return nil
}

// dashed writes the 32 letters of a UUID as LVM prints them.
func dashed(s string) string {
	return fmt.Sprintf("%s-%s-%s-%s-%s-%s-%s", s[:6], s[6:10], s[10:14], s[14:18], s[18:22], s[22:26], s[26:])
}
