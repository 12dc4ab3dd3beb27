package arena_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand"
	"os/exec"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/internal/arena"
)

// text is what compresses, but not to nothing.
func text(n int) []byte {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d bottles of beer, %x\n", i, i*i*i)
	}
	return []byte(b.String()[:n])
}

// TestEncodings makes clumps of all encodings and lumps, and lumps of them.
func TestEncodings(t *testing.T) {
	var e arena.Encoder
	for _, enc := range []arena.Encoding{arena.Plain, arena.Whack, arena.Zstd} {
		for _, tc := range []struct {
			name   string
			lump   []byte
			gain   bool // it compresses
			atMost int
		}{
			{"byte", []byte("x"), false, 1},
			{"few", []byte("abc"), false, 3},
			{"text", text(8192), true, 4000},
			{"largest", text(venti.MaxBlockSize), true, 28000},
			{"zeros", make([]byte, venti.MaxBlockSize-1), true, 600},
			{"random", lump(1, 8192), false, 8192},
			{"random twice", bytes.Repeat(lump(1, 4096), 2), true, 4800},
			{"largest random", lump(3, venti.MaxBlockSize), false, venti.MaxBlockSize},
		} {
			t.Run(fmt.Sprint(enc, " ", tc.name), func(t *testing.T) {
				h := arena.ClumpHeader{Magic: 7}
				h.Type, h.Score = venti.DiskData, venti.ScoreOf(tc.lump)
				clump := e.Append([]byte("before"), &h, tc.lump, enc)[len("before"):]
				got, err := arena.UnpackClumpHeader(clump, 7)
				if err != nil || got != h || int(h.UncSize) != len(tc.lump) || h.LogSize() != int64(len(clump)) {
					t.Fatalf("header is %+v, %v, want %+v of %d bytes", got, err, h, len(clump))
				}
				if gain := h.Encoding != arena.Plain; gain != (tc.gain && enc != arena.Plain) || gain && (h.Encoding != enc || int(h.Size) > tc.atMost) {
					t.Errorf("%d bytes become %d as %v", len(tc.lump), h.Size, h.Encoding)
				}
				out, err := got.Decode(make([]byte, h.UncSize), clump[arena.ClumpHeaderSize:])
				if err != nil || !bytes.Equal(out, tc.lump) {
					t.Errorf("decoded %d bytes, %v", len(out), err)
				}
			})
		}
	}
}

// TestEncodeTight makes clumps of lumps that hardly get shorter in buffers that
// have room for a clump and no more: what is longer on the way must not be lost.
func TestEncodeTight(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	for _, enc := range []arena.Encoding{arena.Whack, arena.Zstd} {
		var e arena.Encoder
		gains := 0
		for range 20000 {
			lump := make([]byte, 20+rng.Intn(100))
			for i := range lump {
				if rng.Intn(3) == 0 {
					lump[i] = byte(rng.Int())
				}
			}
			h := arena.ClumpHeader{Magic: 7}
			h.Type, h.Score = venti.DiskData, venti.ScoreOf(lump)
			clump := e.Append(make([]byte, 0, arena.ClumpHeaderSize+len(lump)), &h, lump, enc)
			if h.Encoding == enc {
				gains++
			}
			if out, err := h.Decode(make([]byte, len(lump)), clump[arena.ClumpHeaderSize:]); err != nil || !bytes.Equal(out, lump) {
				t.Fatalf("%v: %d bytes %x become %x, %v", enc, len(lump), lump, clump, err)
			}
		}
		if gains < 100 {
			t.Errorf("%v: only %d lumps became shorter", enc, gains)
		}
	}
}

// zstdText is text(300) as the zstd program compresses it (zstd -19
// --no-check --stream-size=300): another encoder's frame must decode.
const zstdText = `
28b52ffd602c00bd020032850f10a0ed163b3c55cd0aff960d16fa41ab102d4687726f4d24dcbbe3b759abf751c7aac1b88c
171b45accab00a61f4b509fead09de5a28994bb85a8c0ea5060c2860e30310fef50e85b2d66bd51304496434204d4d`

func TestZstdGolden(t *testing.T) {
	data, err := hex.DecodeString(strings.ReplaceAll(zstdText, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	lump := text(300)
	h := arena.ClumpHeader{Encoding: arena.Zstd}
	h.Type, h.Score, h.Size, h.UncSize = venti.DiskData, venti.ScoreOf(lump), uint16(len(data)), uint16(len(lump))
	if out, err := h.Decode(make([]byte, 300), data); err != nil || !bytes.Equal(out, lump) {
		t.Errorf("decoded %q, %v", out, err)
	}
	// Sizes that do not agree are an error, and nothing is written past dst.
	for _, n := range []uint16{299, 301} {
		h.UncSize = n
		if out, err := h.Decode(make([]byte, 400), data); !errors.Is(err, venti.ErrCorrupt) {
			t.Errorf("as %d bytes: decoded %d, %v", n, len(out), err)
		}
	}
}

// TestZstdProgram has the zstd program decompress the data of a clump.
func TestZstdProgram(t *testing.T) {
	path, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("no zstd here")
	}
	lump := text(20000)
	var e arena.Encoder
	var h arena.ClumpHeader
	h.Type, h.Score = venti.DiskData, venti.ScoreOf(lump)
	clump := e.Append(nil, &h, lump, arena.Zstd)
	cmd := exec.Command(path, "-dc")
	cmd.Stdin = bytes.NewReader(clump[arena.ClumpHeaderSize:])
	out, err := cmd.Output()
	if err != nil || !bytes.Equal(out, lump) {
		t.Errorf("zstd decodes %d bytes, %v", len(out), err)
	}
}
