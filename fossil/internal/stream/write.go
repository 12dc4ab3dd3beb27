package stream

import (
	"bytes"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
)

// A cursor is a stream whose entry lies in a block that the transaction owns.
type cursor struct {
	tx    *buffer.Tx
	addr  uint32 // of the block
	index int    // of the entry in it
	e     format.Entry
}

// own returns a cursor for s. It copies what it must on the way from the root
// block.
func (s *Stream) own(tx *buffer.Tx) (*cursor, error) {
	c := &cursor{tx: tx}
	if s.parent == nil {
		super := tx.Super()
		p := format.Local(super.Active)
		own, err := tx.Own(p, format.Dir, format.RootTag)
		if err != nil {
			return nil, err
		}
		c.addr = super.Active
		if !own {
			if c.addr, _, err = tx.Writable(p, format.Dir, format.RootTag); err != nil {
				return nil, err
			}
			super.Active = c.addr
			tx.SetSuper(super)
		}
		return c, c.read(s, format.RootTag)
	}
	up, err := s.parent.own(tx)
	if err != nil {
		return nil, err
	}
	n := s.slot / entries(&up.e)
	if c.addr, err = up.owned(n, 0); err != nil {
		return nil, err
	}
	c.index = int(s.slot % entries(&up.e))
	return c, c.read(s, up.e.Tag)
}

// read reads the entry of s, of whose block it knows the tag.
func (c *cursor) read(s *Stream, tag uint32) error {
	data, err := c.tx.Get(format.Local(c.addr), format.Dir, tag)
	if err != nil {
		return err
	}
	if c.e, err = s.check(c.tx, data, c.index); err != nil {
		return err
	}
	if c.e.Snap != 0 {
		return ErrReadOnly
	}
	return nil
}

// put writes the entry.
func (c *cursor) put() error {
	data, err := c.tx.Change(c.addr)
	if err != nil {
		return err
	}
	format.PutEntry(data, c.index, &c.e)
	return nil
}

// setRoot changes the root of the tree.
func (c *cursor) setRoot(p format.Pointer) error {
	c.e.Root, c.e.Local = p, p.IsLocal()
	if !c.e.Local {
		c.e.Tag = 0
	}
	return c.put()
}

// tag returns the tag for the stream's blocks.
func (c *cursor) tag() uint32 {
	if c.e.Tag == 0 {
		c.e.Tag = newTag()
	}
	return c.e.Tag
}

// typ returns the type of a block at a level.
func (c *cursor) typ(level int) format.Type { return c.e.LeafType() + format.Type(level) }

// owned returns the address of the block at a level of the tree that is over
// leaf n, or is it; the transaction owns it. Holes on the way become blocks.
func (c *cursor) owned(n int64, level int) (uint32, error) {
	np := c.e.Pointers()
	p, tag := c.e.Root, c.tag()
	set := c.setRoot
	for k := c.e.Depth; ; k-- {
		own := false
		var err error
		if p.IsLocal() {
			if own, err = c.tx.Own(p, c.typ(k), tag); err != nil {
				return 0, err
			}
		}
		addr, _ := p.Addr()
		if !own {
			if addr, _, err = c.tx.Writable(p, c.typ(k), tag); err != nil {
				return 0, err
			}
			if err := set(format.Local(addr)); err != nil {
				return 0, err
			}
		}
		if k == level {
			return addr, nil
		}
		data, err := c.tx.Get(format.Local(addr), c.typ(k), tag)
		if err != nil {
			return 0, err
		}
		i := int(n / power(np, k-1) % np)
		p = format.PointerAt(data, i)
		set = func(p format.Pointer) error { return c.setPointer(addr, i, p) }
	}
}

// setPointer changes a pointer in a block that the transaction owns.
func (c *cursor) setPointer(addr uint32, i int, p format.Pointer) error {
	data, err := c.tx.Change(addr)
	if err != nil {
		return err
	}
	format.PutPointer(data, i, p)
	return nil
}

// setLeaf makes p lead to leaf n.
func (c *cursor) setLeaf(n int64, p format.Pointer) error {
	if c.e.Depth == 0 {
		return c.setRoot(p)
	}
	addr, err := c.owned(n, 1)
	if err != nil {
		return err
	}
	return c.setPointer(addr, int(n%c.e.Pointers()), p)
}

// deepen makes the tree so deep that it can hold size bytes.
func (c *cursor) deepen(size int64) error {
	for want := c.e.DepthFor(size); c.e.Depth < want; {
		if c.e.Root == format.Hole {
			c.e.Depth = want
			return c.put()
		}
		tag := c.tag()
		addr, data, err := c.tx.Alloc(c.typ(c.e.Depth+1), tag, nil)
		if err != nil {
			return err
		}
		format.PutPointer(data, 0, c.e.Root)
		c.e.Depth++
		if err := c.setRoot(format.Local(addr)); err != nil {
			return err
		}
	}
	return nil
}

// MaxWrite is how many bytes a Write should have at most, so that its
// transaction is not too large.
const MaxWrite = 256 << 10

// Write writes p at off. A hole is left between the end and off.
func (s *Stream) Write(tx *buffer.Tx, p []byte, off int64) error {
	c, err := s.own(tx)
	if err != nil || len(p) == 0 {
		return err
	}
	end := off + int64(len(p))
	if end > c.e.MaxSize() || end < 0 {
		return ErrTooBig
	}
	ds := int64(c.e.DSize)
	if off > c.e.Size {
		if err := c.clearTail(); err != nil {
			return err
		}
	}
	if err := c.deepen(end); err != nil {
		return err
	}
	for n := off / ds; n*ds < end; n++ {
		lo, hi := max(off, n*ds), min(end, (n+1)*ds)
		if err := c.writeLeaf(n, lo-n*ds, p[lo-off:hi-off]); err != nil {
			return err
		}
	}
	if end > c.e.Size {
		c.e.Size = end
		return c.put()
	}
	return nil
}

// writeLeaf writes p at an offset of leaf n.
func (c *cursor) writeLeaf(n, at int64, p []byte) error {
	old, err := pointer(c.tx, &c.e, n)
	if err != nil {
		return err
	}
	data := make([]byte, c.tx.BlockSize())
	valid := max(0, min(c.e.Size-n*int64(c.e.DSize), int64(c.e.DSize)))
	if at > 0 || int64(len(p)) < valid {
		was, err := c.tx.Get(old, c.e.LeafType(), c.e.Tag)
		if err != nil {
			return err
		}
		// What lies behind the end may be left from a write that was never
		// complete.
		copy(data, was[:valid])
	}
	copy(data[at:], p)
	return c.putLeaf(n, old, data)
}

// putLeaf gives leaf n, to which old leads, new contents.
func (c *cursor) putLeaf(n int64, old format.Pointer, data []byte) error {
	if zero(data) {
		if old == format.Hole {
			return nil
		}
		if err := c.setLeaf(n, format.Hole); err != nil {
			return err
		}
		return c.unlink(old, 0)
	}
	if old.IsLocal() {
		own, err := c.tx.Own(old, c.e.LeafType(), c.e.Tag)
		if err != nil {
			return err
		}
		if addr, _ := old.Addr(); own {
			c.tx.Overwrite(addr, data)
			return nil
		}
	}
	return c.replaceLeaf(n, old, data)
}

// replaceLeaf gives leaf n another block.
func (c *cursor) replaceLeaf(n int64, old format.Pointer, data []byte) error {
	addr, err := c.tx.Replace(old, c.e.LeafType(), c.tag(), data)
	if err != nil {
		return err
	}
	return c.setLeaf(n, format.Local(addr))
}

// unlink lets go of the tree under p. A tag that the entry has lost meanwhile
// is the one that its blocks had.
func (c *cursor) unlink(p format.Pointer, level int) error {
	tag := c.e.Tag
	if addr, ok := p.Addr(); ok && tag == 0 {
		l, err := c.tx.Label(addr)
		if err != nil {
			return err
		}
		tag = l.Tag
	}
	return c.tx.Unlink(p, c.typ(level), tag)
}

func zero(b []byte) bool {
	for len(b) >= len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

var zeros [512]byte

// clearTail sees to it that the bytes of the last leaf behind the end are
// zeros, before the stream grows past them.
func (c *cursor) clearTail() error {
	ds := int64(c.e.DSize)
	n, valid := c.e.Size/ds, c.e.Size%ds
	if valid == 0 {
		return nil
	}
	p, err := pointer(c.tx, &c.e, n)
	if err != nil {
		return err
	}
	was, err := c.tx.Get(p, c.e.LeafType(), c.e.Tag)
	if err != nil || zero(was[valid:ds]) {
		return err
	}
	data := make([]byte, len(was))
	copy(data, was[:valid])
	return c.putLeaf(n, p, data)
}

// Resize makes the stream size bytes long. What it loses is gone: growing
// again shows zeros.
func (s *Stream) Resize(tx *buffer.Tx, size int64) error {
	c, err := s.own(tx)
	if err != nil {
		return err
	}
	switch {
	case size > c.e.MaxSize() || size < 0:
		return ErrTooBig
	case size == 0:
		root, level := c.e.Root, c.e.Depth
		if err := c.unlink(root, level); err != nil {
			return err
		}
		c.e.Depth, c.e.Size = 0, 0
		return c.setRoot(format.Hole)
	case size >= c.e.Size:
		if size == c.e.Size {
			return nil
		}
		if err := c.clearTail(); err != nil {
			return err
		}
		if err := c.deepen(size); err != nil {
			return err
		}
	default:
		if err := c.shrink(size); err != nil {
			return err
		}
	}
	c.e.Size = size
	return c.put()
}

// shrink lets go of what lies behind size, which is not 0.
func (c *cursor) shrink(size int64) error {
	if err := c.clear(c.e.Leaves(size), reach(&c.e)); err != nil {
		return err
	}
	// All that is left is under the first pointer of each block that is too
	// high.
	for want := c.e.DepthFor(size); c.e.Depth > want; {
		root := c.e.Root
		if root == format.Hole {
			c.e.Depth = want
			break
		}
		data, err := c.tx.Get(root, c.typ(c.e.Depth), c.e.Tag)
		if err != nil {
			return err
		}
		p, tag := format.PointerAt(data, 0), c.e.Tag
		if err := c.tx.Drop(root, c.typ(c.e.Depth), tag); err != nil {
			return err
		}
		c.e.Depth--
		if err := c.setRoot(p); err != nil {
			return err
		}
	}
	ds := int64(c.e.DSize)
	n, valid := size/ds, size%ds
	if valid == 0 {
		return nil
	}
	p, err := pointer(c.tx, &c.e, n)
	if err != nil || p == format.Hole {
		return err
	}
	was, err := c.tx.Get(p, c.e.LeafType(), c.e.Tag)
	if err != nil || zero(was[valid:]) {
		return err
	}
	data := make([]byte, len(was))
	copy(data, was[:valid])
	if zero(data) {
		return c.putLeaf(n, p, data)
	}
	// Not in place: the old end must be there if this is not committed.
	return c.replaceLeaf(n, p, data)
}

// clear makes holes of the leaves in [lo, hi).
func (c *cursor) clear(lo, hi int64) error {
	hi = min(hi, reach(&c.e))
	if lo >= hi || c.e.Root == format.Hole {
		return nil
	}
	if lo == 0 && hi == reach(&c.e) {
		root := c.e.Root
		if err := c.unlink(root, c.e.Depth); err != nil {
			return err
		}
		return c.setRoot(format.Hole)
	}
	return c.clearUnder(c.e.Depth, 0, lo, hi)
}

// clearUnder makes holes of the leaves in [lo, hi) that are under the block at
// a level whose first leaf is base; not all that are under it.
func (c *cursor) clearUnder(level int, base, lo, hi int64) error {
	np := c.e.Pointers()
	span := power(np, level-1)
	data, err := c.peek(level, base)
	if err != nil || data == nil {
		return err
	}
	var whole []int // children that go, with all under them
	local := false
	var parts []int64
	for i := range np {
		first := base + i*span
		p := format.PointerAt(data, int(i))
		switch {
		case first+span <= lo || first >= hi || p == format.Hole:
		case lo <= first && first+span <= hi:
			whole = append(whole, int(i))
			local = local || p.IsLocal()
		default:
			parts = append(parts, first)
		}
	}
	if len(whole) > 0 {
		addr, err := c.owned(base, level)
		if err != nil {
			return err
		}
		data, err := c.tx.Change(addr)
		if err != nil {
			return err
		}
		// They become the children of a block of their own, which is let go of
		// as one tree.
		gone := bytes.Clone(data)
		format.Extend(gone, 0, c.typ(level))
		for _, i := range whole {
			format.PutPointer(gone, i, format.PointerAt(data, i))
			format.PutPointer(data, i, format.Hole)
		}
		if local {
			trash, _, err := c.tx.Alloc(c.typ(level), c.e.Tag, gone)
			if err != nil {
				return err
			}
			if err := c.tx.Unlink(format.Local(trash), c.typ(level), c.e.Tag); err != nil {
				return err
			}
		}
	}
	for _, first := range parts {
		if err := c.clearUnder(level-1, first, lo, hi); err != nil {
			return err
		}
	}
	return nil
}

// peek returns the block at a level over leaf n, nil if it is a hole.
func (c *cursor) peek(level int, n int64) ([]byte, error) {
	np := c.e.Pointers()
	p := c.e.Root
	for k := c.e.Depth; p != format.Hole; k-- {
		data, err := c.tx.Get(p, c.typ(k), c.e.Tag)
		if err != nil || k == level {
			return data, err
		}
		p = format.PointerAt(data, int(n/power(np, k-1)%np))
	}
	return nil, nil
}

// Punch makes zeros of the bytes in [off, off+n), in a time that depends on the
// pointers that lead there. The size stays.
func (s *Stream) Punch(tx *buffer.Tx, off, n int64) error {
	c, err := s.own(tx)
	if err != nil {
		return err
	}
	if off >= c.e.Size || n <= 0 || off < 0 {
		return nil
	}
	end := c.e.Size
	if n < c.e.Size-off {
		end = off + n
	}
	ds := int64(c.e.DSize)
	lo, hi := (off+ds-1)/ds, end/ds // the leaves that are inside
	if end == c.e.Size {
		hi = max(lo, reach(&c.e))
	}
	zeroPart := func(from, to int64) error {
		n := from / ds
		p, err := pointer(tx, &c.e, n)
		if err != nil || p == format.Hole || from >= to {
			return err
		}
		was, err := tx.Get(p, c.e.LeafType(), c.e.Tag)
		if err != nil {
			return err
		}
		data := bytes.Clone(was)
		clear(data[from-n*ds : to-n*ds])
		return c.putLeaf(n, p, data)
	}
	if lo > hi { // inside one leaf
		return zeroPart(off, end)
	}
	if err := zeroPart(off, lo*ds); err != nil {
		return err
	}
	if err := zeroPart(hi*ds, end); err != nil {
		return err
	}
	return c.clear(lo, hi)
}
