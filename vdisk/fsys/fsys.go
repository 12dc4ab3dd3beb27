// Package fsys says which bytes of a disk region a file system holds and which
// are free, so that free ones need not be stored.
//
// Each kind of file system has a package of its own with one Prober. Probe asks
// them all:
//
//	fs, err := fsys.Probe(region, length, ext.Probe, swap.Probe)
//	switch {
//	case err != nil: // the region cannot be read
//	case fs == nil: // nothing that anyone knows: store all of it
//	case fs.Whole != "": // known, but its free map is not certain: store all of it
//	}
//	for x, err := range fs.Free() { ... }
//
// The rule is that unknown never means lost. A prober lists a byte as free
// only when it understands every feature that could say otherwise and the
// file system's own allocation data is whole, agrees with itself and is what
// any later recovery by the file system's driver would start from. In all
// other cases Whole says why not, in words for people.
//
// What is found depends only on the region's bytes and length, so the same
// bytes give the same map on every machine and every day.
package fsys

import (
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"strings"
)

// An Extent is a run of bytes, counted from the start of the region. Len is
// more than 0.
type Extent struct{ Off, Len int64 }

// End returns the offset of the first byte after x.
func (x Extent) End() int64 { return x.Off + x.Len }

// A FileSystem is what a Prober has found in a region. It reads the region
// for as long as its free map is used; its methods may be called at once if
// the region's ReadAt may.
type FileSystem struct {
	Type      string // ext2, ext3, ext4, swap...; as blkid(8) names it
	UUID      string // as blkid(8) prints it, empty if it has none
	Label     string // its bytes as they are, without padding; need not be UTF-8
	BlockSize int    // bytes in its allocation block, 0 if not known
	Size      int64  // bytes it covers from the start of the region, 0 if not known
	FreeBytes int64  // sum of the free map

	// Clean says that nobody can be using the file system: it says itself that it
	// was unmounted. What is free then stays free until it is mounted again.
	Clean bool

	// Whole is why every byte of the region must be stored. It is empty when
	// the free map is certain.
	Whole string

	// Paging are the places, in ascending order, of files in which a machine
	// keeps its memory: worth nothing once it is off, but not free. It is
	// for those who ask for it.
	Paging []Extent

	// FreeMap yields what is free, in ascending order without overlaps, inside
	// [0, Size). It is made as it is read, in bounded memory, each time that it
	// is ranged over. An error ends it. Users call Free, which checks it.
	FreeMap iter.Seq2[Extent, error]
}

// A Prober looks at a region of size bytes for one kind of file system. It
// returns nil, nil for a region that is not its kind, and a FileSystem with
// Whole set for one that is damaged, in use by a feature it does not know, or
// larger than the region. Errors are those of reading.
//
// Before it returns a FileSystem without Whole it has made the free map once
// and checked all of it.
type Prober func(r io.ReaderAt, size int64) (*FileSystem, error)

// Free returns the free map: ascending extents inside [0, Size) that neither
// touch nor overlap. It is empty if Whole is set. An error, which ends it,
// means that the region could not be read or is not what it was when it was
// probed; then nothing it said may be relied on.
func (fs *FileSystem) Free() iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		if fs.Whole != "" || fs.FreeMap == nil {
			return
		}
		var last Extent
		for x, err := range fs.FreeMap {
			if err != nil {
				yield(Extent{}, fmt.Errorf("free map of %s: %w", fs.Type, err))
				return
			}
			// Subtraction, since End could overflow.
			if x.Len <= 0 || x.Off < last.End() || x.Len > fs.Size-x.Off {
				yield(Extent{}, fmt.Errorf("free map of %s: extent %d+%d is out of place", fs.Type, x.Off, x.Len))
				return
			}
			if last.Len > 0 && x.Off == last.End() {
				last.Len += x.Len
				continue
			}
			if last.Len > 0 && !yield(last, nil) {
				return
			}
			last = x
		}
		if last.Len > 0 {
			yield(last, nil)
		}
	}
}

// FreeAndPaging is Free with the extents of Paging among the others.
func (fs *FileSystem) FreeAndPaging() iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		if fs.Whole != "" {
			return
		}
		rest := fs.Paging
		for x, err := range fs.Free() {
			for err == nil && len(rest) > 0 && rest[0].Off < x.Off {
				if !yield(rest[0], nil) {
					return
				}
				rest = rest[1:]
			}
			if !yield(x, err) || err != nil {
				return
			}
		}
		for _, x := range rest {
			if !yield(x, nil) {
				return
			}
		}
	}
}

// Probe asks every prober, and then the table of signatures, what a region of
// size bytes holds. It returns nil, nil if nobody knows, and one file system
// if one does. If several answer, or one answers and the region has the
// signature of something else too, some of them are remains of an earlier use
// and there is no telling which: the first is returned with Whole set.
func Probe(r io.ReaderAt, size int64, probers ...Prober) (*FileSystem, error) {
	var found *FileSystem
	names, err := Signatures(r, size)
	if err != nil {
		return nil, err
	}
	var types []string
	for _, probe := range probers {
		fs, err := probe(r, size)
		if err != nil {
			return nil, err
		}
		if fs == nil {
			continue
		}
		if found == nil {
			found = fs
		}
		types = append(types, fs.Type)
	}
	for _, name := range names {
		if !claimed(types, name) {
			types = append(types, name)
		}
	}
	if found == nil && len(types) > 0 {
		found = &FileSystem{Type: types[0], Whole: "no free map is known for " + types[0]}
	}
	if len(types) > 1 {
		found = &FileSystem{
			Type: found.Type, UUID: found.UUID, Label: found.Label,
			BlockSize: found.BlockSize, Size: found.Size,
			Whole: "it has the signatures of " + strings.Join(types, " and of "),
		}
	}
	return found, nil
}

// claimed tells whether a prober that found one of types has already spoken
// for the signature name.
func claimed(types []string, name string) bool {
	for _, t := range types {
		if t == name || name == "ext" && (t == "ext2" || t == "ext3" || t == "ext4" || t == "jbd") {
			return true
		}
	}
	return false
}

// UUID formats 16 bytes in the order that they are stored. All zeros, which
// stands for none, is empty.
func UUID(b [16]byte) string {
	if b == [16]byte{} {
		return ""
	}
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
