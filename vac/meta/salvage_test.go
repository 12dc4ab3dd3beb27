package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// full returns a block with some entries, and them.
func full(t testing.TB, version int) (b *Block, list []DirEntry) {
	t.Helper()
	b = New(make([]byte, 4096), MaxIndex(4096), ShorterFirst)
	for i := range 20 {
		e := DirEntry{Version: version, Name: fmt.Sprintf("file%02d", i), Entry: uint32(2 * i), MEntry: uint32(2*i + 1), Qid: uint64(i + 10), UID: "glenda", GID: "sys", Mode: 0o644}
		if i%5 == 0 {
			e.QidSpace, e.QidOffset, e.QidMax = true, 100, 200
		}
		if err := b.Insert(&e); err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return b, list
}

func TestSalvage(t *testing.T) {
	for _, version := range []int{8, 9} {
		for name, damage := range map[string]func(b *Block) (lost string){
			"nothing":      func(*Block) string { return "" },
			"magic":        func(b *Block) string { b.buf[0] ^= 1; return "" },
			"counts":       func(b *Block) string { clear(b.buf[4:12]); return "" },
			"index":        func(b *Block) string { clear(b.buf[headerSize:b.start()]); return "" },
			"magic of one": func(b *Block) string { off, _ := b.at(3); b.buf[off] ^= 1; return "file03" },
			"strings of one": func(b *Block) string {
				off, _ := b.at(4)
				binary.BigEndian.PutUint16(b.buf[off+6:], 9999)
				return "file04"
			},
			"name of one": func(b *Block) string {
				off, _ := b.at(4)
				binary.BigEndian.PutUint16(b.buf[off+6:], 99)
				return "file04"
			},
			"one was removed": func(b *Block) string { b.Remove(7); b.buf[1]++; return "file07" },
		} {
			b, want := full(t, version)
			lost := damage(b)
			want = slices.DeleteFunc(want, func(e DirEntry) bool { return e.Name == lost })
			if got := Salvage(b.Bytes()); !slices.Equal(got, want) {
				t.Errorf("version %d, %s: %d entries, want %d: %+v", version, name, len(got), len(want), got)
			}
		}
	}
}

// FuzzSalvage has whatever is salvaged pack again.
func FuzzSalvage(f *testing.F) {
	b, _ := full(f, 9)
	f.Add(b.Bytes())
	f.Add(bytes.Repeat([]byte{0x1c, 0x4d, 0x90, 0x72, 0, 9}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for _, e := range Salvage(b) {
			if e.Version == 7 || e.Plan9 {
				continue
			}
			p, err := e.Append(nil)
			if err != nil && e.Version == 9 {
				t.Errorf("%+v: %v", e, err)
			}
			total += len(p)
		}
		if total > len(b) {
			t.Errorf("%d bytes of entries in %d", total, len(b))
		}
	})
}
