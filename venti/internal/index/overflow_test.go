package index_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"strata/venti"
	"strata/venti/internal/index"
)

// withOverflow opens the index in files with the overflow in over.
func withOverflow(t *testing.T, files []*memFile, over *memFile) *index.Index {
	t.Helper()
	ix := reopen(t, files)
	if err := ix.OpenOverflow(over); err != nil {
		t.Fatal(err)
	}
	return ix
}

// TestOverflow gives an index three times the entries that its buckets have
// room for: all are found, checked, replaced, built anew, and found again.
func TestOverflow(t *testing.T) {
	for _, c := range []testConfig{{sections: 1, buckets: 8, blockSize: 512}, {sections: 3, buckets: 7, blockSize: 1024}, {sections: 1, buckets: 2}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			ix, files := newIndex(t, c)
			over := newFile(int(index.OverflowSize(ix.Sections)))
			room := int(ix.Buckets) * ix.Sections[0].Capacity()
			list := entries(1, 5*room/2)
			ix = withOverflow(t, files, over)
			for i, part := range [][]index.Entry{list[:room/3], list[room/3 : room], list[room:], list} {
				if left := update(t, ix, part); len(left) != 0 {
					t.Fatalf("part %d: %d entries have no room", i, len(left))
				}
				if i%2 == 0 {
					ix = withOverflow(t, files, over)
				}
			}
			absent := func(ix *index.Index) {
				t.Helper()
				buf := make([]byte, ix.BlockSize)
				for _, e := range entries(2, 300) {
					if _, ok, err := ix.Lookup(e.Score, e.Type, buf); ok || err != nil {
						t.Fatalf("lookup of what is not there: %v, %v", ok, err)
					}
				}
			}
			sound := func(what string, ix *index.Index) {
				t.Helper()
				wantEntries(t, ix, list)
				absent(ix)
				want := index.CheckResult{Entries: int64(len(list))}
				if got, found := check(t, ix, index.CheckConfig{Source: sourceOf(list), Count: int64(len(list)), Memory: 1}); got != want {
					t.Errorf("%s: %+v, want %+v; %.5v", what, got, want, found)
				}
			}
			sound("updated", ix)

			// An entry in the overflow is replaced there.
			for i := range list {
				list[i].Addr += 1 << 30
			}
			if left := update(t, ix, list); len(left) != 0 {
				t.Errorf("%d entries have no room", len(left))
			}
			sound("replaced", ix)

			// Damage is found, told from absence, and put right.
			clear(over.data[4096+int(ix.BlockSize)-8:][:8]) // a check sum
			over.data[4096] = 0xff                          // a count
			buf := make([]byte, ix.BlockSize)
			if _, ok, err := ix.Lookup(venti.Score{3: 1}, venti.DiskData, buf); ok || !errors.Is(err, index.ErrBadBucket) {
				t.Errorf("lookup in a damaged bucket: %v, %v", ok, err)
			}
			more := slices.DeleteFunc(entries(3, room), func(e index.Entry) bool { return ix.Bucket(e.Score) != 0 })
			if left := update(t, ix, more[:1]); !slices.Equal(left, more[:1]) {
				t.Errorf("the entry for a damaged bucket went in: %v", left)
			}
			cfg := index.CheckConfig{Source: sourceOf(list)}
			got, _ := check(t, ix, cfg)
			if got.Damaged != 1 || got.Missing == 0 || got.Extra != 0 {
				t.Errorf("with a damaged bucket: %+v", got)
			}
			cfg.Fix = true
			check(t, ix, cfg)
			sound("fixed", withOverflow(t, files, over))

			// Without it the rest is missing, and with it there again.
			ix = reopen(t, files)
			if got, _ := check(t, ix, index.CheckConfig{Source: sourceOf(list)}); got.Missing != int64(len(list)-room) {
				t.Errorf("without the overflow: %+v, want %d missing", got, len(list)-room)
			}
			for _, sections := range [][]int{nil, {0}, {c.sections - 1}} {
				ix = withOverflow(t, files, over)
				cfg := index.BuildConfig{Source: sourceOf(list), Count: int64(len(list)), Memory: 1}
				for _, i := range sections {
					cfg.Sections = append(cfg.Sections, ix.Sections[i])
				}
				if _, left, err := ix.Build(t.Context(), cfg); err != nil || len(left) > 0 {
					t.Fatalf("build: %v, %d entries have no room", err, len(left))
				}
				sound(fmt.Sprintf("sections %v built", sections), withOverflow(t, files, over))
			}

			// Fewer entries leave nothing behind, whatever was there.
			list = list[:len(list)/2]
			ix = reopen(t, files)
			if err := ix.MakeOverflow(over); err != nil {
				t.Fatal(err)
			}
			if _, _, err := ix.Build(t.Context(), index.BuildConfig{Source: sourceOf(list)}); err != nil {
				t.Fatal(err)
			}
			sound("built smaller", withOverflow(t, files, over))
		})
	}
}

// TestOverflowReads counts the reads of look-ups: one, but where a bucket is
// full.
func TestOverflowReads(t *testing.T) {
	ix, files := newIndex(t, testConfig{sections: 1, buckets: 4})
	over := newFile(int(index.OverflowSize(ix.Sections)))
	ix = withOverflow(t, files, over)
	room := 4 * ix.Sections[0].Capacity()
	list := entries(1, room/2)
	update(t, ix, list)
	wantEntries(t, ix, list)
	if got := ix.Reads(); got != int64(len(list)) {
		t.Errorf("%d look-ups took %d reads", len(list), got)
	}
	if over.writes != 0 {
		t.Errorf("%d writes of an overflow that has nothing", over.writes)
	}
}

func TestOverflowRefuses(t *testing.T) {
	c := testConfig{sections: 2, buckets: 4}
	ix, files := newIndex(t, c)
	over := newFile(int(index.OverflowSize(ix.Sections)))
	ix = withOverflow(t, files, over)
	update(t, ix, entries(1, 2000))
	other, _ := newIndex(t, testConfig{sections: 2, buckets: 3})
	old, _ := newIndex(t, testConfig{sections: 1, buckets: 4, version: 1})
	junk := newFile(len(over.data))
	for i := range junk.data {
		junk.data[i] = 7
	}
	for _, tc := range []struct {
		name string
		ix   *index.Index
		file *memFile
	}{
		{"of another index", other, over},
		{"for version 1", old, newFile(1 << 20)},
		{"too short", ix, newFile(4096 + 8*8192 - 1)},
		{"something else", ix, junk},
	} {
		if err := tc.ix.OpenOverflow(tc.file); !errors.Is(err, index.ErrOverflow) {
			t.Errorf("%s: %v, want ErrOverflow", tc.name, err)
		}
	}
}
