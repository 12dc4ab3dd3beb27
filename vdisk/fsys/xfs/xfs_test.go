package xfs_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"strata/vdisk/fsys/fsystest"
	"strata/vdisk/fsys/xfs"
)

// golden are file systems of 24 MiB in one group by mkfs.xfs 6.1, which makes
// them as small for its own tests only: version 5 of blocks of 1 KiB, in which
// Linux 6.18 made six hundred files and deleted every other one, so that the tree
// has two levels, and version 4 of 512 bytes with a few files.
var golden = []struct {
	name, uuid string
	block      int
	extents    int
	free       int64 // blocks, by xfs_db
}{
	{"xfs5", "71e99e00-e3ed-4df1-9585-acbefe4701dd", 1024, 304, 19735},
	{"xfs4", "a709e935-627c-45fe-91e3-b68aa15acd38", 512, 2, 44243},
}

func image(t testing.TB, name string) []byte {
	return fsystest.Image(t, filepath.Join("testdata", name+".gz"))
}

// sum puts the checksum of n bytes at off, which is at in them, right.
func sum(a *fsystest.Altered, off int64, n, at int) {
	b := make([]byte, n)
	a.ReadAt(b, off)
	clear(b[at : at+4])
	a.WriteAt(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), off+int64(at))
}

// sign puts the checksums of the superblock, the header of the group and the
// root of its tree right.
func sign(a *fsystest.Altered) {
	sum(a, 0, 512, 0xe0)
	sum(a, 512, 512, 0xd8)
	var root [4]byte
	a.ReadAt(root[:], 512+0x10)
	sum(a, int64(binary.BigEndian.Uint32(root[:]))<<10, 1024, 0x34)
}

func TestGolden(t *testing.T) {
	for _, tc := range golden {
		data := image(t, tc.name)
		fs, free := fsystest.Probe(t, bytes.NewReader(data), int64(len(data)), xfs.Probe)
		if len(free) != tc.extents || fs.FreeBytes != tc.free*int64(tc.block) || fs.Whole != "" {
			t.Errorf("%s: got %d extents, %d blocks free, whole because %q, want %d, %d", tc.name, len(free), fs.FreeBytes/int64(tc.block), fs.Whole, tc.extents, tc.free)
		}
		if fs.Type != "xfs" || fs.UUID != tc.uuid || fs.Label != "Golden" || fs.BlockSize != tc.block || fs.Size != int64(len(data)) || !fs.Clean {
			t.Errorf("%s: got %+v", tc.name, fs)
		}
	}
}

func FuzzProbe(f *testing.F) {
	fsystest.Fuzz(f, xfs.Probe, sign, image(f, "xfs5"), image(f, "xfs4"))
}

// TestDamage changes one thing after another.
func TestDamage(t *testing.T) {
	data := image(t, "xfs5")
	be := binary.BigEndian
	log := int64(be.Uint64(data[0x30:])) << 10
	root := int64(be.Uint32(data[512+0x10:])) << 10
	const room = (1024 - 0x38) / 12
	leaf := int64(be.Uint32(data[root+0x38+room*8:])) << 10
	// The last record of the log begins at the last sector with its magic and
	// the cycle of the first one.
	last := int64(0)
	for off := int64(0); off < int64(be.Uint32(data[0x60:]))<<10; off += 512 {
		if be.Uint32(data[log+off:]) == 0xfeedbabe && be.Uint32(data[log+off+4:]) == be.Uint32(data[log+4:]) {
			last = log + off
		}
	}
	for _, tc := range []struct {
		name  string
		off   int64
		bytes string
		want  string
	}{
		{"version", 0x65, "\xb6", "unknown version 6 of XFS"},
		{"in progress", 0x7e, "\x01", "mkfs.xfs has not finished it"},
		{"shared versions", 0x64, "\xb6", "unknown features 0x200 of its version"},
		{"features2", 0xc8, "\x01", "unknown features 0x1000000 of the second kind"},
		{"has to be repaired", 0xdb, "\x1b", "it has to be repaired"},
		{"incompat", 0xd8, "\x80", "unknown incompatible features 0x80000000"},
		{"zones", 0xda, "\x02", "unknown incompatible features 0x200"},
		{"rocompat", 0xd4, "\x80", "unknown read-only compatible features 0x80000000"},
		{"log", 0xdf, "\x02", "unknown features 0x2 of its log"},
		{"block size", 0x78, "\x0b", "blocks of 1024 bytes"},
		{"sector size", 0x67, "\x01", "sectors of 513 bytes"},
		{"groups", 0x5b, "\x02", "24576 blocks in 2 groups of 24576"},
		{"group bits", 0x7c, "\x09", "groups of 24576 blocks are numbered in 9 bits"},
		{"other log", 0x30, "\x00\x00\x00\x00\x00\x00\x00\x00", "its log is on another device"},
		{"log elsewhere", 0x30, "\x7f", "its log is of"},
		{"group magic", 512, "XAGI", "bad header of group 0"},
		{"group number", 512 + 0x0b, "\x01", "bad header of group 0"},
		{"group counter", 512 + 0x37, "\xff", "group 0 has"},
		{"levels", 512 + 0x1f, "\x00", "the tree of group 0 has 0 levels"},
		{"root", 512 + 0x10, "\x7f", "the tree of group 0 has block"},
		{"fewer levels", 512 + 0x1f, "\x01", "bad block"},
		{"root magic", root, "XXXX", "bad block"},
		{"root place", root + 0x17, "\x01", "bad checksum of the tree of group 0"},
		{"root order", root + 0x38, "\x00\x00\x00\x00", "the tree of group 0 is out of order at block 0"},
		{"leaf", leaf + 100, "\x55", "bad checksum of the tree of group 0"},
		{"unmounted", last + 512 + 9, "\x00", "its log has to be replayed"},
		{"more operations", last + 0x2b, "\x02", "its log has to be replayed"},
		{"other lsn", last + 0x17, "\xfe", "its log has to be replayed"},
		{"other file system", last + 0x130, "\xfe", "its log has to be replayed"},
		{"torn", log + 512*7, "\x00\x00\x00\x77", "its log has to be replayed"},
		{"being written", last + 1024, "\x00\x00\x00\x01", "its log has to be replayed"},
	} {
		a := fsystest.Alter(data)
		a.WriteAt([]byte(tc.bytes), tc.off)
		if !strings.Contains(tc.want, "checksum") {
			sign(a)
		}
		fs, _ := fsystest.Probe(t, a, int64(len(data)), xfs.Probe)
		if !strings.HasPrefix(fs.Whole, tc.want) {
			t.Errorf("%s: got whole because %q, want %q", tc.name, fs.Whole, tc.want)
		}
	}
	for off, want := range map[int64]string{0x6c: "bad checksum of the superblock", 512 + 0x60: "bad checksum of the header of group 0"} {
		a := fsystest.Alter(data)
		a.WriteAt([]byte("x"), off)
		if fs, _ := fsystest.Probe(t, a, int64(len(data)), xfs.Probe); fs.Whole != want {
			t.Errorf("got whole because %q, want %q", fs.Whole, want)
		}
	}
	if fs, _ := fsystest.Probe(t, bytes.NewReader(data), int64(len(data))-512, xfs.Probe); !strings.HasPrefix(fs.Whole, "the file system is of") {
		t.Errorf("cut: got whole because %q", fs.Whole)
	}
}

var freeLine = regexp.MustCompile(`freeblks = (\d+)`)

// TestMkfs compares new file systems with what xfs_db reads.
func TestMkfs(t *testing.T) {
	fsystest.Need(t, "xfs_db")
	for _, tc := range []struct {
		size int64
		args string
	}{
		{320 << 20, ""},
		{600<<20 + 12345*512, "-b size=1024"},
		{320 << 20, "-b size=512 -m crc=0"},
		{1 << 30, "-b size=2048 -s size=2048 -d agcount=7"},
		{1 << 40, "-m rmapbt=1"},
		{1 << 30, "-l su=32k -d su=64k,sw=4"},
		{1 << 30, "-m crc=0 -l version=1"},
	} {
		name := fsystest.Sparse(t, tc.size)
		fsystest.Run(t, 0, "", "mkfs.xfs", slices.Concat([]string{"-q", "-K"}, strings.Fields(tc.args), []string{name})...)
		fs, _ := fsystest.File(t, name, xfs.Probe)
		groups := regexp.MustCompile(`agcount = (\d+)`).FindStringSubmatch(fsystest.Run(t, 0, "", "xfs_db", "-r", "-c", "sb 0", "-c", "p agcount", name))
		n, _ := strconv.Atoi(groups[1])
		args := []string{"-r"}
		for g := range n {
			args = append(args, "-c", fmt.Sprint("agf ", g), "-c", "p freeblks")
		}
		want := int64(0)
		for _, m := range freeLine.FindAllStringSubmatch(fsystest.Run(t, 0, "", "xfs_db", append(args, name)...), -1) {
			free, _ := strconv.ParseInt(m[1], 10, 64)
			want += free
		}
		if fs.Whole != "" || fs.FreeBytes != want*int64(fs.BlockSize) || want == 0 {
			t.Errorf("%q: got %d bytes free, whole because %q, want %d blocks of %d", tc.args, fs.FreeBytes, fs.Whole, want, fs.BlockSize)
		}
	}
}
