package store

import (
	"fmt"
	"io"
	"sync"

	"strata/internal/disk"
)

// An overlay is a file whose writes stay in memory. A store that is opened
// for reading recovers on overlays, and so has what recovery makes without
// writing a byte.
type overlay struct {
	disk.File

	mu     sync.RWMutex     // guards the fields below
	blocks map[int64][]byte // what was written, by number
}

const overlayBlock = 4 << 10

func newOverlay(f disk.File) *overlay {
	return &overlay{File: f, blocks: make(map[int64][]byte)}
}

// Name returns the name of the file beneath.
func (o *overlay) Name() string { return fileName(o.File) }

// ReadAt implements io.ReaderAt.
func (o *overlay) ReadAt(b []byte, off int64) (int, error) {
	n, err := o.File.ReadAt(b, off)
	o.mu.RLock()
	defer o.mu.RUnlock()
	if len(o.blocks) == 0 {
		return n, err
	}
	for done := 0; done < n; {
		at := off + int64(done)
		skip := int(at % overlayBlock)
		k := min(n-done, overlayBlock-skip)
		if have, ok := o.blocks[at/overlayBlock]; ok {
			copy(b[done:done+k], have[skip:])
		}
		done += k
	}
	return n, err
}

// WriteAt implements io.WriterAt.
func (o *overlay) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || int64(len(b)) > o.Size()-off {
		return 0, fmt.Errorf("%s: write of %d bytes at %d is outside its %d bytes", o.Name(), len(b), off, o.Size())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for done := 0; done < len(b); {
		at := off + int64(done)
		i, skip := at/overlayBlock, int(at%overlayBlock)
		have, ok := o.blocks[i]
		if !ok {
			start := i * overlayBlock
			have = make([]byte, overlayBlock)
			n := min(overlayBlock, o.Size()-start)
			if got, err := o.File.ReadAt(have[:n], start); err != nil && !(err == io.EOF && int64(got) == n) {
				return done, err
			}
			o.blocks[i] = have
		}
		done += copy(have[skip:], b[done:])
	}
	return len(b), nil
}

// Sync does nothing: there is nothing to keep.
func (o *overlay) Sync() error { return nil }
