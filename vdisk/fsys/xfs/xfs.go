// Package xfs finds the free blocks of XFS file systems.
//
// Its Probe reads the superblock (super.go), looks at the log to see that the
// file system was unmounted (log.go), and walks the trees in which each
// allocation group keeps what is free by place (group.go). A block is free if
// it is in the tree, provided that the trees are in order, that their checksums
// are right, and that they have as many blocks as the group counts.
//
// Whatever does not fit makes the file system uncertain. That includes features
// that are not known, a log on another device, and a log that a driver would
// replay.
package xfs

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// All integers of XFS are big-endian, but for checksums.
var (
	be16 = binary.BigEndian.Uint16
	be32 = binary.BigEndian.Uint32
	be64 = binary.BigEndian.Uint64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum tells whether b has its own CRC-32C at off, little-endian, taken
// while it was 0.
func checksum(b []byte, off int) bool {
	sum := crc32.Update(0, castagnoli, b[:off])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	sum = crc32.Update(sum, castagnoli, b[off+4:])
	return sum == binary.LittleEndian.Uint32(b[off:])
}

// Probe is an fsys.Prober for XFS.
func Probe(r io.ReaderAt, size int64) (*fsys.FileSystem, error) {
	fs, err := probe(r, size)
	if err != nil {
		return nil, fmt.Errorf("probe xfs: %w", err)
	}
	return fs, nil
}

func probe(r io.ReaderAt, size int64) (*fsys.FileSystem, error) {
	if size < superSize {
		return nil, nil
	}
	b := make([]byte, superSize)
	if err := disk.ReadFull(r, b, 0); err != nil {
		return nil, err
	}
	if string(b[:4]) != magicSuper {
		return nil, nil
	}
	v, err := unpackSuper(b)
	v.r = r
	fs := &fsys.FileSystem{Type: "xfs", UUID: fsys.UUID(v.uuid), Label: v.label, BlockSize: int(v.blockSize), Size: v.blocks * v.blockSize}
	if err == nil && fs.Size > size {
		err = fsys.Uncertain("the file system is of %d bytes, its region of %d", fs.Size, size)
	}
	if err == nil {
		err = v.checkSuper()
	}
	if err == nil {
		err = v.checkLog()
	}
	fs.Clean = err == nil
	return fsys.Finish(fs, err, v.walk)
}
