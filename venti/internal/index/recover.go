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
// rebuilt says how many were not. Entries that do not fit in a bucket, nor in
// the overflow, come back as left. The unindexed entries of the other buckets are
// still to be given to Update. It writes their buckets even if it finds the
// entries there: what can be read need not be on stable storage, nor would a
// sync bring it there, if it is what the kernel still has of an update whose sync
// failed.
func (ix *Index) Recover(ctx context.Context, unindexed []Entry, all Source) (rebuilt int, left []Entry, err error) {
	ix.updating.Lock()
	defer ix.updating.Unlock()
	suspects, err := ix.suspects(ctx, unindexed)
	if err != nil {
		return 0, nil, err
	}
	ix.again = true
	for group := range slices.Chunk(suspects, maxRebuild) {
		if left, err = ix.rebuild(ctx, group, all, left); err != nil {
			return rebuilt, nil, fmt.Errorf("index %s: rebuild %d buckets: %w", ix.Name, len(group), err)
		}
		rebuilt += len(group)
	}
	return rebuilt, left, nil
}

// A suspect is a bucket whose chain is not certainly whole.
type suspect struct {
	bucket uint32
	before []Entry // what the links before the first that is not whole hold
	link   int     // that one
}

// suspects returns the buckets of entries, which are sorted, that are not
// certainly whole.
func (ix *Index) suspects(ctx context.Context, entries []Entry) ([]suspect, error) {
	var list []suspect
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
		sus := suspect{bucket: b}
		for i, s := range ix.chain(b) {
			if err := disk.ReadFull(s.file, block, s.offset(b)); err != nil {
				return nil, s.bucketError(b, fmt.Errorf("read: %w", err))
			}
			if !s.whole(block, b) {
				sus.link = i
				list = append(list, sus)
				break
			}
			n := len(sus.before)
			var err error
			if sus.before, err = s.unpackBucket(sus.before, block); err != nil || len(sus.before)-n < s.Capacity() {
				break // an error is none that a crash has made
			}
		}
	}
	return list, nil
}

// rebuild makes the given buckets, in ascending order, from all. What whole
// links at the front of a chain hold stays there. The others are written from the
// end of the chain to its front, so that, if a crash comes between, the one that
// was not whole still is not.
func (ix *Index) rebuild(ctx context.Context, suspects []suspect, all Source, left []Entry) ([]Entry, error) {
	var entries []Entry
	for e, err := range all(ctx) {
		if err != nil {
			return left, err
		}
		_, ok := slices.BinarySearchFunc(suspects, ix.Bucket(e.Score), func(s suspect, b uint32) int { return cmp.Compare(s.bucket, b) })
		if ok {
			entries = append(entries, e)
		}
	}
	Sort(entries)
	links := 1 + len(ix.levels())
	parts := make([][][]Entry, links) // for each link, what it holds of each suspect, nil if it stays
	for i := range parts {
		parts[i] = make([][]Entry, len(suspects))
	}
	for i := range suspects {
		sus := &suspects[i]
		n := 0
		for n < len(entries) && ix.Bucket(entries[n].Score) == sus.bucket {
			n++
		}
		mine := without(inLogOrder(entries[:n]), sus.before)
		entries = entries[n:]
		list, rest := cut(mine, links-sus.link, capacity(ix.BlockSize))
		for k, p := range list {
			parts[sus.link+k][i] = sortedCopy(p)
		}
		left = append(left, rest...)
	}
	for link := links - 1; link >= 0; link-- {
		w := &runWriter{}
		for i := range suspects {
			if parts[link][i] == nil {
				continue
			}
			b := suspects[i].bucket
			if s := ix.chain(b)[link]; s != w.s {
				if err := w.sync(); err != nil {
					return left, err
				}
				w = &runWriter{s: s}
			}
			if link > 0 {
				if err := ix.readyOverflow(); err != nil {
					return left, err
				}
			}
			if err := w.read(b, b); err != nil {
				return left, err
			}
			w.replace(b, parts[link][i])
			if err := w.write(); err != nil {
				return left, err
			}
		}
		if err := w.sync(); err != nil {
			return left, err
		}
	}
	return left, nil
}

// inLogOrder returns the entries for a bucket, which are sorted, in the order in
// which they were stored; of those with one key the last.
func inLogOrder(entries []Entry) []Entry {
	var list []Entry
	for i := range entries {
		if i+1 == len(entries) || entries[i].Compare(&entries[i+1]) != 0 {
			list = append(list, entries[i])
		}
	}
	slices.SortFunc(list, func(e, f Entry) int { return cmp.Compare(e.Addr, f.Addr) })
	return list
}

// sortedCopy returns the entries by key. It is not nil.
func sortedCopy(entries []Entry) []Entry {
	list := append([]Entry{}, entries...)
	Sort(list)
	return list
}

// without returns the entries whose keys are not among those of have.
func without(entries, have []Entry) []Entry {
	if len(have) == 0 {
		return entries
	}
	have = sortedCopy(have)
	return slices.DeleteFunc(entries, func(e Entry) bool {
		_, ok := slices.BinarySearchFunc(have, e, func(f, e Entry) int { return f.Compare(&e) })
		return ok
	})
}
