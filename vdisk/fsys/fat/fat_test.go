package fat_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"strata/vdisk/fsys/fat"
	"strata/vdisk/fsys/fsystest"
)

// golden are file systems by mkfs.vfat 4.2 -s 1 -i 12345678 -n GOLDEN, in
// which mtools 4.0 made six files and a directory with one, and deleted two.
var golden = []struct {
	name, free string
}{
	{"fat12", "23040+6144 50688+15360 103424+420864"},
	{"fat16", "44544+6144 72192+15360 124928+3020800"},
	{"fat32", "600576+6144 628224+15360 681472+37067264"},
}

func TestGolden(t *testing.T) {
	for _, tc := range golden {
		data := fsystest.Image(t, filepath.Join("testdata", tc.name+".gz"))
		fs, free := fsystest.Probe(t, bytes.NewReader(data), int64(len(data)), fat.Probe)
		if got := fsystest.Text(free); got != tc.free || fs.Whole != "" {
			t.Errorf("%s: got free %s, whole because %q, want free %s", tc.name, got, fs.Whole, tc.free)
		}
		if fs.Type != "vfat" || fs.UUID != "1234-5678" || fs.Label != "GOLDEN" || fs.BlockSize != 512 || fs.Size != int64(len(data)) {
			t.Errorf("%s: got %+v", tc.name, fs)
		}
	}
}

func FuzzProbe(f *testing.F) {
	var images [][]byte
	for _, m := range golden {
		images = append(images, fsystest.Image(f, filepath.Join("testdata", m.name+".gz")))
	}
	fsystest.Fuzz(f, fat.Probe, nil, images...)
}

// TestDamage changes one thing after another.
func TestDamage(t *testing.T) {
	for _, tc := range []struct {
		image string
		off   int64
		bytes string
		want  string
	}{
		{"fat12", 0x25, "\x01", "it was not unmounted"},
		{"fat16", 0x25, "\x01", "it was not unmounted"},
		{"fat32", 0x41, "\x01", "it was not unmounted"},
		{"fat16", 512 + 2, "\xff\x7f", "it was not unmounted"},
		{"fat32", 16384 + 4, "\xff\xff\xff\xf7", "its tables differ"},
		{"fat16", 512 + 2, "\xff\xbf", "its tables differ"},
		{"fat12", 512, "\xf0", "its tables differ"},
		{"fat12", 0x15, "\xf0", "its table begins with 0xff8"},
		{"fat32", 0x28, "\x80", "only one of its tables is kept up to date"},
		{"fat32", 0x2a, "\x01", "unknown version 0x1 of FAT32"},
		{"fat32", 0x11, "\x10", "FAT32 with a root directory of 512 bytes in a fixed place"},
		{"fat32", 0x2c, "\xff\xff\xff\xff", "its root directory is at cluster 4294967295"},
		{"fat32", 0x2c, "\x00\x10", "its root directory is at cluster 4096"},
		{"fat16", 0x11, "\x00\x00", "a root directory of 0 bytes"},
		{"fat16", 0x11, "\x01\x00", "a root directory of 32 bytes"},
		{"fat16", 0x16, "\x01\x00", "a table of 512 bytes for 6109 clusters"},
		{"fat16", 0x13, "\x10\x00", "its tables end at byte 41472 of 8192"},
		{"fat16", 0x13, "\x00\x18", "the file system is of"},
		{"fat16", 0x13, "\x47\x10", "4086 clusters may be FAT12 or FAT16"},
	} {
		data := fsystest.Image(t, filepath.Join("testdata", tc.image+".gz"))
		a := fsystest.Alter(data)
		a.WriteAt([]byte(tc.bytes), tc.off)
		if tc.image == "fat16" && tc.off == 512+2 && tc.bytes == "\xff\x7f" {
			a.WriteAt([]byte(tc.bytes), tc.off+int64(binary.LittleEndian.Uint16(data[0x16:]))*512)
		}
		size := int64(len(data))
		if tc.want == "the file system is of" {
			size -= 512
		}
		fs, _ := fsystest.Probe(t, a, size, fat.Probe)
		if !strings.HasPrefix(fs.Whole, tc.want) {
			t.Errorf("%s with %q at %#x: got whole because %q, want %q", tc.image, tc.bytes, tc.off, fs.Whole, tc.want)
		}
	}
}

// TestChains puts entries into both tables of one FAT16.
func TestChains(t *testing.T) {
	data := fsystest.Image(t, "testdata/fat16.gz")
	size := int64(binary.LittleEndian.Uint16(data[0x16:])) * 512
	for _, tc := range []struct {
		cluster int64
		entry   uint16
		want    string
	}{
		{1, 0xbfff, "its medium had errors"},
		{0, 0xfff0, "its table begins with 0xfff0"},
		{3000, 1, "cluster 3000 leads to 0x1"},
		{3000, 3000, "cluster 3000 leads to 0xbb8"},
		{3000, 0xffef, "cluster 3000 leads to 0xffef"},
		{3000, 0xfff6, "cluster 3000 leads to 0xfff6"},
		{3000, 3001, "a file leads to cluster 3001, which is free"},
		{3000, 3, "two clusters lead to cluster 3"},
		{3000, 0xfff7, ""},
		{3000, 0xffff, ""},
	} {
		a := fsystest.Alter(data)
		for i := range int64(2) {
			a.WriteAt(binary.LittleEndian.AppendUint16(nil, tc.entry), 512+i*size+2*tc.cluster)
		}
		fs, free := fsystest.Probe(t, a, int64(len(data)), fat.Probe)
		if fs.Whole != tc.want {
			t.Errorf("entry %d is %#x: got whole because %q, want %q", tc.cluster, tc.entry, fs.Whole, tc.want)
		}
		if tc.want == "" && len(free) != 4 {
			t.Errorf("entry %d is %#x: got free %v", tc.cluster, tc.entry, free)
		}
	}
}

var clustersLine = regexp.MustCompile(`(\d+)/(\d+) clusters`)

// TestMkfs compares with what fsck.vfat counts, and litters what is free.
func TestMkfs(t *testing.T) {
	fsystest.Need(t, "mcopy")
	for _, tc := range []struct {
		size int64
		args string
	}{
		{1440 << 10, "-F 12"},
		{8 << 20, "-F 12 -s 8"},
		{8 << 20, "-F 16 -s 1 -f 1"},
		{16 << 20, "-F 16 -S 1024 -s 1"},
		{48 << 20, "-F 16"},
		{64 << 20, ""},
		{40 << 20, "-F 32 -s 1"},
		{300 << 20, "-F 32 -s 8 -R 37 -a"},
		{1 << 30, "-F 32"},
		{300 << 20, "-F 32 -S 4096 -s 1"},
	} {
		t.Run(fmt.Sprint(tc.size>>10, " KiB ", tc.args), func(t *testing.T) {
			t.Parallel()
			name := fsystest.Sparse(t, tc.size)
			fsystest.Run(t, 0, "", "mkfs.vfat", append(strings.Fields(tc.args), "-n", "a label", name)...)
			tree := fsystest.Tree(t, 20, 60000)
			dirs, err := os.ReadDir(tree)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range dirs {
				fsystest.Run(t, 0, "", "mcopy", "-s", "-i", name, filepath.Join(tree, d.Name()), "::")
			}
			fsystest.Run(t, 0, "", "mdeltree", "-i", name, "::d1")
			check := func() int64 {
				m := clustersLine.FindStringSubmatch(fsystest.Run(t, 0, "", "fsck.vfat", "-n", name))
				used, _ := strconv.ParseInt(m[1], 10, 64)
				all, _ := strconv.ParseInt(m[2], 10, 64)
				return all - used
			}
			fs, free := fsystest.File(t, name, fat.Probe)
			if want := check() * int64(fs.BlockSize); fs.Whole != "" || fs.FreeBytes != want || want == 0 {
				t.Errorf("got %d bytes free, whole because %q, want %d", fs.FreeBytes, fs.Whole, want)
			}
			if fs.Label != "a label" {
				t.Errorf("got label %q", fs.Label)
			}
			fsystest.Litter(t, name, free)
			check()
			again, _ := fsystest.File(t, name, fat.Probe)
			if again.FreeBytes != fs.FreeBytes {
				t.Errorf("with garbage in free clusters %d bytes are free, without %d", again.FreeBytes, fs.FreeBytes)
			}
		})
	}
}
