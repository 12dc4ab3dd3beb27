package hashtree_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// A guarded file fails where it must not be read.
type guarded struct {
	*bytes.Reader
	leaf int
	may  []bool // by leaf
}

func (g guarded) ReadAt(p []byte, off int64) (int, error) {
	for i := int(off) / g.leaf; i*g.leaf < int(off)+len(p) && i < len(g.may); i++ {
		if !g.may[i] {
			return 0, fmt.Errorf("leaf %d was read", i)
		}
	}
	return g.Reader.ReadAt(p, off)
}

// TestSame writes a file of which some leaves are said to be the base's: these
// are not read, and the tree is what it is without.
func TestSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 60 {
		size := 1 + rng.IntN(13*13*256+500)
		old := random(uint64(size), size)
		leaves := (size + 255) / 256
		for i := range leaves { // holes of the base
			if rng.IntN(6) == 0 {
				clear(old[i*256 : min((i+1)*256, size)])
			}
		}
		st := ventitest.NewMemory()
		base, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(old), int64(size), tiny)
		if err != nil {
			t.Fatal(err)
		}
		now := bytes.Clone(old)
		may := make([]bool, leaves)
		for i := range leaves {
			p := now[i*256 : min((i+1)*256, size)]
			switch hole := len(venti.Truncate(venti.DataType, p)) == 0; {
			case rng.IntN(4) == 0:
				may[i] = true
				p[rng.IntN(len(p))] ^= byte(rng.IntN(3))
			case hole:
				may[i] = true // it is read: what is said is not about it
			}
		}
		want, _, err := hashtree.Write(t.Context(), ventitest.NewMemory(), bytes.NewReader(now), int64(size), tiny)
		if err != nil {
			t.Fatal(err)
		}
		cfg := tiny
		cfg.Base = &base
		cfg.Same = func(off int64) int64 {
			i := int(off) / 256
			for i < leaves && !may[i] {
				i++
			}
			return max(off, min(int64(i)*256, int64(size)))
		}
		got, stats, err := hashtree.Write(t.Context(), st, guarded{bytes.NewReader(now), 256, may}, int64(size), cfg)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got != want {
			t.Fatalf("%d bytes: got %+v, want %+v", size, got, want)
		}
		sum := stats.Leaves.Zero.Blocks + stats.Leaves.Base.Blocks + stats.Leaves.Shared.Blocks + stats.Leaves.Sent.Blocks
		if sum != int64(leaves) {
			t.Errorf("%d leaves were counted, of %d", sum, leaves)
		}
		r, err := hashtree.NewReader(st, got, hashtree.ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		back := make([]byte, size)
		if n, err := r.ReadAt(back, 0); n != size || !bytes.Equal(back, now) {
			t.Fatalf("%d bytes: read %d, %v", size, n, err)
		}
	}
}
