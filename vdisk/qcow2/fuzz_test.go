package qcow2

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// golden returns the images in testdata, which qemu-img made.
func golden(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("testdata/golden/*.qcow2.gz")
	if err != nil || len(names) == 0 {
		t.Fatalf("no images: %v", err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		all[strings.TrimSuffix(filepath.Base(name), ".qcow2.gz")] = b
	}
	return all
}

// TestGolden reads them: 20 KiB with A from 1 to 4 KiB, B from 9 to 10, C in
// the last.
func TestGolden(t *testing.T) {
	want := make([]byte, 20<<10)
	for c, r := range map[byte][2]int{'A': {1, 4}, 'B': {9, 10}, 'C': {19, 20}} {
		for i := r[0] << 10; i < r[1]<<10; i++ {
			want[i] = c
		}
	}
	for name, b := range golden(t) {
		im, err := newImage(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := make([]byte, len(want))
		if n, err := im.ReadAt(got, 0); n != len(want) || err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		data := 0
		for off := int64(0); ; {
			start, end, err := im.NextData(off)
			if err != nil {
				break
			}
			data += int(end - start)
			off = end
		}
		// No more than the clusters, or subclusters, that hold something.
		if limit := map[string]int{"extended": 5<<10 + 512}; data > max(limit[name], 5<<10) && name != "v2" {
			t.Errorf("%s: %d bytes of data", name, data)
		}
	}
}

// FuzzImage reads an image that may be anything. It may be refused; if it is
// not, reading ends, and what is no data is zeros.
func FuzzImage(f *testing.F) {
	for _, b := range golden(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := newImage(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		off, spent := int64(0), 0
		for spent < 1000 {
			start, end, err := im.NextData(off)
			if err != nil {
				start, end = im.size, im.size
			}
			if start < off || end < start || end > im.size || err == nil && end == start {
				t.Fatalf("data after %d: %d to %d of %d", off, start, end, im.size)
			}
			hole := make([]byte, min(start-off, 1<<16))
			if n, rerr := im.ReadAt(hole, off); err == nil && (rerr != nil && rerr != io.EOF || n < len(hole) || len(bytes.Trim(hole, "\x00")) > 0) {
				t.Fatalf("hole at %d: %d bytes, %v", off, n, rerr)
			}
			if err != nil {
				return
			}
			im.ReadAt(make([]byte, min(end-start, 1<<16)), start)
			off = end
			spent++
		}
	})
}
