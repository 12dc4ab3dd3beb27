package vdisk

import (
	"fmt"
	"io"
)

// A part is a region of a source: what of it is to be stored.
type part struct {
	Region
	src  Source
	free *freeMap // nil if every byte is stored

	clean bool // the file system was unmounted
}

// Size returns the bytes of the part.
func (p *part) Size() int64 { return p.Length }

// ReadAt reads from the start of the part. What is free reads as zeros.
func (p *part) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	if off >= p.Length {
		return 0, io.EOF
	}
	b, whole := b[:min(int64(len(b)), p.Length-off)], len(b)
	n, err := p.src.ReadAt(b, p.Start+off)
	for at := off; ; {
		x, ok := p.free.next(at)
		if !ok || x.Off >= off+int64(n) {
			break
		}
		clear(b[max(x.Off, off)-off : min(x.End(), off+int64(n))-off])
		at = x.End()
	}
	switch {
	case n < len(b) && (err == nil || err == io.EOF):
		err = io.ErrUnexpectedEOF // the disk has become shorter
	case n == len(b) && n == whole:
		err = nil
	case n == len(b):
		err = io.EOF
	}
	return n, err
}

// NextData returns the first range at or after off that is neither a hole of
// the source nor free, or io.EOF.
func (p *part) NextData(off int64) (start, end int64, err error) {
	for {
		start, end, err := p.nextAllocated(off)
		if err != nil {
			return 0, 0, err
		}
		for start < end {
			x, ok := p.free.next(start)
			if !ok || x.Off >= end {
				return start, end, nil
			}
			if x.Off > start {
				return start, x.Off, nil
			}
			start = x.End()
		}
		off = start
	}
}

// nextAllocated returns the first range at or after off that is not a hole
// of the source, or io.EOF.
func (p *part) nextAllocated(off int64) (start, end int64, err error) {
	if off >= p.Length {
		return 0, 0, io.EOF
	}
	start, end, err = p.src.NextData(p.Start + off)
	if err != nil {
		return 0, 0, err
	}
	start, end = max(start-p.Start, off), min(end-p.Start, p.Length)
	if start >= end {
		return 0, 0, io.EOF
	}
	return start, end, nil
}

// measure returns how many bytes of the part the source has allocated, and
// how many of these are free.
func (p *part) measure() (allocated, free int64, err error) {
	for off := int64(0); ; {
		start, end, err := p.nextAllocated(off)
		if err == io.EOF {
			return allocated, free, nil
		}
		if err != nil {
			return 0, 0, err
		}
		allocated += end - start
		for at := start; ; {
			x, ok := p.free.next(at)
			if !ok || x.Off >= end {
				break
			}
			free += min(x.End(), end) - max(x.Off, start)
			at = x.End()
		}
		off = end
	}
}
