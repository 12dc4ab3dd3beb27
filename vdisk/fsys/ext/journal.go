package ext

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"strata/vdisk/fsys"
)

// A journal is a file of blocks, first its superblock, then a log that starts
// again at block first after block length-1. Integers are big-endian. Every
// block of the log that is not a copy of data begins with a header:
//
//	magic[4] 0xc03b3998  kind[4]  sequence[4]
//
// and kind is 1 for a descriptor, 2 for a commit, 3 and 4 for the superblock
// of version 1 and 2, 5 for a revocation. The superblock is 1024 bytes:
//
//	header[12] blocksize[4] length[4] first[4] sequence[4] start[4] errno[4]
//	compat[4] incompat[4] rocompat[4] uuid[16] users[4] ... checksumtype[1] at 0x50
//	... checksum[4] at 0xfc ... 0x400
//
// start is the block at which the transaction sequence begins, 0 if there is
// none to be replayed. Version 1 has no features. checksum, with csum2 or csum3,
// is the CRC-32C of the 1024 bytes with itself as 0.
//
// A transaction is descriptors, each followed by the copies of blocks that it
// lists, revocations, and a commit, all of one sequence; the next one has the
// next. After a descriptor's header come tags:
//
//	block[4] checksum[2] flags[2] (blockhi[4] with 64bit) (0[2] with csum2)
//	block[4] flags[4] blockhi[4] checksum[4]	with csum3
//
// each followed by a UUID[16] unless flag 2 is set; flag 8 marks the last. Flag
// 1 says that the copy began with the header's magic, and has zeros there. A
// tag's checksum is the CRC-32C of the journal's seed (the CRC-32C of its
// UUID), the sequence[4] and the copy, cut to 16 bits with csum2. Descriptors and
// revocations end in the CRC-32C[4] of seed and block, commits have it in bytes
// 16 to 20, each with itself as 0.
//
// A revocation is
//
//	header[12] length[4] block[4 or, with 64bit, 8]...
//
// of length bytes, and says that the copies of these blocks in this and
// earlier transactions are not to be written.
const (
	journalMagic = 0xc03b3998

	kindDescriptor = 1
	kindCommit     = 2
	kindSuper1     = 3
	kindSuper2     = 4
	kindRevoke     = 5

	journalHeader = 12
	journalSuper  = 1024
	journalSum    = 0xfc
	commitSum     = 16

	// maxJournal is the largest journal that mke2fs makes, in blocks.
	maxJournal = 10240000
)

// Features of a journal.
const (
	journalCompatCsum = 1 << 0 // commits have a checksum of another kind

	journalRevoke     = 1 << 0
	journal64Bit      = 1 << 1
	journalAsync      = 1 << 2 // a commit may be there before what it commits
	journalCsum2      = 1 << 3
	journalCsum3      = 1 << 4
	journalFastCommit = 1 << 5

	journalKnown = journalRevoke | journal64Bit | journalAsync | journalCsum2 | journalCsum3 | journalFastCommit
)

// Flags of a tag.
const (
	tagEscape   = 1
	tagSameUUID = 2
	tagLast     = 8
)

// A journal is a log that a driver would replay, or one that is empty. It is
// not written to after readJournal.
type journal struct {
	v        *volume
	runs     []run
	length   uint64 // blocks
	first    uint64 // block of the log
	features uint32
	seed     uint32

	copies  []logged // by block, those of one block in the order of the log
	revoked []uint64 // in ascending order
}

// logged is a copy of a block in the log.
type logged struct {
	block     uint64 // of the file system
	at        uint32 // of the journal
	sequence  uint32
	sum       uint32
	escaped   bool
	committed bool // its transaction is whole: it would be replayed
}

// readJournal finds the journal of v and, if it is to be replayed, every
// copy of a block in it.
func (v *volume) readJournal() (*journal, error) {
	j := &journal{v: v}
	if v.compat&compatHasJournal == 0 {
		return j, nil
	}
	if v.journalDevice != 0 || v.journalInode == 0 {
		return nil, fsys.Uncertain("its journal is on another device")
	}
	var err error
	if j.runs, err = v.fileRuns(v.journalInode, maxJournal); err != nil {
		return nil, err
	}
	last := j.runs[len(j.runs)-1]
	blocks := last.logical + last.length
	b := make([]byte, v.blockSize)
	if err := j.readBlock(0, b); err != nil {
		return nil, err
	}
	be32 := func(off int) uint32 { return binary.BigEndian.Uint32(b[off:]) }
	kind := be32(4)
	if be32(0) != journalMagic || kind != kindSuper1 && kind != kindSuper2 {
		return nil, fsys.Uncertain("the journal has no superblock")
	}
	j.length, j.first = uint64(be32(0x10)), uint64(be32(0x14))
	sequence, start := be32(0x18), uint64(be32(0x1c))
	var compat uint32
	if kind == kindSuper2 {
		compat, j.features = be32(0x24), be32(0x28)
		if unknown := j.features &^ uint32(journalKnown); unknown != 0 {
			return nil, fsys.Uncertain("unknown features %#x of the journal", unknown)
		}
		if unknown := be32(0x2c); unknown != 0 {
			return nil, fsys.Uncertain("unknown read-only features %#x of the journal", unknown)
		}
	}
	if j.csum() {
		want := be32(journalSum)
		clear(b[journalSum : journalSum+4])
		if b[0x50] != 4 || crc32c(math.MaxUint32, b[:journalSuper]) != want {
			return nil, fsys.Uncertain("bad checksum of the journal")
		}
		j.seed = crc32c(math.MaxUint32, b[0x30:0x40])
	}
	switch {
	case uint64(be32(0x0c)) != v.blockSize:
		return nil, fsys.Uncertain("the journal has blocks of %d bytes", be32(0x0c))
	case j.length > blocks || j.first == 0 || j.first >= j.length:
		return nil, fsys.Uncertain("the journal has a log from block %d to %d of %d", j.first, j.length, blocks)
	case be32(0x20) != 0:
		return nil, fsys.Uncertain("the journal is marked with errors")
	}
	if start == 0 && v.incompat&incompatRecover == 0 {
		return j, nil
	}
	// From here on the driver would recover. What it does with these is not
	// known well enough.
	switch {
	case j.features&journalFastCommit != 0 || v.compat&compatFastCommit != 0:
		return nil, fsys.Uncertain("the journal is to be recovered and may hold fast commits")
	case start == 0:
		return j, nil
	case start < j.first || start >= j.length:
		return nil, fsys.Uncertain("the log starts at block %d of the journal", start)
	case compat&journalCompatCsum != 0:
		return nil, fsys.Uncertain("the journal is to be recovered and has checksums of version 1")
	case j.features&journalAsync != 0:
		return nil, fsys.Uncertain("the journal is to be recovered and has asynchronous commits")
	}
	return j, j.scan(start, sequence)
}

func (j *journal) csum() bool { return j.features&(journalCsum2|journalCsum3) != 0 }

// readBlock fills b with block n of the journal.
func (j *journal) readBlock(n uint64, b []byte) error {
	i, ok := slices.BinarySearchFunc(j.runs, n, func(r run, n uint64) int { return cmp.Compare(r.logical, n) })
	if !ok {
		i--
	}
	r := j.runs[i]
	return j.v.readBlock(r.physical+n-r.logical, b)
}

// scan follows the log from block at, where transaction sequence begins, to
// the first block that does not continue it, as a driver does. It goes on over
// bad checksums and takes note also of the last transaction, which lacks its
// commit: such copies are not replayed, but to call a block free against
// their word would gain little.
func (j *journal) scan(at uint64, sequence uint32) error {
	next := func() {
		if at++; at == j.length {
			at = j.first
		}
	}
	b := make([]byte, j.v.blockSize)
	pending := 0 // copies[pending:] are of the transaction that is being read
	bad := false // one of its blocks has a bad checksum
	// Each block of the log is visited once at most: a log that runs into
	// its own tail does not end by itself.
	for left := j.length - j.first; ; next() {
		if left == 0 {
			return fsys.Uncertain("the log of the journal has no end")
		}
		left--
		if err := j.readBlock(at, b); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(b) != journalMagic || binary.BigEndian.Uint32(b[8:]) != sequence {
			break
		}
		switch binary.BigEndian.Uint32(b[4:]) {
		case kindDescriptor:
			bad = bad || !j.checkTail(b)
			for _, c := range j.tags(b, sequence) {
				if left == 0 {
					return fsys.Uncertain("the log of the journal has no end")
				}
				left--
				next()
				c.at = uint32(at)
				j.copies = append(j.copies, c)
			}
			continue
		case kindRevoke:
			bad = bad || !j.checkTail(b)
			if err := j.revoke(b); err != nil {
				return err
			}
			continue
		case kindCommit:
			if bad || !j.checkSum(b, commitSum) {
				return fsys.Uncertain("bad checksum in transaction %d of the journal", sequence)
			}
			for i := range j.copies[pending:] {
				j.copies[pending+i].committed = true
			}
			pending = len(j.copies)
			sequence++
			continue
		}
		break
	}
	slices.SortStableFunc(j.copies, func(a, b logged) int { return cmp.Compare(a.block, b.block) })
	slices.Sort(j.revoked)
	return nil
}

// tags returns the copies that a descriptor lists.
func (j *journal) tags(b []byte, sequence uint32) []logged {
	var list []logged
	size := 8
	switch {
	case j.features&journalCsum3 != 0:
		size = 16
	case j.features&journalCsum2 != 0:
		size += 2
	}
	if j.features&(journal64Bit|journalCsum3) == journal64Bit {
		size += 4
	}
	end := len(b)
	if j.csum() {
		end -= 4
	}
	for off := journalHeader; off+size <= end; {
		t := b[off:]
		c := logged{block: uint64(binary.BigEndian.Uint32(t)), sequence: sequence}
		var flags, high uint32
		if j.features&journalCsum3 != 0 {
			flags, high, c.sum = binary.BigEndian.Uint32(t[4:]), binary.BigEndian.Uint32(t[8:]), binary.BigEndian.Uint32(t[12:])
		} else {
			c.sum, flags = uint32(binary.BigEndian.Uint16(t[4:])), uint32(binary.BigEndian.Uint16(t[6:]))
			if j.features&journal64Bit != 0 {
				high = binary.BigEndian.Uint32(t[8:])
			}
		}
		if j.features&journal64Bit != 0 {
			c.block |= uint64(high) << 32
		}
		c.escaped = flags&tagEscape != 0
		list = append(list, c)
		off += size
		if flags&tagSameUUID == 0 {
			off += 16
		}
		if flags&tagLast != 0 {
			break
		}
	}
	return list
}

// revoke takes note of the blocks of a revocation.
func (j *journal) revoke(b []byte) error {
	size := 4
	if j.features&journal64Bit != 0 {
		size = 8
	}
	end := int64(binary.BigEndian.Uint32(b[journalHeader:]))
	if end > int64(len(b)) {
		return fsys.Uncertain("the journal has a revocation of %d bytes", end)
	}
	for off := journalHeader + 4; int64(off+size) <= end; off += size {
		block := uint64(binary.BigEndian.Uint32(b[off:]))
		if size == 8 {
			block = binary.BigEndian.Uint64(b[off:])
		}
		j.revoked = append(j.revoked, block)
	}
	return nil
}

// checkTail tells whether a descriptor or revocation has a good checksum.
func (j *journal) checkTail(b []byte) bool { return j.checkSum(b, len(b)-4) }

// checkSum tells whether b has the checksum of itself at off, where checksums
// are in use. It leaves zeros in its place.
func (j *journal) checkSum(b []byte, off int) bool {
	if !j.csum() {
		return true
	}
	want := binary.BigEndian.Uint32(b[off:])
	clear(b[off : off+4])
	return crc32c(j.seed, b) == want
}

// has tells whether the log has a copy of a block.
func (j *journal) has(block uint64) bool {
	_, ok := slices.BinarySearchFunc(j.copies, block, func(c logged, block uint64) int { return cmp.Compare(c.block, block) })
	return ok
}

// find returns the copies of a block in the order of the log, and the index
// of the last that would be replayed, -1 if none.
func (j *journal) find(block uint64) (copies []logged, last int, err error) {
	if _, ok := slices.BinarySearch(j.revoked, block); ok {
		return nil, -1, fsys.Uncertain("the journal revokes block %d, which tells what is allocated", block)
	}
	i, _ := slices.BinarySearchFunc(j.copies, block, func(c logged, block uint64) int { return cmp.Compare(c.block, block) })
	last = -1
	for n := i; n < len(j.copies) && j.copies[n].block == block; n++ {
		if j.copies[n].committed {
			last = n - i
		}
		copies = j.copies[i : n+1]
	}
	return copies, last, nil
}

// readCopy fills b with a copy as it was before it was put in the log.
func (j *journal) readCopy(c logged, b []byte) error {
	if err := j.readBlock(uint64(c.at), b); err != nil {
		return err
	}
	if j.csum() && c.committed {
		sum := crc32c(crc32c(j.seed, binary.BigEndian.AppendUint32(nil, c.sequence)), b)
		if j.features&journalCsum3 == 0 {
			sum &= math.MaxUint16
		}
		if sum != c.sum {
			return fsys.Uncertain("bad checksum of block %d of the journal", c.at)
		}
	}
	if c.escaped {
		binary.BigEndian.PutUint32(b, journalMagic)
	}
	return nil
}
