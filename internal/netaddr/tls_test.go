package netaddr_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"strata/internal/netaddr"
	"strata/internal/netaddr/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An echo is a listener that answers a byte with the names of who sends it.
type echo struct {
	net.Listener
	log chan string // its lines
}

func (e *echo) Write(p []byte) (int, error) {
	e.log <- string(p)
	return len(p), nil
}

func newEcho(t testing.TB, attrs string) *echo {
	t.Helper()
	e := &echo{log: make(chan string, 1000)}
	cfg := netaddr.Config{Logger: slog.New(slog.NewTextHandler(e, nil))}
	ln, err := cfg.Listen(t.Context(), "tls!127.0.0.1!0"+attrs, "")
	if err != nil {
		t.Fatal(err)
	}
	e.Listener = ln
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				io.CopyN(io.Discard, c, 1)
				io.WriteString(c, strings.Join(netaddr.Names(c), " ")+"\n")
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		conns.Wait()
	})
	return e
}

// ask dials and returns the names that the server sees.
func (e *echo) ask(t testing.TB, attrs string) (string, error) {
	t.Helper()
	c, err := netaddr.Dial(t.Context(), "tls!127.0.0.1!"+port(e)+attrs, "")
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write([]byte{1}); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return strings.TrimSpace(string(b)), err
}

func port(ln net.Listener) string {
	_, p, _ := net.SplitHostPort(ln.Addr().String())
	return p
}

func TestTLS(t *testing.T) {
	ours, theirs := tlstest.NewCA(t, "our ca"), tlstest.NewCA(t, "their ca")
	server := ours.Issue("server", nil)
	past := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	client := ours.Issue("laptop", func(c *x509.Certificate) {
		u, _ := url.Parse("spiffe://example.com/host/laptop")
		c.URIs, c.DNSNames = []*url.URL{u}, []string{"laptop.example.com"}
	})
	expired, foreign := ours.Issue("expired", past), theirs.Issue("foreign", nil)
	notClient := ours.Issue("not-client", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })

	mutual := newEcho(t, "!cert="+server+"!ca="+ours.File)
	oneWay := newEcho(t, "!cert="+server)
	elsewhere := newEcho(t, "!cert="+ours.Issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"elsewhere.example.com"} }))
	foreignServer := newEcho(t, "!cert="+theirs.Issue("server", nil))
	for _, tc := range []struct {
		name   string
		server *echo
		attrs  string
		names  string
		err    string // what the client is told
		log    string // what the server logs
	}{
		{"mutual", mutual, "!ca=" + ours.File + "!cert=" + client, "laptop spiffe://example.com/host/laptop laptop.example.com", "", ""},
		{"key in another file", mutual, "!ca=" + ours.File + "!cert=" + client + "!key=" + client, "laptop spiffe://example.com/host/laptop laptop.example.com", "", ""},
		{"no certificate asked for", oneWay, "!ca=" + ours.File, "", "", ""},
		{"a certificate nobody asks for", oneWay, "!ca=" + ours.File + "!cert=" + client, "", "", ""},
		{"told the name", elsewhere, "!ca=" + ours.File + "!name=elsewhere.example.com", "", "", ""},

		{"no client certificate", mutual, "!ca=" + ours.File, "", "server refused us without a certificate: tls: certificate required", "didn't provide a certificate"},
		{"client of another ca", mutual, "!ca=" + ours.File + "!cert=" + foreign, "",
			"server refused our certificate " + foreign + ": tls: unknown certificate authority", "certificate of CN=foreign, signed by CN=their ca: x509: certificate signed by unknown authority"},
		{"a server's certificate", mutual, "!ca=" + ours.File + "!cert=" + notClient, "", "server refused our certificate " + notClient, "CN=not-client"},
		{"expired client", mutual, "!ca=" + ours.File + "!cert=" + expired, "", "certificate " + expired + " expired on ", ""},
		{"server of another ca", foreignServer, "!ca=" + ours.File, "", "the server's certificate of CN=server, signed by CN=their ca: x509: certificate signed by unknown authority", "bad certificate"},
		{"server that the machine does not know", oneWay, "", "", "signed by CN=our ca: x509: certificate signed by unknown authority", "bad certificate"},
		{"wrong host", elsewhere, "!ca=" + ours.File, "", "the server's certificate of CN=elsewhere", "bad certificate"},
		{"wrong name", oneWay, "!ca=" + ours.File + "!name=other.example.com", "", "other.example.com", "bad certificate"},
		{"no ca file", mutual, "!ca=" + ours.File + "x", "", "ca: open " + ours.File + "x: no such file", ""},
		{"no cert file", mutual, "!cert=" + client + "x", "", "certificate: open " + client + "x: no such file", ""},
		{"nothing in the ca", mutual, "!ca=" + os.Args[0], "", "there is no certificate in it", ""},
		{"nothing in the cert", mutual, "!cert=" + ours.File, "", "certificate " + ours.File + ": tls: ", ""},
		{"the key of another", mutual, "!cert=" + client + "!key=" + foreign, "", "private key does not match", ""},
		{"a key alone", mutual, "!key=" + client, "", "a key without a cert", ""},
	} {
		names, err := tc.server.ask(t, tc.attrs)
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.err)
		}
		if names != tc.names {
			t.Errorf("%s: names %q, want %q", tc.name, names, tc.names)
		}
		if tc.log != "" {
			if line := <-tc.server.log; !strings.Contains(line, tc.log) {
				t.Errorf("%s: the server logs %q, want %q", tc.name, line, tc.log)
			}
		}
	}
	for _, e := range []*echo{mutual, oneWay, elsewhere, foreignServer} {
		if len(e.log) > 0 {
			t.Errorf("the server logs %q too", <-e.log)
		}
	}
}

// TestExpiredOnTheWay has certificates expire that were good when they were
// read: each end finds out about the other's.
func TestExpiredOnTheWay(t *testing.T) {
	a := tlstest.NewCA(t, "ca")
	e := newEcho(t, "!cert="+a.Issue("server", nil)+"!ca="+a.File)
	// An expired one, sent by a client that does not look at it first.
	file := a.Issue("old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	c, err := tls.Dial("tcp", e.Addr().String(), &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "expired certificate") {
		t.Errorf("the client is told %v", err)
	}
	if log := <-e.log; !strings.Contains(log, "the client's certificate of CN=old, signed by CN=ca: x509: certificate has expired") {
		t.Errorf("the server logs %s", log)
	}

	// And a server whose certificate has run out since it was announced.
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	_, err = netaddr.Dial(t.Context(), "tls!127.0.0.1!"+port(ln)+"!ca="+a.File, "")
	if err == nil || !strings.Contains(err.Error(), "the server's certificate of CN=old, signed by CN=ca: x509: certificate has expired") {
		t.Errorf("dialled a server whose certificate has expired: %v", err)
	}
	if _, err := (netaddr.Config{}).Listen(t.Context(), "tls!127.0.0.1!0!cert="+file, ""); err == nil || !strings.Contains(err.Error(), file+" expired on") {
		t.Errorf("announced with an expired certificate: %v", err)
	}
	file = a.Issue("future", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
	if _, err := (netaddr.Config{}).Listen(t.Context(), "tls!127.0.0.1!0!cert="+file, ""); err == nil || !strings.Contains(err.Error(), file+" is not valid before") {
		t.Errorf("announced with a certificate of the future: %v", err)
	}
}

// TestOldTLS offers version 1.2.
func TestOldTLS(t *testing.T) {
	a := tlstest.NewCA(t, "ca")
	e := newEcho(t, "!cert="+a.Issue("server", nil))
	c, err := tls.Dial("tcp", e.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		c.Close()
		t.Error("version 1.2 was accepted")
	}
}

// TestNotTLS has each end meet one that does not speak TLS.
func TestNotTLS(t *testing.T) {
	a := tlstest.NewCA(t, "ca")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, "venti-02:04-x\n")
		c.Close()
	}()
	if _, err := netaddr.Dial(t.Context(), "tls!127.0.0.1!"+port(ln)+"!ca="+a.File, ""); err == nil || !strings.Contains(err.Error(), "TLS handshake") {
		t.Errorf("dialled a plain server: %v", err)
	}
	e := newEcho(t, "!cert="+a.Issue("server", nil))
	c, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "venti-02:04-x\n")
	io.ReadAll(c)
	if log := <-e.log; !strings.Contains(log, "TLS handshake") {
		t.Errorf("the server logs %s", log)
	}
}

// TestSilent opens more connections than there may be handshakes, says
// nothing on any, and shows that others get in, and that Close ends it all.
func TestSilent(t *testing.T) {
	a := tlstest.NewCA(t, "ca")
	e := newEcho(t, "!cert="+a.Issue("server", nil)+"!ca="+a.File)
	var silent []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	client := "!ca=" + a.File + "!cert=" + a.Issue("client", nil)
	for range 10 {
		if names, err := e.ask(t, client); err != nil || names != "client" {
			t.Fatalf("%q, %v", names, err)
		}
	}
	e.Close()
	for _, c := range silent {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the server has said something")
		}
	}
	if _, err := e.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept of a closed listener: %v", err)
	}
}

// TestRenewal replaces the server's certificate, breaks it, and replaces the
// ca.
func TestRenewal(t *testing.T) {
	a, b := tlstest.NewCA(t, "first ca"), tlstest.NewCA(t, "second ca")
	cert := a.Issue("server", nil)
	e := newEcho(t, "!cert="+cert+"!ca="+a.File)
	fromA, fromB := a.Issue("client", nil), b.Issue("client", nil)
	ask := func(ca, cert string) error {
		t.Helper()
		_, err := e.ask(t, "!ca="+ca+"!cert="+cert)
		return err
	}
	if err := ask(a.File, fromA); err != nil {
		t.Fatal(err)
	}
	move := func(from, to string) {
		t.Helper()
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
		// A clock that stands still must not hide it.
		if err := os.Chtimes(to, time.Time{}, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	firstCA := filepath.Join(t.TempDir(), "ca.pem")
	move(a.File, firstCA)

	move(b.Issue("server", nil), cert)
	if err := ask(b.File, fromA); err != nil {
		t.Errorf("with the new certificate: %v", err)
	}
	if err := ask(firstCA, fromA); err == nil {
		t.Error("the old certificate is still in use")
	} else if log := <-e.log; !strings.Contains(log, "bad certificate") {
		t.Errorf("logged %q", log)
	}
	if err := os.WriteFile(cert, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := ask(b.File, fromA); err != nil {
			t.Errorf("while the file is broken: %v", err)
		}
	}
	if log := <-e.log; !strings.Contains(log, "going on with the old certificate") {
		t.Errorf("logged %q", log)
	}
	if len(e.log) > 0 {
		t.Errorf("logged more: %q", <-e.log)
	}
	move(b.Issue("server", nil), cert)
	move(b.File, a.File)
	if err := ask(b.File, fromB); err != nil {
		t.Errorf("with the new ca: %v", err)
	}
	if err := ask(b.File, fromA); err == nil {
		t.Error("the old ca is still in use")
	}
}

// TestOffLoopback announces addresses that other machines reach.
func TestOffLoopback(t *testing.T) {
	a := tlstest.NewCA(t, "ca")
	cert := a.Issue("server", nil)
	for _, tc := range []struct {
		addr string
		open bool
		err  string
	}{
		{"tls!*!0!cert=" + cert + "!ca=" + a.File, false, ""},
		{"tls!*!0!cert=" + cert, true, ""},
		{"tls!*!0!cert=" + cert, false, "not a loopback address"},
		{"tls!0.0.0.0!0!cert=" + cert, false, "not a loopback address"},
		{"tls!127.0.0.1!0", false, "with a cert=FILE"},
		{"tls!127.0.0.1!0!ca=" + a.File, false, "with a cert=FILE"},
		{"tls!127.0.0.1!0!cert=" + cert + "!name=x", false, "name is for who dials"},
		{"tls!127.0.0.1!0!cert=" + cert + "x", false, "no such file"},
	} {
		ln, err := netaddr.Config{Open: tc.open}.Listen(t.Context(), tc.addr, "")
		if err == nil {
			ln.Close()
		}
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v, want %q", tc.addr, err, tc.err)
		}
	}
}

// TestDialSilent has the client give up when its context ends.
func TestDialSilent(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.ReadFull(c, make([]byte, 100)) // of the client's hello
		cancel()
		io.Copy(io.Discard, c)
	}()
	if _, err := netaddr.Dial(ctx, "tls!127.0.0.1!"+port(ln), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("dial: %v", err)
	}
}

// TestNamesOfOthers has none for who is not on TLS.
func TestNamesOfOthers(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if names := netaddr.Names(near); !slices.Equal(names, nil) {
		t.Errorf("names %q", names)
	}
}
