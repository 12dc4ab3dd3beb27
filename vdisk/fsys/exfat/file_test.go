package exfat_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strata/vdisk/fsys/exfat"
	"strata/vdisk/fsys/fsystest"
)

// TestGoldenFiles reads what exfat-fuse has written, in pieces and in one.
func TestGoldenFiles(t *testing.T) {
	for _, tc := range golden {
		data := image(t, tc.name)
		root, err := exfat.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		files, total := 0, int64(0)
		for e, err := range root.Entries() {
			if err != nil {
				t.Fatal(err)
			}
			if e.File.Info().Mode.IsDir() {
				for e, err := range e.File.Entries() {
					if err != nil {
						t.Fatal(err)
					}
					files++
					total += e.File.Info().Size
				}
				continue
			}
			files++
			n, err := io.Copy(io.Discard, io.NewSectionReader(e.File, 0, 1<<40))
			if err != nil || n != e.File.Info().Size {
				t.Errorf("%s: %d bytes, %v, want %d", e.Name, n, err, e.File.Info().Size)
			}
			if y := e.File.Info().ModTime.Year(); y < 2020 || y > 2030 {
				t.Errorf("%s is of %v", e.Name, e.File.Info().ModTime)
			}
			total += n
		}
		if files != 45 || total != 60111 {
			t.Errorf("%s: %d files of %d bytes", tc.name, files, total)
		}
		// A file system that is in use can be read.
		a := fsystest.Alter(data)
		a.WriteAt([]byte{2}, 0x6a)
		if _, err := exfat.Open(a, int64(len(data))); err != nil {
			t.Errorf("mounted: %v", err)
		}
		a.WriteAt([]byte{1}, 0x65)
		if _, err := exfat.Open(a, int64(len(data))); err == nil {
			t.Error("opened with a bad checksum of its boot region")
		}
	}
}

// TestFiles reads what exfat-fuse writes now.
func TestFiles(t *testing.T) {
	mount := fsystest.Need(t, "mount.exfat-fuse")
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
	for i := range 300 {
		must(os.WriteFile(filepath.Join(dir, "many", fmt.Sprintf("a name of some length %d", i)), []byte{byte(i)}, 0o644))
	}
	for _, args := range []string{"-c 512", "-c 32K"} {
		t.Run(args, func(t *testing.T) {
			img := fsystest.Sparse(t, 40<<20)
			fsystest.Run(t, 0, "", "mkfs.exfat", append(strings.Fields(args), img)...)
			out, err := exec.Command(fsystest.Need(t, "losetup"), "-f", "--show", img).CombinedOutput()
			if err != nil {
				t.Skipf("losetup: %v: %s", err, out)
			}
			loop := strings.TrimSpace(string(out))
			defer exec.Command("losetup", "-d", loop).Run()
			to := t.TempDir()
			if out, err := exec.Command(mount, loop, to).CombinedOutput(); err != nil {
				t.Skipf("mount: %v: %s", err, out)
			}
			// In pieces: with others between, and what is deleted.
			fsystest.Run(t, 0, "", "cp", "-rp", dir+"/.", to)
			must(os.RemoveAll(filepath.Join(to, "d3")))
			fsystest.Run(t, 0, "", "cp", "-rp", filepath.Join(dir, "d3"), to)
			f, err := os.OpenFile(filepath.Join(to, "d1", "a file with number 1"), os.O_APPEND|os.O_WRONLY, 0)
			must(err)
			_, err = f.Write(bytes.Repeat([]byte("more"), 30000))
			must(err)
			must(f.Close())
			want := t.TempDir()
			fsystest.Run(t, 0, "", "cp", "-rp", to+"/.", want)
			fsystest.Run(t, 0, "", "umount", to)
			r, err := os.Open(img)
			must(err)
			defer r.Close()
			root, err := exfat.Open(r, 40<<20)
			must(err)
			fsystest.SameFiles(t, root, want, false)
			fsystest.SamePlaces(t, r, root)
			if f, err := root.Lookup("readme.txt"); err != nil || f.Info().Size != 10 {
				t.Errorf("in other letters: got %v", err)
			}
			x, err := root.Lookup("README.TXT")
			must(err)
			fi, err := os.Stat(filepath.Join(want, "README.TXT"))
			must(err)
			if d := x.Info().ModTime.Sub(fi.ModTime()); d < -2e9 || d > 2e9 {
				t.Errorf("a file is of %v, want %v", x.Info().ModTime, fi.ModTime())
			}
		})
	}
}

// FuzzFiles reads all files of an altered file system.
func FuzzFiles(f *testing.F) {
	bases := [][]byte{image(f, "exfat512"), image(f, "exfat4096")}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte{0, 0, 2, 6, 1})
	f.Add(uint8(0), []byte{0, 1, 0x28, 0x21, 9, 0, 1, 0x28, 0x38, 0xff})
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		base := bases[int(which)%len(bases)]
		a := fsystest.Alter(base)
		for ; len(edits) >= 5; edits = edits[5:] {
			a.WriteAt(edits[4:5], int64(binary.BigEndian.Uint32(edits))%int64(len(base)))
		}
		sign(a)
		if root, err := exfat.Open(a, int64(len(base))); err == nil {
			fsystest.ReadAll(root)
		}
	})
}
