package buffer

import (
	"context"
	"errors"

	"strata/fossil/internal/format"
	"strata/internal/disk"
)

// ErrPassed is what the methods of a Moment return when it had to give way to
// updates.
var ErrPassed = errors.New("gave way to those who write")

// A Moment is the buffer as it was when Hold returned it: the super block, the
// labels and all blocks of metadata. Updates go on. Of the leaves of files it
// knows only the labels: they may be overwritten.
//
// Nobody waits for it. While it lasts, what updates change is kept as it was,
// and what they free is not allocated again; when that takes more memory than
// the cache may have, or somebody needs the room, the Moment ends and its
// methods return ErrPassed. Its methods are for one goroutine.
type Moment struct {
	b       *Buffer
	super   format.Super
	closing []intent // trees that were being closed

	labels []byte // the block of labels that was read last
	first  uint32 // of the labels in it
	count  uint32

	// Guarded by Buffer.mu.
	over   bool
	before map[uint32][]byte // blocks that have changed, as they were
	taken  *freemap          // blocks that were allocated since: free.get tells
	held   map[uint32]struct{}
}

// Hold returns the buffer as it is. There is one Moment at a time; Hold waits
// until another is released.
func (b *Buffer) Hold(ctx context.Context) (*Moment, error) {
	select {
	case b.moments <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m := &Moment{b: b, before: map[uint32][]byte{}, held: map[uint32]struct{}{}, taken: newFreemap(b.h.Blocks())}
	b.mu.Lock()
	defer b.mu.Unlock()
	m.super = b.super
	for id, in := range b.intents {
		// What is stuck nobody will close.
		if b.stuck[id] == nil {
			m.closing = append(m.closing, in)
		}
	}
	if b.err != ErrReadOnly {
		b.moment = m
	}
	return m, nil
}

// Release ends the use of m.
func (m *Moment) Release() {
	m.b.mu.Lock()
	m.endLocked()
	m.b.mu.Unlock()
	<-m.b.moments
}

// endLocked gives back what m keeps.
func (m *Moment) endLocked() {
	if m.over {
		return
	}
	m.over = true
	for a := range m.held {
		m.b.free.set(a, true)
	}
	m.before, m.held = nil, nil
	m.b.moment = nil
}

// noteLocked is told of an update before others see it.
func (m *Moment) noteLocked(tx *Tx) {
	for n, c := range tx.blocks {
		if c.kind == changed {
			m.keepLocked(n, c.old)
		}
	}
	for _, a := range tx.freed {
		n := m.b.h.Data + a
		// What is not pinned is as it is in its place, where it stays.
		if data, ok := m.b.cache.pinned(localKey(n)); ok && !m.taken.get(a) {
			m.keepLocked(n, data)
		}
	}
	for _, a := range tx.taken {
		m.taken.set(a, true)
	}
	if len(m.before) > m.b.cache.limit {
		m.endLocked()
	}
}

func (m *Moment) keepLocked(n uint32, data []byte) {
	if _, ok := m.before[n]; !ok {
		m.before[n] = data
	}
}

// releaseLocked makes a block that was freed one that can be allocated, when no
// Moment needs it any more.
func (b *Buffer) releaseLocked(a uint32) {
	if m := b.moment; m != nil && !m.taken.get(a) {
		m.held[a] = struct{}{}
		return
	}
	b.free.set(a, true)
}

// heldLocked tells whether a Moment keeps a free block.
func (b *Buffer) heldLocked(a uint32) (held bool) {
	if b.moment != nil {
		_, held = b.moment.held[a]
	}
	return held
}

// Super returns the super block.
func (m *Moment) Super() format.Super { return m.super }

// Blocks returns how many data blocks there are.
func (m *Moment) Blocks() uint32 { return m.b.h.Blocks() }

// block returns a block, counted from the beginning of the partition.
func (m *Moment) block(ctx context.Context, n uint32) ([]byte, error) {
	data, err := m.b.cache.get(ctx, localKey(n))
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	if m.over {
		return nil, ErrPassed
	}
	// An update that changed it meanwhile has left it here before.
	if was, ok := m.before[n]; ok {
		return was, nil
	}
	return data, err
}

// Label returns the label of a data block. One that makes no sense comes with
// an error that wraps format.ErrLabel.
func (m *Moment) Label(ctx context.Context, addr uint32) (format.Label, error) {
	if addr-m.first >= m.count {
		block, _, err := m.b.labelAt(addr)
		if err != nil {
			return format.Label{}, err
		}
		data, err := m.block(ctx, block)
		if err != nil {
			return format.Label{}, err
		}
		m.labels, m.count = data, m.b.h.LabelsPerBlock()
		m.first = addr / m.count * m.count
		m.count = min(m.count, m.Blocks()-m.first)
	}
	return format.UnpackLabel(m.labels[(addr-m.first)*format.LabelSize:])
}

// Data returns what is in a data block of metadata, whatever it is.
func (m *Moment) Data(ctx context.Context, addr uint32) ([]byte, error) {
	return m.block(ctx, m.b.h.Data+addr)
}

// Get is Buffer.Get.
func (m *Moment) Get(ctx context.Context, p format.Pointer, t format.Type, tag uint32) ([]byte, error) {
	if p == format.Hole {
		return m.b.emptyBlock(t), nil
	}
	addr, ok := p.Addr()
	if !ok {
		return m.b.cache.get(ctx, scoreKey(p.Score(), t))
	}
	l, err := m.Label(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := match(addr, l, t, tag); err != nil {
		return nil, err
	}
	return m.Data(ctx, addr)
}

// Readable returns an error unless a block can be read, whatever is in it. It
// leaves no trace in memory.
func (m *Moment) Readable(addr uint32) error {
	return disk.ReadFull(m.b.file, make([]byte, m.b.h.BlockSize), m.b.h.Offset(m.b.h.Data+addr))
}

// Fetch has blocks of metadata read into memory, many at once.
func (m *Moment) Fetch(ctx context.Context, addrs []uint32) {
	var keys []key
	for _, a := range addrs {
		if a < m.Blocks() {
			keys = append(keys, localKey(m.b.h.Data+a))
		}
	}
	m.b.cache.getAll(ctx, keys) // an error is for Get to meet
}

// Closing calls f with the addresses of the blocks that are still to be closed,
// of trees that were let go. Some may be told twice.
func (m *Moment) Closing(ctx context.Context, f func(addr uint32)) error {
	for _, in := range m.closing {
		if err := m.closingTree(ctx, in.addr, in.typ, &in, f); err != nil {
			return err
		}
	}
	return nil
}

// closingTree is Closing for what is under addr. It looks where closeTree does.
func (m *Moment) closingTree(ctx context.Context, addr uint32, t format.Type, in *intent, f func(addr uint32)) error {
	l, err := m.Label(ctx, addr)
	switch {
	case errors.Is(err, ErrAddress), errors.Is(err, format.ErrLabel):
		return nil
	case err != nil:
		return err
	case match(addr, l, t, in.tag) != nil || l.State&format.Closed != 0 || l.Epoch > in.epoch:
		return nil
	}
	f(addr)
	if t.Level() == 0 {
		return nil
	}
	data, err := m.Data(ctx, addr)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, ErrPassed) {
			err = nil // nobody can close what is below
		}
		return err
	}
	for i := range len(data) / format.PointerSize {
		if a, ok := format.PointerAt(data, i).Addr(); ok {
			if err := m.closingTree(ctx, a, t-1, in, f); err != nil {
				return err
			}
		}
	}
	return nil
}
