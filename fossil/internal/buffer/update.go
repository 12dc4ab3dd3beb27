package buffer

import (
	"context"
	"errors"
)

// errMiss ends an update that needs blocks which are not in memory.
var errMiss = errors.New("block is not in memory")

// Update runs f, whose changes are then seen by all, and durable after a
// Sync. When f returns an error there are none. It may be called several times,
// since it ends when it needs a block that is not in memory: it must do nothing
// that cannot be done again, and wait for nothing.
func (b *Buffer) Update(ctx context.Context, f func(tx *Tx) error) error {
	return b.update(ctx, b.reserve, f)
}

// UpdateReserved is Update that may take half of the reserve: for what must
// not fail because others have filled the disk.
func (b *Buffer) UpdateReserved(ctx context.Context, f func(tx *Tx) error) error {
	return b.update(ctx, b.reserve/2, f)
}

// UpdatePrivileged is Update that may take the last free blocks: for what
// makes room.
func (b *Buffer) UpdatePrivileged(ctx context.Context, f func(tx *Tx) error) error {
	return b.update(ctx, 0, f)
}

func (b *Buffer) update(ctx context.Context, leave uint32, f func(tx *Tx) error) error {
	err := b.run(ctx, func() (misses []key, wait <-chan struct{}, err error) { return b.try(leave, f) })
	if errors.Is(err, ErrFull) {
		b.counts.full.Add(1)
	}
	return err
}

// View runs f, which sees what updates before it did and changes nothing, and
// like that of an Update may be called several times. It also works when
// updates do not.
func (b *Buffer) View(ctx context.Context, f func(tx *Tx) error) error {
	return b.run(ctx, func() (misses []key, wait <-chan struct{}, err error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		tx := &Tx{b: b, super: b.super}
		err = f(tx)
		return tx.misses, nil, err
	})
}

// Glance runs f once, as a View does, unless it would have to wait for the
// lock. It returns false if it did not, or f failed or needs a block that is not
// in memory.
func (b *Buffer) Glance(f func(tx *Tx) error) bool {
	if !b.mu.TryLock() {
		return false
	}
	defer b.mu.Unlock()
	tx := &Tx{b: b, super: b.super}
	return f(tx) == nil && len(tx.misses) == 0
}

// run calls try until it misses no block, nor has anything to wait for. What it
// missed stays in memory meanwhile.
func (b *Buffer) run(ctx context.Context, try func() (misses []key, wait <-chan struct{}, err error)) error {
	var pinned []key
	defer func() {
		for _, k := range pinned {
			b.cache.unpin(k)
		}
	}()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		misses, wait, err := try()
		switch {
		case wait != nil:
			select {
			case <-wait:
			case <-ctx.Done():
				return ctx.Err()
			}
		case len(misses) > 0:
			keys, err := b.fetch(ctx, misses)
			pinned = append(pinned, keys...)
			if err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// fetch has blocks read and pins them.
func (b *Buffer) fetch(ctx context.Context, keys []key) (pinned []key, err error) {
	err = b.cache.getAll(ctx, keys)
	for _, k := range keys {
		if b.cache.pin(k) {
			pinned = append(pinned, k)
		}
	}
	return pinned, err
}

// try runs f once. When it fails and wait is not nil, it may do better when
// that is closed.
func (b *Buffer) try(leave uint32, f func(tx *Tx) error) (misses []key, wait <-chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	tx := &Tx{b: b, leave: leave, super: b.super, blocks: map[uint32]change{}}
	if b.err != nil {
		return nil, nil, b.err
	}
	if len(b.running.write)+len(b.running.meta) > b.dirty {
		return nil, b.soonLocked(), errMiss
	}
	err = f(tx)
	if err == nil {
		err = tx.Missing()
	}
	if err == nil {
		var ok bool
		if ok, err = b.publishLocked(tx); ok {
			return nil, nil, nil
		} else if err == nil {
			wait, err = b.soonLocked(), errMiss
		}
	}
	for _, a := range tx.taken {
		b.free.set(a, true)
	}
	switch {
	case len(tx.misses) > 0:
	case errors.Is(err, errIntents):
		wait = b.tidied
	case errors.Is(err, errFreeing) && b.freeingLocked():
		wait = b.soonLocked()
	case !errors.Is(err, ErrFull):
	case b.moment != nil && len(b.moment.held) > 0:
		b.moment.endLocked()
		wait = closed
	case b.freeingLocked():
		wait = b.soonLocked()
	case len(b.intents) > len(b.stuck):
		wait = b.tidied
	}
	return tx.misses, wait, err
}

// freeingLocked tells whether a commit will give free blocks.
func (b *Buffer) freeingLocked() bool {
	return len(b.running.freed) > 0 || b.committing != nil && len(b.committing.freed) > 0
}

// soonLocked has a commit done, and returns what is closed after it.
func (b *Buffer) soonLocked() <-chan struct{} {
	b.wake()
	if b.committing != nil {
		return b.committing.done
	}
	return b.running.done
}
