package btrfs_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/vdisk/fsys/btrfs"
	"strata/vdisk/fsys/fsystest"
)

// golden are file systems by mkfs.btrfs 6.2 in which Linux 6.18 made a hundred
// files, and deleted half of them: one as it is made by default, of 112 MiB with
// DUP metadata, and a mixed one of 16 MiB with tree blocks of 4 KiB and SHA-256.
var golden = []struct {
	name, uuid string
	free       int64
	extents    int
}{
	{"dup", "da6bd814-249b-4b43-a117-0f070222e6b0", 115253248, 64},
	{"mixed", "b566b267-7d51-48e2-91dc-7b7e2a81869b", 14934016, 71},
}

func image(t testing.TB, name string) []byte {
	return fsystest.Image(t, filepath.Join("testdata", name+".gz"))
}

func TestGolden(t *testing.T) {
	for _, tc := range golden {
		data := image(t, tc.name)
		fs, free := fsystest.Probe(t, bytes.NewReader(data), int64(len(data)), btrfs.Probe)
		if len(free) != tc.extents || fs.FreeBytes != tc.free || fs.Whole != "" {
			t.Errorf("%s: got %d extents, %d bytes free, whole because %q, want %d, %d", tc.name, len(free), fs.FreeBytes, fs.Whole, tc.extents, tc.free)
		}
		if fs.Type != "btrfs" || fs.UUID != tc.uuid || fs.Label != "Golden" || fs.BlockSize != 4096 || fs.Size != int64(len(data)) || fs.Clean {
			t.Errorf("%s: got %+v", tc.name, fs)
		}
	}
}

// super and the tree blocks of an image: where they are, and how long.
func blocks(data []byte) (super int64, nodes []int64, size int) {
	super = 64 << 10
	size = int(binary.LittleEndian.Uint32(data[super+0x94:]))
	for off := int64(0); off+int64(size) <= int64(len(data)); off += 4096 {
		if off != super && bytes.Equal(data[off+0x20:off+0x30], data[super+0x20:super+0x30]) && data[off+0x64] < 8 && off != 64<<20 {
			nodes = append(nodes, off)
		}
	}
	return super, nodes, size
}

// sum puts the checksum of n bytes at off right.
func sum(a *fsystest.Altered, off int64, n int, sha bool) {
	b := make([]byte, n)
	a.ReadAt(b, off)
	if sha {
		s := sha256.Sum256(b[32:])
		a.WriteAt(s[:], off)
		return
	}
	a.WriteAt(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(b[32:], crc32.MakeTable(crc32.Castagnoli))), off)
}

func FuzzProbe(f *testing.F) {
	mixed := image(f, "mixed")
	super, nodes, size := blocks(mixed)
	fsystest.Fuzz(f, btrfs.Probe, func(a *fsystest.Altered) {
		sum(a, super, 4096, true)
		for _, off := range nodes {
			sum(a, off, size, true)
		}
	}, mixed)
}

// TestDamage changes one thing after another in the superblock.
func TestDamage(t *testing.T) {
	data := image(t, "dup")
	const super = 64 << 10
	for _, tc := range []struct {
		name  string
		off   int64
		bytes string
		want  string
	}{
		{"checksum type", 0xc4, "\x03", "unknown checksum type 3"},
		{"RAID56", 0xbc, "\xe1", "unknown incompatible features 0x80"},
		{"zoned", 0xbd, "\x13", "unknown incompatible features 0x1000"},
		{"rocompat", 0xb4, "\x13", "unknown read-only compatible features 0x10"},
		{"seeding", 0x3c, "\x01", "flags 0x100000001 of the superblock of 65536"},
		{"two devices", 0x88, "\x02", "it is on 2 devices"},
		{"log", 0x61, "\x10", "it has a log of what was synced"},
		{"sectors", 0x90, "\x01", "sectors of 4097 bytes"},
		{"tree blocks", 0x96, "\x02", "sectors of 4096 bytes, tree blocks of"},
		{"size", 0x70, "\x01", "117440513 bytes on a device of 117440512"},
		{"used", 0x78, "\x01", "its extents are of"},
		{"chunks", 0xa1, "\x10", "4225 bytes of chunks"},
		{"fewer chunks", 0xa0, "\x10", "bad chunks in the superblock"},
		{"device", 0xc9, "\x02", "bad chunk at"},
		{"RAID1 chunk", 0x32b + 17 + 0x18, "\x12", "chunk"},
		{"chunk root", 0x58, "\x00\x00\x00\x00\x7f", "address"},
		{"root", 0x51, "\x00\x00\x00\x7f", "address"},
		{"root generation", 0x48, "\xff", "bad tree block"},
		{"root level", 0xc6, "\x01", "bad tree block"},
		{"huge level", 0xc6, "\x09", "tree block"},
	} {
		a := fsystest.Alter(data)
		a.WriteAt([]byte(tc.bytes), super+tc.off)
		sum(a, super, 4096, false)
		fs, _ := fsystest.Probe(t, a, int64(len(data)), btrfs.Probe)
		if !strings.HasPrefix(fs.Whole, tc.want) {
			t.Errorf("%s: got whole because %q, want %q", tc.name, fs.Whole, tc.want)
		}
	}
	a := fsystest.Alter(data)
	a.WriteAt([]byte("x"), super+0x200)
	if fs, _ := fsystest.Probe(t, a, int64(len(data)), btrfs.Probe); fs.Whole != "bad checksum of the superblock" {
		t.Errorf("got whole because %q", fs.Whole)
	}
	if fs, _ := fsystest.Probe(t, bytes.NewReader(data), int64(len(data))-4096, btrfs.Probe); !strings.HasPrefix(fs.Whole, "the file system is of") {
		t.Errorf("cut: got whole because %q", fs.Whole)
	}
	// Each tree block that is read: a byte of it, without its checksum.
	bad := 0
	_, nodes, _ := blocks(data)
	for _, off := range nodes {
		a := fsystest.Alter(data)
		a.WriteAt([]byte{data[off+0x70] + 1}, off+0x70)
		if fs, _ := fsystest.Probe(t, a, int64(len(data)), btrfs.Probe); strings.HasPrefix(fs.Whole, "bad tree block") {
			bad++
		} else if fs.Whole != "" {
			t.Errorf("tree block at %d: got whole because %q", off, fs.Whole)
		}
	}
	if bad < 3 {
		t.Errorf("only %d tree blocks were missed", bad)
	}
}

// TestMkfs looks at new file systems, whose used bytes the superblock counts.
func TestMkfs(t *testing.T) {
	for _, tc := range []struct {
		size  int64
		args  string
		whole string
	}{
		{300 << 20, "", ""},
		{300 << 20, "-m single", ""},
		{300 << 20, "-m dup -d dup", ""},
		{5 << 30, "", ""},
		{300 << 20, "-n 65536 -O ^no-holes", ""},
		{300 << 20, "--csum xxhash", "unknown checksum type 1"},
		{300 << 20, "--csum blake2", "unknown checksum type 3"},
	} {
		name := fsystest.Sparse(t, tc.size)
		dir := fsystest.Tree(t, 20, 60000)
		fsystest.Run(t, 0, "", "mkfs.btrfs", slices.Concat([]string{"-q", "--rootdir", dir}, strings.Fields(tc.args), []string{name})...)
		fs, free := fsystest.File(t, name, btrfs.Probe)
		if fs.Whole != tc.whole || (tc.whole == "") != (fs.FreeBytes > tc.size/2) {
			t.Errorf("%q: got %d bytes free, whole because %q, want %q", tc.args, fs.FreeBytes, fs.Whole, tc.whole)
		}
		if tc.whole != "" {
			continue
		}
		fsystest.Litter(t, name, free)
		fsystest.Run(t, 0, "", "btrfs", "check", "--check-data-csum", name)
		to := t.TempDir()
		fsystest.Run(t, 0, "", "btrfs", "restore", name, to)
		same(t, to, dir)
	}
}

// same compares two directories.
func same(t *testing.T, got, want string) {
	t.Helper()
	err := filepath.WalkDir(want, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(want, name)
		a, err := os.ReadFile(filepath.Join(got, rel))
		if err != nil {
			return err
		}
		b, err := os.ReadFile(name)
		if err == nil && !bytes.Equal(a, b) {
			t.Errorf("%s differs", rel)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
