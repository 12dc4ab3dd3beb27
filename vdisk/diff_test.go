package vdisk

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

// bytesDisk is a disk in memory.
type bytesDisk []byte

func (b bytesDisk) Size() int64                             { return int64(len(b)) }
func (b bytesDisk) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(b).ReadAt(p, off) }
func (b bytesDisk) NextData(off int64) (start, end int64, err error) {
	if off >= int64(len(b)) {
		return 0, 0, io.EOF
	}
	return off, int64(len(b)), nil
}

// A countingReader counts the blocks that are read.
type countingReader struct {
	venti.BlockReader
	n atomic.Int64
}

func (c *countingReader) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	c.n.Add(1)
	return c.BlockReader.ReadBlock(ctx, s, t, buf)
}

func TestDiff(t *testing.T) {
	st := ventitest.NewMemory()
	br := &countingReader{BlockReader: st}
	open := func(b []byte) *Image {
		t.Helper()
		res, err := Import(t.Context(), st, bytesDisk(b), ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		im, err := Open(t.Context(), br, res.Score)
		if err != nil {
			t.Fatal(err)
		}
		return im
	}
	const size = 40<<20 + 700
	base := make([]byte, size)
	copy(base[1<<20:], ventitest.Block(1, 20<<20))
	changed := func(f func(b []byte) []byte) []byte { return f(slices.Clone(base)) }
	partitioned := changed(func(b []byte) []byte { // one MBR partition of 4 MiB at 1 MiB
		copy(b[446+4:], []byte{0x83, 0, 0, 0, 0, 8, 0, 0, 0, 32, 0, 0})
		b[510], b[511] = 0x55, 0xaa
		return b
	})
	for _, c := range []struct {
		name  string
		a, b  []byte
		want  []Range
		reads int64 // at most
	}{
		{"the same", base, base, nil, 0},
		{"a byte", base, changed(func(b []byte) []byte { b[5<<20+5]++; return b }), []Range{{5 << 20, 4096}}, 6},
		{"ends", base, changed(func(b []byte) []byte { b[0]++; b[size-1]++; return b }), []Range{{0, 4096}, {40 << 20, 700}}, 10},
		{"holes", base, changed(func(b []byte) []byte { clear(b[2<<20 : 3<<20]); b[30<<20] = 1; return b }), []Range{{2 << 20, 1 << 20}, {30 << 20, 4096}}, 16},
		{"neighbours", base, changed(func(b []byte) []byte { b[204*4096]++; b[204*4096-1]++; return b }), []Range{{203 * 4096, 8192}}, 8},
		{"longer", base, append(slices.Clone(base), 0, 1), []Range{{size, 2}}, 1 << 20},
		{"cut another way", base, partitioned, []Range{{0, 4096}}, 1 << 20},
		{"cut, and a byte in it", partitioned, func() []byte { b := slices.Clone(partitioned); b[2<<20]++; return b }(), []Range{{2 << 20, 4096}}, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, pair := range [][2][]byte{{c.a, c.b}, {c.b, c.a}} {
				a, b := open(pair[0]), open(pair[1])
				br.n.Store(0)
				var got []Range
				for r, err := range Diff(t.Context(), a, b) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, r)
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("got %v, want %v", got, c.want)
				}
				if n := br.n.Load(); n > c.reads {
					t.Errorf("%d blocks were read, want at most %d", n, c.reads)
				}
			}
		})
	}
	for range Diff(t.Context(), open(base), open(make([]byte, size))) {
		break // which must not go on
	}
	r := open(base)
	st.Remove(r.entries[0].Score, r.entries[0].Type())
	for _, err := range Diff(t.Context(), r, open(make([]byte, size))) {
		if err == nil {
			t.Error("a range though a block is missing")
		}
	}
}

// TestNewBytes says what goes with an image, from many states of one disk.
func TestNewBytes(t *testing.T) {
	st := ventitest.NewMemory()
	rng := rand.New(rand.NewPCG(1, 2))
	disk := make([]byte, 8<<20)
	var list []*Image
	var leaves []map[int]venti.Score
	for range 6 {
		for range 40 {
			at := rng.IntN(len(disk)/4096) * 4096
			copy(disk[at:], ventitest.Block(rng.Uint64(), 4096))
			if rng.IntN(4) == 0 {
				clear(disk[at:][:4096])
			}
		}
		res, err := Import(t.Context(), st, bytesDisk(slices.Clone(disk)), ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		im, err := Open(t.Context(), st, res.Score)
		if err != nil {
			t.Fatal(err)
		}
		m := map[int]venti.Score{}
		for i := range len(disk) / 4096 {
			if b := disk[i*4096:][:4096]; !bytes.Equal(b, make([]byte, 4096)) {
				m[i] = venti.ScoreOf(b)
			}
		}
		list, leaves = append(list, im), append(leaves, m)
	}
	for i, im := range list {
		others := []*Image{list[(i+1)%6], list[(i+3)%6]}
		want := int64(0)
		for p, s := range leaves[i] {
			if leaves[(i+1)%6][p] != s && leaves[(i+3)%6][p] != s {
				want += 4096
			}
		}
		if got, err := NewBytes(t.Context(), im, others); err != nil || got != want {
			t.Errorf("image %d: got %d, %v, want %d", i, got, err, want)
		}
	}
}
