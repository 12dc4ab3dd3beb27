package hashtree_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// TestWriteBytes has WriteBytes and Write store the same bytes, on top of
// older ones or not: entries, counts and blocks are the same.
func TestWriteBytes(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 7))
		data := random(seed, rng.IntN(20*256))
		for range rng.IntN(4) {
			if n := len(data); n > 0 {
				lo := rng.IntN(n)
				clear(data[lo:min(n, lo+rng.IntN(2000))])
			}
		}
		both := [2]*ventitest.Memory{ventitest.NewMemory(), ventitest.NewMemory()}
		var entries [2]venti.Entry
		var stats [2]hashtree.Stats
		old := bytes.Clone(data)
		if len(old) > 0 {
			old[rng.IntN(len(old))]++
			old = old[:rng.IntN(len(old)+1)]
		}
		for i, st := range both {
			cfg := tiny
			cfg.Dir = seed%5 == 0
			if seed%2 == 0 {
				base, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(old), int64(len(old)), cfg)
				if err != nil {
					t.Fatal(err)
				}
				if seed%4 == 0 {
					base, _, err = hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), cfg)
				}
				if err != nil {
					t.Fatal(err)
				}
				cfg.Base = &base
			}
			var err error
			if i == 0 {
				entries[i], stats[i], err = hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), cfg)
			} else {
				entries[i], stats[i], err = hashtree.WriteBytes(t.Context(), st, data, cfg)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if entries[0] != entries[1] || stats[0] != stats[1] || both[0].Len() != both[1].Len() {
			t.Errorf("seed %d: %d bytes: got %+v, %+v, %d blocks, want %+v, %+v, %d blocks", seed, len(data),
				entries[1], stats[1], both[1].Len(), entries[0], stats[0], both[0].Len())
		}
		r, err := hashtree.NewReader(both[1], entries[1], hashtree.ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := r.Stream(t.Context(), &got); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("seed %d: other bytes come back: %v", seed, err)
		}
	}
}
