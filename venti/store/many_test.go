package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/bloom"
	"strata/venti/internal/index"
	"strata/venti/ventitest"
)

// The tests of this file make a store whose index has many entries, of clumps
// that are not there: arenas are sparse, and only their trailers say that they are
// full. STRATA_ENTRIES is how many, 100,000,000 take 6 GB of disk and some minutes.

// manyEntries are the shape of such a store.
type manyEntries struct {
	entries   int64
	arenas    int64 // full ones; one more is empty
	perArena  int64 // clumps in a full one
	bloomSize int64
}

const manyClump = 2048 // bytes of a clump in the log

func newManyEntries(n int64) manyEntries {
	const perArena = 240 << 10 // which take some 490 MB, and their directory six
	m := manyEntries{entries: n, perArena: perArena, arenas: (n + perArena - 1) / perArena, bloomSize: bloom.MinSize}
	for m.bloomSize < bloom.MaxSize && m.bloomSize < 5*n {
		m.bloomSize *= 2
	}
	return m
}

// score returns the score of entry i. They are in ascending order.
func (m *manyEntries) score(i int64) (s venti.Score) {
	binary.BigEndian.PutUint32(s[:], uint32((uint64(i)<<32)/uint64(m.entries)))
	rng := rand.NewPCG(uint64(i), 0)
	binary.BigEndian.PutUint64(s[4:], rng.Uint64())
	binary.BigEndian.PutUint64(s[12:], rng.Uint64())
	return s
}

// absent returns a score that no entry has, but for chance.
func (m *manyEntries) absent(i int64) venti.Score {
	return venti.ScoreOf(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

// source is the index.Source of all entries.
func (m *manyEntries) source(ix *index.Index) index.Source {
	return func(ctx context.Context) iter.Seq2[index.Entry, error] {
		return func(yield func(index.Entry, error) bool) {
			for i := range m.entries {
				// Neighbours in the index are far apart in the log.
				a, k := i%m.arenas, i/m.arenas
				e := index.Entry{
					Score: m.score(i), Addr: ix.Arenas[a].Start + uint64(k*manyClump), Type: venti.DiskData,
					Size: manyClump - arena.ClumpHeaderSize, Blocks: manyClump / 512,
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// format makes the store in a directory, with its entries or without.
func (m *manyEntries) format(t *testing.T, dir string, full bool) {
	t.Helper()
	ctx := t.Context()
	var files []*disk.Partition
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	create := func(name string, size int64) disk.File {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := disk.Create(path, size); err != nil {
			t.Fatal(err)
		}
		f, err := disk.Open(path, disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		return f
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	arenas := create(ArenasFile, (m.arenas+1)*arena.DefaultArenaSize+(4<<20))
	p, err := arena.Format(ctx, arenas, arena.FormatConfig{Name: "arena"})
	must(err)
	for i := range p.Arenas {
		if !full || int64(i) >= m.arenas {
			break
		}
		a, err := p.OpenArena(i)
		must(err)
		tr, err := a.ReadTrailer()
		must(err)
		tr.Mem = arena.Stats{
			Clumps: uint32(m.perArena), Used: m.perArena * manyClump,
			UncSize: m.perArena * (manyClump - arena.ClumpHeaderSize), Sealed: true,
		}
		tr.Disk, tr.Seal, tr.CTime, tr.WTime = tr.Mem, venti.Score{1}, 1, 1
		must(a.WriteTrailer(&tr))
	}
	// Buckets are four fifths full.
	isect := create(IndexFile, m.entries*5/4/((8192-6)/38)*8192+(2<<20))
	sec, err := index.FormatSection(ctx, isect, index.SectionConfig{Name: "isect0"})
	must(err)
	ix, err := index.Format("main", []*index.Section{sec}, indexArenas(p))
	must(err)
	filter := create(BloomFile, m.bloomSize)
	must(bloom.Format(ctx, filter, bloom.FormatConfig{Hashes: 8}))
	if !full {
		return
	}
	b, err := bloom.Open(filter)
	must(err)
	defer b.Close()
	n, left, err := ix.Build(ctx, index.BuildConfig{
		Source: m.source(ix), Count: m.entries, Memory: 1 << 30, Bloom: b,
		Built: func() error {
			if err := b.Save(); err != nil {
				return err
			}
			return filter.Sync()
		},
	})
	must(err)
	if n != m.entries || len(left) > 0 {
		t.Fatalf("%d entries are in the index, and %d found no room", n, len(left))
	}
}

// A countingFile counts the reads of a partition.
type countingFile struct {
	disk.File
	reads atomic.Int64
}

func (f *countingFile) ReadAt(b []byte, off int64) (int, error) {
	f.reads.Add(1)
	return f.File.ReadAt(b, off)
}

// openMany opens the store in a directory, and returns the files of its arenas
// and its index.
func openMany(t *testing.T, dir string) (s *Store, arenas, isect *countingFile, took time.Duration) {
	t.Helper()
	var files []*disk.Partition
	open := func(name string) *countingFile {
		t.Helper()
		f, err := disk.Open(filepath.Join(dir, name), disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		return &countingFile{File: f}
	}
	arenas, isect = open(ArenasFile), open(IndexFile)
	cfg := Config{
		Arenas: []disk.File{arenas}, Sections: []disk.File{isect}, Bloom: open(BloomFile).File,
		LumpMem: 64 << 20, IndexMem: 256 << 20, Compression: CompressNone,
	}
	start := time.Now()
	s = mustOpen(t, cfg)
	took = time.Since(start)
	s.owned = files // to be closed with it
	return s, arenas, isect, took
}

// What a process of its own finds out about a store.
type manyResult struct {
	Opens            []time.Duration // after clean stops
	Loaded           time.Duration   // the filter, in the background
	Uncached, Cached time.Duration   // a look-up
	FalseReads       int64           // reads of the index for absent scores
	Ingest           time.Duration   // of new blocks, with a sync at the end
	Flush            time.Duration   // of the index, after that
	PeakBytes        int64           // of memory, by the kernel's count
}

const (
	manyLookups = 20000
	manyBlocks  = 500
)

// TestManyEntries measures a store with many entries, in a process of its own,
// beside an empty one of the same shape. A look-up of what is cached takes no read
// of the disk, any other one; the memory is bounded; and the start after a clean
// stop takes no longer.
func TestManyEntries(t *testing.T) {
	if dir := os.Getenv("STRATA_MANY_DIR"); dir != "" {
		manyChild(t, dir)
		return
	}
	n := int64(300000)
	if text := os.Getenv("STRATA_ENTRIES"); text != "" {
		var err error
		if n, err = strconv.ParseInt(text, 10, 64); err != nil || n < manyLookups {
			t.Fatalf("STRATA_ENTRIES=%q", text)
		}
	}
	m := newManyEntries(n)
	var st unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &st); err == nil && int64(st.Bavail)*int64(st.Bsize) < 70*n+2*m.bloomSize {
		t.Skipf("%d entries need %d MB in %s", n, (70*n+2*m.bloomSize)>>20, os.TempDir())
	}
	run := func(full bool) manyResult {
		t.Helper()
		dir := t.TempDir()
		start := time.Now()
		m.format(t, dir, full)
		t.Logf("made in %v", time.Since(start).Round(time.Millisecond))
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestManyEntries$", "-test.v")
		cmd.Env = append(os.Environ(), "STRATA_MANY_DIR="+dir, fmt.Sprint("STRATA_MANY=", n), fmt.Sprint("STRATA_MANY_FULL=", full))
		out, err := cmd.CombinedOutput()
		_, text, ok := strings.Cut(string(out), "result: ")
		text, _, _ = strings.Cut(text, "\n")
		var r manyResult
		if err != nil || !ok || json.Unmarshal([]byte(text), &r) != nil {
			t.Fatalf("full %v: %v\n%s", full, err, out)
		}
		if full {
			os.RemoveAll(dir) // it is large
		}
		return r
	}
	empty, full := run(false), run(true)
	t.Logf("%d entries: a look-up takes 1 read and %v, cached none and %v; %d of %d absent scores took a read",
		n, full.Uncached, full.Cached, full.FalseReads, manyLookups)
	t.Logf("new blocks of 8 KiB, %d of them: %v and %v to flush the index; into an empty store %v and %v",
		min(n/100, 20000), full.Ingest.Round(time.Millisecond), full.Flush.Round(time.Millisecond),
		empty.Ingest.Round(time.Millisecond), empty.Flush.Round(time.Millisecond))
	t.Logf("%d MiB of memory at most, of which the filter is %d", full.PeakBytes>>20, m.bloomSize>>20)
	t.Logf("a start after a clean stop takes %v, of an empty store %v; the filter is loaded after %v", median(full.Opens), median(empty.Opens), full.Loaded)
	if full.PeakBytes > 1<<30 {
		t.Errorf("%d bytes of memory", full.PeakBytes)
	}
	if f, e := median(full.Opens), median(empty.Opens); f > 2*e+200*time.Millisecond {
		t.Errorf("a start takes %v, of an empty store %v", f, e)
	}
	if full.FalseReads > manyLookups/10 {
		t.Errorf("%d of %d absent scores took a read", full.FalseReads, manyLookups)
	}
}

func median(list []time.Duration) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2].Round(time.Microsecond)
}

// manyChild opens a store and prints what it finds out.
func manyChild(t *testing.T, dir string) {
	ctx := t.Context()
	n, _ := strconv.ParseInt(os.Getenv("STRATA_MANY"), 10, 64)
	m := newManyEntries(n)
	var r manyResult
	s, arenas, isect, _ := openMany(t, dir)
	start := time.Now()
	if err := s.bloom.Load(ctx); err != nil {
		t.Fatal(err)
	}
	r.Loaded = time.Since(start)
	s.Tune(Tuning{NoPrefetch: true}) // or one look-up brings others
	// reads does something, and returns how long it took and how many reads.
	reads := func(f func()) (took time.Duration, log, buckets int64) {
		log, buckets = arenas.reads.Load(), isect.reads.Load()
		start := time.Now()
		f()
		return time.Since(start), arenas.reads.Load() - log, isect.reads.Load() - buckets
	}
	has := func(score venti.Score, want bool) {
		if got, err := s.HasBlock(ctx, score, venti.DataType); got != want || err != nil {
			t.Fatalf("has %v: %v, %v", score, got, err)
		}
	}
	if os.Getenv("STRATA_MANY_FULL") == "true" {
		rng := rand.New(rand.NewPCG(1, 1))
		some := make(map[int64]bool)
		for len(some) < manyLookups {
			some[rng.Int64N(n)] = true
		}
		lookups := func() {
			for i := range some {
				has(m.score(i), true)
			}
		}
		took, log, buckets := reads(lookups)
		if log != 0 || buckets != manyLookups {
			t.Errorf("%d look-ups: %d reads of the index, %d of arenas", manyLookups, buckets, log)
		}
		r.Uncached = took / manyLookups
		took, log, buckets = reads(lookups)
		if log != 0 || buckets != 0 {
			t.Errorf("%d cached look-ups: %d reads of the index, %d of arenas", manyLookups, buckets, log)
		}
		r.Cached = took / manyLookups
		_, log, r.FalseReads = reads(func() {
			for i := range int64(manyLookups) {
				has(m.absent(i), false)
			}
		})
		if log != 0 {
			t.Errorf("absent scores took %d reads of arenas", log)
		}
	}
	// Whole blocks: a read for the entry, and one for the clump.
	list := blocks(uint64(time.Now().UnixNano())>>32, manyBlocks, 4000)
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	if err := s.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	s.forget()
	for _, want := range []int64{manyBlocks, 0} {
		_, log, buckets := reads(func() {
			for _, b := range list {
				wantBlock(t, s, venti.DataType, b)
			}
		})
		if log != manyBlocks || buckets != want {
			t.Errorf("%d blocks: %d reads of the index, want %d, and %d of arenas", manyBlocks, buckets, want, log)
		}
		s.lumps.clear()
	}
	// New data: what it costs does not depend on what is there.
	count := int(min(n/100, 20000))
	seed := uint64(time.Now().UnixNano())
	start = time.Now()
	for i := range count {
		mustWrite(t, s, venti.DataType, ventitest.Block(seed+uint64(i), 8192))
	}
	mustSync(t, s)
	r.Ingest = time.Since(start)
	start = time.Now()
	if err := s.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	r.Flush = time.Since(start)
	mustClose(t, s)
	for range 9 {
		s, _, _, took := openMany(t, dir)
		r.Opens = append(r.Opens, took)
		mustClose(t, s)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	_, text, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Sscan(text, &r.PeakBytes)
	r.PeakBytes <<= 10
	text2, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("result: %s\n", text2)
}
