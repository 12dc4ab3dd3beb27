// Package imagefiletest has what tests of formats of disk images share.
package imagefiletest

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Golden returns the images testdata/golden/NAME.EXT.gz, by NAME.
func Golden(t testing.TB, ext string) map[string][]byte {
	t.Helper()
	suffix := "." + ext + ".gz"
	names, err := filepath.Glob("testdata/golden/*" + suffix)
	if err != nil || len(names) == 0 {
		t.Fatalf("no images: %v", err)
	}
	all := make(map[string][]byte)
	for _, name := range names {
		b, err := unzip(name)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(name), suffix)] = b
	}
	return all
}

func unzip(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// A Disk is a disk in an image.
type Disk interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
}

// Fuzz reads a disk that may be anything. Its data lies on it and in order,
// and what is no data is zeros.
func Fuzz(t *testing.T, d Disk) {
	off, size := int64(0), d.Size()
	for range 1000 {
		start, end, err := d.NextData(off)
		if err != nil && err != io.EOF {
			d.ReadAt(make([]byte, 1<<16), off)
			return
		}
		if err == io.EOF {
			start, end = size, size
		}
		if start < off || end < start || end > size || err == nil && end == start {
			t.Fatalf("data after %d: %d to %d of %d", off, start, end, size)
		}
		hole := make([]byte, min(start-off, 1<<16))
		if n, rerr := d.ReadAt(hole, off); rerr != nil && rerr != io.EOF || n < len(hole) || len(bytes.Trim(hole, "\x00")) > 0 {
			t.Fatalf("hole at %d: %d bytes, %v", off, n, rerr)
		}
		if err == io.EOF {
			return
		}
		d.ReadAt(make([]byte, min(end-start, 1<<16)), start)
		off = end
	}
}
