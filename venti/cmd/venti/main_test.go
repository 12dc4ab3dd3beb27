package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/netaddr/tlstest"
	"strata/venti"
	"strata/venti/store"
)

// serve runs the command until the function that it returns is called, which
// gives back its exit status and messages.
func serve(t *testing.T, args ...string) (stop func() (int, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- newCommand().Execute(ctx, args, nil, io.Discard, w)
		w.Close()
	}()
	var log bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(r, &log))
	for lines.Scan() && !strings.Contains(lines.Text(), "; serving ") {
	}
	drained := make(chan struct{})
	go func() {
		for lines.Scan() {
		}
		close(drained)
	}()
	t.Cleanup(cancel)
	return func() (int, string) {
		cancel()
		n := <-status
		<-drained
		return n, log.String()
	}
}

func TestServe(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	conf, err := store.Format(ctx, dir, store.FormatConfig{Space: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	sock := "unix!" + filepath.Join(dir, "sock")
	data := []byte("hello, world")
	dial := func() *venti.Client {
		t.Helper()
		c, err := venti.Dial(ctx, sock)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}

	stop := serve(t, "-s", "-c", conf, "-a", sock, "-C", "1m", "-I", "1m", "-B", "1m")
	c := dial()
	score, err := c.WriteBlock(ctx, venti.DataType, data) // and no sync
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	if n := newCommand().Execute(ctx, []string{"-c", conf, "-a", sock}, nil, io.Discard, &stderr); n != 1 || !strings.Contains(stderr.String(), "in use") {
		t.Errorf("a second server ended with %d: %s", n, &stderr)
	}
	c.Close()
	if n, log := stop(); n != 0 {
		t.Fatalf("status %d\n%s", n, log)
	}

	stop = serve(t, "-r", "-c", conf, "-a", sock)
	c = dial()
	buf := make([]byte, 100)
	if n, err := c.ReadBlock(ctx, score, venti.DataType, buf); err != nil || !bytes.Equal(buf[:n], data) {
		t.Errorf("read of what was written before the stop: %q, %v", buf[:n], err)
	}
	if _, err := c.WriteBlock(ctx, venti.DataType, []byte("more")); !errors.Is(err, venti.ErrReadOnly) {
		t.Errorf("write to a read-only server: %v", err)
	}
	c.Close()
	if n, log := stop(); n != 0 {
		t.Fatalf("status %d\n%s", n, log)
	}
}

// TestPages serves pages where the configuration says, and logs in JSON.
func TestPages(t *testing.T) {
	dir := t.TempDir()
	conf, err := store.Format(t.Context(), dir, store.FormatConfig{Space: 8 << 20, Addr: "unix!" + filepath.Join(dir, "sock")})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	http1, http2 := filepath.Join(dir, "http1"), filepath.Join(dir, "http2")
	text = append(text, "httpaddr unix!"+http1+"\nwebroot "+dir+"\nsyslog\nscrub 3m "+dir+"/scrub\n"...)
	if err := os.WriteFile(conf, text, 0o644); err != nil {
		t.Fatal(err)
	}
	get := func(sock, target string) (int, string) {
		t.Helper()
		transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", sock)
		}}
		r, err := (&http.Client{Transport: transport}).Get("http://venti" + target)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(body)
	}

	stop := serve(t, "-c", conf, "--log-format", "json")
	if n, body := get(http1, "/healthz"); n != 200 || body != "ok\n" {
		t.Errorf("health: %d, %q", n, body)
	}
	if n, body := get(http1, "/venti.conf"); n != 200 || body != string(text) {
		t.Errorf("a file of the webroot: %d, %q", n, body)
	}
	if _, body := get(http1, "/status.json"); !strings.Contains(body, `"scrub":{"rate":3145728,`) {
		t.Errorf("status: %s", body)
	}
	if n, _ := get(http1, "/flushicache"); n != 403 {
		t.Errorf("flush: %d", n)
	}
	if n, body := get(http1, "/log?log=all"); n != 200 || !strings.Contains(body, "serving pages") {
		t.Errorf("log: %d, %s", n, body)
	}
	n, log := stop()
	if n != 0 || !strings.Contains(log, `"msg":"serving pages"`) {
		t.Errorf("status %d\n%s", n, log)
	}

	// Flags go before the configuration.
	stop = serve(t, "-c", conf, "-h", "unix!"+http2, "-W", t.TempDir(), "--http-control", "--pprof", "--log-level", "error", "--scrub", "0")
	if _, body := get(http2, "/status.json"); !strings.Contains(body, `"scrub":{"rate":0,`) {
		t.Errorf("status: %s", body)
	}
	if n, _ := get(http2, "/venti.conf"); n != 404 {
		t.Errorf("a file of the other webroot: %d", n)
	}
	if n, body := get(http2, "/flushicache"); n != 200 || body != "flushed icache\n" {
		t.Errorf("flush: %d, %q", n, body)
	}
	if n, _ := get(http2, "/debug/pprof/cmdline"); n != 200 {
		t.Errorf("pprof: %d", n)
	}
	if n, log := stop(); n != 0 || strings.Contains(log, "level=") {
		t.Errorf("status %d\n%s", n, log)
	}
}

// TestMirror spoils a block of one server, which has another as its mirror: by
// the flag, by the configuration, and after that with none.
func TestMirror(t *testing.T) {
	ctx := t.Context()
	var confs, socks [2]string
	list := [][]byte{[]byte(strings.Repeat("the first block; ", 9)), []byte(strings.Repeat("and another one; ", 9))}
	for i := range confs {
		dir := t.TempDir()
		var err error
		if confs[i], err = store.Format(ctx, dir, store.FormatConfig{Space: 8 << 20, Compression: store.CompressNone}); err != nil {
			t.Fatal(err)
		}
		socks[i] = "unix!" + filepath.Join(dir, "sock")
	}
	// use does something with a client of server i, and returns what that has logged.
	use := func(i int, args []string, f func(c *venti.Client)) (log string) {
		t.Helper()
		stop := serve(t, append([]string{"-c", confs[i], "-a", socks[i]}, args...)...)
		c, err := venti.Dial(ctx, socks[i])
		if err != nil {
			t.Fatal(err)
		}
		f(c)
		c.Close()
		n, log := stop()
		if n != 0 {
			t.Fatalf("status %d\n%s", n, log)
		}
		return log
	}
	for i := range confs {
		use(i, nil, func(c *venti.Client) {
			for _, b := range list {
				if _, err := c.WriteBlock(ctx, venti.DataType, b); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	arenas := filepath.Join(filepath.Dir(confs[0]), store.ArenasFile)
	for k, b := range list {
		text, err := os.ReadFile(arenas)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(text, b)
		if at < 0 {
			t.Fatalf("block %d is not in %s", k, arenas)
		}
		text[at] ^= 1
		if err := os.WriteFile(arenas, text, 0); err != nil {
			t.Fatal(err)
		}
	}
	read := func(c *venti.Client, b []byte) error {
		buf := make([]byte, 1000)
		n, err := c.ReadBlock(ctx, venti.ScoreOf(b), venti.DataType, buf)
		if err == nil && !bytes.Equal(buf[:n], b) {
			err = errors.New("it is another one")
		}
		return err
	}
	use(0, nil, func(c *venti.Client) {
		for _, b := range list {
			if err := read(c, b); err == nil || errors.Is(err, venti.ErrNotFound) {
				t.Errorf("read of a corrupt block with no mirror: %v", err)
			}
		}
	})
	stop := serve(t, "-c", confs[1], "-a", socks[1])
	log := use(0, []string{"--mirror", socks[1]}, func(c *venti.Client) {
		if err := read(c, list[0]); err != nil {
			t.Error(err)
		}
	})
	if !strings.Contains(log, "from the mirror") {
		t.Errorf("nothing is logged of it:\n%s", log)
	}
	f, err := os.OpenFile(confs[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(f, "mirror "+socks[1]+"\n")
	f.Close()
	use(0, nil, func(c *venti.Client) {
		if err := read(c, list[1]); err != nil {
			t.Error(err)
		}
	})
	stop()
	use(0, nil, func(c *venti.Client) {
		for _, b := range list {
			if err := read(c, b); err != nil {
				t.Errorf("read of a block that was stored again: %v", err)
			}
		}
	})
}

// TestAccess serves blocks and pages over TLS, to whom rules of the
// configuration and then of a flag name.
func TestAccess(t *testing.T) {
	ca := tlstest.NewCA(t, "ca")
	dir := t.TempDir()
	var ports [2]string
	for i := range ports { // free ones: what the command announces it does not print
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		_, ports[i], _ = net.SplitHostPort(ln.Addr().String())
		ln.Close()
	}
	files := "!cert=" + ca.Issue("server", nil) + "!ca=" + ca.File
	conf, err := store.Format(t.Context(), dir, store.FormatConfig{Space: 8 << 20, Addr: "tls!127.0.0.1!" + ports[0] + files})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, "httpaddr tls!127.0.0.1!"+ports[1]+files+"\naccess allow name=writer\naccess readonly name=reader\nlimit connections 10\n"...)
	if err := os.WriteFile(conf, text, 0o644); err != nil {
		t.Fatal(err)
	}
	try := func(name, want string) {
		t.Helper()
		c, err := venti.Dial(t.Context(), "tls!127.0.0.1!"+ports[0]+"!ca="+ca.File+"!cert="+ca.Issue(name, nil))
		if err == nil {
			defer c.Close()
			_, err = c.WriteBlock(t.Context(), venti.DataType, []byte("x"))
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	stop := serve(t, "-c", conf)
	try("writer", "")
	try("reader", "read only")
	try("other", "access denied")
	pair, err := tls.LoadX509KeyPair(ca.Issue("reader", nil), ca.Issue("reader", nil))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}
	r, err := (&http.Client{Transport: transport}).Get("https://127.0.0.1:" + ports[1] + "/healthz")
	if err != nil {
		t.Error(err)
	} else {
		r.Body.Close()
	}
	transport.CloseIdleConnections()
	if n, log := stop(); n != 0 {
		t.Errorf("status %d\n%s", n, log)
	}

	stop = serve(t, "-c", conf, "--access", "readonly name=writer", "--access", "allow all", "--limit", "requests 100000")
	try("writer", "read only")
	try("other", "")
	if n, log := stop(); n != 0 {
		t.Errorf("status %d\n%s", n, log)
	}
}

func TestRefused(t *testing.T) {
	conf, err := store.Format(t.Context(), t.TempDir(), store.FormatConfig{Space: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	sock := "unix!" + filepath.Join(t.TempDir(), "sock")
	for _, tc := range []struct {
		name   string
		args   []string
		status int
		stderr string
	}{
		{"arguments", []string{"x"}, 2, "usage: venti"},
		{"bad size", []string{"-C", "1q"}, 2, "bad size"},
		{"bad log format", []string{"-c", conf, "--log-format", "xml"}, 2, "unknown log format"},
		{"bad log level", []string{"-c", conf, "--log-level", "loud"}, 2, "unknown name"},
		{"pages open to all", []string{"-c", conf, "-a", sock, "-h", "tcp!*!17080"}, 1, "open"},
		{"no webroot", []string{"-c", conf, "-a", sock, "-h", sock + ".http", "-W", conf + "x"}, 1, "webroot"},
		{"bad scrub", []string{"-c", conf, "--scrub", "fast"}, 2, "scrub: bad size"},
		{"bad mirror", []string{"-c", conf, "--mirror", "tcp!a!b!c"}, 2, "mirror: address"},
		{"no configuration", []string{"-c", conf + "x"}, 1, "no such file"},
		{"bad access", []string{"-c", conf, "-a", sock, "--access", "allow friends"}, 2, "unknown client"},
		{"bad limit", []string{"-c", conf, "-a", sock, "--limit", "friends 3"}, 2, "unknown limit"},
		{"tls without a certificate", []string{"-c", conf, "-a", "tls!127.0.0.1!0"}, 1, "cert=FILE"},
		{"open to all", []string{"-c", conf, "-a", "tcp!*!venti"}, 1, "open"},
	} {
		var stderr bytes.Buffer
		status := newCommand().Execute(t.Context(), tc.args, nil, io.Discard, &stderr)
		if status != tc.status || !strings.Contains(stderr.String(), tc.stderr) {
			t.Errorf("%s: status %d, want %d, and %q in\n%s", tc.name, status, tc.status, tc.stderr, &stderr)
		}
	}
}

// TestWrongLines edits one line of a good configuration: the line is named.
func TestWrongLines(t *testing.T) {
	dir := t.TempDir()
	conf, err := store.Format(t.Context(), dir, store.FormatConfig{Space: 8 << 20, Addr: "unix!" + filepath.Join(dir, "sock")})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ prefix, line, want string }{
		{"arenas", "arenas " + dir + "/none", "no such file"},
		{"arenas", "arenas " + dir + "/arenas:1m-1g", "1g"},
		{"isect", "isect " + dir + "/isect:2m-1m", "isect:2m-1m"},
		{"bloom", "bloom", "a value is missing"},
		{"bloom", "bloom " + dir + "/no bloom", "too many words"},
		{"bloom", "mem 10q", "bad size"},
		{"bloom", "bcmem -1", "bad size"},
		{"bloom", "icmem 1m\nicmem 1m", "icmem is set twice"},
		{"bloom", "blooms x", "unknown keyword"},
		{"addr", "addr tcp!*!venti", "not a loopback address"},
		{"addr", "addr udp!127.0.0.1!1", "unknown network"},
		{"bloom", "httpaddr tcp!127.0.0.1!nosuchservice", "unknown service"},
		{"index", "", "no index line"},
	} {
		var lines []string
		at := 0
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, tc.prefix) {
				line = tc.line + "\n"
				at = len(lines) + 1 + strings.Count(tc.line, "\n")
			}
			lines = append(lines, line)
		}
		bad := filepath.Join(dir, "bad.conf")
		if err := os.WriteFile(bad, []byte(strings.Join(lines, "")), 0o644); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("venti: %s:%d: ", bad, at)
		if tc.line == "" {
			want = "venti: " + bad + ": "
		}
		var stderr bytes.Buffer
		status := newCommand().Execute(t.Context(), []string{"-c", bad}, nil, io.Discard, &stderr)
		if status != 1 || !strings.Contains(stderr.String(), want) || !strings.Contains(stderr.String(), tc.want) {
			t.Errorf("%q: status %d, and %q and %q in\n%s", tc.line, status, want, tc.want, &stderr)
		}
	}
}
