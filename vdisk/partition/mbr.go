package partition

import (
	"encoding/binary"
	"fmt"
	"io"

	"strata/internal/disk"
)

// A master boot record and an extended boot record are
//
//	code[440] signature[4] 0[2] entry[16]*4 0x55 0xaa
//
// and an entry is
//
//	status[1] chs[3] type[1] chs[3] start[4] sectors[4]
//
// Integers are little-endian. status is 0, or 0x80 for the active partition.
// An entry of type 0 or without sectors is not used. Sectors are of 512 bytes.
// In a master record start counts from the start of the disk. In an extended
// one, entry 0 is a logical partition, counted from that record, and entry 1
// of an extended type is the next record, counted from the start of the
// extended partition.
const (
	sectorSize    = 512
	recordID      = 440
	recordEntries = 446
	entrySize     = 16
	recordMagic   = 510

	// maxLogical bounds a chain of extended boot records.
	maxLogical = 128
)

// Types of entries that are not partitions.
const (
	typeProtective = 0xee
	typeExtended   = 0x05
	typeExtendedX  = 0x0f // the same, Windows 95
	typeExtendedL  = 0x85 // the same, Linux
)

type record struct {
	id      uint32
	entries [4]entry
}

type entry struct {
	status, kind   byte
	start, sectors uint64
}

func (e entry) used() bool { return e.kind != 0 && e.sectors != 0 }

func (e entry) extended() bool {
	return e.used() && (e.kind == typeExtended || e.kind == typeExtendedX || e.kind == typeExtendedL)
}

func (r *record) empty() bool {
	for _, e := range r.entries {
		if e.used() {
			return false
		}
	}
	return true
}

func (r *record) protective() bool {
	for _, e := range r.entries {
		if e.used() && e.kind == typeProtective {
			return true
		}
	}
	return false
}

// unpackRecord reads the 512 bytes of a boot record, and returns nil for
// what is not one: without its magic, or with a status that no entry has, as
// the text in other boot sectors gives.
func unpackRecord(b []byte) *record {
	if b[recordMagic] != 0x55 || b[recordMagic+1] != 0xaa {
		return nil
	}
	r := &record{id: binary.LittleEndian.Uint32(b[recordID:])}
	for i := range r.entries {
		p := b[recordEntries+i*entrySize:][:entrySize]
		if p[0] != 0 && p[0] != 0x80 {
			return nil
		}
		r.entries[i] = entry{
			status:  p[0],
			kind:    p[4],
			start:   uint64(binary.LittleEndian.Uint32(p[8:])),
			sectors: uint64(binary.LittleEndian.Uint32(p[12:])),
		}
	}
	return r
}

// readRecord reads the boot record at the start of a disk, nil if there is
// none.
func readRecord(r io.ReaderAt, size int64) (*record, error) {
	if size < sectorSize {
		return nil, nil
	}
	var b [sectorSize]byte
	if err := disk.ReadFull(r, b[:], 0); err != nil {
		return nil, fmt.Errorf("read boot record: %w", err)
	}
	return unpackRecord(b[:]), nil
}

// readMBR fills t from the master boot record and the extended ones that it
// leads to.
func (t *Table) readMBR(r io.ReaderAt, rec *record) error {
	t.Scheme, t.SectorSize = MBR, sectorSize
	t.ID = fmt.Sprintf("%08x", rec.id)
	t.tables = append(t.tables, table{KindMBR, 0, sectorSize})
	for i, e := range rec.entries {
		if e.used() && !e.extended() {
			t.addEntry(i+1, e, 0)
		}
	}
	logical := 5
	for i, e := range rec.entries {
		if !e.extended() {
			continue
		}
		if e.start+e.sectors > uint64(t.Size/sectorSize) {
			t.Whole = fmt.Sprintf("extended partition %d lies outside the disk", i+1)
			return nil
		}
		n, err := t.readExtended(r, e.start, e.start+e.sectors, logical)
		if err != nil || t.Whole != "" {
			return err
		}
		logical += n
	}
	return nil
}

// readExtended follows the chain of boot records of an extended partition,
// sectors base to end, adds its logical partitions to t with numbers from
// first, and returns how many there are. A record without its magic ends the
// chain, as it does for Linux.
func (t *Table) readExtended(r io.ReaderAt, base, end uint64, first int) (int, error) {
	n := 0
	seen := make(map[uint64]bool)
	for at := base; ; {
		switch {
		case at >= end:
			t.Whole = fmt.Sprintf("extended boot record at sector %d lies outside its partition", at)
			return n, nil
		case seen[at]:
			t.Whole = fmt.Sprintf("extended boot records loop at sector %d", at)
			return n, nil
		case len(seen) == maxLogical:
			t.Whole = fmt.Sprintf("more than %d extended boot records", maxLogical)
			return n, nil
		}
		seen[at] = true
		var b [sectorSize]byte
		if err := disk.ReadFull(r, b[:], int64(at*sectorSize)); err != nil {
			return n, fmt.Errorf("read extended boot record at sector %d: %w", at, err)
		}
		rec := unpackRecord(b[:])
		if rec == nil {
			t.note("no extended boot record at sector %d: the chain ends there", at)
			return n, nil
		}
		t.tables = append(t.tables, table{KindGap, int64(at * sectorSize), sectorSize})
		if e := rec.entries[0]; e.used() && !e.extended() {
			if at+e.start+e.sectors > end {
				t.Whole = fmt.Sprintf("partition %d lies outside its extended partition", first+n)
				return n, nil
			}
			t.addEntry(first+n, e, at)
			n++
		}
		if rec.entries[2].used() || rec.entries[3].used() {
			t.note("extended boot record at sector %d has more entries than two: they are left alone", at)
		}
		if !rec.entries[1].extended() {
			return n, nil
		}
		at = base + rec.entries[1].start
	}
}

// addEntry adds the partition of an entry that counts from sector base.
func (t *Table) addEntry(number int, e entry, base uint64) {
	p := Partition{
		Number: number,
		Start:  int64((base + e.start) * sectorSize),
		Length: int64(e.sectors * sectorSize),
		Type:   fmt.Sprintf("%02x", e.kind),
		ID:     fmt.Sprintf("%s-%02x", t.ID, number),
	}
	if e.status == 0x80 {
		p.Attrs = attrActive
	}
	t.Partitions = append(t.Partitions, p)
}

// attrActive is the bit of Partition.Attrs that an active MBR partition has.
const attrActive = 1 << 7
