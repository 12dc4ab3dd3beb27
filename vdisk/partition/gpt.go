package partition

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// A GUID partition table has a protective master boot record in sector 0, a
// header in sector 1 with the array of entries after it, and a copy of both,
// header last, at the end of the disk. A header is
//
//	"EFI PART"[8] revision[4] headersize[4] headercrc[4] 0[4] self[8] other[8]
//	firstusable[8] lastusable[8] guid[16] array[8] count[4] entrysize[4] arraycrc[4]
//
// and an entry, of entrysize bytes, is
//
//	type[16] guid[16] first[8] last[8] attrs[8] name[72]
//
// Integers are little-endian. self, other, firstusable, lastusable, array,
// first and last are sector numbers, last included. headercrc is the CRC-32 of
// headersize bytes with itself as 0, arraycrc that of count*entrysize bytes.
// The first three numbers of a GUID are little-endian too. name is UTF-16. An
// entry whose type is zeros is not used. Sectors are of 512 or of 4096 bytes,
// which only the place of the header tells.
const (
	gptMagic      = "EFI PART"
	gptHeaderSize = 92
	gptEntrySize  = 128

	// maxGPTEntries and maxGPTArray bound the array; most have 128 entries in
	// 16 KiB.
	maxGPTEntries = 1024
	maxGPTArray   = 1 << 20
)

// A gptHeader is a header whose array of entries is good as well.
type gptHeader struct {
	self, other uint64
	guid        [16]byte
	array       uint64
	count       int
	entrySize   int
	entries     []byte // the array
}

// arrayEnd returns the first sector after the array.
func (h *gptHeader) arrayEnd(sector int) uint64 {
	return h.array + uint64((len(h.entries)+sector-1)/sector)
}

// readGPTHeader reads the header in sector lba, and its array. If either is
// bad it returns nil and says why.
func readGPTHeader(r io.ReaderAt, size int64, sector int, lba uint64) (*gptHeader, string, error) {
	sectors := uint64(size / int64(sector))
	if lba == 0 || lba >= sectors {
		return nil, "outside the disk", nil
	}
	b := make([]byte, sector)
	if err := disk.ReadFull(r, b, int64(lba)*int64(sector)); err != nil {
		return nil, "", fmt.Errorf("read GPT header at sector %d: %w", lba, err)
	}
	if string(b[:8]) != gptMagic {
		return nil, "no magic", nil
	}
	length := binary.LittleEndian.Uint32(b[12:])
	if length < gptHeaderSize || length > uint32(sector) {
		return nil, fmt.Sprintf("bad header size %d", length), nil
	}
	sum := binary.LittleEndian.Uint32(b[16:])
	clear(b[16:20])
	if crc32.ChecksumIEEE(b[:length]) != sum {
		return nil, "bad header checksum", nil
	}
	h := &gptHeader{
		self:  binary.LittleEndian.Uint64(b[24:]),
		other: binary.LittleEndian.Uint64(b[32:]),
		guid:  [16]byte(b[56:72]),
		array: binary.LittleEndian.Uint64(b[72:]),
	}
	count := binary.LittleEndian.Uint32(b[80:])
	entrySize := binary.LittleEndian.Uint32(b[84:])
	arraySum := binary.LittleEndian.Uint32(b[88:])
	switch {
	case h.self != lba:
		return nil, fmt.Sprintf("it belongs at sector %d", h.self), nil
	case entrySize < gptEntrySize || entrySize&(entrySize-1) != 0 || entrySize > 4096:
		return nil, fmt.Sprintf("bad entry size %d", entrySize), nil
	case count == 0 || count > maxGPTEntries || count*entrySize > maxGPTArray:
		return nil, fmt.Sprintf("%d entries of %d bytes", count, entrySize), nil
	}
	h.count, h.entrySize = int(count), int(entrySize)
	h.entries = make([]byte, count*entrySize)
	if h.array < 2 || h.array >= sectors || h.arrayEnd(sector) > sectors {
		return nil, "its entries lie outside the disk", nil
	}
	if err := disk.ReadFull(r, h.entries, int64(h.array)*int64(sector)); err != nil {
		return nil, "", fmt.Errorf("read GPT entries at sector %d: %w", h.array, err)
	}
	if crc32.ChecksumIEEE(h.entries) != arraySum {
		return nil, "bad checksum of entries", nil
	}
	return h, "", nil
}

// readGPTs reads both copies as they are with one size of sector. A copy that
// is bad is nil, and its word says why.
func readGPTs(r io.ReaderAt, size int64, sector int) (copies [2]*gptHeader, bad [2]string, err error) {
	copies[0], bad[0], err = readGPTHeader(r, size, sector, 1)
	if err != nil {
		return copies, bad, err
	}
	last := uint64(size/int64(sector)) - 1
	if h := copies[0]; h != nil && h.other != last {
		// The disk has grown since the table was written.
		copies[1], bad[1], err = readGPTHeader(r, size, sector, h.other)
		if err != nil || copies[1] != nil {
			return copies, bad, err
		}
	}
	if last > 1 {
		copies[1], bad[1], err = readGPTHeader(r, size, sector, last)
	}
	return copies, bad, err
}

// readGPT fills t from the GUID partition table of a disk with a protective
// boot record.
func (t *Table) readGPT(r io.ReaderAt, rec *record) error {
	t.Scheme, t.SectorSize = GPT, sectorSize
	var copies [2]*gptHeader
	var bad [2]string
	for _, sector := range []int{512, 4096} {
		if t.Size < 3*int64(sector) {
			continue
		}
		c, b, err := readGPTs(r, t.Size, sector)
		if err != nil {
			return err
		}
		// A primary wins over a backup, whatever their sectors.
		if c[0] != nil || c[1] != nil && copies[1] == nil {
			copies, bad, t.SectorSize = c, b, sector
		} else if sector == sectorSize {
			bad = b
		}
		if c[0] != nil {
			break
		}
	}
	h, backup := copies[0], copies[1]
	switch {
	case h == nil && backup == nil:
		t.Whole = fmt.Sprintf("it has a protective MBR and no good GUID partition table (primary: %s; backup: %s)", bad[0], bad[1])
		return nil
	case h == nil:
		h = backup
		t.note("primary GUID partition table is bad (%s): the backup is used", bad[0])
	case backup == nil:
		t.note("backup GUID partition table is bad (%s)", bad[1])
	case h.guid != backup.guid || h.entrySize != backup.entrySize || !bytes.Equal(h.entries, backup.entries):
		t.note("backup GUID partition table differs: the primary is used")
	}
	for _, e := range rec.entries {
		if e.used() && e.kind != typeProtective {
			t.note("hybrid MBR: the GUID partition table is used")
			break
		}
	}
	t.ID = guid(h.guid)
	if !t.addGPTEntries(h) {
		return nil
	}

	// The primary is all that lies before its array ends; a bad one is where
	// it ought to be.
	sector := uint64(t.SectorSize)
	end := 2 + h.arrayEnd(t.SectorSize) - h.array
	if copies[0] != nil {
		end = h.arrayEnd(t.SectorSize)
	} else {
		for _, p := range t.Partitions {
			end = min(end, uint64(p.Start)/sector)
		}
	}
	if end > 0 {
		t.tables = append(t.tables, table{KindGPT, 0, int64(end * sector)})
	}
	if backup != nil {
		start := backup.self
		if backup.array < backup.self {
			start = backup.array
		}
		t.tables = append(t.tables, table{KindGPTBackup, int64(start * sector), int64((backup.self + 1 - start) * sector)})
	}
	return nil
}

// addGPTEntries adds the partitions of h. It reports false, with t.Whole set,
// if one lies outside the disk.
func (t *Table) addGPTEntries(h *gptHeader) bool {
	sectors := uint64(t.Size / int64(t.SectorSize))
	for i := range h.count {
		b := h.entries[i*h.entrySize:][:gptEntrySize]
		kind := [16]byte(b)
		if kind == [16]byte{} {
			continue
		}
		first, last := binary.LittleEndian.Uint64(b[32:]), binary.LittleEndian.Uint64(b[40:])
		if first > last || last >= sectors {
			t.Whole = fmt.Sprintf("partition %d, sectors %d to %d, lies outside the disk", i+1, first, last)
			return false
		}
		t.Partitions = append(t.Partitions, Partition{
			Number: i + 1,
			Start:  int64(first) * int64(t.SectorSize),
			Length: int64(last-first+1) * int64(t.SectorSize),
			Type:   guid(kind),
			ID:     guid([16]byte(b[16:])),
			Label:  label(b[56:128]),
			Attrs:  binary.LittleEndian.Uint64(b[48:]),
		})
	}
	return true
}

// guid formats a GUID as it is stored on the disk.
func guid(b [16]byte) string {
	for _, p := range [][]byte{b[0:4], b[4:6], b[6:8]} {
		for i, j := 0, len(p)-1; i < j; i, j = i+1, j-1 {
			p[i], p[j] = p[j], p[i]
		}
	}
	return fsys.UUID(b)
}

// label decodes a name padded with NUL.
func label(b []byte) string {
	var u []uint16
	for ; len(b) >= 2; b = b[2:] {
		c := binary.LittleEndian.Uint16(b)
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return string(utf16.Decode(u))
}
