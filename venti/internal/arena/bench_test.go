package arena_test

import (
	"fmt"
	"testing"

	"strata/venti"
	"strata/venti/internal/arena"
)

func BenchmarkAppend8K(b *testing.B) {
	for _, bc := range []struct {
		name string
		lump []byte
		enc  arena.Encoding
	}{
		{"plain", lump(1, 8192), arena.Plain},
		{"whack-random", lump(1, 8192), arena.Whack},
		{"whack-repeats", lump(2, 8192), arena.Whack},
	} {
		b.Run(bc.name, func(b *testing.B) {
			var e arena.Encoder
			h := arena.ClumpHeader{Magic: 7}
			h.Type, h.Score = venti.DiskData, venti.ScoreOf(bc.lump)
			buf := make([]byte, 0, arena.MaxClumpSize)
			b.SetBytes(int64(len(bc.lump)))
			b.ReportAllocs()
			for b.Loop() {
				buf = e.Append(buf[:0], &h, bc.lump, bc.enc)
			}
		})
	}
}

// BenchmarkScan reads, decodes and hashes a log of lumps of 8 KiB that do
// not compress.
func BenchmarkScan(b *testing.B) {
	a := build(b, 5, 0, 0)
	for i := 0; a.Fits(a.tr.Mem.End(), 8192); i++ {
		a.append(b, lump(2*i+1, 8192))
	}
	b.SetBytes(a.tr.Mem.Used)
	b.ReportAllocs()
	for b.Loop() {
		end, err := a.Scan(b.Context(), arena.Pos{}, -1, func(c *arena.Clump) error { return c.Err })
		if err != nil || end.Pos != a.tr.Mem.End() {
			b.Fatalf("ended %+v, %v", end, err)
		}
	}
}

func BenchmarkSum(b *testing.B) {
	a := build(b, 5, 0, 0)
	b.SetBytes(a.Stop - a.Start)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Sum(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadInfos(b *testing.B) {
	a := build(b, 5, 0, 0)
	for _, n := range []int{1, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			infos := make([]arena.ClumpInfo, n)
			b.ReportAllocs()
			for b.Loop() {
				if err := a.ReadInfos(infos, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
