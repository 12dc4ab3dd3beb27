package vdisk

import (
	"encoding/binary"
	"iter"
	"sort"

	"strata/vdisk/fsys"
)

// A freeMap holds what is free in a region so that it can be asked about any
// place at once. A fragmented file system has millions of free extents, so
// they are kept as differences:
//
//	used[uvarint] free[uvarint] ...
//
// in sectors of 512 bytes: so many used, so many free, from the start of the
// region. Every freeStep extents the place is noted in marks.
type freeMap struct {
	data  []byte
	marks []freeMark
	n     int   // extents
	end   int64 // of the last one, in sectors
}

type freeMark struct {
	end int64 // of the extent before, in sectors
	pos int   // in data
}

const (
	freeSector = 512
	freeStep   = 32
)

// newFreeMap keeps extents that are in ascending order, as those of
// fsys.FileSystem.Free.
func newFreeMap(extents iter.Seq2[fsys.Extent, error]) (*freeMap, error) {
	m := new(freeMap)
	for x, err := range extents {
		if err != nil {
			return nil, err
		}
		m.add(x)
	}
	return m, nil
}

// add appends an extent that lies after all others, shrunk to whole sectors.
func (m *freeMap) add(x fsys.Extent) {
	start, end := (x.Off+freeSector-1)/freeSector, x.End()/freeSector
	if start >= end {
		return
	}
	if m.n%freeStep == 0 {
		m.marks = append(m.marks, freeMark{m.end, len(m.data)})
	}
	m.data = binary.AppendUvarint(m.data, uint64(start-m.end))
	m.data = binary.AppendUvarint(m.data, uint64(end-start))
	m.n++
	m.end = end
}

// next returns the first free extent that ends after off. ok is false if
// there is none. A nil map has none.
func (m *freeMap) next(off int64) (x fsys.Extent, ok bool) {
	if m == nil || off >= m.end*freeSector {
		return x, false
	}
	// The last mark at or before off: the extent is among those after it.
	i := sort.Search(len(m.marks), func(i int) bool { return m.marks[i].end*freeSector > off }) - 1
	at, pos := m.marks[i].end, m.marks[i].pos
	for {
		used, n := binary.Uvarint(m.data[pos:])
		pos += n
		free, n := binary.Uvarint(m.data[pos:])
		pos += n
		start := at + int64(used)
		at = start + int64(free)
		if at*freeSector > off {
			return fsys.Extent{Off: start * freeSector, Len: int64(free) * freeSector}, true
		}
	}
}
