package qcow2

import (
	"bytes"
	"testing"

	"strata/vdisk/internal/imagefile/imagefiletest"
)

// TestGolden reads them: 20 KiB with A from 1 to 4 KiB, B from 9 to 10, C in
// the last.
func TestGolden(t *testing.T) {
	want := make([]byte, 20<<10)
	for c, r := range map[byte][2]int{'A': {1, 4}, 'B': {9, 10}, 'C': {19, 20}} {
		for i := r[0] << 10; i < r[1]<<10; i++ {
			want[i] = c
		}
	}
	for name, b := range imagefiletest.Golden(t, "qcow2") {
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
	for _, b := range imagefiletest.Golden(f, "qcow2") {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := newImage(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		imagefiletest.Fuzz(t, im)
	})
}
