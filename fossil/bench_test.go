package fossil

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"strata/internal/disk"
	"strata/vac/meta"
	"strata/venti"
	"strata/venti/ventitest"
)

// benchFS returns a file system in a file of the machine.
func benchFS(b *testing.B, size int64, cfg Config) *FS {
	b.Helper()
	name := filepath.Join(b.TempDir(), "part")
	if err := disk.Create(name, size); err != nil {
		b.Fatal(err)
	}
	p, err := disk.Open(name, disk.Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := Format(context.Background(), p, FormatConfig{}); err != nil {
		b.Fatal(err)
	}
	cfg.Interval = time.Hour
	fs, err := Open(p, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := fs.Close(context.Background()); err != nil {
			b.Error(err)
		}
		p.Close()
	})
	return fs
}

func benchFile(b *testing.B, fs *FS) *File {
	b.Helper()
	dir, err := fs.Walk(b.Context(), "/active")
	if err != nil {
		b.Fatal(err)
	}
	f, err := dir.Create(b.Context(), "f", 0o644, "ken")
	if err != nil {
		b.Fatal(err)
	}
	return f
}

// BenchmarkWrite64K writes a file from its beginning, without syncs.
func BenchmarkWrite64K(b *testing.B) {
	fs := benchFS(b, 2<<30, Config{Memory: 256 << 20})
	f := benchFile(b, fs)
	data := ventitest.Block(1, 64<<10)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if _, err := f.WriteAt(b.Context(), data, off, "ken"); err != nil {
			b.Fatal(err)
		}
		if off += int64(len(data)); off > 1<<30 {
			off = 0
		}
	}
}

// BenchmarkOverwrite4K overwrites blocks of a file at random, with a sync each
// 64.
func BenchmarkOverwrite4K(b *testing.B) {
	fs := benchFS(b, 1<<30, Config{Memory: 256 << 20})
	f := benchFile(b, fs)
	data := ventitest.Block(1, 1<<20)
	for i := range int64(64) {
		if _, err := f.WriteAt(b.Context(), data, i<<20, "ken"); err != nil {
			b.Fatal(err)
		}
	}
	if err := fs.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4096)
	b.ReportAllocs()
	n := int64(0)
	for b.Loop() {
		if _, err := f.WriteAt(b.Context(), data[:4096], n*7919%16384*4096, "ken"); err != nil {
			b.Fatal(err)
		}
		if n++; n%64 == 0 {
			if err := f.Sync(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkRead64K reads a file that is in memory.
func BenchmarkRead64K(b *testing.B) {
	fs := benchFS(b, 1<<30, Config{Memory: 256 << 20})
	f := benchFile(b, fs)
	data := ventitest.Block(1, 1<<20)
	for i := range int64(64) {
		if _, err := f.WriteAt(b.Context(), data, i<<20, "ken"); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(64 << 10)
	b.ReportAllocs()
	n := int64(0)
	for b.Loop() {
		if _, err := f.ReadAt(b.Context(), data[:64<<10], n%1024*(64<<10)); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

// BenchmarkCreate makes empty files, 10,000 in a directory.
func BenchmarkCreate(b *testing.B) {
	fs := benchFS(b, 1<<30, Config{Memory: 64 << 20})
	active, err := fs.Walk(b.Context(), "/active")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var dir *File
	n := 0
	for b.Loop() {
		if n%10000 == 0 {
			if dir, err = active.Create(b.Context(), fmt.Sprint("dir", n), 0o755|1<<15, "ken"); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := dir.Create(b.Context(), fmt.Sprint("file", n), 0o644, "ken"); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

// A slow store takes a millisecond for each write and sync.
type slow struct{ venti.Store }

func (s slow) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	time.Sleep(time.Millisecond)
	return s.Store.WriteBlock(ctx, t, data)
}

func (s slow) Sync(ctx context.Context) error {
	time.Sleep(time.Millisecond)
	return s.Store.Sync(ctx)
}

// BenchmarkArchiveSmall archives 10,000 small files in 1,000 directories, to a
// Venti that is a millisecond away.
func BenchmarkArchiveSmall(b *testing.B) {
	ctx := b.Context()
	var blocks int64
	for b.Loop() {
		b.StopTimer()
		fs := benchFS(b, 512<<20, Config{Memory: 64 << 20, Venti: slow{ventitest.NewMemory()}, NoArchiver: true})
		active, err := fs.Walk(ctx, "/active")
		for i := 0; i < 1000 && err == nil; i++ {
			var dir, f *File
			dir, err = active.Create(ctx, fmt.Sprint("dir", i), 0o755|meta.ModeDir, "ken")
			for k := 0; k < 10 && err == nil; k++ {
				if f, err = dir.Create(ctx, fmt.Sprint("file", k), 0o644, "ken"); err == nil {
					_, err = f.WriteAt(ctx, ventitest.Block(uint64(i*10+k), 2000), 0, "ken")
				}
			}
		}
		if err == nil {
			_, err = fs.Snapshot(ctx, SnapConfig{Archive: true})
		}
		if err == nil {
			err = fs.Sync(ctx)
		}
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := fs.Archive(ctx); err != nil {
			b.Fatal(err)
		}
		blocks += fs.Archiving().Blocks
	}
	b.ReportMetric(float64(blocks)/b.Elapsed().Seconds(), "blocks/s")
}

// BenchmarkCheck checks a file system of large and small files, with a snapshot
// of most of it, that fills half of a partition. It tells the time for each block
// of the partition, in use or not.
func BenchmarkCheck(b *testing.B) {
	fs := benchFS(b, 512<<20, Config{Memory: 64 << 20, NoAtime: true})
	ctx := b.Context()
	active, err := fs.Walk(ctx, "/active")
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(i/8192 + i + 1)
	}
	write := func(dir *File, name string, n int) {
		f, err := dir.Create(ctx, name, 0o644, "glenda")
		if err == nil {
			_, err = f.WriteAt(ctx, data[:n], 0, "glenda")
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range 220 {
		if i == 200 {
			if _, err := fs.Snapshot(ctx, SnapConfig{}); err != nil {
				b.Fatal(err)
			}
		}
		dir, err := active.Create(ctx, fmt.Sprint("dir", i), meta.ModeDir|0o755, "glenda")
		if err != nil {
			b.Fatal(err)
		}
		write(dir, "large", len(data))
		for k := range 20 {
			write(dir, fmt.Sprint("small", k), 100)
		}
	}
	if err := fs.Sync(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	blocks := 0
	for b.Loop() {
		r, err := fs.Check(ctx, CheckConfig{Snapshots: true})
		if err != nil || len(r.Findings) > 0 {
			b.Fatal(len(r.Findings), err)
		}
		blocks += int(r.Blocks)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(blocks), "ns/block")
}
