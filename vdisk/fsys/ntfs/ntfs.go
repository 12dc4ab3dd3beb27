// Package ntfs finds the free clusters of NTFS file systems, and reads their
// files (file.go).
//
// Its Probe reads the boot sector (boot.go), the state of the volume and of
// its log (state.go), the bitmap of clusters, and every record of the master
// file table (record.go, stream.go). A cluster is free if the bitmap says so.
// The file table is read to see that the bitmap is right: no cluster that a
// file has may be free in it, or be in two files.
//
// Whatever does not fit makes the file system uncertain: a volume that was
// not unmounted, a log that a driver would replay, a machine that is asleep,
// and shadow copies, which may have what the bitmap calls free.
package ntfs

import (
	"fmt"
	"io"
	"math/bits"
	"slices"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// Probe is an fsys.Prober for NTFS.
func Probe(r io.ReaderAt, size int64) (*fsys.FileSystem, error) {
	fs, err := probe(r, size)
	if err != nil {
		return nil, fmt.Errorf("probe ntfs: %w", err)
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
	fs := &fsys.FileSystem{Type: "ntfs", UUID: v.serial, BlockSize: int(v.clusterSize), Size: v.clusters * v.clusterSize}
	if err == nil && fs.Size > size {
		err = fsys.Uncertain("the file system is of %d bytes, its region of %d", fs.Size, size)
	}
	if err == nil {
		err = v.open(fs)
	}
	var used []uint64
	if err == nil {
		used, err = v.readBitmap()
	}
	if err == nil {
		err = v.checkFiles(used, fs)
	}
	return fsys.Finish(fs, err, func(yield func(fsys.Extent) bool) error {
		for i, end := range fsys.ClearRuns(used, v.clusters) {
			if !yield(fsys.Extent{Off: i * v.clusterSize, Len: (end - i) * v.clusterSize}) {
				break
			}
		}
		return nil
	})
}

// Numbers of records in the file table that are always the same.
const (
	recordMFT    = 0
	recordLog    = 2
	recordVolume = 3
	recordRoot   = 5
	recordBitmap = 6
)

// open finds the file table and looks at the state of the volume.
func (v *volume) open(fs *fsys.FileSystem) error {
	if err := v.openTable(); err != nil {
		return err
	}
	if err := v.checkVolume(fs); err != nil {
		return err
	}
	var err error
	if fs.Clean, err = v.checkLog(); err != nil {
		return err
	}
	return v.checkShadow()
}

// readBitmap reads $Bitmap, which has a bit for each cluster.
func (v *volume) readBitmap() ([]uint64, error) {
	s, err := v.systemFile(recordBitmap)
	if err != nil {
		return nil, err
	}
	if need := (v.clusters + 7) / 8; s.size < need || s.initialized < need {
		return nil, fsys.Uncertain("a bitmap of %d bytes for %d clusters", min(s.size, s.initialized), v.clusters)
	}
	used := make([]uint64, (v.clusters+63)/64)
	b := make([]byte, readChunk)
	for off := int64(0); off < int64(len(used))*8; off += readChunk {
		n := min(readChunk, (v.clusters+7)/8-off)
		clear(b)
		if err := v.readStream(s, b[:n], off); err != nil {
			return nil, err
		}
		for i := range min(readChunk/8, int64(len(used))-off/8) {
			used[off/8+i] = le64(b[8*i:])
		}
	}
	return used, nil
}

// checkFiles reads the whole file table, compares it with the bitmap, and
// finds the files that hold memory of the machine.
func (v *volume) checkFiles(used []uint64, fs *fsys.FileSystem) error {
	owned := make([]uint64, len(used))
	var paging []memoryFile
	err := v.records(func(r *record) error {
		for a := range r.attributes() {
			if m, ok := r.memoryFile(a); ok && !slices.Contains(paging, m) {
				paging = append(paging, m)
			}
			if a.resident {
				continue
			}
			for _, x := range a.runs {
				if err := own(used, owned, x, r.number); err != nil {
					return err
				}
			}
		}
		return r.err
	})
	if err != nil {
		return err
	}
	for _, m := range paging {
		if err := v.paging(m, fs); err != nil {
			return err
		}
	}
	slices.SortFunc(fs.Paging, func(a, b fsys.Extent) int {
		if a.Off < b.Off {
			return -1
		}
		return 1
	})
	return nil
}

// own marks the clusters of a run, all of which must be in use and nobody's.
func own(used, owned []uint64, x run, number int64) error {
	if x.lcn < 0 {
		return nil
	}
	for c := x.lcn; c < x.lcn+x.length; {
		n := min(x.lcn+x.length-c, 64-c%64)
		mask := uint64(1<<n-1) << (c % 64)
		if n == 64 {
			mask = ^uint64(0)
		}
		if free := mask &^ used[c/64]; free != 0 {
			return fsys.Uncertain("file %d has cluster %d, which is free", number, c/64*64+int64(bits.TrailingZeros64(free)))
		}
		if twice := mask & owned[c/64]; twice != 0 {
			return fsys.Uncertain("file %d has cluster %d, which is another's", number, c/64*64+int64(bits.TrailingZeros64(twice)))
		}
		owned[c/64] |= mask
		c += n
	}
	return nil
}
