package exfat_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"strata/vdisk/fsys/exfat"
	"strata/vdisk/fsys/fsystest"
)

// golden are file systems by mkfs.exfat 1.2 -b 32K -c 512 and -c 4096, in
// which exfat-fuse 1.3 made six files and a directory of forty, and deleted two.
var golden = []struct {
	name, uuid string
	cluster    int
	free       string
}{
	{"exfat512", "FF3B-FC35", 512, "75776+6144 103936+15360 180736+1916416"},
	{"exfat4096", "EF5D-FC36", 4096, "86016+8192 118784+16384 344064+1753088"},
}

func image(t testing.TB, name string) []byte {
	return fsystest.Image(t, filepath.Join("testdata", name+".gz"))
}

// sign puts the checksum of the boot region right.
func sign(a *fsystest.Altered) {
	b := make([]byte, 12*512)
	a.ReadAt(b, 0)
	sum := uint32(0)
	for i, c := range b[:11*512] {
		if i != 0x6a && i != 0x6b && i != 0x70 {
			sum = sum<<31 | sum>>1
			sum += uint32(c)
		}
	}
	for off := int64(11 * 512); off < 12*512; off += 4 {
		a.WriteAt(binary.LittleEndian.AppendUint32(nil, sum), off)
	}
}

func TestGolden(t *testing.T) {
	for _, tc := range golden {
		data := image(t, tc.name)
		fs, free := fsystest.Probe(t, bytes.NewReader(data), int64(len(data)), exfat.Probe)
		if got := fsystest.Text(free); got != tc.free || fs.Whole != "" {
			t.Errorf("%s: got free %s, whole because %q, want free %s", tc.name, got, fs.Whole, tc.free)
		}
		if fs.Type != "exfat" || fs.UUID != tc.uuid || fs.Label != "Golden ä" || fs.BlockSize != tc.cluster || fs.Size != int64(len(data)) || !fs.Clean {
			t.Errorf("%s: got %+v", tc.name, fs)
		}
	}
}

func FuzzProbe(f *testing.F) {
	fsystest.Fuzz(f, exfat.Probe, sign, image(f, "exfat512"), image(f, "exfat4096"))
}

// TestDamage changes one thing after another.
func TestDamage(t *testing.T) {
	data := image(t, "exfat4096")
	le := binary.LittleEndian
	table := int64(le.Uint32(data[0x50:])) * 512
	heap := int64(le.Uint32(data[0x58:])) * 512
	root := heap + (int64(le.Uint32(data[0x60:]))-2)*4096
	entry := func(kind byte) int64 {
		for off := root; ; off += 32 {
			if data[off] == kind {
				return off
			}
		}
	}
	bitmap := int64(le.Uint32(data[entry(0x81)+0x14:]))
	bits := heap + (bitmap-2)*4096
	for _, tc := range []struct {
		name  string
		off   int64
		bytes string
		want  string
	}{
		{"mounted", 0x6a, "\x02", "it was not unmounted"},
		{"medium", 0x6a, "\x04", "its medium had errors"},
		{"flags", 0x6a, "\x10", "unknown flags 0x10"},
		{"cleared", 0x6a, "\x08", ""},
		{"second table in use", 0x6a, "\x01", "it has 1 tables"},
		{"TexFAT", 0x6e, "\x02", "it has 2 tables"},
		{"revision", 0x69, "\x02", "unknown revision 0x200 of exFAT"},
		{"FAT", 0x0c, "\x02", "its boot sector is not that of exFAT"},
		{"clusters of 64 MiB", 0x6d, "\x11", "clusters of 1<<17 sectors of 1<<9 bytes"},
		{"too many clusters", 0x5d, "\xff", "65"},
		{"short table", 0x54, "\x01\x00", "a table of 512 bytes for"},
		{"no root", 0x60, "\xff\xff", "a chain of clusters goes on to 0xffff"},
		{"root without an end", table + 4*((root-heap)/4096+2), string(le.AppendUint32(nil, uint32((root-heap)/4096+2))), "a chain of clusters goes on to"},
		{"no bitmap", entry(0x81), "\x01", "its root directory has no bitmap or no table of letters"},
		{"no table of letters", entry(0x82), "\x02", "its root directory has no bitmap or no table of letters"},
		{"second bitmap", entry(0x82), "\x81", "it has more than one bitmap"},
		{"unknown entry", entry(0x83), "\x84", "unknown entry 0x84 of its root directory"},
		{"unknown benign entry", entry(0x83), "\xa9", ""},
		{"short bitmap", entry(0x81) + 0x18, "\x02", "a bitmap of 2 bytes for"},
		{"bitmap free", bits + (bitmap-2)/8, "\x00", "its own cluster"},
	} {
		a := fsystest.Alter(data)
		a.WriteAt([]byte(tc.bytes), tc.off)
		sign(a)
		fs, _ := fsystest.Probe(t, a, int64(len(data)), exfat.Probe)
		if !strings.HasPrefix(fs.Whole, tc.want) || tc.want == "" && fs.Whole != "" {
			t.Errorf("%s: got whole because %q, want %q", tc.name, fs.Whole, tc.want)
		}
	}
	a := fsystest.Alter(data)
	a.WriteAt([]byte("x"), 513)
	if fs, _ := fsystest.Probe(t, a, int64(len(data)), exfat.Probe); fs.Whole != "bad checksum of its boot region" {
		t.Errorf("boot region: got whole because %q", fs.Whole)
	}
	if fs, _ := fsystest.Probe(t, bytes.NewReader(data), int64(len(data))-512, exfat.Probe); !strings.HasPrefix(fs.Whole, "the file system is of") {
		t.Errorf("cut: got whole because %q", fs.Whole)
	}
}

var freeLine = regexp.MustCompile(`(?i)free clusters[^0-9]*(\d+)`)

// TestMkfs compares new file systems with what dump.exfat counts.
func TestMkfs(t *testing.T) {
	fsystest.Need(t, "dump.exfat")
	for _, tc := range []struct {
		size int64
		args string
	}{
		{3 << 20, "-b 32K -c 512"},
		{20 << 20, "-c 1024"},
		{64 << 20, ""},
		{300 << 20, "-c 128K"},
		{1 << 30, ""},
	} {
		name := fsystest.Sparse(t, tc.size)
		fsystest.Run(t, 0, "", "mkfs.exfat", slices.Concat(strings.Fields(tc.args), []string{name})...)
		m := freeLine.FindStringSubmatch(fsystest.Run(t, 0, "", "dump.exfat", name))
		if m == nil {
			t.Fatal("dump.exfat counts no clusters")
		}
		want, _ := strconv.ParseInt(m[1], 10, 64)
		fs, _ := fsystest.File(t, name, exfat.Probe)
		if fs.Whole != "" || fs.FreeBytes != want*int64(fs.BlockSize) || want == 0 {
			t.Errorf("%s: got %d bytes free, whole because %q, want %d clusters of %d", fmt.Sprint(tc.args), fs.FreeBytes, fs.Whole, want, fs.BlockSize)
		}
	}
}
