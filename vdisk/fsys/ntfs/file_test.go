package ntfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strata/vdisk/fsys"
	"strata/vdisk/fsys/fsystest"
	"strata/vdisk/fsys/ntfs"
)

// TestGoldenFiles reads what ntfs-3g has written.
func TestGoldenFiles(t *testing.T) {
	for _, tc := range golden {
		data := image(t, tc.name)
		root, err := ntfs.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		var visit func(f fsys.File)
		visit = func(f fsys.File) {
			for e, err := range f.Entries() {
				if err != nil {
					t.Fatal(err)
				}
				if e.File.Info().Mode.IsDir() {
					visit(e.File)
					continue
				}
				files++
				n, err := io.Copy(io.Discard, io.NewSectionReader(e.File, 0, 1<<40))
				if err != nil || n != e.File.Info().Size {
					t.Errorf("%s: %d bytes, %v, want %d", e.Name, n, err, e.File.Info().Size)
				}
			}
		}
		visit(root)
		if files != 46 {
			t.Errorf("%s: %d files", tc.name, files)
		}
		page, err := root.Lookup("PAGEFILE.sys")
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		if _, err := page.ReadAt(b, 8192); err != nil || !bytes.Equal(b, bytes.Repeat([]byte("p"), 4096)) {
			t.Errorf("%s: pagefile.sys: %v", tc.name, err)
		}
	}
}

// mounted mounts an image with ntfs-3g while f runs.
func mounted(t *testing.T, img string, f func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command(fsystest.Need(t, "ntfs-3g"), img, dir).CombinedOutput(); err != nil {
		t.Skipf("mount: %v: %s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	f(dir)
}

// TestFiles reads what ntfs-3g writes now: files in records, in many runs and
// with holes, a large directory, names in all letters, and what is compressed.
func TestFiles(t *testing.T) {
	dir := fsystest.Tree(t, 40, 200000)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"README.TXT", "Ünïcödé 漢字 😀", strings.Repeat("long ", 40) + "end", "~$&+,;=[]"} {
		must(os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
	}
	must(os.WriteFile(filepath.Join(dir, "empty"), nil, 0o644))
	must(os.Mkdir(filepath.Join(dir, "many"), 0o755))
	for i := range 400 {
		must(os.WriteFile(filepath.Join(dir, "many", fmt.Sprintf("a name of some length %d", i)), []byte{byte(i)}, 0o644))
	}
	for _, cluster := range []string{"512", "4096", "16384"} {
		t.Run(cluster, func(t *testing.T) {
			img := fsystest.Sparse(t, 48<<20)
			fsystest.Run(t, 0, "", "mkntfs", "-q", "-F", "-c", cluster, img)
			want := t.TempDir()
			mounted(t, img, func(to string) {
				fsystest.Run(t, 0, "", "cp", "-r", dir+"/.", to)
				must(os.RemoveAll(filepath.Join(to, "d3")))
				fsystest.Run(t, 0, "", "cp", "-r", filepath.Join(dir, "d3"), to)
				for i := range 60 { // in many runs
					for _, name := range []string{"one", "two"} {
						f, err := os.OpenFile(filepath.Join(to, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
						must(err)
						_, err = f.Write(bytes.Repeat([]byte{byte(i), name[0]}, 5000))
						must(err)
						must(f.Close())
					}
				}
				f, err := os.Create(filepath.Join(to, "hole"))
				must(err)
				_, err = f.WriteAt([]byte("end"), 5<<20)
				must(err)
				must(f.Close())
				fsystest.Run(t, 0, "", "cp", "-rp", to+"/.", want)
			})
			r, err := os.Open(img)
			must(err)
			defer r.Close()
			root, err := ntfs.Open(r, 48<<20)
			must(err)
			fsystest.SameFiles(t, root, want, false)
			fsystest.SamePlaces(t, r, root)
			f, err := root.Lookup("readme.txt")
			must(err)
			fi, err := os.Stat(filepath.Join(want, "README.TXT"))
			must(err)
			if f.Info().Size != 10 || !f.Info().ModTime.Equal(fi.ModTime()) || f.Info().Links != 1 {
				t.Errorf("in other letters: got %+v, want %v", f.Info(), fi.ModTime())
			}
		})
	}
}

// TestOtherFiles has what other drivers would make of a file be told apart.
func TestOtherFiles(t *testing.T) {
	data := image(t, "ntfs4096")
	at := find(t, data, 0, utf16("pagefile.sys"))
	record := int64(mft + (at-mft)/1024*1024)
	attr := record + int64(binary.LittleEndian.Uint16(data[record+0x14:]))
	for binary.LittleEndian.Uint32(data[attr:]) != 0x80 {
		attr += int64(binary.LittleEndian.Uint32(data[attr+4:]))
	}
	for flags, want := range map[string]string{"\x01\x00": "is compressed", "\x00\x40": "is encrypted"} {
		a := fsystest.Alter(data)
		a.WriteAt([]byte(flags), attr+0xc)
		root, err := ntfs.Open(a, int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		f, err := root.Lookup("pagefile.sys")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(make([]byte, 10), 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", flags, err)
		}
	}
	// The archive's errors are not those of the file system.
	root, err := ntfs.Open(failing{bytes.NewReader(data)}, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := root.Lookup("pagefile.sys")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 8192), 0); !errors.Is(err, errFailing) {
		t.Errorf("a disk that fails: %v", err)
	}
}

// A failing disk cannot read as much as 8 KiB.
type failing struct{ r io.ReaderAt }

var errFailing = errors.New("failing")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if len(p) >= 8192 {
		return 0, errFailing
	}
	return f.r.ReadAt(p, off)
}

// FuzzFiles reads all files of an altered file system.
func FuzzFiles(f *testing.F) {
	bases := [][]byte{image(f, "ntfs512"), image(f, "ntfs4096")}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte{0, 0, 0x40, 0x16, 1})
	f.Add(uint8(0), []byte{0, 0, 0x54, 0x14, 9, 0, 0, 0x54, 0x38, 0xff})
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		base := bases[int(which)%len(bases)]
		a := fsystest.Alter(base)
		for ; len(edits) >= 5; edits = edits[5:] {
			a.WriteAt(edits[4:5], int64(binary.BigEndian.Uint32(edits))%int64(len(base)))
		}
		if root, err := ntfs.Open(a, int64(len(base))); err == nil {
			fsystest.ReadAll(root)
		}
	})
}
