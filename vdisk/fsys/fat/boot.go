package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// A boot sector is 512 bytes at the start of the file system. Its integers
// are little-endian. By offset:
//
//	0x00 jump[3]          0x03 oem[8]            0x0b sectorsize[2]
//	0x0d clustersectors[1] 0x0e reserved[2]      0x10 tables[1]
//	0x11 rootentries[2]   0x13 sectorslo[2]      0x15 media[1]
//	0x16 tablesectors[2]  0x20 sectors[4]
//
// where sectors counts if sectorslo is 0. Then, of FAT12 and FAT16,
//
//	0x25 state[1] 0x26 signature[1] 0x27 serial[4] 0x2b label[11]
//
// and of FAT32, which has 0 for tablesectors,
//
//	0x24 tablesectors[4]  0x28 flags[2] 0x2a version[2] 0x2c rootcluster[4]
//	0x41 state[1] 0x42 signature[1] 0x43 serial[4] 0x47 label[11]
//
// Serial is there if signature is 0x28 or 0x29, and the label if it is 0x29.
// Bit 0 of state is set while Linux has it mounted. The reserved sectors, of
// which this is the first, are followed by the tables, the root directory
// of FAT12 and FAT16, and the clusters, which are counted from 2.
const (
	bootSize     = 512
	firstCluster = 2
	direntSize   = 32

	stateDirty = 1 << 0
	flagSingle = 1 << 7 // only one of the tables is kept up to date

	// Drivers agree on what is FAT12 and what FAT16 but for these counts of
	// clusters, which Linux and Windows read as one and the other.
	maxFAT12 = 4084
	minFAT16 = 4087
	maxFAT16 = 65524
	maxFAT32 = 0x0ffffff5
)

// A volume is what a boot sector says. It is immutable after unpackBoot.
type volume struct {
	r           io.ReaderAt
	bits        int   // of an entry of the table: 12, 16 or 32
	size        int64 // bytes
	media       byte
	clusterSize int64
	clusters    uint32
	tables      int
	tableOff    int64
	tableSize   int64 // bytes of one
	rootOff     int64 // of the root directory of FAT12 and FAT16
	rootSize    int64 // 0 of FAT32
	rootCluster uint32
	dataOff     int64 // of cluster 2
	serial      string
	label       string
}

// offset returns where a cluster is, in bytes from the start.
func (v *volume) offset(cluster uint32) int64 {
	return v.dataOff + int64(cluster-firstCluster)*v.clusterSize
}

// exists tells whether there is a cluster of that number.
func (v *volume) exists(cluster uint32) bool {
	return cluster >= firstCluster && cluster-firstCluster < v.clusters
}

// unpackBoot reads a boot sector for which fsys.IsFATBoot is true. The error
// is uncertain; what could be read is set nevertheless.
func unpackBoot(b []byte) (*volume, error) {
	le16 := func(off int) int64 { return int64(binary.LittleEndian.Uint16(b[off:])) }
	le32 := func(off int) int64 { return int64(binary.LittleEndian.Uint32(b[off:])) }
	sector := le16(0x0b)
	sectors := le16(0x13)
	if sectors == 0 {
		sectors = le32(0x20)
	}
	v := &volume{
		size:        sectors * sector,
		media:       b[0x15],
		clusterSize: int64(b[0x0d]) * sector,
		tables:      int(b[0x10]),
		tableOff:    le16(0x0e) * sector,
		tableSize:   le16(0x16) * sector,
		rootSize:    le16(0x11) * direntSize,
	}
	wide := v.tableSize == 0
	extra := 0x25
	if wide {
		extra = 0x41
		v.tableSize = le32(0x24) * sector
		v.rootCluster = uint32(le32(0x2c))
	}
	if sig := b[extra+1]; sig == 0x28 || sig == 0x29 {
		v.serial = fmt.Sprintf("%02X%02X-%02X%02X", b[extra+5], b[extra+4], b[extra+3], b[extra+2])
		if sig == 0x29 {
			v.label = label(b[extra+6 : extra+17])
		}
	}
	v.rootOff = v.tableOff + int64(v.tables)*v.tableSize
	v.dataOff = v.rootOff + (v.rootSize+sector-1)/sector*sector
	if v.dataOff >= v.size {
		return v, fsys.Uncertain("its tables end at byte %d of %d", v.dataOff, v.size)
	}
	count := (v.size - v.dataOff) / v.clusterSize
	switch {
	case wide && v.rootSize != 0:
		return v, fsys.Uncertain("FAT32 with a root directory of %d bytes in a fixed place", v.rootSize)
	case wide && count > maxFAT32:
		return v, fsys.Uncertain("FAT32 of %d clusters", count)
	case wide && le16(0x28)&flagSingle != 0:
		return v, fsys.Uncertain("only one of its tables is kept up to date")
	case wide && le16(0x2a) != 0:
		return v, fsys.Uncertain("unknown version %#x of FAT32", le16(0x2a))
	case wide:
		v.bits = 32
	case v.rootSize == 0 || v.rootSize%sector != 0:
		return v, fsys.Uncertain("a root directory of %d bytes", v.rootSize)
	case count <= maxFAT12:
		v.bits = 12
	case count < minFAT16:
		return v, fsys.Uncertain("%d clusters may be FAT12 or FAT16", count)
	case count <= maxFAT16:
		v.bits = 16
	default:
		return v, fsys.Uncertain("FAT16 of %d clusters", count)
	}
	v.clusters = uint32(count)
	if need := (count + firstCluster) * int64(v.bits) / 8; v.tableSize < need {
		return v, fsys.Uncertain("a table of %d bytes for %d clusters", v.tableSize, count)
	}
	if b[extra]&stateDirty != 0 {
		return v, errMounted
	}
	return v, nil
}

var errMounted = fsys.Uncertain("it was not unmounted")

// label returns a label without its padding.
func label(b []byte) string {
	b = bytes.TrimRight(b, " \x00")
	if string(b) == "NO NAME" {
		return ""
	}
	return string(b)
}

// A directory entry is
//
//	name[11] attributes[1] ... clusterhi[2] ... clusterlo[2] size[4]
//
// of 32 bytes. The first byte of the name is 0 after the last entry and 0xe5
// in one that is free; 0x05 stands for 0xe5.
const (
	attrLabel    = 0x08
	attrLongName = 0x0f // with bits 4 and 5 left aside: a part of the next one's long name
	attrMask     = 0x3f
)

// readLabel looks for the entry of the root directory that holds the label,
// which goes before that of the boot sector. Of FAT32 it looks in the first
// cluster, where mkfs puts it.
func (v *volume) readLabel(fs *fsys.FileSystem) error {
	off, size := v.rootOff, v.rootSize
	if v.bits == 32 {
		off, size = v.offset(v.rootCluster), v.clusterSize
	}
	dir := make([]byte, size)
	if err := disk.ReadFull(v.r, dir, off); err != nil {
		return err
	}
	for ; len(dir) >= direntSize && dir[0] != 0; dir = dir[direntSize:] {
		attr := dir[11] & attrMask
		if dir[0] == 0xe5 || attr&attrLongName == attrLongName || attr&attrLabel == 0 {
			continue
		}
		name := bytes.Clone(dir[:11])
		if name[0] == 0x05 {
			name[0] = 0xe5
		}
		fs.Label = label(name)
		break
	}
	return nil
}
