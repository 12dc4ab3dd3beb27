package arena_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

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
