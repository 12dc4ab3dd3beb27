// Package btrfs finds what is free in btrfs file systems on a single device.
//
// Its Probe reads the superblock (super.go), the chunk tree, which says where
// the logical addresses that all else counts in lie on the device (chunk.go),
// and the extent tree, which has every extent in use (tree.go). What no extent
// lies in is free, and so is what belongs to no chunk; the superblocks and the
// first MiB are kept. All this is of the last transaction that was committed,
// which is what a driver starts from, whether the file system was unmounted
// or not. What was written since is lost to it.
//
// Whatever does not fit makes the file system uncertain. That includes
// features that are not known, more than one device, profiles other than
// single and DUP, and a log of what was synced since the last commit, whose
// extents are in no tree.
package btrfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

var (
	le16 = binary.LittleEndian.Uint16
	le32 = binary.LittleEndian.Uint32
	le64 = binary.LittleEndian.Uint64
)

// Probe is an fsys.Prober for btrfs. It never says that a file system is
// clean: none of its marks tells whether it is mounted.
func Probe(r io.ReaderAt, size int64) (*fsys.FileSystem, error) {
	fs, err := probe(r, size)
	if err != nil {
		return nil, fmt.Errorf("probe btrfs: %w", err)
	}
	return fs, nil
}

func probe(r io.ReaderAt, size int64) (*fsys.FileSystem, error) {
	if size < superOff+superSize {
		return nil, nil
	}
	b := make([]byte, superSize)
	if err := disk.ReadFull(r, b, superOff); err != nil {
		return nil, err
	}
	if string(b[0x40:0x48]) != magicSuper {
		return nil, nil
	}
	v, err := unpackSuper(b)
	v.r = r
	fs := &fsys.FileSystem{Type: "btrfs", UUID: fsys.UUID(v.uuid), Label: v.label, BlockSize: int(v.sectorSize), Size: v.size}
	if err == nil && v.size > size {
		err = fsys.Uncertain("the file system is of %d bytes, its region of %d", v.size, size)
	}
	var used bitmap
	if err == nil {
		used, err = v.read(b)
	}
	return fsys.Finish(fs, err, func(yield func(fsys.Extent) bool) error {
		n := v.size / v.sectorSize
		for i := used.next(0, n, false); i < n; {
			end := used.next(i, n, true)
			if !yield(fsys.Extent{Off: i * v.sectorSize, Len: (end - i) * v.sectorSize}) {
				break
			}
			i = used.next(end, n, false)
		}
		return nil
	})
}

// reserved is what no chunk lies in, at the start of the device.
const reserved = 1 << 20

// superPlaces are where copies of the superblock lie, as far as the device
// reaches; nothing else is within superStripe of them.
var superPlaces = [...]int64{64 << 10, 64 << 20, 256 << 30}

const superStripe = 64 << 10

// read returns which sectors of the device are in use.
func (v *volume) read(super []byte) (bitmap, error) {
	if err := v.readChunks(super); err != nil {
		return nil, err
	}
	used := make(bitmap, (v.size/v.sectorSize+63)/64)
	used.set(0, reserved/v.sectorSize)
	for _, at := range superPlaces {
		if at < v.size {
			used.set(at/v.sectorSize, min(at+superStripe, v.size)/v.sectorSize)
		}
	}
	if err := v.readExtents(used); err != nil {
		return nil, err
	}
	// What has been read to get here must be in use.
	for _, logical := range v.nodes {
		at, err := v.place(logical, v.nodeSize)
		if err != nil {
			return nil, err
		}
		if i := at / v.sectorSize; used.next(i, i+v.nodeSize/v.sectorSize, false) < i+v.nodeSize/v.sectorSize {
			return nil, fsys.Uncertain("its tree block %d is free", logical)
		}
	}
	return used, nil
}

// A bitmap has a bit for each sector.
type bitmap []uint64

func (m bitmap) set(from, to int64) {
	for i := from; i < to; {
		n := min(to-i, 64-i%64)
		mask := ^uint64(0)
		if n < 64 {
			mask = (1<<n - 1) << (i % 64)
		}
		m[i/64] |= mask
		i += n
	}
}

// next returns the first bit from i on that is want, or n.
func (m bitmap) next(i, n int64, want bool) int64 {
	for i < n {
		word := m[i/64]
		if !want {
			word = ^word
		}
		if word >>= i % 64; word != 0 {
			return min(i+int64(bits.TrailingZeros64(word)), n)
		}
		i = i/64*64 + 64
	}
	return n
}
