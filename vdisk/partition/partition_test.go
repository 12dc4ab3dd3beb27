package partition_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"strata/vdisk/partition"
)

// A disk is a sparse disk in memory for tests: what is not written is zero.
type disk struct {
	size int64
	at   map[int64][]byte // whole blocks of 512 bytes
}

func newDisk(size int64) *disk { return &disk{size, make(map[int64][]byte)} }

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= d.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), d.size-off))
	for i := 0; i < n; {
		in := int((off + int64(i)) % 512)
		m := min(n-i, 512-in)
		if b := d.at[(off+int64(i))/512]; b != nil {
			copy(p[i:i+m], b[in:])
		} else {
			clear(p[i : i+m])
		}
		i += m
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *disk) write(off int64, p []byte) {
	for len(p) > 0 {
		in := off % 512
		b := d.at[off/512]
		if b == nil {
			b = make([]byte, 512)
			d.at[off/512] = b
		}
		n := copy(b[in:], p)
		p, off = p[n:], off+int64(n)
	}
}

// An entry is one of a boot record's.
type entry struct {
	status, kind   byte
	start, sectors uint32
}

func (d *disk) record(sector uint32, entries ...entry) {
	b := make([]byte, 512)
	if sector == 0 {
		copy(b[440:], "\x78\x56\x34\x12")
	}
	for i, e := range entries {
		p := b[446+16*i:]
		p[0], p[4] = e.status, e.kind
		binary.LittleEndian.PutUint32(p[8:], e.start)
		binary.LittleEndian.PutUint32(p[12:], e.sectors)
	}
	b[510], b[511] = 0x55, 0xaa
	d.write(int64(sector)*512, b)
}

// A part is an entry of a GUID partition table, last included.
type part struct {
	number      int
	first, last uint64
	label       string
}

// A gpt describes one copy of a table; zero fields have the usual value.
type gpt struct {
	sector      int
	self, other uint64
	array       uint64
	entrySize   int
	count       int
	parts       []part
}

func (d *disk) gpt(g gpt) {
	if g.sector == 0 {
		g.sector = 512
	}
	if g.entrySize == 0 {
		g.entrySize = 128
	}
	if g.count == 0 {
		g.count = 128
	}
	last := uint64(d.size)/uint64(g.sector) - 1
	if g.self == 0 {
		g.self = 1
	}
	if g.other == 0 {
		g.other = last
		if g.self != 1 {
			g.other = 1
		}
	}
	length := uint64(g.count * g.entrySize)
	if g.array == 0 {
		g.array = 2
		if g.self != 1 {
			g.array = g.self - (length+uint64(g.sector)-1)/uint64(g.sector)
		}
	}
	array := make([]byte, length)
	for _, p := range g.parts {
		e := array[(p.number-1)*g.entrySize:]
		copy(e, hexBytes("af3dc60f838472478e793d69d8477de4")) // Linux data
		copy(e[16:], hexBytes("00112233445566778899aabbccddee"))
		e[31] = byte(p.number)
		binary.LittleEndian.PutUint64(e[32:], p.first)
		binary.LittleEndian.PutUint64(e[40:], p.last)
		e[48] = 4
		for i, u := range utf16.Encode([]rune(p.label)) {
			binary.LittleEndian.PutUint16(e[56+2*i:], u)
		}
	}
	h := make([]byte, g.sector)
	copy(h, "EFI PART\x00\x00\x01\x00")
	binary.LittleEndian.PutUint32(h[12:], 92)
	binary.LittleEndian.PutUint64(h[24:], g.self)
	binary.LittleEndian.PutUint64(h[32:], g.other)
	copy(h[56:], hexBytes("0102030405060708090a0b0c0d0e0f10"))
	binary.LittleEndian.PutUint64(h[72:], g.array)
	binary.LittleEndian.PutUint32(h[80:], uint32(g.count))
	binary.LittleEndian.PutUint32(h[84:], uint32(g.entrySize))
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(array))
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	d.write(int64(g.array)*int64(g.sector), array)
	d.write(int64(g.self)*int64(g.sector), h)
}

func hexBytes(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// both writes a protective record and both copies of a table.
func (d *disk) both(sector int, parts ...part) {
	d.record(0, entry{0, 0xee, 1, 0xffffffff})
	d.gpt(gpt{sector: sector, parts: parts})
	d.gpt(gpt{sector: sector, self: uint64(d.size)/uint64(sector) - 1, parts: parts})
}

// zap inverts a byte.
func (d *disk) zap(off int64) {
	var b [1]byte
	d.ReadAt(b[:], off)
	b[0] ^= 0xff
	d.write(off, b[:])
}

// cut reads d and returns its regions in one line, after checking what must
// hold for every disk.
func cut(t *testing.T, r io.ReaderAt, size int64) (*partition.Table, string) {
	t.Helper()
	table, err := partition.Read(r, size)
	if err != nil {
		t.Fatal(err)
	}
	regions := table.Cut()
	if len(regions) > partition.MaxRegions {
		t.Fatalf("%d regions, more than %d", len(regions), partition.MaxRegions)
	}
	var words []string
	names := make(map[string]bool)
	end := int64(0)
	for _, r := range regions {
		if r.Start != end || r.Length <= 0 {
			t.Fatalf("region %s is %d+%d, want it at %d", r.Name, r.Start, r.Length, end)
		}
		end += r.Length
		if names[r.Name] {
			t.Fatalf("two regions are named %s", r.Name)
		}
		names[r.Name] = true
		if (r.Partition != nil) != (r.Kind == partition.KindPartition) {
			t.Fatalf("region %s of kind %s has partition %v", r.Name, r.Kind, r.Partition)
		}
		if p := r.Partition; p != nil && (p.Start != r.Start || p.Length != r.Length) {
			t.Fatalf("region %s is %d+%d, its partition %d+%d", r.Name, r.Start, r.Length, p.Start, p.Length)
		}
		words = append(words, fmt.Sprintf("%s:%d+%d", r.Name, r.Start, r.Length))
	}
	if end != max(size, 0) {
		t.Fatalf("regions end at %d, want %d", end, size)
	}
	return table, strings.Join(words, " ")
}

const mib = 1 << 20

func TestCut(t *testing.T) {
	for _, tc := range []struct {
		name  string
		size  int64
		make  func(*disk)
		want  string
		whole string // part of Table.Whole
		note  string // part of a note
	}{
		{"empty", 0, func(*disk) {}, "", "", ""},
		{"one byte", 1, func(*disk) {}, "disk:0+1", "", ""},
		{"zeros", mib, func(*disk) {}, "disk:0+1048576", "", ""},
		{"record without entries", mib, func(d *disk) { d.record(0) }, "disk:0+1048576", "", ""},
		{"entries without sectors", mib, func(d *disk) { d.record(0, entry{0, 0x83, 63, 0}, entry{0, 0, 63, 100}) },
			"disk:0+1048576", "", ""},
		{"status of text", mib, func(d *disk) { d.record(0, entry{'n', 'k', 63, 100}) }, "disk:0+1048576", "", ""},
		{"mbr", mib + 100, func(d *disk) { d.record(0, entry{0x80, 0x83, 63, 1000}, entry{0, 0x82, 1063, 100}) },
			"mbr:0+512 gap0:512+31744 p1:32256+512000 p2:544256+51200 gap2:595456+453220", "", ""},
		{"mbr out of order", mib, func(d *disk) { d.record(0, entry{0, 0x83, 1000, 1048}, entry{}, entry{}, entry{0, 0x83, 1, 100}) },
			"mbr:0+512 p4:512+51200 gap4:51712+460288 p1:512000+536576", "", ""},
		{"mbr overlap", mib, func(d *disk) { d.record(0, entry{0, 0x83, 63, 1000}, entry{0, 0x83, 1062, 100}) },
			"disk:0+1048576", "partition 1 and partition 2 overlap", ""},
		{"mbr twice the same", mib, func(d *disk) { d.record(0, entry{0, 0x83, 63, 1000}, entry{0, 0x83, 63, 1000}) },
			"disk:0+1048576", "overlap", ""},
		{"mbr at sector 0", mib, func(d *disk) { d.record(0, entry{0, 0x83, 0, 1000}) }, "disk:0+1048576", "overlap", ""},
		{"mbr outside", mib, func(d *disk) { d.record(0, entry{0, 0x83, 63, 1986}) }, "disk:0+1048576", "outside the disk", ""},
		{"mbr far outside", mib, func(d *disk) { d.record(0, entry{0, 0x83, 0xffffffff, 0xffffffff}) }, "disk:0+1048576", "outside the disk", ""},
		{"mbr to the last sector", mib, func(d *disk) { d.record(0, entry{0, 0x83, 63, 1985}) },
			"mbr:0+512 gap0:512+31744 p1:32256+1016320", "", ""},
		{"extended", mib, func(d *disk) {
			d.record(0, entry{0, 0x83, 63, 37}, entry{0, 0x05, 100, 1900})
			d.record(100, entry{0, 0x83, 10, 40}, entry{0, 0x05, 100, 100})
			d.record(200, entry{0, 0x82, 5, 50}, entry{0, 0x05, 300, 50})
			d.record(400, entry{0, 0x83, 1, 60})
		}, "mbr:0+512 gap0:512+31744 p1:32256+18944 gap1:51200+5120 p5:56320+20480 gap5:76800+28160 " +
			"p6:104960+25600 gap6:130560+74752 p7:205312+30720 gap7:236032+812544", "", ""},
		{"extended, empty", mib, func(d *disk) { d.record(0, entry{0, 0x0f, 100, 1900}); d.record(100) },
			"mbr:0+512 gap0:512+1048064", "", ""},
		{"extended loop", mib, func(d *disk) {
			d.record(0, entry{0, 0x85, 100, 1900})
			d.record(100, entry{0, 0x83, 10, 40}, entry{0, 0x05, 100, 100})
			d.record(200, entry{0, 0x83, 10, 40}, entry{0, 0x05, 100, 100})
		}, "disk:0+1048576", "loop at sector 200", ""},
		{"extended loop to itself", mib, func(d *disk) {
			d.record(0, entry{0, 0x05, 100, 1900})
			d.record(100, entry{}, entry{0, 0x05, 0, 100})
		}, "disk:0+1048576", "loop at sector 100", ""},
		{"extended chain too long", mib, func(d *disk) {
			d.record(0, entry{0, 0x05, 100, 1900})
			for i := range uint32(200) {
				d.record(100+i, entry{}, entry{0, 0x05, i + 1, 100})
			}
		}, "disk:0+1048576", "more than 128", ""},
		{"extended outside", mib, func(d *disk) { d.record(0, entry{0, 0x05, 100, 4000}) }, "disk:0+1048576", "outside the disk", ""},
		{"logical outside", mib, func(d *disk) {
			d.record(0, entry{0, 0x05, 100, 100})
			d.record(100, entry{0, 0x83, 10, 91})
		}, "disk:0+1048576", "partition 5 lies outside its extended partition", ""},
		{"logical over a record", mib, func(d *disk) {
			d.record(0, entry{0, 0x05, 100, 500})
			d.record(100, entry{0, 0x83, 10, 200}, entry{0, 0x05, 100, 100})
			d.record(200, entry{0, 0x83, 200, 10})
		}, "disk:0+1048576", "partition 5 and an extended boot record overlap", ""},
		{"link outside", mib, func(d *disk) {
			d.record(0, entry{0, 0x05, 100, 500})
			d.record(100, entry{0, 0x83, 10, 20}, entry{0, 0x05, 0xffffffff, 100})
		}, "disk:0+1048576", "lies outside its partition", ""},
		{"chain ends without a record", mib, func(d *disk) {
			d.record(0, entry{0, 0x05, 100, 500})
			d.record(100, entry{0, 0x83, 10, 20}, entry{0, 0x05, 50, 100})
		}, "mbr:0+512 gap0:512+55808 p5:56320+10240 gap5:66560+982016", "", "chain ends"},
		{"record with four entries", mib, func(d *disk) {
			d.record(0, entry{0, 0x05, 100, 500})
			d.record(100, entry{0, 0x83, 10, 20}, entry{}, entry{0, 0x83, 40, 20})
		}, "mbr:0+512 gap0:512+55808 p5:56320+10240 gap5:66560+982016", "", "more entries than two"},
		{"two extended", mib, func(d *disk) {
			d.record(0, entry{0, 0x05, 100, 100}, entry{0, 0x0f, 300, 100})
			d.record(100, entry{0, 0x83, 10, 20})
			d.record(300, entry{0, 0x83, 10, 20})
		}, "mbr:0+512 gap0:512+55808 p5:56320+10240 gap5:66560+92160 p6:158720+10240 gap6:168960+879616", "", ""},

		{"gpt", 4 * mib, func(d *disk) { d.both(512, part{1, 2048, 4095, "root"}, part{3, 4096, 5000, ""}) },
			"gpt:0+17408 gap0:17408+1031168 p1:1048576+1048576 p3:2097152+463360 gap3:2560512+1616896 gptbackup:4177408+16896", "", ""},
		{"gpt of 4096", 4 * mib, func(d *disk) { d.both(4096, part{2, 256, 511, "x"}) },
			"gpt:0+24576 gap0:24576+1024000 p2:1048576+1048576 gap2:2097152+2076672 gptbackup:4173824+20480", "", ""},
		{"gpt without partitions", mib, func(d *disk) { d.both(512) }, "gpt:0+17408 gap0:17408+1014272 gptbackup:1031680+16896", "", ""},
		{"gpt, odd size", 2*mib + 1000, func(d *disk) { d.both(512, part{1, 100, 199, ""}) },
			"gpt:0+17408 gap0:17408+33792 p1:51200+51200 gap1:102400+1978368 gptbackup:2080768+16896 tail:2097664+488", "", ""},
		{"gpt, primary header bad", 4 * mib, func(d *disk) { d.both(512, part{1, 2048, 4095, ""}); d.zap(512 + 60) },
			"gpt:0+17408 gap0:17408+1031168 p1:1048576+1048576 gap1:2097152+2080256 gptbackup:4177408+16896", "", "primary GUID partition table is bad (bad header checksum)"},
		{"gpt, primary gone, partition early", 4 * mib, func(d *disk) {
			d.both(512, part{1, 20, 4095, ""})
			d.zap(512)
			d.gpt(gpt{self: 8191, parts: []part{{1, 20, 4095, ""}}})
		}, "gpt:0+10240 p1:10240+2086912 gap1:2097152+2080256 gptbackup:4177408+16896", "", "no magic"},
		{"gpt, primary entries bad", 4 * mib, func(d *disk) { d.both(512, part{1, 2048, 4095, ""}); d.zap(1024 + 60) },
			"gpt:0+17408 gap0:17408+1031168 p1:1048576+1048576 gap1:2097152+2080256 gptbackup:4177408+16896", "", "bad checksum of entries"},
		{"gpt, backup bad", 4 * mib, func(d *disk) { d.both(512, part{1, 2048, 4095, ""}); d.zap(4*mib - 512) },
			"gpt:0+17408 gap0:17408+1031168 p1:1048576+1048576 gap1:2097152+2097152", "", "backup GUID partition table is bad (no magic)"},
		{"gpt, both bad", 4 * mib, func(d *disk) { d.both(512, part{1, 2048, 4095, ""}); d.zap(512 + 60); d.zap(4*mib - 512 + 60) },
			"disk:0+4194304", "no good GUID partition table (primary: bad header checksum; backup: bad header checksum)", ""},
		{"gpt, protective only", 4 * mib, func(d *disk) { d.record(0, entry{0, 0xee, 1, 100}) }, "disk:0+4194304", "protective MBR", ""},
		{"gpt, protective only, tiny", 600, func(d *disk) { d.record(0, entry{0, 0xee, 1, 100}) }, "disk:0+600", "protective MBR", ""},
		{"gpt, copies differ", 4 * mib, func(d *disk) {
			d.both(512, part{1, 2048, 4095, ""})
			d.gpt(gpt{self: 8191, parts: []part{{1, 2048, 4000, ""}}})
		}, "gpt:0+17408 gap0:17408+1031168 p1:1048576+1048576 gap1:2097152+2080256 gptbackup:4177408+16896", "", "differs: the primary is used"},
		{"gpt, disk has grown", 8 * mib, func(d *disk) {
			d.record(0, entry{0, 0xee, 1, 0xffffffff})
			p := []part{{1, 2048, 4095, ""}}
			d.gpt(gpt{other: 8191, parts: p})
			d.gpt(gpt{self: 8191, parts: p})
		}, "gpt:0+17408 gap0:17408+1031168 p1:1048576+1048576 gap1:2097152+2080256 gptbackup:4177408+16896 tail:4194304+4194304", "", ""},
		{"gpt, disk is cut short", 3 * mib, func(d *disk) {
			d.record(0, entry{0, 0xee, 1, 0xffffffff})
			d.gpt(gpt{other: 8191, parts: []part{{1, 2048, 4095, ""}}})
		}, "gpt:0+17408 gap0:17408+1031168 p1:1048576+1048576 gap1:2097152+1048576", "", "backup GUID partition table is bad"},
		{"gpt, hybrid", 4 * mib, func(d *disk) {
			d.both(512, part{1, 2048, 4095, ""})
			d.record(0, entry{0, 0xee, 1, 2047}, entry{0x80, 0x83, 2048, 2048})
		}, "gpt:0+17408 gap0:17408+1031168 p1:1048576+1048576 gap1:2097152+2080256 gptbackup:4177408+16896", "", "hybrid MBR"},
		{"gpt, stale under an mbr", 4 * mib, func(d *disk) {
			d.both(512, part{1, 2048, 4095, ""})
			d.record(0, entry{0, 0x83, 4096, 1000})
		}, "mbr:0+512 gap0:512+2096640 p1:2097152+512000 gap1:2609152+1585152", "", ""},
		{"gpt, partition over the primary", 4 * mib, func(d *disk) { d.both(512, part{1, 33, 4095, ""}) }, "disk:0+4194304", "overlap", ""},
		{"gpt, partition over the backup", 4 * mib, func(d *disk) { d.both(512, part{1, 2048, 8159, ""}) }, "disk:0+4194304", "overlap", ""},
		{"gpt, overlap", 4 * mib, func(d *disk) { d.both(512, part{1, 2048, 4095, ""}, part{2, 4095, 5000, ""}) }, "disk:0+4194304", "partition 1 and partition 2 overlap", ""},
		{"gpt, outside", 4 * mib, func(d *disk) { d.both(512, part{1, 2048, 8192, ""}) }, "disk:0+4194304", "outside the disk", ""},
		{"gpt, backwards", 4 * mib, func(d *disk) { d.both(512, part{1, 2048, 2047, ""}) }, "disk:0+4194304", "outside the disk", ""},
		{"gpt, enormous", 4 * mib, func(d *disk) { d.both(512, part{1, 0, ^uint64(0), ""}) }, "disk:0+4194304", "outside the disk", ""},
		{"gpt, entries elsewhere", 4 * mib, func(d *disk) {
			p := []part{{1, 2048, 4095, ""}}
			d.record(0, entry{0, 0xee, 1, 0xffffffff})
			d.gpt(gpt{array: 1000, parts: p, entrySize: 256, count: 12})
			d.gpt(gpt{self: 8191, parts: p, entrySize: 256, count: 12})
		}, "gpt:0+515072 gap0:515072+533504 p1:1048576+1048576 gap1:2097152+2093568 gptbackup:4190720+3584", "", ""},
		{"gpt, too many entries", 4 * mib, func(d *disk) {
			d.record(0, entry{0, 0xee, 1, 0xffffffff})
			d.gpt(gpt{count: 2000})
		}, "disk:0+4194304", "2000 entries of 128 bytes", ""},
		{"gpt, too many partitions", 4 * mib, func(d *disk) {
			var p []part
			for i := range 257 {
				p = append(p, part{i + 1, 2048 + uint64(i), 2048 + uint64(i), ""})
			}
			d.record(0, entry{0, 0xee, 1, 0xffffffff})
			d.gpt(gpt{count: 300, parts: p})
		}, "disk:0+4194304", "257 partitions", ""},

		{"bare fat", mib, func(d *disk) { d.write(0, fatBoot()) }, "disk:0+1048576", "", ""},
		{"fat and a table", mib, func(d *disk) {
			d.record(0, entry{0x80, 0x0c, 63, 1000})
			d.write(0, fatBoot()[:90])
		}, "disk:0+1048576", "a partition table and the signature of vfat", ""},
		{"bare ext with boot code", mib, func(d *disk) { d.record(0); d.write(1024, extSuper()) }, "disk:0+1048576", "", ""},
		{"ext and a table", mib, func(d *disk) { d.record(0, entry{0x80, 0x83, 63, 1000}); d.write(1024, extSuper()) },
			"disk:0+1048576", "a partition table and the signature of ext", ""},
		{"ext in the first partition", mib, func(d *disk) { d.record(0, entry{0x80, 0x83, 1, 1000}); d.write(1536, extSuper()) },
			"mbr:0+512 p1:512+512000 gap1:512512+536064", "", ""},
		{"ext and a backup table", 4 * mib, func(d *disk) {
			d.both(512, part{1, 2048, 4095, ""})
			d.write(1024, extSuper())
		}, "disk:0+4194304", "a partition table and the signature of ext", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDisk(tc.size)
			tc.make(d)
			table, got := cut(t, d, d.size)
			if got != tc.want {
				t.Errorf("regions\n\t%s\nwant\n\t%s", got, tc.want)
			}
			if !strings.Contains(table.Whole, tc.whole) || tc.whole == "" && table.Whole != "" {
				t.Errorf("whole because %q, want %q", table.Whole, tc.whole)
			}
			if notes := strings.Join(table.Notes, "; "); !strings.Contains(notes, tc.note) || tc.note == "" && notes != "" && tc.whole == "" {
				t.Errorf("notes %q, want %q", notes, tc.note)
			}
			for _, r := range table.Cut() {
				if r.Whole != table.Whole {
					t.Errorf("region %s: whole because %q, want %q", r.Name, r.Whole, table.Whole)
				}
			}
		})
	}
}

// fatBoot is the start of a boot sector as mkfs.vfat writes it, text where
// the entries of a table would be.
func fatBoot() []byte {
	b := make([]byte, 512)
	copy(b, "\xeb\x58\x90mkfs.fat\x00\x02\x08\x20\x00\x02\x00\x00\x00\x08\xf8")
	copy(b[440:], "This is not a bootable disk.  Please insert a bootable floppy")
	b[510], b[511] = 0x55, 0xaa
	return b
}

func extSuper() []byte {
	b := make([]byte, 1024)
	b[0x18], b[0x38], b[0x39], b[0x4c] = 2, 0x53, 0xef, 1
	return b
}

func TestTable(t *testing.T) {
	d := newDisk(4 * mib)
	d.both(512, part{2, 2048, 4095, "EFI sÿstem 🖴"})
	table, _ := cut(t, d, d.size)
	if table.Scheme != partition.GPT || table.SectorSize != 512 || table.ID != "04030201-0605-0807-090a-0b0c0d0e0f10" {
		t.Errorf("got %s, sectors of %d, %s", table.Scheme, table.SectorSize, table.ID)
	}
	want := partition.Partition{
		Number: 2, Start: mib, Length: mib, Type: "0fc63daf-8483-4772-8e79-3d69d8477de4",
		ID: "33221100-5544-7766-8899-aabbccddee02", Label: "EFI sÿstem 🖴", Attrs: 4,
	}
	if !slices.Equal(table.Partitions, []partition.Partition{want}) {
		t.Errorf("got %+v\nwant %+v", table.Partitions, want)
	}

	d = newDisk(mib)
	d.record(0, entry{0, 0x05, 100, 1000}, entry{0x80, 0x0c, 63, 10})
	d.record(100, entry{0, 0x83, 1, 10})
	table, _ = cut(t, d, d.size)
	if table.Scheme != partition.MBR || table.ID != "12345678" {
		t.Errorf("got %s, %s", table.Scheme, table.ID)
	}
	wants := []partition.Partition{
		{Number: 2, Start: 32256, Length: 5120, Type: "0c", ID: "12345678-02", Attrs: 0x80},
		{Number: 5, Start: 51712, Length: 5120, Type: "83", ID: "12345678-05"},
	}
	if !slices.Equal(table.Partitions, wants) {
		t.Errorf("got %+v\nwant %+v", table.Partitions, wants)
	}
}

func TestReadError(t *testing.T) {
	broken := errors.New("broken")
	d := newDisk(mib)
	d.record(0, entry{0, 0x05, 100, 1000})
	for name, r := range map[string]io.ReaderAt{
		"at once":       failAfter{d, 0, broken},
		"in the chain":  failAfter{d, 51200, broken},
		"at the file's": io.NewSectionReader(d, 0, 51300),
	} {
		if _, err := partition.Read(r, d.size); !errors.Is(err, broken) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// failAfter fails reads that go past off.
type failAfter struct {
	io.ReaderAt
	off int64
	err error
}

func (f failAfter) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.off {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(p, off)
}

// FuzzRead alters sectors of a disk's table. Each four bytes of edits are the
// index of a sector, an offset and a byte to put there; how chooses the disk and
// whether the checksums of its tables are computed again.
func FuzzRead(f *testing.F) {
	type base struct {
		make    func(*disk)
		sector  int
		sectors []int64 // of 512 bytes
	}
	const size = mib + 300
	bases := []base{
		{func(d *disk) { d.both(512, part{1, 40, 100, "a"}, part{2, 101, 110, "b"}) }, 512, []int64{0, 1, 2, 2047, 2015}},
		{func(d *disk) { d.both(4096, part{1, 10, 20, "a"}) }, 4096, []int64{0, 8, 16, 2040, 2008}},
		{func(d *disk) {
			d.record(0, entry{0, 0x83, 2, 3}, entry{0, 0x05, 5, 100})
			d.record(5, entry{0, 0x83, 1, 2}, entry{0, 0x05, 4, 10})
			d.record(9, entry{0, 0x83, 1, 2})
		}, 0, []int64{0, 5, 9, 10}},
	}
	for i := range bases {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i+4), []byte{0, 1, 0xc2, 0x83, 2, 0, 32, 50, 4, 0, 40, 0xff})
	}
	f.Fuzz(func(t *testing.T, how uint8, edits []byte) {
		b := bases[int(how&3)%len(bases)]
		d := newDisk(size)
		b.make(d)
		for ; len(edits) >= 4; edits = edits[4:] {
			off := int64(binary.BigEndian.Uint16(edits[1:])) % 512
			d.write(b.sectors[int(edits[0])%len(b.sectors)]*512+off, edits[3:4])
		}
		if how&4 != 0 && b.sector > 0 {
			for _, at := range []int64{b.sectors[1] * 512, b.sectors[3] * 512} {
				h := make([]byte, b.sector)
				d.ReadAt(h, at)
				array := make([]byte, min(1<<20, binary.LittleEndian.Uint32(h[80:])*binary.LittleEndian.Uint32(h[84:])))
				d.ReadAt(array, int64(binary.LittleEndian.Uint64(h[72:]))*int64(b.sector))
				binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(array))
				clear(h[16:20])
				binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:min(len(h), int(binary.LittleEndian.Uint32(h[12:])))]))
				d.write(at, h)
			}
		}
		cut(t, d, size)
	})
}
