package ninetest

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestContents does the same to a file of a MemFS and to a slice.
func TestContents(t *testing.T) {
	const most, seed = 5 * pageSize, 1
	rnd := rand.New(rand.NewPCG(seed, 0))
	var c contents
	var want []byte
	grow := func(n int) {
		if n > len(want) {
			want = append(want, make([]byte, n-len(want))...)
		}
	}
	for i := range 3000 {
		off, n := rnd.IntN(most), rnd.IntN(2*pageSize)
		switch rnd.IntN(4) {
		case 0:
			b := bytes.Repeat([]byte{byte(i)}, n)
			c.writeAt(b, int64(off))
			if n > 0 {
				grow(off + n)
				copy(want[off:], b)
			}
		case 1:
			c.truncate(int64(off))
			want = want[:min(off, len(want))]
			grow(off)
		default:
			b := bytes.Repeat([]byte{0xff}, n)
			got := c.readAt(b, int64(off))
			var part []byte
			if off < len(want) {
				part = want[off:min(len(want), off+n)]
			}
			if !bytes.Equal(b[:got], part) {
				t.Fatalf("seed %d, step %d: %d bytes at %d differ: %d, want %d", seed, i, n, off, got, len(part))
			}
		}
		if c.size != int64(len(want)) {
			t.Fatalf("seed %d, step %d: size %d, want %d", seed, i, c.size, len(want))
		}
	}
	c.truncate(0)
	c.writeAt([]byte("end"), maxSize-3)
	if len(c.pages) != 1 {
		t.Errorf("%d pages for three bytes", len(c.pages))
	}
}
