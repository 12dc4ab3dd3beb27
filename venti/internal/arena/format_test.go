package arena_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/internal/arena"
)

const blank = arena.PartBlank

// partition returns the bytes of a partition with blocks of 8192 and a table.
func partition(size int, table string) []byte {
	b := make([]byte, size)
	copy(b[blank:], "\xa9\xe4\xa5\xe7\x00\x00\x00\x03\x00\x00\x20\x00\x00\x0c\x20\x00")
	copy(b[270336:], table)
	return b
}

func TestOpenPartition(t *testing.T) {
	const size = 2 << 20
	for _, tc := range []struct {
		name  string
		table string
		patch func(b []byte) []byte
		want  string // what the error has in it, "" for none
	}{
		{name: "one arena", table: "1\na0\t794624\t1843200\n"},
		{name: "no arena", table: "0\n"},
		{name: "a gap between two", table: "2\na0\t794624\t1000000\na1\t1100000\t2097152\n"},
		{name: "text behind the table", table: "1\na0\t794624\t1843200\nrest"},
		{name: "no table", want: "table starts with"},
		{name: "no number", table: "x\n", want: "table starts with"},
		{name: "negative number", table: "-1\n", want: "table starts with"},
		{name: "too many", table: "31745\n", want: "table of 31745 arenas, more than 31744"},
		{name: "fewer than it says", table: "2\na0\t794624\t1843200\n", want: "ends early"},
		{name: "two fields", table: "1\na0\t794624\n", want: "has no three fields"},
		{name: "bad offset", table: "1\na0\t794624\t0x1c2000\n", want: "bad numbers"},
		{name: "negative offset", table: "1\na0\t-1\t1843200\n", want: "bad numbers"},
		{name: "no name", table: "1\n\t794624\t1843200\n", want: "bad name"},
		{name: "long name", table: "1\n" + strings.Repeat("a", 64) + "\t794624\t1843200\n", want: "bad name"},
		{name: "same name", table: "2\na0\t794624\t1000000\na0\t1000000\t1843200\n", want: "repeats a name"},
		{name: "in the table", table: "1\na0\t786432\t1843200\n", want: "outside"},
		{name: "past the end", table: "1\na0\t794624\t2097153\n", want: "outside"},
		{name: "two in one place", table: "2\na0\t794624\t1000000\na1\t999999\t1843200\n", want: "outside"},
		{name: "backwards", table: "1\na0\t1843200\t794624\n", want: "too small"},
		{name: "too small", table: "1\na0\t794624\t802816\n", want: "too small"},
		{name: "magic", patch: func(b []byte) []byte { b[blank] = 0; return b }, want: "header has magic"},
		{name: "version", patch: func(b []byte) []byte { b[blank+7] = 4; return b }, want: "header has version 4"},
		{name: "block size", patch: func(b []byte) []byte { b[blank+10] = 0x21; return b }, want: "block size"},
		{name: "no block size", patch: func(b []byte) []byte { b[blank+10] = 0; return b }, want: "block size"},
		{name: "huge block size", patch: func(b []byte) []byte { b[blank+8] = 0x80; return b }, want: "block size"},
		{name: "arenas before the table", patch: func(b []byte) []byte { b[blank+13] = 0; return b }, want: "before the table"},
		{name: "arenas past the end", patch: func(b []byte) []byte { b[blank+12] = 0xff; return b }, want: "past the end"},
		{name: "shorter than a header", patch: func(b []byte) []byte { return b[:blank] }, want: "partition of 262144 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := partition(size, tc.table)
			if tc.patch != nil {
				b = tc.patch(b)
			}
			_, err := arena.OpenPartition(&memory{b: b})
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (!errors.Is(err, arena.ErrFormat) || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want ErrFormat with %q", err, tc.want)
			}
		})
	}
}

func TestFormatVersions(t *testing.T) {
	for _, version := range []int{4, 5} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			f := &memory{b: bytes.Repeat([]byte("old data"), 3<<17)}
			p, err := arena.Format(t.Context(), f, arena.FormatConfig{Name: "a", ArenaSize: 1 << 20, Version: version, Zero: version == 4})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(f.b[:blank], bytes.Repeat([]byte("old data"), blank/8)) {
				t.Error("the blank at the start was written")
			}
			if got := fmt.Sprint(p.Arenas); got != "[{a0 794624 1843200} {a1 1843200 3145728}]" {
				t.Errorf("arenas are %s", got)
			}
			magics := map[uint32]bool{}
			for i := range p.Arenas {
				a, tr := openArena(t, p, i)
				if want := (arena.Trailer{Version: version, Name: a.Name, ClumpMagic: a.ClumpMagic}); tr != want {
					t.Errorf("trailer %+v, want %+v", tr, want)
				}
				magics[a.ClumpMagic] = true
				b := &built{Arena: a, file: f}
				if lines, _ := b.check(t, arena.CheckOptions{Data: true}); len(lines) > 0 {
					t.Errorf("check finds %q", lines)
				}
				rest := f.b[a.Base()+8192 : a.Stop-8192]
				if isZero := len(bytes.Trim(rest, "\x00")) == 0; isZero != (version == 4) {
					t.Errorf("rest of the log is zero: %v", isZero)
				}
			}
			if want := version - 3; len(magics) != want {
				t.Errorf("%d clump magics, want %d", len(magics), want)
			}
		})
	}
}

// A failing file fails its writes from the nth on.
type failing struct {
	memory
	left int
}

var errBroken = errors.New("broken")

func (f *failing) WriteAt(b []byte, off int64) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errBroken
	}
	return f.memory.WriteAt(b, off)
}

// TestFormatInterrupted formats a partition again and fails at every write:
// what is left is not a partition of either kind.
func TestFormatInterrupted(t *testing.T) {
	old := make([]byte, 4<<20)
	cfg := arena.FormatConfig{Name: "a", ArenaSize: 1 << 20}
	if _, err := arena.Format(t.Context(), &memory{b: old}, cfg); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		f := &failing{memory: memory{b: bytes.Clone(old)}, left: n}
		_, err := arena.Format(t.Context(), f, cfg)
		if err == nil {
			if n < 10 {
				t.Errorf("formatting takes %d writes", n)
			}
			break
		}
		if !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		if _, err := arena.OpenPartition(f); n > 0 && !errors.Is(err, arena.ErrFormat) {
			t.Errorf("after %d writes: %v", n, err)
		}
	}
}

func TestFormatCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := arena.Format(ctx, &memory{b: make([]byte, 4<<20)}, arena.FormatConfig{Name: "a"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

// TestTrailerRoundTrip packs random trailers over random bytes.
func TestTrailerRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	stats := func(from arena.Stats) arena.Stats {
		n := rng.Uint32() / 4
		s := arena.Stats{Clumps: from.Clumps + n, CClumps: from.CClumps + n/2, Sealed: from.Sealed}
		s.Used = from.Used + int64(n)*int64(39+rng.IntN(8000))
		s.UncSize = from.UncSize + rng.Int64N(1<<50)
		return s
	}
	for range 1000 {
		want := arena.Trailer{
			Version: 4 + rng.IntN(2), Name: fmt.Sprintf("arena%d", rng.IntN(1000)), ClumpMagic: 0xd15cb10c,
			CTime: rng.Uint32(), WTime: rng.Uint32(),
		}
		if want.Version == 5 {
			want.ClumpMagic = rng.Uint32() | 1
		}
		want.Disk = stats(arena.Stats{Sealed: rng.IntN(2) == 0})
		want.Mem = want.Disk
		if rng.IntN(2) == 0 {
			want.Mem = stats(want.Disk)
		}
		if rng.IntN(2) == 0 {
			want.Seal = venti.ScoreOf([]byte(want.Name))
		}
		old := make([]byte, 512)
		for i := range old {
			old[i] = byte(rng.Uint32())
		}
		block := bytes.Clone(old)
		want.Pack(block)
		got, err := arena.UnpackTrailer(block)
		if err != nil || got != want {
			t.Fatalf("trailer %+v became %+v, %v", want, got, err)
		}
		// Between the last field and the seal nothing changes.
		end := 135
		if want.Version == 4 {
			end = 131
		}
		if !bytes.Equal(block[end:512-20], old[end:512-20]) {
			t.Fatalf("packing %+v changed bytes without meaning", want)
		}
	}
}

func TestUnpackTrailerRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		patch func(b []byte) []byte
	}{
		{"short", func(b []byte) []byte { return b[:154] }},
		{"magic", func(b []byte) []byte { b[0] ^= 1; return b }},
		{"version 3", func(b []byte) []byte { b[7] = 3; return b }},
		{"empty name", func(b []byte) []byte { b[8] = 0; return b }},
		{"name with a blank", func(b []byte) []byte { b[8] = ' '; return b }},
		{"endless name", func(b []byte) []byte { copy(b[8:72], strings.Repeat("a", 64)); return b }},
		{"clump magic 0", func(b []byte) []byte { clear(b[88:92]); return b }},
		{"negative used", func(b []byte) []byte { b[92] = 0x80; return b }},
		{"negative uncsize", func(b []byte) []byte { b[100] = 0x80; return b }},
		{"more clumps than bytes", func(b []byte) []byte { b[72] = 1; return b }},
		{"more compressed clumps than clumps", func(b []byte) []byte { b[76] = 1; return b }},
		{"bytes without clumps", func(b []byte) []byte { clear(b[72:80]); return b }},
		{"less in the log than in the index", func(b []byte) []byte { b[109] = 1; return b }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := arena.Trailer{Version: 5, Name: "a0", ClumpMagic: 7}
			tr.Mem = arena.Stats{Clumps: 2, CClumps: 1, Used: 100, UncSize: 50}
			tr.Disk = tr.Mem
			block := make([]byte, 512)
			tr.Pack(block)
			if _, err := arena.UnpackTrailer(tc.patch(block)); !errors.Is(err, arena.ErrFormat) {
				t.Errorf("error %v, want ErrFormat", err)
			}
		})
	}
	// What an old server left out is put right.
	tr := arena.Trailer{Version: 5, Name: "a0", ClumpMagic: 7, Disk: arena.Stats{Sealed: true}}
	block := make([]byte, 512)
	tr.Pack(block)
	if tr, err := arena.UnpackTrailer(block); err != nil || !tr.Mem.Sealed {
		t.Errorf("trailer is %+v, %v, want Mem sealed", tr, err)
	}
}

// TestTrailerOfAnother checks what an arena demands of its trailer.
func TestTrailerOfAnother(t *testing.T) {
	b := build(t, 5, 3, 3)
	for _, tc := range []struct {
		name   string
		change func(tr *arena.Trailer)
	}{
		{"name", func(tr *arena.Trailer) { tr.Name = "b0" }},
		{"too much", func(tr *arena.Trailer) { tr.Mem.Used = b.Size() + 1 }},
		{"no room for the directory", func(tr *arena.Trailer) { tr.Mem.Clumps, tr.Mem.Used = 10000, b.Size()-499*512 }},
	} {
		tr := b.tr
		tc.change(&tr)
		tr.Disk = tr.Mem
		if err := b.WriteTrailer(&tr); !errors.Is(err, arena.ErrFormat) {
			t.Errorf("%s: writing gives %v, want ErrFormat", tc.name, err)
		}
		block := b.file.b[b.Stop-512 : b.Stop]
		old := bytes.Clone(block)
		tr.Pack(block)
		if _, err := b.ReadTrailer(); !errors.Is(err, arena.ErrFormat) {
			t.Errorf("%s: reading gives %v, want ErrFormat", tc.name, err)
		}
		copy(block, old)
	}
}

func TestClumpHeader(t *testing.T) {
	lump := []byte("hello world")
	h := arena.ClumpHeader{Magic: 0xf87e12f2, Time: 0x6b0354c7}
	h.Type, h.Score = venti.DiskData, venti.ScoreOf(lump)
	var e arena.Encoder
	clump := e.Append(nil, &h, lump, arena.Whack)
	// As measured: venti-storage, section 5.
	const want = "f87e12f20d000b000b2aae6c35c94fcfb415dbe95f408b9ce91ee846ed01000000006b0354c768656c6c6f20776f726c64"
	if got := fmt.Sprintf("%x", clump); got != want {
		t.Errorf("clump %s, want %s", got, want)
	}
	for _, tc := range []struct {
		name   string
		patch  func(b []byte) []byte
		header error // of UnpackClumpHeader
		decode error
	}{
		{name: "whole"},
		{name: "short", patch: func(b []byte) []byte { return b[:37] }, header: arena.ErrFormat},
		{name: "magic", patch: func(b []byte) []byte { b[3]++; return b }, header: arena.ErrFormat},
		{name: "plain, other size", patch: func(b []byte) []byte { b[6]++; return b }, header: arena.ErrFormat},
		{name: "whack, same size", patch: func(b []byte) []byte { b[29] = 2; return b }, header: arena.ErrFormat},
		{name: "empty", patch: func(b []byte) []byte { b[6], b[8] = 0, 0; return b }, header: arena.ErrFormat},
		{name: "too long", patch: func(b []byte) []byte { b[5], b[7] = 0xff, 0xff; return b }, header: arena.ErrFormat},
		{name: "unknown encoding", patch: func(b []byte) []byte { b[29] = 3; return b }, decode: arena.ErrEncoding},
		{name: "marked", patch: func(b []byte) []byte { b[4] = 255; return b }, decode: venti.ErrCorrupt},
		{name: "data", patch: func(b []byte) []byte { b[40]++; return b }, decode: venti.ErrCorrupt},
		{name: "less data", patch: func(b []byte) []byte { return b[:48] }, decode: venti.ErrCorrupt},
		{name: "bad whack", patch: func(b []byte) []byte { b[8], b[29], b[38] = 99, 2, 0xff; return b }, decode: venti.ErrCorrupt},
		{name: "whack of other size", patch: func(b []byte) []byte { b[8], b[29] = 99, 2; clear(b[38:]); return b }, decode: venti.ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := bytes.Clone(clump)
			if tc.patch != nil {
				b = tc.patch(b)
			}
			h, err := arena.UnpackClumpHeader(b, 0xf87e12f2)
			if !errors.Is(err, tc.header) {
				t.Fatalf("header gives %v, want %v", err, tc.header)
			}
			if tc.header != nil {
				return
			}
			got, err := h.Decode(make([]byte, 100), b[arena.ClumpHeaderSize:])
			if !errors.Is(err, tc.decode) || (err == nil && !bytes.Equal(got, lump)) {
				t.Errorf("data gives %q, %v, want %v", got, err, tc.decode)
			}
		})
	}
	if got := arena.Plain.String() + " " + arena.Whack.String() + " " + arena.Encoding(9).String(); got != "plain whack encoding9" {
		t.Errorf("encodings are called %s", got)
	}
}

// TestFill appends until nothing fits, and reads all of it back.
func TestFill(t *testing.T) {
	b := build(t, 5, 0, 0)
	for i := 0; b.Fits(b.tr.Mem.End(), 1); i++ {
		size := 1 + i*31%500
		if !b.Fits(b.tr.Mem.End(), size) {
			size = 1
		}
		b.append(t, lump(2*i+1, size))
	}
	b.writeTrailer(t)
	b.verify(t)
	s, end := b.scan(t, arena.Pos{}, -1)
	if n := strings.Count(s, " "); n != len(b.lumps) || strings.Contains(s, "-") || end.Pos != b.tr.Mem.End() || end.Reason != arena.EndFull {
		t.Errorf("scan finds %d clumps and ends %+v, want %d, %+v, full", n, end, len(b.lumps), b.tr.Mem.End())
	}
	if lines, _ := b.check(t, arena.CheckOptions{Data: true}); len(lines) > 0 {
		t.Errorf("check finds %q", lines)
	}
	free := b.Size() - b.tr.Mem.Used - b.DirSize(int(b.tr.Mem.Clumps))
	t.Logf("%d clumps, %d bytes left", len(b.lumps), free)
	if free < 0 || free > 2*512 {
		t.Errorf("%d bytes left", free)
	}
}

// TestDirectory writes and reads ranges of entries, in blocks of 20.
func TestDirectory(t *testing.T) {
	b := build(t, 5, 0, 0)
	rng := rand.New(rand.NewPCG(2, 2))
	want := make([]arena.ClumpInfo, 13000) // more than is read at once
	for range 200 {
		first := rng.IntN(len(want))
		infos := make([]arena.ClumpInfo, rng.IntN(len(want)-first+1))
		for i := range infos {
			infos[i] = arena.ClumpInfo{Type: venti.DiskType(rng.Uint32()), Size: uint16(rng.Uint32()), UncSize: uint16(rng.Uint32())}
			binary.BigEndian.PutUint64(infos[i].Score[:], rng.Uint64())
		}
		if err := b.WriteInfos(infos, first); err != nil {
			t.Fatal(err)
		}
		copy(want[first:], infos)
		first = rng.IntN(len(want))
		got := make([]arena.ClumpInfo, rng.IntN(len(want)-first+1))
		if err := b.ReadInfos(got, first); err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i] != want[first+i] {
				t.Fatalf("entry %d of %d from %d is %v, want %v", i, len(got), first, got[i], want[first+i])
			}
		}
	}
	if lines, _ := b.check(t, arena.CheckOptions{Data: true}); len(lines) > 0 {
		t.Errorf("the directory is not where it should be: %q", lines)
	}
	for _, r := range [][2]int{{-1, 1}, {1 << 20, 1}, {0, 1 << 20}} {
		if err := b.ReadInfos(make([]arena.ClumpInfo, r[1]), r[0]); err == nil {
			t.Errorf("reading %d entries from %d worked", r[1], r[0])
		}
	}
}

// TestScan ends a log of 10 clumps in every way.
func TestScan(t *testing.T) {
	for _, tc := range []struct {
		name   string
		damage func(b *built)
		from   int
		limit  int // clump, or -1
		want   string
		reason arena.EndReason
	}{
		{name: "whole", limit: -1, want: "0 1 2 3 4 5 6 7 8 9 ", reason: arena.EndFree},
		{name: "from the middle", from: 4, limit: -1, want: "4 5 6 7 8 9 ", reason: arena.EndFree},
		{name: "up to the middle", from: 2, limit: 5, want: "2 3 4 ", reason: arena.EndLimit},
		{name: "nothing", from: 5, limit: 5, reason: arena.EndLimit},
		{name: "damaged", damage: func(b *built) { b.flip(4, 40, 1); b.flip(5, 40, 1) }, limit: -1, want: "0 1 2 3 -4 -5 6 7 8 9 ", reason: arena.EndFree},
		{name: "damaged first", damage: func(b *built) { b.flip(0, 38, 1) }, limit: -1, want: "-0 1 2 3 4 5 6 7 8 9 ", reason: arena.EndFree},
		{name: "torn", damage: func(b *built) { b.flip(8, 40, 1); b.flip(9, 40, 1) }, limit: -1, want: "0 1 2 3 4 5 6 7 ", reason: arena.EndTorn},
		{name: "header gone", damage: func(b *built) { b.flip(4, 6, 1) }, limit: -1, want: "0 1 2 3 ", reason: arena.EndTorn},
		{name: "stale", damage: func(b *built) { b.flip(4, 3, 1) }, limit: -1, want: "0 1 2 3 ", reason: arena.EndStale},
		{name: "damaged, then stale", damage: func(b *built) { b.flip(3, 40, 1); b.flip(4, 3, 1) }, limit: -1, want: "0 1 2 ", reason: arena.EndTorn},
		{name: "unknown encoding", damage: func(b *built) { b.flip(9, 29, 1) }, limit: -1, want: "0 1 2 3 4 5 6 7 8 -9 ", reason: arena.EndFree},
		{name: "limit inside a clump", damage: func(b *built) { b.at = append(b.at, arena.Pos{Off: b.at[5].Off - 1}) }, limit: 10, want: "0 1 2 3 ", reason: arena.EndTorn},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := build(t, 5, 10, 10)
			if tc.damage != nil {
				tc.damage(b)
			}
			limit := int64(-1)
			if tc.limit >= 0 {
				limit = b.at[tc.limit].Off
			}
			got, end := b.scan(t, b.at[tc.from], limit)
			next := tc.from + strings.Count(tc.want, " ")
			want := b.tr.Mem.End()
			if next < len(b.lumps) {
				want = b.at[next]
			}
			if got != tc.want || end.Reason != tc.reason || end.Pos != want {
				t.Errorf("found %s and ended %+v %v, want %s, %+v %v", got, end.Pos, end.Reason, tc.want, want, tc.reason)
			}
		})
	}
	t.Run("function fails", func(t *testing.T) {
		b := build(t, 5, 10, 10)
		end, err := b.Scan(t.Context(), arena.Pos{}, -1, func(c *arena.Clump) error {
			if c.Clump == 3 {
				return errBroken
			}
			return nil
		})
		if !errors.Is(err, errBroken) || end.Pos != b.at[3] {
			t.Errorf("ended %+v, %v, want %+v, %v", end, err, b.at[3], errBroken)
		}
	})
}

// TestReadClump reads clumps with buffers of all lengths.
func TestReadClump(t *testing.T) {
	b := build(t, 5, 10, 10)
	for _, have := range []int{0, 1, 38, 39, 100, 1000, 5000, 1 << 20} {
		for i, want := range b.lumps {
			h, data, err := b.ReadClump(b.at[i].Off, make([]byte, have))
			var got []byte
			if err == nil {
				got, err = h.Decode(make([]byte, len(want)), data)
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("clump %d, buffer of %d: %v", i, have, err)
			}
		}
	}
	for _, off := range []int64{1, b.tr.Mem.Used, b.Size() - 10, b.Size()} {
		if _, _, err := b.ReadClump(off, nil); !errors.Is(err, venti.ErrCorrupt) {
			t.Errorf("clump at %d: %v, want ErrCorrupt", off, err)
		}
	}
	for _, off := range []int64{-1, b.Size() + 1} {
		if _, _, err := b.ReadClump(off, nil); err == nil || errors.Is(err, venti.ErrCorrupt) {
			t.Errorf("clump at %d: %v, want another error", off, err)
		}
	}
	if err := b.MarkCorrupt(b.at[3].Off); err != nil {
		t.Fatal(err)
	}
	b.verify(t, 3)
	if err := b.WriteLog([]byte("xx"), b.Size()-1); err == nil {
		t.Error("writing past the end worked")
	}
}

func FuzzPartition(f *testing.F) {
	for _, table := range []string{"1\na0\t794624\t1843200\n", "2\na0\t794624\t1000000\na1\t1100000\t2097152\n", "31744\n\t\t\n"} {
		f.Add([]byte("\xa9\xe4\xa5\xe7\x00\x00\x00\x03\x00\x00\x20\x00\x00\x0c\x20\x00"), table)
	}
	b := make([]byte, 1<<20)
	f.Fuzz(func(t *testing.T, header []byte, table string) {
		clear(b[blank:])
		copy(b[270336:], table)
		copy(b[blank:270336], header)
		p, err := arena.OpenPartition(&memory{b: b})
		if err != nil {
			return
		}
		at := p.ArenaBase
		for i, e := range p.Arenas {
			if e.Start < at || e.Stop > int64(len(b)) || e.Stop-e.Start < 2*int64(p.BlockSize) {
				t.Errorf("arena %d is %+v", i, e)
			}
			at = e.Stop
			if a, err := p.OpenArena(i); err == nil {
				if err := a.Check(t.Context(), arena.CheckOptions{Data: true}, func(*arena.Finding) {}); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func FuzzTrailer(f *testing.F) {
	for _, version := range []int{4, 5} {
		tr := arena.Trailer{Version: version, Name: "a0", ClumpMagic: 0xd15cb10c, Mem: arena.Stats{Clumps: 2, Used: 100}}
		block := make([]byte, 512)
		tr.Pack(block)
		f.Add(block)
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		want, err := arena.UnpackTrailer(block)
		if err != nil {
			return
		}
		again := bytes.Clone(block)
		want.Pack(again)
		if got, err := arena.UnpackTrailer(again); err != nil || got != want {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
	})
}

func FuzzClump(f *testing.F) {
	var e arena.Encoder
	for i := range 4 {
		h := arena.ClumpHeader{Magic: 7}
		h.Type = venti.DiskData
		f.Add(e.Append(nil, &h, lump(i, 50+i), arena.Whack))
	}
	f.Fuzz(func(t *testing.T, clump []byte) {
		h, err := arena.UnpackClumpHeader(clump, 7)
		if err != nil {
			return
		}
		var b [arena.ClumpHeaderSize]byte
		h.Pack(b[:])
		if !bytes.Equal(b[:], clump[:len(b)]) {
			t.Errorf("header %x became %x", clump[:len(b)], b)
		}
		data := clump[len(b):]
		data = data[:min(len(data), int(h.Size))]
		if lump, err := h.Decode(make([]byte, 1<<16), data); err == nil && venti.ScoreOf(lump) != h.Score {
			t.Error("decoded lump has another score")
		}
	})
}

// FuzzScan scans an arena whose log is the input, behind one good clump.
func FuzzScan(f *testing.F) {
	b := build(f, 5, 6, 6)
	f.Add(bytes.Clone(b.file.b[b.Base()+b.at[1].Off:][:b.tr.Mem.Used]))
	f.Add([]byte{})
	region := b.file.b[b.Base()+b.at[1].Off:][:8192]
	f.Fuzz(func(t *testing.T, log []byte) {
		clear(region)
		copy(region, log)
		at := arena.Pos{}
		end, err := b.Scan(t.Context(), arena.Pos{}, -1, func(c *arena.Clump) error {
			if c.Pos != at {
				t.Errorf("clump at %+v, want %+v", c.Pos, at)
			}
			at = arena.Pos{Off: at.Off + c.Header.LogSize(), Clump: at.Clump + 1}
			if c.Err == nil && venti.ScoreOf(c.Data) != c.Header.Score {
				t.Errorf("clump %d has another score", c.Clump)
			}
			return nil
		})
		if err != nil || end.Pos != at || at.Clump < 1 {
			t.Errorf("ended %+v, %v, want %+v", end, err, at)
		}
	})
}
