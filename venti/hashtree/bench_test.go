package hashtree_test

import (
	"bytes"
	"crypto/sha1"
	"io"
	"testing"

	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

const benchSize = 64 << 20

// serve returns a client of a server for st over a unix socket.
func serve(t testing.TB, st venti.Store) *venti.Client {
	t.Helper()
	c, err := venti.Dial(t.Context(), ventitest.Serve(t, st))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// BenchmarkSHA1 is the measure of the others: one core, 4 KiB at a time.
func BenchmarkSHA1(b *testing.B) {
	data := random(1, 1<<20)
	b.SetBytes(4096)
	i := 0
	for b.Loop() {
		sha1.Sum(data[i : i+4096])
		i = (i + 4096) % len(data)
	}
}

// stores runs f with an in-memory store and with one behind a client, a unix
// socket and a server.
func stores(b *testing.B, f func(b *testing.B, st venti.Store)) {
	b.Run("memory", func(b *testing.B) { f(b, ventitest.NewMemory()) })
	b.Run("client", func(b *testing.B) { f(b, serve(b, ventitest.NewMemory())) })
}

func BenchmarkWrite4K(b *testing.B) {
	data := random(1, benchSize)
	cfg := hashtree.Config{DSize: 4096}
	write := func(b *testing.B, st venti.Store, cfg hashtree.Config) venti.Entry {
		e, _, err := hashtree.Write(b.Context(), st, bytes.NewReader(data), benchSize, cfg)
		if err != nil {
			b.Fatal(err)
		}
		return e
	}
	b.Run("new", func(b *testing.B) {
		stores(b, func(b *testing.B, st venti.Store) {
			b.SetBytes(benchSize)
			b.ReportAllocs()
			for i := byte(0); b.Loop(); i++ {
				b.StopTimer()
				for off := 0; off < benchSize; off += 4096 {
					data[off] = 1 + data[off]%255
				}
				b.StartTimer()
				write(b, st, cfg)
			}
		})
	})
	b.Run("known", func(b *testing.B) {
		stores(b, func(b *testing.B, st venti.Store) {
			write(b, st, cfg)
			b.SetBytes(benchSize)
			b.ReportAllocs()
			for b.Loop() {
				write(b, st, cfg)
			}
		})
	})
	b.Run("base", func(b *testing.B) {
		stores(b, func(b *testing.B, st venti.Store) {
			e := write(b, st, cfg)
			cfg := cfg
			cfg.Base = &e
			b.SetBytes(benchSize)
			b.ReportAllocs()
			for b.Loop() {
				write(b, st, cfg)
			}
		})
	})
}

// BenchmarkWriteHole writes 16 TiB of nothing.
func BenchmarkWriteHole(b *testing.B) {
	st := ventitest.NewMemory()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := hashtree.Write(b.Context(), st, hole{}, 16<<40, hashtree.Config{DSize: 4096}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWriterSmall writes files of one short block, as vac does.
func BenchmarkWriterSmall(b *testing.B) {
	st := ventitest.NewMemory()
	data := random(1, 2000)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		w, err := hashtree.NewWriter(b.Context(), st, hashtree.Config{})
		if err != nil {
			b.Fatal(err)
		}
		w.Write(data)
		if _, _, err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead4K(b *testing.B) {
	data := random(1, benchSize)
	stores(b, func(b *testing.B, st venti.Store) {
		e, _, err := hashtree.Write(b.Context(), st, bytes.NewReader(data), benchSize, hashtree.Config{DSize: 4096})
		if err != nil {
			b.Fatal(err)
		}
		r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{})
		if err != nil {
			b.Fatal(err)
		}
		out := &discardAt{}
		for name, read := range map[string]func() error{
			"export": func() error { _, err := r.Export(b.Context(), out, nil); return err },
			"stream": func() error { _, err := r.Stream(b.Context(), io.Discard); return err },
			"128K": func() error {
				buf := make([]byte, 128<<10)
				for off := int64(0); off < benchSize; off += int64(len(buf)) {
					if _, err := r.ReadAt(buf, off); err != nil {
						return err
					}
				}
				return nil
			},
			"128K-ahead": func() error {
				r, err := hashtree.NewReader(st, e, hashtree.ReaderConfig{ReadAhead: 1 << 20})
				if err != nil {
					return err
				}
				defer r.Close()
				_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.NewSectionReader(r, 0, benchSize), make([]byte, 128<<10))
				return err
			},
		} {
			b.Run(name, func(b *testing.B) {
				b.SetBytes(benchSize)
				b.ReportAllocs()
				for b.Loop() {
					if err := read(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	})
}

type discardAt struct{}

func (discardAt) WriteAt(p []byte, off int64) (int, error) { return len(p), nil }
