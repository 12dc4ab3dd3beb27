package netaddr_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/netaddr"
)

func TestParse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(file))
	for _, tc := range []struct{ addr, network, address, err string }{
		{"tcp!example.com!17035", "tcp", "example.com:17035", ""},
		{"tcp!example.com!venti", "tcp", "example.com:17034", ""},
		{"tcp!example.com!9fs", "tcp", "example.com:564", ""},
		{"tcp!example.com!0x10", "tcp", "example.com:16", ""},
		{"tcp!example.com", "tcp", "example.com:17034", ""},
		{"net!example.com!7", "tcp", "example.com:7", ""},
		{"tcp!::1!7", "tcp", "[::1]:7", ""},
		{"tcp!*!venti", "tcp", ":17034", ""},
		{"example.com:7", "tcp", "example.com:7", ""},
		{"example.com:venti", "tcp", "example.com:17034", ""},
		{"example.com", "tcp", "example.com:17034", ""},
		{"127.0.0.1", "tcp", "127.0.0.1:17034", ""},
		{"::1", "tcp", "[::1]:17034", ""},
		{"[::1]:7", "tcp", "[::1]:7", ""},
		{"*", "tcp", ":17034", ""},
		{"unix!/run/venti.sock", "unix", "/run/venti.sock", ""},
		{"unix!rel/venti.sock", "unix", "rel/venti.sock", ""},
		{"/run/venti.sock", "unix", "/run/venti.sock", ""},
		{"sock", "unix", "sock", ""},
		{"./sock", "unix", "./sock", ""},
		{"unix!/run/venti.sock!mode=0660!group=disk", "unix", "/run/venti.sock", ""},
		{"unix!/run/a!b", "unix", "/run/a!b", ""},
		{"unix!/run/a!b/c=d", "unix", "/run/a!b/c=d", ""},
		{"tls!example.com", "tls", "example.com:17034", ""},
		{"tls!example.com!7", "tls", "example.com:7", ""},
		{"tls!example.com!ca=/a b", "tls", "example.com:17034", ""},
		{"tls!::1!7!ca=a!cert=b!key=c!name=d", "tls", "[::1]:7", ""},
		{"tls!*!cert=b", "tls", ":17034", ""},

		{"", "", "", `address "": no host`},
		{"host!7", "", "", `unknown network "host"`},
		{"udp!host!7", "", "", `unknown network "udp"`},
		{"tcp!host!7!8", "", "", `unknown service "7!8"`},
		{"tcp!host!no-such-service", "", "", `unknown service "no-such-service"`},
		{"tcp!host!70000", "", "", `unknown service "70000"`},
		{"tcp!!7", "", "", "no host"},
		{"a:b:c", "", "", "too many colons"},
		{"tcp!a:b!7", "", "", "bad host"},
		{"tcp![::1]!7", "", "", "bad host"},
		{"[", "", "", "bad host"},
		{"host:", "", "", `unknown service ""`},
		{"nodir/sock", "", "", "bad host"},
		{"unix!", "", "", "bad socket name"},
		{"unix!!mode=0600", "", "", "bad socket name"},
		{"unix!/x!mood=0600", "", "", `unknown attribute "mood": there are mode, group`},
		{"unix!/x!mode=", "", "", "attribute mode has no value"},
		{"tls!h!ca=a!ca=b", "", "", "attribute ca is there twice"},
		{"tls!h!7!mode=0600", "", "", `unknown attribute "mode": there are ca, cert, key, name`},
		{"tls!ca=a", "", "", "bad host"},
		{"tls!!ca=a", "", "", "no host"},
		{"tcp!h!7!ca=a", "", "", `unknown service "7!ca=a"`},
		{"/" + strings.Repeat("x", 108), "", "", "at most 107 fit"},
	} {
		a, err := netaddr.Parse(tc.addr, "venti")
		if a.Network != tc.network || a.Address != tc.address {
			t.Errorf("%q: %q %q, want %q %q", tc.addr, a.Network, a.Address, tc.network, tc.address)
		}
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q: error %v, want %q", tc.addr, err, tc.err)
		}
	}
}

func TestListenAndDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	for _, addr := range []string{"tcp!127.0.0.1!0", "127.0.0.1:0", "tcp!localhost!0", "unix!" + path, path} {
		ln, err := netaddr.Config{}.Listen(t.Context(), addr, "venti")
		if err != nil {
			t.Errorf("listen %s: %v", addr, err)
			continue
		}
		to := addr
		if a, ok := ln.Addr().(*net.TCPAddr); ok {
			to = a.String()
		}
		conn, err := netaddr.Dial(t.Context(), to, "venti")
		if err != nil {
			t.Errorf("dial %s: %v", to, err)
		} else {
			conn.Close()
		}
		ln.Close()
	}
	if _, err := netaddr.Dial(t.Context(), "tcp!*!venti", "venti"); err == nil {
		t.Error("* was dialled")
	}
}

func TestListenOffLoopback(t *testing.T) {
	for _, addr := range []string{"tcp!*!0", "tcp!0.0.0.0!0", "[::]:0"} {
		if ln, err := (netaddr.Config{}).Listen(t.Context(), addr, "venti"); !errors.Is(err, netaddr.ErrNotLoopback) {
			t.Errorf("%s: %v, want ErrNotLoopback", addr, err)
			if err == nil {
				ln.Close()
			}
		}
	}
}

// TestStaleSocket shows that a socket which nobody answers at is replaced,
// and that one which is served, or a file, is not.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (netaddr.Config{}).Listen(t.Context(), path, ""); err == nil {
		t.Error("a served socket was replaced")
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	ln, err := netaddr.Config{}.Listen(t.Context(), path, "")
	if err != nil {
		t.Fatalf("a dead socket was not replaced: %v", err)
	}
	ln.Close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there after Close: %v", err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (netaddr.Config{}).Listen(t.Context(), path, ""); err == nil {
		t.Error("a file was replaced")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "x" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

// FuzzParse reads any text. What is taken has a network and an address that
// package net can split.
func FuzzParse(f *testing.F) {
	for _, addr := range []string{"tcp!h!1", "tcp!*", "h:1", "[::1]:9fs", "unix!/x", "/x", "a!b!c!d", "0x10", "::", "tls!h!1!ca=x!key=y", "unix!/x!mode=0660"} {
		f.Add(addr)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		a, err := netaddr.Parse(addr, "venti")
		switch {
		case err != nil:
		case a.Network == "unix" && a.Address != "":
		case a.Network == "tcp", a.Network == "tls":
			if _, _, err := net.SplitHostPort(a.Address); err != nil {
				t.Errorf("%q: %v", addr, err)
			}
		default:
			t.Errorf("%q: %+v", addr, a)
		}
	})
}
