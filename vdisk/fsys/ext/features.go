package ext

import "math/bits"

// Features, by the three words of the superblock. A driver that does not know
// a bit of incompat must not mount the file system, one that does not know a bit
// of roCompat must not write to it, and one that does not know a bit of compat
// may do both. So an unknown compat bit cannot hide allocated blocks, and the
// other two can.
const (
	compatHasJournal = 1 << 2
	compatSparse2    = 1 << 9  // two backups of the superblock, where the superblock says
	compatFastCommit = 1 << 10 // the journal has an area of another format
)

const (
	incompatRecover    = 1 << 2 // the journal holds what the file system does not
	incompatJournalDev = 1 << 3 // this is the journal of another device
	incompatMetaBG     = 1 << 4 // descriptors lie in the groups that they describe
	incompatExtents    = 1 << 6
	incompat64Bit      = 1 << 7 // block numbers of 64 bits, descriptors of 64 bytes or more
	incompatFlexBG     = 1 << 9 // bitmaps and inode tables may lie in other groups
	incompatCsumSeed   = 1 << 13
)

const (
	roSparseSuper  = 1 << 0
	roGDTCsum      = 1 << 4 // descriptors have a CRC-16; groups may be uninitialised
	roBigalloc     = 1 << 9
	roMetadataCsum = 1 << 10 // all metadata have a CRC-32C; groups may be uninitialised
)

// knownIncompat are the incompatible features under which the block bitmaps
// tell what is allocated, as this package reads them. What each does to
// allocation, by the kernel's Documentation/filesystems/ext4:
//
//	0x00002 filetype     none: a byte in directory entries
//	0x00004 recover      the journal is read too
//	0x00010 meta_bg      moves the descriptors: done
//	0x00040 extent       none: how an inode maps its blocks
//	0x00080 64bit        widens the descriptors: done
//	0x00100 mmp          one block, marked in its bitmap
//	0x00200 flex_bg      moves the bitmaps: done
//	0x00400 ea_inode     none: attribute values are inodes, their blocks are marked
//	0x02000 csum_seed    the checksum seed is stored: done
//	0x04000 largedir     none: deeper directory trees
//	0x08000 inline_data  none: small files live in their inodes
//	0x10000 encrypt      none: contents of files and names
//	0x20000 casefold     none: names
//
// Not among them, so that the region is stored whole: 0x1 compression (the
// bitmap of a cluster was special), 0x8 journal_dev (another format), 0x1000
// dirdata (not in the kernel), and what has no name yet.
const knownIncompat = 0x00002 | incompatRecover | incompatMetaBG | incompatExtents | incompat64Bit |
	0x00100 | incompatFlexBG | 0x00400 | incompatCsumSeed | 0x04000 | 0x08000 | 0x10000 | 0x20000

// knownROCompat are the read-only compatible features under which the same
// holds:
//
//	0x00001 sparse_super   fewer backups: done
//	0x00002 large_file     none
//	0x00004 btree_dir      none: never used
//	0x00008 huge_file      none: units of an inode's block count
//	0x00010 gdt_csum       uninitialised groups: done
//	0x00020 dir_nlink      none
//	0x00040 extra_isize    none
//	0x00100 quota          none: quotas are inodes, their blocks are marked
//	0x00200 bigalloc       a bit of a bitmap is a cluster: done
//	0x00400 metadata_csum  checksums: checked
//	0x01000 readonly       none
//	0x02000 project        none
//	0x08000 verity         none: hash trees lie past the end of files, their blocks are marked
//	0x10000 orphan_present none: inodes that are still to be freed, their blocks are marked
//
// Not among them: 0x80 has_snapshot, 0x800 replica, 0x4000 shared_blocks (none
// is in the kernel) and what has no name yet.
const knownROCompat = roSparseSuper | 0x00002 | 0x00004 | 0x00008 | roGDTCsum | 0x00020 | 0x00040 | 0x00100 |
	roBigalloc | roMetadataCsum | 0x01000 | 0x02000 | 0x08000 | 0x10000

// What ext2 and ext3 know, as blkid(8) tells the three apart.
const (
	ext2Incompat = 0x00002 | incompatMetaBG
	ext3Incompat = ext2Incompat | incompatRecover
	ext3ROCompat = roSparseSuper | 0x00002 | 0x00004
)

// kind returns the name that blkid(8) gives to a file system with these
// features.
func kind(compat, incompat, roCompat uint32) string {
	journal := compat&compatHasJournal != 0
	switch {
	case incompat&incompatJournalDev != 0:
		return "jbd"
	case !journal && incompat&^ext2Incompat == 0 && roCompat&^uint32(ext3ROCompat) == 0:
		return "ext2"
	case journal && incompat&^ext3Incompat == 0 && roCompat&^uint32(ext3ROCompat) == 0:
		return "ext3"
	}
	return "ext4"
}

// powerOfTwo tells whether n is one.
func powerOfTwo(n uint64) bool { return bits.OnesCount64(n) == 1 }
