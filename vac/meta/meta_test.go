package meta

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The entries are as plan9port's vac and the original fossil wrote them; the
// one of version 7 follows the specification.
var goldenEntries = []struct {
	name, bytes string
	want        DirEntry
}{
	{"root of an archive", `1c4d9072 0008 0001 2f 00000000 0000000000000000 0003 766163 0003 766163 0000
		00000000 00000000 00000000 00000000 000081ff  03 0010 0000000000000000 0000000000000145`,
		DirEntry{Version: 8, Name: "/", MEntry: 1, UID: "vac", GID: "vac", Mode: ModeDir | 0o777, QidSpace: true, QidMax: 0x145}},
	{"directory", `1c4d9072 0008 0004 74726565 00000000 0000000000000001 0004 726f6f74 0004 726f6f74 0000
		6b0351ca 00000000 6b0351ca 6b0351ca 000081ed`,
		DirEntry{Version: 8, Name: "tree", MEntry: 1, Qid: 1, UID: "root", GID: "root",
			Mtime: 0x6b0351ca, Ctime: 0x6b0351ca, Atime: 0x6b0351ca, Mode: ModeDir | 0o755}},
	{"every option of version 8", `1c4d9072 0008 0001 61 00000007 0000000000000002 0001 75 0001 67 0001 6d
		00000001 00000006 00000002 00000003 000001a4
		01 000c 0000000000000009 00000008  03 0010 0000000000000100 0000000000000200  04 0004 00000005`,
		DirEntry{Version: 8, Name: "a", Entry: 7, MEntry: 8, Gen: 5, Qid: 2, UID: "u", GID: "g", MID: "m",
			Mtime: 1, Mcount: 6, Ctime: 2, Atime: 3, Mode: 0o644,
			Plan9: true, Plan9Path: 9, Plan9Version: 8, QidSpace: true, QidOffset: 0x100, QidMax: 0x200}},
	{"version 7, unknown options", `1c4d9072 0007 0001 61 00000007 0000000000000002
		0102030405060708090a0b0c0d0e0f1011121314 0001 75 0001 67 0000
		00000001 00000004 00000002 00000003 000001a4  02 0000  09 0003 616263`,
		DirEntry{Version: 7, Name: "a", Entry: 7, MEntry: 8, Qid: 2, UID: "u", GID: "g",
			Mtime: 1, Mcount: 4, Ctime: 2, Atime: 3, Mode: 0o644}},
	{"version 7 without a count but with a Plan 9 qid", `1c4d9072 0007 0000 00000007 0000000000000002
		0102030405060708090a0b0c0d0e0f1011121314 0000 0000 0000
		00000001 00000000 00000002 00000003 000001a4  01 000c 0000000000000009 00000008`,
		DirEntry{Version: 7, Entry: 7, MEntry: 8, Qid: 2, Mtime: 1, Mcount: 8, Ctime: 2, Atime: 3, Mode: 0o644,
			Plan9: true, Plan9Path: 9, Plan9Version: 8}},
	{"version 9", `1c4d9072 0009 0006 616374697665 00000000 00000001 00000002 00000003 0000000000000002
		0003 61646d 0003 61646d 0003 61646d 00000001 00000004 00000002 00000003 0000816d`,
		DirEntry{Version: 9, Name: "active", Gen: 1, MEntry: 2, MGen: 3, Qid: 2, UID: "adm", GID: "adm", MID: "adm",
			Mtime: 1, Mcount: 4, Ctime: 2, Atime: 3, Mode: ModeDir | 0o555}},
}

func TestDirEntryGolden(t *testing.T) {
	for _, tc := range goldenEntries {
		t.Run(tc.name, func(t *testing.T) {
			b := unhex(t, tc.bytes)
			got, err := UnpackDirEntry(b)
			if err != nil || got != tc.want {
				t.Fatalf("got %+v, %v, want %+v", got, err, tc.want)
			}
			for n := range b {
				if e, err := UnpackDirEntry(b[:n]); err == nil && n != len(b)-optHeader-qidSpaceSize && !optionsEnd(b, n) {
					t.Errorf("the first %d bytes make %+v", n, e)
				}
			}
			p, err := got.Append([]byte("x"))
			if tc.want.Version == 7 {
				if err == nil {
					t.Error("an entry of version 7 is packed")
				}
				return
			}
			if err != nil || !bytes.Equal(p[1:], b) {
				t.Errorf("packed again: %x, %v, want %x", p[1:], err, b)
			}
			if got.Size() != len(b) {
				t.Errorf("size %d, want %d", got.Size(), len(b))
			}
		})
	}
}

// optionsEnd tells whether an option, or the fixed part, of a packed entry
// ends at n: what is left is an entry, too.
func optionsEnd(b []byte, n int) bool {
	e, err := UnpackDirEntry(b)
	if err != nil {
		return false
	}
	e.Plan9, e.QidSpace = false, false
	if e.Version < 9 {
		e.Gen = 0
	}
	at := e.Size()
	if e.Version == 7 {
		at += v7Size
	}
	for ; at < n; at += optHeader + (int(b[at+1])<<8 | int(b[at+2])) {
	}
	return at == n
}

func TestDirEntryRefused(t *testing.T) {
	good := unhex(t, goldenEntries[0].bytes)
	for _, tc := range []struct {
		name string
		b    []byte
	}{
		{"nothing", nil},
		{"magic", append([]byte{0}, good[1:]...)},
		{"version 6", slices.Replace(slices.Clone(good), 5, 6, 6)},
		{"version 10", slices.Replace(slices.Clone(good), 5, 6, 10)},
		{"bytes behind", append(slices.Clone(good), 0)},
		{"two qid spaces", append(slices.Clone(good), good[len(good)-19:]...)},
		{"qid space of 15 bytes", slices.Replace(slices.Clone(good[:len(good)-1]), len(good)-17, len(good)-16, 15)},
		{"Plan 9 qid in version 9", append(unhex(t, goldenEntries[5].bytes), unhex(t, "01 000c 0000000000000009 00000008")...)},
		{"generation in version 9", append(unhex(t, goldenEntries[5].bytes), unhex(t, "04 0004 00000005")...)},
	} {
		if e, err := UnpackDirEntry(tc.b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %+v, %v, want ErrCorrupt", tc.name, e, err)
		}
	}
	for _, e := range []DirEntry{
		{Version: 7}, {Version: 10}, {Version: 8, MGen: 1}, {Version: 8, Mode: ModeDir, Entry: 1, MEntry: 1},
		{Version: 9, Plan9: true}, {Version: 8, Name: strings.Repeat("x", 1<<16)},
	} {
		if b, err := e.Append(nil); err == nil || len(b) != 0 {
			t.Errorf("%.60v is packed", e)
		}
	}
}

// TestBlockGolden builds the block of an archive's root directory.
func TestBlockGolden(t *testing.T) {
	want := make([]byte, 8192)
	copy(want, unhex(t, "5656fc79 018a 0002 0051 0001 0150 003a"))
	copy(want[0x150:], unhex(t, goldenEntries[1].bytes))
	buf := bytes.Repeat([]byte{0xff}, 8192)
	b := New(buf, MaxIndex(8192), LongerFirst)
	if err := b.Insert(&goldenEntries[1].want); err != nil {
		t.Fatal(err)
	}
	b.MiscountFree(2)
	if !bytes.Equal(buf, want) {
		t.Errorf("got %x\nwant %x", buf[:0x1a0], want[:0x1a0])
	}
}

// TestOrder has the names in the orders that were seen in blocks of both
// programs.
func TestOrder(t *testing.T) {
	for m, want := range map[Magic]string{
		LongerFirst:  "aaa aa ab1 abc ab a \xff\xfe \xff",
		ShorterFirst: "a aa aaa ab ab1 abc \xff \xff\xfe",
	} {
		b := New(make([]byte, 2048), 20, m)
		for _, name := range strings.Fields("ab \xff aaa a abc \xff\xfe aa ab1") {
			if err := b.Insert(&DirEntry{Version: 9, Name: name}); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for i := range b.Len() {
			got = append(got, b.Name(i))
			if j, found := b.Search(b.Name(i)); !found || j != i {
				t.Errorf("%x: %q is found at %d, %v, want %d", m, b.Name(i), j, found, i)
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%x: got %q, want %q", m, got, want)
		}
		if err := b.Insert(&DirEntry{Version: 9, Name: "ab"}); !errors.Is(err, ErrExist) {
			t.Errorf("a name twice: %v", err)
		}
	}
}

// TestMixedOrder opens a block whose index is in the order of the other
// magic, as plan9port's vac leaves it when it adds to fossil's archive.
func TestMixedOrder(t *testing.T) {
	buf := make([]byte, 2048)
	b := New(buf, 20, ShorterFirst)
	for _, name := range []string{"a", "ab", "abc", "b"} {
		if err := b.Insert(&DirEntry{Version: 9, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	copy(buf, []byte{0x56, 0x56, 0xfc, 0x79})
	b, err := Open(buf)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"a", "ab", "abc", "b"} {
		if j, found := b.Search(name); !found || j != i {
			t.Errorf("%q is found at %d, %v, want %d", name, j, found, i)
		}
	}
	if err := b.Insert(&DirEntry{Version: 8, Name: "aa"}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"aa", "abc", "ab", "a", "b"} {
		if got := b.Name(i); got != want {
			t.Errorf("then entry %d is %q, want %q", i, got, want)
		}
	}
}

// check opens the block anew and compares it with what it should hold, and
// its counts with each other.
func check(t *testing.T, buf []byte, want map[string]DirEntry) *Block {
	t.Helper()
	b, err := Open(buf)
	if err != nil {
		t.Fatal(err)
	}
	if b.Len() != len(want) || !b.sorted {
		t.Fatalf("%d entries, sorted %v, want %d", b.Len(), b.sorted, len(want))
	}
	for name, e := range want {
		i, found := b.Search(name)
		if !found {
			t.Fatalf("%q is not found", name)
		}
		if got, err := b.Entry(i); err != nil || got != e {
			t.Fatalf("%q: got %+v, %v, want %+v", name, got, err, e)
		}
	}
	if b.used()+b.free != b.size {
		t.Fatalf("%d bytes used and %d free make %d", b.used(), b.free, b.size)
	}
	free := slices.Clone(buf)
	clear(free[:b.start()])
	for i := range b.Len() {
		off, n := b.at(i)
		clear(free[off : off+n])
	}
	if i := slices.IndexFunc(free, func(c byte) bool { return c != 0 }); i >= 0 {
		t.Fatalf("byte %d is in no entry, but not zero", i)
	}
	return b
}

// TestBlockEdits has a block edited at random, beside a map.
func TestBlockEdits(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		buf := make([]byte, 512+rng.IntN(2000))
		want := map[string]DirEntry{}
		b := New(buf, MaxIndex(len(buf))+1, []Magic{LongerFirst, ShorterFirst}[seed%2])
		entry := func() DirEntry {
			return DirEntry{Version: 9, Name: strings.Repeat("n", rng.IntN(3)) + fmt.Sprint(rng.IntN(30)),
				UID: strings.Repeat("u", rng.IntN(60)), Mtime: rng.Uint32()}
		}
		for range 200 {
			e := entry()
			i, found := b.Search(e.Name)
			switch op := rng.IntN(4); {
			case op == 0 && found:
				b.Remove(i)
				delete(want, e.Name)
			case op == 1 && b.Len() > 0:
				i = rng.IntN(b.Len())
				old := b.Name(i)
				err := b.Replace(i, &e)
				if err == nil {
					delete(want, old)
					want[e.Name] = e
				} else if errors.Is(err, ErrExist) != (found && e.Name != old) {
					t.Fatalf("seed %d: replace %q by %q: %v", seed, old, e.Name, err)
				}
			default:
				err := b.Insert(&e)
				if err == nil {
					want[e.Name] = e
				} else if errors.Is(err, ErrExist) != found {
					t.Fatalf("seed %d: insert %q: %v", seed, e.Name, err)
				} else if !found && b.n < b.max && b.used()+e.Size() <= len(buf) {
					t.Fatalf("seed %d: no room for %d bytes beside %d of %d", seed, e.Size(), b.used(), len(buf))
				}
			}
			b = check(t, buf, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	buf := make([]byte, 1024)
	b := New(buf, 10, LongerFirst)
	for _, name := range []string{"a", "b"} {
		if err := b.Insert(&DirEntry{Version: 8, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name  string
		at    int
		bytes string
	}{
		{"magic", 0, "5656fc7b"},
		{"size beyond the block", 4, "0401"},
		{"size within the index", 4, "0033"},
		{"index beyond size", 8, "00ff"},
		{"more entries than index", 10, "000b"},
		{"entry in the index", 12, "0033"},
		{"entry beyond size", 12, "03f0"},
		{"entry longer than size", 14, "03f0"},
		{"entry of 7 bytes", 14, "0007"},
		{"entry without magic", 52, "1c4d9073"},
		{"name longer than the entry", 58, "00ff"},
		{"entries on each other", 16, "0034"},
	} {
		bad := slices.Clone(buf)
		copy(bad[tc.at:], unhex(t, tc.bytes))
		if _, err := Open(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", tc.name, err)
		}
	}
	if _, err := Open(nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("nothing: %v", err)
	}
}

func TestMode(t *testing.T) {
	for m, want := range map[Mode]string{
		ModeDir | 0o755:          "d-rwxr-xr-x",
		0o644:                    "--rw-r--r--",
		ModeLink | 0o777:         "-Lrwxrwxrwx",
		ModePipe | 0o644:         "P-rw-r--r--",
		ModeDevice | 0o644:       "D-rw-r--r--",
		ModeAppend | 0o600:       "a-rw-------",
		ModeExclusive:            "-l---------",
		ModeSetuid | 0o755:       "--rwsr-xr-x",
		ModeSetgid | 0o644:       "--rw-r-Sr--",
		ModeDir | ModeSticky | 7: "d-------rwt",
	} {
		if got := m.String(); got != want {
			t.Errorf("%o: %s, want %s", m, got, want)
		}
	}
}

func FuzzDirEntry(f *testing.F) {
	for _, tc := range goldenEntries {
		f.Add(unhex(f, tc.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := UnpackDirEntry(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v is not ErrCorrupt", err)
			}
			return
		}
		if e.Version == 7 {
			e.Version = 8
		}
		p, err := e.Append(nil)
		if err != nil {
			t.Fatalf("%+v cannot be packed: %v", e, err)
		}
		if got, err := UnpackDirEntry(p); err != nil || got != e || len(p) != e.Size() {
			t.Errorf("%+v comes back as %+v, %v", e, got, err)
		}
	})
}

// FuzzBlock opens blocks and edits those that are sound.
func FuzzBlock(f *testing.F) {
	buf := make([]byte, 400)
	b := New(buf, 4, LongerFirst)
	for i := range 4 {
		if err := b.Insert(&DirEntry{Version: 8 + i%2, Name: "abcd"[:4-i]}); err != nil {
			f.Fatal(err)
		}
	}
	b.Remove(1)
	f.Add(buf, "x", uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, name string, op uint8) {
		buf := slices.Clone(data)
		b, err := Open(buf)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v is not ErrCorrupt", err)
			}
			return
		}
		for i := range b.Len() {
			b.Entry(i)
		}
		e := DirEntry{Version: 9, Name: name}
		i, found := b.Search(name)
		n := b.Len()
		switch {
		case op%3 == 0:
			if err = b.Insert(&e); err == nil {
				n++
			}
		case op%3 == 1 && n > 0:
			err = b.Replace(int(op)%n, &e)
		case found:
			b.Remove(i)
			n--
		}
		if err != nil && !bytes.Equal(buf, data) {
			t.Errorf("%v, but the block has changed", err)
		}
		if again, err := Open(buf); err != nil || again.Len() != n {
			t.Errorf("after an edit: %v", err)
		}
	})
}
