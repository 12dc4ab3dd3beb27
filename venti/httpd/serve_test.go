package httpd_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/httpd"
)

// serve runs a fixture's Serve on a unix socket until stop is called, and
// returns a client of it.
func serve(t *testing.T, f *fixture) (client *http.Client, stop func() error) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "http"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- f.Serve(ctx, ln) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", ln.Addr().String())
	}}
	return &http.Client{Transport: transport}, func() error {
		cancel()
		transport.CloseIdleConnections()
		return <-served
	}
}

// work writes and reads until samples, which come each second, tell of it. The
// fixture is being served.
func (f *fixture) work(t *testing.T) {
	t.Helper()
	var st struct{ Series map[string][]*float64 }
	for i := 0; ; i++ {
		if _, err := f.store.WriteBlock(t.Context(), venti.DataType, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.store.ReadBlock(t.Context(), f.scores[0], venti.DataType, make([]byte, venti.MaxBlockSize)); err != nil {
			t.Fatal(err)
		}
		if i%100 != 0 {
			continue
		}
		if err := json.Unmarshal([]byte(f.get(t, "/status.json")), &st); err != nil {
			t.Fatal(err)
		}
		for _, v := range st.Series["writes"] {
			if v != nil && *v > 0 {
				return
			}
		}
	}
}

// TestServe has samples taken while a client of the store works.
func TestServe(t *testing.T) {
	f := newFixture(t, httpd.Config{Pprof: true})
	client, stop := serve(t, f)
	get := func(target string) string {
		t.Helper()
		r, err := client.Get("http://venti" + target)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != 200 {
			t.Fatalf("%s: %s, %v\n%s", target, r.Status, err, body)
		}
		return string(body)
	}
	f.work(t)
	if text := get("/graph?arg=rpcwrite&t0=-10&text=1"); strings.Count(text, "nsamp=1") < 10 {
		t.Errorf("graph is\n%s", text)
	}
	get("/debug/pprof/goroutine?debug=1")
	if err := stop(); err != nil {
		t.Error(err)
	}

	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "http"))
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := f.Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed listener: %v", err)
	}
}

// TestStopInTheMiddle ends a server while it answers.
func TestStopInTheMiddle(t *testing.T) {
	f := newFixture(t, httpd.Config{Pprof: true})
	client, stop := serve(t, f)
	begun := make(chan error, 1)
	go func() {
		r, err := client.Get("http://venti/debug/pprof/trace?seconds=40")
		if err == nil {
			// The header comes with the first bytes of the trace.
			_, err = io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
		begun <- err
	}()
	r, err := client.Get("http://venti/healthz")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
	<-begun // it may have ended well or not, but it has ended
}

func TestPprofIsOff(t *testing.T) {
	f := newFixture(t, httpd.Config{})
	for _, target := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1"} {
		if r := f.do("GET", target); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", target, r.Status)
		}
	}
}
