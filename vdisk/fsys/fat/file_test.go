package fat_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/vdisk/fsys/fat"
	"strata/vdisk/fsys/fsystest"
)

// TestFiles reads what mtools have written.
func TestFiles(t *testing.T) {
	fsystest.Need(t, "mcopy")
	dir := fsystest.Tree(t, 20, 60000)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"README.TXT", "lower.txt", "Mixed.Txt", "no ending", "a.b.c", ".hidden", "exactly thirteen", "thirteen.char", strings.Repeat("long ", 40) + "end", "~$&+,;=[]"} {
		must(os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
	}
	must(os.WriteFile(filepath.Join(dir, "empty"), nil, 0o644))
	must(os.Mkdir(filepath.Join(dir, "many"), 0o755))
	for i := range 300 {
		must(os.WriteFile(filepath.Join(dir, "many", fmt.Sprintf("a name of some length %d", i)), nil, 0o644))
	}
	for _, args := range []string{"-F 12 -s 16", "-F 16 -s 1", "-F 32 -s 1"} {
		t.Run(args, func(t *testing.T) {
			size := int64(16 << 20)
			if strings.Contains(args, "32") {
				size = 40 << 20
			}
			name := fsystest.Sparse(t, size)
			fsystest.Run(t, 0, "", "mkfs.vfat", append(strings.Fields(args), "-n", "label", name)...)
			list, err := os.ReadDir(dir)
			must(err)
			for _, d := range list {
				fsystest.Run(t, 0, "", "mcopy", "-s", "-m", "-i", name, filepath.Join(dir, d.Name()), "::")
			}
			f, err := os.Open(name)
			must(err)
			defer f.Close()
			root, err := fat.Open(f, size)
			must(err)
			fsystest.SameFiles(t, root, dir, false)
			fsystest.SamePlaces(t, f, root)
			if f, err := root.Lookup("readme.txt"); err != nil || f.Info().Size != 10 {
				t.Errorf("in other letters: got %v", err)
			}
		})
	}
}

// FuzzFiles reads all files of an altered file system.
func FuzzFiles(f *testing.F) {
	var bases [][]byte
	for _, m := range golden {
		bases = append(bases, fsystest.Image(f, filepath.Join("testdata", m.name+".gz")))
	}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte{0, 0, 2, 6, 1})
	f.Add(uint8(0), []byte{0, 0, 12, 0x1a, 9, 0, 0, 12, 0x3a, 0xff})
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		base := bases[int(which)%len(bases)]
		a := fsystest.Alter(base)
		for ; len(edits) >= 5; edits = edits[5:] {
			a.WriteAt(edits[4:5], int64(binary.BigEndian.Uint32(edits))%int64(len(base)))
		}
		if root, err := fat.Open(a, int64(len(base))); err == nil {
			fsystest.ReadAll(root)
		}
	})
}
