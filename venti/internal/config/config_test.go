package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/internal/config"
)

// rule is one that is known to be right.
func rule(text string) venti.Rule {
	r, err := venti.ParseRule(text)
	if err != nil {
		panic(err)
	}
	return r
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       config.Config
		err        string // part of the error
	}{
		{name: "all", text: `# a comment
index  main	# another
arenas /dev/sda1
arenas a:1m-2g
isect i0
  isect i1
bloom b:0x100000-
mem 10M
bcmem 0x10k
icmem 5g
addr tcp!*!venti
httpaddr tcp!*!http
webroot /www
compression zstd
guards g
overflow /o
mirror unix!/m
scrub 8m	s
mgr mirror a b
mgr mirrorfreq 10`,
			want: config.Config{
				Index: "main", Arenas: []string{"/dev/sda1", "a:1m-2g"}, Sections: []string{"i0", "i1"}, Bloom: "b:0x100000-",
				LumpMem: 10 << 20, BlockMem: 16 << 10, IndexMem: 5 << 30,
				Addr: "tcp!*!venti", HTTPAddr: "tcp!*!http", Webroot: "/www", Compression: "zstd",
				Guards: "g", Overflow: "/o", Mirror: "unix!/m", Scrub: 8 << 20, ScrubState: "s",
				Mgr: []string{"mirror a b", "mirrorfreq 10"},
			}},
		{name: "last line without newline", text: "arenas a\nindex main", want: config.Config{Index: "main", Arenas: []string{"a"}}},
		{name: "queuewrites", text: "index x\n\nqueuewrites\n", want: config.Config{Index: "x", Warnings: []string{
			"conf:3: queuewrites is ignored: it answers a sync before the data is safe"}}},
		{name: "syslog", text: "syslog\nindex x\n", want: config.Config{Index: "x", Syslog: true}},
		{name: "access and limits", text: "index x\naccess deny 10.0.0.1\naccess  allow  all # others\n" +
			"limit connections 100\nlimit client-connections 7\nlimit queue 16m\nlimit requests 1000\nlimit bytes 10m\n",
			want: config.Config{Index: "x", Server: venti.ServerConfig{
				Access: []venti.Rule{rule("deny 10.0.0.1"), rule("allow all")}, MaxConns: 100, MaxPeerConns: 7, MaxBytes: 16 << 20, RequestRate: 1000, ByteRate: 10 << 20,
			}}},
		{name: "bad access", text: "index x\naccess permit all\n", err: `conf:2: access rule "permit all": unknown access`},
		{name: "access to whom", text: "index x\naccess allow 10.0.0.1/8\n", err: "conf:2: access rule"},
		{name: "no access", text: "access\n", err: "conf:1: access rule"},
		{name: "bad limit", text: "limit clients 8\n", err: `conf:1: unknown limit "clients"`},
		{name: "bad number", text: "limit requests many\n", err: `conf:1: limit "requests many"`},
		{name: "no number", text: "limit requests\n", err: `conf:1: limit "requests"`},
		{name: "low limit", text: "index x\nlimit bytes 1k\n", err: "conf:2: limit bytes is from 65536"},
		{name: "limit twice", text: "limit requests 1\nlimit requests 1\n", err: "conf:2: limit requests is set twice"},
		{name: "limit of none", text: "limit connections 0\n", err: "conf:1: limit connections is from 1"},
		{name: "unknown", text: "index x\nfoo bar\n", err: `conf:2: illegal line "foo bar": unknown keyword`},
		{name: "third word", text: "index x y\n", err: `conf:1: illegal line "index x y": too many words`},
		{name: "no value", text: "index\n", err: `conf:1: illegal line "index": a value is missing`},
		{name: "value of queuewrites", text: "queuewrites yes\n", err: "conf:1: "},
		{name: "index twice", text: "index x\nindex y\n", err: "conf:2: index is set twice"},
		{name: "mem twice", text: "mem 1\nmem 1\n", err: "conf:2: mem is set twice"},
		{name: "partition twice", text: "index x\narenas a\narenas a\n", err: "conf:3: partition a is named twice"},
		{name: "no index", text: "arenas a\n", err: "conf: no index line"},
		{name: "empty", text: "", err: "conf: no index line"},
		{name: "bad size", text: "index x\nmem 10x\n", err: `conf:2: bad size "10x"`},
		{name: "bad compression", text: "index x\ncompression lzw\n", err: "conf:2: unknown compression"},
		{name: "scrub alone", text: "index x\nscrub 1g\n", want: config.Config{Index: "x", Scrub: 1 << 30}},
		{name: "bad scrub", text: "index x\nscrub fast\n", err: `conf:2: bad size "fast"`},
		{name: "scrub and more", text: "index x\nscrub 1 a b\n", err: "conf:2: too many words"},
		{name: "bad mirror", text: "index x\nmirror tcp!a!b!c\n", err: "conf:2: address"},
		{name: "bad name", text: "index na\x01me\n", err: "conf:1: name"},
		{name: "long name", text: "index " + strings.Repeat("x", 64) + "\n", err: "longer than 63 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := config.Parse([]byte(tc.text), "conf")
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got.Name, got.Lines = "", nil
			if !reflect.DeepEqual(*got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", *got, tc.want)
			}
		})
	}
}

func TestBlame(t *testing.T) {
	c, err := config.Parse([]byte("index main\n\narenas /a # here\nisect main\naddr /a\n"), "conf")
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	for value, want := range map[string]string{"/a": "conf:3: broken", "main": "conf:1: broken", "/b": "broken"} {
		if err := c.Blame(value, broken); err.Error() != want || !errors.Is(err, broken) {
			t.Errorf("an error about %s is %q, want %q", value, err, want)
		}
	}
	if err := c.Blame("/a", nil); err != nil {
		t.Errorf("no error becomes %v", err)
	}
}

func TestLoad(t *testing.T) {
	part := func(embedded string) []byte {
		b := make([]byte, 300*1024)
		copy(b[248*1024:], embedded)
		return b
	}
	for _, tc := range []struct {
		name  string
		bytes []byte
		err   string
	}{
		{"text", []byte("index x\n"), ""},
		{"long text", []byte(strings.Repeat("# padding\n", 2000) + "index x\n"), ""},
		{"partition", part("venti config\nindex x\n"), ""},
		{"full partition", part("venti config\nindex x\n#" + strings.Repeat("x", 9000)), ""},
		{"partition line number", part("venti config\nindex x\nindex y\n"), ":3: index is set twice"},
		{"partition without", part("index x\n"), config.ErrNoConfig.Error()},
		{"partition of zeros", part(""), config.ErrNoConfig.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "conf")
			if err := os.WriteFile(name, tc.bytes, 0o666); err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(name)
			switch {
			case tc.err == "" && err != nil:
				t.Fatal(err)
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Fatalf("error %v, want %q", err, tc.err)
			case err == nil && c.Index != "x":
				t.Errorf("index %q, want x", c.Index)
			}
		})
	}
	// A partition of a file.
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, append(make([]byte, 4096), part("venti config\nindex x\n")...), 0o666); err != nil {
		t.Fatal(err)
	}
	if c, err := config.Load(name + ":4k-"); err != nil || c.Index != "x" {
		t.Errorf("a partition of a file: %v, %v", c, err)
	}
	if _, err := config.Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"index x\narenas a\nisect b\nbloom c\nmem 1k", "queuewrites\n#x\nmgr a b c\nindex y", "mem 0x10t\nicmem 077\n",
		"access deny 10.0.0.0/8 name=x\nlimit queue 1m\nindex x",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.Parse(text, "fuzz")
		if err != nil {
			return
		}
		if config.CheckName(c.Index) != nil || c.LumpMem < 0 || c.BlockMem < 0 || c.IndexMem < 0 {
			t.Errorf("accepted %+v", c)
		}
	})
}
