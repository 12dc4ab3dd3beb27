package ext_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"strata/vdisk/fsys"
	"strata/vdisk/fsys/ext"
)

// crc32c continues a checksum as ext4 does, without inversions.
func crc32c(sum uint32, b []byte) uint32 {
	return ^crc32.Update(^sum, crc32.MakeTable(crc32.Castagnoli), b)
}

// An image is a file system in memory that a test alters.
type image struct {
	t     testing.TB
	data  []byte
	dump  string // what dumpe2fs says
	spare []byte // data of the last clone
	log   int64  // offset of the journal, once it was looked for
}

func load(t testing.TB, name string) *image {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return &image{t: t, data: data, dump: run(t, 0, "dumpe2fs", name)}
}

// clone returns a copy, which ends the use of the last one.
func (m *image) clone(t testing.TB) *image {
	m.spare = append(m.spare[:0], m.data...)
	return &image{t: t, data: m.spare, dump: m.dump}
}

func (m *image) super() []byte { return m.data[1024:2048] }

// set alters the superblock at an offset, with integers of 1, 2 and 4 bytes.
func (m *image) set(off int, v any) {
	m.t.Helper()
	if _, err := binary.Encode(m.super()[off:], binary.LittleEndian, v); err != nil {
		m.t.Fatal(err)
	}
}

// sign computes the superblock's checksum again.
func (m *image) sign() {
	binary.LittleEndian.PutUint32(m.super()[1020:], crc32c(^uint32(0), m.super()[:1020]))
}

func (m *image) blockSize() int64 { return 1024 << binary.LittleEndian.Uint32(m.super()[0x18:]) }

// block returns the bytes of a block.
func (m *image) block(n int64) []byte { return m.data[n*m.blockSize():][:m.blockSize()] }

// at returns the number that dumpe2fs prints for a group behind a word.
func (m *image) at(group int, word string) int64 {
	m.t.Helper()
	_, text, ok := strings.Cut(m.dump, "\nGroup "+strconv.Itoa(group)+":")
	match := regexp.MustCompile(word + ` (\d+)`).FindStringSubmatch(text)
	if !ok || match == nil {
		m.t.Fatalf("dumpe2fs says nothing of %s in group %d", word, group)
	}
	n, err := strconv.ParseInt(match[1], 10, 64)
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// journal returns the offset of the journal's superblock. The journals of
// these images are in one piece.
func (m *image) journal() int64 {
	m.t.Helper()
	if m.log > 0 {
		return m.log
	}
	for off := int64(0); off < int64(len(m.data)); off += m.blockSize() {
		if bytes.HasPrefix(m.data[off:], []byte("\xc0\x3b\x39\x98\x00\x00\x00\x04")) {
			m.log = off
			return off
		}
	}
	m.t.Fatal("there is no journal")
	return 0
}

// journalInode returns the bytes of inode 8, of 256.
func (m *image) journalInode() []byte {
	return m.data[m.at(0, "Inode table at")*m.blockSize()+7*256:][:256]
}

// signJournal computes the checksum of the journal's superblock again.
func (m *image) signJournal() {
	b := m.data[m.journal():][:1024]
	clear(b[0xfc:0x100])
	binary.BigEndian.PutUint32(b[0xfc:], crc32c(^uint32(0), b))
}

// probe probes the image and checks what must hold for every answer.
func (m *image) probe() (*fsys.FileSystem, []fsys.Extent) {
	m.t.Helper()
	fs, err := ext.Probe(bytes.NewReader(m.data), int64(len(m.data)))
	if err != nil {
		m.t.Fatal(err)
	}
	if fs == nil {
		return nil, nil
	}
	return fs, extents(m.t, fs, int64(len(m.data)))
}

// TestWhole alters images so that their free maps are not certain.
func TestWhole(t *testing.T) {
	csum := load(t, mkfs(t, 6<<20, strings.Fields("-b 1024 -g 2048 -N 96 -J size=1 -O "+debian12)...))
	plain := load(t, mkfs(t, 6<<20, strings.Fields("-b 1024 -g 2048 -N 96 -O ^flex_bg,sparse_super,filetype")...))
	lazy := load(t, mkfs(t, 6<<20, strings.Fields("-b 1024 -g 2048 -N 96 -J size=1 -O uninit_bg,sparse_super,filetype,has_journal,^extent")...))
	bigalloc := load(t, mkfs(t, 20<<20, strings.Fields("-b 1024 -C 4096 -O extent,bigalloc")...))
	for _, tc := range []struct {
		name  string
		base  *image
		alter func(*image)
		whole string // "-" if it is not ext any more
	}{
		{"as it was", csum, func(m *image) { m.sign() }, ""},
		{"incompatible bit", csum, func(m *image) { m.super()[0x63] |= 0x80; m.sign() }, "unknown incompatible features 0x80000000"},
		{"incompatible bit, not signed", csum, func(m *image) { m.super()[0x63] |= 0x80 }, "unknown incompatible features 0x80000000"},
		{"compression", csum, func(m *image) { m.super()[0x60] |= 1; m.sign() }, "unknown incompatible features 0x1"},
		{"dirdata", csum, func(m *image) { m.super()[0x61] |= 0x10; m.sign() }, "unknown incompatible features 0x1000"},
		{"read-only bit", csum, func(m *image) { m.super()[0x67] |= 0x40; m.sign() }, "unknown read-only compatible features 0x40000000"},
		{"snapshots", plain, func(m *image) { m.super()[0x64] |= 0x80 }, "unknown read-only compatible features 0x80"},
		{"shared blocks", plain, func(m *image) { m.super()[0x65] |= 0x40 }, "unknown read-only compatible features 0x4000"},
		{"compatible bit", csum, func(m *image) { m.super()[0x5f] |= 0x40; m.sign() }, ""},
		{"journal device", csum, func(m *image) { m.super()[0x60] |= 8; m.sign() }, "journal of another file system"},
		{"superblock's checksum", csum, func(m *image) { m.super()[0x30]++ }, "bad checksum of the superblock"},
		{"checksum type", csum, func(m *image) { m.super()[0x175] = 2; m.sign() }, "unknown checksum type 2"},
		{"seed", csum, func(m *image) { m.super()[0x270]++; m.sign() }, "bad checksum of the descriptor of group 0"},
		{"errors", csum, func(m *image) { m.super()[0x3a] |= 2; m.sign() }, "marked with errors"},
		{"not unmounted", plain, func(m *image) { m.super()[0x3a] &^= 1 }, "not unmounted cleanly"},
		{"needs recovery, no journal", plain, func(m *image) { m.super()[0x60] |= 4 }, "needs recovery and has no journal"},
		{"magic", csum, func(m *image) { m.super()[0x38]++ }, "-"},
		{"revision", csum, func(m *image) { m.super()[0x4c] = 2 }, "-"},
		{"block size", csum, func(m *image) { m.super()[0x18] = 7 }, "-"},
		{"other block size", csum, func(m *image) { m.super()[0x18] = 2; m.sign() }, "6144 blocks from block 1"},
		{"first block", plain, func(m *image) { m.super()[0x14] = 0 }, "from block 0"},
		{"no blocks", plain, func(m *image) { m.set(4, uint32(0)) }, "0 blocks"},
		{"one more block", plain, func(m *image) { m.set(4, uint32(6145)) }, "the file system is of 6292480 bytes, its region of 6291456"},
		{"16 TiB", csum, func(m *image) { m.set(0x150, uint32(4)); m.set(0, uint32(8388611*32)); m.sign() }, "the file system is of 17592192335872 bytes"},
		{"2^64 blocks", csum, func(m *image) { m.set(0x150, ^uint32(0)); m.sign() }, "18446744069414590464 blocks"},
		{"groups of 8", plain, func(m *image) { m.set(0x20, uint32(8)); m.set(0x24, uint32(8)) }, "groups of 8 blocks"},
		{"no group", plain, func(m *image) { m.set(0x20, uint32(0)) }, "groups of 0 blocks"},
		{"large groups", plain, func(m *image) { m.set(0x20, uint32(8200)) }, "groups of 8200 blocks"},
		{"odd groups", plain, func(m *image) { m.set(0x20, uint32(8191)) }, "groups of 8191 blocks"},
		{"inode size", plain, func(m *image) { m.set(0x58, uint16(200)) }, "inodes of 200 bytes"},
		{"no inodes", plain, func(m *image) { m.set(0x28, uint32(0)) }, "in 3 groups of 0"},
		{"other inodes", plain, func(m *image) { m.super()[0]++ }, "inodes in 3 groups"},
		{"descriptor size", csum, func(m *image) { m.set(0xfe, uint16(72)); m.sign() }, "descriptors of 72 bytes"},
		{"clusters", bigalloc, func(m *image) { m.set(0x1c, uint32(40)) }, "clusters of 1024<<40 bytes"},
		{"journal elsewhere", csum, func(m *image) { m.set(0xe4, uint32(0x801)); m.sign() }, "on another device"},
		{"no journal inode", csum, func(m *image) { m.set(0xe0, uint32(0)); m.sign() }, "on another device"},
		{"wrong journal inode", csum, func(m *image) { m.set(0xe0, uint32(2)); m.sign() }, "inode 2 is not a file"},
		{"journal inode outside", csum, func(m *image) { m.set(0xe0, ^uint32(0)); m.sign() }, "there is no inode 4294967295"},

		{"descriptor's checksum", csum, func(m *image) { m.block(2)[64+0x10]++ }, "bad checksum of the descriptor of group 1"},
		{"descriptor's checksum, high", csum, func(m *image) { m.block(2)[64+0x3e]++ }, "bad checksum of the descriptor of group 1"},
		{"descriptor's checksum, lazy", lazy, func(m *image) { m.block(2)[64+0x10]++ }, "bad checksum of the descriptor of group 2"},
		{"bitmap's checksum", csum, func(m *image) { m.block(m.at(0, "Block bitmap at"))[200] ^= 1 }, "bad checksum of the block bitmap of group 0"},
		{"bitmap's count", plain, func(m *image) { m.block(m.at(1, "Block bitmap at"))[200] ^= 1 }, "group 1 has"},
		{"count", plain, func(m *image) { m.block(2)[32+0x0c]-- }, "group 1 has"},
		{"count, lazy", lazy, func(m *image) { m.block(m.at(0, "Block bitmap at"))[255] ^= 1 }, "group 0 has"},
		{"bitmap elsewhere", plain, func(m *image) { m.block(2)[32] += 0x80; m.block(2)[33] += 0x20 }, "the metadata of group 1 lie at"},
		{"bitmap at 0", plain, func(m *image) { clear(m.block(2)[32:36]) }, "the metadata of group 1 lie at block 0"},
		{"inodes past the end", plain, func(m *image) { m.block(2)[64+8], m.block(2)[64+9] = 0xff, 0x4f }, "the metadata of group 2 lie at"},
		{"own metadata free", plain, func(m *image) {
			at := m.at(2, "Block bitmap at")
			b := m.block(at)
			i := at - 1 - 2*2048 // bits of a group count from block 1
			b[i/8] &^= 1 << (i % 8)
			b[200] |= 1
		}, "group 2 has its own metadata as free"},

		{"journal's magic", csum, func(m *image) { m.data[m.journal()]++ }, "the journal has no superblock"},
		{"journal's block size", csum, func(m *image) { m.data[m.journal()+0x0e]++ }, "the journal has blocks of 1280 bytes"},
		{"journal's length", csum, func(m *image) { m.data[m.journal()+0x11] = 1 }, "the journal has a log"},
		{"journal's first", csum, func(m *image) { m.data[m.journal()+0x17] = 0 }, "the journal has a log from block 0"},
		{"journal's errors", csum, func(m *image) { m.data[m.journal()+0x23] = 5 }, "the journal is marked with errors"},
		{"journal's features", csum, func(m *image) { m.data[m.journal()+0x2b] |= 0x40 }, "unknown features 0x40 of the journal"},
		{"journal's read-only features", csum, func(m *image) { m.data[m.journal()+0x2f] = 1 }, "unknown read-only features 0x1 of the journal"},
		{"journal's checksum", csum, func(m *image) { m.data[m.journal()+0x2b] |= 0x10 }, "bad checksum of the journal"},
		{"journal's inode", csum, func(m *image) { m.journalInode()[0x24]++ }, "bad checksum of inode 8"},
		{"journal's block map", lazy, func(m *image) { clear(m.journalInode()[0x28+4*12 : 0x28+4*13]) }, "the journal has a hole at block 12"},
		{"journal's block map, wild", lazy, func(m *image) { m.journalInode()[0x28+3]++ }, "the journal has a block at"},
		{"journal's block twice", lazy, func(m *image) {
			b := m.journalInode()[0x28:]
			copy(b[4:8], b[:4])
		}, "twice"},
		{"no recovery, no blocks of the log needed", csum, func(m *image) { m.super()[0x60] |= 4; m.sign() }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := tc.base.clone(t)
			tc.alter(m)
			fs, free := m.probe()
			switch {
			case tc.whole == "-":
				if fs != nil {
					t.Fatalf("got %+v, want nothing", fs)
				}
			case fs == nil:
				t.Fatal("got nothing")
			case tc.whole == "" && fs.Whole != "":
				t.Fatalf("whole because %q", fs.Whole)
			case !strings.Contains(fs.Whole, tc.whole):
				t.Fatalf("whole because %q, want %q", fs.Whole, tc.whole)
			case tc.whole != "" && len(free) > 0:
				t.Fatalf("free %v", free)
			case tc.whole == "" && len(free) == 0:
				t.Fatal("nothing is free")
			}
		})
	}
}

// TestSizes cuts the region short and makes it longer.
func TestSizes(t *testing.T) {
	m := load(t, mkfs(t, 6<<20, strings.Fields("-b 1024 -g 2048 -N 96 -J size=1 -O "+debian12)...))
	_, want := m.probe()
	m.data = append(m.data, make([]byte, 12345)...)
	fs, free := m.probe()
	if fs.Whole != "" || fs.Size != 6<<20 || !slices.Equal(free, want) {
		t.Errorf("longer region: %+v, free %v, want %v", fs, free, want)
	}
	for _, n := range []int64{6<<20 - 1, 1 << 20, 2048} {
		fs, err := ext.Probe(bytes.NewReader(m.data), n)
		if err != nil || fs == nil || !strings.Contains(fs.Whole, "its region of") {
			t.Errorf("region of %d: %+v, %v", n, fs, err)
		}
	}
	if fs, err := ext.Probe(bytes.NewReader(m.data), 2047); fs != nil || err != nil {
		t.Errorf("region of 2047: %+v, %v", fs, err)
	}
}

// failing fails the nth read.
type failing struct {
	r    io.ReaderAt
	left int
}

var errBroken = errors.New("broken")

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errBroken
	}
	return f.r.ReadAt(p, off)
}

// TestReadError fails every read in turn, of the probe and of the free map.
func TestReadError(t *testing.T) {
	m := load(t, mkfs(t, 6<<20, strings.Fields("-b 1024 -g 2048 -N 96 -J size=1 -O "+debian12)...))
	for n := 0; ; n++ {
		f := &failing{bytes.NewReader(m.data), n}
		fs, err := ext.Probe(f, int64(len(m.data)))
		if err != nil {
			if !errors.Is(err, errBroken) || fs != nil {
				t.Fatalf("read %d: got %v, %v", n, fs, err)
			}
			continue
		}
		if fs.Whole != "" {
			t.Fatalf("read %d: whole because %q", n, fs.Whole)
		}
		for _, err = range fs.Free() {
		}
		if err == nil {
			if n < 8 {
				t.Errorf("only %d reads", n)
			}
			return
		}
		if !errors.Is(err, errBroken) {
			t.Fatalf("read %d: got %v", n, err)
		}
	}
}

// TestChanged changes a bitmap between the probe and the use of its map.
func TestChanged(t *testing.T) {
	m := load(t, mkfs(t, 6<<20, strings.Fields("-b 1024 -g 2048 -N 96 -J size=1 -O "+debian12)...))
	fs, _ := m.probe()
	m.block(m.at(0, "Block bitmap at"))[200] ^= 1
	var err error
	for _, err = range fs.Free() {
	}
	if err == nil || !strings.Contains(err.Error(), "it has changed since it was probed") {
		t.Errorf("got %v", err)
	}
}
