package fsystest

import (
	"bytes"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"strata/vdisk/fsys"
)

// SameFiles compares a directory inside a file system with one of the host:
// names, contents, kinds, sizes and links, and, if unix, permissions and
// times. Names in skip may be inside only.
func SameFiles(t testing.TB, got fsys.File, want string, unix bool, skip ...string) {
	t.Helper()
	names := make(map[string]fsys.File)
	for e, err := range got.Entries() {
		if err != nil {
			t.Errorf("%s in %s: %v", e.Name, want, err)
			return
		}
		if !slices.Contains(skip, e.Name) {
			names[e.Name] = e.File
		}
	}
	list, err := os.ReadDir(want)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != len(list) {
		t.Errorf("%s: got %d files, want %d", want, len(names), len(list))
	}
	for _, d := range list {
		where := filepath.Join(want, d.Name())
		f, err := got.Lookup(d.Name())
		if err != nil || names[d.Name()] == nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		fi, err := d.Info()
		if err != nil {
			t.Fatal(err)
		}
		info := f.Info()
		if info.ID != names[d.Name()].Info().ID {
			t.Errorf("%s: looked up it is file %d, listed %d", where, info.ID, names[d.Name()].Info().ID)
		}
		if info.Mode.Type() != fi.Mode().Type() || unix && info.Mode.Perm() != fi.Mode().Perm() {
			t.Errorf("%s: got mode %v, want %v", where, info.Mode, fi.Mode())
		}
		if unix && !fi.IsDir() && info.ModTime.Unix() != fi.ModTime().Unix() {
			t.Errorf("%s: got time %v, want %v", where, info.ModTime, fi.ModTime())
		}
		switch fi.Mode().Type() {
		case fs.ModeDir:
			SameFiles(t, f, where, unix)
		case fs.ModeSymlink:
			if target, err := os.Readlink(where); err != nil || target != info.Target {
				t.Errorf("%s: got a link to %q, want %q", where, info.Target, target)
			}
		case 0:
			sameContents(t, f, where)
		}
	}
	if _, err := got.Lookup("no such file"); err != fs.ErrNotExist {
		t.Errorf("%s: of a name that is not there: got %v", want, err)
	}
}

// sameContents compares a file whole, and in pieces.
func sameContents(t testing.TB, f fsys.File, name string) {
	t.Helper()
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if f.Info().Size != int64(len(want)) {
		t.Errorf("%s: got %d bytes, want %d", name, f.Info().Size, len(want))
		return
	}
	if got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Info().Size)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: contents differ: %d bytes, %v", name, len(got), err)
	}
	if m, ok := f.(fsys.Mapped); ok {
		list, ok, err := m.Extents()
		n := int64(0)
		for _, x := range list {
			n += x.Len
		}
		if err != nil || ok && n < int64(len(want)) {
			t.Errorf("%s: got extents %v, %v for %d bytes", name, list, err, len(want))
		}
	}
	rnd := rand.New(rand.NewPCG(uint64(len(want)), 5))
	for range 4 {
		if len(want) == 0 {
			break
		}
		off := rnd.IntN(len(want))
		b := make([]byte, rnd.IntN(9000))
		n, err := f.ReadAt(b, int64(off))
		if part := want[off:min(off+len(b), len(want))]; !bytes.Equal(b[:n], part) || n == len(b) && err != nil && err != io.EOF || n < len(b) && err != io.EOF {
			t.Errorf("%s at %d: got %d bytes, %v, want %d", path.Base(name), off, n, err, len(part))
		}
	}
	if n, err := f.ReadAt(make([]byte, 1), int64(len(want))); n != 0 || err != io.EOF {
		t.Errorf("%s: at its end: got %d, %v", name, n, err)
	}
}

// SamePlaces compares what files inside a file system hold with what lies in the
// places of the region where they say that it does.
func SamePlaces(t testing.TB, region io.ReaderAt, dir fsys.File) {
	t.Helper()
	for e, err := range dir.Entries() {
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
			return
		}
		if e.File.Info().Mode.IsDir() {
			SamePlaces(t, region, e.File)
			continue
		}
		m, ok := e.File.(fsys.Mapped)
		if !ok || !e.File.Info().Mode.IsRegular() {
			continue
		}
		list, ok, err := m.Extents()
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
		}
		if !ok {
			continue
		}
		want := make([]byte, e.File.Info().Size)
		if _, err := m.ReadAt(want, 0); err != nil && err != io.EOF {
			t.Errorf("%s: %v", e.Name, err)
		}
		var got []byte
		for _, x := range list {
			b := make([]byte, min(x.Len, int64(len(want)-len(got))))
			if x.Off != fsys.Hole {
				if _, err := region.ReadAt(b, x.Off); err != nil && err != io.EOF {
					t.Errorf("%s: %v", e.Name, err)
				}
			}
			got = append(got, b...)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: its %d bytes do not lie in %v", e.Name, len(want), list)
		}
	}
}

// ReadAll reads all that there is inside a file system, up to limits, and
// looks at nothing: for those who damage it.
func ReadAll(root fsys.File) {
	left := 200 // files
	var visit func(f fsys.File, depth int)
	visit = func(f fsys.File, depth int) {
		if left--; left < 0 || depth > 5 {
			return
		}
		info := f.Info()
		if info.Mode.IsRegular() {
			if m, ok := f.(fsys.Mapped); ok {
				m.Extents()
			}
			b := make([]byte, 64<<10)
			for off := int64(0); off < min(info.Size, 1<<20); off += int64(len(b)) {
				if _, err := f.ReadAt(b, off); err != nil {
					break
				}
			}
			f.ReadAt(b, max(0, info.Size-100))
			return
		}
		if !info.Mode.IsDir() {
			return
		}
		n := 0
		for e, err := range f.Entries() {
			if n++; n > 100 || err != nil && e.Name == "" {
				break
			}
			if err == nil {
				visit(e.File, depth+1)
			}
		}
		f.Lookup("x")
	}
	visit(root, 0)
}
