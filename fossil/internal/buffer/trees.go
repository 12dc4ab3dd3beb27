package buffer

import (
	"context"
	"errors"
	"fmt"

	"strata/fossil/internal/format"
)

// maxIntents is how many trees may wait to be closed.
const maxIntents = 64

// errIntents ends an update that would make one more.
var errIntents = errors.New("too many trees are being closed")

// inline is how many blocks an update closes at once; a tree with more is
// closed by an intent, and each step of that closes so many.
const inline = 256

// Unlink closes the tree under p, to which the active tree links no longer. A
// large one is left to an intent.
func (tx *Tx) Unlink(p format.Pointer, t format.Type, tag uint32) error {
	addr, ok := p.Addr()
	if !ok {
		return nil
	}
	in := intent{typ: t, addr: addr, tag: tag, epoch: tx.super.EpochHigh}
	if t.Level() < 2 {
		n, err := tx.children(addr, t, tag)
		if err != nil {
			return err
		}
		if n < inline {
			budget := inline
			_, err := tx.closeTree(addr, t, &in, 0, &budget)
			return err
		}
	}
	if len(tx.b.intents)+len(tx.intents) >= maxIntents {
		// They are worked on; the update comes again when one is done.
		return errIntents
	}
	in.id = tx.b.nextIntent + uint64(len(tx.intents))
	tx.intents = append(tx.intents, in)
	return nil
}

// children returns how many local blocks a block at level 1 points to.
func (tx *Tx) children(addr uint32, t format.Type, tag uint32) (n int, err error) {
	if t.Level() == 0 {
		return 0, nil
	}
	data, err := tx.Get(format.Local(addr), t, tag)
	if errors.Is(err, ErrMismatch) {
		return 0, nil // nothing of ours
	}
	if err != nil {
		return 0, err
	}
	for i := range len(data) / format.PointerSize {
		if format.PointerAt(data, i).IsLocal() {
			n++
		}
	}
	return n, nil
}

// closeTree closes the blocks of the tree under addr, those at level 0 first,
// from in.leaf on; base is the number of the tree's first. It ends when it has
// closed *budget blocks, and returns whether it came to the end of the tree.
// Blocks that are closed already, or another's, are left alone, with what is
// below them.
func (tx *Tx) closeTree(addr uint32, t format.Type, in *intent, base int64, budget *int) (all bool, err error) {
	l, err := tx.Label(addr)
	if err != nil && !errors.Is(err, ErrAddress) {
		return false, err
	}
	if err != nil || match(addr, l, t, in.tag) != nil || l.State&format.Closed != 0 || l.Epoch > in.epoch {
		return true, nil
	}
	if t.Level() > 0 {
		data, err := tx.have(localKey(tx.b.h.Data + addr))
		if err != nil {
			return false, err
		}
		np := int64(len(data) / format.PointerSize)
		span := int64(1) // blocks of level 0 under each child
		for range t.Level() - 1 {
			span *= np
		}
		first := (in.leaf - base) / span
		if t.Level() == 1 {
			for i := first; i < np && i < first+int64(*budget); i++ {
				if a, ok := format.PointerAt(data, int(i)).Addr(); ok {
					tx.WantLabel(a)
				}
			}
			if err := tx.Missing(); err != nil {
				return false, err
			}
		}
		for i := first; i < np; i++ {
			if a, ok := format.PointerAt(data, int(i)).Addr(); ok {
				if *budget <= 0 {
					return false, nil
				}
				if all, err := tx.closeTree(a, t-1, in, base+i*span, budget); err != nil || !all {
					return false, err
				}
			}
			in.leaf = base + (i+1)*span
		}
	}
	*budget--
	return true, tx.close(addr, l, in.epoch)
}

// closeTrees works on intents. It ends with ctx.
func (b *Buffer) closeTrees(ctx context.Context) {
	for {
		in, ok := b.nextToClose()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-b.tidy:
				continue
			}
		}
		err := b.UpdatePrivileged(ctx, func(tx *Tx) error {
			next, budget := in, inline
			all, err := tx.closeTree(in.addr, in.typ, &next, 0, &budget)
			if err != nil {
				return err
			}
			if all {
				tx.done = append(tx.done, in.id)
			} else {
				tx.intents = append(tx.intents, next)
			}
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			b.mu.Lock()
			b.stuck[in.id] = err
			b.tidiedLocked()
			b.mu.Unlock()
		}
	}
}

// nextToClose returns an intent that is not stuck.
func (b *Buffer) nextToClose() (in intent, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, i := range b.intents {
		if b.stuck[id] == nil && (!ok || id < in.id) {
			in, ok = i, true
		}
	}
	return in, ok
}

// Settle waits until all intents are done. One that is stuck is an error.
func (b *Buffer) Settle(ctx context.Context) error {
	for {
		b.mu.Lock()
		left, stuck, wait := len(b.intents), len(b.stuck), b.tidied
		var err error
		for _, err = range b.stuck {
			break
		}
		if b.err != nil && b.err != ErrClosed {
			err, stuck = b.err, left
		}
		b.mu.Unlock()
		if left == 0 {
			return nil
		}
		if left == stuck {
			return fmt.Errorf("close the blocks of removed trees: %w", err)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
