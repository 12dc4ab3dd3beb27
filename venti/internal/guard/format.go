package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/minio/sha256-simd"

	"strata/venti"
)

// A Sum is the SHA-256 of a block.
type Sum [sha256.Size]byte

// Of returns the Sum of data.
func Of(data []byte) Sum { return sha256.Sum256(data) }

// Sizes in the file, in bytes.
const (
	extentSize = 1 << 20 // of log
	minClump   = 39      // a header of 38, and a byte
	maxRecords = (extentSize + minClump - 1) / minClump
	recordSize = 40
	headerSize = 4096
	// extentRoom is for the guards of an extent and a free record.
	extentRoom = ((maxRecords+1)*recordSize + 4095) / 4096 * 4096
)

// The file begins with
//
//	magic[4] 76a49fd1, version[4] 1, extentsize[4] 1048576, recordsize[4] 40, crc[4]
//
// and zeros up to headerSize. All integers are big-endian. crc is the CRC-32C
// of the bytes before it. A header of zeros is that of a file that was just
// made.
const (
	magic       = 0x76a49fd1
	version     = 1
	packedBytes = 20
)

// ErrFormat is why a file that is not one of guards cannot be opened.
var ErrFormat = errors.New("bad format")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func packHeader(b []byte) {
	binary.BigEndian.PutUint32(b, magic)
	binary.BigEndian.PutUint32(b[4:], version)
	binary.BigEndian.PutUint32(b[8:], extentSize)
	binary.BigEndian.PutUint32(b[12:], recordSize)
	binary.BigEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
}

// unpackHeader tells whether b is a header, or blank.
func unpackHeader(b []byte) (blank bool, err error) {
	if [packedBytes]byte(b) == [packedBytes]byte{} {
		return true, nil
	}
	if got := binary.BigEndian.Uint32(b); got != magic {
		return false, fmt.Errorf("guards have magic %08x, not %08x: %w", got, uint32(magic), ErrFormat)
	}
	if got, want := binary.BigEndian.Uint32(b[16:]), crc32.Checksum(b[:16], castagnoli); got != want {
		return false, fmt.Errorf("header of guards has check sum %08x, not %08x: %w", got, want, ErrFormat)
	}
	if v := binary.BigEndian.Uint32(b[4:]); v != version {
		return false, fmt.Errorf("guards have version %d, not %d: %w", v, version, ErrFormat)
	}
	if e, r := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]); e != extentSize || r != recordSize {
		return false, fmt.Errorf("guards of %d bytes for extents of %d: %w", r, e, ErrFormat)
	}
	return false, nil
}

// A record is
//
//	off[4] sum[32] crc[4]
//
// in big-endian. off is one more than the clump's offset in the extent, and
// grows from record to record; the first that does not ends the extent's. crc
// is the CRC-32C of
//
//	name[...] 0[1] clumpmagic[4] extent[4] off[4] score[20] sum[32]
//
// where name and clumpmagic are the arena's and extent counts from its first.
func packRecord(b []byte, seed uint32, extent int, off int64, score venti.Score, sum *Sum) {
	_ = b[recordSize-1]
	binary.BigEndian.PutUint32(b, uint32(off%extentSize)+1)
	copy(b[4:], sum[:])
	binary.BigEndian.PutUint32(b[36:], recordSum(b, seed, extent, score))
}

func recordSum(b []byte, seed uint32, extent int, score venti.Score) uint32 {
	var head [28]byte
	binary.BigEndian.PutUint32(head[:], uint32(extent))
	copy(head[4:], b[:4])
	copy(head[8:], score[:])
	return crc32.Update(crc32.Update(seed, castagnoli, head[:]), castagnoli, b[4:36])
}

// unpackRecord returns the sum in a record if the record is that of a clump
// with this score.
func unpackRecord(b []byte, seed uint32, extent int, score venti.Score) (Sum, bool) {
	if binary.BigEndian.Uint32(b[36:]) != recordSum(b, seed, extent, score) {
		return Sum{}, false
	}
	return Sum(b[4:36]), true
}

// recordOff returns off of a record.
func recordOff(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

func seedOf(name string, clumpMagic uint32) uint32 {
	return crc32.Checksum(binary.BigEndian.AppendUint32(append([]byte(name), 0), clumpMagic), castagnoli)
}
