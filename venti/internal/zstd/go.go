//go:build !cgo

package zstd

import (
	"sync"

	"github.com/klauspost/compress/zstd"

	"strata/venti"
)

type encoder struct{ zstd *zstd.Encoder }

func (e *encoder) encode(dst, src []byte) (out []byte, ok bool) {
	if e.zstd == nil {
		e.zstd = newEncoder()
	}
	return e.zstd.EncodeAll(src, dst[:0:len(dst)]), true
}

// newEncoder returns an encoder of the default level: of 4 KiB blocks it makes 5 %
// less than the fastest one, in a quarter more time.
func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(1<<16), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // an option is wrong
	}
	return e
}

// decoder decodes for all: as many frames at once as there are CPUs.
var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(venti.MaxBlockSize), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // an option is wrong
	}
	return d
})

func decode(dst, src []byte) (int, error) {
	out, err := decoder().DecodeAll(src, dst[:0:len(dst)])
	if err != nil {
		return 0, err
	}
	return len(out), nil
}
