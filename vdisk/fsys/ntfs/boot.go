package ntfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"strata/vdisk/fsys"
)

// A boot sector is 512 bytes at the start. Its integers are little-endian. By
// offset:
//
//	0x03 oem[8] "NTFS    "   0x0b sectorsize[2]  0x0d clustersectors[1]
//	0x28 sectors[8]          0x30 mft[8]         0x38 mftmirror[8]
//	0x40 recordclusters[1]   0x48 serial[8]      0x1fe 0x55 0xaa
//
// clustersectors above 128 is the negative of a power of two, and so is
// recordclusters, of bytes, if it is negative. mft is a cluster. A copy of
// the boot sector lies behind the last of the sectors.
const (
	bootSize  = 512
	maxRecord = 64 << 10

	// maxClusters keeps sums of bytes within 63 bits.
	maxClusters = 1 << 40

	// readChunk is how much of a stream is read at once.
	readChunk = 256 << 10
)

var (
	le16 = binary.LittleEndian.Uint16
	le32 = binary.LittleEndian.Uint32
	le64 = binary.LittleEndian.Uint64
)

// A volume is a file system. It is immutable after open.
type volume struct {
	r           io.ReaderAt
	serial      string
	clusterSize int64
	clusters    int64
	recordSize  int64
	mftCluster  int64
	mft         *stream
}

func isBoot(b []byte) bool {
	return string(b[3:11]) == "NTFS    " && b[0x1fe] == 0x55 && b[0x1ff] == 0xaa
}

// unpackBoot reads a boot sector for which isBoot is true. The error is
// uncertain; what could be read is set nevertheless.
func unpackBoot(b []byte) (*volume, error) {
	sector := int64(le16(b[0x0b:]))
	v := &volume{serial: fmt.Sprintf("%016X", le64(b[0x48:])), mftCluster: int64(le64(b[0x30:]))}
	if sector < 256 || sector > 4096 || bits.OnesCount64(uint64(sector)) != 1 {
		return v, fsys.Uncertain("sectors of %d bytes", sector)
	}
	perCluster := int64(b[0x0d])
	if perCluster > 128 {
		perCluster = 1 << min(256-perCluster, 62)
	}
	if bits.OnesCount64(uint64(perCluster)) != 1 || perCluster*sector > 2<<20 || perCluster*sector < 512 {
		return v, fsys.Uncertain("clusters of %#x sectors of %d bytes", b[0x0d], sector)
	}
	v.clusterSize = perCluster * sector
	sectors := le64(b[0x28:])
	if sectors/uint64(perCluster) >= maxClusters {
		return v, fsys.Uncertain("%d sectors", sectors)
	}
	v.clusters = int64(sectors) / perCluster
	if n := int64(int8(b[0x40])); n > 0 {
		v.recordSize = n * v.clusterSize
	} else {
		v.recordSize = 1 << min(-n, 62)
	}
	if v.recordSize < 512 || v.recordSize > maxRecord || bits.OnesCount64(uint64(v.recordSize)) != 1 {
		return v, fsys.Uncertain("records of %d bytes", v.recordSize)
	}
	if v.mftCluster <= 0 || v.mftCluster >= v.clusters {
		return v, fsys.Uncertain("its file table is at cluster %d of %d", v.mftCluster, v.clusters)
	}
	return v, nil
}
