package ext_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/vdisk/fsys"
	"strata/vdisk/fsys/ext"
)

// testImages are file systems of 2500 blocks of 1 KiB by mke2fs 1.47, with
// groups of 1024, whose journals hold what debugfs put there: a file written,
// removed again, a block revoked. One has metadata_csum, 64bit and flex_bg, the
// other is ext3 without a checksum.
var testImages = []struct {
	name   string
	kind   string
	free   string
	blocks []int64 // those that a probe looks at: the superblock is first, the journal's second
}{
	{"csum", "ext4", "59392+990208 2100224+459776", []int64{1, 1027, 2, 3, 4, 5, 10, 1028, 1029, 1030, 1065, 1066, 1067, 1068, 1073, 1074, 1075, 1076}},
	{"plain", "ext3", "1112064+986112 2102272+457728", []int64{1, 8, 2, 3, 1027, 2049, 6, 9, 10, 11, 20, 46, 47, 48, 49, 55, 56, 57, 277, 278}},
}

func testImage(t testing.TB, name string) []byte {
	t.Helper()
	z, err := os.ReadFile(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(z))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestImages(t *testing.T) {
	for _, tc := range testImages {
		t.Run(tc.name, func(t *testing.T) {
			data := testImage(t, tc.name)
			fs, err := fsys.Probe(bytes.NewReader(data), int64(len(data)), ext.Probe)
			if err != nil || fs == nil {
				t.Fatalf("got %v, %v", fs, err)
			}
			var words []string
			for _, x := range extents(t, fs, int64(len(data))) {
				words = append(words, fmt.Sprintf("%d+%d", x.Off, x.Len))
			}
			if got := strings.Join(words, " "); got != tc.free || fs.Whole != "" {
				t.Errorf("free %s, whole because %q, want free %s", got, fs.Whole, tc.free)
			}
			if fs.Type != tc.kind || fs.Label != "small" || fs.UUID != uuid || fs.BlockSize != 1024 || fs.Size != 2500<<10 {
				t.Errorf("got %+v", fs)
			}
		})
	}
}

// A patched image is one of testImages with some blocks replaced.
type patched struct {
	base   []byte
	blocks map[int64][]byte
}

// block returns a block that may be altered.
func (p *patched) block(n int64) []byte {
	b := p.blocks[n]
	if b == nil {
		b = slices.Clone(p.base[n<<10:][:1<<10])
		p.blocks[n] = b
	}
	return b
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) && off < int64(len(p.base)) {
		from := p.base[off : off|1023+1]
		if q := p.blocks[off>>10]; q != nil {
			from = q[off&1023:]
		}
		m := copy(b[n:], from)
		n, off = n+m, off+int64(m)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// FuzzProbe alters blocks that a probe looks at. Each four bytes of edits are
// the index of a block, an offset and a byte to put there; bits of how choose
// the image, and what is signed again.
func FuzzProbe(f *testing.F) {
	var bases [][]byte
	for _, m := range testImages {
		bases = append(bases, testImage(f, m.name))
	}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte{})
	f.Add(uint8(6), []byte{0, 0, 0x60, 0xff, 1, 0, 0x1f, 2})
	f.Add(uint8(7), []byte{1, 0, 0x1f, 4, 0, 0, 0x20, 0, 2, 0, 0x12, 2})
	f.Add(uint8(6), []byte{0, 0, 0x18, 2, 0, 0, 0x14, 0})
	f.Fuzz(func(t *testing.T, how uint8, edits []byte) {
		i := int(how & 1)
		list := testImages[i].blocks
		p := &patched{bases[i], make(map[int64][]byte)}
		for ; len(edits) >= 4; edits = edits[4:] {
			off := int(binary.BigEndian.Uint16(edits[1:])) % 1024
			p.block(list[int(edits[0])%len(list)])[off] = edits[3]
		}
		if how&2 != 0 {
			b := p.block(list[0])
			binary.LittleEndian.PutUint32(b[1020:], crc32c(^uint32(0), b[:1020]))
		}
		if how&4 != 0 && i == 0 {
			b := p.block(list[1])
			clear(b[0xfc:0x100])
			binary.BigEndian.PutUint32(b[0xfc:], crc32c(^uint32(0), b))
		}
		size := int64(len(p.base))
		fs, err := ext.Probe(p, size)
		if err != nil {
			t.Fatal(err)
		}
		if fs == nil {
			return
		}
		free := extents(t, fs, size)
		if fs.Whole != "" && len(free) > 0 {
			t.Fatalf("whole because %q, and free %v", fs.Whole, free)
		}
	})
}

// TestHuge gives a region of many TiB, empty but for a small file system whose
// superblock fills it, and must not take longer for that.
func TestHuge(t *testing.T) {
	for i, want := range []string{"bad checksum of the descriptor of group 3", "the metadata of group 3 lie at block 0"} {
		m := &image{t: t, data: testImage(t, testImages[i].name)}
		log := m.data[testImages[i].blocks[1]<<10:]
		clear(log[0x1c:0x20])
		if i == 0 {
			m.signJournal()
		}
		blocks := uint64(1<<32 - 1)
		if i == 0 {
			blocks = 1 << 38 // 64bit: 256 TiB
		}
		m.set(0x04, uint32(blocks))
		m.set(0x150, uint32(blocks>>32))
		m.set(0x28, uint32(8))
		m.set(0x00, uint32((blocks-1+1023)/1024*8))
		m.sign()
		fs, err := ext.Probe(zeroExtended{bytes.NewReader(m.data)}, int64(blocks<<10))
		if err != nil || fs == nil || fs.Whole != want || fs.Size != int64(blocks<<10) {
			t.Errorf("got %+v, %v, want whole because %q", fs, err, want)
		}
	}
}

// zeroExtended reads zeros after the end.
type zeroExtended struct{ *bytes.Reader }

func (z zeroExtended) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < z.Size() {
		n, _ = z.Reader.ReadAt(p, off)
	}
	clear(p[n:])
	return len(p), nil
}

// BenchmarkProbe probes a file system of 8 GiB, 64 groups, from the page cache.
func BenchmarkProbe(b *testing.B) {
	const size = 8 << 30
	name := mkfs(b, size, strings.Fields("-b 4096 -O "+debian12)...)
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		fs, err := ext.Probe(f, size)
		if err != nil || fs.Whole != "" {
			b.Fatalf("got %+v, %v", fs, err)
		}
		for _, err := range fs.Free() {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
