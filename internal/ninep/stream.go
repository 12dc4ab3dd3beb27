package ninep

import (
	"context"
	"fmt"
	"iter"
)

// streamAhead is how many bytes a stream asks for ahead of its reader, or two
// messages if that is more.
const streamAhead = 4 << 20

// Stream yields what the open file holds from off on, piece by piece, and
// asks for the next pieces ahead. Each piece is the caller's until it asks for
// the next. An error ends it.
func (f *File) Stream(ctx context.Context, off int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for try := 1; ; {
			n, err := f.stream(ctx, off, yield)
			if off += n; err == nil {
				return
			}
			if !f.c.again(try, &Fcall{Type: Tread}, err) {
				yield(nil, fmt.Errorf("read %s: %w", f.name, err))
				return
			}
			try++
		}
	}
}

// stream is Stream on one link. It returns how much it has yielded, and nil
// at the end of the file or when the caller wants no more.
func (f *File) stream(ctx context.Context, off int64, yield func([]byte, error) bool) (done int64, err error) {
	l, err := f.use(ctx)
	if err != nil {
		return 0, err
	}
	chunk := f.chunk(l)
	ahead := 1 // a local link has answered before it returns
	if l.local != nil {
		chunk = min(chunk, 1<<20)
	} else if chunk > 0 {
		ahead = min(max(streamAhead/chunk, 2), window)
	}
	if chunk == 0 {
		return 0, ErrFidUse
	}
	type piece struct {
		x   *call
		buf *buffer
	}
	var ring [window]piece
	sent, taken := 0, 0
	next := off // where the next request reads
	take := func(ctx context.Context) (piece, error) {
		p := ring[taken%window]
		taken++
		return p, l.wait(ctx, p.x)
	}
	free := func(p piece) {
		p.x.free()
		p.buf.free()
	}
	// drop gives up what was asked for but is not wanted.
	drop := func() {
		gone, cancel := context.WithCancel(ctx)
		cancel()
		for taken < sent {
			p, _ := take(gone)
			free(p)
		}
		next = off + done
	}
	defer drop()
	for {
		for sent-taken < ahead {
			p := piece{newCall(), getBuffer(chunk)}
			p.x.dst = p.buf.b
			p.x.req = Fcall{Type: Tread, Fid: f.fid, Offset: uint64(next), Count: uint32(chunk)}
			if err := l.start(ctx, p.x); err != nil {
				free(p)
				return done, err
			}
			ring[sent%window] = p
			sent++
			next += int64(chunk)
		}
		p, err := take(ctx)
		n := p.x.n
		if err != nil || n == 0 {
			free(p)
			return done, err
		}
		done += int64(n)
		if n < chunk {
			drop() // the others are not what follows
		}
		more := yield(p.buf.b[:n], nil)
		free(p)
		if !more {
			return done, nil
		}
	}
}
