package fossil

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/fossil/internal/stream"
	"strata/vac/meta"
)

// A labelFix is a label that is to become another.
type labelFix struct {
	finding  int
	addr     uint32
	old, now format.Label
}

// A fix is a repair of anything else. It fails with errChanged if there is
// something else by now.
type fix struct {
	findings []int
	do       func(tx *buffer.Tx) error
}

var errChanged = stream.ErrChanged

// gives tells whether the label gives a block up, or says that the active tree
// has it no longer.
func (f *labelFix) gives() bool {
	if f.now.State == format.Free {
		return true
	}
	_, err := format.UnpackLabel(packLabel(f.old))
	return f.now.State&format.Closed != 0 && (err != nil || f.old.State&format.Closed == 0)
}

// labelsAtOnce is how many labels one update changes.
const labelsAtOnce = 128

// repair does what c has found that may be done, and returns how much it was.
// What cannot be done is left, and the finding says why.
func (c *checker) repair(ctx context.Context) (fixed int, err error) {
	if c.cfg.Fix&Bclose != 0 {
		if c.broken { // what cannot be reached now may be needed all the same
			c.labels = slices.DeleteFunc(c.labels, func(f labelFix) bool { return f.gives() })
		}
		for part := range slices.Chunk(c.labels, labelsAtOnce) {
			if err := c.setLabels(ctx, part); err != nil {
				return 0, err
			}
		}
		c.fs.b.CloseAgain()
	}
	for _, f := range c.fixes {
		first := &c.result.Findings[f.findings[0]]
		if c.cfg.Fix&first.Kind == 0 {
			continue
		}
		switch err := c.fs.b.UpdatePrivileged(ctx, f.do); {
		case err == nil:
			for _, n := range f.findings {
				c.fixed(n)
			}
		case ctx.Err() != nil:
			return 0, err
		case c.fs.b.Err() != nil:
			return 0, c.fs.b.Err()
		default:
			first.Text += fmt.Sprintf(" (not repaired: %v)", err)
		}
	}
	done := &c.result.Done
	return done.Bclose + done.Clri + done.Clre + done.Clrp, nil
}

// fixed notes that a repair was done.
func (c *checker) fixed(finding int) {
	f := &c.result.Findings[finding]
	f.Fixed = true
	c.result.Done.add(f.Kind, 1)
}

// setLabels gives blocks their labels, but for those that have another by now.
func (c *checker) setLabels(ctx context.Context, list []labelFix) error {
	var done []int
	err := c.fs.b.UpdatePrivileged(ctx, func(tx *buffer.Tx) error {
		done = done[:0]
		for _, f := range list {
			tx.WantLabel(f.addr)
		}
		if err := tx.Missing(); err != nil {
			return err
		}
		for _, f := range list {
			l, err := tx.Label(f.addr)
			if err != nil && !errors.Is(err, format.ErrLabel) {
				return err
			}
			if l != f.old {
				continue
			}
			if err := tx.SetLabel(f.addr, f.now); errors.Is(err, buffer.ErrLogBlock) {
				continue
			} else if err != nil {
				return err
			}
			done = append(done, f.finding)
		}
		return nil
	})
	for _, n := range done {
		c.fixed(n)
	}
	return err
}

// clearPointer clears a pointer p in a block.
func clearPointer(tx *buffer.Tx, up parent, i int, p format.Pointer) error {
	data, err := changeable(tx, up.addr, up.l.Type)
	if err != nil {
		return err
	}
	if format.PointerAt(data, i) != p {
		return errChanged
	}
	format.PutPointer(data, i, format.Hole)
	return nil
}

// clearEntry clears an entry e in a block.
func clearEntry(tx *buffer.Tx, addr uint32, i int, e format.Entry) error {
	data, err := changeable(tx, addr, format.Dir)
	if err != nil {
		return err
	}
	if format.EntryAt(data, i) != e {
		return errChanged
	}
	e = e.Removed()
	format.PutEntry(data, i, &e)
	return nil
}

// changeable returns the bytes of a block of metadata, in the active tree or
// not, for the update to change, if it is one of that type.
func changeable(tx *buffer.Tx, addr uint32, t format.Type) ([]byte, error) {
	l, err := tx.Label(addr)
	if err != nil {
		return nil, err
	}
	if !l.InUse() || l.Type != t || l.Free(tx.Super().EpochLow) {
		return nil, errChanged
	}
	return tx.Change(addr)
}

// mendMeta makes a metadata block of the directory f, which has old, one of the
// entries that are good.
func (f *File) mendMeta(tx *buffer.Tx, n int64, old []byte, good []meta.DirEntry) error {
	now, err := f.meta.Leaf(tx, n)
	if err != nil {
		return err
	}
	if !bytes.Equal(now[:len(old)], old) {
		return errChanged
	}
	data, err := f.meta.ChangeLeaf(tx, n)
	if err != nil {
		return err
	}
	if err := mend(data, good); err != nil {
		return err
	}
	tx.OnPublish(func() {
		f.namesChanged(func(c *File) bool {
			return c.block == n && !slices.ContainsFunc(good, func(e meta.DirEntry) bool { return e.Name == c.dir.Name })
		})
	})
	return nil
}

// mendInPlace is mendMeta for a block of snapshots.
func mendInPlace(tx *buffer.Tx, addr uint32, old []byte, good []meta.DirEntry) error {
	data, err := changeable(tx, addr, format.Data)
	if err != nil {
		return err
	}
	if !bytes.Equal(data[:len(old)], old) {
		return errChanged
	}
	return mend(data[:len(old)], good)
}

// mend makes data a metadata block of entries.
func mend(data []byte, good []meta.DirEntry) error {
	most := meta.MaxIndex(len(data))
	size := 12 + 4*max(most, len(good))
	for i := range good {
		size += good[i].Size()
	}
	if size > len(data) { // it was laid out for fewer
		most = len(good)
	}
	b := meta.New(data, max(most, len(good)), meta.ShorterFirst)
	for i := range good {
		e := good[i]
		modernize(&e)
		if err := b.Insert(&e); err != nil {
			return err
		}
	}
	return nil
}

// namesChanged is called when names of the directory f were changed by a repair,
// in the update's publication. Files in it for which gone is true are no longer
// there.
func (f *File) namesChanged(gone func(c *File) bool) {
	dir := f.fs.root
	if f.parent != nil {
		if dir = f.fs.known(f.qid()); dir == nil {
			return
		}
	}
	dir.index, f.index = nil, nil
	for qid, p := range f.fs.files {
		if c := p.Value(); c != nil && c.parent == dir && gone(c) {
			c.removed = true
			delete(f.fs.dirty, c)
			delete(f.fs.files, qid)
		}
	}
}

// dropName takes the entry e out of a metadata block of the directory f. Its
// slots are cleared if they are those of a dead snapshot.
func (f *File) dropName(tx *buffer.Tx, n int64, e *meta.DirEntry, dead bool) error {
	b, err := metaLeaf(tx, f.meta, n)
	if err != nil {
		return err
	}
	if _, err := entryIn(b, e); err != nil {
		return err
	}
	data, err := f.meta.ChangeLeaf(tx, n)
	if err != nil {
		return err
	}
	if err := drop(data, e); err != nil {
		return err
	}
	if dead {
		c := f.child(e, n)
		for _, s := range []*stream.Stream{c.data, c.meta} {
			if s == nil {
				continue
			}
			free := s.Forget
			if e, err := s.Entry(tx); err == nil && !e.Local { // it was all on Venti
				free = s.Remove
			}
			// The other slot may be in order, or another's.
			if err := free(tx); err != nil && tx.Missing() != nil {
				return err
			}
		}
	}
	tx.OnPublish(func() {
		f.namesChanged(func(c *File) bool { return c.block == n && c.dir.Name == e.Name && c.dir.Entry == e.Entry })
	})
	return nil
}

// dropNameInPlace is dropName for a block of snapshots.
func dropNameInPlace(tx *buffer.Tx, addr uint32, e *meta.DirEntry) error {
	data, err := changeable(tx, addr, format.Data)
	if err != nil {
		return err
	}
	return drop(data, e)
}

// drop takes an entry out of a metadata block.
func drop(data []byte, e *meta.DirEntry) error {
	b, err := meta.Open(data)
	if err != nil {
		return err
	}
	i, err := entryIn(b, e)
	if err == nil {
		b.Remove(i)
	}
	return err
}

// entryIn returns which entry of a metadata block has the name of e and leads
// where e does.
func entryIn(b *meta.Block, e *meta.DirEntry) (int, error) {
	for i := range b.Len() {
		got, err := b.Entry(i)
		if err == nil && got.Name == e.Name && got.Entry == e.Entry && got.Gen == e.Gen && got.MEntry == e.MEntry && got.MGen == e.MGen {
			return i, nil
		}
	}
	return 0, errChanged
}

// lostName returns the name that what is in a slot gets when it has lost its own.
func lostName(slot int64) string { return fmt.Sprintf("lost.%d", slot) }

// nameLost gives names to what is in slots of the directory f and has lost its
// own. Nobody but adm may see it. A directory that has lost its names gets room for
// new ones.
func (f *File) nameLost(tx *buffer.Tx, list []lostFile) error {
	slotHas := func(slot int64, e format.Entry) (bool, error) {
		now, err := f.data.At(tx, slot)
		return now == e, err
	}
	now, super := f.fs.now(), tx.Super()
	for _, l := range list {
		ok, err := slotHas(l.slot, l.e)
		if err == nil && ok && l.names >= 0 {
			ok, err = slotHas(l.names, l.m)
		}
		if err != nil {
			return err
		}
		if !ok {
			return errChanged
		}
		e := meta.DirEntry{
			Version: 9, Entry: uint32(l.slot), Gen: l.e.Gen, Qid: super.QID - f.offset(),
			UID: adm, GID: adm, MID: adm, Mtime: now, Ctime: now, Atime: now, Mode: 0o600,
		}
		super.QID++
		if l.e.Dir {
			e.Mode = meta.ModeDir | 0o700
			if l.e.Snap != 0 {
				e.Mode = meta.ModeDir | meta.ModeSnapshot | 0o555
			}
			e.MEntry, e.MGen = uint32(l.names), l.m.Gen
			if l.names < 0 {
				slot, gen, err := f.createStream(tx, l.slot, false, 0)
				if err != nil {
					return err
				}
				e.MEntry, e.MGen = uint32(slot), gen
			}
		}
		e.Name = lostName(l.slot)
		for n := 1; ; n++ {
			_, _, err := f.find(tx, e.Name)
			if errors.Is(err, ErrNotExist) {
				break
			}
			if err != nil {
				return err
			}
			e.Name = fmt.Sprintf("%s.%d", lostName(l.slot), n)
		}
		if _, err := f.insert(tx, &e); err != nil {
			return err
		}
	}
	tx.SetSuper(super)
	tx.OnPublish(func() { f.namesChanged(func(*File) bool { return false }) })
	return nil
}

// fillsAtOnce is how many metadata blocks one update makes of holes.
const fillsAtOnce = 64

// fillMeta makes empty metadata blocks of holes among those of the directory f,
// and takes off holes at the end.
func (f *File) fillMeta(tx *buffer.Tx) error {
	e, err := f.meta.Entry(tx)
	if err != nil {
		return err
	}
	end, filled := int64(0), 0
	for off := int64(0); ; {
		start, stop, err := f.meta.Data(tx, off)
		if err != nil {
			return err
		}
		if start >= e.Size {
			break
		}
		ds := int64(e.DSize)
		for n := end; n < start/ds && filled < fillsAtOnce; n++ {
			data, err := f.meta.ChangeLeaf(tx, n)
			if err != nil {
				return err
			}
			meta.New(data, meta.MaxIndex(len(data)), meta.ShorterFirst)
			filled++
		}
		off, end = stop, (stop+ds-1)/ds
	}
	if size := end * int64(e.DSize); size < e.Size {
		if err := f.meta.Resize(tx, size); err != nil {
			return err
		}
	}
	tx.OnPublish(func() { f.namesChanged(func(*File) bool { return false }) })
	return nil
}
