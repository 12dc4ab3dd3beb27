package format

import (
	"encoding/binary"
	"fmt"
)

// Where the header lies, and limits on block sizes.
const (
	HeaderOffset = 128 << 10
	HeaderSize   = 512

	MinBlockSize = 1 << 10
	MaxBlockSize = 56 << 10

	headerMagic   = 0x3776ae89
	headerVersion = 1

	// minSize is the smallest partition that is formatted.
	minSize = 10 * HeaderOffset
)

// A Header says where the areas of a partition lie, in blocks from its
// beginning.
//
// A packed header is
//
//	magic[4] version[2] blockSize[2] super[4] label[4] data[4] end[4]
//
// and zeros up to HeaderSize.
type Header struct {
	BlockSize int
	Super     uint32 // the super block
	Label     uint32 // the first label block
	Data      uint32 // the first data block
	End       uint32 // one past the last data block
}

// Layout returns the header of a partition of size bytes that is to have
// blocks of blockSize bytes.
func Layout(size int64, blockSize int) (Header, error) {
	if blockSize < MinBlockSize || blockSize > MaxBlockSize || blockSize%512 != 0 {
		return Header{}, fmt.Errorf("bad block size %d: want a multiple of 512 from %d to %d", blockSize, MinBlockSize, MaxBlockSize)
	}
	bs := int64(blockSize)
	n := size / bs
	if n < minSize/bs {
		return Header{}, fmt.Errorf("partition of %d bytes is too small: want %d", size, minSize)
	}
	if n >= 1<<31 {
		return Header{}, fmt.Errorf("partition of %d bytes has too many blocks of %d: want less than 1<<31", size, blockSize)
	}
	lpb := bs / LabelSize
	super := (HeaderOffset + 2*bs) / bs
	label := super + 1
	ndata := lpb * (n - label) / (lpb + 1)
	nlabel := (ndata + lpb - 1) / lpb
	return Header{blockSize, uint32(super), uint32(label), uint32(label + nlabel), uint32(label + nlabel + ndata)}, nil
}

// Blocks returns how many data blocks there are.
func (h *Header) Blocks() uint32 { return h.End - h.Data }

// LabelsPerBlock returns how many labels a label block holds.
func (h *Header) LabelsPerBlock() uint32 { return uint32(h.BlockSize) / LabelSize }

// Offset returns where a block, counted from the beginning of the partition,
// lies.
func (h *Header) Offset(block uint32) int64 { return int64(block) * int64(h.BlockSize) }

// Pack writes h to the HeaderSize bytes at the start of b.
func (h *Header) Pack(b []byte) {
	clear(b[:HeaderSize])
	be := binary.BigEndian
	be.PutUint32(b, headerMagic)
	be.PutUint16(b[4:], headerVersion)
	be.PutUint16(b[6:], uint16(h.BlockSize))
	be.PutUint32(b[8:], h.Super)
	be.PutUint32(b[12:], h.Label)
	be.PutUint32(b[16:], h.Data)
	be.PutUint32(b[20:], h.End)
}

// UnpackHeader reads the header of a partition of size bytes. Errors wrap
// ErrHeader.
func UnpackHeader(b []byte, size int64) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes", ErrHeader, len(b))
	}
	be := binary.BigEndian
	if m := be.Uint32(b); m != headerMagic {
		return Header{}, fmt.Errorf("%w: magic %08x, want %08x", ErrHeader, m, headerMagic)
	}
	if v := be.Uint16(b[4:]); v != headerVersion {
		return Header{}, fmt.Errorf("%w: version %d, want %d", ErrHeader, v, headerVersion)
	}
	h := Header{int(be.Uint16(b[6:])), be.Uint32(b[8:]), be.Uint32(b[12:]), be.Uint32(b[16:]), be.Uint32(b[20:])}
	switch {
	case h.BlockSize < 512 || h.BlockSize > MaxBlockSize || h.BlockSize%512 != 0:
		return Header{}, fmt.Errorf("%w: block size %d", ErrHeader, h.BlockSize)
	case h.Offset(h.Super) < HeaderOffset+HeaderSize || h.Super >= h.Label || h.Label >= h.Data || h.Data >= h.End:
		return Header{}, fmt.Errorf("%w: super block %d, labels %d, data %d to %d", ErrHeader, h.Super, h.Label, h.Data, h.End)
	case h.Offset(h.End) > size:
		return Header{}, fmt.Errorf("%w: %d blocks of %d in %d bytes", ErrHeader, h.End, h.BlockSize, size)
	case uint64(h.Data-h.Label)*uint64(h.LabelsPerBlock()) < uint64(h.Blocks()):
		return Header{}, fmt.Errorf("%w: %d label blocks for %d blocks", ErrHeader, h.Data-h.Label, h.Blocks())
	}
	return h, nil
}
