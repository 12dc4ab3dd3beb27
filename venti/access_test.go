package venti_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"strata/internal/netaddr/tlstest"
	"strata/venti"
	"strata/venti/ventitest"
)

func rules(t testing.TB, texts ...string) []venti.Rule {
	t.Helper()
	var list []venti.Rule
	for _, text := range texts {
		r, err := venti.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

func TestParseRule(t *testing.T) {
	for text, want := range map[string]string{
		"allow all":                         "",
		"  deny \t 10.0.0.0/8  name=a*":     "",
		"readonly unix":                     "",
		"allow 10.1.2.3":                    "",
		"allow ::1":                         "",
		"allow 2001:db8::/32":               "",
		"allow name=spiffe://example.com/*": "",
		"":                                  "want allow, readonly or deny, and whom",
		"allow":                             "and whom",
		"permit all":                        `unknown access "permit"`,
		"allow everybody":                   `unknown client "everybody"`,
		"allow 10.1.2.3/8":                  "want 10.0.0.0/8",
		"allow 10.0.0.0/33":                 "unknown client",
		"allow fe80::1%eth0":                "unknown client",
		"allow ::ffff:10.0.0.0/104":         "IPv4",
		"allow name=":                       "bad name",
		"allow name=a*b":                    "bad name",
		"allow host.example.com":            "unknown client",
		"deny 10.0.0.0/8 and everybody in my house": `unknown client "and"`,
	} {
		r, err := venti.ParseRule(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err == nil && r.String() != strings.Join(strings.Fields(text), " ") {
			t.Errorf("%q reads %q", text, r)
		}
	}
}

// FuzzParseRule reads any text. What is taken reads the same again.
func FuzzParseRule(f *testing.F) {
	for _, text := range []string{"allow all", "deny 10.0.0.0/8 name=x*", "readonly unix", "allow ::/0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := venti.ParseRule(text)
		if err != nil {
			return
		}
		if again, err := venti.ParseRule(r.String()); err != nil || again.String() != r.String() {
			t.Errorf("%q: %q, %v", text, again, err)
		}
	})
}

// A placed connection comes from an address of the test's choice.
type placed struct {
	net.Conn
	from net.Addr
}

func (p placed) RemoteAddr() net.Addr { return p.from }

// from connects to srv, until the test ends, from an address.
func from(t testing.TB, srv *venti.Server, addr string) (*venti.Client, error) {
	t.Helper()
	near, far := net.Pipe()
	var a net.Addr = &net.UnixAddr{Net: "unix"}
	if addr != "unix" {
		a = &net.TCPAddr{IP: net.ParseIP(addr), Port: 1000}
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		srv.ServeConn(ctx, placed{far, a})
	}()
	c, err := venti.NewClient(t.Context(), near)
	t.Cleanup(func() {
		if err == nil {
			c.Close()
		}
		cancel()
		<-served
	})
	return c, err
}

// mayDo returns what a client finds that it may do.
func mayDo(t testing.TB, c *venti.Client, err error) string {
	t.Helper()
	if err != nil {
		if !strings.Contains(err.Error(), "access denied") {
			t.Errorf("greeting: %v", err)
		}
		return "deny"
	}
	if _, err := c.ReadBlock(t.Context(), venti.ScoreOf([]byte("x")), venti.DataType, make([]byte, 1)); err != nil {
		t.Errorf("read: %v", err)
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Errorf("sync: %v", err)
	}
	switch _, err := c.WriteBlock(t.Context(), venti.DataType, []byte("y")); {
	case errors.Is(err, venti.ErrReadOnly):
		return "readonly"
	case err != nil:
		t.Errorf("write: %v", err)
	}
	return "allow"
}

func TestAccess(t *testing.T) {
	st := ventitest.NewMemory()
	if _, err := st.WriteBlock(t.Context(), venti.DataType, []byte("x")); err != nil {
		t.Fatal(err)
	}
	some := []string{"deny 10.1.2.3", "allow 10.1.0.0/16", "readonly 10.0.0.0/8", "readonly 2001:db8::/32", "allow unix"}
	for _, tc := range []struct {
		rules      []string
		from, want string
	}{
		{nil, "192.0.2.1", "allow"},
		{some, "10.1.2.3", "deny"},
		{some, "10.1.2.4", "allow"},
		{some, "10.2.0.1", "readonly"},
		{some, "::ffff:10.2.0.1", "readonly"},
		{some, "192.0.2.1", "deny"},
		{some, "127.0.0.1", "deny"},
		{some, "2001:db8::7", "readonly"},
		{some, "2001:db9::7", "deny"},
		{some, "unix", "allow"},
		{[]string{"deny unix", "allow all"}, "unix", "deny"},
		{[]string{"deny unix", "allow all"}, "192.0.2.1", "allow"},
		{[]string{"allow 10.0.0.0/8 name=laptop"}, "10.1.1.1", "deny"},
		{[]string{"readonly 0.0.0.0/0"}, "unix", "deny"},
	} {
		c, err := from(t, venti.NewServer(st, venti.ServerConfig{Access: rules(t, tc.rules...)}), tc.from)
		if got := mayDo(t, c, err); got != tc.want {
			t.Errorf("%q: %s may %s, want %s", tc.rules, tc.from, got, tc.want)
		}
	}
	if got := func() string {
		c := pipe(t, st, venti.ServerConfig{Access: rules(t, "deny all")})
		return mayDo(t, c, nil)
	}(); got != "allow" {
		t.Errorf("this process may %s", got)
	}
	c, err := from(t, venti.NewServer(st, venti.ServerConfig{ReadOnly: true, Access: rules(t, "allow all")}), "10.0.0.1")
	if got := mayDo(t, c, err); got != "readonly" {
		t.Errorf("a read-only server lets a client %s", got)
	}
}

// TestAccessByCertificate has clients with certificates over TLS.
func TestAccessByCertificate(t *testing.T) {
	st := ventitest.NewMemory()
	if _, err := st.WriteBlock(t.Context(), venti.DataType, []byte("x")); err != nil {
		t.Fatal(err)
	}
	ca := tlstest.NewCA(t, "ca")
	var log bytes.Buffer
	ln, err := venti.ListenConfig{}.Listen(t.Context(), "tls!127.0.0.1!0!cert="+ca.Issue("server", nil)+"!ca="+ca.File)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, ln, st, venti.ServerConfig{
		Logger: slog.New(slog.NewTextHandler(&syncWriter{w: &log}, nil)),
		Access: rules(t, "deny name=thief", "readonly name=spiffe://example.com/readers/*", "allow 127.0.0.0/8 name=laptop"),
	})
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for name, tc := range map[string]struct {
		uri, want string
	}{
		"laptop":   {"", "allow"},
		"thief":    {"spiffe://example.com/readers/x", "deny"},
		"reader":   {"spiffe://example.com/readers/x", "readonly"},
		"stranger": {"spiffe://example.com/writers/x", "deny"},
	} {
		file := ca.Issue(name, func(c *x509.Certificate) {
			if tc.uri != "" {
				u, _ := url.Parse(tc.uri)
				c.URIs = []*url.URL{u}
			}
		})
		// As $venti alone tells a tool.
		t.Setenv("venti", "tls!127.0.0.1!"+port+"!ca="+ca.File+"!cert="+file)
		c, err := venti.Dial(t.Context(), "")
		if got := mayDo(t, c, err); got != tc.want {
			t.Errorf("%s may %s, want %s", name, got, tc.want)
		}
		if err == nil {
			c.Close()
		}
	}
	t.Setenv("venti", "tls!127.0.0.1!"+port+"!ca="+ca.File)
	if _, err := venti.Dial(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "refused us without a certificate") {
		t.Errorf("with no certificate: %v", err)
	}
}

// A syncWriter is for loggers of several goroutines.
type syncWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// TestDeniedTakeNoPlace fills a server with clients that are denied and do
// not even say hello.
func TestDeniedTakeNoPlace(t *testing.T) {
	addr := filepath.Join(t.TempDir(), "sock")
	inner, err := venti.ListenConfig{}.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	ln := &placedListener{Listener: inner, from: make(chan string, 1)}
	serveOn(t, ln, ventitest.NewMemory(), venti.ServerConfig{MaxConns: 2, Access: rules(t, "deny 10.0.0.0/8", "allow all")})
	for range 40 {
		ln.from <- "10.0.0.1"
		newTalk(t, addr)
	}
	for range 2 {
		ln.from <- "192.0.2.1"
		if err := dial(t, addr).Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ln.from <- "192.0.2.1"
	if _, err := venti.Dial(t.Context(), addr); err == nil {
		t.Error("a third client can connect")
	}
}

// A placedListener's next connection comes from the next address that it is
// given.
type placedListener struct {
	net.Listener
	from chan string
}

func (l *placedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return placed{nc, &net.TCPAddr{IP: net.ParseIP(<-l.from)}}, nil
}

// TestPeerConns bounds the connections of another machine, not of this one.
func TestPeerConns(t *testing.T) {
	srv := venti.NewServer(ventitest.NewMemory(), venti.ServerConfig{MaxPeerConns: 3})
	connect := func(addr string, want bool) *venti.Client {
		t.Helper()
		c, err := from(t, srv, addr)
		if (err == nil) != want {
			t.Errorf("from %s: %v", addr, err)
		}
		return c
	}
	first := connect("10.0.0.1", true)
	for range 2 {
		connect("10.0.0.1", true)
	}
	connect("10.0.0.1", false)
	connect("::ffff:10.0.0.1", false)
	connect("10.0.0.2", true)
	for i := range 6 { // one machine has all of a network
		connect("2001:db8::"+string(rune('1'+i)), i < 3)
		connect("127.0.0.1", true)
		connect("unix", true)
	}
	if n := srv.Stats().Refused; n != 5 {
		t.Errorf("%d refused", n)
	}
	first.Close()
	for { // the server notices
		if _, err := from(t, srv, "10.0.0.1"); err == nil {
			break
		}
	}
}

// TestRates has clients that are faster than they may be.
func TestRates(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  venti.ServerConfig
		ops  int
		size int
		want time.Duration // for ops writes of size, after what is saved up
	}{
		{"requests", venti.ServerConfig{RequestRate: 100}, 1000, 10, 9 * time.Second},
		{"bytes", venti.ServerConfig{ByteRate: 1 << 20}, 1000, 50 << 10, 48 * time.Second},
		{"least bytes", venti.ServerConfig{ByteRate: 1}, 100, 50 << 10, 77 * time.Second},
		{"none", venti.ServerConfig{}, 1000, 50 << 10, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := venti.NewServer(ventitest.NewMemory(), tc.cfg)
				// Two connections of one machine have one rate between them, and another
				// machine its own.
				a, err := from(t, srv, "10.0.0.1")
				if err != nil {
					t.Fatal(err)
				}
				b, err := from(t, srv, "10.0.0.1")
				if err != nil {
					t.Fatal(err)
				}
				other, err := from(t, srv, "10.0.0.2")
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				var busy sync.WaitGroup
				for i := range tc.ops {
					c := a
					if i%2 == 0 {
						c = b
					}
					busy.Go(func() {
						if _, err := c.WriteBlock(t.Context(), venti.DataType, ventitest.Block(uint64(i), tc.size)); err != nil {
							t.Error(err)
						}
					})
				}
				if tc.want > 0 {
					time.Sleep(tc.want / 2)
				}
				during := time.Now()
				if err := other.Sync(t.Context()); err != nil {
					t.Error(err)
				}
				if took := time.Since(during); took > 0 {
					t.Errorf("another client waited for %v", took)
				}
				busy.Wait()
				if took := time.Since(start); took < tc.want*95/100 || took > tc.want*110/100 {
					t.Errorf("took %v, want %v", took, tc.want)
				}
				a.Close()
				b.Close()
				other.Close()
			})
		})
	}
}

// TestStopWhilePaced stops a server whose client waits for its turn.
func TestStopWhilePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan struct{})
		go func() {
			defer close(served)
			venti.NewServer(ventitest.NewMemory(), venti.ServerConfig{RequestRate: 1}).ServeConn(ctx, placed{far, &net.UnixAddr{}})
		}()
		c, err := venti.NewClient(ctx, near)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := time.Now()
		var asked sync.WaitGroup
		for range 100 {
			asked.Go(func() { c.Sync(t.Context()) })
		}
		time.Sleep(1500 * time.Millisecond)
		cancel()
		<-served
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("stopped after %v", took)
		}
		asked.Wait()
	})
}

// slowWrites is a store that takes its time for writes, all of one block, and
// answers nothing from memory.
type slowWrites struct {
	venti.Store
	time  time.Duration
	score venti.Score
}

func (s slowWrites) WriteBlock(context.Context, venti.Type, []byte) (venti.Score, error) {
	time.Sleep(s.time)
	return s.score, nil
}

// TestFairness reads one block at a time while other machines write as much
// and as fast as they can, on many connections each: a read waits for none of
// one machine's writes, and when there are more machines than there are shares
// of memory, for a write or two.
func TestFairness(t *testing.T) {
	const writeTime = 10 * time.Millisecond
	for _, tc := range []struct {
		name string
		hogs []string
		most time.Duration // that a read may take
	}{
		{"alone", nil, 0},
		{"one machine", []string{"10.0.0.1"}, 0},
		{"six machines", []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"}, 2 * writeTime},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := ventitest.NewMemory()
				data := ventitest.Block(1, 8192)
				score, err := mem.WriteBlock(t.Context(), venti.DataType, data)
				if err != nil {
					t.Fatal(err)
				}
				block := ventitest.Block(2, 56<<10)
				st := slowWrites{plain{mem}, writeTime, venti.ScoreOf(block)}
				srv := venti.NewServer(st, venti.ServerConfig{MaxBytes: 4 << 20})
				stop := make(chan struct{})
				var hogs sync.WaitGroup
				for _, addr := range tc.hogs {
					for range 8 {
						c, err := from(t, srv, addr)
						if err != nil {
							t.Fatal(err)
						}
						for range 40 {
							hogs.Go(func() {
								for {
									select {
									case <-stop:
										return
									default:
									}
									if err := c.WriteScored(t.Context(), st.score, venti.DataType, block); err != nil {
										t.Error(err)
										return
									}
								}
							})
						}
					}
				}
				time.Sleep(100 * time.Millisecond)
				reader, err := from(t, srv, "10.0.1.1")
				if err != nil {
					t.Fatal(err)
				}
				var worst time.Duration
				buf := make([]byte, len(data))
				for range 50 {
					start := time.Now()
					if _, err := reader.ReadBlock(t.Context(), score, venti.DataType, buf); err != nil {
						t.Fatal(err)
					}
					worst = max(worst, time.Since(start))
					time.Sleep(time.Millisecond)
				}
				if worst > tc.most {
					t.Errorf("a read took %v, at most %v is fair", worst, tc.most)
				}
				close(stop)
				hogs.Wait()
			})
		})
	}
}
