package ext_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/vdisk/fsys"
)

// A log writes the journal of an image, in the layout of journal.go.
type log struct {
	*image
	super    []byte // of the journal
	features uint32
	first    int64
	length   int64
	at       int64 // the block of the journal that is written next
	sequence uint32
}

const (
	feature64Bit = 2
	featureCsum2 = 8
	featureCsum3 = 16
)

// newLog begins a log at block start of m's journal. The journal's superblock
// is signed by end.
func newLog(m *image, features uint32, start int64, sequence uint32) *log {
	off := m.journal()
	l := &log{image: m, super: m.data[off:][:1024], features: features, at: start, sequence: sequence}
	l.length, l.first = int64(binary.BigEndian.Uint32(l.super[0x10:])), int64(binary.BigEndian.Uint32(l.super[0x14:]))
	binary.BigEndian.PutUint32(l.super[0x18:], sequence)
	binary.BigEndian.PutUint32(l.super[0x1c:], uint32(start))
	binary.BigEndian.PutUint32(l.super[0x28:], features|1)
	if l.csum() {
		l.super[0x50] = 4
	}
	l.image.super()[0x60] |= 4
	m.sign()
	l.end()
	return l
}

func (l *log) csum() bool { return l.features&(featureCsum2|featureCsum3) != 0 }

// end signs the journal's superblock.
func (l *log) end() {
	if l.csum() {
		l.signJournal()
	}
}

func (l *log) seed() uint32 { return crc32c(^uint32(0), l.super[0x30:0x40]) }

// next returns the block that is written next, cleared.
func (l *log) next() []byte {
	b := l.data[l.journal()+l.at*l.blockSize():][:l.blockSize()]
	clear(b)
	if l.at++; l.at == l.length {
		l.at = l.first
	}
	return b
}

func (l *log) header(kind uint32) []byte {
	b := l.next()
	binary.BigEndian.PutUint32(b, 0xc03b3998)
	binary.BigEndian.PutUint32(b[4:], kind)
	binary.BigEndian.PutUint32(b[8:], l.sequence)
	return b
}

// sum puts the checksum of b in it.
func (l *log) sum(b []byte, off int) {
	if l.csum() {
		binary.BigEndian.PutUint32(b[off:], crc32c(l.seed(), b))
	}
}

// A logCopy is a block as a transaction leaves it.
type logCopy struct {
	block int64
	data  []byte
}

// copies writes a descriptor and what it lists. It returns the descriptor.
func (l *log) copies(list ...logCopy) []byte {
	b := l.header(1)
	off := 12
	for i, c := range list {
		flags := uint32(0)
		if i > 0 {
			flags |= 2
		}
		if i == len(list)-1 {
			flags |= 8
		}
		data := slices.Clone(c.data)
		if binary.BigEndian.Uint32(data) == 0xc03b3998 {
			clear(data[:4])
			flags |= 1
		}
		sum := crc32c(crc32c(l.seed(), binary.BigEndian.AppendUint32(nil, l.sequence)), data)
		binary.BigEndian.PutUint32(b[off:], uint32(c.block))
		if l.features&featureCsum3 != 0 {
			binary.BigEndian.PutUint32(b[off+4:], flags)
			binary.BigEndian.PutUint32(b[off+12:], sum)
			off += 16
		} else {
			binary.BigEndian.PutUint16(b[off+6:], uint16(flags))
			if l.csum() {
				binary.BigEndian.PutUint16(b[off+4:], uint16(sum))
				off += 2
			}
			off += 8
			if l.features&feature64Bit != 0 {
				off += 4
			}
		}
		if i == 0 {
			off += 16
		}
		copy(l.next(), data)
	}
	l.sum(b, len(b)-4)
	return b
}

func (l *log) commit() []byte {
	b := l.header(2)
	l.sum(b, 16)
	l.sequence++
	return b
}

func (l *log) revoke(blocks ...int64) {
	b := l.header(5)
	off := 16
	for _, n := range blocks {
		if l.features&feature64Bit != 0 {
			off += 4
		}
		binary.BigEndian.PutUint32(b[off:], uint32(n))
		off += 4
	}
	binary.BigEndian.PutUint32(b[12:], uint32(off))
	l.sum(b, len(b)-4)
}

// TestLog writes logs of its own into the journal of an image with three
// groups, most often with copies of the bitmap of the last one.
func TestLog(t *testing.T) {
	bases := make(map[string]*image)
	free := make(map[string][]fsys.Extent) // without a log
	for _, features := range []string{"metadata_csum,64bit,flex_bg", "uninit_bg,^flex_bg", ""} {
		bases[features] = load(t, mkfs(t, 6<<20, strings.Fields("-b 1024 -g 2048 -J size=1 -N 96 -O has_journal,extent,sparse_super,filetype,"+features)...))
		_, free[features] = bases[features].probe()
	}
	// with returns the bitmap of group 2 after bytes of it were altered.
	with := func(m *image, off int, bytes ...byte) logCopy {
		at := m.at(2, "Block bitmap at")
		b := slices.Clone(m.block(at))
		copy(b[off:], bytes)
		return logCopy{at, b}
	}
	for _, tc := range []struct {
		name  string
		write func(*log)
		used  string // blocks of group 2 that become used, as first+n, counted in the group
		whole string
	}{
		{"nothing", func(l *log) {}, "", ""},
		{"the same", func(l *log) { l.copies(with(l.image, 0)); l.commit() }, "", ""},
		{"other blocks", func(l *log) { l.copies(logCopy{5000, make([]byte, 1024)}); l.commit() }, "", ""},
		{"used for a while", func(l *log) {
			l.copies(with(l.image, 200, 0xff, 0xff))
			l.commit()
			l.copies(with(l.image, 0))
			l.commit()
		}, "1600+16", ""},
		{"not committed", func(l *log) { l.copies(with(l.image, 200, 0xff, 0x00, 0xff)) }, "1600+8 1616+8", ""},
		{"committed, then not", func(l *log) {
			l.copies(with(l.image, 0))
			l.commit()
			l.copies(logCopy{5000, make([]byte, 1024)}, with(l.image, 200, 1))
		}, "1600+1", ""},
		{"in the second descriptor", func(l *log) {
			l.copies(logCopy{5000, make([]byte, 1024)}, logCopy{5001, make([]byte, 1024)})
			l.copies(logCopy{5002, make([]byte, 1024)}, with(l.image, 200, 1))
			l.commit()
			l.copies(with(l.image, 0))
			l.commit()
		}, "1600+1", ""},
		{"escaped", func(l *log) {
			l.copies(with(l.image, 210, 0xff))
			l.copies(logCopy{l.image.at(2, "Block bitmap at"), append([]byte{0xc0, 0x3b, 0x39, 0x98}, make([]byte, 1020)...)})
			l.commit()
			l.copies(with(l.image, 0))
			l.commit()
		}, "1680+8", ""},
		{"another sequence", func(l *log) {
			l.sequence += 2
			l.copies(with(l.image, 200, 0xff))
			l.commit()
		}, "", ""},
		{"after the end", func(l *log) {
			l.next()
			l.copies(with(l.image, 200, 0xff))
			l.commit()
		}, "", ""},
		{"revoked blocks", func(l *log) {
			l.copies(with(l.image, 0))
			l.revoke(5000, 5001)
			l.commit()
		}, "", ""},
		{"revoked bitmap", func(l *log) {
			l.copies(with(l.image, 0))
			l.revoke(5000, l.image.at(2, "Block bitmap at"))
			l.commit()
		}, "", "which tells what is allocated"},
		{"revoked superblock", func(l *log) { l.revoke(1); l.commit() }, "", "revokes block 1"},
		{"revocation too long", func(l *log) {
			b := l.header(5)
			binary.BigEndian.PutUint32(b[12:], 2000)
			l.commit()
		}, "", "revocation of 2000 bytes"},
		{"replay with another count", func(l *log) { l.copies(with(l.image, 200, 0xff)); l.commit() }, "", "group 2"},
		{"superblock", func(l *log) { l.copies(logCopy{1, l.image.super()}); l.commit() }, "", ""},
		{"superblock with errors", func(l *log) {
			m := l.image.clone(l.t)
			m.super()[0x3a] |= 2
			m.sign()
			l.copies(logCopy{1, m.super()})
			l.commit()
		}, "", "marked with errors"},
		{"superblock with more reserved", func(l *log) {
			m := l.image.clone(l.t)
			m.super()[0xce]++
			m.sign()
			l.copies(logCopy{1, m.super()})
			l.commit()
		}, "", "the journal changes the superblock"},
		{"no superblock", func(l *log) { l.copies(logCopy{1, make([]byte, 1024)}); l.commit() }, "", "the journal has a bad superblock"},
		{"descriptors of zeros", func(l *log) { l.copies(logCopy{2, make([]byte, 1024)}) }, "", "the journal moves the block bitmap of group 0"},
		{"start outside", func(l *log) { binary.BigEndian.PutUint32(l.super[0x1c:], uint32(l.length)) }, "", "the log starts at block"},
		{"no end", func(l *log) {
			for range l.length {
				l.revoke()
			}
		}, "", "the log of the journal has no end"},
		{"no end in a descriptor", func(l *log) {
			start := l.data[l.journal()+l.at*1024:][:1024]
			for range (l.length-l.first)/2 - 1 {
				l.copies(logCopy{5000, make([]byte, 1024)})
			}
			kept := slices.Clone(start)
			l.copies(slices.Repeat([]logCopy{{5000, make([]byte, 1024)}}, 3)...)
			copy(start, kept) // the third copy went there
		}, "", "the log of the journal has no end"},
		{"full", func(l *log) {
			for l.at != 1 && l.at != l.length-3 || l.sequence < 5 {
				l.copies(logCopy{5000, make([]byte, 1024)})
				l.commit()
			}
		}, "", ""},
		{"bad descriptor", func(l *log) { l.copies(with(l.image, 0))[900]++; l.commit() }, "", "csum: bad checksum in transaction"},
		{"bad descriptor, not committed", func(l *log) { l.copies(with(l.image, 200, 1))[900]++ }, "1600+1", ""},
		{"bad commit", func(l *log) { l.copies(with(l.image, 0)); l.commit()[60]++ }, "", "csum: bad checksum in transaction"},
		{"bad copy", func(l *log) {
			at := l.at + 1
			l.copies(with(l.image, 0))
			l.data[l.journal()+at*1024+200] ^= 1
			l.commit()
		}, "", "group 2|csum: bad checksum of block"},
		{"bad copy of another block", func(l *log) {
			at := l.at + 1
			l.copies(logCopy{5000, make([]byte, 1024)})
			l.data[l.journal()+at*1024+200] ^= 1
			l.commit()
		}, "", ""},
	} {
		for _, f := range []struct {
			base     string
			features uint32
			wrap     bool
		}{
			{"metadata_csum,64bit,flex_bg", feature64Bit | featureCsum3, false},
			{"metadata_csum,64bit,flex_bg", feature64Bit | featureCsum3, true},
			{"metadata_csum,64bit,flex_bg", feature64Bit | featureCsum2, true},
			{"metadata_csum,64bit,flex_bg", feature64Bit, false},
			{"uninit_bg,^flex_bg", featureCsum2, false},
			{"uninit_bg,^flex_bg", featureCsum3, true},
			{"", 0, true},
		} {
			t.Run(fmt.Sprintf("%s/%s %#x %v", tc.name, f.base, f.features, f.wrap), func(t *testing.T) {
				base := bases[f.base]
				m := base.clone(t)
				want := free[f.base]
				start := int64(1)
				if f.wrap {
					start = 1021
				}
				l := newLog(m, f.features, start, 4000000000)
				tc.write(l)
				l.end()

				why, csumOnly := strings.CutPrefix(tc.whole, "csum: ")
				if plain, sum, ok := strings.Cut(tc.whole, "|csum: "); ok {
					if why = plain; l.csum() {
						why = sum
					}
				} else if csumOnly && !l.csum() {
					why = ""
				}
				fs, got := m.probe()
				if !strings.Contains(fs.Whole, why) || why == "" && fs.Whole != "" {
					t.Fatalf("whole because %q, want %q", fs.Whole, why)
				}
				if why != "" {
					return
				}
				for _, w := range strings.Fields(tc.used) {
					var first, n int64
					if _, err := fmt.Sscanf(w, "%d+%d", &first, &n); err != nil {
						t.Fatal(err)
					}
					want = without(want, fsys.Extent{Off: (1 + 2*2048 + first) * 1024, Len: n * 1024})
				}
				if !slices.Equal(got, want) {
					t.Errorf("free\n\t%v\nwant\n\t%v", got, want)
				}
			})
		}
	}

	// What this test writes is also what e2fsck reads.
	for features, base := range bases {
		for _, flags := range []uint32{0, featureCsum2, featureCsum3} {
			m := base.clone(t)
			if strings.Contains(features, "64bit") {
				flags |= feature64Bit
			}
			l := newLog(m, flags, 1020, 77)
			data := slices.Repeat([]byte("data"), 256)
			l.copies(logCopy{5000, data}, logCopy{5001, append([]byte{0xc0, 0x3b, 0x39, 0x98}, data[4:]...)}, with(m, 0))
			l.commit()
			l.copies(logCopy{5002, data})
			l.revoke(5001)
			l.commit()
			l.copies(logCopy{5003, data}, logCopy{5004, append([]byte{0xc0, 0x3b, 0x39, 0x98}, data[4:]...)})
			l.commit()
			l.copies(logCopy{5005, data})
			name := filepath.Join(scratch(t), "image")
			if err := os.WriteFile(name, m.data, 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, 1, "e2fsck", "-fy", name)
			after := load(t, name)
			for block, want := range map[int64]string{5000: "data", 5001: "\x00\x00\x00\x00", 5002: "data", 5003: "data", 5004: "\xc0\x3b\x39\x98", 5005: "\x00\x00\x00\x00"} {
				if got := string(after.block(block)[:4]); got != want {
					t.Errorf("%q %#x: block %d begins with %q after e2fsck, want %q", features, flags, block, got, want)
				}
			}
		}
	}
}

// without returns what is in all but not in x.
func without(all []fsys.Extent, x fsys.Extent) []fsys.Extent {
	var left []fsys.Extent
	for _, a := range all {
		if n := min(a.End(), x.Off) - a.Off; n > 0 {
			left = append(left, fsys.Extent{Off: a.Off, Len: n})
		}
		if off := max(a.Off, x.End()); off < a.End() {
			left = append(left, fsys.Extent{Off: off, Len: a.End() - off})
		}
	}
	return left
}
