package ntfs_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"strata/vdisk/fsys/fsystest"
	"strata/vdisk/fsys/ntfs"
)

// golden are file systems by mkntfs 2022.10.3 -c 512 and -c 4096, in which
// ntfs-3g made six files, a directory of forty and a pagefile.sys, and deleted
// two. The table of upper-case letters, which nobody reads here, has been
// cleared.
var golden = []struct {
	name         string
	uuid         string
	cluster      int
	free, paging string
}{
	{"ntfs512", "39559D0D4BD5DFD0", 512, "8704+7680 142336+659968 1221120+15360 1295360+1849856 5246464+6144 5287424+1003520", "1254912+40448"},
	{"ntfs4096", "66B06F334064F05C", 4096, "12288+4096 143360+655360 1220608+8192 1253376+16384 1355776+1785856 5242880+1044480", "1314816+40960"},
}

func image(t testing.TB, name string) []byte {
	return fsystest.Image(t, filepath.Join("testdata", name+".gz"))
}

func TestGolden(t *testing.T) {
	for _, tc := range golden {
		data := image(t, tc.name)
		fs, free := fsystest.Probe(t, bytes.NewReader(data), int64(len(data)), ntfs.Probe)
		if got := fsystest.Text(free); got != tc.free || fs.Whole != "" {
			t.Errorf("%s: got free %s, whole because %q, want free %s", tc.name, got, fs.Whole, tc.free)
		}
		if got := fsystest.Text(fs.Paging); got != tc.paging {
			t.Errorf("%s: got paging %s, want %s", tc.name, got, tc.paging)
		}
		if fs.Type != "ntfs" || fs.UUID != tc.uuid || fs.Label != "Golden ä" || fs.BlockSize != tc.cluster || fs.Size > int64(len(data)) || fs.Size < int64(len(data)-8192) {
			t.Errorf("%s: got %+v", tc.name, fs)
		}
	}
}

func FuzzProbe(f *testing.F) {
	fsystest.Fuzz(f, ntfs.Probe, nil, image(f, "ntfs512"), image(f, "ntfs4096"))
}

// find returns the place of the n-th time that some bytes are in data, from 0.
func find(t *testing.T, data []byte, n int, what string) int64 {
	t.Helper()
	at := 0
	for ; n >= 0; n-- {
		i := bytes.Index(data[at:], []byte(what))
		if i < 0 {
			t.Fatalf("%q is not there", what)
		}
		at += i + 1
	}
	return int64(at - 1)
}

// mft is where the file table of the golden images is.
const mft = 16384

// utf16 returns a name as it is in a directory entry.
func utf16(s string) string {
	var b []byte
	for _, c := range s {
		b = binary.LittleEndian.AppendUint16(b, uint16(c))
	}
	return string(b)
}

// log makes the restart pages of a log of version 1.1.
func log(lsn uint64, client, flags uint16, major uint16) string {
	b := make([]byte, 4096)
	copy(b, "RSTR")
	le := binary.LittleEndian
	le.PutUint16(b[4:], 0x1e)
	le.PutUint16(b[6:], 9)
	le.PutUint32(b[0x10:], 4096)
	le.PutUint32(b[0x14:], 4096)
	le.PutUint16(b[0x18:], 0x30)
	le.PutUint16(b[0x1a:], 1)
	le.PutUint16(b[0x1c:], major)
	le.PutUint64(b[0x30:], lsn)
	le.PutUint16(b[0x3c:], client)
	le.PutUint16(b[0x3e:], flags)
	return string(b)
}

// TestState puts the volume in all states that it can be in.
func TestState(t *testing.T) {
	data := image(t, "ntfs4096")
	log0 := find(t, data, 0, strings.Repeat("\xff", 8192)) / 4096 * 4096
	info := find(t, data, 0, "\x00\x00\x00\x00\x00\x00\x00\x00\x03\x01\x00\x00")
	paging := find(t, data, 0, utf16("pagefile.sys"))
	record := int64(mft + (paging-mft)/1024*1024)
	body := find(t, data, 0, strings.Repeat("p", 4096))
	shadow := "\x6b\x87\x08\x38\x76\xc1\x48\x4e\xb7\xae\x04\x04\x6e\x6c\xc7\x52"
	if record < mft {
		t.Fatal("the file table is not where it should be")
	}
	type edit struct {
		off   int64
		bytes string
	}
	hibernate := edit{paging, utf16("HiberFil.sys")}
	for _, tc := range []struct {
		name  string
		want  string
		edits []edit
	}{
		{"dirty", "it was not unmounted", []edit{{info + 10, "\x01"}}},
		{"flags of Windows", "", []edit{{info + 10, "\x88"}}},
		{"to be upgraded", "unfinished work, flags 0x4", []edit{{info + 10, "\x04"}}},
		{"new version", "unknown version 4.1 of NTFS", []edit{{info + 8, "\x04"}}},
		{"log of garbage", "its log has to be replayed", []edit{{log0 + 100, "x"}}},
		{"log of odd bytes", "its log has to be replayed", []edit{{log0 + 5000, "\xfe"}}},
		{"log in use", "its log has to be replayed", []edit{{log0, log(5, 0, 0, 1) + log(5, 0, 0, 1)}}},
		{"log without clients", "", []edit{{log0, log(5, 0xffff, 0, 1) + log(5, 0xffff, 0, 1)}}},
		{"log marked clean", "", []edit{{log0, log(5, 0, 2, 1) + log(5, 0, 2, 1)}}},
		{"log clean once", "its log has to be replayed", []edit{{log0, log(5, 0xffff, 0, 1) + log(6, 0, 0, 1)}}},
		{"log clean at last", "", []edit{{log0, log(7, 0xffff, 0, 1) + log(6, 0, 0, 1)}}},
		{"log of one page", "its log has to be replayed", []edit{{log0, log(5, 0xffff, 0, 1)}}},
		{"log torn", "its log has to be replayed", []edit{{log0, log(5, 0xffff, 0, 1) + log(5, 0xffff, 0, 1)}, {log0 + 1022, "x"}}},
		{"log of a fast start", "unknown version 2.1 of its log", []edit{{log0, log(5, 0xffff, 0, 2) + log(5, 0xffff, 0, 2)}}},
		{"shadow copies", "it has shadow copies", []edit{{0x1e00, shadow}, {0x1e30, "\x00\x40"}}},
		{"shadow copies elsewhere", "it has shadow copies", []edit{{0x1e00, shadow}, {0x1e50, "other"}}},
		{"no shadow copies", "", []edit{{0x1e00, shadow}}},
		{"asleep", "it holds the memory of a machine that is asleep", []edit{hibernate, {body, "HIBR"}}},
		{"odd hibernation", "it holds the memory of a machine that is asleep", []edit{hibernate}},
		{"awake", "", []edit{hibernate, {body, "wake"}}},
		{"never asleep", "", []edit{hibernate, {body, "\x00\x00\x00\x00"}}},
		{"torn record", "record 5 of its file table was not written as a whole", []edit{{mft + 5*1024 + 510, "xx"}}},
		{"damaged record", "record 5 of its file table is damaged", []edit{{mft + 5*1024, "BAAD"}}},
		{"record without an end", "file 5 has a bad attribute 0x10", []edit{{mft + 5*1024 + 0x18, "\x3c\x00\x00\x00"}}},
		{"no bitmap", "there is no file 6", []edit{{mft + 6*1024 + 0x16, "\x00"}}},
		{"no cluster size", "clusters of 0x3 sectors of 512 bytes", []edit{{0x0d, "\x03"}}},
		{"no record size", "records of 1 bytes", []edit{{0x40, "\x00"}}},
		{"no file table", "its file table is at cluster 1000000 of 1535", []edit{{0x30, "\x40\x42\x0f"}}},
		{"large", "the file system is of 6295552 bytes, its region of 6291456", []edit{{0x28, "\x08\x30"}}},
	} {
		a := fsystest.Alter(data)
		for _, e := range tc.edits {
			a.WriteAt([]byte(e.bytes), e.off)
		}
		fs, _ := fsystest.Probe(t, a, int64(len(data)), ntfs.Probe)
		if fs.Whole != tc.want {
			t.Errorf("%s: got whole because %q, want %q", tc.name, fs.Whole, tc.want)
		}
	}
}

// TestBitmap frees what is in use, in the bitmap alone.
func TestBitmap(t *testing.T) {
	data := image(t, "ntfs4096")
	body := find(t, data, 0, strings.Repeat("p", 4096)) / 4096
	// The bitmap has these words, and no other place does.
	var words []byte
	used := bytes.Repeat([]byte{0xff}, len(data)/4096/8+1)
	for _, f := range strings.Fields(golden[1].free) {
		off, n, _ := strings.Cut(f, "+")
		from, _ := strconv.ParseInt(off, 10, 64)
		length, _ := strconv.ParseInt(n, 10, 64)
		for c := from / 4096; c < (from+length)/4096; c++ {
			used[c/8] &^= 1 << (c % 8)
		}
	}
	words = used[:1535/8]
	at := find(t, data, 0, string(words))
	a := fsystest.Alter(data)
	a.WriteAt([]byte{words[body/8] &^ (1 << (body % 8))}, at+body/8)
	fs, _ := fsystest.Probe(t, a, int64(len(data)), ntfs.Probe)
	if want := fmt.Sprintf("has cluster %d, which is free", body); !strings.Contains(fs.Whole, want) {
		t.Errorf("got whole because %q, want %q", fs.Whole, want)
	}
}

var freeLine = regexp.MustCompile(`Free Clusters: (\d+)`)

// TestMkntfs compares with what ntfsinfo counts.
func TestMkntfs(t *testing.T) {
	fsystest.Need(t, "ntfsinfo")
	fsystest.Need(t, "ntfscp")
	for _, tc := range []struct {
		size int64
		args string
	}{
		{16 << 20, "-c 512"},
		{40 << 20, "-c 1024"},
		{100 << 20, ""},
		{300 << 20, "-c 65536"},
		{64 << 20, "-s 4096 -c 4096"},
		{100 << 20, "-c 524288"},
	} {
		t.Run(fmt.Sprint(tc.size>>20, " MiB ", tc.args), func(t *testing.T) {
			t.Parallel()
			name := fsystest.Sparse(t, tc.size)
			fsystest.Run(t, 0, "", "mkntfs", slices.Concat([]string{"-q", "-F", "-f"}, strings.Fields(tc.args), []string{name})...)
			file := filepath.Join(t.TempDir(), "file")
			for i := range 5 {
				fsystest.Noise(t, file, i*20000)
				fsystest.Run(t, 0, "", "ntfscp", "-f", name, file, fmt.Sprint("file", i))
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			m := freeLine.FindStringSubmatch(fsystest.Run(t, 0, "", "ntfsinfo", "-f", "-m", name))
			if m == nil {
				t.Fatal("ntfsinfo counts no clusters")
			}
			want, _ := strconv.ParseInt(m[1], 10, 64)
			fs, free := fsystest.File(t, name, ntfs.Probe)
			if fs.Whole != "" || fs.FreeBytes != want*int64(fs.BlockSize) || len(free) == 0 {
				t.Errorf("got %d bytes free, whole because %q, want %d clusters of %d", fs.FreeBytes, fs.Whole, want, fs.BlockSize)
			}
		})
	}
}
