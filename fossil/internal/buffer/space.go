package buffer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"strata/fossil/internal/format"
	"strata/internal/disk"
)

// findLog finds the partition's log, of which the super block says where it
// lies, or makes one: that changes labels of free blocks and a part of the
// super block that Plan 9's programs do not look at.
func (b *Buffer) findLog(runs []run, size int64) error {
	if b.h.BlockSize < format.SuperSize+sectorSize {
		return fmt.Errorf("blocks of %d bytes have no room for a log: want %d", b.h.BlockSize, format.MinBlockSize)
	}
	if runs == nil || !b.reserved(runs) {
		var err error
		if runs, err = b.chooseLog(size); err != nil {
			return err
		}
		copy(b.plain[format.SuperSize:], packTable(runs))
		if _, err := b.file.WriteAt(b.plain, b.h.Offset(b.h.Super)); err != nil {
			return err
		}
		if err := b.file.Sync(); err != nil {
			return err
		}
	}
	// A crash here leaves blocks that the table names and are not reserved yet:
	// they are free, or at least nobody else's.
	if err := b.setReserved(runs); err != nil {
		return err
	}
	b.log = newRedo(b.file, &b.h, runs)
	return nil
}

// reserved tells whether nothing else uses the blocks of a log. A label that
// makes no sense was being changed when the power went.
func (b *Buffer) reserved(runs []run) bool {
	for _, r := range runs {
		for a := r.addr; a < r.addr+r.blocks; a++ {
			l, err := b.Label(context.Background(), a)
			if err == nil && l.InUse() && !l.Free(b.super.EpochLow) || err != nil && !errors.Is(err, format.ErrLabel) {
				return false
			}
		}
	}
	return true
}

// chooseLog finds free blocks for a log, as many in a row as there are.
func (b *Buffer) chooseLog(size int64) ([]run, error) {
	if size == 0 {
		size = min(max(b.h.Offset(b.h.End)/32, minLog), maxLog)
	}
	bs := int64(b.h.BlockSize)
	want := uint32(max((size+bs-1)/bs, 4))
	least := uint32(max((minLog+bs-1)/bs, 4))
	want = min(want, max(least, b.free.free/8)) // leave room for files
	var runs []run
	var got uint32
	for got < want && len(runs) < maxRuns {
		addr, n := b.free.run(want - got)
		if n == 0 {
			break
		}
		runs = append(runs, run{addr, n})
		got += n
		for a := addr; a < addr+n; a++ {
			b.free.set(a, false)
		}
	}
	if got < least {
		return nil, fmt.Errorf("%w: no %d free blocks of %d bytes for a log", ErrFull, least, bs)
	}
	return runs, nil
}

// setReserved gives the blocks of a log the label that keeps others away.
func (b *Buffer) setReserved(runs []run) error {
	written := false
	for _, r := range runs {
		for a := r.addr; a < r.addr+r.blocks; {
			block, off, err := b.labelAt(a)
			if err != nil {
				return err
			}
			data := make([]byte, b.h.BlockSize)
			if err := disk.ReadFull(b.file, data, b.h.Offset(block)); err != nil {
				return err
			}
			old := slices.Clone(data)
			for ; a < r.addr+r.blocks && off+format.LabelSize <= len(data); a++ {
				format.Reserved.Pack(data[off:])
				off += format.LabelSize
				b.free.set(a, false)
			}
			if slices.Equal(data, old) {
				continue
			}
			written = true
			if _, err := b.file.WriteAt(data, b.h.Offset(block)); err != nil {
				return err
			}
			b.cache.put(localKey(block), data, 0)
		}
	}
	b.used = b.h.Blocks() - b.free.free
	if !written {
		return nil
	}
	return b.file.Sync()
}

// SetEpochLow lets go of snapshots from before an epoch: what only they use is
// free when SetEpochLow returns. The epoch cannot be lowered.
func (b *Buffer) SetEpochLow(ctx context.Context, low uint32) error {
	err := b.UpdatePrivileged(ctx, func(tx *Tx) error {
		s := tx.Super()
		if low < s.EpochLow || low > s.EpochHigh {
			return fmt.Errorf("bad low epoch %d: want %d to %d", low, s.EpochLow, s.EpochHigh)
		}
		s.EpochLow = low
		tx.SetSuper(s)
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.Sync(ctx); err != nil {
		return err
	}
	// Changes to blocks that are free now must not stay in the log: it would
	// make them again after somebody else has got the blocks.
	if err := b.do(ctx, b.checkpoint); err != nil {
		return err
	}
	lpb, n := b.h.LabelsPerBlock(), b.h.Blocks()
	for first := uint32(0); first < n; first += lpb {
		err := b.Update(ctx, func(tx *Tx) error { return tx.freeLabels(first, min(first+lpb, n)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// freeLabels notes which of the blocks in [first, end), whose labels are in
// one block, are free by their labels.
func (tx *Tx) freeLabels(first, end uint32) error {
	b := tx.b
	block, _, err := b.labelAt(first)
	if err != nil {
		return err
	}
	data, err := tx.have(localKey(block))
	if err != nil {
		return err
	}
	pending := map[uint32]bool{}
	for _, g := range []*group{b.running, b.committing} {
		if g != nil {
			for _, a := range g.freed {
				pending[a] = true
			}
		}
	}
	for a := first; a < end; a++ {
		l, err := format.UnpackLabel(data[(a-first)*format.LabelSize:])
		if err == nil && l.Free(tx.super.EpochLow) && !b.free.get(a) && !pending[a] && !b.heldLocked(a) {
			b.releaseLocked(a)
			b.used--
		}
	}
	return nil
}
