package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"strata/venti"
	"strata/venti/internal/arena"
)

// A bucket is one block of a section:
//
//	n[2] magic[4] entry[38]*n unused check[8]
//
// with the entries in ascending order of (score, type). All integers are
// big-endian. In a section of version 2 a bucket whose magic is not the
// section's is empty, so that a section need not be zeroed. In version 1
// magic is 0 and not looked at.
//
// An entry is
//
//	score[20] wtime[4] train[2] addr[8] size[2] type[1] blocks[1]
//
// wtime and train are always 0. type is a disk type.
//
// check is ours. Plan 9's program never looks at the unused bytes and leaves
// them as they are. It is
//
//	magic[4] crc[4]
//
// in the last 8 bytes of a block where the entries leave them free: always,
// for blocks of less than 16 KiB. crc is CRC-32C over the number of the
// bucket, as 4 bytes, and the bucket up to the end of its entries. A bucket
// with the right check was written whole. One without was last written by
// Plan 9's program, or torn by a crash (see Index.Recover).
const (
	bucketHeader = 6
	entrySize    = 38
	checkSize    = 8
	checkMagic   = 0xb0c4e75e

	sectorSize = 512 // the unit of Entry.Blocks
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// An Entry tells where a block's clump is.
type Entry struct {
	Score  venti.Score
	Addr   uint64         // in the address space of the index
	Type   venti.DiskType // Score and Type are the key
	Size   uint16         // uncompressed
	Blocks uint8          // sectors that the clump takes, a hint for reading; see SectorsOf
}

// SectorsOf returns the Blocks of a clump whose data take storedSize bytes.
func SectorsOf(storedSize int) uint8 {
	return uint8(min(255, (storedSize+arena.ClumpHeaderSize+sectorSize-1)/sectorSize))
}

// Compare orders entries by their key, the score and then the type.
func (e *Entry) Compare(f *Entry) int { return compareKeys(e.Score, e.Type, f.Score, f.Type) }

func compareKeys(s venti.Score, t venti.DiskType, s2 venti.Score, t2 venti.DiskType) int {
	if c := bytes.Compare(s[:], s2[:]); c != 0 {
		return c
	}
	return cmp.Compare(t, t2)
}

// Sort puts entries into the order that Update takes them in: by key, and
// among entries with the same key the one with the highest address last.
func Sort(entries []Entry) {
	slices.SortFunc(entries, func(e, f Entry) int {
		return cmp.Or(e.Compare(&f), cmp.Compare(e.Addr, f.Addr))
	})
}

// packEntry writes e to the start of b.
func packEntry(b []byte, e *Entry) {
	copy(b, e.Score[:])
	clear(b[20:26])
	binary.BigEndian.PutUint64(b[26:], e.Addr)
	binary.BigEndian.PutUint16(b[34:], e.Size)
	b[36] = byte(e.Type)
	b[37] = e.Blocks
}

// unpackEntry reads the entry at the start of b. Any bytes are an entry.
func unpackEntry(b []byte) Entry {
	return Entry{
		Score:  venti.Score(b[:20]),
		Addr:   binary.BigEndian.Uint64(b[26:]),
		Size:   binary.BigEndian.Uint16(b[34:]),
		Type:   venti.DiskType(b[36]),
		Blocks: b[37],
	}
}

// capacity returns how many entries a block holds.
func capacity(blockSize int) int { return (blockSize - bucketHeader) / entrySize }

// count returns how many entries the bucket in block has.
func (s *Section) count(block []byte) (int, error) {
	if s.Version != 1 && binary.BigEndian.Uint32(block[2:]) != s.Magic {
		return 0, nil
	}
	n := int(binary.BigEndian.Uint16(block))
	if n > capacity(s.BlockSize) {
		return 0, fmt.Errorf("%w: it counts %d entries and has room for %d", ErrBadBucket, n, capacity(s.BlockSize))
	}
	return n, nil
}

// find returns the place of the first entry in block that is not less than
// the key, among n, and whether it has that key.
func find(block []byte, n int, score *venti.Score, t venti.DiskType) (int, bool) {
	lo, hi := 0, n
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		b := block[bucketHeader+mid*entrySize:]
		c := bytes.Compare(b[:20], score[:])
		if c == 0 {
			c = cmp.Compare(venti.DiskType(b[36]), t)
		}
		if c < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == n {
		return lo, false
	}
	b := block[bucketHeader+lo*entrySize:]
	return lo, bytes.Equal(b[:20], score[:]) && venti.DiskType(b[36]) == t
}

// ordered returns an ErrBadBucket unless the n entries in block are in order.
func ordered(block []byte, n int) error {
	for i := 1; i < n; i++ {
		e := block[bucketHeader+i*entrySize:][:entrySize]
		d := block[bucketHeader+(i-1)*entrySize:][:entrySize]
		// Nearly always the first bytes tell.
		if x, y := binary.BigEndian.Uint64(d), binary.BigEndian.Uint64(e); x < y {
			continue
		} else if c := bytes.Compare(d[:20], e[:20]); c > 0 || c == 0 && d[36] > e[36] {
			return fmt.Errorf("%w: entry %d is out of order", ErrBadBucket, i)
		}
	}
	return nil
}

// unpackBucket appends the entries of the bucket in block to list, or returns
// an ErrBadBucket.
func (s *Section) unpackBucket(list []Entry, block []byte) ([]Entry, error) {
	n, err := s.count(block)
	if err == nil {
		err = ordered(block, n)
	}
	if err != nil {
		return list, err
	}
	for i := range n {
		list = append(list, unpackEntry(block[bucketHeader+i*entrySize:]))
	}
	return list, nil
}

// packBucket writes a bucket with the given entries, which fit, to block. It
// leaves the bytes between the entries and the check alone.
func (s *Section) packBucket(block []byte, bucket uint32, entries []Entry) {
	for i := range entries {
		packEntry(block[bucketHeader+i*entrySize:], &entries[i])
	}
	s.finish(block, bucket, len(entries))
}

// finish writes what goes around the n entries in block.
func (s *Section) finish(block []byte, bucket uint32, n int) {
	binary.BigEndian.PutUint16(block, uint16(n))
	binary.BigEndian.PutUint32(block[2:], s.Magic)
	end, check := bucketHeader+n*entrySize, len(block)-checkSize
	if end <= check {
		binary.BigEndian.PutUint32(block[check:], checkMagic)
		binary.BigEndian.PutUint32(block[check+4:], checksum(block[:end], bucket))
	}
}

// whole tells whether the bucket in block, if it has entries, is certainly as
// packBucket wrote it.
func (s *Section) whole(block []byte, bucket uint32) bool {
	n, err := s.count(block)
	if err != nil || n == 0 {
		// When the first sector of a first write to a bucket was lost, no
		// older entry is.
		return err == nil
	}
	end, check := bucketHeader+n*entrySize, len(block)-checkSize
	return end <= check &&
		binary.BigEndian.Uint32(block[check:]) == checkMagic &&
		binary.BigEndian.Uint32(block[check+4:]) == checksum(block[:end], bucket)
}

func checksum(b []byte, bucket uint32) uint32 {
	var number [4]byte
	binary.BigEndian.PutUint32(number[:], bucket)
	return crc32.Update(crc32.Update(0, castagnoli, number[:]), castagnoli, b)
}

// merge adds entries, sorted by key and all of this bucket, to the bucket in
// block. A full bucket keeps what it has; entries that it has no room for are
// appended to rest.
func (s *Section) merge(block []byte, bucket uint32, entries, rest []Entry) (changed bool, newRest []Entry, err error) {
	n, err := s.count(block)
	if err == nil {
		err = ordered(block, n)
	}
	if err != nil {
		return false, rest, err
	}
	for i := range entries {
		e := &entries[i]
		if i+1 < len(entries) && e.Compare(&entries[i+1]) == 0 {
			continue // the last counts
		}
		at, have := find(block, n, &e.Score, e.Type)
		b := block[bucketHeader+at*entrySize:]
		switch {
		case have && unpackEntry(b) == *e:
			continue
		case have:
		case n == capacity(s.BlockSize):
			rest = append(rest, *e)
			continue
		default:
			copy(b[entrySize:], b[:(n-at)*entrySize])
			n++
		}
		packEntry(b, e)
		changed = true
	}
	if changed {
		s.finish(block, bucket, n)
	}
	return changed, rest, nil
}
