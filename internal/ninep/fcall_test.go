package ninep_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"9fans.net/go/plan9"

	"strata/internal/ninep"
)

// TestGoldenMessages packs and unpacks messages whose bytes were written down
// from the protocols' descriptions.
func TestGoldenMessages(t *testing.T) {
	for _, c := range []struct {
		dialect ninep.Dialect
		text    string
		hex     string
	}{
		{ninep.Classic, `Tversion tag ~0 msize 8192 version "9P2000"`, "13000000 64 ffff 00200000 0600 395032303030"},
		{ninep.Classic, `Tattach tag 1 fid 2 afid ~0 uname "me" aname ""`, "15000000 68 0100 02000000 ffffffff 0200 6d65 0000"},
		{ninep.Unix, `Tattach tag 1 fid 2 afid ~0 uname "me" aname "" uid 1000`, "19000000 68 0100 02000000 ffffffff 0200 6d65 0000 e8030000"},
		{ninep.Classic, `Rerror tag 1 ename "no"`, "0b000000 6b 0100 0200 6e6f"},
		{ninep.Unix, `Rerror tag 1 ename "no" errno 2`, "0f000000 6b 0100 0200 6e6f 02000000"},
		{ninep.Linux, `Rlerror tag 1 errno 2`, "0b000000 07 0100 02000000"},
		{ninep.Classic, `Twalk tag 1 fid 2 newfid 3 names ["a" "bc"]`, "18000000 6e 0100 02000000 03000000 0200 0100 61 0200 6263"},
		{ninep.Classic, `Rwalk tag 1 qids [5.6.d]`, "16000000 6f 0100 0100 80 06000000 0500000000000000"},
		{ninep.Classic, `Tread tag 1 fid 2 offset 258 count 3`, "17000000 74 0100 02000000 0201000000000000 03000000"},
		{ninep.Classic, `Rread tag 1 data "xy"`, "0d000000 75 0100 02000000 7879"},
		{ninep.Classic, `Twrite tag 1 fid 2 offset 258 data "xy"`, "19000000 76 0100 02000000 0201000000000000 02000000 7879"},
		{ninep.Classic, `Rstat tag 1 stat [type 1 dev 2 qid 5.6.a mode 010000000644 atime 3 mtime 4 length 7 name "n" uid "u" gid "g" muid "m"]`,
			"3e000000 7d 0100 3500 3300 0100 02000000 40 06000000 0500000000000000 a4010040 03000000 04000000 0700000000000000 0100 6e 0100 75 0100 67 0100 6d"},
		{ninep.Unix, `Twstat tag 1 fid 9 stat [ext "x" nuid 1]`,
			"4d000000 7e 0100 09000000 4000 3e00 ffff ffffffff ff ffffffff ffffffffffffffff ffffffff ffffffff ffffffff ffffffffffffffff 0000 0000 0000 0000 0100 78 01000000 ffffffff ffffffff"},
		{ninep.Linux, `Tlopen tag 1 fid 2 flags 32769`, "0f000000 0c 0100 02000000 01800000"},
		{ninep.Linux, `Tlcreate tag 1 fid 2 name "f" flags 2 perm 0644 gid 7`, "1a000000 0e 0100 02000000 0100 66 02000000 a4010000 07000000"},
		{ninep.Linux, `Tsymlink tag 1 fid 2 name "f" target "to" gid 7`, "16000000 10 0100 02000000 0100 66 0200 746f 07000000"},
		{ninep.Linux, `Tmknod tag 1 fid 2 name "f" perm 0644 major 8 minor 1 gid 7`, "1e000000 12 0100 02000000 0100 66 a4010000 08000000 01000000 07000000"},
		{ninep.Linux, `Trename tag 1 fid 2 newfid 3 name "f"`, "12000000 14 0100 02000000 03000000 0100 66"},
		{ninep.Linux, `Tgetattr tag 1 fid 2 mask 2047`, "13000000 18 0100 02000000 ff07000000000000"},
		{ninep.Linux, `Txattrwalk tag 1 fid 2 newfid 3 name "a"`, "12000000 1e 0100 02000000 03000000 0100 61"},
		{ninep.Linux, `Txattrcreate tag 1 fid 2 name "a" size 5 flags 1`, "1a000000 20 0100 02000000 0100 61 0500000000000000 01000000"},
		{ninep.Linux, `Treaddir tag 1 fid 2 offset 258 count 3`, "17000000 28 0100 02000000 0201000000000000 03000000"},
		{ninep.Linux, `Tfsync tag 1 fid 2 flags 1`, "0f000000 32 0100 02000000 01000000"},
		{ninep.Linux, `Tlock tag 1 fid 2 type 1 flags 2 start 3 length 4 proc 5 client "c"`,
			"27000000 34 0100 02000000 01 02000000 0300000000000000 0400000000000000 05000000 0100 63"},
		{ninep.Linux, `Tgetlock tag 1 fid 2 type 1 start 3 length 4 proc 5 client "c"`,
			"23000000 36 0100 02000000 01 0300000000000000 0400000000000000 05000000 0100 63"},
		{ninep.Linux, `Tlink tag 1 newfid 3 fid 2 name "f"`, "12000000 46 0100 03000000 02000000 0100 66"},
		{ninep.Linux, `Tmkdir tag 1 fid 2 name "f" perm 0755 gid 7`, "16000000 48 0100 02000000 0100 66 ed010000 07000000"},
		{ninep.Linux, `Trenameat tag 1 fid 2 name "f" newfid 3 newname "g"`, "15000000 4a 0100 02000000 0100 66 03000000 0100 67"},
		{ninep.Linux, `Tunlinkat tag 1 fid 2 name "f" flags 512`, "12000000 4c 0100 02000000 0100 66 00020000"},
	} {
		name, _, _ := strings.Cut(c.text, " ")
		t.Run(c.dialect.String()+"/"+name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.ReplaceAll(c.hex, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			f, err := ninep.ParseText(c.text, c.dialect)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.Pack(nil, c.dialect)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("packed %x, %v, want %x", got, err, want)
			}
			var back ninep.Fcall
			if err := back.Unpack(want, c.dialect); err != nil {
				t.Fatal(err)
			}
			again, err := ninep.ParseText(back.Text(c.dialect), c.dialect)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := again.Pack(nil, c.dialect); err != nil || !bytes.Equal(got, want) {
				t.Errorf("unpacked as %s", back.Text(c.dialect))
			}
			for n := range want {
				cut := bytes.Clone(want[:n])
				if n >= 4 {
					cut[0], cut[1], cut[2] = byte(n), byte(n>>8), 0
				}
				if err := back.Unpack(cut, c.dialect); !errors.Is(err, ninep.ErrBotch) && back.Type != ninep.Tfsync {
					t.Errorf("the first %d bytes: %v", n, err)
				}
			}
		})
	}
}

// TestSizes adds up the messages that have no parts of their own length.
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		dialect ninep.Dialect
		t       ninep.Type
		want    int
	}{
		{ninep.Classic, ninep.Rattach, 20}, {ninep.Classic, ninep.Ropen, 24}, {ninep.Classic, ninep.Rread, 11},
		{ninep.Classic, ninep.Rwrite, 11}, {ninep.Classic, ninep.Twrite, 23}, {ninep.Classic, ninep.Rstat, 58},
		{ninep.Unix, ninep.Rstat, 72}, {ninep.Linux, ninep.Rgetattr, 160}, {ninep.Linux, ninep.Tsetattr, 67},
		{ninep.Linux, ninep.Rstatfs, 67}, {ninep.Linux, ninep.Rlopen, 24}, {ninep.Linux, ninep.Rmkdir, 20},
		{ninep.Linux, ninep.Rlock, 8}, {ninep.Linux, ninep.Rgetlock, 30}, {ninep.Linux, ninep.Rxattrwalk, 15},
		{ninep.Linux, ninep.Rreaddir, 11}, {ninep.Linux, ninep.Rreadlink, 9},
	} {
		b, err := (&ninep.Fcall{Type: c.t}).Pack(nil, c.dialect)
		if err != nil || len(b) != c.want {
			t.Errorf("message %d of %s has %d bytes, %v, want %d", c.t, c.dialect, len(b), err, c.want)
		}
	}
}

// Test9fansCodec packs every classic message as 9fans.net/go does.
func Test9fansCodec(t *testing.T) {
	dir := plan9.Dir{Type: 1, Dev: 2, Qid: plan9.Qid{Path: 3, Vers: 4, Type: 5}, Mode: 6, Atime: 7, Mtime: 8, Length: 9, Name: "n", Uid: "u", Gid: "g", Muid: "m"}
	stat, err := dir.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	theirs := plan9.Fcall{
		Tag: 1, Fid: 2, Msize: 3, Version: "v", Oldtag: 4, Ename: "e", Qid: plan9.Qid{Path: 5, Vers: 6, Type: 7}, Iounit: 8,
		Afid: 9, Uname: "u", Aname: "a", Perm: 10, Name: "n", Mode: 11, Newfid: 12, Wname: []string{"x", "yz"},
		Wqid: []plan9.Qid{{Path: 13, Vers: 14, Type: 15}}, Offset: 16, Count: 3, Data: []byte("abc"), Stat: stat,
	}
	for typ := plan9.Tversion; typ < plan9.Tmax; typ++ {
		if typ == plan9.Terror {
			continue
		}
		theirs.Type = uint8(typ)
		want, err := theirs.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		// The stat's length is in their Twstat and Rstat too.
		var f ninep.Fcall
		if err := f.Unpack(want, ninep.Classic); err != nil {
			t.Errorf("%v: %v", &theirs, err)
			continue
		}
		got, err := f.Pack(nil, ninep.Classic)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v:\ngot  %x %v\nwant %x", &theirs, got, err, want)
		}
	}
}

// TestTextErrors parses what is no message.
func TestTextErrors(t *testing.T) {
	for _, text := range []string{
		"", "Tnothing", "Tlopen tag 1", "Tread tag", "Tread tag x", "Tread tag 1 fid", "Tread tag 1 fid 5000000000", "Tread tag 1 size 1",
		"Twalk tag 1 names x", `Twalk tag 1 names [x]`, "Rwalk tag 1 qids [1.2]", "Rwalk tag 1 qids [1.2.q]", "Rwalk tag 1 qids [1.x.d]",
		`Twalk tag 1 names ["x]`, "Rstat tag 1 stat [what 1]", "Rstat tag 1 stat [mode]", `Tversion tag 1 version x`,
	} {
		if f, err := ninep.ParseText(text, ninep.Classic); err == nil {
			t.Errorf("%q is %s", text, f.Text(ninep.Classic))
		}
	}
}

// TestPackTooMuch packs what the formats have no room for.
func TestPackTooMuch(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	for name, f := range map[string]ninep.Fcall{
		"a long string":     {Type: ninep.Tversion, Version: long},
		"a long name":       {Type: ninep.Twalk, Names: []string{long}},
		"17 names":          {Type: ninep.Twalk, Names: make([]string, 17)},
		"17 qids":           {Type: ninep.Rwalk, Qids: make([]ninep.Qid, 17)},
		"a long stat":       {Type: ninep.Rstat, Stat: ninep.Stat{Name: long[:40000], UID: long[:40000]}},
		"no such message":   {Type: 1},
		"another dialect's": {Type: ninep.Tlopen},
	} {
		if b, err := f.Pack([]byte("x"), ninep.Classic); err == nil || string(b) != "x" {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

// seeds returns a message of every kind.
func seeds() (all []struct {
	dialect ninep.Dialect
	frame   []byte
}) {
	for _, d := range dialects {
		for typ := range ninep.Type(128) {
			f := ninep.Fcall{
				Type: typ, Fid: 1, Newfid: 2, Names: []string{"a", ".."}, Qids: []ninep.Qid{{Path: 1}}, Version: "9P2000", Msize: 8192,
				Name: "f", Newname: "g", Data: []byte("data"), Count: 100, Offset: 3, Oldtag: 2,
			}
			if b, err := f.Pack(nil, d); err == nil {
				all = append(all, struct {
					dialect ninep.Dialect
					frame   []byte
				}{d, b})
			}
		}
	}
	return all
}

// FuzzUnpack unpacks anything; what is a message packs to the same bytes, and
// has a text form that means the same.
func FuzzUnpack(f *testing.F) {
	for _, s := range seeds() {
		f.Add(uint8(s.dialect), s.frame)
	}
	f.Fuzz(func(t *testing.T, dialect uint8, frame []byte) {
		d := ninep.Dialect(dialect % 3)
		var m ninep.Fcall
		if err := m.Unpack(frame, d); err != nil {
			return
		}
		b, err := m.Pack(nil, d)
		if err != nil || !bytes.Equal(b, frame) && m.Type != ninep.Tfsync {
			t.Fatalf("%x became %x, %v", frame, b, err)
		}
		again, err := ninep.ParseText(m.Text(d), d)
		if err != nil {
			t.Fatalf("%s: %v", m.Text(d), err)
		}
		b2, err := again.Pack(nil, d)
		// The text of a qid has no name for some bits of its type.
		if err != nil || len(b2) != len(b) {
			t.Fatalf("%s became %s, %v", m.Text(d), again.Text(d), err)
		}
	})
}

// FuzzStat unpacks directory data of both kinds.
func FuzzStat(f *testing.F) {
	s := ninep.Stat{Name: "n", UID: "u", Mode: 0644}
	for _, d := range dialects {
		b, err := s.Pack(nil, d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(d), b)
	}
	f.Add(uint8(2), append(make([]byte, 22), 1, 0, 'x'))
	f.Fuzz(func(t *testing.T, dialect uint8, data []byte) {
		d := ninep.Dialect(dialect % 3)
		if s, rest, err := ninep.UnpackStat(data, d); err == nil {
			b, err := s.Pack(nil, d)
			if err != nil || !bytes.Equal(b, data[:len(data)-len(rest)]) {
				t.Fatalf("%x became %x, %v", data, b, err)
			}
			s2, _, err := ninep.UnpackStat(b, d)
			if err != nil || !reflect.DeepEqual(s, s2) {
				t.Fatalf("%+v became %+v, %v", s, s2, err)
			}
		}
		if _, rest, err := ninep.UnpackDirent(data); err == nil && len(rest) >= len(data) {
			t.Fatal("an entry of no bytes")
		}
	})
}

// FuzzText parses anything.
func FuzzText(f *testing.F) {
	f.Add(`Twalk tag 1 fid 2 newfid 3 names ["a" "b"]`)
	f.Add(`Rstat tag 1 stat [qid 1.2.da name "x"]`)
	f.Add("Rwalk tag ~0 qids [1.~0.~0 ~0.1.-]")
	f.Fuzz(func(t *testing.T, text string) {
		for _, d := range dialects {
			m, err := ninep.ParseText(text, d)
			if err != nil {
				continue
			}
			again, err := ninep.ParseText(m.Text(d), d)
			if err != nil || again.Text(d) != m.Text(d) {
				t.Fatalf("%q is %s, and then %s, %v", text, m.Text(d), again.Text(d), err)
			}
		}
	})
}
