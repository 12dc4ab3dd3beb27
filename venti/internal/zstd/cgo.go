//go:build cgo

package zstd

import (
	"sync"

	"github.com/DataDog/zstd"
)

// level makes less of 4 KiB than level 1, in the same time.
const level = 2

type encoder struct {
	ctx zstd.Ctx
	out []byte // the library wants more room than dst has
}

func (e *encoder) encode(_, src []byte) (out []byte, ok bool) {
	if e.ctx == nil {
		e.ctx = zstd.NewCtx()
	}
	if bound := zstd.CompressBound(len(src)); cap(e.out) < bound {
		e.out = make([]byte, bound)
	}
	out, err := e.ctx.CompressLevel(e.out, src, level)
	return out, err == nil // an error, such as no memory: it is stored as it is
}

var decoders = sync.Pool{New: func() any { return zstd.NewCtx() }}

func decode(dst, src []byte) (int, error) {
	ctx := decoders.Get().(zstd.Ctx)
	defer decoders.Put(ctx)
	return ctx.DecompressInto(dst, src)
}
