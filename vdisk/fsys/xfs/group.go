package xfs

import (
	"math"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// The second sector of a group says what is free in it. By offset:
//
//	0x00 magic[4] "XAGF"  0x04 version[4] 1    0x08 group[4]  0x0c length[4]
//	0x10 root[4]          0x1c levels[4]       0x34 free[4]   0x40 uuid[16]
//	0xd8 checksum[4]
//
// where the last two are of version 5. root is the block of the group that is
// the root of a tree of free extents by place. A block of the tree is
//
//	0x00 magic[4] level[2] entries[2] left[4] right[4]
//
// and, of version 5,
//
//	0x10 place[8] lsn[8] uuid[16] group[4] checksum[4]
//
// where place is the block in units of 512 bytes. Then, of level 0, there are
// extents, start[4] length[4], and of others the first extent that each child
// leads to, for as many as there is room for, followed by the children[4].
const (
	magicGroup = "XAGF"
	groupCRC   = 0xd8

	magicTree4 = "ABTB"
	magicTree5 = "AB3B"
	treeHeader = 0x10
	treeLong   = 0x38
	treeCRC    = 0x34
	extentSize = 8
	childSize  = 4
	maxLevels  = 9
	noSibling  = math.MaxUint32
)

// walk calls yield with the free extents of each group until it returns
// false. It checks all that it uses.
func (v *volume) walk(yield func(fsys.Extent) bool) error {
	for g := range v.groups {
		more, err := v.group(g, yield)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// A walker goes through the tree of a group.
type walker struct {
	*volume
	group int64
	end   int64 // first block after the last extent
	free  int64 // blocks
	yield func(fsys.Extent) bool
}

// group walks the tree of one group. It reports whether more is wanted.
func (v *volume) group(g int64, yield func(fsys.Extent) bool) (bool, error) {
	b := make([]byte, v.sectorSize)
	if err := disk.ReadFull(v.r, b, g*v.groupBlocks<<v.blockLog+v.sectorSize); err != nil {
		return false, err
	}
	length := v.groupLength(g)
	switch {
	case string(b[:4]) != magicGroup || be32(b[4:]) != 1 || int64(be32(b[8:])) != g || int64(be32(b[0xc:])) != length,
		v.version == 5 && [16]byte(b[0x40:]) != v.metaUUID:
		return false, fsys.Uncertain("bad header of group %d", g)
	case v.version == 5 && !checksum(b, groupCRC):
		return false, fsys.Uncertain("bad checksum of the header of group %d", g)
	}
	levels := int64(be32(b[0x1c:]))
	if levels == 0 || levels > maxLevels {
		return false, fsys.Uncertain("the tree of group %d has %d levels", g, levels)
	}
	w := &walker{volume: v, group: g, end: v.headerBlocks(), yield: yield}
	more, err := w.node(int64(be32(b[0x10:])), int(levels-1), true)
	if err != nil || !more {
		return more, err
	}
	if want := int64(be32(b[0x34:])); w.free != want {
		return false, fsys.Uncertain("group %d has %d free blocks and counts %d", g, w.free, want)
	}
	return true, nil
}

// node walks a block of the tree. It reports whether more is wanted.
func (w *walker) node(block int64, level int, root bool) (bool, error) {
	if block < w.headerBlocks() || block >= w.groupLength(w.group) {
		return false, fsys.Uncertain("the tree of group %d has block %d", w.group, block)
	}
	at := w.group*w.groupBlocks + block
	b := make([]byte, w.blockSize)
	if err := disk.ReadFull(w.r, b, at<<w.blockLog); err != nil {
		return false, err
	}
	header, magic := treeHeader, magicTree4
	if w.version == 5 {
		header, magic = treeLong, magicTree5
		if int64(be64(b[0x10:])) != at<<(w.blockLog-9) || [16]byte(b[0x20:]) != w.metaUUID || int64(be32(b[0x30:])) != w.group || !checksum(b, treeCRC) {
			return false, fsys.Uncertain("bad checksum of the tree of group %d", w.group)
		}
	}
	room := (len(b) - header) / extentSize
	if level > 0 {
		room = (len(b) - header) / (extentSize + childSize)
	}
	n := int(be16(b[6:]))
	if string(b[:4]) != magic || int(be16(b[4:])) != level || n > room || n == 0 && (!root || level > 0) ||
		root && (be32(b[8:]) != noSibling || be32(b[0xc:]) != noSibling) {
		return false, fsys.Uncertain("bad block %d of the tree of group %d", block, w.group)
	}
	for i := range n {
		e := b[header+i*extentSize:]
		start, length := int64(be32(e)), int64(be32(e[4:]))
		if level > 0 {
			if start < w.end {
				return false, fsys.Uncertain("the tree of group %d is out of order at block %d", w.group, start)
			}
			child := be32(b[header+room*extentSize+i*childSize:])
			more, err := w.node(int64(child), level-1, false)
			if err != nil || !more {
				return more, err
			}
			continue
		}
		// Two free extents that touch are one.
		if start < w.end || start == w.end && w.free > 0 || length == 0 || length > w.groupLength(w.group)-start {
			return false, fsys.Uncertain("the tree of group %d is out of order at block %d", w.group, start)
		}
		w.end, w.free = start+length, w.free+length
		x := fsys.Extent{Off: (w.group*w.groupBlocks + start) << w.blockLog, Len: length << w.blockLog}
		if x.Off < w.logOff+w.logSize && x.End() > w.logOff {
			return false, fsys.Uncertain("group %d has the log as free", w.group)
		}
		if !w.yield(x) {
			return false, nil
		}
	}
	return true, nil
}
