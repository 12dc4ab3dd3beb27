package arena

import (
	"github.com/klauspost/compress/s2"

	"strata/venti/internal/whack"
	"strata/venti/internal/zstd"
)

// An Encoder makes clumps. It holds the tables of the compressions that it
// was asked for, some 64 KiB for whack and 100 for zstd (without cgo a mebibyte);
// its zero value is ready. It makes one clump at a time.
type Encoder struct {
	whack whack.Encoder
	zstd  zstd.Encoder
}

// Append appends to b the clump of a lump: h's header, with its sizes and
// its encoding filled in, and the data. enc is the encoding to try; what does
// not get shorter is stored Plain. The caller has set h's magic, type, score
// and time, and the lump is 1 to venti.MaxBlockSize bytes.
func (e *Encoder) Append(b []byte, h *ClumpHeader, lump []byte, enc Encoding) []byte {
	start := len(b)
	need := ClumpHeaderSize + len(lump)
	if cap(b)-start < need {
		b = append(b, make([]byte, need)...)[:start]
	}
	b = b[:start+need]
	data := b[start+ClumpHeaderSize:]
	h.UncSize = uint16(len(lump))
	h.Encoding = Plain
	if n, ok := e.encode(data, lump, enc); ok {
		h.Encoding = enc
		data = data[:n]
	} else {
		copy(data, lump)
	}
	h.Size = uint16(len(data))
	h.Pack(b[start:])
	return b[:start+ClumpHeaderSize+len(data)]
}

// encode compresses lump into dst, which is as long. It returns false if that
// is not worth while.
func (e *Encoder) encode(dst, lump []byte, enc Encoding) (n int, ok bool) {
	if enc != Whack && enc != Zstd || hopeless(lump) {
		return 0, false
	}
	if enc == Whack {
		return e.whack.Encode(dst, lump)
	}
	return e.zstd.Encode(dst, lump)
}

// hopeless tells whether a lump looks as if nothing made it shorter, at some
// gigabytes a second, where whack takes 40 microseconds for 8 KiB to find out.
// Some bytes all over the lump tell most others from random ones; for what is
// left a search for matches decides. Of a Linux root file system's blocks it
// finds four in five of those that whack cannot make shorter, and gives up a
// thousandth of what whack saves.
func hopeless(lump []byte) bool {
	const samples = 512
	if len(lump) < 2*samples {
		return false
	}
	var count [256]uint16
	step := len(lump) / samples
	for i := range samples {
		count[lump[i*step]]++
	}
	squares := 0
	for _, n := range count {
		squares += int(n) * int(n)
	}
	// Of random bytes it is 512 + 512·511/256, give or take 45.
	return squares < 2000 && s2.EstimateBlockSize(lump) < 0
}
