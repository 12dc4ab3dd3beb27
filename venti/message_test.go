package venti

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// wireMessages holds one message of each type in both framings: the bytes are
// those of the specification, or follow from it.
var wireMessages = []struct {
	name      string
	m         message
	four, two string
}{
	{"Rerror", message{typ: rError, tag: 7, text: []byte("unknown request")},
		"00000013 01 07 000f 756e6b6e6f776e2072657175657374", "0013 01 07 000f 756e6b6e6f776e2072657175657374"},
	{"Tping", message{typ: tPing, tag: 1}, "00000002 02 01", "0002 02 01"},
	{"Rping", message{typ: rPing, tag: 1}, "00000002 03 01", "0002 03 01"},
	{"Thello 04", message{typ: tHello, text: []byte("04"), uid: []byte("anonymous")},
		"00000014 04 00 0002 3034 0009 616e6f6e796d6f7573 00 00 00", "0014 04 00 0002 3034 0009 616e6f6e796d6f7573 00 00 00"},
	{"Thello 02", message{typ: tHello, text: []byte("02"), uid: []byte("anonymous")},
		"00000014 04 00 0002 3032 0009 616e6f6e796d6f7573 00 00 00", "0014 04 00 0002 3032 0009 616e6f6e796d6f7573 00 00 00"},
	{"Rhello", message{typ: rHello, text: []byte("anonymous")},
		"0000000f 05 00 0009 616e6f6e796d6f7573 00 00", "000f 05 00 0009 616e6f6e796d6f7573 00 00"},
	{"Tgoodbye", message{typ: tGoodbye, tag: 255}, "00000002 06 ff", "0002 06 ff"},
	{"Tread", message{typ: tRead, tag: 1, score: ScoreOf([]byte("hello world")), disk: DiskData, count: 65535},
		"0000001a 0c 01 2aae6c35c94fcfb415dbe95f408b9ce91ee846ed 0d 00 ffff",
		"001a 0c 01 2aae6c35c94fcfb415dbe95f408b9ce91ee846ed 0d 00 ffff"},
	{"Tread, long count", message{typ: tRead, tag: 4, score: ScoreOf([]byte("hello world")), disk: DiskDir, count: 70000},
		"0000001c 0c 04 2aae6c35c94fcfb415dbe95f408b9ce91ee846ed 02 00 00011170",
		"001c 0c 04 2aae6c35c94fcfb415dbe95f408b9ce91ee846ed 02 00 00011170"},
	{"Rread", message{typ: rRead, tag: 1, data: []byte("hello world")},
		"0000000d 0d 01 68656c6c6f20776f726c64", "000d 0d 01 68656c6c6f20776f726c64"},
	{"Rread, empty", message{typ: rRead, tag: 1, data: []byte{}}, "00000002 0d 01", "0002 0d 01"},
	{"Twrite", message{typ: tWrite, tag: 1, disk: DiskData, data: []byte("hello world")},
		"00000011 0e 01 0d 000000 68656c6c6f20776f726c64", "0011 0e 01 0d 000000 68656c6c6f20776f726c64"},
	{"Rwrite", message{typ: rWrite, tag: 1, score: ScoreOf([]byte("hello world"))},
		"00000016 0f 01 2aae6c35c94fcfb415dbe95f408b9ce91ee846ed", "0016 0f 01 2aae6c35c94fcfb415dbe95f408b9ce91ee846ed"},
	{"Tsync", message{typ: tSync, tag: 1}, "00000002 10 01", "0002 10 01"},
	{"Rsync", message{typ: rSync, tag: 1}, "00000002 11 01", "0002 11 01"},
}

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMessages(t *testing.T) {
	for _, tc := range wireMessages {
		for f, text := range map[framing]string{4: tc.four, 2: tc.two} {
			want := fromHex(t, text)
			if got := tc.m.pack([]byte("x"), f); !bytes.Equal(got[1:], want) {
				t.Errorf("%s: packed %x, want %x", tc.name, got[1:], want)
			}
			in := newFrameReader(bytes.NewReader(want))
			in.framing = f
			b, err := in.next(maxMessageSize)
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
				continue
			}
			if m, err := unpackMessage(b); err != nil || !reflect.DeepEqual(m, tc.m) {
				t.Errorf("%s: unpacked %+v, %v, want %+v", tc.name, m, err, tc.m)
			}
			if _, err := in.next(maxMessageSize); err != io.EOF {
				t.Errorf("%s: after the message: %v", tc.name, err)
			}
		}
	}
	// The sizes that the constants claim.
	large := (&message{typ: tWrite, data: make([]byte, MaxBlockSize)}).pack(nil, 2)
	if got, want := len(large)-2, headSize+writeHeadSize+MaxBlockSize; got != want || want+58 != maxMessageSize || got > 1<<16-1 {
		t.Errorf("the largest Twrite has %d bytes, want %d", got, want)
	}
	if 4+maxMessageSize > frameBufferSize {
		t.Errorf("a message of %d bytes does not fit the buffer", maxMessageSize)
	}
	if outBufferSize < outFlushSize+4+headSize+MaxBlockSize {
		t.Error("a reply does not fit the buffer of replies")
	}
}

// TestFrameReader reads messages that come in every possible piece.
func TestFrameReader(t *testing.T) {
	var stream []byte
	stream = append(stream, "venti-02-x\n"...)
	var want [][]byte
	add := func(m *message) {
		stream = m.pack(stream, 2)
		want = append(want, m.pack(nil, 2)[2:])
	}
	for i := range 5 {
		add(&message{typ: tPing, tag: uint8(i)})
		add(&message{typ: tWrite, tag: uint8(i), data: bytes.Repeat([]byte{byte(i)}, i*10000)})
	}
	for name, src := range map[string]io.Reader{
		"whole":    bytes.NewReader(stream),
		"one byte": iotest.OneByteReader(bytes.NewReader(stream)),
		"half":     iotest.HalfReader(bytes.NewReader(stream)),
		"data+EOF": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		in := newFrameReader(src)
		if line, err := in.versionLine(); string(line) != "venti-02-x" || err != nil {
			t.Errorf("%s: version line %q, %v", name, line, err)
		}
		in.framing = 2
		for i, w := range want {
			whole := in.whole()
			b, err := in.next(1000)
			if len(w) > 1000 {
				if err != errOversize || !bytes.Equal(b, w[:2]) || in.whole() {
					t.Errorf("%s: message %d: %x, %v, want oversize", name, i, b, err)
				}
				continue
			}
			if err != nil || !bytes.Equal(b, w) {
				t.Errorf("%s: message %d: %x, %v, want %x", name, i, b, err, w)
			}
			if whole && name == "one byte" {
				t.Errorf("%s: message %d was there before it was read", name, i)
			}
		}
		if _, err := in.next(1000); err != io.EOF {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
	// Every cut is an error, and none is a clean end.
	for n := 12; n < 40; n++ {
		in := newFrameReader(bytes.NewReader(stream[11:n]))
		in.framing = 2
		var err error
		for err == nil {
			_, err = in.next(1000)
		}
		_, atEnd := map[int]bool{15: true, 23: true, 27: true}[n]
		if (err == io.EOF) != atEnd {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func TestVersionLine(t *testing.T) {
	for _, tc := range []struct {
		line string
		list []string
	}{
		{"venti-04:02-libventi", []string{"04", "02"}},
		{"venti-02-libventi", []string{"02"}},
		{"venti-02", []string{"02"}},
		{"venti-99-04-x", []string{"99"}},
		{"venti-", []string{""}},
		{"venti", nil},
		{"Venti-04", nil},
		{"venti-04-\x1f", nil},
		{"venti-04-\x80", nil},
		{"", nil},
	} {
		list, err := parseVersionLine([]byte(tc.line))
		if (err == nil) != (tc.list != nil) || !reflect.DeepEqual(list, tc.list) {
			t.Errorf("%q: %q, %v, want %q", tc.line, list, err, tc.list)
		}
	}
	for _, tc := range []struct{ client, server, want string }{
		{"04:02", "04:02", "04"},
		{"02:04", "04:02", "02"},
		{"04:02", "02:04", "04"},
		{"99:02", "04:02", "02"},
		{"04:02", "02", "02"},
		{"99", "99", ""},
		{"", "", ""},
	} {
		v, err := chooseVersion(strings.Split(tc.client, ":"), strings.Split(tc.server, ":"))
		if v.name != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("client %s, server %s: %q, %v, want %q", tc.client, tc.server, v.name, err, tc.want)
		}
	}
}

// TestErrorTexts checks that an error survives the wire, and that C's texts
// are known.
func TestErrorTexts(t *testing.T) {
	for _, err := range []error{ErrTooLarge, ErrReadOnly, ErrFull, ErrBadType, ErrCorrupt} {
		text := textOfError(fmt.Errorf("write block: %w", err))
		if got := errorOfText([]byte(text)); got != err {
			t.Errorf("%v is told as %q, which is taken for %v", err, text, got)
		}
	}
	for text, want := range map[string]error{
		"no block with score 2aae6c35c94fcfb415dbe95f408b9ce91ee846ed/9 exists": ErrNotFound,
		"read too small: asked for 1 need at least 2":                           ErrTooLong,
		"read too small 1: asked for 1 need at least 2":                         ErrTooLong,
		"lump too large":                ErrTooLarge,
		"read only":                     ErrReadOnly,
		"read-only server":              ErrReadOnly,
		"no space left in arenas":       ErrFull,
		"clump is marked corrupt":       ErrCorrupt,
		"index and clump size mismatch": ErrCorrupt,
		"index and clump type mismatch": ErrCorrupt,
		"score mismatch":                ErrCorrupt,
		"loading clump: corrupted at a0 123; expected=x got=y":  ErrCorrupt,
		"loadclump a0 123: clump has bad magic number=0x1 != 2": ErrCorrupt,
		"decompression of 123 failed: bad":                      ErrCorrupt,
		"unknown request":                                       nil,
		"bad packet":                                            nil,
		"disk on fire":                                          nil,
		"":                                                      nil,
	} {
		if got := errorOfText([]byte(text)); got != want {
			t.Errorf("%q is taken for %v, want %v", text, got, want)
		}
	}
	if got := textOfError(errors.New("a\x00" + strings.Repeat("b", 5000))); len(got) != maxString || strings.Contains(got, "\x00") {
		t.Errorf("an error of 5000 bytes is told in %d", len(got))
	}
	damaged := fmt.Errorf("loading clump: damaged: %w", hidden{ErrCorrupt})
	if text := textOfError(damaged); errorOfText([]byte(text)) != ErrCorrupt || !strings.Contains(text, "loading clump") {
		t.Errorf("a corrupt block is told as %q", text)
	}
	const refusal = "read-only server"
	if text := textOfError(&remoteError{refusal, ErrReadOnly}); text != refusal {
		t.Errorf("another server's words are told as %q", text)
	}
	if text := textOfError(context.Canceled); text != "context canceled" {
		t.Errorf("an unknown error is told as %q", text)
	}
}

// hidden wraps an error without its text.
type hidden struct{ err error }

func (hidden) Error() string   { return "hidden" }
func (h hidden) Unwrap() error { return h.err }

// FuzzMessage unpacks any bytes, and packs again what is a message.
func FuzzMessage(f *testing.F) {
	for _, tc := range wireMessages {
		f.Add(fromHex(f, tc.four)[4:])
	}
	f.Add(fromHex(f, "04 00 0002 3034 0000 01 02 0102 03 010203"))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := unpackMessage(b)
		if err != nil {
			return
		}
		if len(m.text) > maxString || len(m.uid) > maxString || bytes.IndexByte(m.text, 0) >= 0 {
			t.Fatalf("bad string in %+v", m)
		}
		packed := m.pack(nil, 4)
		in := newFrameReader(bytes.NewReader(packed))
		in.framing = 4
		again, err := in.next(len(packed))
		if err != nil {
			t.Fatalf("%x: %v", packed, err)
		}
		if m2, err := unpackMessage(again); err != nil || !reflect.DeepEqual(m, m2) {
			t.Fatalf("%+v came back as %+v, %v", m, m2, err)
		}
		// Pads, the width of a count and what a hello offers are not kept.
		if m.typ != tRead && m.typ != tWrite && m.typ != tHello && m.typ != rHello && !bytes.Equal(again, b) {
			t.Fatalf("%x came back as %x", b, again)
		}
	})
}

// FuzzFrames cuts any bytes into messages.
func FuzzFrames(f *testing.F) {
	var all []byte
	for _, tc := range wireMessages {
		all = append(all, fromHex(f, tc.four)...)
	}
	f.Add(true, append([]byte("venti-04:02-x\n"), all...))
	f.Add(false, []byte("venti-02\n\x00\x02\x02\x01\xff\xff\x02\x02"))
	f.Fuzz(func(t *testing.T, four bool, b []byte) {
		in := newFrameReader(iotest.HalfReader(bytes.NewReader(b)))
		line, err := in.versionLine()
		if err != nil {
			return
		}
		parseVersionLine(line)
		in.framing = 2
		if four {
			in.framing = 4
		}
		total := 0
		for {
			b, err := in.next(1 << 12)
			if err != nil && err != errOversize {
				break
			}
			if len(b) < headSize || len(b) > 1<<12 {
				t.Fatalf("message of %d bytes", len(b))
			}
			total += len(b)
		}
		if total > len(b) {
			t.Fatalf("%d bytes of messages in %d", total, len(b))
		}
		if len(in.buf) != frameBufferSize {
			t.Fatalf("the buffer grew to %d", len(in.buf))
		}
	})
}
