// Package fat finds the free clusters of FAT12, FAT16 and FAT32 file systems.
//
// Its Probe reads the boot sector (boot.go) and all of the file allocation
// tables (table.go). A cluster is free if its entry is 0, provided that the
// file system was unmounted, that its copies of the table are the same, and that the
// chains in them make sense: every entry leads to another cluster in use,
// and no two to the same one. In all other cases the file system is uncertain.
package fat

import (
	"fmt"
	"io"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// Probe is an fsys.Prober for FAT of all widths. The type is "vfat", as
// blkid(8) has it, whether there are long names or not.
func Probe(r io.ReaderAt, size int64) (*fsys.FileSystem, error) {
	fs, err := probe(r, size)
	if err != nil {
		return nil, fmt.Errorf("probe fat: %w", err)
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
	if !fsys.IsFATBoot(b) {
		return nil, nil
	}
	v, err := unpackBoot(b)
	v.r = r
	fs := &fsys.FileSystem{Type: "vfat", UUID: v.serial, Label: v.label, BlockSize: int(v.clusterSize), Size: v.size}
	var used *bitmap
	if err == nil && v.size > size {
		err = fsys.Uncertain("the file system is of %d bytes, its region of %d", v.size, size)
	}
	if err == nil {
		used, err = v.readTable()
	}
	if err == nil {
		err = v.readLabel(fs)
	}
	fs.Clean = err == nil
	return fsys.Finish(fs, err, func(yield func(fsys.Extent) bool) error {
		// The map is in memory: what happens to the region meanwhile
		// is for others to notice.
		for from, to := range used.gaps(v.clusters) {
			if !yield(fsys.Extent{Off: v.offset(from + firstCluster), Len: int64(to-from) * v.clusterSize}) {
				break
			}
		}
		return nil
	})
}
