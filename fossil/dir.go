package fossil

import (
	"errors"
	"fmt"

	"strata/fossil/internal/buffer"
	"strata/vac/meta"
)

// An index says in which metadata block of a directory a name is. A directory
// is in no order, so that without one every block would have to be looked at.
type index struct {
	blocks map[string]int64
	room   int64 // blocks before this one have none for an entry of usual size
}

// usualEntry is the size up to which index.room holds.
const usualEntry = 200

// blocks returns how many metadata blocks the directory f has.
func (f *File) blocks(tx *buffer.Tx) (int64, error) {
	e, err := f.meta.Entry(tx)
	if err != nil {
		return 0, err
	}
	return e.Leaves(e.Size), nil
}

// names returns the index of the directory f, which it makes when there is
// none.
func (f *File) names(tx *buffer.Tx) (*index, error) {
	if f.index != nil {
		return f.index, nil
	}
	n, err := f.blocks(tx)
	if err != nil {
		return nil, err
	}
	x := &index{blocks: map[string]int64{}}
	for k := range n {
		f.meta.Want(tx, k)
	}
	if err := tx.Missing(); err != nil {
		return nil, err
	}
	for k := range n {
		block, err := metaLeaf(tx, f.meta, k)
		if err != nil {
			return nil, err
		}
		for i := range block.Len() {
			// Of two entries with one name, which a crash of the original may leave,
			// the first is good.
			if _, ok := x.blocks[block.Name(i)]; !ok {
				x.blocks[block.Name(i)] = k
			}
		}
	}
	f.index = x
	return x, nil
}

// find returns the entry of a name in the directory f, and its block.
func (f *File) find(tx *buffer.Tx, name string) (e meta.DirEntry, block int64, err error) {
	x, err := f.names(tx)
	if err != nil {
		return e, 0, err
	}
	block, ok := x.blocks[name]
	if !ok {
		return e, 0, ErrNotExist
	}
	b, err := metaLeaf(tx, f.meta, block)
	if err != nil {
		return e, 0, err
	}
	i, ok := b.Search(name)
	if !ok {
		return e, 0, fmt.Errorf("%w: %q is not where it was", ErrBadMeta, name)
	}
	e, err = b.Entry(i)
	return e, block, err
}

// metaBlock returns a metadata block of the directory f for the update to
// change. One that vac made, in its order and version, is made one of ours; then
// what has no room any more goes elsewhere, but for keep.
func (f *File) metaBlock(tx *buffer.Tx, n int64, keep string) (*meta.Block, error) {
	data, err := f.meta.ChangeLeaf(tx, n)
	if err != nil {
		return nil, err
	}
	if unwritten(data) {
		return meta.New(data, meta.MaxIndex(len(data)), meta.ShorterFirst), nil
	}
	b, err := meta.Open(data)
	if err != nil || b.Magic() == meta.ShorterFirst {
		return b, err
	}
	var list []meta.DirEntry
	for i := range b.Len() {
		e, err := b.Entry(i)
		if err != nil {
			return nil, err
		}
		if e.Name == keep {
			list = append(list, e)
			list[0], list[i] = list[i], list[0]
			continue
		}
		list = append(list, e)
	}
	b = meta.New(data, meta.MaxIndex(len(data)), meta.ShorterFirst)
	for i := range list {
		modernize(&list[i])
		err := b.Insert(&list[i])
		if errors.Is(err, meta.ErrFull) && list[i].Name != keep {
			_, err = f.insert(tx, &list[i])
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// modernize makes e an entry of version 9, which is what fossil writes.
func modernize(e *meta.DirEntry) { e.Version, e.Plan9, e.Plan9Path, e.Plan9Version = 9, false, 0, 0 }

// insert adds an entry to the directory f. It returns the block that it chose:
// the first that has room, and leaves some for entries to grow, or a new one.
func (f *File) insert(tx *buffer.Tx, e *meta.DirEntry) (block int64, err error) {
	x, err := f.names(tx)
	if err != nil {
		return 0, err
	}
	n, err := f.blocks(tx)
	if err != nil {
		return 0, err
	}
	size, full := e.Size(), x.room
	for k := x.room; k < n; k++ {
		b, err := metaLeaf(tx, f.meta, k)
		if err != nil {
			return 0, err
		}
		if b.Magic() != meta.ShorterFirst || !b.Takes(size) {
			if full == k && size <= usualEntry {
				full = k + 1
			}
			continue
		}
		if b, err = f.metaBlock(tx, k, ""); err != nil {
			return 0, err
		}
		if err := b.Insert(e); err != nil {
			return 0, err
		}
		tx.OnPublish(func() { x.blocks[e.Name], x.room = k, max(x.room, full) })
		return k, nil
	}
	data, err := f.meta.ChangeLeaf(tx, n)
	if err != nil {
		return 0, err
	}
	b := meta.New(data, meta.MaxIndex(len(data)), meta.ShorterFirst)
	if err := b.Insert(e); errors.Is(err, meta.ErrFull) {
		return 0, ErrNameTooLong
	} else if err != nil {
		return 0, err
	}
	name := e.Name
	tx.OnPublish(func() { x.blocks[name], x.room = n, max(x.room, full) })
	return n, nil
}

// delete takes an entry out of a block of the directory f.
func (f *File) delete(tx *buffer.Tx, block int64, name string) error {
	x, err := f.names(tx)
	if err != nil {
		return err
	}
	b, err := f.metaBlock(tx, block, name)
	if err != nil {
		return err
	}
	i, ok := b.Search(name)
	if !ok {
		return fmt.Errorf("%w: %q is not where it was", ErrBadMeta, name)
	}
	b.Remove(i)
	tx.OnPublish(func() {
		delete(x.blocks, name)
		x.room = min(x.room, block)
	})
	return nil
}

// replace puts e in the place of the entry of a name, in its block or, if that
// has no room, another. It returns which.
func (f *File) replace(tx *buffer.Tx, block int64, name string, e *meta.DirEntry) (int64, error) {
	x, err := f.names(tx)
	if err != nil {
		return 0, err
	}
	b, err := f.metaBlock(tx, block, name)
	if err != nil {
		return 0, err
	}
	i, ok := b.Search(name)
	if !ok {
		return 0, fmt.Errorf("%w: %q is not where it was", ErrBadMeta, name)
	}
	switch err := b.Replace(i, e); {
	case err == nil:
		to := e.Name
		if to != name {
			tx.OnPublish(func() {
				delete(x.blocks, name)
				x.blocks[to] = block
			})
		}
		return block, nil
	case !errors.Is(err, meta.ErrFull):
		return 0, err
	}
	if err := f.delete(tx, block, name); err != nil {
		return 0, err
	}
	return f.insert(tx, e)
}

// isEmpty tells whether the directory f has no entries.
func (f *File) isEmpty(tx *buffer.Tx) (bool, error) {
	x, err := f.names(tx)
	return err == nil && len(x.blocks) == 0, err
}
