package zstd_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	peer "github.com/klauspost/compress/zstd"

	"strata/venti"
	"strata/venti/internal/zstd"
)

// blocks are what compresses well, hardly, and not at all.
func blocks() [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	list := [][]byte{{}, {1}, make([]byte, venti.MaxBlockSize), []byte(strings.Repeat("a block of text. ", 500))}
	for n := 1; n < venti.MaxBlockSize; n += n/3 + 1 {
		for _, kinds := range []int{2, 20, 200, 256} {
			p := make([]byte, n)
			for i := range p {
				p[i] = byte(rng.IntN(kinds))
			}
			list = append(list, p)
		}
	}
	return list
}

// TestPeer has the library in Go read what is written here, and write what is
// read here.
func TestPeer(t *testing.T) {
	theirs, err := peer.NewWriter(nil, peer.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := peer.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var e zstd.Encoder
	shorter := 0
	for _, p := range blocks() {
		frame := make([]byte, len(p))
		if n, ok := e.Encode(frame, p); ok {
			shorter++
			if n >= len(p) {
				t.Errorf("%d bytes became %d", len(p), n)
			}
			out, err := reader.DecodeAll(frame[:n], nil)
			if err != nil || !bytes.Equal(out, p) {
				t.Errorf("of %d bytes the other reads %d, %v", len(p), len(out), err)
			}
			decode(t, frame[:n], p)
		}
		if len(p) > 0 {
			decode(t, theirs.EncodeAll(p, nil), p)
		}
	}
	if shorter < 20 {
		t.Errorf("only %d blocks became shorter", shorter)
	}
}

// decode decodes a frame of p; and into what is too short for it.
func decode(t *testing.T, frame, p []byte) {
	t.Helper()
	room := bytes.Repeat([]byte{0xee}, len(p)+8)
	n, err := zstd.Decode(room[:len(p)], frame)
	if err != nil || !bytes.Equal(room[:n], p) {
		t.Errorf("of %d bytes, %d are read, %v", len(p), n, err)
	}
	if n, err := zstd.Decode(room[:len(p)-1], frame); err == nil {
		t.Errorf("%d bytes have room in %d: %d", len(p), len(p)-1, n)
	}
	if !bytes.Equal(room[len(p):], bytes.Repeat([]byte{0xee}, 8)) {
		t.Error("something was written behind the block")
	}
}

func FuzzDecode(f *testing.F) {
	var e zstd.Encoder
	for _, p := range blocks()[:40] {
		frame := make([]byte, len(p))
		if n, ok := e.Encode(frame, p); ok {
			f.Add(frame[:n], len(p))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, size int) {
		if size < 0 || size > venti.MaxBlockSize {
			return
		}
		room := bytes.Repeat([]byte{0xee}, size+8)
		if n, err := zstd.Decode(room[:size], frame); err == nil && (n < 0 || n > size) {
			t.Errorf("%d bytes in %d", n, size)
		}
		if !bytes.Equal(room[size:], bytes.Repeat([]byte{0xee}, 8)) {
			t.Error("something was written behind the block")
		}
	})
}
