package vdisk

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"strata/venti"
)

// testLayout has one of everything.
func testLayout() *Layout {
	return &Layout{
		Version: LayoutVersion,
		Size:    10<<20 + 300,
		Table:   "gpt",
		Notes:   []string{"backup header is damaged"},
		Regions: []Region{
			{Name: "gpt", Start: 0, Length: 17408, Kind: "gpt", Encoder: "plain", DSize: 4096, PSize: 4080},
			{Name: "p1.ext4", Start: 17408, Length: 8 << 20, Kind: "partition",
				Partition:   &Partition{Number: 1, Type: "0fc63daf-8483-4772-8e79-3d69d8477de4", UUID: "u1", Label: `a<b>&"c"`},
				FileSystem:  &FileSystem{Type: "ext4", UUID: "fs1", Label: "root", BlockSize: 1024},
				Encoder:     "ext",
				DSize:       1024,
				PSize:       4080,
				FreeOmitted: true},
			{Name: "p2", Start: 17408 + 8<<20, Length: 2<<20 - 17408 + 300, Kind: "partition",
				Partition: &Partition{Number: 2, Type: "83"},
				Encoder:   "ext", DSize: 4096, PSize: 4080, Whole: "unknown incompatible features 0x80000"},
		},
	}
}

func TestLayoutGolden(t *testing.T) {
	want, err := os.ReadFile("testdata/layout.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := testLayout().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	l, err := DecodeLayout(want)
	if err != nil {
		t.Fatal(err)
	}
	again, err := l.Encode()
	if err != nil || !bytes.Equal(again, want) {
		t.Errorf("after decoding: got %s, %v", again, err)
	}
}

func TestLayoutEmptyDisk(t *testing.T) {
	l := &Layout{Version: LayoutVersion, Table: "none", Regions: []Region{}}
	b, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeLayout(b); err != nil {
		t.Fatal(err)
	}
}

func TestLayoutRefuses(t *testing.T) {
	good, err := testLayout().Encode()
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) string {
		t.Helper()
		s := strings.Replace(string(good), old, new, 1)
		if s == string(good) {
			t.Fatalf("no %q in the layout", old)
		}
		return s
	}
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", "unexpected end"},
		{"not json", "layout", "invalid character"},
		{"other version", edit(`"version": 1`, `"version": 2`), "unknown version 2"},
		{"unknown field", edit(`"table"`, `"tables"`), "unknown field"},
		{"other case", edit(`"table"`, `"Table"`), "canonical"},
		{"field twice", edit(`"table": "gpt"`, `"table": "mbr", "table": "gpt"`), "canonical"},
		{"spaces", edit(`"table": `, `"table":  `), "canonical"},
		{"something after it", string(good) + "{}", "after top-level value"},
		{"blank after it", string(good) + "\n", "canonical"},
		{"no newline", strings.TrimSuffix(string(good), "\n"), "canonical"},
		{"null regions", `{"version": 1, "size": 0, "table": "none", "regions": null}`, "no list"},
		{"size smaller", edit("10486060", "10486059"), "bad place"},
		{"size larger", edit("10486060", "10486061"), "end at"},
		{"size negative", edit("10486060", "-1"), "bad size"},
		{"size too large", edit("10486060", "281474976710656"), "bad size"},
		{"hole between regions", edit(`"start": 17408`, `"start": 17409`), "bad place"},
		{"regions overlap", edit(`"start": 17408`, `"start": 17407`), "bad place"},
		{"length zero", edit(`"length": 17408`, `"length": 0`), "bad length"},
		{"length overflows", edit(`"length": 8388608`, `"length": 9223372036854775807`), "bad place"},
		{"name with slash", edit(`"name": "p2"`, `"name": "../p2"`), "bad name"},
		{"name twice", edit(`"name": "p2"`, `"name": "gpt"`), "second"},
		{"number twice", edit(`"number": 2`, `"number": 1`), "second partition"},
		{"number zero", edit(`"number": 2`, `"number": 0`), "bad partition number"},
		{"dsize small", edit(`"dsize": 4096`, `"dsize": 16`), "bad block size"},
		{"dsize large", edit(`"dsize": 4096`, `"dsize": 65536`), "bad block size"},
		{"both", edit(`"freeOmitted": false,`, `"freeOmitted": true,`), "both whole"},
		{"kind", edit(`"kind": "gpt"`, `"kind": ""`), "bad kind"},
		{"long label", edit(`"label": "root"`, `"label": "`+strings.Repeat("r", maxText+1)+`"`), "at most"},
		{"too much", strings.Repeat(" ", maxLayout+1), "at most"},
	} {
		if c.name == "both" {
			// The first region has no reason; give the one that has.
			i := strings.LastIndex(string(good), `"freeOmitted": false`)
			c.in = string(good)[:i] + strings.Replace(string(good)[i:], "false", "true", 1)
		}
		if _, err := DecodeLayout([]byte(c.in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// TestLayoutLimit encodes as many regions as an image's directory has room
// for, and one more.
func TestLayoutLimit(t *testing.T) {
	l := &Layout{Version: LayoutVersion, Table: "gpt", Regions: []Region{}}
	for i := range MaxRegions {
		l.Regions = append(l.Regions, Region{
			Name: fmt.Sprintf("gap%d", i), Start: l.Size, Length: 512, Kind: "gap", Encoder: "plain", DSize: 4096, PSize: 4080,
		})
		l.Size += 512
	}
	b, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeLayout(b); err != nil {
		t.Error(err)
	}
	if n := (MaxRegions + 1) * venti.EntrySize; n > venti.MaxBlockSize {
		t.Errorf("a directory of %d bytes", n)
	}
	l.Regions = append(l.Regions, l.Regions[0])
	if _, err := l.Encode(); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("one more: got %v", err)
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"root", "root"},
		{"a\xffb", "a\uFFFDb"},
		{strings.Repeat("é", maxText), strings.Repeat("é", maxText/2)},
		{"x" + strings.Repeat("é", maxText), "x" + strings.Repeat("é", maxText/2-1)},
	} {
		if got := text(c.in); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

func FuzzDecodeLayout(f *testing.F) {
	b, err := testLayout().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version": 1, "size": 0, "table": "none", "regions": []}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := DecodeLayout(b)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q came back as %q, %v", b, again, err)
		}
		end := int64(0)
		for _, r := range l.Regions {
			if r.Start != end {
				t.Errorf("region %s starts at %d, want %d", r.Name, r.Start, end)
			}
			end += r.Length
		}
		if end != l.Size {
			t.Errorf("regions end at %d of %d", end, l.Size)
		}
	})
}
