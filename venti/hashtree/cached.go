package hashtree

import "strata/venti"

// A BlockCache is a reader of blocks that keeps blocks in memory, and can show
// them there. It is an optional ability of what NewReader is given, found by
// type assertion: without it nothing is read at once.
type BlockCache interface {
	// CachedBlock returns the block that (s, t.Disk()) names if it is in memory.
	// Nobody changes it, now or later. It does not block.
	CachedBlock(s venti.Score, t venti.Type) (block []byte, ok bool)
}

// ReadCached is ReadAt for what needs no waiting: ok is false, and p undefined,
// if some block of it is not in memory. At the end of the file n is less than
// len(p), or 0.
func (r *Reader) ReadCached(p []byte, off int64) (n int, ok bool) {
	if r.cache == nil && r.cached != nil {
		return r.copyCached(p, off)
	}
	var few [16][]byte
	lent, ok := r.Lend(few[:0], len(p), off)
	if !ok {
		return 0, false
	}
	for _, b := range lent {
		n += copy(p[n:], b)
	}
	return n, true
}

// copyCached is ReadCached from a store that copies what it has in memory.
func (r *Reader) copyCached(p []byte, off int64) (n int, ok bool) {
	size, ds, np := r.Size(), int64(r.ptr.sh.dsize), int64(r.ptr.sh.np)
	switch {
	case off < 0:
		return 0, false
	case off >= size:
		return 0, true
	}
	scratch := r.leaves.Get().(*[]byte)
	defer r.leaves.Put(scratch)
	pointers := r.ptr.bufs.Get().(*[]byte)
	defer r.ptr.bufs.Put(pointers)
	p = p[:min(int64(len(p)), size-off)]
	var scores []byte // of the leaves from first on, under one pointer block
	first := int64(-1)
	for n < len(p) {
		leaf, skip := off/ds, off%ds
		if base := leaf / np * np; base != first {
			if scores, ok = r.copiedScores(base, *pointers); !ok {
				return 0, false
			}
			first = base
		}
		out := p[n : n+int(min(ds-skip, int64(len(p)-n)))]
		s := scoreAt(scores, int(leaf-first))
		have := 0
		switch {
		case isHole(s):
		case len(out) == int(ds):
			m, ok, err := r.cached.ReadCached(s, r.ptr.sh.leaf, out)
			if !ok || err != nil {
				return 0, false
			}
			have = m
		default:
			m, ok, err := r.cached.ReadCached(s, r.ptr.sh.leaf, *scratch)
			if !ok || err != nil {
				return 0, false
			}
			if int64(m) > skip {
				have = copy(out, (*scratch)[skip:m])
			}
		}
		clear(out[have:])
		n += len(out)
		off += int64(len(out))
	}
	return n, true
}

// copiedScores returns the scores of the leaves under the level-1 block that
// begins with leaf, if need be in buf.
func (r *Reader) copiedScores(leaf int64, buf []byte) (scores []byte, ok bool) {
	e, sh := &r.ptr.e, &r.ptr.sh
	if e.Depth == 0 {
		return e.Score[:], true
	}
	// Go up to the lowest block that is kept, and down again.
	k := 1
	for ; k <= e.Depth; k++ {
		if scores, ok = r.ptr.fetched(place{k, leaf / sh.under[k]}); ok {
			break
		}
	}
	s := e.Score
	if k <= e.Depth {
		s = scoreAt(scores, int(leaf/sh.under[k-1]%int64(sh.np)))
	}
	for k--; k >= 1; k-- {
		if isHole(s) {
			return nil, true
		}
		n, ok, err := r.cached.ReadCached(s, sh.typ(k), buf)
		if !ok || err != nil {
			return nil, false
		}
		scores = buf[:n-n%venti.ScoreSize]
		if k > 1 {
			s = scoreAt(scores, int(leaf/sh.under[k-1]%int64(sh.np)))
		}
	}
	return scores, true
}

// Lend is ReadCached without copying: it appends to bufs the pieces of memory
// that hold up to n bytes at off. They never change, and must not be changed.
func (r *Reader) Lend(bufs [][]byte, n int, off int64) (lent [][]byte, ok bool) {
	size, ds := r.Size(), int64(r.ptr.sh.dsize)
	switch {
	case r.cache == nil || off < 0:
		return bufs, false
	case off >= size:
		return bufs, true
	}
	lent = bufs
	np := int64(r.ptr.sh.np)
	var scores []byte // of the leaves from first on, under one pointer block
	first := int64(-1)
	for end := off + min(int64(n), size-off); off < end; {
		leaf, skip := off/ds, off%ds
		if base := leaf / np * np; base != first {
			if scores, ok = r.cachedScores(base); !ok {
				return bufs, false
			}
			first = base
		}
		want := min(ds-skip, end-off)
		off += want
		if s := scoreAt(scores, int(leaf-first)); !isHole(s) {
			// One that is too long is for ReadAt to complain about.
			block, ok := r.cache.CachedBlock(s, r.ptr.sh.leaf)
			if !ok || int64(len(block)) > ds {
				return bufs, false
			}
			if have := min(int64(len(block))-skip, want); have > 0 {
				lent = append(lent, block[skip:skip+have])
				want -= have
			}
		}
		for want > 0 {
			m := min(want, int64(len(zeros)))
			lent = append(lent, zeros[:m])
			want -= m
		}
	}
	return lent, true
}

// zeros are what holes are lent as. Nobody changes them.
var zeros [8192]byte

// cachedScores returns the scores of the leaves under the level-1 block that
// begins with leaf.
func (r *Reader) cachedScores(leaf int64) (scores []byte, ok bool) {
	e, sh := &r.ptr.e, &r.ptr.sh
	if e.Depth == 0 {
		return e.Score[:], true
	}
	// Most often the lowest is kept, and there is nothing to go down.
	if scores, ok = r.ptr.fetched(place{1, leaf / sh.under[1]}); ok {
		return scores, true
	}
	s := e.Score
	for k := e.Depth; k >= 1; k-- {
		if isHole(s) {
			return nil, true
		}
		if scores, ok = r.ptr.fetched(place{k, leaf / sh.under[k]}); !ok {
			if scores, ok = r.cache.CachedBlock(s, sh.typ(k)); !ok || len(scores) > sh.psize {
				return nil, false
			}
			scores = scores[:len(scores)-len(scores)%venti.ScoreSize]
		}
		s = scoreAt(scores, int(leaf/sh.under[k-1]%int64(sh.np)))
	}
	return scores, true
}

// fetched returns the scores of a pointer block that is kept.
func (p *pointers) fetched(at place) (scores []byte, ok bool) {
	n := p.cached(at)
	if n == nil {
		return nil, false
	}
	select {
	case <-n.done:
		return n.scores, n.err == nil
	default:
		return nil, false
	}
}
