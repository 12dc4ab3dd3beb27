package exfat

import (
	"fmt"
	"io"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// A boot region is twelve sectors. Integers are little-endian. The first has,
// by offset:
//
//	0x00 jump[3]        0x03 oem[8] "EXFAT   "  0x0b zeros[53]
//	0x48 sectors[8]     0x50 table[4]           0x54 tablesectors[4]
//	0x58 heap[4]        0x5c clusters[4]        0x60 rootcluster[4]
//	0x64 serial[4]      0x68 revision[2]        0x6a flags[2]
//	0x6c sectorshift[1] 0x6d clustershift[1]    0x6e tables[1]
//	0x70 percent[1]     0x1fe 0x55 0xaa
//
// where table and heap, the place of cluster 2, are sectors, and clustershift
// counts sectors. The last is filled with the sum of the others, but for flags
// and percent.
//
// The file allocation table has the next cluster of each, in 4 bytes, or
// ffffffff for the last one of a file. It is not kept for files in one piece.
const (
	bootSize     = 512
	bootSectors  = 11
	firstCluster = 2
	lastCluster  = 0xffffffff
	maxClusters  = 0xfffffff5
	revision     = 0x0100

	flagSecond  = 1 << 0 // the second table and bitmap, of a TexFAT, are in use
	flagDirty   = 1 << 1
	flagFailure = 1 << 2 // of the medium
	flagZero    = 1 << 3 // means nothing
)

// A volume is what a boot region says. It is immutable.
type volume struct {
	r           io.ReaderAt
	serial      string
	size        int64 // bytes
	sectorSize  int64
	clusterSize int64
	clusters    int64
	tableOff    int64
	heapOff     int64
	rootCluster int64
}

func isBoot(b []byte) bool {
	return string(b[3:11]) == "EXFAT   " && b[0x1fe] == 0x55 && b[0x1ff] == 0xaa
}

// offset returns where a cluster is, in bytes.
func (v *volume) offset(cluster int64) int64 {
	return v.heapOff + (cluster-firstCluster)*v.clusterSize
}

func (v *volume) exists(cluster int64) bool {
	return cluster >= firstCluster && cluster < v.clusters+firstCluster
}

// unpackBoot reads a boot sector for which isBoot is true. The error is
// uncertain; what could be read is set nevertheless.
func unpackBoot(b []byte) (*volume, error) {
	v := &volume{serial: fmt.Sprintf("%02X%02X-%02X%02X", b[0x67], b[0x66], b[0x65], b[0x64])}
	for _, c := range b[0x0b:0x40] {
		if c != 0 {
			return v, fsys.Uncertain("its boot sector is not that of exFAT")
		}
	}
	sector, cluster := b[0x6c], b[0x6d]
	if sector < 9 || sector > 12 || cluster > 25-sector {
		return v, fsys.Uncertain("clusters of 1<<%d sectors of 1<<%d bytes", cluster, sector)
	}
	v.sectorSize, v.clusterSize = 1<<sector, 1<<(sector+cluster)
	sectors := le64(b[0x48:])
	if sectors >= 1<<50 {
		return v, fsys.Uncertain("%d sectors", sectors)
	}
	v.size = int64(sectors) << sector
	v.tableOff, v.heapOff = int64(le32(b[0x50:]))<<sector, int64(le32(b[0x58:]))<<sector
	v.clusters, v.rootCluster = int64(le32(b[0x5c:])), int64(le32(b[0x60:]))
	tableSize := int64(le32(b[0x54:])) << sector
	flags := le16(b[0x6a:])
	switch {
	case le16(b[0x68:]) != revision:
		return v, fsys.Uncertain("unknown revision %#x of exFAT", le16(b[0x68:]))
	case b[0x6e] != 1 || flags&flagSecond != 0:
		return v, fsys.Uncertain("it has %d tables", b[0x6e])
	case flags&^(flagDirty|flagFailure|flagZero) != 0:
		return v, fsys.Uncertain("unknown flags %#x", flags)
	case v.clusters == 0 || v.clusters > maxClusters || v.clusters > (v.size-v.heapOff)/v.clusterSize:
		return v, fsys.Uncertain("%d clusters in %d sectors", v.clusters, sectors)
	case v.tableOff < 2*(bootSectors+1)*v.sectorSize || tableSize < 4*(v.clusters+firstCluster) || tableSize > v.heapOff-v.tableOff:
		return v, fsys.Uncertain("a table of %d bytes for %d clusters", tableSize, v.clusters)
	case flags&flagDirty != 0:
		return v, errMounted
	case flags&flagFailure != 0:
		return v, errMedium
	}
	return v, nil
}

// What keeps the bitmap from being certain, but not the files from being read.
var (
	errMounted = fsys.Uncertain("it was not unmounted")
	errMedium  = fsys.Uncertain("its medium had errors")
)

// checkBoot verifies the checksum of the boot region.
func (v *volume) checkBoot() error {
	b := make([]byte, (bootSectors+1)*v.sectorSize)
	if err := disk.ReadFull(v.r, b, 0); err != nil {
		return err
	}
	sum := uint32(0)
	for i, c := range b[:bootSectors*v.sectorSize] {
		if i != 0x6a && i != 0x6b && i != 0x70 {
			sum = sum<<31 | sum>>1
			sum += uint32(c)
		}
	}
	for b = b[bootSectors*v.sectorSize:]; len(b) > 0; b = b[4:] {
		if le32(b) != sum {
			return fsys.Uncertain("bad checksum of its boot region")
		}
	}
	return nil
}
