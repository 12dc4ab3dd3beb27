package venti_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestScore(t *testing.T) {
	if got := venti.ScoreOf(nil); got != venti.EmptyScore {
		t.Errorf("score of nothing %v, want %v", got, venti.EmptyScore)
	}
	if (venti.Score{}) == venti.EmptyScore || !(venti.Score{}).IsZero() || venti.EmptyScore.IsZero() {
		t.Error("no score and the empty score are mixed up")
	}
	const hello = "2aae6c35c94fcfb415dbe95f408b9ce91ee846ed"
	if got := venti.ScoreOf([]byte("hello world")).String(); got != hello {
		t.Errorf("score of hello world %s, want %s", got, hello)
	}
	text, err := venti.ScoreOf([]byte("hello world")).MarshalText()
	if string(text) != hello || err != nil {
		t.Errorf("marshalled as %q, %v", text, err)
	}
	var s venti.Score
	if err := s.UnmarshalText(text); err != nil || s.String() != hello {
		t.Errorf("unmarshalled to %v, %v", s, err)
	}
	if err := s.UnmarshalText([]byte("x")); err == nil || s.String() != hello {
		t.Errorf("unmarshalled from x to %v, %v", s, err)
	}
}

func TestParseTypedScore(t *testing.T) {
	const hello = "2aae6c35c94fcfb415dbe95f408b9ce91ee846ed"
	for _, tc := range []struct{ text, kind, score string }{
		{hello, "", hello},
		{strings.ToUpper(hello), "", hello},
		{"vac:" + hello, "vac", hello},
		{":" + hello, "", hello},
		{"vac:x:" + hello, "", ""},
		{"vac:" + hello + "\n", "", ""},
		{" " + hello, "", ""},
		{hello[1:], "", ""},
		{hello + "0", "", ""},
		{"g" + hello[1:], "", ""},
		{"z" + hello[1:], "", ""},
		{"", "", ""},
		{"vac:", "", ""},
	} {
		kind, s, err := venti.ParseTypedScore(tc.text)
		if tc.score == "" {
			if err == nil {
				t.Errorf("%q: no error", tc.text)
			}
			continue
		}
		if err != nil || kind != tc.kind || s.String() != tc.score {
			t.Errorf("%q: %q %v %v, want %q %s", tc.text, kind, s, err, tc.kind, tc.score)
		}
	}
}

func TestType(t *testing.T) {
	for _, tc := range []struct {
		typ   venti.Type
		disk  venti.DiskType
		back  venti.Type
		depth int
		base  venti.Type
		name  string
	}{
		{0, 13, 0, 0, 0, "data"},
		{1, 3, 9, 1, 0, "data+1"},
		{7, 9, 15, 7, 0, "data+7"},
		{8, 2, 8, 0, 8, "dir"},
		{9, 3, 9, 1, 8, "dir+1"},
		{15, 9, 15, 7, 8, "dir+7"},
		{16, 1, 16, 0, 16, "root"},
		{17, 255, 255, 0, 17, "type17"},
		{255, 255, 255, 0, 255, "type255"},
	} {
		if got := tc.typ.Disk(); got != tc.disk {
			t.Errorf("%d: disk type %d, want %d", tc.typ, got, tc.disk)
		}
		if got := tc.typ.Disk().Type(); got != tc.back {
			t.Errorf("%d: comes back as %d, want %d", tc.typ, got, tc.back)
		}
		if tc.typ.Depth() != tc.depth || tc.typ.Base() != tc.base || tc.typ.IsPointer() != (tc.depth > 0) || tc.typ.String() != tc.name {
			t.Errorf("%d: depth %d, base %d, pointer %v, name %q", tc.typ, tc.typ.Depth(), tc.typ.Base(), tc.typ.IsPointer(), tc.typ)
		}
		if got, want := tc.typ.Valid(), tc.typ <= 16; got != want {
			t.Errorf("%d: valid %v", tc.typ, got)
		}
	}
	for typ := range venti.RootType + 1 {
		for _, text := range []string{typ.String(), fmt.Sprint(uint8(typ)), fmt.Sprintf("%#x", uint8(typ))} {
			if got, err := venti.ParseType(text); got != typ || err != nil {
				t.Errorf("parse %q: %d, %v, want %d", text, got, err, typ)
			}
		}
	}
	for _, text := range []string{"", "17", "255", "256", "-1", "type17", "data+0", "data+8", "Data", " 0"} {
		if got, err := venti.ParseType(text); !errors.Is(err, venti.ErrBadType) {
			t.Errorf("parse %q: %d, %v", text, got, err)
		}
	}
	valid := 0
	for d := range 256 {
		if venti.DiskType(d).Valid() {
			valid++
			if got := venti.DiskType(d).Type().Disk(); int(got) != d {
				t.Errorf("disk type %d comes back as %d", d, got)
			}
		}
	}
	if valid != 10 {
		t.Errorf("%d disk types are valid, want 10", valid)
	}
}

func score(t testing.TB, text string) venti.Score {
	t.Helper()
	s, err := venti.ParseScore(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEntry(t *testing.T) {
	for _, tc := range []struct {
		name  string
		hex   string
		entry venti.Entry
	}{
		{"vac root", "00000000 1ff4 2000 23 0000000000 000000000050 47ff323ae17f89a33a0e093f49a9e25eb1eadfc3",
			venti.Entry{PSize: 8180, DSize: 8192, Flags: venti.EntryActive | venti.EntryDir | venti.EntryLocal, Size: 80,
				Score: score(t, "47ff323ae17f89a33a0e093f49a9e25eb1eadfc3")}},
		{"big", "00000000 ea65 8007 63 0000000000 000000000050 4dd02b9dc4fd4732f016055cc5a83b39789aaeca",
			venti.Entry{PSize: 60000, DSize: 131072, Flags: venti.EntryActive | venti.EntryDir | venti.EntryLocal, Size: 80,
				Score: score(t, "4dd02b9dc4fd4732f016055cc5a83b39789aaeca")}},
		{"deep", "00000007 0ff0 1000 1d 0000000000 ffffffffffff da39a3ee5e6b4b0d3255bfef95601890afd80709",
			venti.Entry{Gen: 7, PSize: 4080, DSize: 4096, Depth: 7, Flags: venti.EntryActive, Size: venti.MaxEntrySize, Score: venti.EmptyScore}},
		{"inactive", "00000001 0000 0000 00 0000000000 000000000000 da39a3ee5e6b4b0d3255bfef95601890afd80709",
			venti.Entry{Gen: 1, Score: venti.EmptyScore}},
	} {
		b := unhex(t, tc.hex)
		if len(b) != venti.EntrySize {
			t.Fatalf("%s: %d bytes", tc.name, len(b))
		}
		e, err := venti.UnpackEntry(b)
		if err != nil || e != tc.entry {
			t.Errorf("%s: unpacked %+v, %v, want %+v", tc.name, e, err, tc.entry)
		}
		got, err := tc.entry.Pack([]byte("x"))
		if err != nil || !bytes.Equal(got[1:], b) || got[0] != 'x' {
			t.Errorf("%s: packed %x, %v, want %x", tc.name, got, err, b)
		}
	}
	e := venti.Entry{Flags: venti.EntryActive | venti.EntryDir, Depth: 2}
	if e.Type() != venti.DirType+2 || e.LeafType() != venti.DirType || !e.Dir() || !e.Active() {
		t.Errorf("type %v, leaf type %v", e.Type(), e.LeafType())
	}
	e.Flags = 0
	if e.Type() != venti.DataType+2 || e.LeafType() != venti.DataType || e.Dir() || e.Active() {
		t.Errorf("type %v, leaf type %v", e.Type(), e.LeafType())
	}
}

func TestEntryRefused(t *testing.T) {
	good := venti.Entry{PSize: 8180, DSize: 8192, Flags: venti.EntryActive}
	for name, change := range map[string]func(e *venti.Entry){
		"depth 8":           func(e *venti.Entry) { e.Depth = 8 },
		"depth -1":          func(e *venti.Entry) { e.Depth = -1 },
		"size 2^48":         func(e *venti.Entry) { e.Size = 1 << 48 },
		"size -1":           func(e *venti.Entry) { e.Size = -1 },
		"psize -1":          func(e *venti.Entry) { e.PSize = -1 },
		"inexact big dsize": func(e *venti.Entry) { e.DSize = 1<<17 + 1 },
		"inexact big psize": func(e *venti.Entry) { e.DSize, e.PSize = 1<<17, 4095*20+1 },
		"huge dsize":        func(e *venti.Entry) { e.DSize = 1 << 60 },
	} {
		e := good
		change(&e)
		if b, err := e.Pack(nil); err == nil {
			t.Errorf("%s: packed as %x", name, b)
		}
	}
	packed, _ := good.Pack(nil)
	for name, change := range map[string]func(b []byte){
		"psize 255":                        func(b []byte) { b[4], b[5] = 0, 255 },
		"dsize 0":                          func(b []byte) { b[6], b[7] = 0, 0 },
		"both 0 with another score":        func(b []byte) { clear(b[4:8]); b[20] = 1 },
		"big encoding of a size too small": func(b []byte) { b[8] |= 0x40; b[4], b[5] = 0, 32 },
	} {
		b := bytes.Clone(packed)
		change(b)
		if e, err := venti.UnpackEntry(b); err == nil {
			t.Errorf("%s: unpacked as %+v", name, e)
		}
	}
	if _, err := venti.UnpackEntry(packed[:39]); err == nil {
		t.Error("39 bytes were unpacked")
	}
	// Old vac files.
	b := bytes.Clone(packed)
	clear(b[4:8])
	copy(b[20:], venti.EmptyScore[:])
	if e, err := venti.UnpackEntry(b); err != nil || e.PSize != 4096 || e.DSize != 4096 {
		t.Errorf("sizes 0: %+v, %v", e, err)
	}
}

func TestRoot(t *testing.T) {
	root := venti.Root{Type: "vac", Score: score(t, "63b83730e11bdaba3231f1bae642acee8809afc7"), BlockSize: 8192}
	b, err := root.Pack(nil)
	if err != nil || len(b) != venti.RootSize {
		t.Fatalf("packed %d bytes, %v", len(b), err)
	}
	if got, want := venti.ScoreOf(b).String(), "9fdb10c85fc4ec2754221c53c0f1370783e0eceb"; got != want {
		t.Errorf("score %s, want %s", got, want)
	}
	if r, err := venti.UnpackRoot(b); err != nil || r != root {
		t.Errorf("unpacked %+v, %v", r, err)
	}
	big := venti.Root{Name: strings.Repeat("n", 127), Type: strings.Repeat("t", 127), BlockSize: 128 << 10, Prev: venti.ScoreOf(b)}
	b, err = big.Pack([]byte("x"))
	if err != nil || len(b) != 1+venti.RootSize || b[0] != 'x' {
		t.Fatalf("packed %d bytes, %v", len(b), err)
	}
	b = b[1:]
	if !bytes.Equal(b[:2], []byte{0x80, 0x02}) || !bytes.Equal(b[278:280], []byte{0x80, 0x07}) {
		t.Errorf("version %x, block size %x", b[:2], b[278:280])
	}
	if r, err := venti.UnpackRoot(b); err != nil || r != big {
		t.Errorf("unpacked %+v, %v", r, err)
	}

	for name, r := range map[string]venti.Root{
		"long name":       {Name: strings.Repeat("n", 128), BlockSize: 8192},
		"long type":       {Type: strings.Repeat("n", 128), BlockSize: 8192},
		"NUL":             {Name: "a\x00b", BlockSize: 8192},
		"small blocks":    {BlockSize: 255},
		"inexact blocks":  {BlockSize: 1<<17 + 1},
		"negative blocks": {BlockSize: -1},
	} {
		if b, err := r.Pack(nil); err == nil {
			t.Errorf("%s: packed as %x", name, b)
		}
	}
	for name, change := range map[string]func(b []byte) []byte{
		"version 1":    func(b []byte) []byte { b[0], b[1] = 0, 1; return b },
		"version 4002": func(b []byte) []byte { b[0], b[1] = 0x40, 2; return b },
		"small blocks": func(b []byte) []byte { b[0], b[278], b[279] = 0, 0, 255; return b },
		"299 bytes":    func(b []byte) []byte { return b[:299] },
		"301 bytes":    func(b []byte) []byte { return append(b, 0) },
	} {
		if r, err := venti.UnpackRoot(change(bytes.Clone(b))); err == nil {
			t.Errorf("%s: unpacked as %+v", name, r)
		}
	}
}

// TestTruncate compares Truncate and Extend with the rules of the manual,
// written down plainly.
func TestTruncate(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		size := rng.IntN(5000)
		block := make([]byte, size)
		used := rng.IntN(size + 1)
		copy(block, ventitest.Block(rng.Uint64(), used))
		if rng.IntN(4) == 0 {
			for i := used / 20 * 20; i+20 <= size; i += 20 {
				copy(block[i:], venti.EmptyScore[:])
			}
		}
		for typ := range venti.RootType + 1 {
			want := size
			switch {
			case typ == venti.RootType:
				want = min(size, 300)
			case typ.IsPointer():
				want = size / 20 * 20
				for want > 0 && venti.Score(block[want-20:want]) == venti.EmptyScore {
					want -= 20
				}
			default:
				for want > 0 && block[want-1] == 0 {
					want--
				}
			}
			got := venti.Truncate(typ, block)
			if len(got) != want || !bytes.Equal(got, block[:want]) {
				t.Fatalf("%v, %d bytes: truncated to %d, want %d", typ, size, len(got), want)
			}
			if typ == venti.RootType {
				continue
			}
			// What was cut off comes back, but for a pointer block's slop.
			full := bytes.Repeat([]byte{0xa5}, size)
			copy(full, got)
			venti.Extend(typ, full, len(got))
			whole := size
			if typ.IsPointer() {
				whole = size / 20 * 20
				if !bytes.Equal(full[whole:], make([]byte, size-whole)) {
					t.Fatalf("%v, %d bytes: slop %x", typ, size, full[whole:])
				}
			}
			if !bytes.Equal(full[:whole], block[:whole]) {
				t.Fatalf("%v, %d bytes: extended to other bytes", typ, size)
			}
		}
	}
	if got := venti.Truncate(venti.DataType, make([]byte, 8192)); len(got) != 0 || venti.ScoreOf(got) != venti.EmptyScore {
		t.Errorf("zeros are truncated to %d bytes", len(got))
	}
	// An extended short read of a pointer block need not end at a score.
	buf := bytes.Repeat([]byte{0xa5}, 60)
	venti.Extend(venti.DataType+1, buf, 25)
	if !bytes.Equal(buf[20:40], venti.EmptyScore[:]) || !bytes.Equal(buf[40:], venti.EmptyScore[:]) {
		t.Errorf("extended to %x", buf)
	}
}

func BenchmarkTruncate4K(b *testing.B) {
	pointers := bytes.Repeat(venti.EmptyScore[:], 204)
	pointers[0] = 1
	for _, tc := range []struct {
		name  string
		typ   venti.Type
		block []byte
	}{
		{"full", venti.DataType, ventitest.Block(1, 4096)},
		{"half", venti.DataType, append(ventitest.Block(1, 2048), make([]byte, 2048)...)},
		{"zero", venti.DataType, make([]byte, 4096)},
		{"pointers", venti.DataType + 1, pointers},
	} {
		b.Run(tc.name, func(b *testing.B) {
			b.SetBytes(4096)
			b.ReportAllocs()
			for b.Loop() {
				venti.Truncate(tc.typ, tc.block)
			}
		})
	}
}

// FuzzUnpackEntry checks that what is unpacked packs again, and then to bytes
// that mean the same.
func FuzzUnpackEntry(f *testing.F) {
	f.Add(unhex(f, "00000000 1ff4 2000 23 0000000000 000000000050 47ff323ae17f89a33a0e093f49a9e25eb1eadfc3"))
	f.Add(unhex(f, "00000000 ea65 8007 63 0000000000 000000000050 4dd02b9dc4fd4732f016055cc5a83b39789aaeca"))
	f.Add(unhex(f, "00000000 0000 0000 01 0000000000 000000000000 da39a3ee5e6b4b0d3255bfef95601890afd80709"))
	f.Add(make([]byte, venti.EntrySize))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := venti.UnpackEntry(b)
		if err != nil {
			return
		}
		packed, err := e.Pack(nil)
		if err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		if again, err := venti.UnpackEntry(packed); err != nil || again != e {
			t.Fatalf("%+v came back as %+v, %v", e, again, err)
		}
	})
}

// FuzzUnpackRoot does the same for roots.
func FuzzUnpackRoot(f *testing.F) {
	for _, r := range []venti.Root{
		{Type: "vac", BlockSize: 8192, Score: venti.EmptyScore},
		{Name: "n", Type: "vdisk", BlockSize: 128 << 10, Prev: venti.EmptyScore},
	} {
		b, err := r.Pack(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b[:2:2], bytes.Repeat([]byte("0"), 298)...)) // strings without a NUL
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := venti.UnpackRoot(b)
		if err != nil {
			return
		}
		packed, err := r.Pack(nil)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if again, err := venti.UnpackRoot(packed); err != nil || again != r {
			t.Fatalf("%+v came back as %+v, %v", r, again, err)
		}
	})
}

func ExampleTruncate() {
	fmt.Printf("%q\n", venti.Truncate(venti.DataType, []byte("data\x00\x00\x00")))
	// Output: "data"
}
