// Package imagefile has what readers of disk images share whose format cuts the
// disk into pieces and has tables that say where they are.
package imagefile

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// ReadAt reads a disk of size bytes as io.ReaderAt says, by calls of some,
// which reads at least one byte into the beginning of p.
func ReadAt(p []byte, off, size int64, some func(p []byte, off int64) (int, error)) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	if off >= size {
		return 0, io.EOF
	}
	if int64(len(p)) > size-off {
		p, err = p[:size-off], io.EOF
	}
	for n < len(p) {
		m, rerr := some(p[n:], off+int64(n))
		if rerr != nil {
			return n, fmt.Errorf("read at %d: %w", off+int64(n), rerr)
		}
		n += m
	}
	return n, err
}

// A File is a file that is to stay as it is while it is read.
type File struct {
	*os.File
	size  int64
	mtime time.Time
}

// Watch returns f, which fi is about, as a File.
func Watch(f *os.File, fi os.FileInfo) *File {
	return &File{File: f, size: fi.Size(), mtime: fi.ModTime()}
}

// Unchanged returns an error if the file was written to since Watch.
func (f *File) Unchanged() error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() != f.size || !fi.ModTime().Equal(f.mtime) {
		return fmt.Errorf("%s: was written to while it was read", f.Name())
	}
	return nil
}

// A Cache keeps the pieces of a file that were used last, by what names them.
// Its methods may be called at once.
type Cache[K comparable] struct {
	most int

	mu   sync.Mutex // guards the field below; not held while reading
	list []piece[K] // the one used last at the end
}

type piece[K comparable] struct {
	key  K
	data []byte
}

// NewCache returns a Cache for as many pieces, which are few enough to look
// through.
func NewCache[K comparable](most int) *Cache[K] { return &Cache[K]{most: most} }

// Get returns a piece, which read reads if it is not there. It must not be
// changed.
func (c *Cache[K]) Get(key K, read func() ([]byte, error)) ([]byte, error) {
	if b := c.find(key); b != nil {
		return b, nil
	}
	b, err := read()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) >= c.most {
		copy(c.list, c.list[1:])
		c.list = c.list[:len(c.list)-1]
	}
	c.list = append(c.list, piece[K]{key, b})
	return b, nil
}

func (c *Cache[K]) find(key K) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.list) - 1; i >= 0; i-- {
		if e := c.list[i]; e.key == key {
			copy(c.list[i:], c.list[i+1:])
			c.list[len(c.list)-1] = e
			return e.data
		}
	}
	return nil
}
