package buffer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"strata/fossil/internal/format"
)

// A group is what updates did that become durable together.
type group struct {
	write  map[uint32][]byte   // blocks to be written to their places first
	fresh  map[uint32]struct{} // those of them that nothing durable points to
	meta   map[uint32][]byte   // blocks whose changes are in the record
	record []byte              // changes
	freed  []uint32            // addresses to be allocated again after the commit

	intents map[uint64]intent // new ones, and how far others have come
	ended   []uint64          // intents that are done

	done chan struct{} // closed when it is durable, or err is set
	err  error
}

func newGroup() *group {
	return &group{
		write: map[uint32][]byte{}, fresh: map[uint32]struct{}{}, meta: map[uint32][]byte{},
		intents: map[uint64]intent{}, done: make(chan struct{}),
	}
}

func (g *group) empty() bool { return len(g.write) == 0 && len(g.record) == 0 }

// publishLocked puts the changes of an update into the cache and the running
// group. ok is false if there is no room left in the group's record.
func (b *Buffer) publishLocked(tx *Tx) (ok bool, err error) {
	if tx.superSet {
		block, err := tx.change(b.h.Super)
		if err != nil {
			return false, err
		}
		tx.super.Pack(block)
	}
	g := b.running
	var record []byte
	for n, c := range tx.blocks {
		if _, isFresh := g.fresh[n]; c.kind == changed && !isFresh {
			record = appendWrites(record, n, c.old, c.data)
		}
	}
	for _, a := range tx.freed {
		record = appendForget(record, b.h.Data+a)
	}
	for i := range tx.intents {
		record = appendIntent(record, &tx.intents[i])
	}
	for _, id := range tx.done {
		record = appendDone(record, id)
	}
	if len(record) > b.record {
		return false, fmt.Errorf("log is too small: %v is %d bytes of at most %d", tx, len(record), b.record)
	}
	if len(g.record)+len(record) > b.record {
		return false, nil
	}

	if b.moment != nil {
		b.moment.noteLocked(tx)
	}
	g.record = append(g.record, record...)
	for n, c := range tx.blocks {
		_, isFresh := g.fresh[n]
		set := g.write
		if c.kind == changed && !isFresh {
			set = g.meta
		}
		pins := 1
		if _, ok := set[n]; ok {
			pins = 0
		}
		set[n] = c.data
		if c.kind == fresh {
			g.fresh[n] = struct{}{}
		}
		b.cache.put(localKey(n), c.data, pins)
	}
	for _, a := range tx.freed {
		n := b.h.Data + a
		for _, set := range []map[uint32][]byte{g.write, g.meta} {
			if _, ok := set[n]; ok {
				delete(set, n)
				b.cache.unpin(localKey(n))
			}
		}
		delete(g.fresh, n)
	}
	g.freed = append(g.freed, tx.freed...)
	b.used += uint32(len(tx.taken))
	b.used -= uint32(len(tx.freed))
	b.super = tx.super
	for _, in := range tx.intents {
		b.intents[in.id], g.intents[in.id] = in, in
		b.nextIntent = max(b.nextIntent, in.id+1)
	}
	for _, id := range tx.done {
		delete(b.intents, id)
		delete(g.intents, id)
		g.ended = append(g.ended, id)
		b.tidiedLocked()
	}
	for _, f := range tx.publish {
		f()
	}
	if len(tx.intents) > 0 {
		notify(b.tidy)
	}
	if len(g.write)+len(g.meta) > b.dirty/2 || len(g.record) > b.record/2 {
		b.wake()
	}
	return true, nil
}

// tidiedLocked wakes those who wait for an intent to be done.
func (b *Buffer) tidiedLocked() {
	close(b.tidied)
	b.tidied = make(chan struct{})
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wake has the running group committed.
func (b *Buffer) wake() { notify(b.kick) }

// Sync returns nil only when all updates that ended before are durable. Those
// who call it at once share a commit.
func (b *Buffer) Sync(ctx context.Context) error {
	b.mu.Lock()
	g, err := b.running, b.err
	if g.empty() {
		g = b.committing
	}
	b.mu.Unlock()
	if err == ErrReadOnly {
		return nil
	}
	if err != nil || g == nil {
		return err
	}
	b.wake()
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A job is something that the committer does between commits.
type job struct {
	do   func() error
	done chan error
}

// commitAll is the committer. It ends with ctx.
func (b *Buffer) commitAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-b.jobs:
			err := j.do()
			if err != nil {
				b.fail(err)
			}
			j.done <- err
			continue
		case <-b.kick:
		}
		b.mu.Lock()
		g := b.running
		if b.err != nil && b.err != ErrClosed {
			g.err = b.err
			b.running = newGroup()
			b.mu.Unlock()
			close(g.done)
			continue
		}
		if g.empty() {
			b.mu.Unlock()
			continue
		}
		b.committing, b.running = g, newGroup()
		b.mu.Unlock()

		start := time.Now()
		err := b.commit(g)
		b.counts.commits.Add(1)
		b.counts.commitTime.Add(int64(time.Since(start)))
		b.mu.Lock()
		b.committing = nil
		if err != nil && (b.err == nil || b.err == ErrClosed) {
			b.err = err
		}
		if err == nil {
			for _, a := range g.freed {
				b.releaseLocked(a)
			}
		}
		b.mu.Unlock()
		g.err = err
		close(g.done)
		if err == nil && (b.log.head-b.log.tail > b.log.ring/2 || len(b.logged) > b.dirty) {
			if err := b.checkpoint(); err != nil {
				b.fail(err)
			}
		}
	}
}

// fail makes err what updates fail with from now on.
func (b *Buffer) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil || b.err == ErrClosed {
		b.err = err
	}
}

// commit makes a group durable. When it returns an error nobody knows whether
// it is.
func (b *Buffer) commit(g *group) error {
	if err := b.writeBlocks(g.write); err != nil {
		return err
	}
	if len(g.record) > 0 {
		if len(g.fresh) > 0 || !b.log.live {
			if err := b.begin(); err != nil {
				return err
			}
		}
		if len(g.record) > b.log.room(maxIntents) {
			if err := b.checkpoint(); err != nil {
				return err
			}
		}
		if err := b.log.append(g.record); err != nil {
			return err
		}
		b.counts.logBytes.Add(int64(len(g.record)))
	}
	if err := b.file.Sync(); err != nil { // the commit point
		return err
	}
	b.counts.changed.Add(int64(len(g.write) + len(g.meta)))
	for n := range g.write {
		b.cache.unpin(localKey(n))
	}
	maps.Copy(b.durable, g.intents)
	for _, id := range g.ended {
		delete(b.durable, id)
	}
	for n, data := range g.meta {
		if _, ok := b.logged[n]; ok {
			b.cache.unpin(localKey(n))
		}
		b.logged[n] = data
	}
	for _, a := range g.freed {
		n := b.h.Data + a
		if _, ok := b.logged[n]; ok {
			delete(b.logged, n)
			b.cache.unpin(localKey(n))
		}
	}
	return nil
}

// begin syncs, and sees to it that the super block says that the log matters.
// A crash between its two steps leaves a partition that needs no log.
func (b *Buffer) begin() error {
	if b.log.live {
		return b.file.Sync()
	}
	if err := b.log.begin(); err != nil {
		return err
	}
	if err := b.file.Sync(); err != nil {
		return err
	}
	if err := b.writeSuper(true); err != nil {
		return err
	}
	b.log.live = true
	return nil
}

// writeSuper writes the super block that is on the disk with another version,
// and syncs.
func (b *Buffer) writeSuper(logged bool) error {
	s, err := format.UnpackSuper(b.plain)
	if err != nil {
		return err
	}
	s.Logged = logged
	s.Pack(b.plain)
	if _, err := b.file.WriteAt(b.plain[:format.SuperSize], b.h.Offset(b.h.Super)); err != nil {
		return err
	}
	return b.file.Sync()
}

// checkpoint writes to their places all blocks whose changes are in the log,
// and empties it. Intents go on from its new beginning.
func (b *Buffer) checkpoint() error {
	if len(b.logged) == 0 && b.log.head == b.log.tail {
		return nil
	}
	if err := b.writeBlocks(b.logged); err != nil {
		return err
	}
	if super := b.logged[b.h.Super]; super != nil {
		copy(b.plain, super)
	}
	pos, seq := b.log.head, b.log.seq
	if len(b.durable) > 0 {
		var left []byte
		for _, in := range b.durable {
			left = appendIntent(left, &in)
		}
		if err := b.log.append(left); err != nil {
			return err
		}
	}
	if err := b.file.Sync(); err != nil {
		return err
	}
	if err := b.log.cutAt(pos, seq); err != nil {
		return err
	}
	if err := b.file.Sync(); err != nil {
		return err
	}
	b.counts.checkpoints.Add(1)
	for n := range b.logged {
		b.cache.unpin(localKey(n))
	}
	clear(b.logged)
	return nil
}

// writeBlocks writes blocks to their places, in the order of their numbers.
func (b *Buffer) writeBlocks(blocks map[uint32][]byte) error {
	const most = 1 << 20
	list := slices.Sorted(maps.Keys(blocks))
	var buf []byte
	for i := 0; i < len(list); {
		n := 1
		for i+n < len(list) && list[i+n] == list[i]+uint32(n) && (n+1)*b.h.BlockSize <= most {
			n++
		}
		data := blocks[list[i]]
		if n > 1 {
			buf = buf[:0]
			for _, k := range list[i : i+n] {
				buf = append(buf, blocks[k]...)
			}
			data = buf
		}
		if _, err := b.file.WriteAt(data, b.h.Offset(list[i])); err != nil {
			return err
		}
		b.counts.written.Add(int64(n))
		i += n
	}
	return nil
}

// Rest makes all that was done durable. If no tree is left to be closed, it
// leaves a partition that needs no log, as Close does, until the next change.
func (b *Buffer) Rest(ctx context.Context) error {
	b.mu.Lock()
	err := b.err
	b.mu.Unlock()
	if err == ErrReadOnly {
		return nil
	}
	if err := b.Settle(ctx); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err := b.Sync(ctx); err != nil {
		return err
	}
	return b.do(ctx, b.finish)
}

// finish leaves a partition that needs no log, unless that says what trees are
// to be closed. The committer calls it, or has ended.
func (b *Buffer) finish() error {
	if !b.log.live || len(b.durable) > 0 {
		return nil
	}
	if err := b.checkpoint(); err != nil {
		return err
	}
	if err := b.writeSuper(false); err != nil {
		return err
	}
	b.log.live = false
	return nil
}
