package interop

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"strata/tests/harness"
)

// pages fetches pages of a server.
type pages struct {
	t    *testing.T
	addr string
}

// servePages serves a store, with pages at an address of its own.
func servePages(t *testing.T, s harness.Suite, st *harness.Store) (*harness.Server, pages) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	ln.Close() // the server takes it, if nobody else did
	if err != nil {
		t.Fatal(err)
	}
	return s.Serve(t, st, "-h", "tcp!127.0.0.1!"+port), pages{t, "http://127.0.0.1:" + port}
}

func (p pages) get(target string) (int, string) {
	p.t.Helper()
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(p.addr + target)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return r.StatusCode, strings.ReplaceAll(string(body), "&amp;", "&")
}

// TestPagesSayTheSame compares the pages of both servers about one store:
// whole where scripts cut them, elsewhere the names and their order.
func TestPagesSayTheSame(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	st, scores := written(t, theirs, 11)
	// Ours sums what is full at once, theirs when it has been idle for minutes.
	srv, p := servePages(t, ours, st)
	for {
		if _, index := p.get("/index"); strings.Count(index, "disk=sealed") == strings.Count(index, "\tscore=") {
			break
		}
	}
	srv.Stop(t)
	srv, p = servePages(t, theirs, st)
	part := "/disk?disk=" + st.Arenas() + "&type=a"
	whole := []string{"/index", "/xindex", "/storage", "/stats", "/disk", part, "/proc/all", "/set?name=nothing", "/debug?op=amap"}
	// What a page says, without what is the writer's own.
	names := map[string]*regexp.Regexp{
		"/set":                              regexp.MustCompile(`(?m)^\w+ = `),
		"/graph?arg=rpctotal&text=1":        regexp.MustCompile(`(?m)^(stats|\d+:.*)$`),
		part + "&arena=arena0":              regexp.MustCompile(`(?m)(^\w+=\S*( \w+=\S*)*|^score .*|^\tclumps=.*|^ +\d+ +\d+ +\d+ [0-9a-f]{40} at .*$)`),
		part + "&arena=arena0&cib=0":        regexp.MustCompile(`(?m)^ +\d+ +\d+ +\d+ [0-9a-f]{40} at .*$`),
		"/debug?op=read&score=" + scores[0]: regexp.MustCompile(`(?m)(type \d+: |lookupscore: addr=\S+ size=\d+|amapitoa: aa=\S+|loadclump: uncsize=\d+)`),
	}
	clean := strings.NewReplacer("  <font size=-1>", "  ", "</font>", "", "aa=0x0 ", "aa=0 ")
	said := make(map[string]string)
	for _, target := range whole {
		_, said[target] = p.get(target)
	}
	for target, re := range names {
		_, body := p.get(target)
		said[target] = strings.Join(re.FindAllString(clean.Replace(body), -1), "\n")
		if len(said[target]) < 20 {
			t.Errorf("%s of theirs: %q in\n%s", target, said[target], body)
		}
	}
	// The names of statistics are those that they know.
	known := func(p pages, name string) bool {
		status, _ := p.get("/graph?text=1&arg=" + name)
		return status == 200
	}
	var list []string
	for _, name := range statistics {
		if known(p, name) {
			list = append(list, name)
		}
	}
	if len(list) != len(statistics) {
		t.Errorf("they know %d of %d statistics", len(list), len(statistics))
	}
	for _, kind := range []string{"raw", "diff", "pct", "pctdiff", "divdiff", "netbw", "diskbw", "iobw"} {
		said[kind] = fmt.Sprint(p.get("/graph?text=1&arg=bloombits&arg2=bloombits&t0=-1000000&t1=-999999&graph=" + kind))
	}
	srv.Kill()

	_, p = servePages(t, ours, st)
	for _, target := range whole {
		_, body := p.get(target)
		if target == "/debug?op=amap" || target == "/disk" { // theirs leave an element open
			body = strings.TrimSuffix(body, "</pre>\n")
			said[target] = strings.TrimSuffix(said[target], "</pre>\n")
		}
		if body != said[target] {
			t.Errorf("%s: ours says\n%s\ntheirs\n%s", target, body, said[target])
		}
	}
	for target, re := range names {
		_, body := p.get(target)
		got := strings.Join(re.FindAllString(clean.Replace(body), -1), "\n")
		if target == "/set" {
			got = strings.TrimSuffix(got, "\ndebug = ") // one of ours
		}
		if got != said[target] {
			t.Errorf("%s: ours says\n%.3000s\ntheirs\n%.3000s", target, got, said[target])
		}
	}
	for _, name := range statistics {
		if !known(p, name) {
			t.Errorf("we do not know %s", name)
		}
	}
	for _, kind := range []string{"raw", "diff", "pct", "pctdiff", "divdiff", "netbw", "diskbw", "iobw"} {
		if got := fmt.Sprint(p.get("/graph?text=1&arg=bloombits&arg2=bloombits&t0=-1000000&t1=-999999&graph=" + kind)); got != said[kind] {
			t.Errorf("graph=%s: ours says\n%s\ntheirs\n%s", kind, got, said[kind])
		}
	}
	for target, want := range map[string]int{
		"/graph?arg=x": 400, "/graph?arg=rpctotal&graph=x": 400, "/graph?arg=rpctotal": 200, "/log": 200, "/nothing": 404, "/flushicache": 403,
	} {
		if got, _ := p.get(target); got != want {
			t.Errorf("%s: status %d, want %d", target, got, want)
		}
	}
}

// statistics are what /graph shows, in plan9port's order.
var statistics = strings.Fields(`
rpctotal rpcread rpcreadok rpcreadfail rpcreadbyte rpcreadtime rpcreadcached rpcreadcachedtime rpcreaduncached rpcreaduncachedtime
rpcwrite rpcwritenew rpcwriteold rpcwritefail rpcwritebyte rpcwritetime rpcwritenewtime rpcwriteoldtime
lcachehit lcachemiss lcachelookup lcachewrite lcachesize lcachestall lcachelookuptime
dcachehit dcachemiss dcachelookup dcacheread dcachewrite dcachedirty dcachesize dcacheflush dcachestall dcachelookuptime dblockstall lumpstall
icachehit icachemiss icacheread icachewrite icachefill icacheprefetch icachedirty icachesize icacheflush icachestall icachelookuptime icachelookup
scachehit scacheprefetch bloomhit bloommiss bloomfalsemiss bloomlookup bloomones bloombits
apartread apartreadbyte apartwrite apartwritebyte isectread isectreadbyte isectwrite isectwritebyte sumread sumreadbyte cigload cigloadtime
`)
