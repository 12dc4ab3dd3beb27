package buffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"strata/fossil/internal/format"
)

// What is here is for those who repair. It keeps what is in memory, the log and
// the disk in step, and believes what it is told about trees.

// errFreeing ends an update that wants a block which a commit is about to make
// free.
var errFreeing = errors.New("block is being freed")

// ErrLogBlock is why a block or its label is not changed: it is the log's.
var ErrLogBlock = errors.New("block of the log")

// SetLabel gives a data block another label, and with it makes it one that can
// be allocated, or no longer.
func (tx *Tx) SetLabel(addr uint32, l format.Label) error {
	b := tx.b
	if b.ofLog(addr) {
		return fmt.Errorf("%w: %#x", ErrLogBlock, addr)
	}
	old, err := tx.Label(addr)
	if err != nil && !errors.Is(err, format.ErrLabel) {
		return err
	}
	wasFree, isFree := err == nil && old.Free(tx.super.EpochLow), l.Free(tx.super.EpochLow)
	if wasFree && !isFree {
		if b.heldLocked(addr) {
			b.moment.endLocked()
		}
		if !b.free.get(addr) {
			return errFreeing
		}
		b.free.set(addr, false)
		tx.taken = append(tx.taken, addr)
	}
	if err := tx.setLabel(addr, l); err != nil {
		return err
	}
	if isFree && !wasFree {
		tx.freed = append(tx.freed, addr)
		delete(tx.blocks, b.h.Data+addr)
	}
	return nil
}

// ofLog tells whether a block is one of the log's.
func (b *Buffer) ofLog(addr uint32) bool {
	for _, r := range b.log.runs {
		if addr >= r.addr && addr-r.addr < r.blocks {
			return true
		}
	}
	return false
}

// Peek returns what is in a data block, whatever that is.
func (b *Buffer) Peek(ctx context.Context, addr uint32) ([]byte, error) {
	if addr >= b.h.Blocks() {
		return nil, fmt.Errorf("%w %#x", ErrAddress, addr)
	}
	return b.cache.get(ctx, localKey(b.h.Data+addr))
}

// Patch puts data at an offset of a data block, whatever that is, and returns
// what was there. It is durable then; a crash may leave a part.
func (b *Buffer) Patch(ctx context.Context, addr uint32, off int, data []byte) (old []byte, err error) {
	if off < 0 || len(data) > b.h.BlockSize-off {
		return nil, fmt.Errorf("%d bytes at %d of a block of %d", len(data), off, b.h.BlockSize)
	}
	for old == nil && err == nil {
		if err := b.Err(); err != nil {
			return nil, err
		}
		if b.ofLog(addr) {
			return nil, fmt.Errorf("%w: %#x", ErrLogBlock, addr)
		}
		if _, err := b.Peek(ctx, addr); err != nil {
			return nil, err
		}
		if err := b.Sync(ctx); err != nil {
			return nil, err
		}
		err = b.do(ctx, func() error {
			// What the log says of the block must not undo this later.
			if err := b.checkpoint(); err != nil {
				return err
			}
			old, err = b.patch(b.h.Data+addr, off, data)
			return err
		})
	}
	return old, err
}

// patch is Patch for a block of which the log says nothing. It returns nil if
// an update has changed it meanwhile, or it is not in memory. The lock is held
// while the disk is waited for: no update may see the block between.
func (b *Buffer) patch(n uint32, off int, data []byte) (old []byte, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, written := b.running.write[n]
	_, logged := b.running.meta[n]
	was, ok := b.cache.peek(localKey(n))
	if written || logged || !ok {
		return nil, nil
	}
	now := bytes.Clone(was)
	copy(now[off:], data)
	if _, err := b.file.WriteAt(now, b.h.Offset(n)); err != nil {
		return nil, err
	}
	if err := b.file.Sync(); err != nil {
		return nil, err
	}
	if b.moment != nil {
		b.moment.keepLocked(n, was)
	}
	b.cache.put(localKey(n), now, 0)
	return append([]byte{}, was[off:off+len(data)]...), nil
}

// Err returns why nothing can be changed, if so.
func (b *Buffer) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// do has the committer do something between commits. If that fails, so does
// every later update.
func (b *Buffer) do(ctx context.Context, f func() error) error {
	j := job{f, make(chan error, 1)}
	select {
	case b.jobs <- j:
		return <-j.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// CloseAgain has those trees closed at last at which that failed before.
func (b *Buffer) CloseAgain() {
	b.mu.Lock()
	clear(b.stuck)
	b.mu.Unlock()
	notify(b.tidy)
}
