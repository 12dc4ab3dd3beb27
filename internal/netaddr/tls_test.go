package netaddr_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A ca signs certificates for one test.
type ca struct {
	t    testing.TB
	dir  string
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t testing.TB, name string) *ca {
	t.Helper()
	a := &ca{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = a.sign(tmpl, tmpl, &a.key.PublicKey)
	a.file = filepath.Join(a.dir, "ca.pem")
	a.write(a.file, &pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	return a
}

func (a *ca) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *ca) sign(tmpl, parent *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *ca) write(file string, blocks ...*pem.Block) {
	a.t.Helper()
	var b bytes.Buffer
	for _, block := range blocks {
		pem.Encode(&b, block)
	}
	if err := os.WriteFile(file+".new", b.Bytes(), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes a certificate, with its key in the same file, that change may
// alter first, and returns the file's name.
func (a *ca) issue(name string, change func(*x509.Certificate)) string {
	a.t.Helper()
	key := a.newKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(tmpl)
	}
	c := a.sign(tmpl, a.cert, &key.PublicKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	file := filepath.Join(a.dir, name+".pem")
	a.write(file, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return file
}

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
	ours, theirs := newCA(t, "our ca"), newCA(t, "their ca")
	server := ours.issue("server", nil)
	past := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	client := ours.issue("laptop", func(c *x509.Certificate) {
		u, _ := url.Parse("spiffe://example.com/host/laptop")
		c.URIs, c.DNSNames = []*url.URL{u}, []string{"laptop.example.com"}
	})
	expired, foreign := ours.issue("expired", past), theirs.issue("foreign", nil)
	notClient := ours.issue("not-client", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })

	mutual := newEcho(t, "!cert="+server+"!ca="+ours.file)
	oneWay := newEcho(t, "!cert="+server)
	elsewhere := newEcho(t, "!cert="+ours.issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"elsewhere.example.com"} }))
	foreignServer := newEcho(t, "!cert="+theirs.issue("server", nil))
	for _, tc := range []struct {
		name   string
		server *echo
		attrs  string
		names  string
		err    string // what the client is told
		log    string // what the server logs
	}{
		{"mutual", mutual, "!ca=" + ours.file + "!cert=" + client, "laptop spiffe://example.com/host/laptop laptop.example.com", "", ""},
		{"key in another file", mutual, "!ca=" + ours.file + "!cert=" + client + "!key=" + client, "laptop spiffe://example.com/host/laptop laptop.example.com", "", ""},
		{"no certificate asked for", oneWay, "!ca=" + ours.file, "", "", ""},
		{"a certificate nobody asks for", oneWay, "!ca=" + ours.file + "!cert=" + client, "", "", ""},
		{"told the name", elsewhere, "!ca=" + ours.file + "!name=elsewhere.example.com", "", "", ""},

		{"no client certificate", mutual, "!ca=" + ours.file, "", "server refused us without a certificate: tls: certificate required", "didn't provide a certificate"},
		{"client of another ca", mutual, "!ca=" + ours.file + "!cert=" + foreign, "",
			"server refused our certificate " + foreign + ": tls: unknown certificate authority", "certificate of CN=foreign, signed by CN=their ca: x509: certificate signed by unknown authority"},
		{"a server's certificate", mutual, "!ca=" + ours.file + "!cert=" + notClient, "", "server refused our certificate " + notClient, "CN=not-client"},
		{"expired client", mutual, "!ca=" + ours.file + "!cert=" + expired, "", "certificate " + expired + " expired on ", ""},
		{"server of another ca", foreignServer, "!ca=" + ours.file, "", "the server's certificate of CN=server, signed by CN=their ca: x509: certificate signed by unknown authority", "bad certificate"},
		{"server that the machine does not know", oneWay, "", "", "signed by CN=our ca: x509: certificate signed by unknown authority", "bad certificate"},
		{"wrong host", elsewhere, "!ca=" + ours.file, "", "the server's certificate of CN=elsewhere", "bad certificate"},
		{"wrong name", oneWay, "!ca=" + ours.file + "!name=other.example.com", "", "other.example.com", "bad certificate"},
		{"no ca file", mutual, "!ca=" + ours.file + "x", "", "ca: open " + ours.file + "x: no such file", ""},
		{"no cert file", mutual, "!cert=" + client + "x", "", "certificate: open " + client + "x: no such file", ""},
		{"nothing in the ca", mutual, "!ca=" + os.Args[0], "", "there is no certificate in it", ""},
		{"nothing in the cert", mutual, "!cert=" + ours.file, "", "certificate " + ours.file + ": tls: ", ""},
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
	a := newCA(t, "ca")
	e := newEcho(t, "!cert="+a.issue("server", nil)+"!ca="+a.file)
	// An expired one, sent by a client that does not look at it first.
	file := a.issue("old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
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
	_, err = netaddr.Dial(t.Context(), "tls!127.0.0.1!"+port(ln)+"!ca="+a.file, "")
	if err == nil || !strings.Contains(err.Error(), "the server's certificate of CN=old, signed by CN=ca: x509: certificate has expired") {
		t.Errorf("dialled a server whose certificate has expired: %v", err)
	}
	if _, err := (netaddr.Config{}).Listen(t.Context(), "tls!127.0.0.1!0!cert="+file, ""); err == nil || !strings.Contains(err.Error(), file+" expired on") {
		t.Errorf("announced with an expired certificate: %v", err)
	}
	file = a.issue("future", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
	if _, err := (netaddr.Config{}).Listen(t.Context(), "tls!127.0.0.1!0!cert="+file, ""); err == nil || !strings.Contains(err.Error(), file+" is not valid before") {
		t.Errorf("announced with a certificate of the future: %v", err)
	}
}

// TestOldTLS offers version 1.2.
func TestOldTLS(t *testing.T) {
	a := newCA(t, "ca")
	e := newEcho(t, "!cert="+a.issue("server", nil))
	c, err := tls.Dial("tcp", e.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		c.Close()
		t.Error("version 1.2 was accepted")
	}
}

// TestNotTLS has each end meet one that does not speak TLS.
func TestNotTLS(t *testing.T) {
	a := newCA(t, "ca")
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
	if _, err := netaddr.Dial(t.Context(), "tls!127.0.0.1!"+port(ln)+"!ca="+a.file, ""); err == nil || !strings.Contains(err.Error(), "TLS handshake") {
		t.Errorf("dialled a plain server: %v", err)
	}
	e := newEcho(t, "!cert="+a.issue("server", nil))
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
	a := newCA(t, "ca")
	e := newEcho(t, "!cert="+a.issue("server", nil)+"!ca="+a.file)
	var silent []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	client := "!ca=" + a.file + "!cert=" + a.issue("client", nil)
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
	a, b := newCA(t, "first ca"), newCA(t, "second ca")
	cert := a.issue("server", nil)
	e := newEcho(t, "!cert="+cert+"!ca="+a.file)
	fromA, fromB := a.issue("client", nil), b.issue("client", nil)
	ask := func(ca, cert string) error {
		t.Helper()
		_, err := e.ask(t, "!ca="+ca+"!cert="+cert)
		return err
	}
	if err := ask(a.file, fromA); err != nil {
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
	move(a.file, firstCA)

	move(b.issue("server", nil), cert)
	if err := ask(b.file, fromA); err != nil {
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
		if err := ask(b.file, fromA); err != nil {
			t.Errorf("while the file is broken: %v", err)
		}
	}
	if log := <-e.log; !strings.Contains(log, "going on with the old certificate") {
		t.Errorf("logged %q", log)
	}
	if len(e.log) > 0 {
		t.Errorf("logged more: %q", <-e.log)
	}
	move(b.issue("server", nil), cert)
	move(b.file, a.file)
	if err := ask(b.file, fromB); err != nil {
		t.Errorf("with the new ca: %v", err)
	}
	if err := ask(b.file, fromA); err == nil {
		t.Error("the old ca is still in use")
	}
}

// TestOffLoopback announces addresses that other machines reach.
func TestOffLoopback(t *testing.T) {
	a := newCA(t, "ca")
	cert := a.issue("server", nil)
	for _, tc := range []struct {
		addr string
		open bool
		err  string
	}{
		{"tls!*!0!cert=" + cert + "!ca=" + a.file, false, ""},
		{"tls!*!0!cert=" + cert, true, ""},
		{"tls!*!0!cert=" + cert, false, "not a loopback address"},
		{"tls!0.0.0.0!0!cert=" + cert, false, "not a loopback address"},
		{"tls!127.0.0.1!0", false, "with a cert=FILE"},
		{"tls!127.0.0.1!0!ca=" + a.file, false, "with a cert=FILE"},
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
