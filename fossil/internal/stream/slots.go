package stream

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
)

// slots returns how many slots the directory that e describes has.
func slots(e *format.Entry) int64 {
	ds := int64(e.DSize)
	return e.Size/ds*entries(e) + min(e.Size%ds/format.EntrySize, entries(e))
}

// Slots returns how many slots a directory has, in use or not.
func (s *Stream) Slots(tx *buffer.Tx) (int64, error) {
	e, err := s.Entry(tx)
	return slots(&e), err
}

// Create puts a new, empty stream into a free slot of the directory s: near
// the slot hint, or somewhere if hint is negative, so that entries that are
// made at once by many need not fight for a block.
func (s *Stream) Create(tx *buffer.Tx, hint int64, dir bool) (*Stream, error) {
	c, err := s.own(tx)
	if err != nil {
		return nil, err
	}
	per, n := entries(&c.e), slots(&c.e)
	from := hint
	if hint < 0 {
		from = rand.Int64N(n+1) / per * per
	}
	slot, gen, err := c.freeSlot(from)
	if err == nil && slot < 0 {
		if slot, gen, err = c.freeSlot(n / per * per); err == nil && slot < 0 {
			slot, gen, err = c.freeSlot((n/per + 1) * per)
		}
	}
	if err != nil {
		return nil, err
	}
	if slot < 0 {
		return nil, fmt.Errorf("directory: %w: no free slot", format.ErrEntry)
	}
	ds := int64(c.e.DSize)
	if end := slot/per*ds + (slot%per+1)*format.EntrySize; end > c.e.Size {
		if end > c.e.MaxSize() {
			return nil, ErrTooBig
		}
		if err := c.deepen(end); err != nil {
			return nil, err
		}
		c.e.Size = end
		if err := c.put(); err != nil {
			return nil, err
		}
	}
	e := format.NewEntry(c.e.DSize, dir)
	e.Gen = gen
	return s.Child(slot, gen, dir), c.putSlot(slot, &e)
}

// freeSlot returns the first slot from one on, in the same leaf, that a stream
// can have, and the generation that it has; -1 if there is none.
func (c *cursor) freeSlot(from int64) (slot int64, gen uint32, err error) {
	per := entries(&c.e)
	data, err := leaf(c.tx, &c.e, from/per)
	if err != nil {
		return 0, 0, err
	}
	for i := from % per; i < per; i++ {
		if e := format.EntryAt(data, int(i)); e.Usable() {
			return from/per*per + i, e.Gen, nil
		}
	}
	return -1, 0, nil
}

// putSlot writes an entry of the directory.
func (c *cursor) putSlot(slot int64, e *format.Entry) error {
	addr, err := c.owned(slot/entries(&c.e), 0)
	if err != nil {
		return err
	}
	data, err := c.tx.Change(addr)
	if err != nil {
		return err
	}
	format.PutEntry(data, int(slot%entries(&c.e)), e)
	return nil
}

// Remove lets go of the stream and frees its slot.
func (s *Stream) Remove(tx *buffer.Tx) error {
	c, err := s.own(tx)
	if err != nil {
		return err
	}
	if err := c.unlink(c.e.Root, c.e.Depth); err != nil {
		return err
	}
	c.e = c.e.Removed()
	return c.put()
}

// Move moves the stream to a free slot of the directory to. Nothing of it is
// copied.
func (s *Stream) Move(tx *buffer.Tx, to *Stream, hint int64) (*Stream, error) {
	next, err := to.Create(tx, hint, s.dir)
	if err != nil {
		return nil, err
	}
	c, err := s.own(tx)
	if err != nil {
		return nil, err
	}
	e := c.e
	c.e = c.e.Removed()
	if err := c.put(); err != nil {
		return nil, err
	}
	tx.OnPublish(func() { *s = *next })
	return next, next.Set(tx, e)
}

// Set replaces the entry of s by e, as it is, but for the generation. What the
// stream had must be nothing, or be what e has.
func (s *Stream) Set(tx *buffer.Tx, e format.Entry) error {
	c, err := s.own(tx)
	if err != nil {
		return err
	}
	e.Gen = c.e.Gen
	c.e = e
	return c.put()
}

// ChangeLeaf returns the n-th leaf of metadata of s for the transaction to
// change. The stream grows by whole leaves as need be.
func (s *Stream) ChangeLeaf(tx *buffer.Tx, n int64) ([]byte, error) {
	c, err := s.own(tx)
	if err != nil {
		return nil, err
	}
	if end := (n + 1) * int64(c.e.DSize); end > c.e.Size {
		if end > c.e.MaxSize() {
			return nil, ErrTooBig
		}
		if err := c.deepen(end); err != nil {
			return nil, err
		}
		c.e.Size = end
		if err := c.put(); err != nil {
			return nil, err
		}
	}
	addr, err := c.owned(n, 0)
	if err != nil {
		return nil, err
	}
	data, err := c.tx.Change(addr)
	if err != nil {
		return nil, err
	}
	return data[:c.e.DSize], nil
}

// OwnEntry returns the entry of s, whose block the transaction then owns: there
// is no pointer of the same epoch to what the entry leads to but this one.
func (s *Stream) OwnEntry(tx *buffer.Tx) (format.Entry, error) {
	c, err := s.own(tx)
	if err != nil {
		return format.Entry{}, err
	}
	return c.e, nil
}

// Forget frees the slot of s, which is that of a dead snapshot, and leaves what
// it leads to alone.
func (s *Stream) Forget(tx *buffer.Tx) error {
	if _, err := s.Entry(tx); !errors.Is(err, ErrDeleted) {
		if err == nil {
			err = ErrReadOnly
		}
		return err
	}
	up, err := s.parent.own(tx)
	if err != nil {
		return err
	}
	data, err := leaf(tx, &up.e, s.slot/entries(&up.e))
	if err != nil {
		return err
	}
	e := format.EntryAt(data, int(s.slot%entries(&up.e)))
	e = e.Removed()
	return up.putSlot(s.slot, &e)
}

// At returns what a slot of the directory s has, whatever that is.
func (s *Stream) At(tx *buffer.Tx, slot int64) (format.Entry, error) {
	e, err := s.Entry(tx)
	if err != nil {
		return e, err
	}
	data, err := leaf(tx, &e, slot/entries(&e))
	if err != nil {
		return e, err
	}
	return format.EntryAt(data, int(slot%entries(&e))), nil
}

// ErrChanged is why a slot is not cleared: it is not what it was.
var ErrChanged = errors.New("slot has changed")

// Clear frees a slot of the directory s that holds e, and leaves what e leads to
// alone: for those who repair.
func (s *Stream) Clear(tx *buffer.Tx, slot int64, e format.Entry) error {
	c, err := s.own(tx)
	if err != nil {
		return err
	}
	data, err := leaf(tx, &c.e, slot/entries(&c.e))
	if err != nil {
		return err
	}
	if format.EntryAt(data, int(slot%entries(&c.e))) != e {
		return ErrChanged
	}
	e = e.Removed()
	return c.putSlot(slot, &e)
}
