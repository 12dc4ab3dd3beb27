package qcow2

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// Decoders are kept: they cost more than a cluster does.
var (
	inflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}
	unzstders = sync.Pool{New: func() any {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			panic(err) // the options are constants
		}
		return d
	}}
)

// inflate fills out from in, which is deflated without a header and may go on
// with something else.
func inflate(out, in []byte) error {
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	if err := r.(flate.Resetter).Reset(bytes.NewReader(in), nil); err != nil {
		return err
	}
	if n, err := io.ReadFull(r, out); err != nil {
		return fmt.Errorf("%d of %d bytes: %w", n, len(out), err)
	}
	return nil
}

// unzstd fills out from in, which may go on with something else.
func unzstd(out, in []byte) error {
	d := unzstders.Get().(*zstd.Decoder)
	defer unzstders.Put(d)
	if err := d.Reset(bytes.NewReader(in)); err != nil {
		return err
	}
	if n, err := io.ReadFull(d, out); err != nil {
		return fmt.Errorf("%d of %d bytes: %w", n, len(out), err)
	}
	return nil
}
