package arena_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"strata/venti"
	"strata/venti/internal/arena"
)

// verify has Verify look at an arena: which clumps are corrupt, and the sum.
func verify(t *testing.T, b *built) (bad []int, sum venti.Score, unread error) {
	t.Helper()
	n, read := 0, 0
	wait := func(_ context.Context, n int) error { read += n; return nil }
	sum, unread, err := b.Verify(t.Context(), int(b.tr.Mem.Clumps), wait, func(c *arena.Clump) error {
		if c.Clump != n {
			t.Errorf("clump %d comes as number %d", c.Clump, n)
		}
		n++
		if c.Err == nil && venti.ScoreOf(c.Data) != c.Header.Score {
			t.Errorf("clump %d has another score", c.Clump)
		}
		if errors.Is(c.Err, venti.ErrCorrupt) {
			bad = append(bad, c.Clump)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if int64(read) != b.Stop-b.Start {
		t.Errorf("it waited for %d bytes of %d", read, b.Stop-b.Start)
	}
	return bad, sum, unread
}

func TestVerify(t *testing.T) {
	b := build(t, 5, 200, 200)
	whole, err := b.Sum(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if bad, sum, unread := verify(t, b); len(bad) > 0 || sum != whole || unread != nil {
		t.Errorf("clumps %v, sum %v, want %v; %v", bad, sum, whole, unread)
	}
	for _, i := range []int{0, 7, 199} {
		at := b.Base() + b.at[i].Off
		b.file.b[at+20] ^= 1
		if bad, sum, _ := verify(t, b); len(bad) != 1 || bad[0] != i || sum == whole {
			t.Errorf("with clump %d spoilt: clumps %v, sum %v", i, bad, sum)
		}
		b.file.b[at+20] ^= 1
	}
	stop := errors.New("stop")
	if _, _, err := b.Verify(t.Context(), 5, nil, func(*arena.Clump) error { return stop }); err != stop {
		t.Errorf("error of the function: %v", err)
	}
	if _, _, err := b.Verify(t.Context(), 5, func(context.Context, int) error { return stop }, func(*arena.Clump) error { return nil }); err != stop {
		t.Errorf("error of wait: %v", err)
	}
}

// FuzzDirectory reads any bytes as a directory, by itself and beside the log.
func FuzzDirectory(f *testing.F) {
	b := build(f, 5, 6, 6)
	block := b.file.b[b.Stop-2*int64(b.BlockSize):][:b.BlockSize]
	good := bytes.Clone(block)
	f.Add(good[:6*arena.ClumpInfoSize])
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, dir []byte) {
		copy(block, good)
		copy(block, dir)
		before := bytes.Clone(block)
		infos := make([]arena.ClumpInfo, 6)
		if err := b.ReadInfos(infos, 0); err != nil {
			t.Fatal(err)
		}
		if err := b.WriteInfos(infos, 0); err != nil || !bytes.Equal(block, before) {
			t.Errorf("% x became % x, %v", before, block, err)
		}
		want, err := b.Sum(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		bad, sum, _ := verify(t, b)
		if sum != want || bytes.Equal(block[:6*arena.ClumpInfoSize], good[:6*arena.ClumpInfoSize]) && len(bad) > 0 {
			t.Errorf("sum %v, want %v; clumps %v", sum, want, bad)
		}
	})
}
