package httpd_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"strata/venti/httpd"
)

// probe runs in the status page when it is drawn, presses the button for an
// hour, and leaves what it sees in the body's attributes.
const probe = `
const wait = setInterval(() => {
	if (!document.body.dataset.ready) return;
	clearInterval(wait);
	const d = document.body.dataset;
	d.overflow = document.documentElement.scrollWidth - innerWidth;
	d.back = getComputedStyle(document.body).backgroundColor;
	d.columns = getComputedStyle(document.getElementById('charts')).gridTemplateColumns.split(' ').length;
	d.lines = [...document.querySelectorAll('svg path[data-line]')].filter(p => p.getAttribute('d')).length;
	const svg = document.querySelector('svg'), box = svg.getBoundingClientRect();
	svg.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + box.width / 2, bubbles: true}));
	d.cursors = document.querySelectorAll('svg .cursor').length;
	document.querySelectorAll('#spans button')[2].click();
	d.pressed = document.querySelector('#spans [aria-pressed=true]').textContent;
	// Chromium's window has 500 pixels at least, a phone less.
	document.documentElement.style.width = '340px';
	const wide = [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg'));
	d.narrow = Math.ceil(Math.max(...wide.map(e => e.getBoundingClientRect().right)) - 340);
}, 20);
`

// TestBrowser draws the status page in Chromium, on screens of several sizes,
// by day and by night, and with no network but the server itself.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium to draw the page")
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "probe.js"), []byte(probe), 0o644); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, httpd.Config{Webroot: root})
	f.log.Warn("<script>document.body.dataset.broken = 1</script>")
	_, stop := serve(t, f) // takes samples
	defer stop()
	f.work(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			r.Header.Del("If-Modified-Since")
			rec := httptest.NewRecorder()
			f.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.Header().Del("Content-Length")
			w.Write(bytes.Replace(rec.Body.Bytes(), []byte("</head>"), []byte(`<script src="/probe.js" defer></script></head>`), 1))
			return
		}
		f.ServeHTTP(w, r)
	}))
	defer srv.Close()
	backs := make(map[string]string)
	for _, tc := range []struct {
		name    string
		size    string
		scheme  string // of Chromium's preferredColorScheme
		columns int
	}{
		{"wide", "1280,900", "1", 2}, {"dark", "1280,900", "0", 2}, {"phone", "500,900", "1", 1},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		profile, err := os.MkdirTemp("", "chromium")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(profile) // its processes may still write for a moment
		cmd := exec.CommandContext(ctx, chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
			"--user-data-dir="+profile, "--window-size="+tc.size, "--blink-settings=preferredColorScheme="+tc.scheme,
			"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr",
			"--virtual-time-budget=6000", "--dump-dom", srv.URL+"/")
		cmd.WaitDelay = 5 * time.Second
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%s", tc.name, err, &errOut)
		}
		dom := out.String()
		body := regexp.MustCompile(`<body[^>]*>`).FindString(dom)
		data := func(name string) string {
			if m := regexp.MustCompile(`data-` + name + `="([^"]*)"`).FindStringSubmatch(body); m != nil {
				return m[1]
			}
			return ""
		}
		if strings.Contains(errOut.String(), "CONSOLE") {
			t.Errorf("%s: the console says\n%s", tc.name, &errOut)
		}
		number := func(name string) int {
			n, err := strconv.Atoi(data(name))
			if err != nil {
				t.Errorf("%s: %s is %q in %s", tc.name, name, data(name), body)
			}
			return n
		}
		if n := number("overflow"); n > 0 {
			t.Errorf("%s: the page is %d pixels wider than the screen", tc.name, n)
		}
		if n := number("narrow"); tc.columns == 1 && n > 0 {
			t.Errorf("%s: the page is %d pixels wider than a narrow screen", tc.name, n)
		}
		if n := number("columns"); n != tc.columns {
			t.Errorf("%s: charts stand in %d columns, want %d", tc.name, n, tc.columns)
		}
		if n := number("lines"); n < 6 {
			t.Errorf("%s: %d lines are drawn", tc.name, n)
		}
		if data("pressed") != "1 h" || data("cursors") != "1" || data("broken") != "" {
			t.Errorf("%s: %s", tc.name, body)
		}
		for _, want := range []string{
			`<span id="index">main</span>`, `class="badge good" role="status">healthy</p>`, `<div class="arena filling" title="arena0: filling, `,
			`class="arena empty"`, `&lt;script&gt;document.body`, `<dt>buckets</dt>`, `data-line="writeBytes"`,
		} {
			if !strings.Contains(dom, want) {
				t.Errorf("%s: no %s in\n%s", tc.name, want, dom)
			}
		}
		backs[tc.name] = data("back")
	}
	if backs["wide"] == backs["dark"] || backs["wide"] != backs["phone"] {
		t.Errorf("backgrounds are %v", backs)
	}
}
