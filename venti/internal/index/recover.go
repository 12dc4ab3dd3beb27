package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"strata/internal/disk"
)

// A Source gives the entry of every clump in the arenas of an index, each
// time it is called, in any order; several may have one key. The first error
// ends it.
type Source func(ctx context.Context) iter.Seq2[Entry, error]

// maxRebuild is how many buckets Recover makes at once; for each group it
// reads the source. Their entries take at most 70 MB.
const maxRebuild = 8192

// Recover makes an index sound again after a crash in the middle of an
// Update. unindexed, which Sort has sorted, are the entries of all clumps
// that may have been in such an update: those that the trailers of the arenas
// do not note as indexed. Their buckets may be torn. Recover reads each, and
// those that are not certainly whole it makes anew from all, which has every
// entry, also the unindexed ones.
//
// It costs a read for each bucket, and reads all only if some bucket is not
// certainly whole: when it was torn, or last written by a program of Plan 9.
// rebuilt says how many were not. Entries that do not fit in a bucket come
// back as overflow. The unindexed entries of the other buckets are still to
// be given to Update. It writes their buckets even if it finds the entries
// there: what can be read need not be on stable storage, nor would a sync bring
// it there, if it is what the kernel still has of an update whose sync failed.
func (ix *Index) Recover(ctx context.Context, unindexed []Entry, all Source) (rebuilt int, overflow []Entry, err error) {
	ix.updating.Lock()
	defer ix.updating.Unlock()
	suspects, err := ix.suspects(ctx, unindexed)
	if err != nil {
		return 0, nil, err
	}
	ix.again = true
	for group := range slices.Chunk(suspects, maxRebuild) {
		if overflow, err = ix.rebuild(ctx, group, all, overflow); err != nil {
			return rebuilt, nil, fmt.Errorf("index %s: rebuild %d buckets: %w", ix.Name, len(group), err)
		}
		rebuilt += len(group)
	}
	return rebuilt, overflow, nil
}

// suspects returns the buckets of entries, which are sorted, that are not
// certainly whole.
func (ix *Index) suspects(ctx context.Context, entries []Entry) ([]uint32, error) {
	var list []uint32
	block := make([]byte, ix.BlockSize)
	for i := range entries {
		b := ix.Bucket(entries[i].Score)
		if i > 0 {
			if last := ix.Bucket(entries[i-1].Score); last == b {
				continue
			} else if last > b {
				return nil, errors.New("index: recover: entries are not sorted")
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s := ix.section(b)
		if err := disk.ReadFull(s.file, block, s.offset(b)); err != nil {
			return nil, s.bucketError(b, fmt.Errorf("read: %w", err))
		}
		if !s.whole(block, b) {
			list = append(list, b)
		}
	}
	return list, nil
}

// rebuild makes the given buckets, in ascending order, from all.
func (ix *Index) rebuild(ctx context.Context, buckets []uint32, all Source, overflow []Entry) ([]Entry, error) {
	var entries []Entry
	for e, err := range all(ctx) {
		if err != nil {
			return overflow, err
		}
		if _, ok := slices.BinarySearch(buckets, ix.Bucket(e.Score)); ok {
			entries = append(entries, e)
		}
	}
	Sort(entries)
	w := &runWriter{}
	for _, b := range buckets {
		if s := ix.section(b); s != w.s {
			if err := w.sync(); err != nil {
				return overflow, err
			}
			w = &runWriter{s: s}
		}
		n := 0
		for n < len(entries) && ix.Bucket(entries[n].Score) == b {
			n++
		}
		fit, rest := fitting(entries[:n], w.s.Capacity())
		overflow = append(overflow, rest...)
		entries = entries[n:]
		if err := w.read(b, b); err != nil {
			return overflow, err
		}
		w.replace(b, fit)
		if err := w.write(); err != nil {
			return overflow, err
		}
	}
	return overflow, w.sync()
}

// fitting splits the entries for a bucket, which are sorted, into those that
// go in and those that do not: of those with one key the last is taken, and
// where that is still too many, those that were stored first.
func fitting(entries []Entry, capacity int) (fit, rest []Entry) {
	for i := range entries {
		if i+1 == len(entries) || entries[i].Compare(&entries[i+1]) != 0 {
			fit = append(fit, entries[i])
		}
	}
	if len(fit) <= capacity {
		return fit, nil
	}
	slices.SortFunc(fit, func(e, f Entry) int { return cmp.Compare(e.Addr, f.Addr) })
	fit, rest = fit[:capacity], fit[capacity:]
	Sort(fit)
	return fit, rest
}
