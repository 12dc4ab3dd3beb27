package vdisk

import (
	"context"
	"io"
)

// A window is a run of bytes of an image.
type window struct {
	im        *Image
	off, size int64
}

// partContents returns what is in a partition whose first region is the i-th.
func (im *Image) partContents(i int) diskContents {
	if im.layout.partEnd(i) == i+1 {
		return im.readers[i]
	}
	return &window{im, im.layout.Regions[i].Start, im.layout.PartLength(i)}
}

func (w *window) Size() int64 { return w.size }

// clip returns p, or as much of it as there is from off on.
func (w *window) clip(p []byte, off int64) []byte {
	return p[:max(0, min(int64(len(p)), w.size-off))]
}

func (w *window) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 || off >= w.size {
		return 0, io.EOF
	}
	q := w.clip(p, off)
	n, err := w.im.ReadAtContext(ctx, q, w.off+off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (w *window) ReadCached(p []byte, off int64) (n int, ok bool) {
	if off < 0 || off >= w.size {
		return 0, true
	}
	return w.im.ReadCached(w.clip(p, off), w.off+off)
}

func (w *window) NextData(ctx context.Context, off int64) (start, end int64, err error) {
	if off >= w.size {
		return 0, 0, io.EOF
	}
	start, end, err = w.im.NextData(ctx, w.off+off)
	if err != nil {
		return 0, 0, err
	}
	start, end = max(start-w.off, off), min(end-w.off, w.size)
	if start >= end {
		return 0, 0, io.EOF
	}
	return start, end, nil
}
