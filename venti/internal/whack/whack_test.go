package whack_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"strata/venti/internal/whack"
)

// vectors are blocks and what Plan 9's encoder makes of them, as measured.
var vectors = []struct{ name, block, stream string }{
	{"words", "hello hello hello hello\n", "34194d86c6f20fc40a2500"},
	{"run", strings.Repeat("a", 24), "30feb000"},
	{"zeros", strings.Repeat("\x00", 100), "007fbf0000"},
	{"odd then even", "\x80\x80\x80\x80" + strings.Repeat("abcdefgh", 3), "4040030988c66465666768fc00e0"},
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			var e whack.Encoder
			buf := make([]byte, len(v.block))
			n, ok := e.Encode(buf, []byte(v.block))
			if got := hex.EncodeToString(buf[:n]); !ok || got != v.stream {
				t.Errorf("Encode = %s, %v, want %s", got, ok, v.stream)
			}
			stream, err := hex.DecodeString(v.stream)
			if err != nil {
				t.Fatal(err)
			}
			n, err = whack.Decode(buf, stream)
			if got := string(buf[:n]); err != nil || got != v.block {
				t.Errorf("Decode = %q, %v, want %q", got, err, v.block)
			}
		})
	}
}

func TestEncodeGivesUp(t *testing.T) {
	random := make([]byte, 8192)
	rand.NewChaCha8([32]byte{1}).Read(random)
	for _, tc := range []struct {
		name  string
		block []byte
	}{
		{"empty", nil},
		{"two bytes", []byte("aa")},
		{"no shorter", []byte("abc")},
		{"random", random},
		{"short random", random[:20]},
		{"too long", make([]byte, 65536)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var e whack.Encoder
			if n, ok := e.Encode(make([]byte, len(tc.block)), tc.block); ok {
				t.Errorf("Encode used %d bytes, want none", n)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, stream string
		size         int
	}{
		{"match at the start", "80000000", 100},
		{"distance before the start", "30fec000", 24},
		{"match longer than the block", "30feb000", 23},
		{"literal after the end of the block", "30feb000303030", 24},
		{"stream ends inside a literal", "ff", 1},
		{"stream ends inside a match", "30feb0", 24},
		{"endless length", "30" + strings.Repeat("ff", 40), 1 << 16},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stream, err := hex.DecodeString(tc.stream)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := whack.Decode(make([]byte, tc.size), stream); err == nil {
				t.Errorf("Decode = %d bytes, want an error", n)
			}
		})
	}
}

// TestLengths makes a match of every length at several distances.
func TestLengths(t *testing.T) {
	var (
		e      whack.Encoder
		block  []byte
		random = make([]byte, 20000)
	)
	rand.NewChaCha8([32]byte{2}).Read(random)
	for length := 3; length < 2100; length += 1 + length/50 {
		for _, distance := range []int{length, 64, 65, 4096, 8191, 8192, 16384} {
			if distance < length {
				continue
			}
			block = append(block[:0], random[:distance]...)
			block = append(block, random[:length]...)
			block = append(block, make([]byte, 20000)...) // so that Encode does not give up
			roundTrip(t, &e, block)
		}
	}
}

// roundTrip checks that what Encode makes of block is block again.
func roundTrip(t *testing.T, e *whack.Encoder, block []byte) {
	t.Helper()
	stream := make([]byte, len(block))
	n, ok := e.Encode(stream, block)
	if !ok {
		return
	}
	got := make([]byte, len(block))
	m, err := whack.Decode(got, stream[:n])
	if err != nil || !bytes.Equal(got[:m], block) {
		t.Fatalf("%d bytes became %d and then %d others, %v", len(block), n, m, err)
	}
}

// TestAfterAnother checks that a block's stream does not depend on what the
// Encoder did before.
func TestAfterAnother(t *testing.T) {
	var used whack.Encoder
	rng := rand.New(rand.NewPCG(3, 3))
	for range 60 {
		block := words(rng, 1+rng.IntN(60000))
		var fresh whack.Encoder
		a, b := make([]byte, len(block)), make([]byte, len(block))
		n, okA := fresh.Encode(a, block)
		m, okB := used.Encode(b, block)
		if okA != okB || !bytes.Equal(a[:n], b[:m]) {
			t.Fatalf("block of %d: %d bytes, %v, by a new encoder; %d, %v, by a used one", len(block), n, okA, m, okB)
		}
	}
}

// words returns n bytes that compress about as well as a file system's do.
func words(rng *rand.Rand, n int) []byte {
	vocabulary := make([][]byte, 300)
	for i := range vocabulary {
		w := make([]byte, 2+rng.IntN(12))
		for j := range w {
			w[j] = byte('a' + rng.IntN(26))
			if i%5 == 0 {
				w[j] = byte(rng.Uint32())
			}
		}
		vocabulary[i] = w
	}
	var b []byte
	for len(b) < n {
		b = append(b, vocabulary[rng.IntN(len(vocabulary))]...)
		if rng.IntN(4) == 0 {
			b = append(b, byte(rng.Uint32()), byte(rng.Uint32()))
		}
	}
	return b[:n]
}

// A clump is one that plan9port stored.
type clump struct {
	score  string
	packed bool
	stored []byte
	size   int
}

// goldenClumps returns every clump of the golden stores, or skips the test.
func goldenClumps(tb testing.TB) []clump {
	tb.Helper()
	dir := os.Getenv("STRATA_SHARED")
	if dir == "" {
		for root, _ := os.Getwd(); ; root = filepath.Dir(root) {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				dir = filepath.Join(root, "../shared")
				break
			}
		}
	}
	dir = filepath.Join(dir, "golden")
	if _, err := os.Stat(dir); err != nil {
		tb.Skipf("no golden data: %v", err)
	}
	var clumps []clump
	for _, set := range []string{"v4", "v5", "dirty"} {
		part := gunzip(tb, filepath.Join(dir, set, "arenas.gz"))
		list, err := filepath.Glob(filepath.Join(dir, set, "arenas*.jsonl"))
		if err != nil {
			tb.Fatal(err)
		}
		base := map[string]int{}
		text, err := os.ReadFile(list[0])
		if err != nil {
			tb.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			var a struct {
				Name             string
				Start, Blocksize int
			}
			if err := json.Unmarshal(line, &a); err != nil {
				tb.Fatal(err)
			}
			base[a.Name] = a.Start + a.Blocksize
		}
		s := bufio.NewScanner(bytes.NewReader(gunzip(tb, filepath.Join(dir, set, "clumps.tsv.gz"))))
		for s.Scan() {
			f := strings.Split(s.Text(), "\t")
			if strings.HasPrefix(f[0], "#") {
				continue
			}
			off, _ := strconv.Atoi(f[1])
			size, _ := strconv.Atoi(f[5])
			uncsize, _ := strconv.Atoi(f[6])
			off += base[f[0]] + 38
			clumps = append(clumps, clump{f[7], f[4] == "2", part[off : off+size], uncsize})
		}
	}
	return clumps
}

func gunzip(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		tb.Fatal(err)
	}
	if b, err = io.ReadAll(r); err != nil {
		tb.Fatal(err)
	}
	return b
}

// block returns what c holds.
func (c *clump) block() ([]byte, error) {
	if !c.packed {
		return c.stored, nil
	}
	b := make([]byte, c.size)
	n, err := whack.Decode(b, c.stored)
	if err == nil && n != c.size {
		err = errors.New("wrong size")
	}
	return b[:n], err
}

// TestGolden decodes every clump that plan9port stored and checks that
// Encode makes the same bytes of it.
func TestGolden(t *testing.T) {
	var (
		e      whack.Encoder
		stream = make([]byte, 1<<16)
		packed int
	)
	clumps := goldenClumps(t)
	for _, c := range clumps {
		block, err := c.block()
		sum := sha1.Sum(block)
		if got := hex.EncodeToString(sum[:]); err != nil || got != c.score {
			t.Errorf("clump %s decodes to %d bytes of score %s, %v", c.score, len(block), got, err)
			continue
		}
		n, ok := e.Encode(stream, block)
		if ok != c.packed || (ok && !bytes.Equal(stream[:n], c.stored)) {
			t.Errorf("clump %s of %d bytes became %d, %v, want %d, %v", c.score, c.size, n, ok, len(c.stored), c.packed)
		}
		if ok {
			packed++
		}
	}
	t.Logf("%d clumps, %d of them compressed", len(clumps), packed)
	if packed == 0 {
		t.Error("no clump is compressed")
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range vectors {
		stream, _ := hex.DecodeString(v.stream)
		f.Add(stream, len(v.block))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 65535)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		if size < 0 || size > 1<<16 {
			return
		}
		dst := make([]byte, size)
		n, err := whack.Decode(dst, stream)
		if err != nil {
			return
		}
		// The same block comes out of a buffer that just holds it.
		again := make([]byte, n)
		m, err := whack.Decode(again, stream)
		if err != nil || m != n || !bytes.Equal(again, dst[:n]) {
			t.Errorf("%d bytes, then %d others in a buffer of that size, %v", n, m, err)
		}
	})
}

func FuzzEncode(f *testing.F) {
	for _, v := range vectors {
		f.Add([]byte(v.block), 1)
	}
	f.Add([]byte("\x00\x7f\x80\xff abc abc"), 4000)
	f.Fuzz(func(t *testing.T, block []byte, times int) {
		if times < 1 || times > 1000 || len(block)*times > 60000 {
			return
		}
		var e whack.Encoder
		roundTrip(t, &e, bytes.Repeat(block, times))
		// What no encoder gives up on: the block behind a run.
		roundTrip(t, &e, append(make([]byte, 30000), block...))
	})
}

// corpus returns 8 KiB blocks that are half text and half something worse.
func corpus() [][]byte {
	rng := rand.New(rand.NewPCG(4, 4))
	blocks := make([][]byte, 64)
	for i := range blocks {
		blocks[i] = words(rng, 8192)
	}
	return blocks
}

func BenchmarkEncode8K(b *testing.B) {
	for _, bc := range []struct {
		name   string
		blocks [][]byte
	}{
		{"words", corpus()},
		{"random", [][]byte{randomBlock(8192)}},
		{"zeros", [][]byte{make([]byte, 8192)}},
		{"short", [][]byte{corpus()[0][:200]}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			var e whack.Encoder
			dst := make([]byte, 8192)
			b.SetBytes(int64(len(bc.blocks[0])))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e.Encode(dst, bc.blocks[i%len(bc.blocks)])
			}
		})
	}
}

func BenchmarkDecode8K(b *testing.B) {
	for _, bc := range []struct {
		name   string
		blocks [][]byte
	}{
		{"words", corpus()},
		{"zeros", [][]byte{make([]byte, 8192)}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			var e whack.Encoder
			streams := make([][]byte, len(bc.blocks))
			for i, block := range bc.blocks {
				streams[i] = make([]byte, len(block))
				n, ok := e.Encode(streams[i], block)
				if !ok {
					b.Fatal("block does not compress")
				}
				streams[i] = streams[i][:n]
			}
			dst := make([]byte, 8192)
			b.SetBytes(8192)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := whack.Decode(dst, streams[i%len(streams)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func randomBlock(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{5}).Read(b)
	return b
}

// BenchmarkGolden compresses and decompresses what plan9port's vac stored of
// a tree of files: blocks of all sizes, most of them small.
func BenchmarkGolden(b *testing.B) {
	var (
		blocks [][]byte
		packed []clump
		total  int
		out    int
	)
	for _, c := range goldenClumps(b) {
		block, err := c.block()
		if err != nil {
			b.Fatal(err)
		}
		blocks = append(blocks, block)
		total += len(block)
		if c.packed {
			packed = append(packed, c)
			out += c.size
		}
	}
	dst := make([]byte, 1<<16)
	b.Run("encode", func(b *testing.B) {
		var e whack.Encoder
		b.SetBytes(int64(total))
		b.ReportAllocs()
		for b.Loop() {
			for _, block := range blocks {
				e.Encode(dst, block)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(out))
		b.ReportAllocs()
		for b.Loop() {
			for _, c := range packed {
				if _, err := whack.Decode(dst, c.stored); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
