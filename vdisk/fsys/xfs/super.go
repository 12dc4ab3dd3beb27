package xfs

import (
	"bytes"
	"io"
	"math/bits"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// A superblock is the first sector. By offset:
//
//	0x00 magic[4] "XFSB"   0x04 blocksize[4]  0x08 blocks[8]     0x20 uuid[16]
//	0x30 logstart[8]       0x54 groupblocks[4] 0x58 groups[4]    0x60 logblocks[4]
//	0x64 version[2]        0x66 sectorsize[2] 0x6c label[12]     0x78 blocklog[1]
//	0x7c groupblocklog[1]  0x7e inprogress[1] 0xc8 features2[4]  0xcc features2[4]
//	0xd4 rocompat[4]       0xd8 incompat[4]   0xdc logincompat[4]
//	0xe0 checksum[4]       0xf8 metauuid[16]
//
// The second features2 is where old kernels put it by mistake. What is from
// 0xd0 on counts in version 5, which is the lower four bits of version.
// logstart is the group in the bits from groupblocklog on, and the block in it.
const (
	superSize  = 512
	magicSuper = "XFSB"
	superCRC   = 0xe0

	minBlockLog    = 9
	maxBlockLog    = 16
	minSector      = 512
	maxSector      = 32 << 10
	minGroupBlocks = 64
)

// Features. Under those that are known, the trees of free space tell what is
// free, as this package reads them.
//
//	versions   0x0010 attributes 0x0020 links 0x0040 quota 0x0080 align
//	           0x0100 stripes 0x0400 log version 2 0x0800 sectors 0x1000
//	           unwritten extents 0x2000 directories version 2 0x4000 letters
//	           of ASCII 0x8000 features2: none does anything to allocation
//	features2  0x002 lazy counters 0x008 attributes version 2 0x080 project
//	           numbers 0x100 checksums 0x200 types in directories: the same
//	rocompat   0x1 tree of free inodes 0x2 tree of owners 0x4 shared blocks
//	           0x8 counters of inode blocks: their blocks are not in the tree
//	incompat   0x01 types 0x02 sparse inodes 0x08 times 0x20 counters 0x40
//	           exchange 0x80 parents: none; 0x04 metauuid: done
//
// Not among them: 0x0200 of versions (shared versions), 0x10 of incompat, which
// says that it has to be repaired, 0x100 (directories of metadata), 0x200 and
// 0x400 (zones), and what has no name yet.
const (
	knownVersion   = 0xfdf0
	versionMore    = 0x8000
	knownFeatures2 = 0x38a
	knownROCompat  = 0xf
	knownIncompat  = 0xef
	knownLog       = 0x1

	incompatMetaUUID = 0x04
	incompatRepair   = 0x10
)

// A volume is what a superblock says. It is immutable after unpackSuper.
type volume struct {
	r           io.ReaderAt
	uuid        [16]byte
	metaUUID    [16]byte // in all metadata of version 5
	label       string
	version     int // 4 or 5
	sectorSize  int64
	blockSize   int64
	blockLog    uint8
	blocks      int64
	groupBlocks int64
	groups      int64
	logOff      int64 // bytes
	logSize     int64
}

// unpackSuper reads a superblock that has its magic. The error is uncertain;
// what could be read is set nevertheless.
func unpackSuper(b []byte) (*volume, error) {
	label, _, _ := bytes.Cut(b[0x6c:0x78], []byte{0})
	v := &volume{
		uuid: [16]byte(b[0x20:]), metaUUID: [16]byte(b[0x20:]), label: string(label),
		version: int(be16(b[0x64:]) & 15), sectorSize: int64(be16(b[0x66:])), blockLog: b[0x78],
	}
	features := be32(b[0xc8:]) | be32(b[0xcc:])
	switch {
	case v.version != 4 && v.version != 5:
		return v, fsys.Uncertain("unknown version %d of XFS", v.version)
	case b[0x7e] != 0:
		return v, fsys.Uncertain("mkfs.xfs has not finished it")
	}
	if unknown := be16(b[0x64:]) &^ 15 &^ knownVersion; unknown != 0 {
		return v, fsys.Uncertain("unknown features %#x of its version", unknown)
	}
	if unknown := features &^ knownFeatures2; unknown != 0 && be16(b[0x64:])&versionMore != 0 {
		return v, fsys.Uncertain("unknown features %#x of the second kind", unknown)
	}
	if v.version == 5 {
		if incompat := be32(b[0xd8:]); incompat&incompatRepair != 0 {
			return v, fsys.Uncertain("it has to be repaired")
		} else if unknown := incompat &^ knownIncompat; unknown != 0 {
			return v, fsys.Uncertain("unknown incompatible features %#x", unknown)
		} else if incompat&incompatMetaUUID != 0 {
			v.metaUUID = [16]byte(b[0xf8:])
		}
		if unknown := be32(b[0xd4:]) &^ knownROCompat; unknown != 0 {
			return v, fsys.Uncertain("unknown read-only compatible features %#x", unknown)
		}
		if unknown := be32(b[0xdc:]) &^ knownLog; unknown != 0 {
			return v, fsys.Uncertain("unknown features %#x of its log", unknown)
		}
	}
	return v, v.geometry(b)
}

// geometry reads where things lie.
func (v *volume) geometry(b []byte) error {
	if v.blockLog < minBlockLog || v.blockLog > maxBlockLog || be32(b[0x04:]) != 1<<v.blockLog {
		return fsys.Uncertain("blocks of %d bytes", be32(b[0x04:]))
	}
	v.blockSize = 1 << v.blockLog
	if v.sectorSize < minSector || v.sectorSize > maxSector || bits.OnesCount64(uint64(v.sectorSize)) != 1 {
		return fsys.Uncertain("sectors of %d bytes", v.sectorSize)
	}
	blocks := be64(b[0x08:])
	v.groupBlocks, v.groups = int64(be32(b[0x54:])), int64(be32(b[0x58:]))
	if blocks == 0 || blocks>>(62-v.blockLog) != 0 || v.groupBlocks < minGroupBlocks || (int64(blocks)-1)/v.groupBlocks+1 != v.groups {
		return fsys.Uncertain("%d blocks in %d groups of %d", blocks, v.groups, v.groupBlocks)
	}
	v.blocks = int64(blocks)
	if n := bits.Len64(uint64(v.groupBlocks - 1)); int(b[0x7c]) != n {
		return fsys.Uncertain("groups of %d blocks are numbered in %d bits", v.groupBlocks, b[0x7c])
	}
	start, n := int64(be64(b[0x30:])), int64(be32(b[0x60:]))
	if start == 0 {
		return fsys.Uncertain("its log is on another device")
	}
	g, at := start>>b[0x7c], start&(1<<b[0x7c]-1)
	if g < 0 || g >= v.groups || n == 0 || at < v.headerBlocks() || at+n > v.groupLength(g) {
		return fsys.Uncertain("its log is of %d blocks from %#x on", n, start)
	}
	v.logOff, v.logSize = (g*v.groupBlocks+at)<<v.blockLog, n<<v.blockLog
	return nil
}

// checkSuper verifies the checksum of the superblock.
func (v *volume) checkSuper() error {
	if v.version < 5 {
		return nil
	}
	b := make([]byte, v.sectorSize)
	if err := disk.ReadFull(v.r, b, 0); err != nil {
		return err
	}
	if !checksum(b, superCRC) {
		return fsys.Uncertain("bad checksum of the superblock")
	}
	return nil
}

// groupLength returns how many blocks group g has: the last one has fewer.
func (v *volume) groupLength(g int64) int64 {
	return min(v.groupBlocks, v.blocks-g*v.groupBlocks)
}

// headerBlocks returns how many blocks the four sectors take that each group
// begins with.
func (v *volume) headerBlocks() int64 { return (4*v.sectorSize + v.blockSize - 1) / v.blockSize }
