//go:build cgo

package zstd

import (
	"sync"

	"github.com/DataDog/zstd"
)

// level makes less of 4 KiB than level 1, in the same time.
const level = 2

// An Encoder compresses one block at a time. Its zero value is ready. It holds
// some 100 KiB, outside Go's heap.
type Encoder struct {
	ctx zstd.Ctx
	out []byte
}

// Encode compresses src into dst, which is as long. It returns false if that does
// not make it shorter; dst is then anything.
func (e *Encoder) Encode(dst, src []byte) (n int, ok bool) {
	if len(src) == 0 {
		return 0, false
	}
	if e.ctx == nil {
		e.ctx = zstd.NewCtx()
	}
	// It needs more room on the way than dst has.
	if bound := zstd.CompressBound(len(src)); cap(e.out) < bound {
		e.out = make([]byte, bound)
	}
	out, err := e.ctx.CompressLevel(e.out, src, level)
	if err != nil || len(out) >= len(src) {
		return 0, false
	}
	return copy(dst, out), true
}

var decoders = sync.Pool{New: func() any { return zstd.NewCtx() }}

// Decode decompresses src, one frame, into dst, and returns how many bytes that
// are. An error says that src is damaged, or that dst is too short.
func Decode(dst, src []byte) (int, error) {
	if len(dst) == 0 || len(src) == 0 {
		return 0, errSize
	}
	ctx := decoders.Get().(zstd.Ctx)
	defer decoders.Put(ctx)
	return ctx.DecompressInto(dst, src)
}
