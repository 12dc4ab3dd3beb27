package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// All integers of a qcow2 file are big-endian. It begins with
//
//	"QFI\xfb"[4] version[4] backingOffset[8] backingSize[4] clusterBits[4] size[8] crypt[4]
//	l1Size[4] l1Offset[8] refcountOffset[8] refcountClusters[4] snapshots[4] snapshotsOffset[8]
//
// and, from version 3 on, goes on with
//
//	incompatible[8] compatible[8] autoclear[8] refcountOrder[4] headerLength[4]
//	compression[1, if headerLength is over 104]
//
// Behind the header, from headerLength on, are extensions, each padded to a
// multiple of 8, of which the last is of type 0:
//
//	type[4] length[4] data[length]
//
// A table of level 1 has an entry of 8 bytes for each table of level 2, and
// that, which fills a cluster, one of 8 bytes for each cluster of the disk, or of
// 16 with extended entries:
//
//	level 1:     offset of a table, bits 9-55; 0 for none
//	standard:    bit 0 reads as zeros; bits 9-55 offset of the cluster, 0 for none; bit 62 clear
//	compressed:  bit 62; x = 70-clusterBits; bits 0 to x-1 offset; bits x to 61 further sectors
//	extended:    one of the two above, without bit 0, and then a bit for each of 32
//	             subclusters: bits 0-31 it is there, bits 32-63 it reads as zeros
//
// Bit 63 of an entry is about writing.
const (
	magic = "QFI\xfb"

	headerSize2 = 72
	headerSize3 = 104

	minClusterBits     = 9
	maxClusterBits     = 21
	minExtendedBits    = 14
	maxL1              = 32 << 20 // bytes
	maxName            = 1023     // bytes of the backing file's name
	maxExtensions      = 100
	subclusters        = 32
	backingFormat      = 0xe2792aca // type of the extension
	offsetMask         = 1<<56 - 1<<9
	bitCompressed      = 1 << 62
	bitCopied          = 1 << 63
	bitZero            = 1
	reservedL1         = 0x7f00_0000_0000_01ff
	reservedStandard   = 0x3f00_0000_0000_01fe
	compressedSector   = 512
	compressionZlib    = 0
	compressionZstd    = 1
	featureDirty       = 1 << 0
	featureCorrupt     = 1 << 1
	featureExternal    = 1 << 2
	featureCompression = 1 << 3
	featureExtended    = 1 << 4
)

// errCorrupt is for tables that cannot be right.
var errCorrupt = errors.New("the image is damaged")

// A header is what the head of a file says.
type header struct {
	version     uint32
	size        int64
	clusterBits uint
	l1Size      uint32
	l1Offset    int64
	extended    bool
	compression byte
	backing     string // "" for none
	format      string // of the backing file; "" if it is not said
}

func (h *header) cluster() int64 { return 1 << h.clusterBits }

// entrySize returns the bytes of an entry of level 2.
func (h *header) entrySize() int64 {
	if h.extended {
		return 16
	}
	return 8
}

// perTable returns how many clusters a table of level 2 has.
func (h *header) perTable() int64 { return h.cluster() / h.entrySize() }

// readHeader reads the head of a file and refuses what it does not understand.
func readHeader(r io.ReaderAt) (*header, error) {
	var b [headerSize3 + 8]byte
	n, err := r.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read header: %w", err)
	}
	if n < headerSize2 || string(b[:4]) != magic {
		return nil, errors.New("not a qcow2 image")
	}
	h := &header{
		version:     binary.BigEndian.Uint32(b[4:]),
		size:        int64(binary.BigEndian.Uint64(b[24:])),
		clusterBits: uint(binary.BigEndian.Uint32(b[20:])),
		l1Size:      binary.BigEndian.Uint32(b[36:]),
		l1Offset:    int64(binary.BigEndian.Uint64(b[40:])),
	}
	length := int64(headerSize2)
	switch h.version {
	case 2:
	case 3:
		if n < headerSize3 {
			return nil, errors.New("header is cut off")
		}
		if length = int64(binary.BigEndian.Uint32(b[100:])); length < headerSize3 || length%8 != 0 || length > 1<<16 {
			return nil, fmt.Errorf("bad length %d of the header", length)
		}
		if err := h.features(binary.BigEndian.Uint64(b[72:])); err != nil {
			return nil, err
		}
		if length > headerSize3 && n > headerSize3 {
			h.compression = b[104]
		}
		if has := binary.BigEndian.Uint64(b[72:])&featureCompression != 0; has != (h.compression != compressionZlib) || h.compression > compressionZstd {
			return nil, fmt.Errorf("unknown compression %d", h.compression)
		}
	default:
		return nil, fmt.Errorf("unknown version %d", h.version)
	}
	if err := h.check(binary.BigEndian.Uint32(b[32:])); err != nil {
		return nil, err
	}
	offset, size := int64(binary.BigEndian.Uint64(b[8:])), int64(binary.BigEndian.Uint32(b[16:]))
	if offset == 0 {
		return h, nil
	}
	if size == 0 || size > maxName || offset < length || offset > h.cluster()-size {
		return nil, fmt.Errorf("bad place %d+%d of the backing file's name", offset, size)
	}
	name := make([]byte, size)
	if _, err := r.ReadAt(name, offset); err != nil {
		return nil, fmt.Errorf("read name of the backing file: %w", err)
	}
	h.backing = string(name)
	return h, h.extensions(r, length, offset)
}

// features refuses features without which the file would be misread.
func (h *header) features(incompatible uint64) error {
	const known = featureDirty | featureCorrupt | featureExternal | featureCompression | featureExtended
	switch {
	case incompatible&^known != 0:
		return fmt.Errorf("unknown feature (bit %d)", bits.TrailingZeros64(incompatible&^known))
	case incompatible&featureCorrupt != 0:
		return fmt.Errorf("%w: it is marked as corrupt (see qemu-img check -r)", errCorrupt)
	case incompatible&featureExternal != 0:
		return errors.New("its data are in another file, which is not supported (convert it with qemu-img)")
	}
	// The dirty bit is about reference counts, which reading does without.
	h.extended = incompatible&featureExtended != 0
	return nil
}

func (h *header) check(crypt uint32) error {
	least := uint(minClusterBits)
	if h.extended {
		least = minExtendedBits
	}
	switch {
	case crypt != 0:
		return errors.New("the image is encrypted")
	case h.clusterBits < least || h.clusterBits > maxClusterBits:
		return fmt.Errorf("bad cluster of 1<<%d bytes", h.clusterBits)
	case h.size < 0 || h.size > 1<<56:
		return fmt.Errorf("bad size %d", uint64(h.size))
	case h.l1Size > maxL1/8:
		return fmt.Errorf("table of %d entries", h.l1Size)
	case h.l1Offset < 0 || h.l1Offset%h.cluster() != 0:
		return fmt.Errorf("%w: its table is at %#x", errCorrupt, uint64(h.l1Offset))
	}
	each := h.cluster() * h.perTable()
	if need := (h.size + each - 1) / each; need > int64(h.l1Size) {
		return fmt.Errorf("%w: table of %d entries for %d", errCorrupt, h.l1Size, need)
	}
	return nil
}

// extensions looks through the extensions, which end before end.
func (h *header) extensions(r io.ReaderAt, at, end int64) error {
	for range maxExtensions {
		var b [8]byte
		if at+8 > end {
			return nil
		}
		if _, err := r.ReadAt(b[:], at); err != nil {
			return fmt.Errorf("read extension of the header: %w", err)
		}
		typ, n := binary.BigEndian.Uint32(b[:]), int64(binary.BigEndian.Uint32(b[4:]))
		at += 8
		switch {
		case typ == 0:
			return nil
		case n > end-at:
			return fmt.Errorf("extension %#x of the header is %d bytes long", typ, n)
		case typ == backingFormat:
			if n > 100 {
				return fmt.Errorf("format of the backing file of %d bytes", n)
			}
			name := make([]byte, n)
			if _, err := r.ReadAt(name, at); err != nil {
				return fmt.Errorf("read extension of the header: %w", err)
			}
			h.format = string(name)
		}
		at += (n + 7) / 8 * 8
	}
	return errors.New("too many extensions of the header")
}
