package buffer

import (
	"bytes"
	"fmt"
	"slices"

	"strata/fossil/internal/format"
	"strata/venti"
)

// A kind says how a changed block gets to the disk.
type kind int

const (
	changed   kind = iota // through the log
	fresh                 // to its place, before what points to it
	overwrote             // to its place, at any time
)

// A change is a block as an update leaves it.
type change struct {
	data []byte
	kind kind
	old  []byte // before the update, if it is changed
}

// A Tx is an update under way. It sees its own changes. Its methods return
// errors that the update must return too; then nothing was done.
type Tx struct {
	b        *Buffer
	leave    uint32 // so many free blocks
	super    format.Super
	superSet bool
	blocks   map[uint32]change
	taken    []uint32 // allocated
	freed    []uint32 // can be allocated once this is committed
	misses   []key
	intents  []intent
	done     []uint64
	publish  []func()
}

// Super returns the super block.
func (tx *Tx) Super() format.Super { return tx.super }

// SetSuper changes the super block.
func (tx *Tx) SetSuper(s format.Super) {
	s.Logged = true
	tx.super, tx.superSet = s, true
}

// Epoch returns the epoch of the active tree.
func (tx *Tx) Epoch() uint32 { return tx.super.EpochHigh }

// OnPublish has f called when the update succeeds, before others see it.
func (tx *Tx) OnPublish(f func()) { tx.publish = append(tx.publish, f) }

// have returns a block if it is in memory, and else asks for it.
func (tx *Tx) have(k key) ([]byte, error) {
	if k.block != onVenti {
		if c, ok := tx.blocks[k.block]; ok {
			return c.data, nil
		}
	}
	if data, ok := tx.b.cache.peek(k); ok {
		return data, nil
	}
	tx.misses = append(tx.misses, k)
	return nil, errMiss
}

// Label returns the label of a data block.
func (tx *Tx) Label(addr uint32) (format.Label, error) {
	block, off, err := tx.b.labelAt(addr)
	if err != nil {
		return format.Label{}, err
	}
	data, err := tx.have(localKey(block))
	if err != nil {
		return format.Label{}, err
	}
	return format.UnpackLabel(data[off:])
}

// setLabel changes the label of a data block.
func (tx *Tx) setLabel(addr uint32, l format.Label) error {
	block, off, err := tx.b.labelAt(addr)
	if err != nil {
		return err
	}
	data, err := tx.change(block)
	if err != nil {
		return err
	}
	l.Pack(data[off:])
	return nil
}

// change returns the bytes of a block for the update to change.
func (tx *Tx) change(block uint32) ([]byte, error) {
	if c, ok := tx.blocks[block]; ok {
		return c.data, nil
	}
	old, err := tx.have(localKey(block))
	if err != nil {
		return nil, err
	}
	data := bytes.Clone(old)
	tx.blocks[block] = change{data, changed, old}
	return data, nil
}

// Get is Buffer.Get. The block may be one that the update changes later.
func (tx *Tx) Get(p format.Pointer, t format.Type, tag uint32) ([]byte, error) {
	if p == format.Hole {
		return tx.b.emptyBlock(t), nil
	}
	addr, ok := p.Addr()
	if !ok {
		return tx.have(scoreKey(p.Score(), t))
	}
	l, err := tx.Label(addr)
	if err != nil {
		return nil, err
	}
	if err := match(addr, l, t, tag); err != nil {
		return nil, err
	}
	return tx.have(localKey(tx.b.h.Data + addr))
}

// Want asks for a block that the update will need, so that it is fetched
// together with others. A block in memory costs nothing.
func (tx *Tx) Want(p format.Pointer, t format.Type) {
	addr, ok := p.Addr()
	switch {
	case p == format.Hole:
	case !ok:
		tx.have(scoreKey(p.Score(), t))
	case addr < tx.b.h.Blocks():
		tx.have(localKey(tx.b.h.Data + addr))
		tx.WantLabel(addr)
	}
}

// WantLabel asks for the label of a block.
func (tx *Tx) WantLabel(addr uint32) {
	if block, _, err := tx.b.labelAt(addr); err == nil {
		if k := localKey(block); !slices.Contains(tx.misses, k) {
			tx.have(k)
		}
	}
}

// Missing tells whether something was asked for that is not in memory: the
// update may as well end.
func (tx *Tx) Missing() error {
	if len(tx.misses) > 0 {
		return errMiss
	}
	return nil
}

// Own tells whether p leads to a block that may be changed where it is: one
// of the partition, of the epoch of the active tree.
func (tx *Tx) Own(p format.Pointer, t format.Type, tag uint32) (bool, error) {
	addr, ok := p.Addr()
	if !ok {
		return false, nil
	}
	l, err := tx.Label(addr)
	if err != nil {
		return false, err
	}
	if err := match(addr, l, t, tag); err != nil {
		return false, err
	}
	return l.Epoch == tx.super.EpochHigh, nil
}

// Alloc allocates a block. It has the contents of data, which the update must
// not use any more, or is empty if data is nil; the update may change what is
// returned. Without room the error is ErrFull.
func (tx *Tx) Alloc(t format.Type, tag uint32, data []byte) (addr uint32, buf []byte, err error) {
	free := tx.b.free
	if free.free <= tx.leave {
		return 0, nil, ErrFull
	}
	addr, ok := free.take()
	if !ok {
		return 0, nil, ErrFull
	}
	tx.taken = append(tx.taken, addr)
	l := format.Label{State: format.Alloc, Type: t, Epoch: tx.super.EpochHigh, EpochClose: format.Open, Tag: tag}
	if err := tx.setLabel(addr, l); err != nil {
		return 0, nil, err
	}
	if data == nil {
		data = bytes.Clone(tx.b.emptyBlock(t))
	}
	tx.blocks[tx.b.h.Data+addr] = change{data, fresh, nil}
	return addr, data, nil
}

// Change returns the bytes of a block of metadata that the update owns, for
// it to change.
func (tx *Tx) Change(addr uint32) ([]byte, error) { return tx.change(tx.b.h.Data + addr) }

// Overwrite gives a leaf that the update owns new contents. They need not
// become durable together with the rest. data is the buffer's from now on.
func (tx *Tx) Overwrite(addr uint32, data []byte) {
	block := tx.b.h.Data + addr
	if c, ok := tx.blocks[block]; ok {
		tx.blocks[block] = change{data, c.kind, c.old}
		return
	}
	tx.blocks[block] = change{data, overwrote, nil}
}

// Writable returns the block of metadata that p leads to, for the update to
// change, and where it is: a copy, unless the update owns it. What led to the
// old one must lead to the new.
func (tx *Tx) Writable(p format.Pointer, t format.Type, tag uint32) (addr uint32, data []byte, err error) {
	own, err := tx.Own(p, t, tag)
	if err != nil {
		return 0, nil, err
	}
	if own {
		addr, _ = p.Addr()
		data, err = tx.Change(addr)
		return addr, data, err
	}
	old, err := tx.Get(p, t, tag)
	if err != nil {
		return 0, nil, err
	}
	data = bytes.Clone(old)
	if t == format.Dir && !p.IsLocal() {
		tidyEntries(data)
	}
	return tx.replace(p, t, tag, data)
}

// tidyEntries gives the entries of a block of Venti's the form of ours.
func tidyEntries(data []byte) {
	for i := range len(data) / format.EntrySize {
		if e := format.EntryAt(data, i); e.Active {
			format.PutEntry(data, i, &e)
		}
	}
}

// Replace allocates a block with the contents of data for the one that p leads
// to, which may be a hole, and which the active tree then links to no longer.
func (tx *Tx) Replace(p format.Pointer, t format.Type, tag uint32, data []byte) (addr uint32, err error) {
	addr, _, err = tx.replace(p, t, tag, data)
	return addr, err
}

func (tx *Tx) replace(p format.Pointer, t format.Type, tag uint32, data []byte) (addr uint32, buf []byte, err error) {
	if addr, buf, err = tx.Alloc(t, tag, data); err != nil {
		return 0, nil, err
	}
	old, ok := p.Addr()
	if !ok {
		return addr, buf, nil
	}
	l, err := tx.Label(old)
	if err != nil {
		return 0, nil, err
	}
	if l.Epoch != tx.super.EpochHigh {
		l.State |= format.Copied
	}
	return addr, buf, tx.close(old, l, tx.super.EpochHigh)
}

// close closes a block. l is its label.
func (tx *Tx) close(addr uint32, l format.Label, epoch uint32) error {
	l.State |= format.Closed
	l.EpochClose = epoch
	if err := tx.setLabel(addr, l); err != nil {
		return err
	}
	if l.Free(tx.super.EpochLow) {
		tx.freed = append(tx.freed, addr)
		delete(tx.blocks, tx.b.h.Data+addr)
	}
	return nil
}

// Drop closes the one block that p leads to, and not what it points to.
func (tx *Tx) Drop(p format.Pointer, t format.Type, tag uint32) error {
	addr, ok := p.Addr()
	if !ok {
		return nil
	}
	l, err := tx.Label(addr)
	if err != nil {
		return err
	}
	if err := match(addr, l, t, tag); err != nil {
		return err
	}
	if l.Epoch != tx.super.EpochHigh {
		l.State |= format.Copied // what it points to, others may soon
	}
	return tx.close(addr, l, tx.super.EpochHigh)
}

// Archived notes that Venti has the block of type t at addr, all of it if whole
// is true, and that its score stands where its address did in a block of an
// epoch. If that was alone in pointing to it, it is closed. Who had it in memory
// by its address has it by its score.
func (tx *Tx) Archived(addr uint32, t format.Type, score venti.Score, whole, alone bool, epoch uint32) error {
	l, err := tx.Label(addr)
	if err != nil {
		return err
	}
	if whole {
		l.State |= format.Venti
		tx.OnPublish(func() { tx.b.cache.alias(localKey(tx.b.h.Data+addr), scoreKey(score, t)) })
	}
	if alone {
		return tx.close(addr, l, epoch)
	}
	return tx.setLabel(addr, l)
}

// BlockSize returns the length of a block.
func (tx *Tx) BlockSize() int { return tx.b.h.BlockSize }

// String tells what the update does, for messages.
func (tx *Tx) String() string {
	return fmt.Sprintf("update of %d blocks, %d allocated, %d freed", len(tx.blocks), len(tx.taken), len(tx.freed))
}
