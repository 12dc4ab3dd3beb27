// Package stream keeps sequences of bytes, and directories of entries, as
// trees of blocks in a buffer. All work is done in the buffer's transactions:
//
//	s := stream.Root().Child(slot, gen, false)
//	err := b.Update(ctx, func(tx *buffer.Tx) error {
//		return s.Write(tx, data, off)
//	})
//
// A Stream says only where its entry is: in which slot of which directory,
// from the root block down. Nothing is kept between transactions, so nothing
// can be out of date.
//
// Blocks of the active tree's epoch are changed where they are; others are
// copied, up to the root block. Leaves of files are overwritten in place; all
// other blocks, and what a stream gives up, change with the transaction. A
// leaf of zeros becomes a hole.
package stream

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
)

// The errors that callers tell apart. Those of format and buffer come back
// too.
var (
	ErrRemoved  = errors.New("file has been removed")
	ErrDeleted  = errors.New("snapshot has been deleted")
	ErrReadOnly = errors.New("snapshot is read only")
	ErrTooBig   = errors.New("file too big")
)

// A Stream is where a stream's entry is. Move changes it, in the transaction
// that it is part of; who moves streams must have one Stream for each.
type Stream struct {
	parent *Stream // nil: the root block
	slot   int64
	gen    uint32
	dir    bool
}

// Root returns the directory stream that the root block describes.
func Root() *Stream { return &Stream{dir: true} }

// Child returns the stream in a slot of s. Its entry must have that
// generation, and be a directory's or not.
func (s *Stream) Child(slot int64, gen uint32, dir bool) *Stream {
	return &Stream{s, slot, gen, dir}
}

// Slot returns the slot of the stream's entry, and its generation.
func (s *Stream) Slot() (slot int64, gen uint32) { return s.slot, s.gen }

// entries returns how many entries a leaf of a directory has.
func entries(e *format.Entry) int64 { return int64(e.DSize / format.EntrySize) }

// Entry returns the entry of s. It fails with ErrRemoved when the slot has
// been given up, ErrDeleted when it is a snapshot's that is no longer kept.
func (s *Stream) Entry(tx *buffer.Tx) (format.Entry, error) {
	if s.parent == nil {
		data, err := tx.Get(format.Local(tx.Super().Active), format.Dir, format.RootTag)
		if err != nil {
			return format.Entry{}, err
		}
		return s.check(tx, data, 0)
	}
	up, err := s.parent.Entry(tx)
	if err != nil {
		return format.Entry{}, err
	}
	data, err := leaf(tx, &up, s.slot/entries(&up))
	if err != nil {
		return format.Entry{}, err
	}
	return s.check(tx, data, int(s.slot%entries(&up)))
}

// check returns the i-th entry of a block if it is that of s.
func (s *Stream) check(tx *buffer.Tx, data []byte, i int) (format.Entry, error) {
	e := format.EntryAt(data, i)
	gen := s.gen
	if s.parent == nil {
		if gen = e.Gen; !e.Active {
			return e, e.Check(tx.BlockSize())
		}
	}
	super := tx.Super()
	err := Check(&e, gen, s.dir, &super, tx.BlockSize())
	if err != nil && err != ErrRemoved && err != ErrDeleted {
		err = fmt.Errorf("slot %d: %w", s.slot, err)
	}
	return e, err
}

// Check tells whether what a slot has is the entry of a stream of that
// generation, a directory's or not, that can be opened.
func Check(e *format.Entry, gen uint32, dir bool, super *format.Super, blockSize int) error {
	if e.Gen != gen || !e.Active {
		return ErrRemoved
	}
	if err := e.Check(blockSize); err != nil {
		return err
	}
	switch {
	case e.Dir != dir:
		return fmt.Errorf("%w: one is a directory", format.ErrEntry)
	case e.Snap != 0 && e.Snap < super.EpochLow:
		return ErrDeleted
	case e.Snap >= super.EpochHigh:
		return fmt.Errorf("%w: snapshot of epoch %d", format.ErrEntry, e.Snap)
	}
	return nil
}

// pointer returns what leads to the n-th leaf of the tree under e.
func pointer(tx *buffer.Tx, e *format.Entry, n int64) (format.Pointer, error) {
	np := e.Pointers()
	if reach(e) <= n {
		return format.Hole, nil
	}
	p := e.Root
	for level := e.Depth; level > 0 && p != format.Hole; level-- {
		data, err := tx.Get(p, e.LeafType()+format.Type(level), e.Tag)
		if err != nil {
			return p, err
		}
		p = format.PointerAt(data, int(n/power(np, level-1)%np))
	}
	return p, nil
}

// reach returns how many leaves a tree as deep as e's can have.
func reach(e *format.Entry) int64 { return power(e.Pointers(), e.Depth) }

// power returns n to the k, or some large number.
func power(n int64, k int) int64 {
	r := int64(1)
	for range k {
		if r > 1<<40 {
			break
		}
		r *= n
	}
	return r
}

// leaf returns the n-th leaf of the tree under e.
func leaf(tx *buffer.Tx, e *format.Entry, n int64) ([]byte, error) {
	p, err := pointer(tx, e, n)
	if err != nil {
		return nil, err
	}
	return tx.Get(p, e.LeafType(), e.Tag)
}

// Leaf returns the n-th leaf of s, whole; it is not the caller's. Past the end
// it is zeros.
func (s *Stream) Leaf(tx *buffer.Tx, n int64) ([]byte, error) {
	e, err := s.Entry(tx)
	if err != nil {
		return nil, err
	}
	return leaf(tx, &e, n)
}

// Read returns the bytes in [off, off+n) that the stream has, in pieces, which
// do not change and are not the caller's. Memory that it needs for them is the buffer's, so n should
// not be large.
func (s *Stream) Read(tx *buffer.Tx, off int64, n int) ([][]byte, error) {
	e, err := s.Entry(tx)
	if err != nil {
		return nil, err
	}
	if off >= e.Size {
		return nil, nil
	}
	end := min(off+int64(n), e.Size)
	ds := int64(e.DSize)
	var list []format.Pointer
	for k := off / ds; k*ds < end; k++ {
		p, err := pointer(tx, &e, k)
		if err != nil {
			return nil, err
		}
		tx.Want(p, e.LeafType())
		list = append(list, p)
	}
	if err := tx.Missing(); err != nil {
		return nil, err
	}
	var pieces [][]byte
	for _, p := range list {
		data, err := tx.Get(p, e.LeafType(), e.Tag)
		if err != nil {
			return nil, err
		}
		k := off / ds
		pieces = append(pieces, data[off-k*ds:min(end-k*ds, ds)])
		off = (k + 1) * ds
	}
	return pieces, nil
}

// Data returns the first range at or after off that is not a hole, or the size
// twice. Its ends lie on leaves, but for off and the size. A range may be
// followed by another at once.
func (s *Stream) Data(tx *buffer.Tx, off int64) (start, end int64, err error) {
	e, err := s.Entry(tx)
	if err != nil {
		return 0, 0, err
	}
	ds, np := int64(e.DSize), e.Pointers()
	leaves := min(e.Leaves(e.Size), reach(&e))
search:
	for n := off / ds; n < leaves; {
		p := e.Root
		for level := e.Depth; ; level-- {
			if p == format.Hole {
				span := power(np, level)
				n = (n/span + 1) * span
				continue search
			}
			if level == 0 {
				return max(off, n*ds), min((n+1)*ds, e.Size), nil
			}
			data, err := tx.Get(p, e.LeafType()+format.Type(level), e.Tag)
			if err != nil {
				return 0, 0, err
			}
			if level == 1 { // the whole run in this block
				i := n % np
				for i < np && format.PointerAt(data, int(i)) == format.Hole {
					i++
				}
				first := n - n%np + i
				for i < np && format.PointerAt(data, int(i)) != format.Hole {
					i++
				}
				last := n - n%np + i
				if first == last || first >= leaves {
					n = last
					continue search
				}
				return max(off, first*ds), min(last*ds, e.Size), nil
			}
			p = format.PointerAt(data, int(n/power(np, level-1)%np))
		}
	}
	return e.Size, e.Size, nil
}

// newTag returns a tag for a stream.
func newTag() uint32 {
	for {
		if tag := rand.Uint32() >> 1; tag >= format.UserTag {
			return tag
		}
	}
}

// Want asks for the n-th leaf, so that it is fetched together with others.
func (s *Stream) Want(tx *buffer.Tx, n int64) {
	e, err := s.Entry(tx)
	if err != nil {
		return // whoever reads it will see
	}
	if p, err := pointer(tx, &e, n); err == nil {
		tx.Want(p, e.LeafType())
	}
}

// Pointer returns what leads to the n-th leaf.
func (s *Stream) Pointer(tx *buffer.Tx, n int64) (format.Pointer, error) {
	e, err := s.Entry(tx)
	if err != nil {
		return format.Hole, err
	}
	return pointer(tx, &e, n)
}
