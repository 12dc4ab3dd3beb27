package ext_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"strata/vdisk/fsys"
	"strata/vdisk/fsys/ext"
	"strata/vdisk/fsys/fsystest"
)

// allKinds makes a directory of files of all kinds that need no privilege.
func allKinds(t *testing.T) string {
	t.Helper()
	dir := fsystest.Tree(t, 20, 60000)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600))
	must(os.WriteFile(filepath.Join(dir, "tiny"), []byte("fits into its inode"), 0o640))
	must(os.WriteFile(filepath.Join(dir, "small"), []byte(strings.Repeat("inode and attributes ", 6)), 0o444))
	fsystest.Noise(t, filepath.Join(dir, "large"), 700000)
	must(os.Symlink("tiny", filepath.Join(dir, "short link")))
	must(os.Symlink(strings.Repeat("x/", 40)+"y", filepath.Join(dir, "long link")))
	must(os.Symlink(strings.Repeat("z", 59), filepath.Join(dir, "link of 59")))
	must(os.Symlink(strings.Repeat("z", 60), filepath.Join(dir, "link of 60")))
	must(os.Link(filepath.Join(dir, "tiny"), filepath.Join(dir, "hard link")))
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(err)
	for i := range int64(12) {
		_, err := f.WriteAt([]byte("data"), i*i*70000)
		must(err)
	}
	_, err = f.WriteAt([]byte("the end"), 20<<20)
	must(err)
	must(f.Close())
	must(os.Mkdir(filepath.Join(dir, "many"), 0o711))
	for i := range 1200 {
		must(os.WriteFile(filepath.Join(dir, "many", fmt.Sprintf("%s %d", strings.Repeat("name", 20), i)), nil, 0o644))
	}
	return dir
}

func openFiles(t *testing.T, name string) fsys.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	root, err := ext.Open(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	fsystest.SamePlaces(t, f, root)
	return root
}

// TestFiles reads what mke2fs has put into file systems of many kinds.
func TestFiles(t *testing.T) {
	dir := allKinds(t)
	for _, tc := range []struct{ name, args string }{
		{"ext4", "-b 4096 -O " + debian12},
		{"ext4, 1 KiB", "-b 1024 -O " + debian12},
		{"ext4, 64 KiB", "-b 65536 -O " + debian12},
		{"inline data", "-b 4096 -O inline_data," + debian12},
		{"inline data, inodes of 1 KiB", "-b 4096 -I 1024 -O inline_data," + debian12},
		{"ext3", "-b 1024 -O has_journal,sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr"},
		{"ext2", "-b 4096 -O sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr"},
		{"ext2, small inodes", "-b 1024 -I 128 -O filetype"},
		{"without filetype", "-b 1024 -I 128 -O none"},
		{"bigalloc", "-b 4096 -C 65536 -O bigalloc," + debian12},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			name := mkfs(t, 200<<20, append(strings.Fields(tc.args), "-d", dir)...)
			fsystest.SameFiles(t, openFiles(t, name), dir, true, "lost+found")
			if strings.Contains(tc.args, "dir_index") && !strings.Contains(tc.args, "inline") {
				run(t, 1, "e2fsck", "-fyD", name) // makes trees of directories
				fsystest.SameFiles(t, openFiles(t, name), dir, true, "lost+found")
			}
		})
	}
}

// TestTripleBlocks reads a file that needs blocks of numbers of all three
// kinds.
func TestTripleBlocks(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const per = 256
	for _, block := range []int64{0, 11, 12, 12 + per - 1, 12 + per, 12 + per + per*per - 1, 12 + per + per*per, 12 + per + per*per + 1000} {
		if _, err := f.WriteAt([]byte(fmt.Sprint("block ", block)), block*1024); err != nil {
			t.Fatal(err)
		}
	}
	name := mkfs(t, 8<<20, "-b", "1024", "-O", "filetype", "-d", dir)
	fsystest.SameFiles(t, openFiles(t, name), dir, true, "lost+found")
}

// TestSpecial reads what debugfs makes.
func TestSpecial(t *testing.T) {
	name := mkfs(t, 8<<20, "-b", "1024", "-O", "filetype")
	debugfs(t, name, "mknod pipe p", "mknod tty c 4 65", "mknod sda b 8 300", "mkdir dir", "sif dir uid 70000", "sif dir mode 043755")
	root := openFiles(t, name)
	for _, tc := range []struct {
		name         string
		mode         fs.FileMode
		major, minor uint32
	}{
		{"pipe", fs.ModeNamedPipe, 0, 0},
		{"tty", fs.ModeDevice | fs.ModeCharDevice, 4, 65},
		{"sda", fs.ModeDevice, 8, 300},
		{"dir", fs.ModeDir, 0, 0},
	} {
		f, err := root.Lookup(tc.name)
		if err != nil {
			t.Fatal(err)
		}
		if i := f.Info(); i.Mode.Type() != tc.mode || i.Major != tc.major || i.Minor != tc.minor {
			t.Errorf("%s: got %+v", tc.name, i)
		}
		if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: read: got %v", tc.name, err)
		}
	}
	dir, _ := root.Lookup("dir")
	if i := dir.Info(); i.Mode != fs.ModeDir|fs.ModeSticky|fs.ModeSetgid|0o755 {
		t.Errorf("got mode %v", i.Mode)
	}
}

// TestReplayedFiles reads a file whose only directory entry and contents are
// those that a replay of the journal would make.
func TestReplayedFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(strings.Repeat("before", 700)), 0o644); err != nil {
		t.Fatal(err)
	}
	name := mkfs(t, 16<<20, "-b", "1024", "-O", "has_journal,filetype,extent", "-d", dir)
	block := regexp.MustCompile(`(?m)^\d+$`).FindString(debugfs(t, name, "bmap file 0"))
	after := filepath.Join(t.TempDir(), "after")
	if err := os.WriteFile(after, []byte(strings.Repeat("after, ", 200)[:1024]), 0o644); err != nil {
		t.Fatal(err)
	}
	debugfs(t, name, "jo", "jw -b "+block+" "+after, "jc")
	f, err := openFiles(t, name).Lookup("file")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "after, aft" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := f.ReadAt(b, 1024); err != nil || !strings.Contains("beforebeforebefore", string(b)) {
		t.Errorf("got %q, %v", b, err)
	}
}

// FuzzFiles reads all files of an altered file system.
func FuzzFiles(f *testing.F) {
	var bases [][]byte
	for _, m := range testImages {
		bases = append(bases, testImage(f, m.name))
	}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte{0, 0, 0, 0, 0, 1, 2, 3})
	f.Add(uint8(1), []byte{0, 40, 0, 4, 0xff})
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		base := bases[int(which)%len(bases)]
		a := fsystest.Alter(base)
		for ; len(edits) >= 5; edits = edits[5:] {
			off := int64(binary.BigEndian.Uint32(edits)) % int64(len(base))
			a.WriteAt(edits[4:5], off)
		}
		if root, err := ext.Open(a, int64(len(base))); err == nil {
			fsystest.ReadAll(root)
		}
	})
}
