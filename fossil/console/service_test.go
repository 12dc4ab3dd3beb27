package console

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/venti"
	"strata/venti/ventitest"
)

// newMain returns a host with an open file system main.
func newMain(t *testing.T, cfg Config) (*Host, *Session) {
	t.Helper()
	part := newPartition(t, t.TempDir(), "part")
	h := newHost(t, cfg)
	s := h.NewSession()
	exec(t, s, "fsys main config "+part)
	exec(t, s, "open")
	return h, s
}

// exec runs a line that must succeed, and returns what it says.
func exec(t *testing.T, s *Session, line string) string {
	t.Helper()
	var out strings.Builder
	if err := s.Exec(t.Context(), &out, line); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return out.String()
}

// serveAt serves at an address, and returns it.
func serveAt(t *testing.T, h *Host, cfg ServiceConfig) string {
	t.Helper()
	addr, err := h.Serve(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// connect returns a client of what is served at an address, closed when the
// test ends.
func connect(t *testing.T, addr string) (*ninep.Client, error) {
	t.Helper()
	conn, err := netaddr.Dial(t.Context(), addr, port)
	if err != nil {
		return nil, err
	}
	c, err := ninep.NewClient(t.Context(), conn, ninep.ClientConfig{Dialect: ninep.Classic})
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// owner attaches as uname at an address, makes a file, and returns whose it
// is.
func owner(t *testing.T, addr, uname, aname string) (string, error) {
	t.Helper()
	c, err := connect(t, addr)
	if err != nil {
		return "", err
	}
	root, err := c.Attach(t.Context(), uname, aname)
	if err != nil {
		return "", err
	}
	f, err := root.Walk(t.Context(), "tmp")
	if err == nil {
		err = f.Create(t.Context(), "f", 0o666, ninep.OWRITE)
	}
	if err != nil {
		return "", err
	}
	d, err := f.Stat(t.Context())
	if err == nil {
		err = f.Remove(t.Context())
	}
	return d.UID, err
}

// TestIdentity looks as whom clients attach, by the ways in which they come
// and what services say of it.
func TestIdentity(t *testing.T) {
	rule, err := ninep.ParseUserRule("127.0.0.2 sys glenda")
	if err != nil {
		t.Fatal(err)
	}
	users := ninep.NewUsers(map[string]uint32{"glenda": uint32(os.Geteuid()), "none": 65534})
	dir := t.TempDir()
	h, s := newMain(t, Config{Users: users, Identity: &ninep.Identity{Users: users, Rules: []ninep.UserRule{rule}}})
	exec(t, s, "create /active/tmp adm adm d777")
	exec(t, s, "fsys open config "+newPartition(t, t.TempDir(), "part"))
	exec(t, s, "fsys open open -A")
	exec(t, s, "fsys open create /active/tmp adm adm d777")
	sock := func(name string) string { return "unix!" + filepath.Join(dir, name) }
	for _, tc := range []struct {
		name         string
		cfg          ServiceConfig
		uname, aname string
		want, err    string
	}{
		{"socket", ServiceConfig{Addr: sock("a")}, "", "", "glenda", ""},
		{"socket, as another: the server's own user may", ServiceConfig{Addr: sock("b")}, "adm", "", "adm", ""},
		{"tcp", ServiceConfig{Addr: "tcp!127.0.0.1!0"}, "adm", "", "none", ""},
		{"tcp, no none", ServiceConfig{Addr: "tcp!127.0.0.1!0", NoNone: true}, "adm", "", "", "cannot attach as none before authentication"},
		{"tcp, unknown", ServiceConfig{Addr: "tcp!127.0.0.1!0", KnownOnly: true}, "adm", "", "", "9p version"},
		{"tcp, believed", ServiceConfig{Addr: "tcp!127.0.0.1!0", NoAuth: true, NoNone: true}, "adm", "", "adm", ""},
		{"tcp, believed by the file system", ServiceConfig{Addr: "tcp!127.0.0.1!0", NoNone: true}, "adm", "open/active", "adm", ""},
		{"tcp, who is no user there", ServiceConfig{Addr: "tcp!127.0.0.1!0", NoAuth: true}, "stranger", "", "none", ""},
		{"no such file system", ServiceConfig{Addr: sock("c")}, "", "other", "", "fsys: 'other' not found"},
		{"below", ServiceConfig{Addr: sock("d")}, "", "main/active", "glenda", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr := serveAt(t, h, tc.cfg)
			got, err := owner(t, addr, tc.uname, tc.aname)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("as %s: %q, %v, want %s", tc.uname, got, err, tc.err)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Errorf("as %s: %q, %v, want %s", tc.uname, got, err, tc.want)
			}
		})
	}
	// From an address that a rule knows.
	for _, cfg := range []ServiceConfig{{Addr: "tcp!127.0.0.1!0", KnownOnly: true, NoNone: true}} {
		addr, err := netaddr.Parse(serveAt(t, h, cfg), port)
		if err != nil {
			t.Fatal(err)
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		conn, err := d.DialContext(t.Context(), "tcp", addr.Address)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ninep.NewClient(t.Context(), conn, ninep.ClientConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Attach(t.Context(), "sys", ""); err != nil {
			t.Errorf("one whom a rule knows: %v", err)
		}
		if _, err := c.Attach(t.Context(), "adm", "main"); err == nil {
			t.Error("one whom a rule knows attached as another")
		}
		if who := exec(t, s, "who"); !strings.Contains(who, "127.0.0.2") || !strings.Contains(who, " sys\n") {
			t.Errorf("who says %q", who)
		}
	}
}

// TestLooseServices serves one file system with other permissions at other
// addresses.
func TestLooseServices(t *testing.T) {
	h, s := newMain(t, Config{})
	dir := t.TempDir()
	uid := "sys"
	for name, tc := range map[string]struct {
		cfg          ServiceConfig
		read, change bool
	}{
		"usual":          {ServiceConfig{}, false, false},
		"no permissions": {ServiceConfig{NoPermissions: true}, true, true},
		"any wstat":      {ServiceConfig{AnyWstat: true}, false, true},
	} {
		file := strings.ReplaceAll(name, " ", "")
		exec(t, s, "create /active/"+file+" adm adm 600")
		tc.cfg.Addr = "unix!" + filepath.Join(dir, file)
		c, err := connect(t, serveAt(t, h, tc.cfg))
		if err != nil {
			t.Fatal(err)
		}
		root, err := c.Attach(t.Context(), "glenda", "main")
		if err != nil {
			t.Fatal(err)
		}
		f, err := root.Walk(t.Context(), "active", file)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Wstat(t.Context(), ninep.Change{UID: &uid}); (err == nil) != tc.change {
			t.Errorf("%s: change the owner: %v", name, err)
		}
		if err := f.Open(t.Context(), ninep.OREAD); (err == nil) != tc.read {
			t.Errorf("%s: read: %v", name, err)
		}
		// The console is for adm, whatever permissions there are.
		ctl, err := root.Walk(t.Context(), "ctl")
		if err != nil {
			t.Fatal(err)
		}
		if err := ctl.Open(t.Context(), ninep.ORDWR); !errors.Is(err, ninep.ErrPermission) {
			t.Errorf("%s: glenda opens ctl: %v", name, err)
		}
	}
}

// TestTooMany has more connections than there may be.
func TestTooMany(t *testing.T) {
	h, s := newMain(t, Config{})
	exec(t, s, "con -m 2")
	addr := serveAt(t, h, ServiceConfig{Addr: "unix!" + filepath.Join(t.TempDir(), "s")})
	console := serveAt(t, h, ServiceConfig{Addr: "unix!" + filepath.Join(t.TempDir(), "c"), Console: true})
	first, err := connect(t, addr)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Dial(t.Context(), console)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, addr); err == nil {
		t.Error("a third connection was served")
	}
	if _, err := Dial(t.Context(), console); err == nil {
		t.Error("a third connection, to the console, was served")
	}
	if out := exec(t, s, "con"); !strings.Contains(out, "connections: 2\n") {
		t.Errorf("con says %q", out)
	}
	first.Close()
	second.Close()
	for {
		c, err := connect(t, addr) // when the server has noticed
		if err == nil {
			if _, err := c.Attach(t.Context(), "glenda", ""); err != nil {
				t.Error(err)
			}
			break
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// TestHaltClients has a client at work on a file system that is halted: it
// waits, can give up, and goes on after unhalt; after close it gets errors.
func TestHaltClients(t *testing.T) {
	h, s := newMain(t, Config{})
	exec(t, s, "create /active/f glenda adm 666")
	c, err := connect(t, serveAt(t, h, ServiceConfig{Addr: "unix!" + filepath.Join(t.TempDir(), "s")}))
	if err != nil {
		t.Fatal(err)
	}
	root, err := c.Attach(t.Context(), "glenda", "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := root.Walk(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t.Context(), ninep.ORDWR); err != nil {
		t.Fatal(err)
	}
	exec(t, s, "halt")
	ctx, cancel := context.WithCancel(t.Context())
	written := make(chan error, 2)
	go func() {
		_, err := f.WriteAt(ctx, []byte("given up"), 0)
		written <- err
	}()
	go func() {
		_, err := f.WriteAt(t.Context(), []byte("patient"), 0)
		written <- err
	}()
	for len(h.serviceList(func(s *service) bool { return s.server != nil && s.server.Conns()[0].Requests == 2 })) == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the writes do not arrive")
		}
	}
	cancel()
	if err := <-written; !errors.Is(err, context.Canceled) {
		t.Errorf("a write that was given up: %v", err)
	}
	if out := exec(t, s, "fsys"); out != "\tmain\n" {
		t.Errorf("fsys says %q", out)
	}
	exec(t, s, "unhalt")
	if err := <-written; err != nil {
		t.Errorf("a write that waited: %v", err)
	}
	b := make([]byte, 20)
	if n, err := f.ReadAt(t.Context(), b, 0); string(b[:n]) != "patient" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	exec(t, s, "close")
	if _, err := f.WriteAt(t.Context(), []byte("late"), 0); err == nil || !strings.Contains(err.Error(), "file system is closed") {
		t.Errorf("a write after close: %v", err)
	}
	exec(t, s, "open")
	if _, err := f.ReadAt(t.Context(), b, 0); err == nil {
		t.Error("a file of before the close is read")
	}
	if root, err = c.Attach(t.Context(), "glenda", "main/active/f"); err != nil {
		t.Fatal(err)
	}
	if d, err := root.Stat(t.Context()); err != nil || d.Length != 7 {
		t.Errorf("after open: %+v, %v", d, err)
	}
}

// TestCloseWhileHalted ends a host with a halted file system, and a client
// that has a file open which is to be removed.
func TestCloseWhileHalted(t *testing.T) {
	part := newPartition(t, t.TempDir(), "part")
	h := New(Config{})
	s := h.NewSession()
	exec(t, s, "fsys main config "+part)
	exec(t, s, "open -V")
	exec(t, s, "create /active/tmp glenda adm d777")
	c, err := connect(t, serveAt(t, h, ServiceConfig{Addr: "unix!" + filepath.Join(t.TempDir(), "s")}))
	if err != nil {
		t.Fatal(err)
	}
	const orclose = 0x40
	fid := c.NewFid()
	for _, f := range []ninep.Fcall{
		{Type: ninep.Tattach, Fid: fid, Afid: ninep.NoFid, Uname: "glenda", Aname: "main/active/tmp"},
		{Type: ninep.Tcreate, Fid: fid, Name: "f", Perm: 0o644, Mode: uint8(ninep.OWRITE) | orclose},
	} {
		if _, err := c.Call(t.Context(), &f); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, s, "halt")
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	h = newHost(t, Config{})
	s = h.NewSession()
	exec(t, s, "fsys main config "+part)
	exec(t, s, "open -r")
	var out strings.Builder
	if err := s.Exec(t.Context(), &out, "stat /active/tmp/f"); err == nil {
		t.Errorf("what was to be removed is there: %s", &out)
	}
}

// A stubborn is a store whose writes wait until they are let go, whatever
// becomes of their contexts.
type stubborn struct {
	*ventitest.Memory
	asked, open chan struct{}
}

func (s *stubborn) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	<-s.open
	return s.Memory.WriteBlock(ctx, t, data)
}

// TestHaltInVain gives up a halt, and a close, that wait for an archiver: the
// file system goes on as before.
func TestHaltInVain(t *testing.T) {
	store := &stubborn{ventitest.NewMemory(), make(chan struct{}, 1), make(chan struct{})}
	_, s := newMain(t, Config{Venti: store})
	exec(t, s, "create /active/f glenda adm 666")
	exec(t, s, "snap -a")
	<-store.asked
	for _, line := range []string{"halt", "close"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := s.Exec(ctx, io.Discard, line); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", line, err)
		}
		cancel()
		exec(t, s, "stat /active/f")
	}
	close(store.open)
	exec(t, s, "halt")
	exec(t, s, "unhalt")
	exec(t, s, "stat /active/f")
}
