package ninep_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/ninep"
)

// listen serves fs at a unix socket and at a port of TCP.
func listen(t *testing.T, fs ninep.FS, cfg ninep.Config) (socket, tcp string) {
	t.Helper()
	s := ninep.NewServer(fs, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	socket = filepath.Join(t.TempDir(), "9p")
	for network, addr := range map[string]string{"unix": socket, "tcp": "127.0.0.1:0"} {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		if network == "tcp" {
			tcp = l.Addr().String()
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx, l) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	return socket, tcp
}

// program returns the way to a program, or skips the test.
func program(t *testing.T, name, from string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin", "/sbin", filepath.Join(os.Getenv("PLAN9"), "bin")} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	t.Skipf("no %s: %s", name, from)
	return ""
}

// output runs a program and returns what it says, both ways.
func output(t *testing.T, in string, prog string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), prog, args...)
	cmd.Stdin = strings.NewReader(in)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// TestPlan9port tries plan9port's 9p, a client of 9P2000.
func TestPlan9port(t *testing.T) {
	prog := program(t, "9p", "set $PLAN9 to a built plan9port")
	fs := newMemFS()
	socket, tcp := listen(t, fs, ninep.Config{})
	host, port, _ := net.SplitHostPort(tcp)
	for _, addr := range []string{"unix!" + socket, "tcp!" + host + "!" + port} {
		t.Run(addr[:4]+" create, write, read, ls, stat, rdwr and errors work", func(t *testing.T) {
			run := func(in string, args ...string) string {
				t.Helper()
				out, err := output(t, in, prog, append([]string{"-a", addr}, args...)...)
				if err != nil {
					t.Fatalf("9p %q: %v: %s", args, err, out)
				}
				return out
			}
			name := "f" + addr[:4]
			big := string(pattern(300 << 10))
			run("", "create", name)
			run(big, "write", name)
			if got := run("", "read", name); got != big {
				t.Errorf("read %d bytes, want %d, or they differ", len(got), len(big))
			}
			run("more\n", "write", "-l", name)
			if out := run("", "ls", "-l", "/"); !strings.Contains(out, name) || !strings.Contains(out, "--rw-") {
				t.Errorf("ls: %s", out)
			}
			if out := run("", "stat", name); !strings.Contains(out, "'"+name+"'") {
				t.Errorf("stat: %s", out)
			}
			// write -l has truncated it.
			if out := run("line\n", "rdwr", name); !strings.HasPrefix(out, "more\n") || !strings.HasSuffix(out, "more\nline\n") {
				t.Errorf("rdwr: %q", out)
			}
			if out := run("", "-n", "ls", "/"); !strings.Contains(out, name) { // with no Tauth
				t.Errorf("ls -n: %s", out)
			}
			if out, err := output(t, "", prog, "-a", addr, "read", "nothing"); err == nil || !strings.Contains(out, "file does not exist") {
				t.Errorf("read of nothing: %v, %s", err, out)
			}
			if out, err := output(t, "", prog, "-a", addr, "-A", "missing", "ls", "/"); err == nil || !strings.Contains(out, "file does not exist") {
				t.Errorf("attach to nothing: %v, %s", err, out)
			}
			run("", "rm", name)
			if out := run("", "ls", "/"); strings.Contains(out, name) {
				t.Errorf("still there: %s", out)
			}
		})
	}
}

// TestDiod tries the clients of diod, which speak 9P2000.L.
func TestDiod(t *testing.T) {
	const from = "apt-get install diod"
	fs := newMemFS()
	socket, tcp := listen(t, fs, ninep.Config{Users: ninep.NewUsers(map[string]uint32{"root": 0, "adm": 5})})
	_, root := dial(t, fs, ninep.ClientConfig{Dialect: ninep.Linux})
	want := string(pattern(300 << 10))
	if err := mustWalk(t, root).Create(t.Context(), "sub", ninep.ModeDir|0755, ninep.OREAD); err != nil {
		t.Fatal(err)
	}
	f := mustWalk(t, root, "sub")
	if err := f.Create(t.Context(), "file", 0644, ninep.OWRITE); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(t.Context(), []byte(want), 0); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{socket, tcp} {
		kind := map[bool]string{true: "unix", false: "tcp"}[addr == socket]
		t.Run(kind+" diodcat reads", func(t *testing.T) {
			prog := program(t, "diodcat", from)
			out, err := output(t, "", prog, "-s", addr, "-a", "/", "sub/file")
			if err != nil || out != want {
				t.Errorf("%v: %d bytes, want %d, or they differ: %.200s", err, len(out), len(want), out)
			}
			out, err = output(t, "", prog, "-s", addr, "-a", "/", "sub/nothing")
			if err == nil || !strings.Contains(out, "No such file or directory") {
				t.Errorf("nothing: %v: %s", err, out)
			}
			out, err = output(t, "", prog, "-s", addr, "-a", "missing", "file")
			if err == nil || !strings.Contains(out, "No such file or directory") {
				t.Errorf("no tree: %v: %s", err, out)
			}
		})
		t.Run(kind+" diodls lists", func(t *testing.T) {
			prog := program(t, "diodls", from)
			out, err := output(t, "", prog, "-s", addr, "-a", "/", "-l", "sub")
			if err != nil || !strings.Contains(out, "file") || !strings.Contains(out, "307200") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
