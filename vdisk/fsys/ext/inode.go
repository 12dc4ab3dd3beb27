package ext

import (
	"encoding/binary"
	"slices"

	"strata/vdisk/fsys"
)

// An inode is inodesize bytes of its group's inode table. Integers are
// little-endian. By offset:
//
//	0x00 mode[2]        0x04 sizelo[4]    0x20 flags[4]
//	0x28 blocks[60]     0x64 generation[4] 0x6c sizehi[4]
//	0x7c checksumlo[2]  0x80 extrasize[2] 0x82 checksumhi[2]
//
// checksum is the CRC-32C of the seed, the inode's number[4], its generation
// and the inode with its checksums as 0; an inode without checksumhi keeps the
// low half.
//
// blocks are twelve block numbers[4], and the numbers of blocks that hold
// numbers once, twice and thrice removed; or, with flag 0x80000, the root of a
// tree. A node of the tree is
//
//	magic[2] 0xf30a  entries[2] max[2] depth[2] generation[4] entry[12]*max checksum[4]
//
// where the root has no checksum, and an entry at depth 0 is
//
//	logical[4] length[2] starthi[2] startlo[4]
//
// with a length above 32768 for blocks that are reserved but read as zeros,
// and at other depths
//
//	logical[4] leaflo[4] leafhi[2] 0[2]
//
// checksum is the CRC-32C of the inode's seed (the first three of the above)
// and the node before it.
const (
	flagExtents = 0x80000
	flagInline  = 0x10000000
	modeType    = 0xf000
	modeRegular = 0x8000

	nodeMagic  = 0xf30a
	nodeHeader = 12
	nodeEntry  = 12
	maxDepth   = 5
	maxLength  = 32768
)

// A run is blocks of a file that lie one after the other. A file's runs follow
// each other from its start.
type run struct {
	logical, physical, length uint64
}

// A mapper collects the runs of a file until it has all the blocks that are
// wanted.
type mapper struct {
	v    *volume
	want uint64
	have uint64
	runs []run
	seed uint32 // of the inode's checksums
}

// add appends n blocks at block at. It reports whether more are wanted.
func (m *mapper) add(at, n uint64) (bool, error) {
	n = min(n, m.want-m.have)
	if at <= m.v.superBlock() || at >= m.v.blocks || n > m.v.blocks-at {
		return false, fsys.Uncertain("the journal has a block at %d", at)
	}
	if i := len(m.runs) - 1; i >= 0 && m.runs[i].physical+m.runs[i].length == at {
		m.runs[i].length += n
	} else {
		m.runs = append(m.runs, run{m.have, at, n})
	}
	m.have += n
	return m.have < m.want, nil
}

// readInode returns the bytes of an inode and the seed of its checksums.
func (v *volume) readInode(number uint32) ([]byte, uint32, error) {
	if number == 0 || uint64(number) > v.groups()*v.groupInodes {
		return nil, 0, fsys.Uncertain("there is no inode %d", number)
	}
	g, index := uint64(number-1)/v.groupInodes, uint64(number-1)%v.groupInodes
	block := make([]byte, v.blockSize)
	if err := v.readMeta(v.descBlock(g/v.descsPerBlock()), block); err != nil {
		return nil, 0, err
	}
	b := block[g%v.descsPerBlock()*v.descSize:][:v.descSize]
	d := v.unpackDesc(b)
	if err := v.checkDesc(g, b, &d); err != nil {
		return nil, 0, err
	}
	perBlock := v.blockSize / v.inodeSize
	if err := v.readMeta(d.inodeTable+index/perBlock, block); err != nil {
		return nil, 0, err
	}
	inode := block[index%perBlock*v.inodeSize:][:v.inodeSize]

	seed := crc32c(v.seed, binary.LittleEndian.AppendUint32(nil, number))
	seed = crc32c(seed, inode[0x64:0x68])
	if v.csum() {
		want := uint32(binary.LittleEndian.Uint16(inode[0x7c:]))
		sum := slices.Clone(inode)
		clear(sum[0x7c:0x7e])
		high := v.inodeSize > 128 && binary.LittleEndian.Uint16(inode[0x80:]) >= 4
		if high {
			want |= uint32(binary.LittleEndian.Uint16(inode[0x82:])) << 16
			clear(sum[0x82:0x84])
		}
		got := crc32c(seed, sum)
		if !high {
			got &= 0xffff
		}
		if got != want {
			return nil, 0, fsys.Uncertain("bad checksum of inode %d", number)
		}
	}
	return inode, seed, nil
}

// fileRuns returns where the blocks of a regular file lie: all of them, at
// most limit. A file with a hole, or with a block in two places, is
// uncertain.
func (v *volume) fileRuns(number uint32, limit uint64) ([]run, error) {
	inode, seed, err := v.readInode(number)
	if err != nil {
		return nil, err
	}
	flags := binary.LittleEndian.Uint32(inode[0x20:])
	size := uint64(binary.LittleEndian.Uint32(inode[0x04:])) | uint64(binary.LittleEndian.Uint32(inode[0x6c:]))<<32
	if binary.LittleEndian.Uint16(inode)&modeType != modeRegular || flags&flagInline != 0 || size/v.blockSize == 0 {
		return nil, fsys.Uncertain("inode %d is not a file of blocks", number)
	}
	m := &mapper{v: v, want: size / v.blockSize, seed: seed}
	if m.want > limit {
		return nil, fsys.Uncertain("inode %d has %d blocks", number, m.want)
	}
	blocks := inode[0x28:][:60]
	if flags&flagExtents != 0 {
		_, err = m.node(blocks, -1)
	} else {
		err = m.pointers(blocks)
	}
	if err != nil {
		return nil, err
	}
	if m.have < m.want {
		return nil, fsys.Uncertain("inode %d has %d blocks of %d", number, m.have, m.want)
	}
	byPlace := slices.Clone(m.runs)
	slices.SortFunc(byPlace, func(a, b run) int {
		if a.physical < b.physical {
			return -1
		}
		return 1
	})
	for i := 1; i < len(byPlace); i++ {
		if byPlace[i-1].physical+byPlace[i-1].length > byPlace[i].physical {
			return nil, fsys.Uncertain("inode %d has block %d twice", number, byPlace[i].physical)
		}
	}
	return m.runs, nil
}

// node maps what a node of an extent tree leads to. depth is what its parent
// makes it, or -1 for the root. It reports whether more is wanted.
func (m *mapper) node(b []byte, depth int) (bool, error) {
	entries := int(binary.LittleEndian.Uint16(b[2:]))
	room := int(binary.LittleEndian.Uint16(b[4:]))
	own := int(binary.LittleEndian.Uint16(b[6:]))
	if binary.LittleEndian.Uint16(b) != nodeMagic || entries == 0 || entries > room ||
		nodeHeader+room*nodeEntry > len(b) || own > maxDepth || depth >= 0 && own != depth {
		return false, fsys.Uncertain("the journal has a bad extent tree")
	}
	if depth >= 0 && m.v.csum() {
		at := nodeHeader + room*nodeEntry
		if at+4 > len(b) || crc32c(m.seed, b[:at]) != binary.LittleEndian.Uint32(b[at:]) {
			return false, fsys.Uncertain("bad checksum of the journal's extent tree")
		}
	}
	for i := range entries {
		e := b[nodeHeader+i*nodeEntry:]
		if uint64(binary.LittleEndian.Uint32(e)) != m.have {
			return false, fsys.Uncertain("the journal has a hole at block %d", m.have)
		}
		var more bool
		var err error
		if own == 0 {
			length := uint64(binary.LittleEndian.Uint16(e[4:]))
			start := uint64(binary.LittleEndian.Uint32(e[8:])) | uint64(binary.LittleEndian.Uint16(e[6:]))<<32
			if length == 0 || length > maxLength {
				return false, fsys.Uncertain("the journal is not written at block %d", m.have)
			}
			more, err = m.add(start, length)
		} else {
			child := make([]byte, m.v.blockSize)
			leaf := uint64(binary.LittleEndian.Uint32(e[4:])) | uint64(binary.LittleEndian.Uint16(e[8:]))<<32
			if err := m.v.readBlock(leaf, child); err != nil {
				return false, err
			}
			more, err = m.node(child, own-1)
		}
		if err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// pointers maps the fifteen block numbers of an inode.
func (m *mapper) pointers(b []byte) error {
	for i := range 15 {
		more, err := m.pointer(uint64(binary.LittleEndian.Uint32(b[4*i:])), max(0, i-11))
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// pointer maps block at, or what the numbers in it lead to where it is level
// times removed. It reports whether more is wanted.
func (m *mapper) pointer(at uint64, level int) (bool, error) {
	switch {
	case at == 0:
		return false, fsys.Uncertain("the journal has a hole at block %d", m.have)
	case level == 0:
		return m.add(at, 1)
	}
	b := make([]byte, m.v.blockSize)
	if err := m.v.readBlock(at, b); err != nil {
		return false, err
	}
	for ; len(b) > 0; b = b[4:] {
		more, err := m.pointer(uint64(binary.LittleEndian.Uint32(b)), level-1)
		if err != nil || !more {
			return false, err
		}
	}
	return true, nil
}
