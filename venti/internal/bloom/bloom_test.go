package bloom_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"strata/venti"
	"strata/venti/internal/bloom"
)

// memFile is a disk.File in memory that counts what is written and can fail.
type memFile struct {
	mu      sync.Mutex
	data    []byte
	written int
	err     error // of every write
}

func (m *memFile) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.NewReader(m.data).ReadAt(p, off)
}

func (m *memFile) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.err
	}
	m.written += len(p)
	return copy(m.data[off:off+int64(len(p))], p), nil
}

func (m *memFile) Sync() error { return nil }
func (m *memFile) Size() int64 { return int64(len(m.data)) }

func format(t testing.TB, size int64, c bloom.FormatConfig) (*memFile, *bloom.Filter) {
	t.Helper()
	m := &memFile{data: make([]byte, size)}
	if err := bloom.Format(t.Context(), m, c); err != nil {
		t.Fatal(err)
	}
	return m, open(t, m)
}

func open(t testing.TB, m *memFile) *bloom.Filter {
	t.Helper()
	f, err := bloom.Open(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// score returns the n-th score of a fixed sequence.
func score(n int) venti.Score { return venti.ScoreOf(fmt.Append(nil, n)) }

// TestBegin adds to a filter, and asks it, while it is not loaded: it says no
// only where it knows, and keeps what it is given and what the file has.
func TestBegin(t *testing.T) {
	m, f := format(t, 8<<20, bloom.FormatConfig{Hashes: 4})
	for i := range 100 {
		f.Add(score(i))
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	begin := func() *bloom.Filter {
		t.Helper()
		f, err := bloom.Begin(m)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	want := func(f *bloom.Filter, from, to int, has bool) {
		t.Helper()
		for i := from; i < to; i++ {
			if f.Has(score(i)) != has {
				t.Errorf("score %d: %v, want %v", i, !has, has)
			}
		}
	}
	f = begin()
	if f.Loaded() {
		t.Error("it is loaded before Load")
	}
	want(f, 0, 2000, true)
	for i := 100; i < 200; i++ {
		f.Add(score(i))
	}
	// It ends in the middle, and goes on from there.
	full := m.data
	m.data = full[:4<<20]
	if err := f.Load(t.Context()); err == nil || f.Loaded() {
		t.Errorf("half a filter is loaded: %v", err)
	}
	want(f, 0, 200, true)
	denied := 0
	for i := 200; i < 400; i++ {
		if !f.Has(score(i)) {
			denied++
		}
	}
	if denied < 150 { // 1 - 1/16 of 200, but for chance
		t.Errorf("half a filter denies %d of 200", denied)
	}
	if err := f.Save(); err == nil {
		t.Error("half a filter was saved")
	}
	m.data = full
	if err := f.Save(); err != nil || !f.Loaded() {
		t.Errorf("save: %v", err)
	}
	want(f, 0, 200, true)
	want(f, 200, 400, false)
	want(open(t, m), 0, 200, true)
	// Load and all else at once.
	f = begin()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Load(t.Context()); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		for i := 200; i < 300; i++ {
			f.Add(score(i))
			want(f, 0, i+1, true)
		}
	})
	wg.Wait()
	want(f, 300, 400, false)
	f = begin()
	f.Reset()
	want(f, 0, 200, false)
}

func TestGeometry(t *testing.T) {
	for _, tc := range []struct {
		name     string
		part     int64
		config   bloom.FormatConfig
		size     int64
		hashes   int
		best     int64
		tooSmall bool
	}{
		{"whole partition", 1 << 20, bloom.FormatConfig{}, 1 << 20, 32, 186413, false},
		{"rounded down", 1500000, bloom.FormatConfig{Hashes: 10}, 1 << 20, 10, 599186, false},
		{"for blocks", 8 << 20, bloom.FormatConfig{Blocks: 1000000}, 4 << 20, 23, 1048576, false},
		{"for a power of two", 8 << 20, bloom.FormatConfig{Blocks: 1 << 20}, 4 << 20, 22, 1082401, false},
		{"for one more", 8 << 20, bloom.FormatConfig{Blocks: 1<<20 + 1}, 8 << 20, 32, 1491308, false},
		{"never below the least", 8 << 20, bloom.FormatConfig{Blocks: 1000}, 1 << 20, 32, 186413, false},
		{"far too many blocks", 1 << 20, bloom.FormatConfig{Blocks: 1e9}, 1 << 20, 1, 8 << 20, false},
		{"size", 8 << 20, bloom.FormatConfig{Size: 3 << 20}, 2 << 20, 32, 372827, false},
		{"never above the largest", 1 << 40, bloom.FormatConfig{Hashes: 1}, 1 << 29, 1, 1 << 32, false},
		{"partition too small", 500000, bloom.FormatConfig{}, 0, 0, 0, true},
		{"size too small", 8 << 20, bloom.FormatConfig{Size: 1 << 19}, 0, 0, 0, true},
		{"size too large", 8 << 20, bloom.FormatConfig{Size: 16 << 20}, 0, 0, 0, true},
		{"both", 8 << 20, bloom.FormatConfig{Blocks: 1, Hashes: 1}, 0, 0, 0, true},
		{"too many hashes", 8 << 20, bloom.FormatConfig{Hashes: 33}, 0, 0, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			size, hashes, err := tc.config.Geometry(tc.part)
			if (err != nil) != tc.tooSmall {
				t.Fatalf("error %v", err)
			}
			if size != tc.size || hashes != tc.hashes {
				t.Errorf("got %d bytes, %d hashes, want %d, %d", size, hashes, tc.size, tc.hashes)
			}
			if err == nil && bloom.BestBlocks(size, hashes) != tc.best {
				t.Errorf("best up to %d, want %d", bloom.BestBlocks(size, hashes), tc.best)
			}
		})
	}
}

func TestAddSaveOpen(t *testing.T) {
	const n = 20000
	m, f := format(t, 2<<20, bloom.FormatConfig{Size: 1 << 20, Hashes: 10})
	for i := range n {
		f.Add(score(i))
	}
	for round, f := range []*bloom.Filter{f, nil} {
		if f == nil {
			f = open(t, m)
		}
		for i := range n {
			if !f.Has(score(i)) {
				t.Fatalf("round %d: score %d is missing", round, i)
			}
		}
		wrong := 0
		for i := n; i < 2*n; i++ {
			if f.Has(score(i)) {
				wrong++
			}
		}
		if wrong > n/100 {
			t.Errorf("round %d: %d of %d absent scores are said to be there", round, wrong, n)
		}
		if err := f.Save(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLowBits adds scores with a bit under the header, which plan9port's
// filter loses.
func TestLowBits(t *testing.T) {
	m, f := format(t, 1<<20, bloom.FormatConfig{Hashes: 10})
	var low []venti.Score
	for i := 0; len(low) < 20; i++ {
		s := score(i)
		h := binary.LittleEndian.Uint32(s[4:]) ^ binary.LittleEndian.Uint32(s[12:])
		step := binary.LittleEndian.Uint32(s[8:]) ^ binary.LittleEndian.Uint32(s[16:])
		for range 10 {
			if h%(8<<20) < 128 {
				low = append(low, s)
				break
			}
			h += step
		}
	}
	head := bytes.Clone(m.data[:16])
	for _, s := range low {
		f.Add(s)
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.data[:16], head) {
		t.Errorf("header became % x, was % x", m.data[:16], head)
	}
	f = open(t, m)
	for _, s := range low {
		if !f.Has(s) {
			t.Errorf("%v is missing", s)
		}
	}
}

// TestBits checks the worked example of spec/venti-storage.md, section 9.
func TestBits(t *testing.T) {
	m, f := format(t, 1<<20, bloom.FormatConfig{Hashes: 3})
	f.Add(venti.ScoreOf([]byte("hello world")))
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	var got []int
	for i, b := range m.data[16:] {
		for bit := range 8 {
			if b>>bit&1 != 0 {
				got = append(got, (i+16)*8+bit)
			}
		}
	}
	if want := "[194452 3287711 5489801]"; fmt.Sprint(got) != want {
		t.Errorf("bits %v, want %v", got, want)
	}
}

func TestSaveWritesOnlyChanges(t *testing.T) {
	m, f := format(t, 16<<20, bloom.FormatConfig{Hashes: 4})
	for _, tc := range []struct {
		name string
		add  []int
		most int
	}{
		{"nothing", nil, 0},
		{"one score", []int{1}, 4 * 4096},
		{"the same score", []int{1}, 0},
		{"two scores", []int{2, 3}, 8 * 4096},
	} {
		m.written = 0
		for _, i := range tc.add {
			f.Add(score(i))
		}
		if err := f.Save(); err != nil {
			t.Fatal(err)
		}
		if m.written > tc.most {
			t.Errorf("%s: %d bytes written, want at most %d", tc.name, m.written, tc.most)
		}
	}
}

func TestSaveFailure(t *testing.T) {
	m, f := format(t, 1<<20, bloom.FormatConfig{})
	f.Add(score(1))
	m.err = errors.New("disk on fire")
	if err := f.Save(); !errors.Is(err, m.err) {
		t.Fatalf("Save: %v", err)
	}
	m.err = nil
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	if !open(t, m).Has(score(1)) {
		t.Error("what a failed Save did not write was forgotten")
	}
}

// TestAtOnce adds from several goroutines while the filter is saved: what was
// added before a Save began is in the file when it is done.
func TestAtOnce(t *testing.T) {
	const workers, each = 4, 3000
	m, f := format(t, 1<<20, bloom.FormatConfig{Hashes: 8})
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := make([]int, workers)
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				// Two workers add each score.
				f.Add(score(w/2*each + i))
				mu.Lock()
				done[w] = i + 1
				mu.Unlock()
			}
		})
	}
	for round := range 20 {
		mu.Lock()
		before := append([]int(nil), done...)
		mu.Unlock()
		if err := f.Save(); err != nil {
			t.Fatal(err)
		}
		saved := open(t, m)
		for w, n := range before {
			for i := range n {
				if !saved.Has(score(w/2*each + i)) {
					t.Fatalf("round %d: score %d of worker %d was added before the save and is not in it", round, i, w)
				}
			}
		}
	}
	wg.Wait()
}

func TestOpenRefuses(t *testing.T) {
	good, _ := format(t, 1<<20, bloom.FormatConfig{})
	for _, tc := range []struct {
		name   string
		change func(b []byte) []byte
	}{
		{"empty", func(b []byte) []byte { return nil }},
		{"short header", func(b []byte) []byte { return b[:15] }},
		{"magic", func(b []byte) []byte { b[0]++; return b }},
		{"version", func(b []byte) []byte { b[7] = 2; return b }},
		{"no hashes", func(b []byte) []byte { b[11] = 0; return b }},
		{"33 hashes", func(b []byte) []byte { b[11] = 33; return b }},
		{"size 0", func(b []byte) []byte { b[13] = 0; return b }},
		{"size not a power of two", func(b []byte) []byte { b[13] = 0x18; return b }},
		{"size too large", func(b []byte) []byte { b[13], b[12] = 0, 0x40; return b }},
		{"larger than the file", func(b []byte) []byte { return b[:len(b)-1] }},
	} {
		if f, err := bloom.Open(&memFile{data: tc.change(bytes.Clone(good.data))}); err == nil {
			f.Close()
			t.Errorf("%s: opened", tc.name)
		}
	}
}

// TestSmall opens what "fmtbloom -n 1000" of plan9port makes.
func TestSmall(t *testing.T) {
	m := &memFile{data: make([]byte, 4096)}
	copy(m.data, "\xb1\x00\x4e\xad\x00\x00\x00\x01\x00\x00\x00\x16\x00\x00\x10\x00")
	f := open(t, m)
	f.Add(score(1))
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	if f := open(t, m); !f.Has(score(1)) || f.Has(score(2)) {
		t.Error("wrong answers")
	}
}

// shared returns the contents of a file of the golden data, unpacked, and
// skips the test where there is none.
func shared(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("STRATA_SHARED")
	for root := "."; dir == "" && root != "/"; {
		root, _ = filepath.Abs(filepath.Join(root, ".."))
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			dir = filepath.Join(root, "../shared")
		}
	}
	f, err := os.Open(filepath.Join(dir, "golden", name))
	if err != nil {
		t.Skipf("no golden data: %v", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenScores returns the scores in a column of a table.
func goldenScores(t *testing.T, name string, column int) []venti.Score {
	var list []venti.Score
	lines := bufio.NewScanner(bytes.NewReader(shared(t, name)))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		s, err := venti.ParseScore(strings.Split(lines.Text(), "\t")[column])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

func TestGolden(t *testing.T) {
	for _, tc := range []struct{ bloom, index string }{
		{"v5/bloom.gz", "v5/index.tsv.gz"},
		{"dirty/bloom.gz", "dirty/index-before.tsv.gz"},
	} {
		f := open(t, &memFile{data: shared(t, tc.bloom)})
		for _, s := range goldenScores(t, tc.index, 1) {
			if !f.Has(s) {
				t.Errorf("%s: %v is missing", tc.bloom, s)
			}
		}
	}
	// What plan9port formatted and filled, byte for byte.
	empty := shared(t, "v5/empty/bloom.gz")
	m, f := format(t, int64(len(empty)), bloom.FormatConfig{})
	if !bytes.Equal(m.data, empty) {
		t.Error("an empty filter differs from plan9port's")
	}
	for _, s := range goldenScores(t, "v5/index.tsv.gz", 1) {
		f.Add(s)
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.data, shared(t, "v5/bloom.gz")) {
		t.Error("a full filter differs from plan9port's")
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("\xb1\x00\x4e\xad\x00\x00\x00\x01\x00\x00\x00\x16\x00\x00\x10\x00"), 4096)
	f.Add([]byte("\xb1\x00\x4e\xad\x00\x00\x00\x01\x00\x00\x00\x20\x00\x10\x00\x00"), 1<<20)
	f.Fuzz(func(t *testing.T, head []byte, size int) {
		m := &memFile{data: append(head, make([]byte, min(max(size, 0), 2<<20))...)}
		b, err := bloom.Open(m)
		if err != nil {
			return
		}
		defer b.Close()
		before := bytes.Clone(m.data[:16])
		b.Add(score(len(head)))
		if err := b.Save(); err != nil {
			t.Fatal(err)
		}
		if !b.Has(score(len(head))) || !bytes.Equal(m.data[:16], before) {
			t.Error("the filter does not keep what it is given")
		}
	})
}

func BenchmarkHas(b *testing.B) {
	for _, tc := range []struct {
		name    string
		present bool
	}{{"absent", false}, {"present", true}} {
		b.Run(tc.name, func(b *testing.B) {
			_, f := format(b, 64<<20, bloom.FormatConfig{Hashes: 10})
			list := scores(1 << 16)
			if tc.present {
				for _, s := range list {
					f.Add(s)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if f.Has(list[i%len(list)]) != tc.present {
					b.Fatal("wrong answer")
				}
			}
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	_, f := format(b, 64<<20, bloom.FormatConfig{Hashes: 10})
	list := scores(1 << 20)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(len(list)); pb.Next(); i++ {
			f.Add(list[i%len(list)])
		}
	})
}

// scores returns n random scores.
func scores(n int) []venti.Score {
	rng := rand.New(rand.NewPCG(1, 2))
	list := make([]venti.Score, n)
	for i := range list {
		for j := 0; j < len(list[i]); j += 4 {
			binary.LittleEndian.PutUint32(list[i][j:], rng.Uint32())
		}
	}
	return list
}

func TestFill(t *testing.T) {
	for _, tc := range []struct {
		size int64
		n    int
	}{{bloom.MinSize, 100_000}, {16 * bloom.MinSize, 1_000_000}} {
		m, f := format(t, tc.size, bloom.FormatConfig{Hashes: 8})
		if got := f.Fill(); got != 0 {
			t.Errorf("an empty filter of %d bytes is filled to %v", tc.size, got)
		}
		for i := range tc.n {
			f.Add(score(i))
		}
		if err := f.Save(); err != nil {
			t.Fatal(err)
		}
		ones := 0
		for _, b := range m.data[16:] {
			ones += bits.OnesCount8(b)
		}
		want := float64(ones) / float64(len(m.data)*8)
		if got := f.Fill(); math.Abs(got-want) > want/100 {
			t.Errorf("a filter of %d bytes is filled to %v, want %v", tc.size, got, want)
		}
	}
}
