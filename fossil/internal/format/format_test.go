package format

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/venti"
)

// unhex reads hexadecimal with blanks, and adds zeros up to n bytes.
func unhex(t testing.TB, text string, n int) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return append(b, make([]byte, n-len(b))...)
}

func score(t testing.TB, text string) venti.Score {
	t.Helper()
	s, err := venti.ParseScore(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The golden bytes of the tests below were written by plan9port's Fossil.

func TestHeaderBytes(t *testing.T) {
	b := unhex(t, "3776ae89 0001 2000 00000012 00000013 00000016 00000600", HeaderSize)
	want := Header{8192, 18, 19, 22, 1536}
	got, err := UnpackHeader(b, 12<<20)
	if err != nil || got != want {
		t.Errorf("header %+v, %v, want %+v", got, err, want)
	}
	packed := make([]byte, HeaderSize)
	want.Pack(packed)
	if !bytes.Equal(packed, b) {
		t.Errorf("packed %x, want %x", packed, b)
	}
	if got, err := Layout(12<<20, 8192); err != nil || got != want {
		t.Errorf("layout %+v, %v, want %+v", got, err, want)
	}
	if _, err := UnpackHeader(b, 12<<20-1); !errors.Is(err, ErrHeader) {
		t.Errorf("header of a partition cut short: %v", err)
	}
}

func TestLayout(t *testing.T) {
	if h, err := Layout(256<<20, 8192); err != nil || h != (Header{8192, 18, 19, 75, 32768}) || h.Blocks() != 32693 {
		t.Errorf("256 MiB of 8 KiB blocks: %+v, %v", h, err)
	}
	for bs := MinBlockSize; bs <= MaxBlockSize; bs += 512 {
		for _, size := range []int64{minSize, minSize + 12345, 64 << 20, 1 << 40} {
			h, err := Layout(size, bs)
			if err != nil {
				t.Fatalf("%d blocks of %d: %v", size/int64(bs), bs, err)
			}
			b := make([]byte, HeaderSize)
			h.Pack(b)
			if got, err := UnpackHeader(b, size); err != nil || got != h {
				t.Fatalf("%d bytes in blocks of %d: %+v, %v, want %+v", size, bs, got, err, h)
			}
		}
	}
	for _, tc := range []struct {
		size int64
		bs   int
	}{{minSize - 8192, 8192}, {1 << 30, 512}, {1 << 30, 1000}, {1 << 30, 64 << 10}, {1 << 50, 8192}} {
		if _, err := Layout(tc.size, tc.bs); err == nil {
			t.Errorf("%d bytes in blocks of %d: no error", tc.size, tc.bs)
		}
	}
}

func TestSuperBytes(t *testing.T) {
	b := unhex(t, `2340a3b1 0001 00000001 0000000a 0000000000000182 000003f1 ffffffff ffffffff
		7324cdc7215bba06c6239473e9ff6c77e943e70e 676f6c64656e206172636869766564`, SuperSize)
	want := Super{
		EpochLow: 1, EpochHigh: 10, QID: 386, Active: 1009, Next: None, Current: None,
		Last: score(t, "7324cdc7215bba06c6239473e9ff6c77e943e70e"), Name: "golden archived",
	}
	got, err := UnpackSuper(b)
	if err != nil || got != want {
		t.Errorf("super block %+v, %v, want %+v", got, err, want)
	}
	packed := make([]byte, SuperSize)
	want.Pack(packed)
	if !bytes.Equal(packed, b) {
		t.Errorf("packed %x, want %x", packed, b)
	}
	want.Logged = true
	want.Pack(packed)
	if got, err := UnpackSuper(packed); err != nil || got != want {
		t.Errorf("logged: %+v, %v", got, err)
	}
	for name, damage := range map[string]func(s *Super, b []byte){
		"magic":     func(s *Super, b []byte) { s.Pack(b); b[0]++ },
		"version":   func(s *Super, b []byte) { s.Pack(b); b[5]++ },
		"no epoch":  func(s *Super, b []byte) { s.EpochLow = 0; s.Pack(b) },
		"low epoch": func(s *Super, b []byte) { s.EpochLow = 11; s.Pack(b) },
		"no qid":    func(s *Super, b []byte) { s.QID = 0; s.Pack(b) },
	} {
		s, b := want, make([]byte, SuperSize)
		if damage(&s, b); !errors.Is(second(UnpackSuper(b)), ErrSuper) {
			t.Errorf("%s: no error", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestLabelBytes(t *testing.T) {
	for _, tc := range []struct {
		hex  string
		want Label
		text string
	}{
		{"0b 00 00000005 00000006 4c0fe2a2", Label{Alloc | Copied | Closed, Data, 5, 6, 0x4c0fe2a2}, "alloc,copied,closed data epoch 5..6 tag 0x4c0fe2a2"},
		{"01 08 00000006 ffffffff 00000001", Label{Alloc, Dir, 6, Open, RootTag}, "alloc dir epoch 6 tag 0x1"},
		{"00 00 00000000 00000000 00000000", Label{}, "free"},
		{"ff 00 00000000 ffffffff 00000000", Reserved, "bad data epoch 0 tag 0x0"},
		{"0d 0b 00000003 00000007 00000099", Label{Alloc | Venti | Closed, Dir + 3, 3, 7, 0x99}, "alloc,venti,closed dir+3 epoch 3..7 tag 0x99"},
	} {
		b := unhex(t, tc.hex, LabelSize)
		got, err := UnpackLabel(b)
		if err != nil || got != tc.want || got.String() != tc.text {
			t.Errorf("%s: %+v, %q, %v, want %+v, %q", tc.hex, got, got, err, tc.want, tc.text)
		}
		packed := make([]byte, LabelSize)
		tc.want.Pack(packed)
		if !bytes.Equal(packed, b) {
			t.Errorf("%+v: %x, want %s", tc.want, packed, tc.hex)
		}
	}
	for _, bad := range []string{
		"01 11 00000001 ffffffff 00000001", // type
		"02 00 00000001 ffffffff 00000001", // copied but not allocated
		"11 00 00000001 ffffffff 00000001", // a state that is none
		"01 00 00000001 00000002 00000001", // close epoch but not closed
		"09 00 00000001 ffffffff 00000001", // closed without
	} {
		if _, err := UnpackLabel(unhex(t, bad, LabelSize)); !errors.Is(err, ErrLabel) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestLabelFree(t *testing.T) {
	for _, tc := range []struct {
		l    Label
		low  uint32
		want bool
	}{
		{Label{}, 1, true},
		{Reserved, 1 << 31, false},
		{Label{Alloc, Data, 1, Open, 99}, 5, false},
		{Label{Alloc | Closed, Data, 1, 5, 99}, 4, false},
		{Label{Alloc | Closed, Data, 1, 5, 99}, 5, true},
		{Label{Alloc | Closed, Data, 5, 5, 99}, 1, true},
	} {
		if got := tc.l.Free(tc.low); got != tc.want {
			t.Errorf("%v from epoch %d: free %v", tc.l, tc.low, got)
		}
	}
}

func TestEntryBytes(t *testing.T) {
	b := unhex(t, "00000000 1fe0 2000 23 0000000000 000000000078 00000000000000 00 00000000 53ed9b6c 000003c1", EntrySize)
	want := Entry{PSize: 8160, DSize: 8192, Active: true, Dir: true, Local: true, Size: 120, Tag: 0x53ed9b6c, Root: Local(0x3c1)}
	if got := UnpackEntry(b); got != want || got.Check(8192) != nil {
		t.Errorf("entry %+v, %v, want %+v", got, got.Check(8192), want)
	}
	packed := make([]byte, EntrySize)
	want.Pack(packed)
	if !bytes.Equal(packed, b) {
		t.Errorf("packed %x, want %x", packed, b)
	}
	// The hint that a root block's second slot holds.
	hint := UnpackEntry(unhex(t, "00000000 0000 0000 23 0000000000 000000000000 00000000000000 00 00000005 00000001 000003b6", EntrySize))
	if hint != (Entry{Active: true, Dir: true, Local: true, Snap: 5, Tag: RootTag, Root: Local(0x3b6)}) {
		t.Errorf("hint %+v", hint)
	}
	// Of a stream on Venti, as vac wrote it: the flag is set beside a score.
	vac := UnpackEntry(unhex(t, "00000000 1ff4 2000 23 0000000000 000000000050 47ff323ae17f89a33a0e093f49a9e25eb1eadfc3", EntrySize))
	if vac.Local || vac.Root.IsLocal() || vac.Tag != 0 || vac.Check(8192) != nil {
		t.Errorf("vac's entry %+v, %v", vac, vac.Check(8192))
	}
}

func TestEntryCheck(t *testing.T) {
	good := NewEntry(8192, false)
	for name, change := range map[string]func(*Entry){
		"inactive": func(e *Entry) { e.Active = false },
		"psize":    func(e *Entry) { e.PSize = 8193 },
		"dsize":    func(e *Entry) { e.DSize = 255 },
		"depth":    func(e *Entry) { e.Size = 8193 },
		"size":     func(e *Entry) { e.DSize, e.Depth, e.Size = 256, MaxDepth, 1<<39+1 },
		"no tag":   func(e *Entry) { e.Local, e.Root = true, Local(3) },
		"address":  func(e *Entry) { e.Root = Local(3) },
	} {
		e := good
		if err := e.Check(8192); err != nil {
			t.Fatal(err)
		}
		if change(&e); !errors.Is(e.Check(8192), ErrEntry) {
			t.Errorf("%s: %v", name, e.Check(8192))
		}
	}
}

func TestShape(t *testing.T) {
	e := NewEntry(8192, false)
	if e.PSize != 8180 || e.Pointers() != 409 {
		t.Fatalf("pointer blocks of %d bytes", e.PSize)
	}
	for _, tc := range []struct {
		size  int64
		depth int
	}{{0, 0}, {1, 0}, {8192, 0}, {8193, 1}, {409 * 8192, 1}, {409*8192 + 1, 2}, {409 * 409 * 8192, 2}, {1 << 40, 4}} {
		if got := e.DepthFor(tc.size); got != tc.depth {
			t.Errorf("%d bytes: depth %d, want %d", tc.size, got, tc.depth)
		}
	}
	small := Entry{PSize: 260, DSize: 256} // 13 pointers
	if got, want := small.MaxSize(), int64(13*13*13*13*13*13*13)*256; got != want {
		t.Errorf("greatest size %d, want %d", got, want)
	}
	if got, want := e.MaxSize(), int64(8192)<<31; got != want {
		t.Errorf("greatest size %d, want %d", got, want)
	}
}

func TestRemovedEntry(t *testing.T) {
	e := NewEntry(8192, true)
	e.Gen = 6
	e = e.Removed()
	if e != (Entry{Gen: 7, Root: Hole}) || !e.Usable() {
		t.Errorf("removed: %+v", e)
	}
	e = Entry{Gen: retired - 1, Active: true}
	if e = e.Removed(); e.Gen != retired {
		t.Errorf("removed: %+v", e)
	}
	e.Active = true
	if e = e.Removed(); e.Gen != retired || e.Usable() {
		t.Errorf("removed for the last time: %+v", e)
	}
}

func TestPointer(t *testing.T) {
	if addr, ok := Local(0x1234).Addr(); addr != 0x1234 || !ok {
		t.Errorf("local pointer: %d, %v", addr, ok)
	}
	if Hole.IsLocal() || Local(7).String() != "0x00000007" || Hole.String() != venti.EmptyScore.String() {
		t.Errorf("%v, %v", Local(7), Hole)
	}
}

func TestExtendTruncate(t *testing.T) {
	for _, typ := range []Type{Data, Data + 1, Dir, Dir + 3} {
		b := make([]byte, 1024)
		Extend(b, 0, typ)
		if got := Truncate(b, typ); len(got) != 0 {
			t.Errorf("%v: an empty block keeps %d bytes", typ, len(got))
		}
		PutPointer(b, 3, Pointer(venti.ScoreOf([]byte("x"))))
		whole := bytes.Clone(b)
		n := len(Truncate(b, typ))
		if n != 80 {
			t.Errorf("%v: %d bytes left, want 80", typ, n)
		}
		for i := n; i < len(b); i++ {
			b[i] = 0x55
		}
		if Extend(b, n, typ); !bytes.Equal(b, whole) {
			t.Errorf("%v: not as before", typ)
		}
	}
	b := bytes.Repeat([]byte{7}, 1024)
	if Extend(b, 39, Data+1); PointerAt(b, 1) != Hole {
		t.Error("a pointer that is not whole was kept")
	}
}

func TestConfig(t *testing.T) {
	b, err := PackConfig("fsys main config\n")
	if err != nil || len(b) != ConfigSize || !bytes.HasPrefix(b, []byte("fossil config\nfsys main config\n\x00")) {
		t.Errorf("packed %q, %v", b, err)
	}
	if text, err := UnpackConfig(b); err != nil || text != "fsys main config\n" {
		t.Errorf("unpacked %q, %v", text, err)
	}
	if _, err := UnpackConfig(make([]byte, ConfigSize)); err != ErrNoConfig {
		t.Errorf("none: %v", err)
	}
	for _, bad := range []string{"a\x00b", strings.Repeat("x", ConfigSize)} {
		if _, err := PackConfig(bad); err == nil {
			t.Errorf("%.10q: no error", bad)
		}
	}
}

// shared returns where the golden data lie: in $STRATA_SHARED or beside the
// repository.
func shared() string {
	if dir := os.Getenv("STRATA_SHARED"); dir != "" {
		return dir
	}
	return "../../../../shared"
}

// golden returns a partition that the original program wrote, or skips the
// test.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join(shared(), "golden/fossil", name))
	if err != nil {
		t.Skipf("no golden data: %v", err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGoldenPartitions packs again what the original program packed.
func TestGoldenPartitions(t *testing.T) {
	for _, name := range []string{"local8k", "archived8k", "crashed8k"} {
		t.Run(name, func(t *testing.T) {
			b := golden(t, name+".fossil.gz")
			h, err := UnpackHeader(b[HeaderOffset:], int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			if l, err := Layout(int64(len(b)), h.BlockSize); err != nil || l != h {
				t.Errorf("header %+v, layout %+v, %v", h, l, err)
			}
			block := func(n uint32) []byte { return b[h.Offset(n):h.Offset(n+1)] }
			s, err := UnpackSuper(block(h.Super))
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, SuperSize)
			if s.Pack(p); !bytes.Equal(p, block(h.Super)[:SuperSize]) {
				t.Error("super block packs to other bytes")
			}
			states := map[string]int{}
			entries, used := 0, 0
			lpb := h.LabelsPerBlock()
			for a := range h.Blocks() {
				raw := block(h.Label + a/lpb)[a%lpb*LabelSize:][:LabelSize]
				l, err := UnpackLabel(raw)
				if err != nil {
					t.Fatalf("label of %#x: %v", a, err)
				}
				p := make([]byte, LabelSize)
				if l.Pack(p); !bytes.Equal(p, raw) {
					t.Fatalf("label of %#x packs to %x, want %x", a, p, raw)
				}
				states[fmt.Sprintf("%02x", uint8(l.State))]++
				if !l.Free(s.EpochLow) {
					used++
				}
				if l.Type != Dir || !l.InUse() {
					continue
				}
				for i := range h.BlockSize / EntrySize {
					raw := block(h.Data + a)[i*EntrySize : (i+1)*EntrySize]
					e := UnpackEntry(raw)
					p := make([]byte, EntrySize)
					if e.Pack(p); !bytes.Equal(p, raw) {
						t.Fatalf("entry %d of %#x packs to\n%x, want\n%x", i, a, p, raw)
					}
					if e.Active {
						entries++
					}
				}
			}
			if entries == 0 {
				t.Error("no entries")
			}
			if name == "crashed8k" {
				return
			}
			text, err := os.ReadFile(filepath.Join(shared(), "golden/fossil", name+".super.json"))
			if err != nil {
				t.Fatal(err)
			}
			var want struct {
				LabelStates map[string]int
				UsedBlocks  int
			}
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(states) != fmt.Sprint(want.LabelStates) || used != want.UsedBlocks {
				t.Errorf("states %v, %d blocks used, want %v, %d", states, used, want.LabelStates, want.UsedBlocks)
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(unhex(f, "3776ae89 0001 2000 00000012 00000013 00000016 00000600", HeaderSize))
	f.Add(unhex(f, "2340a3b1 0001 00000001 0000000a 0000000000000182 000003f1 ffffffff ffffffff", SuperSize))
	f.Add(unhex(f, "0b00 00000005 00000006 4c0fe2a2", SuperSize))
	f.Add(unhex(f, "00000000 1fe0 2000 23 0000000000 000000000078 00000000000000 00 00000000 53ed9b6c 000003c1", SuperSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < SuperSize {
			UnpackHeader(b, 1<<40)
			UnpackSuper(b)
			return
		}
		if h, err := UnpackHeader(b, 1<<40); err == nil {
			p := make([]byte, HeaderSize)
			h.Pack(p)
			if got, err := UnpackHeader(p, 1<<40); err != nil || got != h {
				t.Errorf("header %+v, then %+v, %v", h, got, err)
			}
			if h.Blocks() == 0 || h.LabelsPerBlock() == 0 {
				t.Errorf("header %+v", h)
			}
		}
		if s, err := UnpackSuper(b); err == nil {
			p := make([]byte, SuperSize)
			s.Pack(p)
			if got, err := UnpackSuper(p); err != nil || got != s {
				t.Errorf("super block %+v, then %+v, %v", s, got, err)
			}
		}
		if l, err := UnpackLabel(b); err == nil {
			p := make([]byte, LabelSize)
			if l.Pack(p); !bytes.Equal(p, b[:LabelSize]) {
				t.Errorf("label %x, then %x", b[:LabelSize], p)
			}
		}
		e := UnpackEntry(b)
		p := make([]byte, EntrySize)
		e.Pack(p)
		if got := UnpackEntry(p); got != e {
			t.Errorf("entry %+v, then %+v", e, got)
		}
		if e.Check(8192) == nil && (e.DepthFor(e.Size) > MaxDepth || e.Pointers() < 1) {
			t.Errorf("entry %+v passes", e)
		}
	})
}
