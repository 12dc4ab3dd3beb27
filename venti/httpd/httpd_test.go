package httpd_test

import (
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"strata/internal/logs"
	"strata/venti"
	"strata/venti/httpd"
	"strata/venti/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fixture is a store with some blocks in it, and the pages that show it.
type fixture struct {
	*httpd.Handler
	dir    string
	store  *store.Store
	log    *slog.Logger
	recent *logs.Recent
	scores []venti.Score
}

// newFixture makes a store of 4 arenas of 1 MiB with 100 blocks. cfg is what
// the handler gets besides.
func newFixture(t testing.TB, cfg httpd.Config) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir()}
	conf, err := store.Format(t.Context(), f.dir, store.FormatConfig{Space: 4 << 20, ArenaSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	f.open(t, conf, store.Config{Interval: -1, LumpMem: 1 << 20, IndexMem: 1 << 20}, cfg)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 100 {
		b := make([]byte, 1000+rng.IntN(20000))
		for j := range b {
			if i%2 == 0 {
				b[j] = byte(rng.Uint32())
			}
		}
		b[0] = byte(i)
		score, err := f.store.WriteBlock(t.Context(), venti.Type(i%17), b)
		if err != nil {
			t.Fatal(err)
		}
		f.scores = append(f.scores, score)
	}
	if err := f.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// open opens a store and makes its pages.
func (f *fixture) open(t testing.TB, conf string, scfg store.Config, cfg httpd.Config) {
	t.Helper()
	var err error
	if f.log, f.recent, err = (logs.Flags{}).Open(io.Discard, "venti"); err != nil {
		t.Fatal(err)
	}
	scfg.Logger = f.log
	if f.store, err = store.OpenConf(t.Context(), conf, scfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.store.Close() })
	cfg.Store, cfg.Logger, cfg.Recent = f.store, f.log, f.recent
	if cfg.Server == nil {
		cfg.Server = venti.NewServer(f.store, venti.ServerConfig{})
	}
	if f.Handler, err = httpd.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Handler.Close() })
}

// do sends a request; headers are names and values in turn.
func (f *fixture) do(method, target string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w.Result()
}

// get returns the body of a page, and fails unless its status is 200.
func (f *fixture) get(t testing.TB, target string) string {
	t.Helper()
	r := f.do("GET", target)
	body, _ := io.ReadAll(r.Body)
	if r.StatusCode != 200 {
		t.Fatalf("%s: %s\n%s", target, r.Status, body)
	}
	return string(body)
}

// TestEveryPage asks for each page; want is a regular expression.
func TestEveryPage(t *testing.T) {
	f := newFixture(t, httpd.Config{Pprof: true})
	arenas := filepath.Join(f.dir, "arenas")
	f.log.Warn("a <message>")
	for _, tc := range []struct {
		target string
		status int
		kind   string
		want   string
	}{
		{"/", 200, "text/html", `<script src="/status.js"`},
		{"/status.css", 200, "text/css", `prefers-color-scheme: dark`},
		{"/status.js", 200, "text/javascript", `/status\.json`},
		{"/status.json", 200, "application/json", `"index":"main"`},
		{"/status.json", 200, "application/json", `"scrub":{"rate":0,"arena":"","began":0,`},
		{"/index", 200, "text/plain", `(?s)^index=main version=1 blocksize=8192 tabsize=524288\n\tbuckets=\d+ div=\d+\n\tsect=isect0 for buckets \[0,\d+\) buckmax=215\narena=arena0 at index \[1048576,`},
		{"/xindex", 200, "text/xml", `^<index name="main" version="1" `},
		{"/storage", 200, "text/plain", `^index=main\ntotal arenas=4 active=1\ntotal space=[\d,]+ used=[\d,]+\nclumps=100 compressed clumps=\d+ data=[\d,]+ compressed data=[\d,]+\n$`},
		{"/stats", 200, "text/plain", `^$`},
		{"/graph?arg=rpctotal&text=1", 200, "text/plain", `^stats\n\n0: nsamp=0 min=0 max=0 avg=0\n`},
		{"/graph?arg=rpctotal", 200, "image/png", `^\x{fffd}PNG`},
		{"/graph?arg=x", 400, "text/plain", `^unknown name x\n$`},
		{"/graph?arg=rpctotal&arg2=y", 400, "text/plain", `^unknown name y\n$`},
		{"/graph?arg=rpctotal&graph=x", 400, "text/plain", `^unknown graph x\n$`},
		{"/graph?arg=rpctotal&t0=x", 400, "text/plain", `^bad t0 "x"\n$`},
		{"/graph?arg=rpctotal&t0=0", 400, "text/plain", `^t0 is not before t1\n$`},
		{"/log", 200, "text/html", `<a href="/log\?log=all">all</a>`},
		{"/log?log=all", 200, "text/html", `WARN msg=&#34;a &lt;message&gt;&#34;\n`},
		{"/log?log=warnings", 200, "text/html", `(?s)<pre>\n[^\n]* WARN [^\n]*\n</pre>`},
		{"/log?log=x", 404, "text/plain", `does not exist`},
		{"/disk", 200, "text/html", `<a href="/disk\?disk=[^"]*/arenas&amp;type=a">[^<]*/arenas</a> arena0\n\n.*isect0\n\n.*bloom filter\n</pre>`},
		{"/disk?disk=" + arenas + "&type=a", 200, "text/html", `version=3 blocksize=8192 base=794624\n</pre>\n<h2>table</h2>\n<pre>\n<a [^>]*>arena0</a> 794624 1843200\n`},
		{"/disk?disk=" + arenas + "&type=a&arena=arena0", 200, "text/html", `(?s)\tclumps=100 .*table of contents</h2>\n<pre>\n type   size uncsize score\n    0 .*` + f.scores[99].String()},
		{"/disk?disk=" + arenas + "&type=a&arena=arena0&cib=0", 200, "text/html", f.scores[99].String()},
		{"/disk?disk=" + arenas + "&type=a&arena=arena0&cib=1", 200, "text/html", `no block 1 in the directory`},
		{"/disk?disk=" + arenas + "&type=a&arena=arena0&clump=0", 200, "text/html", `score=` + f.scores[0].String() + `\nencoding=plain [^\n]*\n</pre>\nthe data has the score\n`},
		{"/disk?disk=" + arenas + "&type=a&arena=arena0&clump=0&score=" + f.scores[1].String(), 200, "text/html", `it is not of score `},
		{"/disk?disk=" + arenas + "&type=a&arena=arena0&clump=3", 200, "text/html", `bad magic|magic`},
		{"/disk?disk=" + arenas + "&type=a&arena=arena0&clump=99999999", 200, "text/html", `no clump at 99999999`},
		{"/disk?disk=" + arenas + "&type=a&arena=arena0&score=" + f.scores[7].String(), 200, "text/html", f.scores[7].String() + ` at <a`},
		{"/disk?disk=" + arenas + "&type=a&arena=arena1&score=" + f.scores[7].String(), 200, "text/html", `not found in arena arena1`},
		{"/disk?disk=" + arenas + "&type=a&arena=arena9", 200, "text/html", `no such arena arena9`},
		{"/disk?disk=" + arenas + "&type=x", 200, "text/html", `unknown disk type x`},
		{"/disk?disk=" + filepath.Join(f.dir, "isect") + "&type=i", 200, "text/html", `name=isect0 index=main blocksize=8192`},
		{"/disk?disk=" + filepath.Join(f.dir, "bloom") + "&type=b", 200, "text/html", `nhash=\d+\nbits=8,388,608 ones=`},
		{"/disk?disk=/etc/passwd&type=a", 200, "text/html", `^/etc/passwd is no such partition of this store\n$`},
		{"/disk?disk=" + filepath.Join(f.dir, "bloom") + "&type=a", 200, "text/html", `is no such partition`},
		{"/debug", 200, "text/html", `no op`},
		{"/debug?op=<b>", 200, "text/html", `unknown op &lt;b&gt;`},
		{"/debug?op=amap", 200, "text/html", `<pre>\narena0 0x100000 0x1fc000\narena1 0x1fc000`},
		{"/debug?op=amap&addr=0x1fc010", 200, "text/html", `<pre>\narena1 0x1fc000 0x[0-9a-f]+ offset 0x10\n</pre>`},
		{"/debug?op=amap&addr=x", 200, "text/html", `bad addr x`},
		{"/debug?op=mem", 200, "text/html", `bloom filter +1,048,576\n`},
		{"/debug?op=read&score=" + f.scores[0].String(), 200, "text/html", ` type 0: [+-]cache\n  [+-]icache \+bloom \+idisk\n  lookupscore: addr=0x100000 size=\d+\n  amapitoa: aa=0x0 arena=<a [^>]*>arena0</a>\n  loadclump: uncsize=`},
		{"/debug?op=read&score=" + strings.Repeat("ab", 20), 200, "text/html", `type 0: -cache -lookup\n`},
		{"/debug?op=read&score=xy", 200, "text/html", `bad score xy`},
		{"/debug/pprof/", 200, "text/html", `goroutine`},
		{"/debug/pprof/cmdline", 200, "text/plain", ``},
		{"/proc/all", 200, "text/plain", `^/proc only implemented on Plan 9\n$`},
		{"/set", 200, "text/plain", `^compress = 1\ndevnull = 0\nlogging = 1\nstats = 1\n`},
		{"/set?name=icacheprefetch", 200, "text/plain", `^icacheprefetch = 1\n$`},
		{"/set?name=x", 404, "text/plain", `^x not found\n$`},
		{"/metrics", 200, "text/plain", `venti_clumps 100`},
		{"/healthz", 200, "text/plain", `^ok\n$`},
		{"/nothing", 404, "text/plain", `^The object /nothing does not exist on this server.\n$`},
	} {
		r := f.do("GET", tc.target)
		body, _ := io.ReadAll(r.Body)
		if r.StatusCode != tc.status || !strings.HasPrefix(r.Header.Get("Content-Type"), tc.kind) {
			t.Errorf("%s: %s, %s; want %d, %s", tc.target, r.Status, r.Header.Get("Content-Type"), tc.status, tc.kind)
		}
		if !regexp.MustCompile(tc.want).Match(body) {
			t.Errorf("%s: no %s in\n%.2000s", tc.target, tc.want, body)
		}
		if h := f.do("HEAD", tc.target); h.StatusCode != tc.status {
			t.Errorf("HEAD %s: %s", tc.target, h.Status)
		}
		path, _, _ := strings.Cut(tc.target, "?")
		if path != "/set" && !strings.HasPrefix(path, "/debug/pprof/symbol") {
			for _, method := range []string{"POST", "PUT", "DELETE"} {
				if r := f.do(method, tc.target); r.StatusCode != 405 {
					t.Errorf("%s %s: %s, want 405", method, tc.target, r.Status)
				}
			}
		}
	}
}

// TestGolden compares the pages of a store that Plan 9's program wrote with
// what it said of it.
func TestGolden(t *testing.T) {
	dir := os.Getenv("STRATA_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	dir = filepath.Join(dir, "golden/v5")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no golden data: %v", err)
	}
	work := t.TempDir()
	conf := "index golden1\n"
	for _, l := range [][2]string{{"arenas", "arenas"}, {"isect", "isect0"}, {"isect", "isect1"}, {"bloom", "bloom"}} {
		z, err := os.Open(filepath.Join(dir, l[1]+".gz"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := gzip.NewReader(z)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		z.Close()
		if err := os.WriteFile(filepath.Join(work, l[1]), data, 0o600); err != nil {
			t.Fatal(err)
		}
		conf += l[0] + " " + filepath.Join(work, l[1]) + "\n"
	}
	name := filepath.Join(work, "venti.conf")
	if err := os.WriteFile(name, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var f fixture
	f.open(t, name, store.Config{ReadOnly: true, Interval: -1}, httpd.Config{})
	relative := strings.NewReplacer(work+"/", "", "&amp;", "&")
	for target, file := range map[string]string{
		"/index": "index.txt", "/xindex": "xindex.txt", "/storage": "storage.txt",
		"/disk": "disk.txt", "/disk?disk=" + work + "/arenas&type=a": "disk_disk_arenas_type_a.txt",
	} {
		want, err := os.ReadFile(filepath.Join(dir, "http", file))
		if err != nil {
			t.Fatal(err)
		}
		_, body, ok := strings.Cut(strings.ReplaceAll(string(want), "\r", ""), "\n\n")
		if !ok {
			t.Fatalf("%s has no header", file)
		}
		got := relative.Replace(f.get(t, target))
		// Pages in HTML were left without their last line.
		if strings.TrimSpace(strings.TrimSuffix(got, "</pre>\n")) != strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(body), "</pre>")) {
			t.Errorf("%s:\n%s\nwant\n%s", target, got, body)
		}
	}
	// The page of an arena has the same numbers and table of contents.
	z, err := os.Open(filepath.Join(dir, "http/disk_disk_arenas_type_a_arena_g1arena4.txt.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	r, err := gzip.NewReader(z)
	if err != nil {
		t.Fatal(err)
	}
	want, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	tags := regexp.MustCompile(`<[^>]*>`)
	lines := func(s string) (list []string) {
		for l := range strings.Lines(tags.ReplaceAllString(s, "")) {
			if l = strings.TrimSpace(l); l != "" {
				list = append(list, l)
			}
		}
		return list
	}
	_, body, _ := strings.Cut(strings.ReplaceAll(string(want), "\r", ""), "\n\n")
	got, wanted := lines(relative.Replace(f.get(t, "/disk?disk="+work+"/arenas&type=a&arena=g1arena4"))), lines(body)
	if len(got) != len(wanted) {
		t.Fatalf("page of an arena has %d lines, want %d", len(got), len(wanted))
	}
	for i := range got {
		if got[i] != wanted[i] {
			t.Fatalf("page of an arena: line %d is\n%s\nwant\n%s", i, got[i], wanted[i])
		}
	}
}

// TestXIndex reads /xindex as XML.
func TestXIndex(t *testing.T) {
	f := newFixture(t, httpd.Config{})
	var x struct {
		Name  string `xml:"name,attr"`
		Sects []struct {
			Name string `xml:"name,attr"`
		} `xml:"sects>sect"`
		AMaps []struct {
			Start uint64 `xml:"start,attr"`
			Stop  uint64 `xml:"stop,attr"`
		} `xml:"amaps>amap"`
		Arenas []struct {
			Name   string `xml:"name,attr"`
			Clumps int    `xml:"clumps,attr"`
			Sealed string `xml:"sealed,attr"`
		} `xml:"arenas>arena"`
	}
	if err := xml.Unmarshal([]byte(f.get(t, "/xindex")), &x); err != nil {
		t.Fatal(err)
	}
	if x.Name != "main" || len(x.Sects) != 1 || len(x.AMaps) != 4 || len(x.Arenas) != 4 {
		t.Errorf("%+v", x)
	}
	clumps := 0
	for _, a := range x.Arenas {
		clumps += a.Clumps
	}
	if clumps != 100 || x.AMaps[0].Start != 1<<20 || x.AMaps[1].Start != x.AMaps[0].Stop {
		t.Errorf("%d clumps; %+v", clumps, x.AMaps)
	}
}

// TestControl changes things with and without permission.
func TestControl(t *testing.T) {
	changes := []string{"/set?name=ignorebloom&value=1", "/flushicache", "/flushdcache", "/kickicache", "/kickdcache",
		"/empty", "/emptylumpcache", "/emptyicache", "/emptydcache"}
	f := newFixture(t, httpd.Config{})
	for _, target := range changes {
		for _, method := range []string{"GET", "POST"} {
			if r := f.do(method, target); r.StatusCode != http.StatusForbidden {
				t.Errorf("%s %s is not allowed, and answers %s", method, target, r.Status)
			}
		}
	}
	if f.store.Tuning().IgnoreBloom {
		t.Error("a setting was changed")
	}

	f = newFixture(t, httpd.Config{Control: true})
	for _, target := range changes {
		for _, headers := range [][]string{
			{"Sec-Fetch-Site", "cross-site"}, {"User-Agent", "Mozilla/5.0 (X11)", "Origin", "http://elsewhere.example"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "http://elsewhere.example"}, {"Origin", "null"},
		} {
			for _, method := range []string{"GET", "POST"} {
				if r := f.do(method, target, headers...); r.StatusCode != http.StatusForbidden {
					t.Errorf("%s %s from another site (%s) answers %s", method, target, headers, r.Status)
				}
			}
		}
		if r := f.do("HEAD", target); r.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("HEAD %s answers %s", target, r.Status)
		}
	}
	if f.store.Tuning().IgnoreBloom {
		t.Error("a setting was changed by another site")
	}
	if r := f.do("GET", "/set?name=ignorebloom&value=1", "User-Agent", "Mozilla/5.0 (X11)"); r.StatusCode != http.StatusForbidden {
		t.Errorf("GET by a browser that does not say where it comes from: %s", r.Status)
	}
	st := f.store.Stats()
	for _, tc := range []struct{ target, want string }{
		{"/flushicache", "flushed icache\n"}, {"/flushdcache", "flushed dcache\n"},
		{"/kickicache", "kicked icache\n"}, {"/kickdcache", "kicked dcache\n"},
		{"/set?name=ignorebloom&value=1", "ignorebloom = 1 (was 0)\n"}, {"/set?name=ignorebloom", "ignorebloom = 1\n"},
		{"/set?name=icacheprefetch&value=0", "icacheprefetch = 0 (was 1)\n"},
		{"/set?name=stats&value=0", "stats = 0 (was 1)\n"}, {"/set?name=stats&value=0x1", "stats = 1 (was 0)\n"},
		{"/set?name=debug&value=1", "debug = 1 (was 0)\n"}, {"/set?name=debug&value=0", "debug = 0 (was 1)\n"},
		{"/emptylumpcache", "emptied lumpcache\n"}, {"/emptyicache", "emptied icache\n"},
		{"/emptydcache", "emptied dcache\n"}, {"/empty", "emptied all caches\n"},
	} {
		if got := f.get(t, tc.target); got != tc.want {
			t.Errorf("%s answers %q, want %q", tc.target, got, tc.want)
		}
	}
	if r := f.do("POST", "/set?name=ignorebloom&value=0", "Sec-Fetch-Site", "same-origin"); r.StatusCode != 200 {
		t.Errorf("POST answers %s", r.Status)
	}
	f.Handler.Close() // what was kicked is done
	after := f.store.Stats()
	if after.Flushes != st.Flushes+2 || after.CachedLumps != 0 || f.store.Tuning() != (store.Tuning{NoPrefetch: true}) {
		t.Errorf("%d flushes, %d lumps in the cache, settings %+v", after.Flushes-st.Flushes, after.CachedLumps, f.store.Tuning())
	}
	for _, target := range []string{"/set?name=devnull&value=1", "/set?name=bootstrap&value=1", "/set?name=ignorebloom&value=x"} {
		if r := f.do("GET", target); r.StatusCode != http.StatusBadRequest {
			t.Errorf("%s answers %s", target, r.Status)
		}
	}
	if !strings.Contains(f.get(t, "/log?log=all"), "/flushicache") {
		t.Error("the log does not tell who flushed")
	}
}

// TestHealth fills a store.
func TestHealth(t *testing.T) {
	f := newFixture(t, httpd.Config{})
	var err error
	rng := rand.NewChaCha8([32]byte{1})
	for i := 0; err == nil && i < 200; i++ {
		b := make([]byte, 50000)
		rng.Read(b)
		_, err = f.store.WriteBlock(t.Context(), venti.DataType, b)
	}
	if !errors.Is(err, venti.ErrFull) {
		t.Fatal(err)
	}
	r := f.do("GET", "/healthz")
	body, _ := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusServiceUnavailable || string(body) != venti.ErrFull.Error()+"\n" {
		t.Errorf("a full store answers %s, %q", r.Status, body)
	}
	if !strings.Contains(f.get(t, "/metrics"), "\nventi_up 0\n") {
		t.Error("metrics say that it is up")
	}
	if !strings.Contains(f.get(t, "/status.json"), `"health":"`+venti.ErrFull.Error()) {
		t.Error("the status does not tell")
	}
}

// TestMetrics parses /metrics as Prometheus does.
func TestMetrics(t *testing.T) {
	f := newFixture(t, httpd.Config{})
	buf := make([]byte, venti.MaxBlockSize)
	for _, s := range f.scores {
		for typ := range venti.RootType + 1 {
			f.store.ReadBlock(t.Context(), s, typ, buf)
		}
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(f.get(t, "/metrics")))
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.New(strings.NewReader(f.get(t, "/metrics"))).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("Prometheus' own rules: %v, %v", problems, err)
	}
	ours := 0
	for name, m := range families {
		if strings.HasPrefix(name, "venti_") {
			ours++
		}
		if m.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
	}
	if ours < 35 || families["go_goroutines"] == nil || families["process_resident_memory_bytes"] == nil {
		t.Errorf("%d metrics of venti, of %d", ours, len(families))
	}
	st := f.store.Stats()
	for name, want := range map[string]int64{
		"venti_reads_total": st.Reads, "venti_read_errors_total": st.ReadErrors, "venti_clumps": 100, "venti_flushes_total": 1,
	} {
		m := families[name].GetMetric()[0]
		if got := m.GetCounter().GetValue() + m.GetGauge().GetValue(); got != float64(want) {
			t.Errorf("%s is %v, want %d", name, got, want)
		}
	}
	ops := make(map[string]uint64)
	for _, m := range families["venti_seconds"].GetMetric() {
		h := m.GetHistogram()
		ops[m.GetLabel()[0].GetValue()] = h.GetSampleCount()
		var before uint64
		for _, b := range h.GetBucket() {
			if b.GetCumulativeCount() < before || b.GetCumulativeCount() > h.GetSampleCount() {
				t.Errorf("%v: bucket up to %v has %d after %d", m.GetLabel(), b.GetUpperBound(), b.GetCumulativeCount(), before)
			}
			before = b.GetCumulativeCount()
		}
	}
	if ops["write"] != 100 || ops["store"] != 100 || len(ops) != 8 || int64(ops["read"]) != st.Reads-st.LumpHits {
		t.Errorf("measured: %v; %d reads, %d from memory", ops, st.Reads, st.LumpHits)
	}
	// A registry of its own: a second handler has its own numbers.
	g := newFixture(t, httpd.Config{})
	if !strings.Contains(g.get(t, "/metrics"), "\nventi_reads_total 0\n") {
		t.Error("two handlers share their numbers")
	}
}

// TestStatus reads what the status page shows.
func TestStatus(t *testing.T) {
	f := newFixture(t, httpd.Config{})
	f.log.Error("it broke", "why", `"quoted"`)
	var s struct {
		Index, Encoding, Health string
		Space                   struct{ Total, Used, Data, Stored, Clumps, Arenas, Active, Sealed int64 }
		Buckets                 struct{ Buckets, Capacity, Dirty int64 }
		Bloom                   struct{ Fill, False float64 }
		Arenas                  []struct {
			Name, State string
			Fill        float64
			Clumps      int
		}
		Clients struct {
			Now, Max int
			List     []any
		}
		Log    []struct{ Level, Text string }
		Times  []int64
		Series map[string][]*float64
	}
	for _, span := range []string{"", "0", "120", "86400", "x", "99999999999"} {
		if err := json.Unmarshal([]byte(f.get(t, "/status.json?span="+span)), &s); err != nil {
			t.Fatal(err)
		}
		if n := len(s.Times); n == 0 || n > 241 || len(s.Series) < 15 {
			t.Errorf("span %s: %d points of %d series", span, n, len(s.Series))
		}
		for name, points := range s.Series {
			if len(points) != len(s.Times) {
				t.Errorf("span %s: %s has %d points of %d", span, name, len(points), len(s.Times))
			}
		}
	}
	if s.Index != "main" || s.Encoding != "whack" || s.Health != "" || s.Space.Clumps != 100 || s.Space.Arenas != 4 || s.Space.Active != 1 {
		t.Errorf("%+v", s.Space)
	}
	if len(s.Arenas) != 4 || s.Arenas[0].State != "filling" || s.Arenas[0].Clumps != 100 || s.Arenas[0].Fill < 0.4 || s.Arenas[3].State != "empty" {
		t.Errorf("arenas are %+v", s.Arenas)
	}
	if s.Bloom.Fill <= 0 || s.Buckets.Capacity < 1000 || s.Buckets.Dirty != 0 || s.Clients.Max != 256 {
		t.Errorf("%+v, %+v, %+v", s.Bloom, s.Buckets, s.Clients)
	}
	if len(s.Log) == 0 || s.Log[0].Level != "error" || s.Log[0].Text != `msg="it broke" why="\"quoted\""` {
		t.Errorf("messages are %+v", s.Log)
	}
}

// TestGraphPicture decodes pictures of every size.
func TestGraphPicture(t *testing.T) {
	f := newFixture(t, httpd.Config{})
	for _, tc := range []struct {
		query         string
		width, height int
	}{
		{"", 540, 42}, {"&wid=200&ht=100", 200, 100}, {"&wid=1&ht=1", 60, 16}, {"&wid=9999999&ht=9999999", 2048, 1024},
		{"&min=-5&max=5&fill=3", 540, 42}, {"&min=5&max=-5", 540, 42},
	} {
		m, err := png.Decode(strings.NewReader(f.get(t, "/graph?arg=rpcwrite"+tc.query)))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Bounds().Size(); got.X != tc.width || got.Y != tc.height {
			t.Errorf("%s: %v, want %d by %d", tc.query, got, tc.width, tc.height)
		}
	}
}

// TestWebroot serves files, and only those below the directory.
func TestWebroot(t *testing.T) {
	outside := t.TempDir()
	root := t.TempDir()
	for name, text := range map[string]string{
		root + "/a.txt": "text", root + "/sub/index.html": "<p>", root + "/bare/x.xml": "<x/>", root + "/index": "hidden by a page",
		outside + "/secret": "secret",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside+"/secret", root+"/link"); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, httpd.Config{Webroot: root})
	for _, tc := range []struct {
		target string
		status int
		kind   string
		body   string
	}{
		{"/a.txt", 200, "text/plain", "text"},
		{"/sub/", 200, "text/html", "<p>"},
		{"/sub", 200, "text/html", "<p>"},
		{"/bare/x.xml", 200, "text/xml", "<x/>"},
		{"/bare/", 404, "text/plain", "does not exist"},
		{"/link", 404, "text/plain", "does not exist"},
		{"/%2e%2e/%2e%2e/etc/passwd", 404, "text/plain", "does not exist"},
		{"/a.txt/x", 404, "text/plain", "does not exist"},
		{"/index", 200, "text/plain", "index=main"},
		{"/", 200, "text/html", "status.js"},
	} {
		r := f.do("GET", tc.target)
		body, _ := io.ReadAll(r.Body)
		if r.StatusCode != tc.status || !strings.HasPrefix(r.Header.Get("Content-Type"), tc.kind) && !strings.HasPrefix(r.Header.Get("Content-Type"), "application/xml") ||
			!strings.Contains(string(body), tc.body) {
			t.Errorf("%s: %s, %s\n%.300s", tc.target, r.Status, r.Header.Get("Content-Type"), body)
		}
	}
	if _, err := httpd.New(httpd.Config{Store: f.store, Webroot: root + "/none"}); err == nil {
		t.Error("a webroot that is not there is taken")
	}
}

// TestHosts asks a server on loopback for names that may be another's.
func TestHosts(t *testing.T) {
	f := newFixture(t, httpd.Config{})
	srv := httptest.NewServer(f)
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		"127.0.0.1:" + port: 200, "localhost:" + port: 200, "localhost": 200, "venti.localhost:80": 200, "[::1]:" + port: 200, "10.1.2.3": 200,
		name: 200, "evil.example": 403, "evil.example:" + port: 403, "localhost.evil.example": 403,
	} {
		r, err := http.NewRequest("GET", srv.URL+"/storage", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("host %s: %s, want %d", host, resp.Status, want)
		}
	}
}

// FuzzPages asks pages whatever a query may hold. None may fail, nor let
// through what it was asked as HTML.
func FuzzPages(f *testing.F) {
	paths := []string{"/disk", "/debug", "/log", "/set", "/graph", "/status.json", "/%s"}
	fix := newFixture(f, httpd.Config{Webroot: f.TempDir()})
	disk := "disk=" + url.QueryEscape(filepath.Join(fix.dir, "arenas")) + "&type=a&arena=arena0"
	for i, q := range []string{
		disk, disk + "&clump=0x1", disk + "&cib=-1", disk + "&clump=9223372036854775807", disk + "&score=" + fix.scores[0].String(),
		"op=read&score=" + fix.scores[1].String(), "op=amap&addr=18446744073709551615", "log=%3Czz", "name=%3Czz&value=%3Czz", "op=%3Czz",
		"disk=%3Czz&type=%3Czz", "arg=%3Czz", "span=-1", "a=1;b=2&%zz",
	} {
		f.Add(uint8(i), q)
		f.Add(uint8(0), q)
	}
	f.Fuzz(func(t *testing.T, path uint8, query string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path, r.URL.RawQuery = paths[int(path)%len(paths)], query
		if r.URL.Path == "/%s" {
			r.URL.Path = "/" + query
		}
		w := httptest.NewRecorder()
		fix.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && strings.Contains(w.Body.String(), "<zz") {
			t.Fatalf("HTML is\n%s", w.Body)
		}
	})
}
