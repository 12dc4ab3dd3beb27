package btrfs

import (
	"bytes"
	"crypto/sha256"
	"hash/crc32"
	"io"
	"math/bits"

	"strata/vdisk/fsys"
)

// A superblock is 4096 bytes at 64 KiB. All integers are little-endian. By
// offset:
//
//	0x00 checksum[32]    0x20 uuid[16]         0x30 place[8]       0x38 flags[8]
//	0x40 magic[8] "_BHRfS_M"                   0x48 generation[8]  0x50 root[8]
//	0x58 chunkroot[8]    0x60 logroot[8]       0x70 bytes[8]       0x78 used[8]
//	0x88 devices[8]      0x90 sectorsize[4]    0x94 nodesize[4]
//	0xa0 chunksize[4]    0xa4 chunkgeneration[8] 0xb4 rocompat[8]  0xbc incompat[8]
//	0xc4 checksumtype[2] 0xc6 rootlevel[1]     0xc7 chunklevel[1]
//	0xc9 device[8]       0xd1 devicesize[8]    0x12b label[256]
//	0x23b metadatauuid[16]                     0x32b chunks[2048]
//
// checksum is of what follows it, CRC-32C or SHA-256. chunks are those that the
// chunk tree itself lies in, chunksize bytes: keys, each with a chunk.
const (
	superOff   = 64 << 10
	superSize  = 4096
	magicSuper = "_BHRfS_M"
	sumSize    = 32
	flagSuper  = 1 << 0 // written: always there

	sumCRC    = 0
	sumSHA256 = 2

	maxChunkArray = 2048
	chunkArray    = 0x32b
	maxLevel      = 7
)

// Features under which the trees tell what is in use, as this package reads
// them:
//
//	incompat   0x001 mixed_backref 0x002 default_subvol 0x004 mixed_groups 0x008
//	           lzo 0x010 zstd 0x020 big_metadata 0x040 extended_iref 0x200
//	           no_holes 0x10000 simple_quota: none does anything to extents;
//	           0x100 skinny_metadata, 0x400 metadata_uuid: done
//	rocompat   0x1 free_space_tree 0x2 valid 0x4 verity: none; 0x8
//	           block_group_tree: their items are not in the extent tree
//
// Not among them: 0x80 raid56, 0x800 raid1c34, 0x1000 zoned, 0x2000
// extent_tree_v2, 0x4000 raid_stripe_tree, and what has no name yet.
const (
	knownIncompat = 0x1077f
	knownROCompat = 0xf

	incompatMetadataUUID = 0x400
	roCompatGroupTree    = 0x8
)

// A volume is what a superblock says. What is not of the superblock is set by
// readChunks.
type volume struct {
	r            io.ReaderAt
	uuid         [16]byte
	nodeUUID     [16]byte // in the headers of tree blocks
	label        string
	size         int64 // bytes of the device
	generation   uint64
	root, chunks node
	used         uint64 // bytes of all extents
	device       uint64
	sectorSize   int64
	nodeSize     int64
	sum          uint16
	groupsInTree bool // block groups have items in the extent tree
	chunkMap     []chunk
	nodes        []uint64 // the tree blocks that were read
}

// unpackSuper reads a superblock that has its magic. The error is uncertain;
// what could be read is set nevertheless.
func unpackSuper(b []byte) (*volume, error) {
	label, _, _ := bytes.Cut(b[0x12b:0x22b], []byte{0})
	v := &volume{
		uuid: [16]byte(b[0x20:]), nodeUUID: [16]byte(b[0x20:]), label: string(label), generation: le64(b[0x48:]),
		root: node{le64(b[0x50:]), le64(b[0x48:]), int(b[0xc6])}, chunks: node{le64(b[0x58:]), le64(b[0xa4:]), int(b[0xc7])},
		used: le64(b[0x78:]), device: le64(b[0xc9:]), sectorSize: int64(le32(b[0x90:])), nodeSize: int64(le32(b[0x94:])), sum: le16(b[0xc4:]),
		groupsInTree: le64(b[0xb4:])&roCompatGroupTree == 0,
	}
	incompat := le64(b[0xbc:])
	if incompat&incompatMetadataUUID != 0 {
		v.nodeUUID = [16]byte(b[0x23b:])
	}
	size := le64(b[0xd1:])
	switch {
	case v.sum != sumCRC && v.sum != sumSHA256:
		return v, fsys.Uncertain("unknown checksum type %d", v.sum)
	case !v.checksum(b):
		return v, fsys.Uncertain("bad checksum of the superblock")
	case incompat&^knownIncompat != 0:
		return v, fsys.Uncertain("unknown incompatible features %#x", incompat&^knownIncompat)
	case le64(b[0xb4:])&^knownROCompat != 0:
		return v, fsys.Uncertain("unknown read-only compatible features %#x", le64(b[0xb4:])&^knownROCompat)
	case le64(b[0x38:]) != flagSuper || le64(b[0x30:]) != superOff:
		return v, fsys.Uncertain("flags %#x of the superblock of %d", le64(b[0x38:]), le64(b[0x30:]))
	case le64(b[0x88:]) != 1:
		return v, fsys.Uncertain("it is on %d devices", le64(b[0x88:]))
	case le64(b[0x60:]) != 0:
		return v, fsys.Uncertain("it has a log of what was synced")
	case !sizeOK(v.sectorSize) || !sizeOK(v.nodeSize) || v.nodeSize < v.sectorSize:
		return v, fsys.Uncertain("sectors of %d bytes, tree blocks of %d", v.sectorSize, v.nodeSize)
	case size == 0 || size > 1<<60 || le64(b[0x70:]) != size || size < reserved:
		return v, fsys.Uncertain("%d bytes on a device of %d", le64(b[0x70:]), size)
	case le32(b[0xa0:]) > maxChunkArray:
		return v, fsys.Uncertain("%d bytes of chunks", le32(b[0xa0:]))
	}
	v.size = int64(size) / v.sectorSize * v.sectorSize
	return v, nil
}

func sizeOK(n int64) bool { return n >= 4096 && n <= 64<<10 && bits.OnesCount64(uint64(n)) == 1 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum verifies a superblock or tree block.
func (v *volume) checksum(b []byte) bool {
	if v.sum == sumSHA256 {
		sum := sha256.Sum256(b[sumSize:])
		return bytes.Equal(sum[:], b[:sumSize])
	}
	return crc32.Checksum(b[sumSize:], castagnoli) == le32(b)
}
