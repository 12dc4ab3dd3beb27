package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"

	"strata/internal/disk"
)

// The overflow of an index is a file beside its sections for the entries that
// their buckets have no room for. It is an addition of ours, which Plan 9's
// programs do not see: they do not find what is in it.
//
//	header, in 4096 bytes
//	level 1: a bucket for each bucket of the index, in their order
//	level 2: the same once more, and so on to the end of the file
//
// The buckets are those of a section of version 2 (bucket.go). An entry for
// which its bucket has no room goes to the bucket with the same number in level
// 1, when that one is full to level 2. So a bucket and those of its number make
// a chain, that ends with the first that is not full. Nothing moves along it.
//
// The file is sparse, and most of it is never written: it takes no room for
// buckets that are not full, and a look-up reads it only where a bucket is.
//
// The header is
//
//	magic[4] 0fe25a17, version[4] 1, blocksize[4] buckets[4] sections[4] bucketmagic[4] crc[4]
//
// and zeros. All integers are big-endian. sections is the CRC-32C of what
// sectionsSum says about the sections that the file belongs to; bucketmagic is
// that of buckets in use, random and not 0; crc is the CRC-32C of the bytes
// before it. A header of zeros is that of a file that was just made.
const (
	overflowHeader  = 4096
	overflowMagic   = 0x0fe25a17
	overflowVersion = 1
	overflowPacked  = 28

	// overflowLevels is how many levels OverflowSize has room for: an index can
	// have eight times the entries that it was made for.
	overflowLevels = 7
)

// ErrOverflow is why a file cannot be the overflow of an index.
var ErrOverflow = errors.New("not the overflow of this index")

// An overflow is that of an open index.
type overflow struct {
	// Immutable after OpenOverflow, but for what Index.updating guards.
	file   disk.File
	levels []*Section // with all buckets of the index each

	noHeader bool // it is to be written before any bucket; guarded by Index.updating
}

// OverflowSize returns how long the overflow of an index of these sections is
// to be.
func OverflowSize(sections []*Section) int64 {
	last := sections[len(sections)-1]
	return overflowHeader + overflowLevels*int64(last.Stop)*int64(last.BlockSize)
}

// OpenOverflow makes file the overflow of ix. A file of zeros has no entries,
// and gets a header when it gets the first. The caller still owns file. It comes
// before all other calls.
func (ix *Index) OpenOverflow(file disk.File) error {
	if err := ix.openOverflow(file); err != nil {
		return fmt.Errorf("index %s: overflow: %w", ix.Name, err)
	}
	return nil
}

func (ix *Index) openOverflow(file disk.File) error {
	if err := ix.MakeOverflow(file); err != nil {
		return err
	}
	b := make([]byte, overflowPacked)
	if err := disk.ReadFull(file, b, 0); err != nil {
		return fmt.Errorf("read header: %w", err)
	}
	magic, err := ix.unpackOverflow(b)
	if err != nil || magic == 0 {
		return err
	}
	ix.over.noHeader = false
	for _, s := range ix.over.levels {
		s.Magic = magic
	}
	return nil
}

// MakeOverflow is OpenOverflow for a file whose content does not matter, as
// before a Build of all sections. That it is void is on the disk when the first
// entry is, or after that Build.
func (ix *Index) MakeOverflow(file disk.File) error {
	for _, s := range ix.Sections {
		// Their buckets do not tell an index that was formatted anew.
		if s.Version == 1 {
			return fmt.Errorf("section %s has version 1, which can have none: %w", s.Name, ErrOverflow)
		}
	}
	size := int64(ix.Buckets) * int64(ix.BlockSize)
	n := (file.Size() - overflowHeader) / size
	if n < 1 {
		return fmt.Errorf("file has %d bytes, and a level needs %d: %w", file.Size(), overflowHeader+size, ErrOverflow)
	}
	magic := rand.Uint32() | 1
	ix.over = &overflow{file: file, noHeader: true}
	for i := range n {
		ix.over.levels = append(ix.over.levels, &Section{
			Name: fmt.Sprintf("overflow, level %d", i+1), Index: ix.Name, Version: 2, BlockSize: ix.BlockSize,
			BlockBase: overflowHeader + i*size, Blocks: ix.Buckets, Stop: ix.Buckets, Magic: magic, file: file,
		})
	}
	return nil
}

// sectionsSum returns what tells these sections from others, and from the same
// formatted again.
func (ix *Index) sectionsSum() uint32 {
	var b []byte
	for _, s := range ix.Sections {
		b = append(append(b, s.Name...), 0)
		b = binary.BigEndian.AppendUint32(b, s.Magic)
		b = binary.BigEndian.AppendUint32(b, s.Start)
		b = binary.BigEndian.AppendUint32(b, s.Stop)
	}
	return crc32.Checksum(b, castagnoli)
}

// packOverflow returns the header of the overflow of ix.
func (ix *Index) packOverflow(bucketMagic uint32) []byte {
	b := make([]byte, 0, overflowPacked)
	for _, n := range []uint32{overflowMagic, overflowVersion, uint32(ix.BlockSize), ix.Buckets, ix.sectionsSum(), bucketMagic} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// unpackOverflow returns the magic of buckets from a header, or 0 if that is
// blank.
func (ix *Index) unpackOverflow(b []byte) (bucketMagic uint32, err error) {
	if [overflowPacked]byte(b) == [overflowPacked]byte{} {
		return 0, nil
	}
	at := func(off int) uint32 { return binary.BigEndian.Uint32(b[off:]) }
	switch {
	case at(0) != overflowMagic:
		return 0, fmt.Errorf("bad magic %08x: %w", at(0), ErrOverflow)
	case at(24) != crc32.Checksum(b[:24], castagnoli):
		return 0, fmt.Errorf("header has check sum %08x: %w", at(24), ErrOverflow)
	case at(4) != overflowVersion:
		return 0, fmt.Errorf("unknown version %d: %w", at(4), ErrOverflow)
	case at(8) != uint32(ix.BlockSize) || at(12) != ix.Buckets || at(16) != ix.sectionsSum():
		return 0, fmt.Errorf("it is of %d buckets of %d bytes in other sections; buildindex makes it anew: %w", at(12), at(8), ErrOverflow)
	case at(20) == 0:
		return 0, fmt.Errorf("bucket magic is zero: %w", ErrOverflow)
	}
	return at(20), nil
}

// levels returns those of the overflow, if there is one.
func (ix *Index) levels() []*Section {
	if ix.over == nil {
		return nil
	}
	return ix.over.levels
}

// chain returns the section that a bucket is in, and then the levels.
func (ix *Index) chain(bucket uint32) []*Section {
	return append([]*Section{ix.section(bucket)}, ix.levels()...)
}

// readyOverflow writes the header if it is missing. ix.updating must be held.
func (ix *Index) readyOverflow() error {
	if ix.over == nil || !ix.over.noHeader {
		return nil
	}
	b := make([]byte, overflowHeader)
	copy(b, ix.packOverflow(ix.over.levels[0].Magic))
	_, err := ix.over.file.WriteAt(b, 0)
	if err == nil {
		err = ix.over.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("overflow: write header: %w", err)
	}
	ix.over.noHeader = false
	return nil
}

// cut splits the entries for a bucket into what each link of its chain holds:
// all but the last are full, and the last is not. What there is no link for
// comes back as rest.
func cut(entries []Entry, links, capacity int) (parts [][]Entry, rest []Entry) {
	for range links {
		n := min(capacity, len(entries))
		parts, entries = append(parts, entries[:n]), entries[n:]
		if n < capacity {
			break
		}
	}
	return parts, entries
}

// replaceOverflow makes parts all that the buckets of this number in the levels
// hold. It does not sync.
func (ix *Index) replaceOverflow(bucket uint32, parts [][]Entry) error {
	if len(parts) == 0 {
		return nil
	}
	if err := ix.readyOverflow(); err != nil {
		return err
	}
	for i, p := range parts {
		w := runWriter{s: ix.over.levels[i]}
		w.reset(bucket, bucket)
		w.replace(bucket, sortedCopy(p))
		if err := w.write(); err != nil {
			return err
		}
	}
	return nil
}
