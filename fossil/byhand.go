package fossil

import (
	"context"
	"errors"
	"fmt"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
)

// What is here works on blocks, as the console's commands label, block, clre and
// clrp do: whatever they are part of. Files that are in use may not like it.

// Label returns the label of a data block. One that makes no sense comes with an
// error that wraps format.ErrLabel.
func (fs *FS) Label(ctx context.Context, addr uint32) (format.Label, error) {
	l, err := fs.b.Label(ctx, addr)
	return l, translate(err)
}

// SetLabel changes the label of a data block, and with it whether it is free. It
// returns the old one.
func (fs *FS) SetLabel(ctx context.Context, addr uint32, change func(l format.Label) format.Label) (old format.Label, err error) {
	err = fs.b.UpdatePrivileged(ctx, func(tx *buffer.Tx) error {
		var err error
		if old, err = tx.Label(addr); err != nil && !errors.Is(err, format.ErrLabel) {
			return err
		}
		now := change(old)
		if _, err := format.UnpackLabel(packLabel(now)); err != nil {
			return err
		}
		return tx.SetLabel(addr, now)
	})
	if err == nil {
		err = fs.b.Sync(ctx)
	}
	return old, translate(err)
}

func packLabel(l format.Label) []byte {
	b := make([]byte, format.LabelSize)
	l.Pack(b)
	return b
}

// Block returns what is in a data block. Nobody may change it.
func (fs *FS) Block(ctx context.Context, addr uint32) ([]byte, error) {
	b, err := fs.b.Peek(ctx, addr)
	return b, translate(err)
}

// Patch puts data at an offset of a data block, and returns what was there.
func (fs *FS) Patch(ctx context.Context, addr uint32, off int, data []byte) (old []byte, err error) {
	if old, err = fs.b.Patch(ctx, addr, off, data); err != nil {
		return nil, translate(err)
	}
	// What is known of names may no longer be so.
	err = fs.b.View(ctx, func(*buffer.Tx) error {
		fs.root.index = nil
		for _, p := range fs.files {
			if f := p.Value(); f != nil {
				f.index = nil
			}
		}
		return nil
	})
	return old, translate(err)
}

// ClearSlots clears entries of a block of a directory, or pointers of a pointer
// block. Before, each is told of with the bytes that were there and where; all
// are cleared, or none.
func (fs *FS) ClearSlots(ctx context.Context, addr uint32, entries bool, slots []int, was func(off int, old []byte)) error {
	type slot struct {
		off int
		old []byte
	}
	var list []slot
	err := fs.b.UpdatePrivileged(ctx, func(tx *buffer.Tx) error {
		list = nil
		l, err := tx.Label(addr)
		if err != nil {
			return err
		}
		size, what := format.PointerSize, "pointers"
		if entries {
			size, what = format.EntrySize, "entries"
		}
		if !l.InUse() || entries != (l.Type == format.Dir) || !entries && l.Type.Level() == 0 {
			return fmt.Errorf("%w: block %#x is %v, not one of %s", buffer.ErrMismatch, addr, l, what)
		}
		data, err := tx.Change(addr)
		if err != nil {
			return err
		}
		for _, i := range slots {
			if i < 0 || i >= len(data)/size {
				return fmt.Errorf("%w: no slot %d among %d %s of block %#x", buffer.ErrAddress, i, len(data)/size, what, addr)
			}
			list = append(list, slot{i * size, append([]byte{}, data[i*size:(i+1)*size]...)})
			if entries {
				e := format.EntryAt(data, i)
				e = e.Removed()
				format.PutEntry(data, i, &e)
			} else {
				format.PutPointer(data, i, format.Hole)
			}
		}
		return nil
	})
	if err != nil {
		return translate(err)
	}
	for _, s := range list {
		was(s.off, s.old)
	}
	return translate(fs.b.Sync(ctx))
}
