package arena

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"strata/internal/disk"
	"strata/venti"
)

// Verify is Sum for work in the background, which looks at every clump too: it
// reads the arena once, from its first byte to its last, and calls fn with each
// clump that the directory has of the first n, in order. Before each piece it
// calls wait with the number of bytes that it is about to read. What the disk
// cannot read counts as zeros, so that the clumps there are corrupt; then the sum
// comes with the first such error.
//
// Another error ends it: that of wait, of fn, of ctx, or of the directory. Header
// is what the directory says of a clump whose own is corrupt.
func (a *Arena) Verify(ctx context.Context, n int, wait func(ctx context.Context, n int) error, fn func(*Clump) error) (sum venti.Score, unread, err error) {
	next, stop := iter.Pull2(a.Infos(ctx, n))
	defer stop()
	v := &verifier{a: a, next: next, fn: fn}
	if err := v.advance(); err != nil {
		return sum, nil, err
	}
	sum, err = a.sum(ctx, nil, wait, v)
	return sum, v.unread, err
}

// A verifier cuts the pieces that a sum reads into clumps.
type verifier struct {
	a    *Arena
	next func() (Placed, error, bool)
	fn   func(*Clump) error

	at     Placed // the next clump
	done   bool   // there is none
	buf    []byte // what was read from off of the log on
	off    int64
	lump   []byte
	unread error
}

// advance makes at the next clump.
func (v *verifier) advance() error {
	p, err, ok := v.next()
	v.at, v.done = p, !ok
	return err
}

// readStep is how much is read at once where a larger piece cannot be.
const readStep = 4 << 10

// read reads the part of the file from off on, with zeros for what cannot be
// read.
func (v *verifier) read(b []byte, off int64) {
	err := disk.ReadFull(v.a.file, b, off)
	if err == nil {
		return
	}
	if v.unread == nil {
		v.unread = v.a.errorf("read at %#x: %w", off, err)
	}
	for len(b) > 0 {
		k := min(readStep, len(b))
		if n, err := v.a.file.ReadAt(b[:k], off); n < k || err != nil && err != io.EOF {
			clear(b[:k])
		}
		b, off = b[k:], off+int64(k)
	}
}

// piece takes the next bytes of the file.
func (v *verifier) piece(b []byte, off int64) error {
	if v.done {
		return nil
	}
	log := off - v.a.Base() // where in the log b is
	if log < 0 {
		b, log = b[min(int64(len(b)), -log):], 0
	}
	if len(v.buf) == 0 {
		v.off = log
	}
	v.buf = append(v.buf, b...)
	for !v.done && v.at.Off+v.at.Info.LogSize() <= v.off+int64(len(v.buf)) {
		c := v.clump(v.buf[v.at.Off-v.off:][:v.at.Info.LogSize()])
		if err := v.fn(&c); err != nil {
			return err
		}
		if err := v.advance(); err != nil {
			return err
		}
	}
	used := len(v.buf)
	if !v.done {
		used = int(min(int64(used), v.at.Off-v.off))
	}
	v.buf, v.off = v.buf[:copy(v.buf, v.buf[used:])], v.off+int64(used)
	return nil
}

// clump returns the next clump, which is b.
func (v *verifier) clump(b []byte) Clump {
	c := Clump{Pos: v.at.Pos, Header: ClumpHeader{ClumpInfo: v.at.Info}}
	h, err := UnpackClumpHeader(b, v.a.ClumpMagic)
	if err == nil && h.ClumpInfo != v.at.Info {
		err = errors.New("it is not what the directory says")
	}
	if err != nil {
		c.Err = fmt.Errorf("clump at %#x: %w: %w", c.Off, venti.ErrCorrupt, err)
		return c
	}
	c.Header = h
	if len(v.lump) < int(h.UncSize) {
		v.lump = make([]byte, venti.MaxBlockSize)
	}
	c.Data, c.Err = h.Decode(v.lump, b[ClumpHeaderSize:])
	return c
}
