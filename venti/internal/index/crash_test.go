package index_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"strata/internal/disk"
	"strata/venti/internal/index"
)

// TestCrash cuts the power at every operation of a series of updates, and maybe
// in the recovery from that. As the owner of an index does, it then has Recover look at the buckets of the
// update that was not done, and does that again.
func TestCrash(t *testing.T) {
	const batches, each = 5, 60
	for _, tc := range []struct {
		nSections, buckets int
		overflow           bool
		tries              int64 // at each cut
	}{{1, 16, false, 1}, {2, 16, false, 1}, {1, 4, true, 3}, {2, 6, true, 3}} {
		nSections := tc.nSections
		var all []index.Entry
		var batch [batches][]index.Entry
		for i := range batch {
			batch[i] = entries(uint64(i), each)
			all = append(all, batch[i]...)
		}
		rebuilt := 0
		for try := int64(0); ; try++ {
			cut := try / tc.tries
			rng := rand.New(rand.NewPCG(uint64(try), uint64(nSections)))
			m := disk.NewMachine()
			var sections []*index.Section
			for i := range nSections {
				f := m.NewDisk(fmt.Sprint("isect", i), 256<<10+2048+512<<10+int64(tc.buckets)*1024/int64(nSections))
				sections = append(sections, must[*index.Section](t)(index.FormatSection(t.Context(), f, index.SectionConfig{Name: fmt.Sprint("isect", i), BlockSize: 1024})))
			}
			ix := must[*index.Index](t)(index.Format("main", sections, arenas))
			open := func(m *disk.Machine) {
				if tc.overflow {
					if err := ix.OpenOverflow(m.Disk("overflow")); err != nil {
						t.Fatal(err)
					}
				}
			}
			m.NewDisk("overflow", index.OverflowSize(sections))
			open(m)
			ops := int64(0)
			m.SetHook(func(op disk.Op) error {
				if op.Kind == disk.OpRead {
					return nil
				}
				if ops++; ops > cut {
					return disk.ErrPowerCut
				}
				return nil
			})
			done := 0
			var lost []index.Entry // full buckets have no room for these
			for done < batches {
				over, err := ix.Update(t.Context(), batch[done])
				if err != nil {
					break
				}
				lost = append(lost, over...)
				done++
			}
			if done == batches {
				break
			}

			if tc.overflow && len(lost) > 0 {
				t.Fatalf("%d entries found no room, though there is an overflow", len(lost))
			}
			have := slices.DeleteFunc(slices.Clone(all[:each*(done+1)]), func(e index.Entry) bool { return slices.Contains(lost, e) })
			reopen := func() {
				m = m.Crash(rng)
				sections = nil
				for i := range nSections {
					sections = append(sections, must[*index.Section](t)(index.OpenSection(m.Disk(fmt.Sprint("isect", i)))))
				}
				ix = must[*index.Index](t)(index.Open("main", sections, arenas))
				open(m)
			}
			reopen()
			for rng.IntN(3) > 0 {
				// Once more while it recovers.
				left := rng.IntN(6)
				m.SetHook(func(op disk.Op) error {
					if op.Kind == disk.OpRead {
						return nil
					}
					if left--; left < 0 {
						return disk.ErrPowerCut
					}
					return nil
				})
				if n, _, err := ix.Recover(t.Context(), batch[done], sourceOf(have)); err == nil {
					ix.Update(t.Context(), batch[done])
				} else {
					rebuilt += n
				}
				reopen()
			}
			n, over, err := ix.Recover(t.Context(), batch[done], sourceOf(have))
			if err != nil {
				t.Fatal(err)
			}
			rebuilt += n
			over = append(over, must[[]index.Entry](t)(ix.Update(t.Context(), batch[done]))...)
			wantEntries(t, ix, slices.DeleteFunc(have, func(e index.Entry) bool { return slices.Contains(over, e) }))
			for _, e := range over {
				if !slices.Contains(batch[done], e) {
					t.Errorf("cut %d: an entry of an older update has no room any more", cut)
				}
			}
		}
		if rebuilt == 0 {
			t.Errorf("%+v: no crash tore a bucket", tc)
		}
		t.Logf("%+v: %d buckets were torn", tc, rebuilt)
	}
}
