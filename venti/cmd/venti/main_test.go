package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	text = append(text, "httpaddr unix!"+http1+"\nwebroot "+dir+"\nsyslog\n"...)
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
	stop = serve(t, "-c", conf, "-h", "unix!"+http2, "-W", t.TempDir(), "--http-control", "--pprof", "--log-level", "error")
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
		{"no configuration", []string{"-c", conf + "x"}, 1, "no such file"},
		{"open to all", []string{"-c", conf, "-a", "tcp!*!venti"}, 1, "open"},
	} {
		var stderr bytes.Buffer
		status := newCommand().Execute(t.Context(), tc.args, nil, io.Discard, &stderr)
		if status != tc.status || !strings.Contains(stderr.String(), tc.stderr) {
			t.Errorf("%s: status %d, want %d, and %q in\n%s", tc.name, status, tc.status, tc.stderr, &stderr)
		}
	}
}
