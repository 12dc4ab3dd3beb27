package arena_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"strata/venti"
	"strata/venti/internal/arena"
)

// A built arena is one that a test made, with what is in it.
type built struct {
	*arena.Arena
	file  *memory
	lumps [][]byte
	at    []arena.Pos // where each lump's clump is
	tr    arena.Trailer
}

// lump returns lump i of size bytes, which compresses if i is even.
func lump(i, size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(b)
	if i%2 == 0 {
		copy(b, bytes.Repeat(b[:min(40, size)], size/40))
	}
	return b
}

// build formats a partition with one arena and appends n lumps to it. The
// trailer says that the first indexed of them are in the index.
func build(tb testing.TB, version, n, indexed int) *built {
	tb.Helper()
	f := &memory{b: make([]byte, 1<<20+600<<10)}
	p, err := arena.Format(tb.Context(), f, arena.FormatConfig{
		Name: "t", ArenaSize: 768 << 10, BlockSize: 512, Version: version,
		Rand: bytes.NewReader([]byte{0xc0, 0xff, 0xee, 0x01, 0xc0, 0xff, 0xee, 0x02}),
	})
	if err != nil {
		tb.Fatal(err)
	}
	b := &built{file: f}
	b.Arena, b.tr = openArena(tb, p, 0)
	b.tr.CTime, b.tr.WTime = 1000, 1000
	for i := range n {
		b.append(tb, lump(i, 1+i*97%3000))
		if len(b.at) == indexed {
			b.tr.Disk = b.tr.Mem
		}
	}
	b.writeTrailer(tb)
	return b
}

// append adds a clump to the log and the directory, and counts it.
func (b *built) append(tb testing.TB, lump []byte) {
	tb.Helper()
	var e arena.Encoder
	h := arena.ClumpHeader{
		Magic:     b.ClumpMagic,
		ClumpInfo: arena.ClumpInfo{Type: venti.DiskData, Score: venti.ScoreOf(lump)},
		Time:      b.tr.WTime,
	}
	clump := e.Append(nil, &h, lump, arena.Whack)
	at := b.tr.Mem.End()
	if !b.Fits(at, int(h.Size)) {
		tb.Fatalf("clump %d does not fit", at.Clump)
	}
	if err := b.WriteLog(append(clump, 0, 0, 0, 0), at.Off); err != nil {
		tb.Fatal(err)
	}
	if err := b.WriteInfos([]arena.ClumpInfo{h.ClumpInfo}, at.Clump); err != nil {
		tb.Fatal(err)
	}
	b.tr.Mem.Add(&h.ClumpInfo)
	b.lumps = append(b.lumps, lump)
	b.at = append(b.at, at)
}

func (b *built) writeTrailer(tb testing.TB) {
	tb.Helper()
	if err := b.WriteTrailer(&b.tr); err != nil {
		tb.Fatal(err)
	}
}

// seal seals the arena.
func (b *built) seal(tb testing.TB) {
	tb.Helper()
	b.tr.Mem.Sealed = true
	b.tr.Disk = b.tr.Mem
	b.writeTrailer(tb)
	var err error
	if b.tr.Seal, err = b.Sum(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	b.writeTrailer(tb)
}

// flip changes bytes of the log.
func (b *built) flip(clump, off, n int) {
	from := b.Base() + b.at[clump].Off + int64(off)
	for i := range b.file.b[from : from+int64(n)] {
		b.file.b[int(from)+i] ^= 0x55
	}
}

// flipDir changes bytes of a clump's directory entry.
func (b *built) flipDir(clump, off, n int) {
	per := b.BlockSize / 25
	from := b.Stop - int64(clump/per+2)*int64(b.BlockSize) + int64(clump%per*25+off)
	for i := range b.file.b[from : from+int64(n)] {
		b.file.b[int(from)+i] ^= 0x55
	}
}

// check runs Check and returns its findings, a line each.
func (b *built) check(tb testing.TB, o arena.CheckOptions) (lines []string, faults int) {
	tb.Helper()
	err := b.Check(tb.Context(), o, func(f *arena.Finding) {
		lines = append(lines, f.String())
		if f.Fault {
			faults++
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return lines, faults
}

// verify checks that every lump but those lost can be read.
func (b *built) verify(tb testing.TB, lost ...int) {
	tb.Helper()
	isLost := map[int]bool{}
	for _, i := range lost {
		isLost[i] = true
	}
	for i, want := range b.lumps {
		h, data, err := b.ReadClump(b.at[i].Off, nil)
		var got []byte
		if err == nil {
			got, err = h.Decode(make([]byte, venti.MaxBlockSize), data)
		}
		if isLost[i] != (err != nil) {
			tb.Errorf("clump %d: %v", i, err)
		} else if err == nil && !bytes.Equal(got, want) {
			tb.Errorf("clump %d has other bytes", i)
		}
	}
}

// scan returns the numbers of the clumps that Scan finds from a place on, a
// minus before those with an error, and why it ended.
func (b *built) scan(tb testing.TB, from arena.Pos, limit int64) (string, arena.End) {
	tb.Helper()
	var s []byte
	end, err := b.Scan(tb.Context(), from, limit, func(c *arena.Clump) error {
		if c.Err != nil {
			s = append(s, '-')
		} else if want := b.lumps[c.Clump]; !bytes.Equal(c.Data, want) {
			tb.Errorf("scan: clump %d has other bytes", c.Clump)
		}
		s = fmt.Appendf(s, "%d ", c.Clump)
		if c.Pos != b.at[c.Clump] {
			tb.Errorf("scan: clump %d at %+v, want %+v", c.Clump, c.Pos, b.at[c.Clump])
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return string(s), end
}
