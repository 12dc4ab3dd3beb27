package ninep_test

import (
	"context"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"strata/internal/netaddr"
	"strata/internal/netaddr/tlstest"
	"strata/internal/ninep"
)

// announce serves userFS, whose root has the name of who attached, at an
// address for the length of the test.
func announce(t *testing.T, addr string, cfg ninep.Config) net.Addr {
	t.Helper()
	ln, err := netaddr.Config{}.Listen(t.Context(), addr, "9fs")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- ninep.NewServer(userFS{}, cfg).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr()
}

// identity is a Config with rules.
func identity(t *testing.T, users *ninep.Users, rules ...string) ninep.Config {
	t.Helper()
	list, err := ninep.ParseUserRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	id := &ninep.Identity{Users: users, Rules: list}
	return ninep.Config{Users: users, User: id.User}
}

// attachedAs returns who the server takes a client for that says it is uname,
// or the error. The connection is closed.
func attachedAs(t *testing.T, conn net.Conn, uname string) string {
	t.Helper()
	p := newPeer(t, conn)
	defer conn.Close()
	p.must(ninep.Fcall{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: 8192, Version: "9P2000"})
	if r := p.call(ninep.Fcall{Type: ninep.Tattach, Fid: 1, Afid: ninep.NoFid, Uname: uname}); r.Type != ninep.Rattach {
		return r.Ename
	}
	return p.must(ninep.Fcall{Type: ninep.Tstat, Fid: 1}).Stat.Name
}

// dialAs connects to a Unix socket as another user, as far as the kernel is
// concerned.
func dialAs(t *testing.T, path string, uid int) net.Conn {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		conn, err := func() (net.Conn, error) {
			// Of this thread only; package syscall changes all.
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), ^uintptr(0)); errno != 0 {
				return nil, errno
			}
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			f := os.NewFile(uintptr(fd), path)
			defer f.Close()
			if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
				return nil, err
			}
			return net.FileConn(f)
		}()
		done <- result{conn, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatalf("connect as user %d: %v", uid, r.err)
	}
	return r.conn
}

// TestIdentityUnix attaches through sockets as several users.
func TestIdentityUnix(t *testing.T) {
	dir, err := os.MkdirTemp("", "ninep")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self := os.Geteuid()
	users := ninep.NewUsers(map[string]uint32{"me": uint32(self), "glenda": 4321, "bob": 4322})
	for i, tc := range []struct {
		rules       []string
		uid         int
		uname, want string
	}{
		{nil, self, "glenda", "glenda"}, // the server's own user, and root
		{nil, self, "", "me"},
		{nil, self, "none", "none"},
		{nil, 4321, "glenda", "glenda"},
		{nil, 4321, "", "glenda"},
		{nil, 4321, "none", "none"},
		{nil, 4321, "bob", "permission denied: attach as bob by glenda"},
		{nil, 4321, "me", "permission denied: attach as me by glenda"},
		{nil, 4321, "*", "permission denied: attach as * by glenda"},
		{nil, 4323, "glenda", "permission denied: attach as glenda by none"},
		{nil, 4323, "", "none"},
		{[]string{"uid=4321 bob sys"}, 4321, "bob", "bob"},
		{[]string{"uid=4321 bob sys"}, 4321, "sys", "sys"},
		{[]string{"uid=4321 bob sys"}, 4321, "", "bob"},
		{[]string{"uid=4321 bob sys"}, 4321, "glenda", "permission denied: attach as glenda by bob, sys"},
		{[]string{"uid=4321 bob sys"}, 4322, "bob", "bob"},
		{[]string{"uid=4321 *"}, 4321, "me", "me"},
		{[]string{"uid=4321 *"}, 4321, "", "none"},
		{[]string{"uid=4322 bob", "unix none"}, 4321, "glenda", "permission denied: attach as glenda by none"},
		{[]string{"0.0.0.0/0 sys", "name=* sys"}, 4321, "glenda", "glenda"},
	} {
		if tc.uid != self && os.Geteuid() != 0 {
			continue // only root can be another
		}
		path := filepath.Join(dir, "s"+string(rune('a'+i)))
		announce(t, "unix!"+path+"!mode=0666", identity(t, users, tc.rules...))
		if got := attachedAs(t, dialAs(t, path, tc.uid), tc.uname); got != tc.want {
			t.Errorf("%q: user %d attaches as %q: %q, want %q", tc.rules, tc.uid, tc.uname, got, tc.want)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("not root: other users were not tried")
	}
}

// TestIdentityNumbers attaches by number in the dialects that have them.
func TestIdentityNumbers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot connect as another user")
	}
	dir, err := os.MkdirTemp("", "ninep")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	announce(t, "unix!"+path+"!mode=0666", identity(t, ninep.HostUsers()))
	for _, dialect := range []ninep.Dialect{ninep.Unix, ninep.Linux} {
		for claim, want := range map[uint32]syscall.Errno{4321: 0, ninep.NoUID: 0, 65534: syscall.EPERM, 0: syscall.EPERM} {
			p := newPeer(t, dialAs(t, path, 4321))
			p.must(ninep.Fcall{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: 8192, Version: dialect.String()})
			p.dialect = dialect
			r := p.call(ninep.Fcall{Type: ninep.Tattach, Fid: 1, Afid: ninep.NoFid, UID: claim})
			if r.Errno != uint32(want) {
				t.Errorf("%v: user 4321 attaches as %d: %s", dialect, claim, r.Text(dialect))
			}
			p.conn.Close()
		}
	}
}

// TestIdentityTCP attaches through TCP, where only a list or a certificate
// tells who a client is.
func TestIdentityTCP(t *testing.T) {
	users := ninep.NewUsers(map[string]uint32{"glenda": 4321})
	for _, tc := range []struct {
		rules       []string
		uname, want string
	}{
		{nil, "glenda", "none"},
		{nil, "root", "none"},
		{nil, "", "none"},
		{[]string{"127.0.0.0/8 glenda"}, "glenda", "glenda"},
		{[]string{"127.0.0.0/8 glenda"}, "", "glenda"},
		{[]string{"127.0.0.0/8 glenda"}, "root", "permission denied: attach as root by glenda"},
		{[]string{"127.0.0.1 none"}, "root", "permission denied: attach as root by none"},
		{[]string{"127.0.0.1 *"}, "root", "root"},
		{[]string{"10.0.0.0/8 *", "unix *", "name=* *", "uid=0 *"}, "root", "none"},
	} {
		addr := announce(t, "tcp!127.0.0.1!0", identity(t, users, tc.rules...))
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		if got := attachedAs(t, conn, tc.uname); got != tc.want {
			t.Errorf("%q: attach as %q: %q, want %q", tc.rules, tc.uname, got, tc.want)
		}
	}

	ca := tlstest.NewCA(t, "ca")
	files := "!cert=" + ca.Issue("server", nil) + "!ca=" + ca.File
	client := func(cn, uri string) string {
		return ca.Issue("client", func(c *x509.Certificate) {
			c.Subject.CommonName = cn
			if uri != "" {
				u, _ := url.Parse(uri)
				c.URIs = []*url.URL{u}
			}
		})
	}
	for _, tc := range []struct {
		rules       []string
		cn, uri     string
		uname, want string
	}{
		{nil, "glenda", "", "glenda", "glenda"},
		{nil, "glenda", "", "", "glenda"},
		{nil, "glenda", "", "none", "none"},
		{nil, "glenda", "", "root", "permission denied: attach as root by glenda"},
		{nil, "*", "", "root", "none"},
		{nil, "", "spiffe://example.com/glenda", "glenda", "none"},
		{[]string{"name=spiffe://example.com/glenda glenda"}, "", "spiffe://example.com/glenda", "", "glenda"},
		{[]string{"name=spiffe://example.com/glenda glenda"}, "", "spiffe://example.com/glenda2", "glenda", "none"},
		{[]string{"name=spiffe://example.com/* glenda bob"}, "", "spiffe://example.com/x", "bob", "bob"},
		{[]string{"name=laptop glenda"}, "laptop", "", "laptop", "permission denied: attach as laptop by glenda"},
	} {
		addr := announce(t, "tls!127.0.0.1!0"+files, identity(t, users, tc.rules...))
		_, port, _ := net.SplitHostPort(addr.String())
		conn, err := netaddr.Dial(t.Context(), "tls!127.0.0.1!"+port+"!ca="+ca.File+"!cert="+client(tc.cn, tc.uri), "")
		if err != nil {
			t.Fatal(err)
		}
		if got := attachedAs(t, conn, tc.uname); got != tc.want {
			t.Errorf("%q: %q %q attaches as %q: %q, want %q", tc.rules, tc.cn, tc.uri, tc.uname, got, tc.want)
		}
	}

	// What begins in this process is believed.
	near, far := net.Pipe()
	cfg := identity(t, users, "unix none")
	served := make(chan error)
	go func() { served <- ninep.NewServer(userFS{}, cfg).ServeConn(t.Context(), far) }()
	if got := attachedAs(t, near, "root"); got != "root" {
		t.Errorf("attach as root through a pipe: %s", got)
	}
	<-served
}

// TestNoAuth asks a server without authentication for it, as clients of each
// dialect do before they attach.
func TestNoAuth(t *testing.T) {
	for dialect, want := range map[ninep.Dialect]ninep.Fcall{
		ninep.Classic: {Type: ninep.Rerror, Ename: "authentication not required"},
		ninep.Unix:    {Type: ninep.Rerror, Ename: "authentication not required", Errno: uint32(syscall.ENOENT)},
		ninep.Linux:   {Type: ninep.Rlerror, Errno: uint32(syscall.ENOENT)},
	} {
		p := newPeer(t, serve(t, userFS{}, identity(t, nil)))
		p.must(ninep.Fcall{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: 8192, Version: dialect.String()})
		p.dialect = dialect
		r := p.call(ninep.Fcall{Type: ninep.Tauth, Afid: 1, Uname: "glenda", UID: ninep.NoUID})
		if r.Type != want.Type || r.Ename != want.Ename || r.Errno != want.Errno {
			t.Errorf("%v: %s", dialect, r.Text(dialect))
		}
		// The fid is free, and an attach goes on without it.
		p.must(ninep.Fcall{Type: ninep.Tattach, Fid: 1, Afid: ninep.NoFid, Uname: "none", UID: ninep.NoUID})
	}
}

func TestParseUserRule(t *testing.T) {
	for text, want := range map[string]string{
		"unix glenda":           "",
		"uid=0 *":               "",
		"10.0.0.0/8 none":       "",
		"::1 a b c":             "",
		"name=a* glenda":        "",
		"":                      "want a client and users",
		"unix":                  "want a client and users",
		"uid= glenda":           "bad uid",
		"uid=me glenda":         "bad uid",
		"name= glenda":          "bad name",
		"name=*x glenda":        "bad name",
		"10.0.0.1/8 glenda":     "want 10.0.0.0/8",
		"::ffff:10.0.0.0/104 x": "unknown client",
		"example.com glenda":    `unknown client "example.com"`,
	} {
		_, err := ninep.ParseUserRule(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
