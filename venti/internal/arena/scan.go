package arena

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"strata/venti"
)

// A Clump is one that a scan came by.
type Clump struct {
	Pos
	Header ClumpHeader

	// Err is nil, or says why the clump does not make its lump:
	// venti.ErrCorrupt or ErrEncoding. Data is the lump, while the function it
	// was given to runs.
	Err  error
	Data []byte
}

// An End is the place where a scan ended, and why.
type End struct {
	Pos
	Reason EndReason
}

// EndReason says why a scan ended.
type EndReason uint8

const (
	EndLimit EndReason = iota // it came to the limit it was given
	EndFree                   // a zero word follows: the log is whole
	EndFull                   // no further clump fits: the log is whole
	EndStale                  // what follows never was a clump of this arena
	EndTorn                   // what follows is the start of a clump, but nothing whole
)

// String returns a word such as "free".
func (r EndReason) String() string {
	return [...]string{"limit", "free", "full", "stale", "torn"}[r]
}

// maxDamage is how many damaged clumps in a row a scan looks past.
const maxDamage = 4096

// Scan reads the log from one place on, up to offset limit (or as far as it
// goes if limit is negative), and calls fn with every clump, in order. It
// does not use the directory.
//
// A clump that does not make its lump is given to fn, with Err, if behind it,
// where its header says the next one starts, there is one that does: it was
// damaged. If there is not, the log ends before it: it was never written
// whole, and another may be written over it. An encoding that is not known is
// believed.
//
// The error is that of a read, of ctx or of fn, and the End tells how far the
// scan came.
func (a *Arena) Scan(ctx context.Context, from Pos, limit int64, fn func(*Clump) error) (End, error) {
	var (
		w       = window{a: a}
		at      = from    // the next to be looked at
		pending []Clump   // damaged ones, not yet given to fn
		lump    []byte    // Data of the next
		end     = from    // behind the last that was given to fn
		reason  EndReason // why at is the last
	)
	for {
		if err := ctx.Err(); err != nil {
			return End{Pos: end}, err
		}
		c, why, err := w.next(at, limit, &lump)
		if err != nil {
			return End{Pos: end}, err
		}
		if c == nil {
			reason = why
			break
		}
		at.Off += c.Header.LogSize()
		at.Clump++
		pending = append(pending, *c)
		if c.corrupt() {
			if len(pending) > maxDamage {
				break
			}
			continue
		}
		for i := range pending {
			if err := fn(&pending[i]); err != nil {
				return End{Pos: end}, err
			}
			end.Off += pending[i].Header.LogSize()
			end.Clump++
		}
		pending = pending[:0]
	}
	if len(pending) > 0 {
		reason = EndTorn
	}
	return End{end, reason}, nil
}

// corrupt tells whether c was read and does not make its lump.
func (c *Clump) corrupt() bool { return errors.Is(c.Err, venti.ErrCorrupt) }

// A window is the piece of a log that a sequential reader has in memory.
type window struct {
	a   *Arena
	buf []byte // all that has been read, which lies at off
	off int64
}

// bytes returns n bytes of the log from off on, or fewer at the end of the
// arena. They are good until the next call.
func (w *window) bytes(off int64, n int) ([]byte, error) {
	if have := w.off + int64(len(w.buf)) - off; off < w.off || have < int64(n) {
		if w.buf == nil {
			w.buf = make([]byte, 0, min(chunkSize+MaxClumpSize, w.a.Size()))
		}
		buf := w.buf[:cap(w.buf)]
		if off >= w.off && have > 0 {
			have = int64(copy(buf, w.buf[off-w.off:]))
		} else {
			have = 0
		}
		m, err := w.a.ReadLog(buf[have:], off+have)
		if err != nil && err != io.EOF && have < int64(n) {
			// A bad sector further on is no reason not to have these.
			m, err = w.a.ReadLog(buf[have:n], off+have)
		}
		w.off, w.buf = off, buf[:int(have)+m]
		if err != nil && err != io.EOF {
			return nil, w.a.errorf("read log at %#x: %w", off, err)
		}
	}
	b := w.buf[off-w.off:]
	return b[:min(n, len(b))], nil
}

// next reads the clump at a place, or returns nil and why there is none.
// *lump holds its data and is made larger if need be.
func (w *window) next(at Pos, limit int64, lump *[]byte) (*Clump, EndReason, error) {
	if limit >= 0 && at.Off >= limit {
		return nil, EndLimit, nil
	}
	if !w.a.Fits(at, 1) {
		return nil, EndFull, nil
	}
	b, err := w.bytes(at.Off, ClumpHeaderSize)
	if err != nil {
		return nil, 0, err
	}
	switch magic := binary.BigEndian.Uint32(b); {
	case magic == 0:
		return nil, EndFree, nil
	case magic != w.a.ClumpMagic:
		return nil, EndStale, nil
	}
	c := &Clump{Pos: at}
	if c.Header, err = UnpackClumpHeader(b, w.a.ClumpMagic); err != nil {
		return nil, EndTorn, nil
	}
	if !w.a.Fits(at, int(c.Header.Size)) || (limit >= 0 && at.Off+c.Header.LogSize() > limit) {
		return nil, EndTorn, nil
	}
	if b, err = w.bytes(at.Off, int(c.Header.LogSize())); err != nil {
		return nil, 0, err
	}
	if len(*lump) < int(c.Header.UncSize) {
		*lump = make([]byte, venti.MaxBlockSize)
	}
	c.Data, c.Err = c.Header.Decode(*lump, b[ClumpHeaderSize:])
	return c, 0, nil
}
