package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"strata/venti"
)

// benchStore opens a store of files in a temporary folder.
func benchStore(b *testing.B, cfg Config) *Store {
	b.Helper()
	conf, err := Format(b.Context(), b.TempDir(), FormatConfig{Space: 32 << 30, ArenaSize: 512 << 20})
	if err != nil {
		b.Fatal(err)
	}
	s, err := OpenConf(b.Context(), conf, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { mustClose(b, s) })
	return s
}

// fill makes data a block of its own, of which about a share from 0 to 1 does
// not compress.
func fill(data []byte, n uint64, share float64) {
	rng := rand.New(rand.NewPCG(n, 1))
	var word uint64
	for i := 0; i+8 <= len(data); i += 8 {
		if rng.Float64() < share {
			word = rng.Uint64()
		}
		binary.BigEndian.PutUint64(data[i:], word)
	}
	binary.BigEndian.PutUint64(data, n)
}

// BenchmarkWrite stores blocks, new ones or ones that are there, with no
// syncs. Nothing of new blocks compresses but where mixed says so.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{4 << 10, 8 << 10} {
		for _, bm := range []struct {
			name        string
			compression string
			share       float64
			dup         bool
		}{
			{"new/none", CompressNone, 1, false},
			{"new/whack", CompressWhack, 1, false},
			{"mixed/whack", CompressWhack, 0.3, false},
			{"dup", CompressNone, 1, true},
		} {
			b.Run(fmt.Sprintf("%dK/%s", size>>10, bm.name), func(b *testing.B) {
				s := benchStore(b, Config{Compression: bm.compression})
				data := make([]byte, size)
				const dups = 50000 // more than the cache of lumps holds
				if bm.dup {
					for i := range dups {
						binary.BigEndian.PutUint64(data, uint64(i))
						mustWrite(b, s, venti.DataType, data)
					}
				}
				pattern := make([]byte, size)
				fill(pattern, 1, bm.share)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				var n uint64
				for b.Loop() {
					n++
					if bm.dup {
						binary.BigEndian.PutUint64(data, n%dups)
					} else {
						// The rest of the block may stay: whack knows no other block.
						copy(data, pattern)
						binary.BigEndian.PutUint64(data, n)
					}
					mustWrite(b, s, venti.DataType, data)
				}
			})
		}
	}
}

// BenchmarkHasBlock asks for blocks that are there, by the index cache.
func BenchmarkHasBlock(b *testing.B) {
	s := benchStore(b, Config{Compression: CompressNone})
	data := make([]byte, 4<<10)
	scores := make([]venti.Score, 100000)
	for i := range scores {
		binary.BigEndian.PutUint64(data, uint64(i))
		scores[i] = mustWrite(b, s, venti.DataType, data)
	}
	if err := s.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			n++
			if has, err := s.HasBlock(ctx, scores[n%len(scores)], venti.DataType); !has || err != nil {
				b.Fatal(has, err)
			}
		}
	})
	b.Run("absent", func(b *testing.B) {
		b.ReportAllocs()
		var score venti.Score
		n := uint64(0)
		for b.Loop() {
			n++
			binary.LittleEndian.PutUint64(score[:], n*0x9e3779b97f4a7c15)
			binary.LittleEndian.PutUint64(score[8:], n*0xc2b2ae3d27d4eb4f)
			if has, err := s.HasBlock(ctx, score, venti.DataType); has || err != nil {
				b.Fatal(has, err)
			}
		}
	})
}

// BenchmarkRead reads 4 KiB blocks: from the lump cache; in the order of the
// log with only the caches that come with it; and at random, with the index
// cached and not, from what the system has of the files in memory.
func BenchmarkRead(b *testing.B) {
	const n = 50000
	s := benchStore(b, Config{Compression: CompressNone, LumpMem: 512 << 20})
	data := make([]byte, 4<<10)
	scores := make([]venti.Score, n)
	for i := range scores {
		fill(data, uint64(i), 1)
		scores[i] = mustWrite(b, s, venti.DataType, data)
	}
	if err := s.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	read := func(b *testing.B, i int) {
		if _, err := s.ReadBlock(ctx, scores[i], venti.DataType, data); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("cached", func(b *testing.B) {
		b.SetBytes(4 << 10)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			if _, ok, err := s.ReadCached(scores[i%n], venti.DataType, data); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("sequential", func(b *testing.B) {
		b.SetBytes(4 << 10)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if i%n == 0 {
				s.forget()
			}
			read(b, i%n)
			i++
		}
	})
	for _, indexed := range []bool{true, false} {
		b.Run(fmt.Sprintf("random,indexed=%v", indexed), func(b *testing.B) {
			b.SetBytes(4 << 10)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if i%n == 0 {
					s.lumps.clear()
					if !indexed {
						s.index.clear()
					}
				}
				read(b, i*31337%n)
				i++
			}
		})
	}
}

// BenchmarkSync has clients that each write a block and sync, over and over.
// It is the disk of the temporary folder, or $STRATA_BENCH, that is measured.
func BenchmarkSync(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			dir := b.TempDir()
			if d := os.Getenv("STRATA_BENCH"); d != "" {
				dir = filepath.Join(d, b.Name())
				if err := os.MkdirAll(dir, 0o777); err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { os.RemoveAll(dir) })
			}
			conf, err := Format(b.Context(), dir, FormatConfig{Space: 4 << 30})
			if err != nil {
				b.Fatal(err)
			}
			s, err := OpenConf(b.Context(), conf, Config{Compression: CompressNone})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { mustClose(b, s) })
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range clients {
				wg.Go(func() {
					data := make([]byte, 4<<10)
					for {
						n := next.Add(1)
						if n > int64(b.N) {
							return
						}
						fill(data, uint64(n), 1)
						mustWrite(b, s, venti.DataType, data)
						mustSync(b, s)
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(s.Stats().LogSyncs)/float64(b.N), "fsyncs/op")
		})
	}
}
