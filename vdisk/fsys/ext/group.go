package ext

import (
	"encoding/binary"
	"math"

	"strata/vdisk/fsys"
)

// A group descriptor is 32 bytes, or descsize of them with 64bit, of which
// 64 are in use. Integers are little-endian. By offset:
//
//	0x00 blockbitmaplo[4]  0x04 inodebitmaplo[4]  0x08 inodetablelo[4]
//	0x0c freelo[2]         0x12 flags[2]          0x18 bitmapsumlo[2]
//	0x1e checksum[2]       0x20 blockbitmaphi[4]  0x24 inodebitmaphi[4]
//	0x28 inodetablehi[4]   0x2c freehi[2]         0x38 bitmapsumhi[2]
//
// free counts clusters. checksum is the low half of the CRC-32C of the seed,
// the group's number[4] and the descriptor with its checksum as 0
// (metadata_csum), or the CRC-16 of the UUID, the number and the descriptor
// without its checksum (gdt_csum). bitmapsum is the CRC-32C of the seed and the
// bitmap's groupclusters/8 bytes; 32 byte descriptors keep its low half.
//
// The bitmap of an uninitialised group is not written yet. It is what
// metaBitmap makes.
const (
	descChecksum  = 0x1e
	blockUninit   = 1 << 1
	descSize64    = 64
	descSizePlain = 32
)

type desc struct {
	blockBitmap, inodeBitmap, inodeTable uint64
	free                                 uint64 // clusters
	flags                                uint16
	bitmapSum                            uint32
}

// uninit tells whether the group's block bitmap is not written yet.
func (d *desc) uninit(s *super) bool { return s.lazy() && d.flags&blockUninit != 0 }

// unpackDesc reads the descriptor at the start of b.
func (s *super) unpackDesc(b []byte) desc {
	le16 := func(off int) uint64 { return uint64(binary.LittleEndian.Uint16(b[off:])) }
	le32 := func(off int) uint64 { return uint64(binary.LittleEndian.Uint32(b[off:])) }
	d := desc{
		blockBitmap: le32(0x00), inodeBitmap: le32(0x04), inodeTable: le32(0x08),
		free: le16(0x0c), flags: uint16(le16(0x12)), bitmapSum: uint32(le16(0x18)),
	}
	if s.descSize >= descSize64 {
		d.blockBitmap |= le32(0x20) << 32
		d.inodeBitmap |= le32(0x24) << 32
		d.inodeTable |= le32(0x28) << 32
		d.free |= le16(0x2c) << 16
		d.bitmapSum |= uint32(le16(0x38) << 16)
	}
	return d
}

// checkDesc verifies the checksum of group g's descriptor, the bytes b, and
// that what d, read from them, names is inside the file system.
func (s *super) checkDesc(g uint64, b []byte, d *desc) error {
	var number [4]byte
	binary.LittleEndian.PutUint32(number[:], uint32(g))
	want := binary.LittleEndian.Uint16(b[descChecksum:])
	got := want
	switch {
	case s.csum():
		sum := crc32c(crc32c(s.seed, number[:]), b[:descChecksum])
		sum = crc32c(crc32c(sum, []byte{0, 0}), b[descChecksum+2:s.descSize])
		got = uint16(sum)
	case s.lazy():
		got = crc16(crc16(crc16(math.MaxUint16, s.uuid[:]), number[:]), b[:descChecksum])
		if s.descSize > descSizePlain {
			got = crc16(got, b[descSizePlain:s.descSize])
		}
	}
	if got != want {
		return fsys.Uncertain("bad checksum of the descriptor of group %d", g)
	}
	first, end := s.firstBlock, s.blocks
	if s.incompat&incompatFlexBG == 0 {
		first, end = s.groupStart(g), s.groupEnd(g)
	}
	for _, x := range []struct{ at, n uint64 }{{d.blockBitmap, 1}, {d.inodeBitmap, 1}, {d.inodeTable, s.inodeBlocks()}} {
		if x.at < first || x.at >= end || x.n > end-x.at {
			return fsys.Uncertain("the metadata of group %d lie at block %d", g, x.at)
		}
	}
	return nil
}

// descsPerBlock returns how many descriptors a block holds.
func (s *super) descsPerBlock() uint64 { return s.blockSize / s.descSize }

// descBlocks returns how many blocks the descriptors of all groups fill.
func (s *super) descBlocks() uint64 {
	return (s.groups() + s.descsPerBlock() - 1) / s.descsPerBlock()
}

// descBlock returns where block n of the descriptors lies: after the
// superblock, or with meta_bg in the first of the groups that it describes.
func (s *super) descBlock(n uint64) uint64 {
	if s.incompat&incompatMetaBG == 0 || n < s.firstMetaBG {
		return s.superBlock() + 1 + n
	}
	g := n * s.descsPerBlock()
	at := s.groupStart(g)
	if s.hasSuper(g) {
		at++
		if g == 0 && s.blockSize == 1024 && s.firstBlock == 0 {
			at++ // block 0 is the boot block, block 1 the superblock
		}
	}
	return at
}

// hasSuper tells whether group g starts with a copy of the superblock.
func (s *super) hasSuper(g uint64) bool {
	switch {
	case g == 0:
		return true
	case s.compat&compatSparse2 != 0:
		return g == s.backupGroups[0] || g == s.backupGroups[1]
	case g == 1 || s.roCompat&roSparseSuper == 0:
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		n := base
		for n < g {
			n *= base
		}
		if n == g {
			return true
		}
	}
	return false
}

// baseBlocks returns how many blocks at the start of group g hold copies of the
// superblock and of descriptors, or are reserved for more descriptors.
func (s *super) baseBlocks(g uint64) uint64 {
	n := uint64(0)
	if s.hasSuper(g) {
		n = 1
	}
	meta := g / s.descsPerBlock()
	if s.incompat&incompatMetaBG == 0 {
		if n > 0 {
			n += s.descBlocks() + s.reservedGDT
		}
		return n
	}
	if meta < s.firstMetaBG {
		if n > 0 {
			n += min(s.firstMetaBG, s.descBlocks()) + s.reservedGDT
		}
		return n
	}
	// The first, second and last group of those that a block of descriptors
	// describes have a copy of it.
	switch g - meta*s.descsPerBlock() {
	case 0, 1, s.descsPerBlock() - 1:
		n++
	}
	return n
}

// clusters returns how many bits of group g's bitmap count.
func (s *super) clusters(g uint64) uint64 {
	return (s.groupEnd(g) - s.groupStart(g) + s.clusterBlocks - 1) / s.clusterBlocks
}

// metaBitmap sets bitmap to what marks only group g's own metadata, as far as
// they lie in the group: the copies at its start, its bitmaps and its inodes.
func (s *super) metaBitmap(bitmap []byte, g uint64, d *desc) {
	clear(bitmap)
	start, end := s.groupStart(g), s.groupEnd(g)
	mark := func(at, n uint64) {
		for b := max(at, start); b < min(at+n, end); b++ {
			c := (b - start) / s.clusterBlocks
			bitmap[c/8] |= 1 << (c % 8)
		}
	}
	mark(start, s.baseBlocks(g))
	mark(d.blockBitmap, 1)
	mark(d.inodeBitmap, 1)
	mark(d.inodeTable, s.inodeBlocks())
}

// checkBitmap verifies a bitmap of an initialised group against its checksum.
func (s *super) checkBitmap(g uint64, bitmap []byte, d *desc) error {
	if !s.csum() {
		return nil
	}
	sum := crc32c(s.seed, bitmap[:s.groupClusters/8])
	if s.descSize < descSize64 {
		sum &= math.MaxUint16
	}
	if sum != d.bitmapSum {
		return fsys.Uncertain("bad checksum of the block bitmap of group %d", g)
	}
	return nil
}
