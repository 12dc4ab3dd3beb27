package vdisk

import (
	"context"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

// benchBytes is how much data a benchmark's disk has, all of it noise.
const benchBytes = 64 * mib

func benchDisk(b *testing.B) *Disk {
	b.Helper()
	data := make([]byte, benchBytes)
	rand.New(rand.NewSource(1)).Read(data)
	name := filepath.Join(b.TempDir(), "disk")
	if err := os.WriteFile(name, data, 0o666); err != nil {
		b.Fatal(err)
	}
	d, err := OpenDisk(name)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	return d
}

// overSocket returns a client of a server of st.
func overSocket(b *testing.B, st venti.Store) venti.Store {
	b.Helper()
	ln, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { venti.NewServer(st, venti.ServerConfig{}).Serve(ctx, ln) })
	c, err := venti.Dial(ctx, ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		c.Close()
		cancel()
		wg.Wait()
	})
	return c
}

// renewed is a store whose contents a benchmark can throw away.
type renewed struct{ *ventitest.Memory }

// benchStores runs a benchmark on a store in memory, near and far.
func benchStores(b *testing.B, f func(b *testing.B, near *renewed, st venti.Store)) {
	b.Run("memory", func(b *testing.B) {
		st := &renewed{ventitest.NewMemory()}
		f(b, st, st)
	})
	b.Run("socket", func(b *testing.B) {
		st := &renewed{ventitest.NewMemory()}
		f(b, st, overSocket(b, st))
	})
}

func benchImport(b *testing.B, st venti.Store, d *Disk, opt ImportOptions) *Result {
	b.Helper()
	res, err := Import(b.Context(), st, d, opt)
	if err != nil {
		b.Fatal(err)
	}
	return res
}

// BenchmarkImportNew stores a disk of which the store has nothing.
func BenchmarkImportNew(b *testing.B) {
	benchStores(b, func(b *testing.B, near *renewed, st venti.Store) {
		d := benchDisk(b)
		b.SetBytes(benchBytes)
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			near.Memory = ventitest.NewMemory()
			b.StartTimer()
			benchImport(b, st, d, ImportOptions{})
		}
	})
}

// BenchmarkImportAgain stores a disk that the store has already.
func BenchmarkImportAgain(b *testing.B) {
	benchStores(b, func(b *testing.B, near *renewed, st venti.Store) {
		d := benchDisk(b)
		benchImport(b, st, d, ImportOptions{})
		b.SetBytes(benchBytes)
		b.ReportAllocs()
		for b.Loop() {
			benchImport(b, st, d, ImportOptions{})
		}
	})
}

// BenchmarkImportBase stores it with the image it had yesterday as the base.
func BenchmarkImportBase(b *testing.B) {
	benchStores(b, func(b *testing.B, near *renewed, st venti.Store) {
		d := benchDisk(b)
		res := benchImport(b, st, d, ImportOptions{})
		b.SetBytes(benchBytes)
		b.ReportAllocs()
		for b.Loop() {
			benchImport(b, st, d, ImportOptions{Base: res.Score})
		}
	})
}

// BenchmarkExport writes a disk to a file.
func BenchmarkExport(b *testing.B) {
	benchStores(b, func(b *testing.B, near *renewed, st venti.Store) {
		res := benchImport(b, st, benchDisk(b), ImportOptions{})
		f, err := os.Create(filepath.Join(b.TempDir(), "out"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		b.SetBytes(benchBytes)
		b.ReportAllocs()
		for b.Loop() {
			im, err := Open(b.Context(), st, res.Score)
			if err != nil {
				b.Fatal(err)
			}
			if err := Export(b.Context(), im, f, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkVerify reads every block.
func BenchmarkVerify(b *testing.B) {
	benchStores(b, func(b *testing.B, near *renewed, st venti.Store) {
		res := benchImport(b, st, benchDisk(b), ImportOptions{})
		b.SetBytes(benchBytes)
		b.ReportAllocs()
		for b.Loop() {
			if rep, err := Verify(b.Context(), st, res.Score, nil); err != nil || rep.Failed > 0 {
				b.Fatal(rep, err)
			}
		}
	})
}
