// Package exfat finds the free clusters of exFAT file systems, and reads their
// files (file.go).
//
// Its Probe reads the boot region (boot.go), the root directory, and the
// bitmap of clusters that this names. A cluster is free if the bitmap says so,
// provided that the file system was unmounted, that the checksum of the boot
// region is right, that the root directory has nothing that a driver would
// have to know and this package does not, and that the bitmap has what these
// lie in as used.
package exfat

import (
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf16"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

var (
	le16 = binary.LittleEndian.Uint16
	le32 = binary.LittleEndian.Uint32
	le64 = binary.LittleEndian.Uint64
)

// Probe is an fsys.Prober for exFAT.
func Probe(r io.ReaderAt, size int64) (*fsys.FileSystem, error) {
	fs, err := probe(r, size)
	if err != nil {
		return nil, fmt.Errorf("probe exfat: %w", err)
	}
	return fs, nil
}

func probe(r io.ReaderAt, size int64) (*fsys.FileSystem, error) {
	if size < bootSize {
		return nil, nil
	}
	b := make([]byte, bootSize)
	if err := disk.ReadFull(r, b, 0); err != nil {
		return nil, err
	}
	if !isBoot(b) {
		return nil, nil
	}
	v, err := unpackBoot(b)
	v.r = r
	fs := &fsys.FileSystem{Type: "exfat", UUID: v.serial, BlockSize: int(v.clusterSize), Size: v.size}
	var used []uint64
	if err == nil && v.size > size {
		err = fsys.Uncertain("the file system is of %d bytes, its region of %d", v.size, size)
	}
	if err == nil {
		err = v.checkBoot()
	}
	if err == nil {
		used, err = v.readBitmap(fs)
	}
	fs.Clean = err == nil
	return fsys.Finish(fs, err, func(yield func(fsys.Extent) bool) error {
		for i, end := range fsys.ClearRuns(used, v.clusters) {
			if !yield(fsys.Extent{Off: v.offset(i + firstCluster), Len: (end - i) * v.clusterSize}) {
				break
			}
		}
		return nil
	})
}

// A directory is entries of 32 bytes. Integers are little-endian. The first
// byte is 0 after the last one, and has bit 7 in one that is in use, bit 6 in
// one that belongs to the one before, and bit 5 in one that a driver need not
// know. Of the root directory these are read:
//
//	0x81 flags[1] ... 0x14 cluster[4] length[8]    the bitmap: a bit for each cluster
//	0x82 ... 0x14 cluster[4] length[8]             the table of upper-case letters
//	0x83 letters[1] label[22]                      UTF-16
//
// 0x85 is a file. Flag 0 is of the second bitmap of a TexFAT.
const (
	direntSize  = 32
	entryBitmap = 0x81
	entryUpcase = 0x82
	entryLabel  = 0x83
	entryFile   = 0x85

	entryInUse     = 1 << 7
	entrySecondary = 1 << 6
	entryBenign    = 1 << 5

	maxRoot = 256 << 20 // the largest that a directory may be
)

// readBitmap reads the root directory and the bitmap in it.
func (v *volume) readBitmap(fs *fsys.FileSystem) ([]uint64, error) {
	root, err := v.chain(v.rootCluster, maxRoot/v.clusterSize)
	if err != nil {
		return nil, err
	}
	var bitmap, upcase []int64
	b := make([]byte, v.clusterSize)
entries:
	for _, c := range root {
		if err := disk.ReadFull(v.r, b, v.offset(c)); err != nil {
			return nil, err
		}
		for e := b; len(e) > 0; e = e[direntSize:] {
			cluster, length := int64(le32(e[0x14:])), le64(e[0x18:])
			switch kind := e[0]; {
			case kind == 0:
				break entries
			case kind == entryBitmap && (bitmap != nil || e[1]&1 != 0):
				return nil, fsys.Uncertain("it has more than one bitmap")
			case kind == entryBitmap && length != uint64(v.clusters+7)/8:
				return nil, fsys.Uncertain("a bitmap of %d bytes for %d clusters", length, v.clusters)
			case kind == entryUpcase && (upcase != nil || length == 0 || length > 1<<20):
				return nil, fsys.Uncertain("its table of letters is of %d bytes", length)
			case kind == entryBitmap:
				bitmap, err = v.chain(cluster, v.clustersOf(int64(length)))
			case kind == entryUpcase:
				upcase, err = v.chain(cluster, v.clustersOf(int64(length)))
			case kind == entryLabel:
				fs.Label = text(e[2:24], int(e[1]))
			case kind == entryFile:
			case kind&entryInUse != 0 && kind&(entrySecondary|entryBenign) == 0:
				return nil, fsys.Uncertain("unknown entry %#x of its root directory", kind)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	if int64(len(bitmap)) != v.clustersOf((v.clusters+7)/8) || upcase == nil {
		return nil, fsys.Uncertain("its root directory has no bitmap or no table of letters")
	}
	used := make([]uint64, (v.clusters+63)/64)
	words := used
	b = make([]byte, (v.clusterSize+7)/8*8)
	for _, c := range bitmap {
		if err := disk.ReadFull(v.r, b[:v.clusterSize], v.offset(c)); err != nil {
			return nil, err
		}
		for w := b; len(w) > 0 && len(words) > 0; w, words = w[8:], words[1:] {
			words[0] = le64(w)
		}
	}
	for _, list := range [][]int64{root, bitmap, upcase} {
		for _, c := range list {
			if i := c - firstCluster; used[i/64]>>(i%64)&1 == 0 {
				return nil, fsys.Uncertain("its own cluster %d is free", c)
			}
		}
	}
	return used, nil
}

// clustersOf returns how many clusters so many bytes take.
func (v *volume) clustersOf(n int64) int64 { return (n + v.clusterSize - 1) / v.clusterSize }

// chain returns the clusters of a file by the file allocation table, at most
// so many.
func (v *volume) chain(cluster, limit int64) ([]int64, error) {
	var list []int64
	var b [4]byte
	for {
		if !v.exists(cluster) || int64(len(list)) >= limit {
			return nil, fsys.Uncertain("a chain of clusters goes on to %#x", cluster)
		}
		list = append(list, cluster)
		if err := disk.ReadFull(v.r, b[:], v.tableOff+4*cluster); err != nil {
			return nil, err
		}
		next := le32(b[:])
		if next == lastCluster {
			return list, nil
		}
		cluster = int64(next)
	}
}

// text decodes n words of UTF-16.
func text(b []byte, n int) string {
	var words []uint16
	for ; n > 0 && len(b) > 0; n, b = n-1, b[2:] {
		words = append(words, le16(b))
	}
	return string(utf16.Decode(words))
}
