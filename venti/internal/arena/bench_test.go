package arena_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

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
		{"zstd-random", lump(1, 8192), arena.Zstd},
		{"zstd-repeats", lump(2, 8192), arena.Zstd},
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

// BenchmarkEncodings compresses and decompresses blocks of a real disk: an
// ext4 file system with the programs and manuals of this machine.
func BenchmarkEncodings(b *testing.B) {
	mke2fs, err := exec.LookPath("mke2fs")
	if err != nil {
		b.Skip("no mke2fs here")
	}
	image := filepath.Join(b.TempDir(), "disk")
	if out, err := exec.Command(mke2fs, "-q", "-t", "ext4", "-d", "/usr/share", image, "2g").CombinedOutput(); err != nil {
		b.Skipf("mke2fs: %v\n%s", err, out)
	}
	disk, err := os.ReadFile(image)
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{4096, 8192} {
		var lumps [][]byte
		zero := make([]byte, size)
		for off := 0; off+size <= len(disk); off += 16 * size {
			if l := disk[off : off+size]; !bytes.Equal(l, zero) {
				lumps = append(lumps, l)
			}
		}
		for _, enc := range []arena.Encoding{arena.Whack, arena.Zstd} {
			b.Run(fmt.Sprintf("%v/%dK", enc, size>>10), func(b *testing.B) {
				var e arena.Encoder
				clumps := make([][]byte, len(lumps))
				headers := make([]arena.ClumpHeader, len(lumps))
				var in, out time.Duration
				stored := 0
				for b.Loop() {
					stored = 0
					start := time.Now()
					for i, l := range lumps {
						headers[i].Type = venti.DiskData
						clumps[i] = e.Append(clumps[i][:0], &headers[i], l, enc)
						stored += len(clumps[i])
					}
					in += time.Since(start)
					for i, l := range lumps {
						headers[i].Score = venti.ScoreOf(l)
					}
					lump := make([]byte, size)
					start = time.Now()
					for i, c := range clumps {
						if _, err := headers[i].Decode(lump, c[arena.ClumpHeaderSize:]); err != nil {
							b.Fatal(err)
						}
					}
					out += time.Since(start)
				}
				total := float64(b.N) * float64(len(lumps)*size)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(len(lumps)*size)/float64(stored), "ratio")
				b.ReportMetric(total/1e6/in.Seconds(), "in-MB/s")
				b.ReportMetric(total/1e6/out.Seconds(), "out-MB/s")
			})
		}
	}
}
