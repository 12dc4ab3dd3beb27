package index_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/config"
	"strata/venti/internal/index"
)

// check runs Check and returns the counts and the differences as text.
func check(t *testing.T, ix *index.Index, c index.CheckConfig) (index.CheckResult, []string) {
	t.Helper()
	var list []string
	c.Report = func(d index.Difference) {
		list = append(list, fmt.Sprintf("%d %x %d", d.Kind, d.Entry.Score[:4], d.Entry.Addr))
	}
	return must[index.CheckResult](t)(ix.Check(t.Context(), c)), list
}

// filter is a Bloom filter that makes no mistakes.
type filter map[venti.Score]bool

func (f filter) Has(s venti.Score) bool { return f[s] }
func (f filter) Add(s venti.Score)      { f[s] = true }

func TestCheck(t *testing.T) {
	for _, c := range []testConfig{
		{sections: 1, buckets: 40},
		{sections: 3, buckets: 13},
		{sections: 1, buckets: 40, version: 1},
		{sections: 1, buckets: 700, blockSize: 512},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			ix, files := newIndex(t, c)
			list := entries(1, 3000)
			bloom := filter{}
			for _, e := range list {
				bloom.Add(e.Score)
			}
			update(t, ix, list)
			want := index.CheckResult{Entries: 3000}
			// The memory does not change what is found, nor that clumps are
			// there twice.
			twice := append(slices.Clone(list), list[10:20]...)
			for i := range 10 {
				twice[3000+i].Addr += 1 << 30
			}
			for _, memory := range []int64{0, 1000 * 40, 1} {
				if got, list := check(t, ix, index.CheckConfig{Source: sourceOf(twice), Count: 3010, Memory: memory, Bloom: bloom}); got != want {
					t.Errorf("a good index: %+v, want %+v; %v", got, want, list)
				}
			}

			// Entries go away, change, and come from nowhere; a bucket is
			// damaged; the filter forgets.
			damaged := slices.Clone(list)
			index.Sort(damaged)
			source := slices.Concat(list[:100], list[103:], entries(2, 4))
			source[50].Addr += 7
			delete(bloom, list[200].Score)
			whole := bytes.Clone(files[0].data)
			want = index.CheckResult{Entries: 3001, Extra: 4, Missing: 5, BloomMissing: 1 + 4}
			if c.blockSize != 512 {
				files[0].data[ix.Sections[0].BlockBase] = 0xff
				inFirst := 0
				for inFirst < len(list) && ix.Bucket(list[inFirst].Score) == 0 {
					inFirst++
				}
				want.Damaged = 1
				want.Missing += int64(inFirst)
				if inFirst > 50 {
					want.Extra--
					want.Missing--
				}
				if inFirst > 100 {
					want.Extra -= int64(min(3, inFirst-100))
				}
			}
			cfg := index.CheckConfig{Source: sourceOf(source), Bloom: bloom}
			got, found := check(t, ix, cfg)
			if got != want {
				t.Errorf("a damaged index: %+v, want %+v; %v", got, want, found)
			}
			if again, _ := check(t, ix, cfg); again != got {
				t.Errorf("checking changed the result from %+v to %+v", got, again)
			}
			cfg.Fix = true
			check(t, ix, cfg)
			cfg.Fix = false
			if got, found := check(t, ix, cfg); got != (index.CheckResult{Entries: 3001}) {
				t.Errorf("a fixed index: %+v, %v", got, found)
			}
			wantEntries(t, ix, source)
			// Made as it was before, it is as it was before.
			check(t, ix, index.CheckConfig{Source: sourceOf(list), Fix: true})
			wantEntries(t, ix, list)
			if s := ix.Sections[0]; c.version != 1 {
				// but for what lies unused
				if n := binary.BigEndian.Uint16(whole[s.BlockBase:]); !bytes.Equal(files[0].data[s.BlockBase:][:6+38*int(n)], whole[s.BlockBase:][:6+38*int(n)]) {
					t.Error("the first bucket is not what it was")
				}
			}
		})
	}
}

func TestCheckPending(t *testing.T) {
	ix, _ := newIndex(t, testConfig{sections: 1, buckets: 40})
	list := entries(1, 100)
	update(t, ix, list[:90])
	bloom := filter{}
	for _, e := range list[:95] {
		bloom.Add(e.Score)
	}
	cfg := index.CheckConfig{Source: sourceOf(list), Bloom: bloom}
	if got, list := check(t, ix, cfg); got != (index.CheckResult{Entries: 100, Missing: 10, BloomMissing: 5}) {
		t.Errorf("without Pending: %+v, %v", got, list)
	}
	cfg.Pending = func(e *index.Entry) bool { return slices.Contains(list[80:], *e) }
	if got, list := check(t, ix, cfg); got != (index.CheckResult{Entries: 100, Pending: 10}) || got.Wrong() {
		t.Errorf("with Pending: %+v, %v", got, list)
	}
}

func TestCheckFull(t *testing.T) {
	ix, _ := newIndex(t, testConfig{sections: 1, buckets: 1})
	list := entries(1, 220)
	cfg := index.CheckConfig{Source: sourceOf(list), Fix: true}
	if got, _ := check(t, ix, cfg); got != (index.CheckResult{Entries: 220, Missing: 220, Full: 5}) {
		t.Errorf("an empty index: %+v", got)
	}
	if got, _ := check(t, ix, cfg); got != (index.CheckResult{Entries: 220, Missing: 5, Full: 5}) {
		t.Errorf("a full one: %+v", got)
	}
}

func TestCheckFails(t *testing.T) {
	ix, files := newIndex(t, testConfig{sections: 1, buckets: 40})
	fire := errors.New("disk on fire")
	broken := func(context.Context) iter.Seq2[index.Entry, error] {
		return func(yield func(index.Entry, error) bool) { yield(index.Entry{}, fire) }
	}
	if _, err := ix.Check(t.Context(), index.CheckConfig{Source: broken}); !errors.Is(err, fire) {
		t.Errorf("a source that fails: %v", err)
	}
	files[0].err = fire
	if _, err := ix.Check(t.Context(), index.CheckConfig{Source: sourceOf(entries(1, 10)), Fix: true}); !errors.Is(err, fire) {
		t.Errorf("a disk that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ix.Check(ctx, index.CheckConfig{Source: sourceOf(nil)}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestGoldenCheck checks the stores of the golden data against their arenas.
func TestGoldenCheck(t *testing.T) {
	for _, tc := range []struct {
		dir     string
		want    index.CheckResult // when nothing is pending
		pending int
	}{
		{"v5", index.CheckResult{Entries: 10626}, 0},
		{"v4", index.CheckResult{Entries: 347}, 0},
		{"dirty", index.CheckResult{Entries: 101, Missing: 13}, 13},
	} {
		t.Run(tc.dir, func(t *testing.T) {
			dir := t.TempDir()
			c := must[*config.Config](t)(config.Parse(shared(t, tc.dir+"/venti.conf"), "venti.conf"))
			for _, list := range [][]string{c.Arenas, c.Sections, {c.Bloom}} {
				for i, name := range list {
					if name == "" {
						continue
					}
					list[i] = filepath.Join(dir, name)
					if err := os.WriteFile(list[i], shared(t, tc.dir+"/"+name+".gz"), 0o666); err != nil {
						t.Fatal(err)
					}
				}
			}
			if c.Bloom != "" {
				c.Bloom = filepath.Join(dir, c.Bloom)
			}
			p := must[*index.Parts](t)(index.OpenParts(c, disk.Options{}))
			defer p.Close()
			if _, err := index.OpenParts(c, disk.Options{}); !errors.Is(err, disk.ErrInUse) {
				t.Errorf("opened twice: %v", err)
			}
			ix := must[*index.Index](t)(index.Open(c.Index, p.Sections, index.MapArenas(p.Arenas)))
			source := ix.ArenaSource(p.Arenas)
			if got, list := check(t, ix, index.CheckConfig{Source: source}); got != tc.want {
				t.Errorf("got %+v, want %+v; %v", got, tc.want, list)
			}
			pending, count, err := ix.Pending(p.Arenas)
			if err != nil {
				t.Fatal(err)
			}
			want := index.CheckResult{Entries: tc.want.Entries, Pending: int64(tc.pending)}
			if got, list := check(t, ix, index.CheckConfig{Source: source, Pending: pending, Count: count, Memory: 200000}); got != want {
				t.Errorf("got %+v, want %+v; %v", got, want, list)
			}
			// The source is what the table says.
			list, _, _ := goldenTable(t, tc.dir+"/"+map[bool]string{true: "index-after-recovery.tsv.gz", false: "index.tsv.gz"}[tc.dir == "dirty"])
			var got []index.Entry
			for e, err := range source(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e)
			}
			index.Sort(got)
			index.Sort(list)
			if !reflect.DeepEqual(got, list) {
				t.Error("the arenas' entries are not those of the index")
			}
		})
	}
}
