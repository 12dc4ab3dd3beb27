package arena

import (
	"encoding/binary"
	"fmt"

	"strata/venti"
	"strata/venti/internal/whack"
	"strata/venti/internal/zstd"
)

// Sizes in bytes.
const (
	ClumpHeaderSize = 38
	ClumpInfoSize   = 25

	// FreeSize is the length of the zero word that follows the last clump and
	// is overwritten by the next.
	FreeSize = 4

	// MaxClumpSize is the most that a clump takes in the log.
	MaxClumpSize = ClumpHeaderSize + 1<<16 - 1
)

const (
	clumpInfoOffset  = 4
	clumpEncOffset   = clumpInfoOffset + ClumpInfoSize
	clumpCreatOffset = clumpEncOffset + 1
	clumpTimeOffset  = clumpCreatOffset + 4
)

// An Encoding says how a clump's data makes the lump.
type Encoding uint8

// The encodings. They are on disk, and never renumbered. Plan 9's programs know
// the first two; a compressed clump is always shorter than its lump.
const (
	Plain Encoding = 1 // as it is
	Whack Encoding = 2
	Zstd  Encoding = 3 // one frame of RFC 8878, with no checksum and no dictionary
)

// String returns "plain", "whack", "zstd" or "encoding7".
func (e Encoding) String() string {
	switch e {
	case Plain:
		return "plain"
	case Whack:
		return "whack"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("encoding%d", uint8(e))
}

// A ClumpInfo is what the clump directory says of a clump, and the middle of
// the clump's header.
//
// A packed ClumpInfo is
//
//	type[1] size[2] uncsize[2] score[20]
//
// All integers are big-endian. size counts the data that follows the header,
// uncsize the bytes of the lump, at most venti.MaxBlockSize. Type 255, or any
// other that is not venti.DiskType's, marks a clump that was found corrupt:
// it is skipped but counted.
type ClumpInfo struct {
	Type    venti.DiskType
	Size    uint16
	UncSize uint16
	Score   venti.Score
}

// LogSize returns the bytes that the clump takes in the log.
func (c *ClumpInfo) LogSize() int64 { return ClumpHeaderSize + int64(c.Size) }

// Compressed tells whether the clump counts in Stats.CClumps.
func (c *ClumpInfo) Compressed() bool { return c.Size < c.UncSize }

// String returns what c says in a line.
func (c ClumpInfo) String() string {
	return fmt.Sprintf("%v type %d, %d bytes in %d", c.Score, c.Type, c.UncSize, c.Size)
}

func (c *ClumpInfo) pack(b []byte) {
	_ = b[ClumpInfoSize-1]
	b[0] = byte(c.Type)
	binary.BigEndian.PutUint16(b[1:], c.Size)
	binary.BigEndian.PutUint16(b[3:], c.UncSize)
	copy(b[5:], c.Score[:])
}

func unpackClumpInfo(b []byte) ClumpInfo {
	_ = b[ClumpInfoSize-1]
	return ClumpInfo{
		Type:    venti.DiskType(b[0]),
		Size:    binary.BigEndian.Uint16(b[1:]),
		UncSize: binary.BigEndian.Uint16(b[3:]),
		Score:   venti.Score(b[5:25]),
	}
}

// A ClumpHeader is what a clump starts with.
//
// A packed header is
//
//	magic[4] type[1] size[2] uncsize[2] score[20] encoding[1] creator[4] time[4]
//
// All integers are big-endian. magic is the arena's own. In plain clumps size
// equals uncsize, in compressed ones it is less. creator is 0 in practice;
// time is when it was written, in seconds since 1970.
type ClumpHeader struct {
	Magic uint32
	ClumpInfo
	Encoding Encoding
	Creator  uint32
	Time     uint32
}

// Pack writes the header to the first ClumpHeaderSize bytes of b.
func (h *ClumpHeader) Pack(b []byte) {
	_ = b[ClumpHeaderSize-1]
	binary.BigEndian.PutUint32(b, h.Magic)
	h.ClumpInfo.pack(b[clumpInfoOffset:])
	b[clumpEncOffset] = byte(h.Encoding)
	binary.BigEndian.PutUint32(b[clumpCreatOffset:], h.Creator)
	binary.BigEndian.PutUint32(b[clumpTimeOffset:], h.Time)
}

// UnpackClumpHeader reads the header at the start of b. It fails with
// ErrFormat if b is too short, starts with another magic than the given one,
// or holds sizes that contradict each other or the encoding.
func UnpackClumpHeader(b []byte, magic uint32) (ClumpHeader, error) {
	if len(b) < ClumpHeaderSize {
		return ClumpHeader{}, fmt.Errorf("clump header of %d bytes: %w", len(b), ErrFormat)
	}
	h := ClumpHeader{
		Magic:     binary.BigEndian.Uint32(b),
		ClumpInfo: unpackClumpInfo(b[clumpInfoOffset:]),
		Encoding:  Encoding(b[clumpEncOffset]),
		Creator:   binary.BigEndian.Uint32(b[clumpCreatOffset:]),
		Time:      binary.BigEndian.Uint32(b[clumpTimeOffset:]),
	}
	if h.Magic != magic {
		return h, fmt.Errorf("clump has magic %08x, not %08x: %w", h.Magic, magic, ErrFormat)
	}
	bad := h.UncSize == 0 || h.UncSize > venti.MaxBlockSize || h.Size == 0
	switch h.Encoding {
	case 0: // the first part of a header, before zeros
		bad = true
	case Plain:
		bad = bad || h.Size != h.UncSize
	case Whack, Zstd:
		bad = bad || h.Size >= h.UncSize
	}
	if bad {
		return h, fmt.Errorf("clump of %d bytes in %d, %v: %w", h.UncSize, h.Size, h.Encoding, ErrFormat)
	}
	return h, nil
}

// Decode makes the lump from data, the h.Size bytes that follow the header,
// in dst, which has room for h.UncSize bytes, and checks its score. It
// returns the lump, which is in dst, and which nobody may rely on if err is
// not nil. The error is venti.ErrCorrupt or ErrEncoding; what is marked
// corrupt is the former.
func (h *ClumpHeader) Decode(dst, data []byte) ([]byte, error) {
	if len(data) != int(h.Size) || len(dst) < int(h.UncSize) {
		return nil, fmt.Errorf("decode clump of %d bytes in %d: given %d for %d: %w",
			h.UncSize, h.Size, len(dst), len(data), venti.ErrCorrupt)
	}
	dst = dst[:h.UncSize]
	if !h.Type.Valid() {
		return nil, fmt.Errorf("clump is marked with type %d: %w", h.Type, venti.ErrCorrupt)
	}
	switch h.Encoding {
	case Plain:
		if h.Size != h.UncSize {
			return nil, fmt.Errorf("plain clump of %d bytes in %d: %w", h.UncSize, h.Size, venti.ErrCorrupt)
		}
		copy(dst, data)
	case Whack, Zstd:
		decode := whack.Decode
		if h.Encoding == Zstd {
			decode = zstd.Decode
		}
		n, err := decode(dst, data)
		if err != nil {
			return nil, fmt.Errorf("%w: decompression failed: %w", venti.ErrCorrupt, err)
		}
		if n != len(dst) {
			return nil, fmt.Errorf("%w: decompression gave %d bytes, not %d", venti.ErrCorrupt, n, len(dst))
		}
	default:
		return nil, fmt.Errorf("%v: %w", h.Encoding, ErrEncoding)
	}
	if got := venti.ScoreOf(dst); got != h.Score {
		return nil, &ScoreError{Got: got, Want: h.Score}
	}
	return dst, nil
}

// A ScoreError is a venti.ErrCorrupt: what was read is not what its score
// names.
type ScoreError struct{ Got, Want venti.Score }

func (e *ScoreError) Error() string {
	return fmt.Sprintf("corrupted; expected=%v got=%v", e.Want, e.Got)
}

// Is tells that e is venti.ErrCorrupt.
func (e *ScoreError) Is(target error) bool { return target == venti.ErrCorrupt }
