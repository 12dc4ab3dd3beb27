// Package fsystest holds what the tests of probers share: golden images,
// images altered at random, and what must hold for whatever a prober says.
//
//	img := fsystest.Image(t, "testdata/small.gz")
//	fs, free := fsystest.Probe(t, bytes.NewReader(img), int64(len(img)), fat.Probe)
package fsystest

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"strata/vdisk/fsys"
)

// Image returns the bytes of a golden image, a file that gzip has packed once
// or, as the zeros of a large one need it, twice.
func Image(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if data, err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return data
}

// Probe asks one prober, as package vdisk does, about a region that has to be
// its kind, and returns the free map after it has checked all that must hold
// for it.
func Probe(t testing.TB, r io.ReaderAt, size int64, probe fsys.Prober) (*fsys.FileSystem, []fsys.Extent) {
	t.Helper()
	fs, err := fsys.Probe(r, size, probe)
	if err != nil || fs == nil {
		t.Fatalf("probe: got %v, %v", fs, err)
	}
	return fs, extents(t, fs, size)
}

// File is Probe of an image in a file.
func File(t testing.TB, name string, probe fsys.Prober) (*fsys.FileSystem, []fsys.Extent) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Probe(t, f, st.Size(), probe)
}

// extents returns the free map of fs, a region of size bytes, and fails the
// test if it is not as it must be.
func extents(t testing.TB, fs *fsys.FileSystem, size int64) []fsys.Extent {
	t.Helper()
	var all []fsys.Extent
	var sum int64
	for x, err := range fs.Free() {
		if err != nil {
			t.Fatal(err)
		}
		if x.Off <= 0 || x.Off%512 != 0 || x.Len%512 != 0 || x.End() > size {
			t.Fatalf("extent %+v in a region of %d", x, size)
		}
		all = append(all, x)
		sum += x.Len
	}
	if sum != fs.FreeBytes {
		t.Fatalf("the map has %d free bytes, want %d", sum, fs.FreeBytes)
	}
	if fs.Whole != "" && sum > 0 {
		t.Fatalf("whole because %q, and %d bytes are free", fs.Whole, sum)
	}
	return all
}

// Text returns extents as words, offset+length.
func Text(all []fsys.Extent) string {
	var words []string
	for _, x := range all {
		words = append(words, fmt.Sprintf("%d+%d", x.Off, x.Len))
	}
	return strings.Join(words, " ")
}

const sector = 512

// An Altered image is another one with some of its sectors replaced.
type Altered struct {
	base    []byte
	sectors map[int64][]byte
	seen    map[int64]bool // sectors that were read, if not nil
}

// Alter returns an image that is like base.
func Alter(base []byte) *Altered {
	return &Altered{base: base, sectors: make(map[int64][]byte)}
}

// ReadAt reads as io.ReaderAt does.
func (a *Altered) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) && off < int64(len(a.base)) {
		end := min((off/sector+1)*sector, int64(len(a.base)))
		from := a.base[off:end]
		if s := a.sectors[off/sector]; s != nil {
			from = s[off%sector:]
		}
		if a.seen != nil {
			a.seen[off/sector] = true
		}
		m := copy(b[n:], from)
		n, off = n+m, off+int64(m)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt replaces bytes; what lies past the end is dropped.
func (a *Altered) WriteAt(b []byte, off int64) (int, error) {
	for n := 0; n < len(b) && off < int64(len(a.base)); {
		s := a.sectors[off/sector]
		if s == nil {
			at := off / sector * sector
			s = make([]byte, sector)
			copy(s, a.base[at:])
			a.sectors[off/sector] = s
		}
		m := copy(s[off%sector:], b[n:])
		n, off = n+m, off+int64(m)
	}
	return len(b), nil
}

// Fuzz alters the parts of images that a prober reads. Whatever it makes of
// that, it must not fail, and its answer must be in order. sign, if not nil, puts
// checksums right after some of the alterations, without which few would
// get far.
func Fuzz(f *testing.F, probe fsys.Prober, sign func(a *Altered), images ...[]byte) {
	var read [][]int64
	for _, img := range images {
		a := Alter(img)
		a.seen = make(map[int64]bool)
		if fs, err := probe(a, int64(len(img))); err != nil || fs == nil || fs.Whole != "" {
			f.Fatalf("a golden image is %+v, %v", fs, err)
		}
		var list []int64
		for s := range a.seen {
			list = append(list, s)
		}
		slices.Sort(list)
		read = append(read, list)
	}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte{0, 0, 0, 13, 1})
	f.Add(uint8(2), []byte{0, 0, 0, 11, 0, 0, 1, 0, 0, 0xff})
	f.Add(uint8(3), []byte{0, 0, 1, 0xfe, 0, 0, 2, 0, 4, 0xff})
	f.Fuzz(func(t *testing.T, how uint8, edits []byte) {
		i := int(how>>1) % len(images)
		a := Alter(images[i])
		for ; len(edits) >= 5; edits = edits[5:] {
			s := read[i][int(binary.BigEndian.Uint16(edits))%len(read[i])]
			a.WriteAt(edits[4:5], s*sector+int64(binary.BigEndian.Uint16(edits[2:]))%sector)
		}
		if how&1 != 0 && sign != nil {
			sign(a)
		}
		size := int64(len(images[i]))
		fs, err := probe(a, size)
		if err != nil {
			t.Fatal(err)
		}
		if fs != nil {
			extents(t, fs, size)
		}
	})
}
