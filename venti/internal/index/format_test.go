package index

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"

	"strata/venti"
)

// TestLayout adds sizes up.
func TestLayout(t *testing.T) {
	for _, tc := range []struct {
		what      string
		got, want int
	}{
		{"entry", venti.ScoreSize + 4 + 2 + 8 + 2 + 1 + 1, entrySize},
		{"bucket header", 2 + 4, bucketHeader},
		{"check", 4 + 4, checkSize},
		{"capacity of 8 KiB", capacity(DefaultBlockSize), 215},
		{"section header", max(sectionHeader, 4+4+64+64+6*4), sectionHeader},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %d bytes, want %d", tc.what, tc.got, tc.want)
		}
	}
	for size := minBlockSize; size <= maxBlockSize; size *= 2 {
		spare := size - bucketHeader - capacity(size)*entrySize
		if spare < 0 || spare >= checkSize != (size != 16384 && size != 32768) {
			t.Errorf("block of %d: %d bytes to spare", size, spare)
		}
	}
}

// TestGoldenBytes is about what plan9port's programs write: an entry and a
// section's header from spec/venti-storage.md, section 8.
func TestGoldenBytes(t *testing.T) {
	hello := Entry{Score: venti.ScoreOf([]byte("hello world")), Addr: FirstAddr, Size: 11, Type: venti.DiskData, Blocks: 1}
	s := &Section{Version: 2, BlockSize: 512, Magic: 0xad2a19c3}
	block := bytes.Repeat([]byte{0xaa}, 512)
	s.packBucket(block, 117, []Entry{hello})
	want := "\x00\x01\xad\x2a\x19\xc3\x2a\xae\x6c\x35\xc9\x4f\xcf\xb4\x15\xdb\xe9\x5f\x40\x8b\x9c\xe9\x1e\xe8\x46\xed" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x0b\x0d\x01\xaa"
	if got := string(block[:len(want)]); got != want {
		t.Errorf("bucket % x, want % x", got, want)
	}
	if !s.whole(block, 117) || s.whole(block, 118) {
		t.Error("the check does not tell this bucket from another")
	}
	for i := range block {
		if i >= 44 && i < len(block)-checkSize {
			continue // unused
		}
		block[i] ^= 4
		if s.whole(block, 117) && (i < 2 || i > 5) {
			t.Errorf("a change in byte %d is not seen", i)
		}
		block[i] ^= 4
	}

	s = &Section{Name: "isect1", Index: "main", Version: 2, BlockSize: 8192, BlockBase: 0xc2000, Blocks: 415, Start: 415, Stop: 702, Magic: 0x4ad9c4f9}
	header := make([]byte, sectionHeader)
	copy(header, "\xd1\x5c\x5e\xc7\x00\x00\x00\x02isect1")
	copy(header[72:], "main")
	copy(header[136:], "\x00\x00\x20\x00\x00\x0c\x20\x00\x00\x00\x01\x9f\x00\x00\x01\x9f\x00\x00\x02\xbe\x4a\xd9\xc4\xf9")
	if got := s.pack(); !bytes.Equal(got, header) {
		t.Errorf("header % x, want % x", got, header)
	}
}

// FuzzSection unpacks section headers.
func FuzzSection(f *testing.F) {
	for _, s := range []*Section{
		{Name: "isect1", Index: "main", Version: 2, BlockSize: 8192, BlockBase: 0xc2000, Blocks: 415, Start: 415, Stop: 702, Magic: 1},
		{Name: "a", Version: 1, BlockSize: 512, BlockBase: 786944, Blocks: 1 << 31},
	} {
		f.Add(s.pack())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < sectionHeader {
			return
		}
		s, err := unpackSection(b)
		if err != nil {
			return
		}
		s2, err := unpackSection(s.pack())
		if err != nil {
			t.Fatalf("what was packed is not accepted: %v", err)
		}
		if !bytes.Equal(s.pack(), s2.pack()) {
			t.Errorf("% x became % x", s.pack(), s2.pack())
		}
	})
}

// TestOverflowHeader packs a header and compares it with its bytes.
func TestOverflowHeader(t *testing.T) {
	ix := overflowIndex()
	want := []byte("\x0f\xe2\x5a\x17\x00\x00\x00\x01\x00\x00\x20\x00\x00\x00\x02\xbe\xc7\x3f\xfe\xe9\x4a\xd9\xc4\xf9\x98\x44\x24\x6c")
	if got := ix.packOverflow(0x4ad9c4f9); !bytes.Equal(got, want) {
		t.Errorf("header % x, want % x", got, want)
	}
}

func overflowIndex() *Index {
	return &Index{BlockSize: 8192, Buckets: 702, Sections: []*Section{
		{Name: "isect0", Magic: 0x01020304, Stop: 415}, {Name: "isect1", Magic: 0x05060708, Start: 415, Stop: 702},
	}}
}

// FuzzOverflow unpacks headers of overflows.
func FuzzOverflow(f *testing.F) {
	ix := overflowIndex()
	f.Add(ix.packOverflow(1), false)
	f.Add(make([]byte, overflowPacked), true)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		if len(b) != overflowPacked {
			return
		}
		if sign {
			binary.BigEndian.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
		}
		magic, err := ix.unpackOverflow(b)
		if err == nil && magic != 0 && !bytes.Equal(ix.packOverflow(magic), b) {
			t.Errorf("% x is taken for the header with magic %x", b, magic)
		}
	})
}

// FuzzTable unpacks tables.
func FuzzTable(f *testing.F) {
	f.Add([]byte("venti index configuration\n1\nmain\n8192\n2\nisect0\t0\t415\nisect1\t415\t702\n1\narena0\t1048576\t5226496\n\x00\x00"))
	f.Add([]byte("venti index configuration\n1\nmain\n512\n1\na\t0\t4294967295\n4294967295\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		tab, err := unpackTable(text)
		if err != nil {
			return
		}
		packed := tab.pack()
		tab2, err := unpackTable(packed)
		if err != nil {
			t.Fatalf("what was packed is not accepted: %v", err)
		}
		if !bytes.Equal(packed, tab2.pack()) {
			t.Errorf("%s became %s", packed, tab2.pack())
		}
	})
}

// FuzzBucket reads, searches and changes a bucket of any bytes.
func FuzzBucket(f *testing.F) {
	s := &Section{Version: 2, BlockSize: 512, Magic: 0x01020304}
	block := make([]byte, 512)
	list := []Entry{{Score: venti.Score{1}, Type: 13}, {Score: venti.Score{2}, Type: 1, Addr: 1 << 20}, {Score: venti.Score{2}, Type: 2}}
	s.packBucket(block, 7, list)
	f.Add(block, uint16(2), byte(13))
	s.packBucket(block, 7, nil)
	f.Add(block, uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, block []byte, key uint16, typ byte) {
		if len(block) != s.BlockSize {
			return
		}
		score, kind := venti.Score{byte(key), byte(key >> 8)}, venti.DiskType(typ)
		before := bytes.Clone(block)
		old, err := s.unpackBucket(nil, block)
		if err != nil {
			if _, found, _, err := s.search(block, &score, kind); !found && err == nil {
				t.Error("a damaged bucket is said not to have an entry")
			}
			if changed, _, err := s.merge(block, 7, []Entry{{}}, nil); changed || err == nil || !bytes.Equal(block, before) {
				t.Error("a damaged bucket was changed")
			}
			return
		}
		n := slices.IndexFunc(old, func(e Entry) bool { return e.Score == score && e.Type == kind })
		if e, found, _, err := s.search(block, &score, kind); err != nil || found != (n >= 0) || found && e != old[n] {
			t.Errorf("search: %+v, %v, %v", e, found, err)
		}
		add := Entry{Score: score, Type: kind, Addr: uint64(key)}
		changed, over, err := s.merge(block, 7, []Entry{add}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(over) == 1 {
			if n >= 0 || len(old) != capacity(s.BlockSize) || !bytes.Equal(block, before) {
				t.Error("there was room for it")
			}
			return
		}
		if e, found, _, err := s.search(block, &score, kind); err != nil || !found || e != add {
			t.Errorf("search for what was added: %+v, %v, %v", e, found, err)
		}
		if changed && !s.whole(block, 7) {
			t.Error("what was written is not whole")
		}
		for _, o := range old {
			if e, found, _, err := s.search(block, &o.Score, o.Type); err != nil || !found || o.Compare(&add) != 0 && o.Compare(&e) != 0 {
				t.Errorf("entry %+v is lost: %+v, %v, %v", o, e, found, err)
			}
		}
	})
}

// randomEntries returns n entries, sorted.
func randomEntries(seed uint64, n int) []Entry {
	rng := rand.New(rand.NewPCG(seed, 0))
	list := make([]Entry, n)
	for i := range list {
		for j := range list[i].Score {
			list[i].Score[j] = byte(rng.Uint32())
		}
		list[i].Type = venti.DiskData
		list[i].Addr = uint64(i)
	}
	Sort(list)
	return list
}

func BenchmarkMerge(b *testing.B) {
	s := &Section{Version: 2, BlockSize: 8192, Magic: 1}
	full := randomEntries(1, 200)
	block := make([]byte, 8192)
	add := randomEntries(2, 1)
	s.packBucket(block, 0, full)
	packed := bytes.Clone(block)
	b.ReportAllocs()
	b.SetBytes(8192)
	for b.Loop() {
		copy(block, packed)
		if changed, _, err := s.merge(block, 0, add, nil); !changed || err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	s := &Section{Version: 2, BlockSize: 8192, Magic: 1}
	list := randomEntries(1, 150)
	block := make([]byte, 8192)
	s.packBucket(block, 0, list)
	for _, tc := range []struct {
		name string
		list []Entry
	}{{"present", list}, {"absent", randomEntries(2, 150)}} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e := &tc.list[i%len(tc.list)]
				if _, ok, _, _ := s.search(block, &e.Score, e.Type); ok != (tc.name == "present") {
					b.Fatal("wrong answer")
				}
			}
		})
	}
}
