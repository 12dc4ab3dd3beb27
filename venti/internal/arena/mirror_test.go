package arena_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"strata/venti"
	"strata/venti/internal/arena"
)

// mirrorOf formats a partition like b's and returns its arena.
func mirrorOf(tb testing.TB, b *built, version int) (*arena.Arena, *memory) {
	tb.Helper()
	f := &memory{b: make([]byte, len(b.file.b))}
	p, err := arena.Format(tb.Context(), f, arena.FormatConfig{
		Name: "t", ArenaSize: 768 << 10, BlockSize: 512, Version: version, Rand: bytes.NewReader([]byte("another seed")),
	})
	if err != nil {
		tb.Fatal(err)
	}
	a, _ := openArena(tb, p, 0)
	return a, f
}

func mirror(tb testing.TB, src, dst *arena.Arena, o arena.MirrorOptions) arena.Mirrored {
	tb.Helper()
	got, err := arena.Mirror(tb.Context(), src, dst, o)
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

// TestMirror copies an arena while it grows, and when it is sealed.
func TestMirror(t *testing.T) {
	for _, version := range []int{arena.Version4, arena.Version5} {
		b := build(t, version, 0, 0)
		dst, f := mirrorOf(t, b, version)
		if got := mirror(t, b.Arena, dst, arena.MirrorOptions{}); got != arena.MirrorEmpty {
			t.Errorf("an empty arena: %d", got)
		}
		for i := range 60 {
			b.append(t, lump(i, 1+i*97%3000))
			b.writeTrailer(t) // not in the index yet
			if i%20 != 19 {
				continue
			}
			indexed := b.tr.Mem
			b.tr.Disk = indexed
			b.append(t, lump(i+1000, 500))
			b.writeTrailer(t)
			var copied int64
			o := arena.MirrorOptions{Copying: func(start, stop int64, what string) { copied += stop - start }}
			if got := mirror(t, b.Arena, dst, o); got != arena.MirrorCopied {
				t.Errorf("after %d clumps: %d", i, got)
			}
			if copied == 0 || copied > 60<<10 {
				t.Errorf("after %d clumps %d bytes copied", i, copied)
			}
			tr, err := dst.ReadTrailer()
			if err != nil || tr.Disk != indexed || tr.Mem != indexed {
				t.Errorf("after %d clumps the copy has %+v, want %+v: %v", i, tr, indexed, err)
			}
			if mirror(t, b.Arena, dst, arena.MirrorOptions{Copying: func(int64, int64, string) { t.Error("copied once more") }}) != arena.MirrorCopied {
				t.Error("not copied")
			}
		}
		b.seal(t)
		if got := mirror(t, b.Arena, dst, arena.MirrorOptions{}); got != arena.MirrorSealed {
			t.Errorf("sealed: %d", got)
		}
		if !bytes.Equal(f.b[dst.Start:dst.Stop], b.file.b[b.Start:b.Stop]) {
			t.Error("the copy of a sealed arena differs")
		}
		if syncs := f.syncs; mirror(t, b.Arena, dst, arena.MirrorOptions{}) != arena.MirrorSealed || f.syncs != syncs {
			t.Error("an equal arena is written again")
		}
	}
}

// TestMirrorStops fails the nth write of the copy, for every n, and goes on.
func TestMirrorStops(t *testing.T) {
	b := build(t, arena.Version5, 200, 200)
	b.seal(t)
	for n := 0; ; n++ {
		dst, f := mirrorOf(t, b, arena.Version5)
		broken := &failingWrites{memory: f, after: n}
		p, err := arena.OpenPartition(broken)
		if err != nil {
			t.Fatal(err)
		}
		d, err := p.OpenArena(0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = arena.Mirror(t.Context(), b.Arena, d, arena.MirrorOptions{})
		if err == nil {
			if n < 5 {
				t.Errorf("only %d writes", n)
			}
			break
		}
		// Whatever was left of it, it is not called a copy.
		p, err = arena.OpenPartition(f)
		if err == nil {
			dst, err = p.OpenArena(0)
		}
		if err != nil {
			t.Fatal(err)
		}
		if tr, err := dst.ReadTrailer(); err != nil || !tr.Seal.IsZero() {
			t.Fatalf("write %d failed, and the copy has the seal %v: %v", n, tr.Seal, err)
		}
		if mirror(t, b.Arena, dst, arena.MirrorOptions{}) != arena.MirrorSealed || !bytes.Equal(f.b[dst.Start:dst.Stop], b.file.b[b.Start:b.Stop]) {
			t.Fatalf("write %d failed, and the next copy differs", n)
		}
	}
}

// failingWrites is a file whose writes fail after some.
type failingWrites struct {
	*memory
	after int
}

func (f *failingWrites) WriteAt(p []byte, off int64) (int, error) {
	if f.after--; f.after < 0 {
		return 0, io.ErrClosedPipe
	}
	return f.memory.WriteAt(p, off)
}

func TestMirrorRefuses(t *testing.T) {
	b := build(t, arena.Version5, 50, 50)
	other := build(t, arena.Version5, 70, 70)
	refuse := func(what string, src, dst *arena.Arena, want error) {
		t.Helper()
		if _, err := arena.Mirror(t.Context(), src, dst, arena.MirrorOptions{}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	refuse("a longer destination", b.Arena, other.Arena, arena.ErrMirror)
	b.append(t, lump(5000, 100))
	for i := range 40 {
		b.append(t, lump(i, 10))
	}
	b.tr.Disk = b.tr.Mem
	b.writeTrailer(t)
	refuse("other clumps", b.Arena, other.Arena, arena.ErrMirror)
	if mirror(t, b.Arena, other.Arena, arena.MirrorOptions{Force: true}) != arena.MirrorCopied {
		t.Error("force does not copy")
	}
	other.seal(t)
	refuse("a sealed destination", b.Arena, other.Arena, arena.ErrMirror)

	b.seal(t)
	b.flip(3, 50, 4)
	dst, f := mirrorOf(t, b, arena.Version5)
	refuse("a damaged source", b.Arena, dst, venti.ErrCorrupt)
	if tr, err := dst.ReadTrailer(); err != nil || !tr.Seal.IsZero() {
		t.Errorf("the copy of a damaged arena is sealed with %v: %v", tr.Seal, err)
	}
	if mirror(t, b.Arena, dst, arena.MirrorOptions{Trust: true}) != arena.MirrorSealed || !bytes.Equal(f.b[dst.Start:dst.Stop], b.file.b[b.Start:b.Stop]) {
		t.Error("a damaged arena is not copied as it is")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dst, _ = mirrorOf(t, b, arena.Version5)
	if _, err := arena.Mirror(ctx, b.Arena, dst, arena.MirrorOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// fixed runs Fix and returns what it found.
func fixed(tb testing.TB, f *memory, o arena.FixOptions) (lines []string, left int) {
	tb.Helper()
	err := arena.Fix(tb.Context(), f, o, func(x *arena.Finding) {
		lines = append(lines, x.String())
		if x.Fault && !x.Repaired {
			left++
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return lines, left
}

// TestFix destroys one structure after the other of a partition.
func TestFix(t *testing.T) {
	for _, version := range []int{arena.Version4, arena.Version5} {
		whole := func() *built {
			b := build(t, version, 120, 120)
			b.tr.WTime = 1000
			b.writeTrailer(t)
			return b
		}
		b := whole()
		const tableAt, headerAt = 256<<10 + 512, 256 << 10
		zero := func(off, n int64) func(*built) {
			return func(b *built) { clear(b.file.b[off : off+n]) }
		}
		for _, tc := range []struct {
			name   string
			damage func(*built)
			exact  bool // all is as it was, to the byte
		}{
			{"nothing", func(*built) {}, true},
			{"partition header", zero(headerAt, 16), true},
			{"table", zero(tableAt, 100), true},
			{"header and table", zero(headerAt, 2048), true},
			{"arena header", zero(b.Start, 512), true},
			{"trailer", zero(b.Stop-512, 512), false},
			{"trailer of something else", func(b *built) {
				copy(b.file.b[b.Stop-512:], bytes.Repeat([]byte("junk"), 128))
			}, false},
			{"arena header and trailer", func(b *built) { zero(b.Start, 512)(b); zero(b.Stop-512, 512)(b) }, false},
			{"all but the clumps", func(b *built) {
				zero(headerAt, 2048)(b)
				zero(b.Stop-512, 512)(b)
			}, false},
			{"trailer and directory", func(b *built) { zero(b.Stop-512*10, 512*10)(b) }, false},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := whole()
				want := slices.Clone(b.file.b)
				tc.damage(b)
				damaged := slices.Clone(b.file.b)
				o := arena.FixOptions{ArenaSize: 768 << 10, Name: "t"}
				lines, left := fixed(t, b.file, o)
				if !bytes.Equal(b.file.b, damaged) {
					t.Error("it writes without being asked")
				}
				if (left > 0) != (tc.name != "nothing") {
					t.Errorf("%d faults: %q", left, lines)
				}
				o.Write = true
				if lines, left = fixed(t, b.file, o); left > 0 {
					t.Errorf("%d faults stay: %q", left, lines)
				}
				if tc.exact && !bytes.Equal(b.file.b, want) {
					t.Errorf("not as it was: %q", lines)
				}
				if _, left := fixed(t, b.file, arena.FixOptions{}); left != 0 {
					t.Error("faults are found once more")
				}
				p, err := arena.OpenPartition(b.file)
				if err != nil {
					t.Fatal(err)
				}
				a, tr := openArena(t, p, 0)
				if a.Extent != b.Extent || a.ClumpMagic != b.ClumpMagic || tr.Mem.Clumps != b.tr.Mem.Clumps || tr.Mem.Used != b.tr.Mem.Used ||
					tr.Mem.UncSize != b.tr.Mem.UncSize || tr.CTime != 1000 || tr.WTime != 1000 {
					t.Errorf("%+v, %+v, want %+v, %+v", a, tr, b.Arena, b.tr)
				}
				if !tc.exact && tr.Disk.Clumps != 0 {
					t.Errorf("a made-up trailer calls %d clumps indexed", tr.Disk.Clumps)
				}
				b.Arena = a
				b.verify(t)
				if lines, faults := b.check(t, arena.CheckOptions{Data: true}); faults > 0 {
					t.Errorf("check: %q", lines)
				}
			})
		}
	}
}

func TestFixUnseals(t *testing.T) {
	b := build(t, arena.Version5, 30, 30)
	b.seal(t)
	fixed(t, b.file, arena.FixOptions{Unseal: true})
	if tr, err := b.ReadTrailer(); err != nil || tr.Seal.IsZero() {
		t.Errorf("unsealed without being asked: %v", err)
	}
	fixed(t, b.file, arena.FixOptions{Unseal: true, Write: true})
	if tr, err := b.ReadTrailer(); err != nil || !tr.Seal.IsZero() || !tr.Disk.Sealed {
		t.Errorf("%+v, %v", tr, err)
	}
	fixed(t, b.file, arena.FixOptions{Unseal: true, Write: true, Only: func(int) bool { return false }})

	// Sealing it again gives the seal it had.
	seal, err := b.Reseal(t.Context(), true)
	if err != nil || seal != b.tr.Seal {
		t.Errorf("resealed with %v, %v, want %v", seal, err, b.tr.Seal)
	}
	b.flip(3, 60, 1)
	if _, err := b.Reseal(t.Context(), false); !errors.Is(err, venti.ErrCorrupt) {
		t.Errorf("damage is sealed in: %v", err)
	}
	if _, err := b.Reseal(t.Context(), true); err != nil {
		t.Error(err)
	}
}

// FuzzFix gives Fix a partition with arbitrary changes: it must not panic, nor
// leave what it calls repaired in need of repair.
func FuzzFix(f *testing.F) {
	b := build(f, arena.Version5, 20, 10)
	f.Add(int64(256<<10), []byte{0})
	f.Add(b.Start, []byte("x"))
	f.Add(b.Stop-512, bytes.Repeat([]byte{0xff}, 120))
	f.Add(int64(256<<10+512), []byte("2\nt0\t0\t10\n"))
	f.Add(b.Base(), make([]byte, 100))
	f.Fuzz(func(t *testing.T, at int64, data []byte) {
		m := &memory{b: slices.Clone(b.file.b)}
		if at < 0 || at+int64(len(data)) > m.Size() {
			return
		}
		copy(m.b[at:], data)
		left := 0
		o := arena.FixOptions{Write: true, ArenaSize: 768 << 10, Name: "t"}
		report := func(x *arena.Finding) {
			if x.Fault && !x.Repaired {
				left++
			}
		}
		if err := arena.Fix(t.Context(), m, o, report); err != nil || left > 0 {
			return
		}
		err := arena.Fix(t.Context(), m, o, func(x *arena.Finding) {
			if x.Fault {
				t.Errorf("still %v", x)
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
}
