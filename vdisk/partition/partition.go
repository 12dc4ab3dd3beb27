// Package partition reads the partition table of a disk and cuts the disk
// into regions: boot sector, tables, partitions and the gaps between them.
//
//	t, err := partition.Read(disk, size)
//	for _, r := range t.Cut() {
//		fmt.Println(r.Name, r.Start, r.Length) // mbr, gap0, p1, gap1, p2...
//	}
//
// The regions follow one another and together are the disk, byte for byte,
// whatever the table says. A table that cannot be right (partitions that
// overlap or leave the disk, a chain that loops) is not an error: the disk is
// then one region, and the table says why. The cut depends on nothing but
// the disk's bytes and size.
//
// mbr.go reads master boot records with extended partitions, gpt.go reads
// GUID partition tables.
package partition

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"strata/vdisk/fsys"
)

// Limits of what is cut; a disk that exceeds them is one region.
const (
	MaxPartitions = 256
	// MaxRegions is the most regions that Cut returns: two tables and, for
	// each partition and in front of the first, one gap.
	MaxRegions = 2*MaxPartitions + 4
)

// A Scheme is the kind of a partition table.
type Scheme string

// The schemes, and none at all.
const (
	GPT  Scheme = "gpt"
	MBR  Scheme = "mbr" // sfdisk(8) calls it dos
	None Scheme = ""
)

// A Table is what Read has found at the start and the end of a disk.
type Table struct {
	Scheme     Scheme
	Size       int64  // bytes of the disk
	SectorSize int    // bytes that the table counts in, 0 for None
	ID         string // GUID of the disk, or the 8 hex digits of its MBR signature
	Partitions []Partition

	// Notes are things that a person should know although the cut stands, such as
	// a backup table that differs.
	Notes []string

	// Whole is why the disk is one region although it seems to have a table. Then
	// nothing may be concluded from what the region seems to hold.
	Whole string

	tables []table // where the table itself lies
}

// A Partition is one used entry of a table. Entries of type "extended", which
// only hold others, are not partitions.
type Partition struct {
	Number int    // as Linux counts: from 1, logical ones from 5
	Start  int64  // bytes
	Length int64  // bytes
	Type   string // GUID in lower case, or two hex digits
	ID     string // PARTUUID: GUID in lower case, or the disk's ID and the number
	Label  string // GPT only
	Attrs  uint64 // GPT attributes, or 1<<7 for an active MBR partition
}

// table is a run of sectors that holds a part of the table.
type table struct {
	kind          Kind // KindMBR, KindGPT, KindGPTBackup, or KindGap for an extended boot record
	start, length int64
}

// A Kind is what a region holds.
type Kind string

// The kinds of region.
const (
	KindDisk      Kind = "disk"      // all of a disk that is not cut
	KindMBR       Kind = "mbr"       // the master boot record
	KindGPT       Kind = "gpt"       // protective MBR, primary header and entries
	KindGPTBackup Kind = "gptbackup" // backup entries and header
	KindPartition Kind = "partition"
	KindGap       Kind = "gap" // what lies between the others
)

// A Region is a run of bytes of a disk, longer than 0.
//
// Names are unique in a disk: disk, mbr, gpt, gptbackup, p1, p2... by partition
// number, gap0 after the boot sector or primary table, gap1 after p1 and so on,
// and tail after the backup table. So a partition that comes or goes does not
// rename the others.
type Region struct {
	Name      string
	Kind      Kind
	Start     int64
	Length    int64
	Partition *Partition // nil unless Kind is KindPartition

	// Whole is why the region must be stored as it is, without asking what
	// file system it holds. It is Table.Whole.
	Whole string
}

// Read finds the partition table of a disk of size bytes. The error is that
// of reading.
func Read(r io.ReaderAt, size int64) (*Table, error) {
	t := &Table{Size: size}
	record, err := readRecord(r, size)
	if err != nil {
		return nil, err
	}
	switch {
	case record == nil || record.empty():
	case record.protective():
		err = t.readGPT(r, record)
	default:
		err = t.readMBR(r, record)
	}
	if err != nil {
		return nil, err
	}
	if t.Scheme == None {
		t.Partitions, t.tables, t.SectorSize, t.ID = nil, nil, 0, ""
		return t, nil
	}
	slices.SortFunc(t.Partitions, func(a, b Partition) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.Number, b.Number))
	})
	if t.Whole == "" {
		t.Whole = t.check()
	}
	if t.Whole == "" {
		err = t.checkFirst(r)
	}
	return t, err
}

// A span is a run of bytes with a name for messages.
type span struct {
	name          string
	start, length int64
}

// check says what is wrong with where the partitions and tables lie.
func (t *Table) check() string {
	if len(t.Partitions) > MaxPartitions {
		return fmt.Sprintf("%d partitions, more than %d", len(t.Partitions), MaxPartitions)
	}
	var spans []span
	for _, p := range t.Partitions {
		spans = append(spans, span{fmt.Sprintf("partition %d", p.Number), p.Start, p.Length})
	}
	for _, b := range t.tables {
		name := "the " + string(b.kind)
		if b.kind == KindGap {
			name = "an extended boot record"
		}
		spans = append(spans, span{name, b.start, b.length})
	}
	slices.SortStableFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	end, last := int64(0), ""
	for _, s := range spans {
		switch {
		case s.start < 0 || s.length <= 0 || s.start > t.Size || s.length > t.Size-s.start:
			return fmt.Sprintf("%s lies outside the disk", s.name)
		case s.start < end:
			return fmt.Sprintf("%s and %s overlap", last, s.name)
		}
		end, last = s.start+s.length, s.name
	}
	return ""
}

// checkFirst looks for a file system on the bare disk in front of the first
// partition. If there is one, either it or the table is a remainder of an
// earlier use, and the free space that the wrong one claims is the data of
// the other.
func (t *Table) checkFirst(r io.ReaderAt) error {
	limit := t.Size
	if len(t.Partitions) > 0 {
		limit = t.Partitions[0].Start
	}
	names, err := fsys.Signatures(r, limit)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		t.Whole = fmt.Sprintf("it has a partition table and the signature of %s", strings.Join(names, " and of "))
	}
	return nil
}

// Cut returns the regions of the disk in order, at most MaxRegions. There
// are none if the disk is empty.
func (t *Table) Cut() []Region {
	if t.Size <= 0 {
		return nil
	}
	if t.Scheme == None || t.Whole != "" {
		return []Region{{Name: string(KindDisk), Kind: KindDisk, Length: t.Size, Whole: t.Whole}}
	}
	var regions []Region
	for i := range t.Partitions {
		p := t.Partitions[i]
		regions = append(regions, Region{
			Name: fmt.Sprintf("p%d", p.Number), Kind: KindPartition,
			Start: p.Start, Length: p.Length, Partition: &p,
		})
	}
	for _, b := range t.tables {
		if b.kind != KindGap {
			regions = append(regions, Region{Name: string(b.kind), Kind: b.kind, Start: b.start, Length: b.length})
		}
	}
	slices.SortFunc(regions, func(a, b Region) int { return cmp.Compare(a.Start, b.Start) })

	var all []Region
	end, gap := int64(0), "gap0"
	fill := func(to int64) {
		if to > end {
			all = append(all, Region{Name: gap, Kind: KindGap, Start: end, Length: to - end})
		}
	}
	for _, r := range regions {
		fill(r.Start)
		all = append(all, r)
		end = r.Start + r.Length
		switch {
		case r.Partition != nil:
			gap = fmt.Sprintf("gap%d", r.Partition.Number)
		case r.Kind == KindGPTBackup:
			gap = "tail"
		default:
			gap = "gap0"
		}
	}
	fill(t.Size)
	return all
}

// note adds a line to t.Notes.
func (t *Table) note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
}
