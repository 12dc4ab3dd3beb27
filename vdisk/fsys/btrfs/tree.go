package btrfs

import (
	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// A tree block is nodesize bytes:
//
//	0x00 checksum[32]  0x20 uuid[16]  0x30 address[8]  0x50 generation[8]
//	0x58 owner[8]      0x60 items[4]  0x64 level[1]
//
// and from 0x65 on, of level 0, items, whose data are counted from there:
//
//	key[17] offset[4] size[4]
//
// and of other levels what leads to other tree blocks:
//
//	key[17] address[8] generation[8]
//
// A key is object[8] kind[1] offset[8].
const (
	nodeHeader = 0x65
	keySize    = 17
	itemSize   = 25
	childSize  = 33
)

// A node says where a tree block is and what it has to be.
type node struct {
	address, generation uint64
	level               int
}

// A key is that of an item.
type key struct {
	object uint64
	kind   uint8
	offset uint64
}

func unpackKey(b []byte) key { return key{le64(b), b[8], le64(b[9:])} }

// less tells whether k is before l.
func (k key) less(l key) bool {
	switch {
	case k.object != l.object:
		return k.object < l.object
	case k.kind != l.kind:
		return k.kind < l.kind
	}
	return k.offset < l.offset
}

// A walker goes through a tree in the order of its keys.
type walker struct {
	v       *volume
	last    key
	started bool // last is the key of an item
	each    func(k key, data []byte) error
}

// tree calls each with every item of a tree. Data are valid until it returns.
func (v *volume) tree(root node, each func(k key, data []byte) error) error {
	w := &walker{v: v, each: each}
	return w.walk(root, nil)
}

// walk goes through a tree block, whose first key is first unless it is a
// root.
func (w *walker) walk(n node, first *key) error {
	if n.level > maxLevel || n.level < 0 {
		return fsys.Uncertain("tree block %d is of level %d", n.address, n.level)
	}
	at, err := w.v.place(n.address, w.v.nodeSize)
	if err != nil {
		return err
	}
	b := make([]byte, w.v.nodeSize)
	if err := disk.ReadFull(w.v.r, b, at); err != nil {
		return err
	}
	w.v.nodes = append(w.v.nodes, n.address)
	if !w.v.checksum(b) || [16]byte(b[0x20:]) != w.v.nodeUUID || le64(b[0x30:]) != n.address || le64(b[0x50:]) != n.generation ||
		int(b[0x64]) != n.level || n.generation > w.v.generation {
		return fsys.Uncertain("bad tree block %d", n.address)
	}
	items := int64(le32(b[0x60:]))
	size := int64(itemSize)
	if n.level > 0 {
		size = childSize
	}
	if items > (int64(len(b))-nodeHeader)/size || items == 0 && first != nil {
		return fsys.Uncertain("tree block %d has %d items", n.address, items)
	}
	for i := range items {
		e := b[nodeHeader+i*size:]
		k := unpackKey(e)
		if i == 0 && first != nil && k != *first {
			return fsys.Uncertain("tree block %d begins with another key", n.address)
		}
		if n.level > 0 {
			if err := w.walk(node{le64(e[keySize:]), le64(e[keySize+8:]), n.level - 1}, &k); err != nil {
				return err
			}
			continue
		}
		if w.started && !w.last.less(k) {
			return fsys.Uncertain("tree block %d is out of order", n.address)
		}
		w.last, w.started = k, true
		off, length := int64(le32(e[keySize:])), int64(le32(e[keySize+4:]))
		if off+length > int64(len(b))-nodeHeader {
			return fsys.Uncertain("tree block %d has a bad item", n.address)
		}
		if err := w.each(k, b[nodeHeader+off:][:length]); err != nil {
			return err
		}
	}
	return nil
}

// The items that are read, by kind, with what their keys are:
//
//	132 a root    object: the tree; 0xb0 address[8] ... 0xa0 generation[8] ... 0xee level[1]
//	168 an extent object: its address, offset: its length
//	169 a tree block of skinny_metadata: object: its address, offset: its level
//	192 a block group: object: its address, offset: its length; used[8]
//
// A root is found in the root tree, the others are in the extent tree.
const (
	extentTree = 2

	kindRoot   = 132
	kindExtent = 168
	kindBlock  = 169
	kindGroup  = 192

	rootSize = 0xef
)

// readExtents marks all extents as used.
func (v *volume) readExtents(used bitmap) error {
	var root *node
	err := v.tree(v.root, func(k key, data []byte) error {
		if k.object != extentTree || k.kind != kindRoot {
			return nil
		}
		if len(data) < rootSize || root != nil {
			return fsys.Uncertain("it has no one extent tree")
		}
		root = &node{le64(data[0xb0:]), le64(data[0xa0:]), int(data[0xee])}
		return nil
	})
	if err != nil {
		return err
	}
	if root == nil {
		return fsys.Uncertain("it has no one extent tree")
	}
	var end, sum uint64 // of all extents
	err = v.tree(*root, func(k key, data []byte) error {
		n := k.offset
		switch k.kind {
		case kindExtent:
		case kindBlock:
			n = uint64(v.nodeSize)
		case kindGroup:
			return v.group(k, data)
		default:
			return nil
		}
		c := v.chunkAt(k.object, n)
		if c == nil || k.object < end || n == 0 || k.object%uint64(v.sectorSize) != 0 || n%uint64(v.sectorSize) != 0 {
			return fsys.Uncertain("an extent at %d of %d bytes", k.object, n)
		}
		end = k.object + n
		sum += n
		c.used += n
		for _, s := range c.stripes {
			at := int64(s + (k.object - c.start))
			used.set(at/v.sectorSize, (at+int64(n))/v.sectorSize)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if sum != v.used {
		return fsys.Uncertain("its extents are of %d bytes, and it counts %d", sum, v.used)
	}
	for _, c := range v.chunkMap {
		if v.groupsInTree && (!c.counted || c.want != c.used) {
			return fsys.Uncertain("block group %d has extents of %d bytes, and counts %d", c.start, c.used, c.want)
		}
	}
	return nil
}

// group takes note of what a block group counts.
func (v *volume) group(k key, data []byte) error {
	c := v.chunkAt(k.object, k.offset)
	if c == nil || c.start != k.object || c.length != k.offset || len(data) < 8 || c.counted {
		return fsys.Uncertain("a block group at %d of %d bytes", k.object, k.offset)
	}
	c.counted, c.want = true, le64(data)
	return nil
}
