package ext

import (
	"bytes"
	"encoding/binary"
	"math"

	"strata/vdisk/fsys"
)

// A superblock is 1024 bytes at byte 1024 of the file system. Its integers
// are little-endian. What this package reads of it is, by offset:
//
//	0x000 inodes[4]          0x004 blockslo[4]        0x014 firstblock[4]
//	0x018 logblocksize[4]    0x01c logclustersize[4]  0x020 groupblocks[4]
//	0x024 groupclusters[4]   0x028 groupinodes[4]     0x038 magic[2] 0xef53
//	0x03a state[2]           0x04c revision[4]        0x058 inodesize[2]
//	0x05c compat[4]          0x060 incompat[4]        0x064 rocompat[4]
//	0x068 uuid[16]           0x078 label[16]          0x0ce reservedgdt[2]
//	0x0e0 journalinode[4]    0x0e4 journaldevice[4]   0x0fe descsize[2]
//	0x104 firstmetabg[4]     0x150 blockshi[4]        0x175 checksumtype[1]
//	0x24c backupgroups[4]*2  0x270 checksumseed[4]    0x3fc checksum[4]
//
// Blocks are of 1024<<logblocksize bytes, at most 64 KiB. Revision 0 has no
// features and inodes of 128 bytes. checksum is the CRC-32C of what is before
// it.
const (
	superOff  = 1024
	superSize = 1024
	magic     = 0xef53

	maxLogBlockSize = 6
	// mke2fs makes groups of 256 blocks at least; fewer would only multiply work.
	minGroupBlocks = 256
)

// Bits of state.
const (
	stateValid = 1 << 0 // unmounted cleanly, or it has a journal
	stateError = 1 << 1
)

// A super is what a superblock says, checked by unpackSuper.
type super struct {
	geometry
	state                      uint16
	compat, incompat, roCompat uint32
	uuid                       [16]byte
	label                      string
	journalInode               uint32
	journalDevice              uint32
}

// A geometry is what decides where the groups, their bitmaps and their
// backups lie.
type geometry struct {
	blockSize     uint64 // bytes
	clusterBlocks uint64 // blocks to a bit of a bitmap: 1 but for bigalloc
	blocks        uint64
	firstBlock    uint64 // the first one that is in a group
	groupBlocks   uint64
	groupClusters uint64
	groupInodes   uint64
	inodeSize     uint64 // bytes
	descSize      uint64 // bytes
	reservedGDT   uint64
	firstMetaBG   uint64
	backupGroups  [2]uint64 // of sparse_super2
	seed          uint32    // of checksums
}

// csum tells whether all metadata have checksums.
func (s *super) csum() bool { return s.roCompat&roMetadataCsum != 0 }

// lazy tells whether groups may be uninitialised.
func (s *super) lazy() bool { return s.roCompat&(roMetadataCsum|roGDTCsum) != 0 }

// groups returns how many groups there are, the last one perhaps shorter.
func (s *super) groups() uint64 {
	return (s.blocks - s.firstBlock + s.groupBlocks - 1) / s.groupBlocks
}

// groupStart returns the first block of group g.
func (s *super) groupStart(g uint64) uint64 { return s.firstBlock + g*s.groupBlocks }

// groupEnd returns the first block after group g.
func (s *super) groupEnd(g uint64) uint64 { return min(s.groupStart(g+1), s.blocks) }

// inodeBlocks returns the length of a group's inode table in blocks.
func (s *super) inodeBlocks() uint64 {
	return (s.groupInodes*s.inodeSize + s.blockSize - 1) / s.blockSize
}

// superBlock returns the block that the superblock is in.
func (s *super) superBlock() uint64 { return superOff / s.blockSize }

// isSuper tells whether b, a superblock's bytes, is one at all.
func isSuper(b []byte) bool {
	return binary.LittleEndian.Uint16(b[0x38:]) == magic &&
		binary.LittleEndian.Uint32(b[0x18:]) <= maxLogBlockSize &&
		binary.LittleEndian.Uint32(b[0x4c:]) <= 1
}

// unpackSuper reads a superblock for which isSuper is true. The error is
// uncertain; what identifies the file system is set nevertheless.
func unpackSuper(b []byte) (*super, error) {
	le16 := func(off int) uint64 { return uint64(binary.LittleEndian.Uint16(b[off:])) }
	le32 := func(off int) uint64 { return uint64(binary.LittleEndian.Uint32(b[off:])) }
	label, _, _ := bytes.Cut(b[0x78:0x88], []byte{0})
	s := &super{
		geometry: geometry{
			blockSize:     1024 << le32(0x18),
			clusterBlocks: 1,
			blocks:        le32(0x04),
			firstBlock:    le32(0x14),
			groupBlocks:   le32(0x20),
			groupClusters: le32(0x20),
			groupInodes:   le32(0x28),
			inodeSize:     128,
			descSize:      32,
		},
		state: uint16(le16(0x3a)),
		uuid:  [16]byte(b[0x68:0x78]),
		label: string(label),
	}
	if le32(0x4c) > 0 {
		s.compat, s.incompat, s.roCompat = uint32(le32(0x5c)), uint32(le32(0x60)), uint32(le32(0x64))
		s.inodeSize = le16(0x58)
	}
	if s.incompat&incompatJournalDev != 0 {
		return s, fsys.Uncertain("it is the journal of another file system")
	}
	if unknown := s.incompat &^ uint32(knownIncompat); unknown != 0 {
		return s, fsys.Uncertain("unknown incompatible features %#x", unknown)
	}
	if unknown := s.roCompat &^ uint32(knownROCompat); unknown != 0 {
		return s, fsys.Uncertain("unknown read-only compatible features %#x", unknown)
	}
	if s.csum() {
		if b[0x175] != 1 {
			return s, fsys.Uncertain("unknown checksum type %d", b[0x175])
		}
		if crc32c(math.MaxUint32, b[:0x3fc]) != uint32(le32(0x3fc)) {
			return s, fsys.Uncertain("bad checksum of the superblock")
		}
		s.seed = crc32c(math.MaxUint32, s.uuid[:])
		if s.incompat&incompatCsumSeed != 0 {
			s.seed = uint32(le32(0x270))
		}
	}
	if s.incompat&incompat64Bit != 0 {
		s.blocks |= le32(0x150) << 32
		s.descSize = le16(0xfe)
		if s.descSize < 64 || s.descSize > s.blockSize || !powerOfTwo(s.descSize) {
			return s, fsys.Uncertain("descriptors of %d bytes", s.descSize)
		}
	}
	if s.roCompat&roBigalloc != 0 {
		log := le32(0x1c)
		if log < le32(0x18) || log-le32(0x18) > 16 {
			return s, fsys.Uncertain("clusters of 1024<<%d bytes", log)
		}
		s.clusterBlocks = 1 << (log - le32(0x18))
		s.groupClusters = le32(0x24)
	}
	s.reservedGDT = le16(0xce)
	if s.incompat&incompatMetaBG != 0 {
		s.firstMetaBG = le32(0x104)
	}
	if s.compat&compatSparse2 != 0 {
		s.backupGroups = [2]uint64{le32(0x24c), le32(0x250)}
	}
	if s.compat&compatHasJournal != 0 {
		s.journalInode, s.journalDevice = uint32(le32(0xe0)), uint32(le32(0xe4))
	}
	return s, s.check(le32(0))
}

// check refuses a superblock whose numbers do not fit together. inodes is how
// many it says there are.
func (s *super) check(inodes uint64) error {
	first := uint64(0)
	if s.blockSize == 1024 && s.roCompat&roBigalloc == 0 {
		first = 1
	}
	switch {
	case s.firstBlock != first || s.blocks <= s.firstBlock:
		return fsys.Uncertain("%d blocks from block %d", s.blocks, s.firstBlock)
	case s.blocks > math.MaxInt64/s.blockSize:
		return fsys.Uncertain("%d blocks", s.blocks)
	case s.groupClusters == 0 || s.groupClusters > 8*s.blockSize || s.groupClusters%8 != 0,
		s.groupBlocks < minGroupBlocks, s.groupBlocks != s.groupClusters*s.clusterBlocks:
		return fsys.Uncertain("groups of %d blocks in %d clusters", s.groupBlocks, s.groupClusters)
	case s.inodeSize < 128 || s.inodeSize > s.blockSize || !powerOfTwo(s.inodeSize):
		return fsys.Uncertain("inodes of %d bytes", s.inodeSize)
	case s.groupInodes == 0 || s.groupInodes > 8*s.blockSize || s.groups()*s.groupInodes != inodes:
		return fsys.Uncertain("%d inodes in %d groups of %d", inodes, s.groups(), s.groupInodes)
	case s.state&stateError != 0:
		return fsys.Uncertain("it is marked with errors")
	case s.state&stateValid == 0:
		return fsys.Uncertain("it was not unmounted cleanly")
	case s.incompat&incompatRecover != 0 && s.compat&compatHasJournal == 0:
		return fsys.Uncertain("it needs recovery and has no journal")
	}
	return nil
}

// describe fills in what identifies the file system.
func (s *super) describe(fs *fsys.FileSystem) {
	// Mounted for writing, it has one or the other: with a journal the flag that
	// this is to be recovered, without one no mark of being valid.
	fs.Clean = s.state&stateValid != 0 && s.incompat&incompatRecover == 0
	fs.Type = kind(s.compat, s.incompat, s.roCompat)
	fs.UUID, fs.Label = fsys.UUID(s.uuid), s.label
	fs.BlockSize = int(s.blockSize)
	if s.blocks <= math.MaxInt64/s.blockSize {
		fs.Size = int64(s.blocks * s.blockSize)
	}
}
