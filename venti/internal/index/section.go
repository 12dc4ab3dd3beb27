package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/config"
)

// A section has 256 KiB that are left alone, then a header, the table (see
// table.go) and the buckets. The header, at 256 KiB, has 512 bytes for
//
//	magic[4] version[4] name[64] index[64] blocksize[4] blockbase[4] blocks[4] start[4] stop[4] bucketmagic[4]
//
// All integers are big-endian; strings are padded with NUL. blocksize, a
// power of two of at most 64 KiB, is the size of a bucket; blockbase is the
// offset of the first, after the table, which begins at the first multiple of
// blocksize after the header. blocks is how many buckets there is room for;
// those in use have the numbers from start up to stop in the index called
// index, whose name is empty until Format. bucketmagic is random and not 0,
// and there only in version 2.
const (
	sectionBase   = 256 << 10
	sectionHeader = 512
	sectionMagic  = 0xd15c5ec7
	nameSize      = 64

	// tableSize is the room for the table that FormatSection leaves.
	tableSize = 512 << 10
	// maxTableSize is the most that OpenSection believes in.
	maxTableSize = 16 << 20

	// DefaultBlockSize is the size of a bucket if nothing else is asked for.
	DefaultBlockSize = 8192
	minBlockSize     = 512
	maxBlockSize     = 64 << 10
)

// ErrBadBucket means that a bucket is not as any program writes it.
var ErrBadBucket = errors.New("damaged index bucket")

// A Section is a partition with a range of the buckets of an index.
type Section struct {
	// Immutable after Open and Format.
	Name      string
	Index     string // name of the index, empty for none yet
	Version   int    // 1 or 2
	BlockSize int    // bytes in a bucket
	BlockBase int64  // offset of the first bucket
	Blocks    uint32 // buckets that there is room for
	Start     uint32 // number of the first bucket
	Stop      uint32 // and of the one past the last
	Magic     uint32 // of a bucket in use; 0 in version 1
	file      disk.File

	reads atomic.Int64 // of buckets, by lookup

	mu       sync.RWMutex // guards the fields below; not held while the disk is waited for
	runs     uint64       // runs that Update has written or begun to
	run      []byte       // buckets that Update is writing, as they will be
	runStart uint32       // the first of them
	written  int64        // bytes that Update has written
}

// A SectionConfig says how to format a section.
type SectionConfig struct {
	Name      string
	BlockSize int    // 0 means DefaultBlockSize
	Version   int    // 1 or 2; 0 means 2
	Magic     uint32 // of buckets, for version 2; 0 means a random one
	NoZero    bool   // leave buckets of version 1 as they are: the disk is known to be zero
}

// FormatSection makes file a section that belongs to no index yet, and syncs
// it.
func FormatSection(ctx context.Context, file disk.File, c SectionConfig) (*Section, error) {
	s := &Section{Name: c.Name, Version: c.Version, BlockSize: c.BlockSize, Magic: c.Magic, file: file}
	if s.BlockSize == 0 {
		s.BlockSize = DefaultBlockSize
	}
	if s.Version == 0 {
		s.Version = 2
	}
	if s.Version == 1 {
		s.Magic = 0
	}
	for s.Version == 2 && s.Magic == 0 {
		s.Magic = rand.Uint32()
	}
	if err := s.format(ctx, file, c); err != nil {
		return nil, fmt.Errorf("index section %s: format: %w", c.Name, err)
	}
	return s, nil
}

func (s *Section) format(ctx context.Context, file disk.File, c SectionConfig) error {
	if err := checkBlockSize(s.BlockSize); err != nil {
		return err
	}
	s.BlockBase = roundUp(s.tableBase()+tableSize, s.BlockSize)
	blocks := file.Size()/int64(s.BlockSize) - s.BlockBase/int64(s.BlockSize)
	if blocks < 1 {
		return fmt.Errorf("%d bytes are too few", file.Size())
	}
	s.Blocks = uint32(min(blocks, 1<<32-1))
	if err := s.check(); err != nil {
		return err
	}
	// A table that is there would be taken for one of the new section.
	end := s.BlockBase
	if s.Version == 1 && !c.NoZero {
		end = s.offset(s.Blocks)
	}
	if err := zero(ctx, file, s.tableBase(), end); err != nil {
		return err
	}
	return s.writeHeader()
}

// OpenSection reads the header of the section in file. The caller still owns
// file.
func OpenSection(file disk.File) (*Section, error) {
	b := make([]byte, sectionHeader)
	if err := disk.ReadFull(file, b, sectionBase); err != nil {
		return nil, fmt.Errorf("index section: read header: %w", err)
	}
	s, err := unpackSection(b)
	if err != nil {
		return nil, fmt.Errorf("index section: %w", err)
	}
	s.file = file
	if s.offset(s.Start+s.Blocks) > file.Size() {
		return nil, fmt.Errorf("index section %s: %d buckets do not fit in %d bytes", s.Name, s.Blocks, file.Size())
	}
	return s, nil
}

// pack returns the header of s.
func (s *Section) pack() []byte {
	b := make([]byte, sectionHeader)
	binary.BigEndian.PutUint32(b, sectionMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(s.Version))
	copy(b[8:], s.Name)
	copy(b[8+nameSize:], s.Index)
	binary.BigEndian.PutUint32(b[136:], uint32(s.BlockSize))
	binary.BigEndian.PutUint32(b[140:], uint32(s.BlockBase))
	binary.BigEndian.PutUint32(b[144:], s.Blocks)
	binary.BigEndian.PutUint32(b[148:], s.Start)
	binary.BigEndian.PutUint32(b[152:], s.Stop)
	if s.Version != 1 {
		binary.BigEndian.PutUint32(b[156:], s.Magic)
	}
	return b
}

// unpackSection reads a header, and checks all that can be without knowing
// the size of the partition.
func unpackSection(b []byte) (*Section, error) {
	if m := binary.BigEndian.Uint32(b); m != sectionMagic {
		return nil, fmt.Errorf("bad magic %#08x: not an index section", m)
	}
	version := binary.BigEndian.Uint32(b[4:])
	if version != 1 && version != 2 {
		return nil, fmt.Errorf("unknown version %d", version)
	}
	s := &Section{
		Name:      str(b[8:][:nameSize]),
		Index:     str(b[8+nameSize:][:nameSize]),
		Version:   int(version),
		BlockSize: int(binary.BigEndian.Uint32(b[136:])),
		BlockBase: int64(binary.BigEndian.Uint32(b[140:])),
		Blocks:    binary.BigEndian.Uint32(b[144:]),
		Start:     binary.BigEndian.Uint32(b[148:]),
		Stop:      binary.BigEndian.Uint32(b[152:]),
	}
	if version == 2 {
		s.Magic = binary.BigEndian.Uint32(b[156:])
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("section %s: %w", s.Name, err)
	}
	return s, nil
}

// check tells what is impossible about s.
func (s *Section) check() error {
	if err := config.CheckName(s.Name); err != nil {
		return err
	}
	if s.Index != "" {
		if err := config.CheckName(s.Index); err != nil {
			return err
		}
	}
	if err := checkBlockSize(s.BlockSize); err != nil {
		return err
	}
	switch {
	case s.BlockBase <= s.tableBase() || s.BlockBase-s.tableBase() > maxTableSize || s.BlockBase%int64(s.BlockSize) != 0:
		return fmt.Errorf("buckets start at %#x", s.BlockBase)
	case s.Start > s.Stop || s.Stop-s.Start > s.Blocks:
		return fmt.Errorf("buckets from %d to %d, with room for %d", s.Start, s.Stop, s.Blocks)
	case s.Version == 2 && s.Magic == 0:
		return errors.New("bucket magic is zero")
	}
	return nil
}

func checkBlockSize(n int) error {
	if n < minBlockSize || n > maxBlockSize || n&(n-1) != 0 {
		return fmt.Errorf("bad block size %d: want a power of two from %d to %d", n, minBlockSize, maxBlockSize)
	}
	return nil
}

// writeHeader writes the header and syncs the file.
func (s *Section) writeHeader() error {
	if _, err := s.file.WriteAt(s.pack(), sectionBase); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	return s.sync()
}

func (s *Section) sync() error {
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// tableBase returns the offset of the table.
func (s *Section) tableBase() int64 { return roundUp(sectionBase+sectionHeader, s.BlockSize) }

// TableSize returns the bytes set aside for the table.
func (s *Section) TableSize() int { return int(s.BlockBase - s.tableBase()) }

// Capacity returns how many entries a bucket holds.
func (s *Section) Capacity() int { return capacity(s.BlockSize) }

// offset returns the offset of a bucket.
func (s *Section) offset(bucket uint32) int64 {
	return s.BlockBase + int64(bucket-s.Start)*int64(s.BlockSize)
}

// lookup finds the entry for a key in the given bucket, which it reads into
// buf unless it is just being written. full tells that the bucket has room for
// no more, so that an entry which is not there may be in the overflow.
func (s *Section) lookup(bucket uint32, score *venti.Score, t venti.DiskType, buf []byte) (e Entry, ok, full bool, err error) {
	buf = buf[:s.BlockSize]
	for {
		s.mu.RLock()
		runs := s.runs
		if i := int64(bucket) - int64(s.runStart); i >= 0 && i < int64(len(s.run)/s.BlockSize) {
			e, ok, full, err := s.search(s.run[int(i)*s.BlockSize:][:s.BlockSize], score, t)
			s.mu.RUnlock()
			return e, ok, full, s.bucketError(bucket, err)
		}
		s.mu.RUnlock()
		s.reads.Add(1)
		if err := disk.ReadFull(s.file, buf, s.offset(bucket)); err != nil {
			return Entry{}, false, false, s.bucketError(bucket, fmt.Errorf("read: %w", err))
		}
		s.mu.RLock()
		same := runs == s.runs
		s.mu.RUnlock()
		// What was read while a run was written may be half of each.
		if same {
			e, ok, full, err := s.search(buf, score, t)
			return e, ok, full, s.bucketError(bucket, err)
		}
	}
}

// search finds the entry for a key in the bucket in block.
func (s *Section) search(block []byte, score *venti.Score, t venti.DiskType) (e Entry, ok, full bool, err error) {
	n, err := s.count(block)
	if err != nil {
		return Entry{}, false, false, err
	}
	full = n == s.Capacity()
	i, ok := find(block, n, score, t)
	if ok {
		return unpackEntry(block[bucketHeader+i*entrySize:]), true, full, nil
	}
	// Absent and damaged are told apart: out of order, the entries may have
	// hidden the one looked for.
	return Entry{}, false, full, ordered(block, n)
}

// bucketError adds to err where it happened.
func (s *Section) bucketError(bucket uint32, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("index section %s: bucket %d at %#x: %w", s.Name, bucket, s.offset(bucket), err)
}

// zero writes zeros to the bytes of file from lo up to hi.
func zero(ctx context.Context, file disk.File, lo, hi int64) error {
	buf := make([]byte, min(1<<20, hi-lo))
	for off := lo; off < hi; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := file.WriteAt(buf[:min(int64(len(buf)), hi-off)], off); err != nil {
			return fmt.Errorf("zero at %#x: %w", off, err)
		}
	}
	return nil
}

func roundUp(n int64, unit int) int64 { return (n + int64(unit) - 1) / int64(unit) * int64(unit) }

// str returns the bytes before the first NUL.
func str(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}
