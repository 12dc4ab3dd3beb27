package index_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/index"
)

// memFile is a disk.File in memory.
type memFile struct {
	mu      sync.RWMutex
	data    []byte
	writes  int
	written int   // bytes
	err     error // of every write and sync
}

func newFile(size int) *memFile { return &memFile{data: make([]byte, size)} }

func (m *memFile) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return bytes.NewReader(m.data).ReadAt(p, off)
}

func (m *memFile) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.err
	}
	if off < 0 || off+int64(len(p)) > int64(len(m.data)) {
		return 0, io.ErrShortWrite
	}
	m.writes++
	m.written += len(p)
	return copy(m.data[off:], p), nil
}

func (m *memFile) Sync() error { return m.err }
func (m *memFile) Size() int64 { return int64(len(m.data)) }

// must returns v, and ends the test on an error.
func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// testConfig is what newIndex makes an index of.
type testConfig struct {
	sections  int
	buckets   int // in each section
	blockSize int // 0 means the default
	version   int
}

// newIndex formats an index with one arena and returns it with its files.
func newIndex(t testing.TB, c testConfig) (*index.Index, []*memFile) {
	t.Helper()
	if c.blockSize == 0 {
		c.blockSize = index.DefaultBlockSize
	}
	var files []*memFile
	var sections []*index.Section
	for i := range c.sections {
		// The blank, the header, the table, all rounded up, and the buckets.
		f := newFile(786432 + 2*c.blockSize + c.buckets*c.blockSize)
		for j := range f.data {
			if c.version != 1 {
				f.data[j] = byte(j*7) | 1 // stale data
			}
		}
		s := must[*index.Section](t)(index.FormatSection(t.Context(), f, index.SectionConfig{
			Name: fmt.Sprintf("isect%d", i), BlockSize: c.blockSize, Version: c.version, Magic: uint32(0x1000 + i)}))
		s.Blocks = uint32(c.buckets)
		files, sections = append(files, f), append(sections, s)
	}
	return must[*index.Index](t)(index.Format("main", sections, arenas)), files
}

var arenas = []index.Arena{{Name: "arena0", Size: 1 << 40}}

// reopen opens the index in files.
func reopen(t testing.TB, files []*memFile) *index.Index {
	t.Helper()
	var sections []*index.Section
	for _, f := range files {
		sections = append(sections, must[*index.Section](t)(index.OpenSection(f)))
	}
	return must[*index.Index](t)(index.Open("main", sections, arenas))
}

// entries returns entries with random scores and addresses from 1 MiB on,
// sorted.
func entries(seed uint64, n int) []index.Entry {
	rng := rand.New(rand.NewPCG(seed, 1))
	list := make([]index.Entry, n)
	for i := range list {
		e := &list[i]
		for j := 0; j < len(e.Score); j += 4 {
			binary.BigEndian.PutUint32(e.Score[j:], rng.Uint32())
		}
		e.Type = venti.Type(rng.IntN(17)).Disk()
		e.Addr = index.FirstAddr + uint64(i)*8230
		e.Size = uint16(rng.IntN(venti.MaxBlockSize) + 1)
		e.Blocks = index.SectorsOf(int(e.Size))
	}
	index.Sort(list)
	return list
}

func update(t testing.TB, ix *index.Index, list []index.Entry) (overflow []index.Entry) {
	t.Helper()
	return must[[]index.Entry](t)(ix.Update(t.Context(), list))
}

// wantEntries looks up every entry.
func wantEntries(t testing.TB, ix *index.Index, list []index.Entry) {
	t.Helper()
	buf := make([]byte, ix.BlockSize)
	for _, e := range list {
		got, ok, err := ix.Lookup(e.Score, e.Type, buf)
		if err != nil || !ok || got != e {
			t.Fatalf("lookup of %v/%d: got %+v, %v, %v, want %+v", e.Score, e.Type, got, ok, err, e)
		}
	}
}

func TestUpdateLookup(t *testing.T) {
	for _, c := range []testConfig{
		{sections: 1, buckets: 1},
		{sections: 1, buckets: 100},
		{sections: 3, buckets: 70},
		{sections: 2, buckets: 50, version: 1},
		{sections: 1, buckets: 700, blockSize: 512},
		{sections: 2, buckets: 20, blockSize: 16384},
		{sections: 1, buckets: 4, blockSize: 65536},
		{sections: 2, buckets: 5000, blockSize: 512},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			ix, files := newIndex(t, c)
			room := int(ix.Buckets) * ix.Sections[0].Capacity()
			// Half full: none of the buckets is full then, but for the one.
			list := entries(1, min(room/2, 8000))
			if c.blockSize == 512 {
				list = list[:len(list)/2]
			}
			for _, part := range [][]index.Entry{list[:len(list)/3], list[len(list)/3:], list, nil} {
				if o := update(t, ix, part); len(o) != 0 {
					t.Fatalf("%d entries overflowed", len(o))
				}
			}
			wantEntries(t, ix, list)
			ix = reopen(t, files)
			wantEntries(t, ix, list)
			buf := make([]byte, ix.BlockSize)
			for _, e := range entries(2, 1000) {
				if _, ok, err := ix.Lookup(e.Score, e.Type, buf); ok || err != nil {
					t.Fatalf("lookup of what is not there: %v, %v", ok, err)
				}
			}
			// The same score under another type is another block.
			e := list[0]
			if _, ok, err := ix.Lookup(e.Score, venti.DiskCorrupt, buf); ok || err != nil {
				t.Errorf("lookup of another type: %v, %v", ok, err)
			}
			// What is there already is not written again.
			for _, f := range files {
				f.writes = 0
			}
			update(t, ix, list)
			for i, f := range files {
				if f.writes != 0 {
					t.Errorf("section %d: %d writes for entries that are there", i, f.writes)
				}
			}
		})
	}
}

func TestUpdateReplaces(t *testing.T) {
	ix, _ := newIndex(t, testConfig{sections: 1, buckets: 2})
	list := entries(1, 20)
	update(t, ix, list)
	again := slices.Clone(list[3:8])
	for i := range again {
		again[i].Addr += 1 << 20
		again[i].Blocks++
	}
	// Two for one key: the higher address counts.
	twice := append(slices.Clone(again), list[3:8]...)
	index.Sort(twice)
	update(t, ix, twice)
	copy(list[3:], again)
	wantEntries(t, ix, list)
}

func TestUpdateOverflow(t *testing.T) {
	ix, files := newIndex(t, testConfig{sections: 2, buckets: 2})
	room := int(ix.Buckets) * ix.Sections[0].Capacity()
	first, second := entries(1, room/2), entries(2, 2*room)
	if o := update(t, ix, first); len(o) != 0 {
		t.Fatalf("%d of the first entries overflowed", len(o))
	}
	over := update(t, ix, second)
	if len(over) != len(first)+len(second)-room {
		t.Errorf("%d entries overflowed, want %d", len(over), len(first)+len(second)-room)
	}
	ix = reopen(t, files)
	wantEntries(t, ix, first)
	in := slices.DeleteFunc(slices.Clone(second), func(e index.Entry) bool { return slices.Contains(over, e) })
	wantEntries(t, ix, in)
	// Full, it still knows what it has.
	again := append(slices.Clone(first), in...)
	index.Sort(again)
	if o := update(t, ix, again); len(o) != 0 {
		t.Errorf("%d entries that were there overflowed", len(o))
	}
}

func TestUpdateFailures(t *testing.T) {
	ix, files := newIndex(t, testConfig{sections: 2, buckets: 20})
	list := entries(1, 500)
	unsorted := slices.Clone(list)
	slices.Reverse(unsorted)
	if _, err := ix.Update(t.Context(), unsorted); err == nil {
		t.Error("unsorted entries were taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ix.Update(ctx, list); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	fire := errors.New("disk on fire")
	files[1].err = fire
	if _, err := ix.Update(t.Context(), list); !errors.Is(err, fire) {
		t.Errorf("failing disk: %v", err)
	}
	files[1].err = nil
	update(t, ix, list)
	wantEntries(t, ix, list)
}

// TestUpdateWhileLookup looks entries up while other ones are put between
// them.
func TestUpdateWhileLookup(t *testing.T) {
	ix, _ := newIndex(t, testConfig{sections: 2, buckets: 30})
	before := entries(1, 2000)
	update(t, ix, before)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 0))
			buf := make([]byte, ix.BlockSize)
			for {
				select {
				case <-stop:
					return
				default:
				}
				e := before[rng.IntN(len(before))]
				if got, ok, err := ix.Lookup(e.Score, e.Type, buf); err != nil || !ok || got != e {
					t.Errorf("lookup: %+v, %v, %v, want %+v", got, ok, err, e)
					return
				}
			}
		})
	}
	for i := range 30 {
		update(t, ix, entries(uint64(i+2), 100))
	}
	close(stop)
	wg.Wait()
}

// sourceOf gives the entries of a slice.
func sourceOf(list []index.Entry) index.Source {
	return func(context.Context) iter.Seq2[index.Entry, error] {
		return func(yield func(index.Entry, error) bool) {
			for _, e := range list {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// TestRecover loses, in every way, sectors of a bucket that is being written,
// and finds all entries after Recover.
func TestRecover(t *testing.T) {
	for _, c := range []testConfig{
		{sections: 2, buckets: 4, blockSize: 2048},
		{sections: 1, buckets: 1, blockSize: 16384}, // full, it has no room for a check
		{sections: 2, buckets: 4, blockSize: 2048, version: 1},
	} {
		ix, files := newIndex(t, c)
		room := int(ix.Buckets) * ix.Sections[0].Capacity()
		all := entries(1, room)
		old, fresh := all[:room*2/3], all[room*2/3:]
		rng := rand.New(rand.NewPCG(3, 4))
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		index.Sort(old)
		index.Sort(fresh)
		var lost []index.Entry
		add := func(list []index.Entry) { lost = append(lost, update(t, ix, list)...) }
		add(old)
		before := make([][]byte, len(files))
		for i, f := range files {
			before[i] = bytes.Clone(f.data)
		}
		add(fresh)
		// Overflowed entries are in no bucket before and after.
		in := slices.DeleteFunc(slices.Clone(all), func(e index.Entry) bool { return slices.Contains(lost, e) })
		torn := 0
		for try := range 25 {
			crashed := make([]*memFile, len(files))
			for i, f := range files {
				crashed[i] = &memFile{data: bytes.Clone(f.data)}
				for off := int(ix.Sections[i].BlockBase); off < len(f.data); off += 512 {
					if rng.IntN(try%10+2) == 0 {
						copy(crashed[i].data[off:off+512], before[i][off:])
					}
				}
			}
			cx := reopen(t, crashed)
			rebuilt, over, err := cx.Recover(t.Context(), fresh, sourceOf(in))
			if err != nil || len(over) != 0 {
				t.Fatalf("%+v: recover: %v, %d overflowed", c, err, len(over))
			}
			torn += rebuilt
			update(t, cx, slices.DeleteFunc(slices.Clone(fresh), func(e index.Entry) bool { return slices.Contains(lost, e) }))
			wantEntries(t, cx, in)
		}
		if torn == 0 {
			t.Errorf("%+v: no bucket was torn", c)
		}
		// A whole index is left alone, if it can tell.
		if c.blockSize < 16384 {
			if rebuilt, _, err := ix.Recover(t.Context(), fresh, nil); err != nil || rebuilt != 0 {
				t.Errorf("%+v: recover of a whole index: %d buckets, %v", c, rebuilt, err)
			}
		}
	}
}

func TestDamagedBuckets(t *testing.T) {
	ix, files := newIndex(t, testConfig{sections: 1, buckets: 1})
	list := entries(1, 50)
	update(t, ix, list)
	base := ix.Sections[0].BlockBase
	good := bytes.Clone(files[0].data)
	for _, tc := range []struct {
		name   string
		change func(bucket []byte)
	}{
		{"too many entries", func(b []byte) { b[0] = 0xff }},
		{"out of order", func(b []byte) { b[6+38*3] = 0 }},
	} {
		copy(files[0].data, good)
		tc.change(files[0].data[base:])
		buf := make([]byte, ix.BlockSize)
		if _, ok, err := ix.Lookup(venti.Score{1: 1}, venti.DiskData, buf); ok || !errors.Is(err, index.ErrBadBucket) {
			t.Errorf("%s: lookup: %v, %v", tc.name, ok, err)
		}
		more := entries(2, 5)
		if over := update(t, ix, more); !slices.Equal(over, more) {
			t.Errorf("%s: %d entries overflowed, want %d", tc.name, len(over), len(more))
		}
	}
}

func TestLookupAddr(t *testing.T) {
	s := must[*index.Section](t)(index.FormatSection(t.Context(), newFile(1<<20), index.SectionConfig{Name: "s"}))
	ix := must[*index.Index](t)(index.Format("x", []*index.Section{s}, []index.Arena{{"a", 100}, {"b", 1}, {"c", 50}}))
	for _, tc := range []struct {
		addr   uint64
		arena  int
		offset uint64
		ok     bool
	}{
		{0, 0, 0, false},
		{index.FirstAddr - 1, 0, 0, false},
		{index.FirstAddr, 0, 0, true},
		{index.FirstAddr + 99, 0, 99, true},
		{index.FirstAddr + 100, 1, 0, true},
		{index.FirstAddr + 101, 2, 0, true},
		{index.FirstAddr + 150, 2, 49, true},
		{index.FirstAddr + 151, 0, 0, false},
		{1<<64 - 1, 0, 0, false},
	} {
		arena, offset, ok := ix.LookupAddr(tc.addr)
		if arena != tc.arena || offset != tc.offset || ok != tc.ok {
			t.Errorf("LookupAddr(%d) = %d, %d, %v, want %d, %d, %v", tc.addr, arena, offset, ok, tc.arena, tc.offset, tc.ok)
		}
	}
}

func TestFormatRefuses(t *testing.T) {
	section := func(name string, size, blockSize int) *index.Section {
		return must[*index.Section](t)(index.FormatSection(t.Context(), newFile(size), index.SectionConfig{Name: name, BlockSize: blockSize}))
	}
	for _, tc := range []struct {
		name     string
		sections []*index.Section
		arenas   []index.Arena
	}{
		{"no sections", nil, arenas},
		{"section twice", []*index.Section{section("a", 2<<20, 0), section("a", 2<<20, 0)}, arenas},
		{"block sizes", []*index.Section{section("a", 2<<20, 0), section("b", 2<<20, 4096)}, arenas},
		{"arena twice", []*index.Section{section("a", 2<<20, 0)}, []index.Arena{{"x", 1}, {"x", 1}}},
		{"bad arena name", []*index.Section{section("a", 2<<20, 0)}, []index.Arena{{"x y", 1}}},
		{"empty arena", []*index.Section{section("a", 2<<20, 0)}, []index.Arena{{"x", 0}}},
		{"too many arenas", []*index.Section{section("a", 2<<20, 0)}, manyArenas(30000)},
	} {
		if _, err := index.Format("main", tc.sections, tc.arenas); err == nil {
			t.Errorf("%s: formatted", tc.name)
		}
	}
	s := section("a", 2<<20, 0)
	must[*index.Index](t)(index.Format("main", []*index.Section{s}, arenas))
	must[*index.Index](t)(index.Format("main", []*index.Section{s}, arenas)) // again is fine
	if _, err := index.Format("other", []*index.Section{s}, arenas); err == nil {
		t.Error("a section was taken from another index")
	}
	if _, err := index.Format("main", []*index.Section{s, section("b", 2<<20, 0)}, arenas); err == nil {
		t.Error("a section's buckets were renumbered")
	}
	if _, err := index.Format("main", []*index.Section{s}, []index.Arena{{"before", 5}, arenas[0]}); err == nil {
		t.Error("the addresses of an arena changed")
	}
	must[*index.Index](t)(index.Format("main", []*index.Section{s}, append(slices.Clone(arenas), index.Arena{Name: "after", Size: 5})))
	for _, c := range []index.SectionConfig{
		{Name: ""}, {Name: "a b"}, {Name: strings.Repeat("x", 64)},
		{Name: "a", BlockSize: 1000}, {Name: "a", BlockSize: 256}, {Name: "a", BlockSize: 1 << 17},
		{Name: "a", BlockSize: 65536}, // does not fit
	} {
		if _, err := index.FormatSection(t.Context(), newFile(800000), c); err == nil {
			t.Errorf("section %+v was formatted", c)
		}
	}
}

func manyArenas(n int) []index.Arena {
	list := make([]index.Arena, n)
	for i := range list {
		list[i] = index.Arena{Name: fmt.Sprintf("arena%d", i), Size: 1 << 20}
	}
	return list
}

func TestAppend(t *testing.T) {
	a := []index.Arena{{"a", 1000}, {"b", 2000}, {"c", 3000}, {"d", 4000}}
	var files []*memFile
	open := func() (list []*index.Section) {
		for _, f := range files {
			list = append(list, must[*index.Section](t)(index.OpenSection(f)))
		}
		return list
	}
	for i := range 2 {
		f := newFile(1 << 20)
		must[*index.Section](t)(index.FormatSection(t.Context(), f, index.SectionConfig{Name: fmt.Sprint("s", i)}))
		files = append(files, f)
	}
	if _, err := index.Append("x", open(), a); err == nil {
		t.Error("appended to what was never formatted")
	}
	must[*index.Index](t)(index.Format("x", open(), a[:2]))
	half := bytes.Clone(files[1].data)
	for _, bad := range [][]index.Arena{a[:1], {a[1], a[0]}, {a[0], {"b", 2001}}, {a[0], a[2], a[1]}} {
		if _, err := index.Append("x", open(), bad); err == nil {
			t.Errorf("appended to %v, making it %v", a[:2], bad)
		}
	}
	must[*index.Index](t)(index.Append("x", open(), a[:3]))
	// A crash after the first section.
	whole := files[1].data
	files[1].data = half
	if _, err := index.Open("x", open(), a); err == nil || !strings.Contains(err.Error(), "fmtindex -a") {
		t.Errorf("half appended: %v", err)
	}
	must[*index.Index](t)(index.Append("x", open(), a[:3]))
	if !bytes.Equal(files[1].data, whole) {
		t.Error("appending again made another index")
	}
	must[*index.Index](t)(index.Append("x", open(), a))
	ix := must[*index.Index](t)(index.Open("x", open(), append([]index.Arena{{"new", 5}}, a...)))
	if got, want := fmt.Sprint(ix.Arenas), "[{a 1048576 1049576} {b 1049576 1051576} {c 1051576 1054576} {d 1054576 1058576}]"; got != want {
		t.Errorf("arenas %v, want %v", got, want)
	}
	for name, have := range map[string][]index.Arena{
		"missing": a[1:], "size": {{"a", 999}, a[1], a[2], a[3]}, "twice": append([]index.Arena{a[0]}, a...),
	} {
		if _, err := index.Open("x", open(), have); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := index.Open("y", open(), a); err == nil {
		t.Error("opened under another name")
	}
	sections := open()
	slices.Reverse(sections)
	if _, err := index.Open("x", sections, a); err == nil {
		t.Error("opened with the sections in another order")
	}
	if _, err := index.Open("x", sections[:1], a); err == nil {
		t.Error("opened without a section")
	}
}

// TestBucketMap checks what Format makes of sizes against the rules of
// spec/venti-storage.md, section 8.2.
func TestBucketMap(t *testing.T) {
	for _, buckets := range [][]int{{1}, {2}, {3}, {415, 289}, {1000}, {671, 671}, {7, 5000}, {99999}, {20011, 40, 30011}} {
		var sections []*index.Section
		for i, n := range buckets {
			s := must[*index.Section](t)(index.FormatSection(t.Context(), newFile(1<<20), index.SectionConfig{Name: fmt.Sprint("s", i), BlockSize: 512}))
			s.Blocks = uint32(n) // no bucket is touched
			sections = append(sections, s)
		}
		ix := must[*index.Index](t)(index.Format("x", sections, arenas))
		if want := uint32((1<<32-1)/ix.Div + 1); ix.Buckets != want {
			t.Errorf("%v: %d buckets, want %d", buckets, ix.Buckets, want)
		}
		next := uint32(0)
		for i, s := range ix.Sections {
			if s.Start != next || s.Stop <= s.Start || s.Stop-s.Start > s.Blocks {
				t.Errorf("%v: section %d has [%d,%d) of %d", buckets, i, s.Start, s.Stop, s.Blocks)
			}
			next = s.Stop
		}
		if next != ix.Buckets || ix.Bucket(venti.Score{}) != 0 || ix.Bucket(venti.Score{255, 255, 255, 255}) != ix.Buckets-1 {
			t.Errorf("%v: the last bucket is %d of %d; scores end at %d", buckets, next, ix.Buckets, ix.Bucket(venti.Score{255, 255, 255, 255}))
		}
	}
}

// shared returns the contents of a file of the golden data, unpacked if need
// be, and skips the test where there is none.
func shared(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("STRATA_SHARED")
	for root := "."; dir == "" && root != "/"; {
		root, _ = filepath.Abs(filepath.Join(root, ".."))
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			dir = filepath.Join(root, "../shared")
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "golden", name))
	if err != nil {
		t.Skipf("no golden data: %v", err)
	}
	if strings.HasSuffix(name, ".gz") {
		z := must[*gzip.Reader](t)(gzip.NewReader(bytes.NewReader(b)))
		b = must[[]byte](t)(io.ReadAll(z))
	}
	return b
}

// goldenTable returns the entries in a table of the golden data, in its
// order, and its comments.
func goldenTable(t *testing.T, name string) (list []index.Entry, buckets []uint32, comments []string) {
	t.Helper()
	lines := bufio.NewScanner(bytes.NewReader(shared(t, name)))
	for lines.Scan() {
		if c, ok := strings.CutPrefix(lines.Text(), "# "); ok {
			comments = append(comments, c)
			continue
		}
		f := strings.Split(lines.Text(), "\t")
		number := func(i int) int { return must[int](t)(strconv.Atoi(f[i])) }
		list = append(list, index.Entry{
			Score: must[venti.Score](t)(venti.ParseScore(f[1])),
			Addr:  uint64(number(2)), Size: uint16(number(3)), Type: venti.Type(number(4)).Disk(), Blocks: uint8(number(5)),
		})
		buckets = append(buckets, uint32(number(0)))
	}
	return list, buckets, comments
}

// golden are the stores of the golden data: names and bucket magics that
// format them again.
var golden = []struct {
	dir, index, entries string
	sections            []index.SectionConfig
	arenas              []index.Arena
}{
	{"v5", "golden1", "index.tsv.gz",
		[]index.SectionConfig{{Name: "g1isect0", Magic: 0x4ad9c4f9}, {Name: "g1isect1", Magic: 0x56092140}},
		[]index.Arena{{"g1arena0", 1032192}, {"g1arena1", 1032192}, {"g1arena2", 1032192}, {"g1arena3", 1032192}, {"g1arena4", 1032192}, {"g1arena5", 1286144}}},
	{"v4", "oldindex", "index.tsv.gz",
		[]index.SectionConfig{{Name: "oldisect", Version: 1}},
		[]index.Arena{{"old0", 1032192}, {"old1", 1286144}}},
	{"dirty", "dirtyindex", "index-before.tsv.gz",
		[]index.SectionConfig{{Name: "dirtyisect", Magic: 0xa465ab22}},
		[]index.Arena{{"dirty0", 1032192}, {"dirty1", 1286144}}},
}

// TestGolden reads what plan9port's programs wrote, and writes the same.
func TestGolden(t *testing.T) {
	for _, g := range golden {
		t.Run(g.dir, func(t *testing.T) {
			var theirs, ours []*index.Section
			var theirFiles, ourFiles []*memFile
			for i, c := range g.sections {
				f := &memFile{data: shared(t, fmt.Sprintf("%s/isect%d.gz", g.dir, i))}
				theirFiles = append(theirFiles, f)
				theirs = append(theirs, must[*index.Section](t)(index.OpenSection(f)))
				f = newFile(len(f.data))
				ourFiles = append(ourFiles, f)
				ours = append(ours, must[*index.Section](t)(index.FormatSection(t.Context(), f, c)))
			}
			ix := must[*index.Index](t)(index.Open(g.index, theirs, g.arenas))
			list, buckets, comments := goldenTable(t, g.dir+"/"+g.entries)
			wantEntries(t, ix, list)
			for i, e := range list {
				if ix.Bucket(e.Score) != buckets[i] {
					t.Errorf("%v is in bucket %d, want %d", e.Score, ix.Bucket(e.Score), buckets[i])
				}
			}
			for i, s := range theirs {
				want := fmt.Sprintf("version=%d name=%s index=%s blocksize=%d blockbase=%d blocks=%d start=%d stop=%d bucketmagic=0x%08x",
					s.Version, s.Name, s.Index, s.BlockSize, s.BlockBase, s.Blocks, s.Start, s.Stop, s.Magic)
				if comments[2*i] != want {
					t.Errorf("header %s, want %s", want, comments[2*i])
				}
			}

			ix = must[*index.Index](t)(index.Format(g.index, ours, g.arenas))
			if g.dir == "v5" {
				for i, f := range ourFiles {
					if !bytes.Equal(f.data, shared(t, fmt.Sprintf("v5/empty/isect%d.gz", i))) {
						t.Errorf("section %d: what was formatted is not what plan9port formats", i)
					}
				}
			}
			sorted := slices.Clone(list)
			index.Sort(sorted)
			if o := update(t, ix, sorted); len(o) != 0 {
				t.Errorf("%d entries overflowed", len(o))
			}
			for i, f := range ourFiles {
				// Of ours, all but the checks, of which plan9port has none.
				for off := int(ours[i].BlockBase) + ix.BlockSize; off <= len(f.data); off += ix.BlockSize {
					clear(f.data[off-8 : off])
				}
				if !bytes.Equal(f.data, theirFiles[i].data) {
					t.Errorf("section %d: what was written is not what plan9port wrote", i)
				}
			}
		})
	}
}

// TestGoldenRecover indexes what plan9port's server had not when it was
// killed.
func TestGoldenRecover(t *testing.T) {
	g := golden[2]
	s := must[*index.Section](t)(index.OpenSection(&memFile{data: shared(t, "dirty/isect0.gz")}))
	ix := must[*index.Index](t)(index.Open(g.index, []*index.Section{s}, g.arenas))
	after, _, _ := goldenTable(t, "dirty/index-after-recovery.tsv.gz")
	var fresh []index.Entry
	for _, e := range after {
		if e.Addr >= index.FirstAddr+213236 {
			fresh = append(fresh, e)
		}
	}
	if len(fresh) != 13 {
		t.Fatalf("%d entries were not indexed, want 13", len(fresh))
	}
	index.Sort(fresh)
	if _, _, err := ix.Recover(t.Context(), fresh, sourceOf(after)); err != nil {
		t.Fatal(err)
	}
	update(t, ix, fresh)
	wantEntries(t, ix, after)
}

// fileIndex formats an index of 64 MiB in a file.
func fileIndex(b *testing.B) *index.Index {
	name := filepath.Join(b.TempDir(), "isect")
	if err := disk.Create(name, 65<<20); err != nil {
		b.Fatal(err)
	}
	p := must[*disk.Partition](b)(disk.Open(name, disk.Options{}))
	b.Cleanup(func() { p.Close() })
	s := must[*index.Section](b)(index.FormatSection(b.Context(), p, index.SectionConfig{Name: "isect"}))
	return must[*index.Index](b)(index.Format("main", []*index.Section{s}, arenas))
}

func BenchmarkLookup(b *testing.B) {
	ix := fileIndex(b)
	list := entries(1, 1000000)
	update(b, ix, list)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, ix.BlockSize)
		for i := rand.IntN(len(list)); pb.Next(); i += 7919 {
			e := &list[i%len(list)]
			if got, ok, err := ix.Lookup(e.Score, e.Type, buf); err != nil || !ok || got != *e {
				b.Error("wrong answer")
			}
		}
	})
}

// BenchmarkUpdate is for one entry; they come 20000 at a time, which is two
// or three to a bucket, and are synced.
func BenchmarkUpdate(b *testing.B) {
	const atOnce = 20000
	ix := fileIndex(b)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%atOnce == 0 {
			b.StopTimer()
			if n%(40*atOnce) == 0 && n > 0 {
				ix = fileIndex(b)
			}
			list := entries(uint64(n), atOnce)
			b.StartTimer()
			update(b, ix, list)
		}
	}
}
