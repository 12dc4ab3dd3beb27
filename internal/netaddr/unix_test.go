package netaddr_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"strata/internal/netaddr"
)

// TestSocketMode looks at sockets made under a umask that takes nothing away.
func TestSocketMode(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	for attrs, want := range map[string]fs.FileMode{
		"": 0o600, "!mode=0660": 0o660, "!mode=666": 0o666, "!mode=0200": 0o200, "!mode=0660!group=12345": 0o660,
	} {
		if os.Getuid() != 0 && strings.Contains(attrs, "group") {
			continue // it takes root, or a group that we are in
		}
		path := filepath.Join(t.TempDir(), "s")
		ln, err := netaddr.Config{}.Listen(t.Context(), "unix!"+path+attrs, "")
		if err != nil {
			t.Errorf("%s: %v", attrs, err)
			continue
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Mode().Perm(); got != want {
			t.Errorf("%s: mode %v, want %v", attrs, got, want)
		}
		if gid := st.Sys().(*syscall.Stat_t).Gid; strings.Contains(attrs, "group") && gid != 12345 {
			t.Errorf("%s: group %d", attrs, gid)
		}
		ln.Close()
	}
}

// TestSocketWindow asks the kernel for what mode a socket's file is made with:
// nobody else can connect before its mode is set.
func TestSocketWindow(t *testing.T) {
	if os.Getenv("NETADDR_SOCKET") != "" {
		syscall.Umask(0)
		ln, err := netaddr.Config{}.Listen(t.Context(), os.Getenv("NETADDR_SOCKET"), "")
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		return
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace (package strace) to see the system calls with")
	}
	path := filepath.Join(t.TempDir(), "s")
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-o", trace, "-e", "trace=fchmod,bind,listen,fchmodat", os.Args[0], "-test.run", "^TestSocketWindow$")
	cmd.Env = append(os.Environ(), "NETADDR_SOCKET=unix!"+path+"!mode=0666")
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "ptrace") || strings.Contains(string(out), "PTRACE") {
			t.Skipf("strace may not trace here: %s", out)
		}
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for line := range strings.Lines(string(text)) {
		for call, sign := range map[string]string{"fchmod(": "private", "bind(": "bind", "listen(": "listen", "fchmodat(": "widen"} {
			if !strings.Contains(line, call) {
				continue
			}
			if sign == "private" && !strings.Contains(line, ", 0600)") || sign == "widen" && !strings.Contains(line, "0666") {
				continue
			}
			order = append(order, sign)
		}
	}
	if got := strings.Join(order, " "); got != "private bind listen widen" {
		t.Errorf("calls: %s\n%s", got, text)
	}
}

func TestSocketRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for addr, want := range map[string]string{
		path + "!mode=0666":                  "unknown network", // a path alone has no attributes
		"unix!" + path + "!mode=rw":          "want an octal number",
		"unix!" + path + "!mode=4666":        "want an octal number",
		"unix!" + path + "!mode=0466":        "the owner can connect",
		"unix!" + path + "!group=no-such-gr": "no-such-gr",
		"unix!@abstract":                     "has no permissions",
	} {
		ln, err := netaddr.Config{}.Listen(t.Context(), addr, "")
		if err == nil {
			ln.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", addr, err, want)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was refused has left a socket: %v", err)
	}
	ln, err := netaddr.Config{}.Listen(t.Context(), path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := netaddr.Dial(t.Context(), "unix!"+path+"!mode=0600", ""); err == nil || !strings.Contains(err.Error(), "for who announces it") {
		t.Errorf("dialled with a mode: %v", err)
	}
}

// TestSocketOthers connects as another user, whom the mode lets in or not.
func TestSocketOthers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: cannot run as another user")
	}
	dir, err := os.MkdirTemp("", "netaddr")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		attrs    string
		uid, gid uint32
		ok       bool
	}{
		{"", 4321, 4321, false},
		{"!mode=0666", 4321, 4321, true},
		{"!mode=0660!group=4322", 4321, 4321, false},
		{"!mode=0660!group=4322", 4321, 4322, true},
	} {
		path := filepath.Join(dir, "s")
		ln, err := netaddr.Config{}.Listen(t.Context(), "unix!"+path+tc.attrs, "")
		if err != nil {
			t.Fatal(err)
		}
		err = dialAs(path, tc.uid, tc.gid)
		if tc.ok && err != nil || !tc.ok && !errors.Is(err, syscall.EACCES) {
			t.Errorf("%s: user %d of group %d: %v", tc.attrs, tc.uid, tc.gid, err)
		}
		ln.Close()
	}
}

// dialAs connects in a thread with another file system user, whom the kernel
// asks when it looks at permissions.
func dialAs(path string, uid, gid uint32) error {
	done := make(chan error)
	go func() {
		// The thread ends with the goroutine, so it is nobody else's.
		done <- func() error {
			runtime.LockOSThread()
			if _, err := unix.SetfsgidRetGid(int(gid)); err != nil {
				return err
			}
			if _, err := unix.SetfsuidRetUid(int(uid)); err != nil {
				return err
			}
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer syscall.Close(fd)
			return syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
		}()
	}()
	return <-done
}
