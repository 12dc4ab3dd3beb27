package arena_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/internal/arena"
)

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
		{name: "unknown encoding", patch: func(b []byte) []byte { b[29] = 4; return b }, decode: arena.ErrEncoding},
		{name: "marked", patch: func(b []byte) []byte { b[4] = 255; return b }, decode: venti.ErrCorrupt},
		{name: "data", patch: func(b []byte) []byte { b[40]++; return b }, decode: venti.ErrCorrupt},
		{name: "less data", patch: func(b []byte) []byte { return b[:48] }, decode: venti.ErrCorrupt},
		{name: "bad whack", patch: func(b []byte) []byte { b[8], b[29], b[38] = 99, 2, 0xff; return b }, decode: venti.ErrCorrupt},
		{name: "zstd, same size", patch: func(b []byte) []byte { b[29] = 3; return b }, header: arena.ErrFormat},
		{name: "bad zstd", patch: func(b []byte) []byte { b[8], b[29] = 99, 3; return b }, decode: venti.ErrCorrupt},
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
	if got := arena.Plain.String() + " " + arena.Whack.String() + " " + arena.Zstd.String() + " " + arena.Encoding(9).String(); got != "plain whack zstd encoding9" {
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

func FuzzClump(f *testing.F) {
	var e arena.Encoder
	for i := range 8 {
		h := arena.ClumpHeader{Magic: 7}
		h.Type = venti.DiskData
		f.Add(e.Append(nil, &h, lump(i, 50+i), arena.Whack+arena.Encoding(i/4)))
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
