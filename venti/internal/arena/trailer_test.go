package arena_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/internal/arena"
)

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

// TestTrailerVector reads and writes a trailer that plan9port wrote
// (venti-storage, section 4.2).
func TestTrailerVector(t *testing.T) {
	want := make([]byte, 8192)
	hex.Decode(want, []byte("f2a14ead000000056172656e6130"))
	hex.Decode(want[72:], []byte("00000007000000066b0354c76b0354c7f87e12f2000000000000016400000000000005930000"))
	got, err := arena.UnpackTrailer(want)
	stats := arena.Stats{Clumps: 7, CClumps: 6, Used: 356, UncSize: 1427}
	if tr := (arena.Trailer{
		Version: 5, Name: "arena0", ClumpMagic: 0xf87e12f2, CTime: 0x6b0354c7, WTime: 0x6b0354c7, Disk: stats, Mem: stats,
	}); err != nil || got != tr {
		t.Errorf("trailer is %+v, %v, want %+v", got, err, tr)
	}
	block := make([]byte, 8192)
	got.Pack(block)
	if !bytes.Equal(block, want) {
		t.Errorf("trailer becomes %x, want %x", block[:140], want[:140])
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
		{"fewer bytes in the log than in the index", func(b []byte) []byte { b[109], b[113], b[125] = 1, 2, 90; return b }},
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

// TestTrailerOfAMirror reads what Plan 9's mirrorarenas leaves: an extension
// that is older than what it extends.
func TestTrailerOfAMirror(t *testing.T) {
	tr := arena.Trailer{Version: 5, Name: "a0", ClumpMagic: 7}
	tr.Mem = arena.Stats{Clumps: 2, CClumps: 1, Used: 100, UncSize: 50}
	tr.Disk = tr.Mem
	block := make([]byte, 512)
	tr.Pack(block)
	block[109] = 1
	got, err := arena.UnpackTrailer(block)
	if err != nil || got != tr {
		t.Errorf("%+v, %v, want %+v", got, err, tr)
	}
}
