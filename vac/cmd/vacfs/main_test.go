package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/vac"
	"strata/venti/ventitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archived archives a folder with one file, in a store that is served until the
// test ends, and leaves its score in home.vac of the current folder.
func archived(t *testing.T) (score, host string) {
	t.Helper()
	t.Chdir(t.TempDir())
	must(t, os.Mkdir("home", 0o755))
	must(t, os.WriteFile("home/motd", []byte("hello\n"), 0o644))
	st := ventitest.NewMemory()
	res, err := vac.Store(t.Context(), st, []string{"home"}, vac.Options{})
	must(t, err)
	score = vac.FormatScore(res.Score)
	must(t, os.WriteFile("home.vac", []byte(score+"\n"), 0o644))
	return score, ventitest.Serve(t, st)
}

// running is a vacfs at work.
type running struct {
	lines *bufio.Reader // of its standard output
	stop  func() (status int, stderr string)
}

// start starts vacfs. stdin and stdout may be nil.
func start(t *testing.T, stdin io.Reader, stdout io.WriteCloser, args ...string) running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var r running
	if stdout == nil {
		pr, pw := io.Pipe()
		r.lines, stdout = bufio.NewReader(pr), pw
	}
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	var msg bytes.Buffer
	status := make(chan int, 1)
	go func() {
		status <- serve().Execute(ctx, args, stdin, stdout, &msg)
		stdout.Close()
	}()
	r.stop = func() (int, string) {
		cancel()
		return <-status, msg.String()
	}
	return r
}

// line returns the next line that is printed.
func (r running) line(t *testing.T) string {
	t.Helper()
	line, err := r.lines.ReadString('\n')
	if err != nil {
		status, msg := r.stop()
		t.Fatalf("no line: %v; status %d, %s", err, status, msg)
	}
	return strings.TrimSuffix(line, "\n")
}

// readFile reads a file through a client.
func readFile(t *testing.T, c *ninep.Client, aname string, names ...string) string {
	t.Helper()
	root, err := c.Attach(t.Context(), "glenda", aname)
	must(t, err)
	f, err := root.Walk(t.Context(), names...)
	must(t, err)
	must(t, f.Open(t.Context(), ninep.OREAD))
	b := make([]byte, 100)
	n, err := f.ReadAt(t.Context(), b, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestServe(t *testing.T) {
	score, host := archived(t)
	t.Setenv("venti", host)
	t.Setenv("NAMESPACE", "")
	for _, tc := range []struct {
		name string
		args []string
		addr string
		path string
	}{
		{"default", []string{"home.vac"}, "unix!vacfs.home", "home/motd"},
		{"posted", []string{"-s", "other=home.vac"}, "unix!vacfs", "home/motd"},
		{"posted by name", []string{"-p", "-S", "x", score}, "unix!x", "home/motd"},
		{"at an address", []string{"-M", "4m", "-a", "unix!y", "home.vac"}, "unix!y", "home/motd"},
		{"two archives", []string{"-a", "unix!z", "home.vac", "again=" + score}, "unix!z", "again/home/motd"},
		{"by score only", []string{"-a", "unix!w"}, "unix!w", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := start(t, nil, nil, tc.args...)
			if got := r.line(t); got != tc.addr {
				t.Errorf("announces %q, want %q", got, tc.addr)
			}
			for _, d := range []ninep.Dialect{ninep.Classic, ninep.Linux} {
				conn, err := netaddr.Dial(t.Context(), tc.addr, "9fs")
				must(t, err)
				c, err := ninep.NewClient(t.Context(), conn, ninep.ClientConfig{Dialect: d})
				must(t, err)
				if tc.path != "" {
					if got := readFile(t, c, "", strings.Split(tc.path, "/")...); got != "hello\n" {
						t.Errorf("%v: read %q", d, got)
					}
				}
				if got := readFile(t, c, score+"/home", "motd"); got != "hello\n" {
					t.Errorf("%v: read %q by score", d, got)
				}
				c.Close()
			}
			if status, msg := r.stop(); status != 0 || msg != "" {
				t.Errorf("ends with status %d, %s", status, msg)
			}
		})
	}
	t.Setenv("NAMESPACE", t.TempDir())
	r := start(t, nil, nil, "home.vac")
	if got, want := r.line(t), "unix!"+filepath.Join(os.Getenv("NAMESPACE"), "vacfs.home"); got != want {
		t.Errorf("announces %q, want %q", got, want)
	}
	if status, msg := r.stop(); status != 0 {
		t.Errorf("ends with status %d, %s", status, msg)
	}
}

// two is two pipes as one connection.
type two struct {
	*io.PipeReader
	*io.PipeWriter
}

func (p two) Close() error { return errors.Join(p.PipeReader.Close(), p.PipeWriter.Close()) }

func TestStdio(t *testing.T) {
	_, host := archived(t)
	in, toServer := io.Pipe()
	fromServer, out := io.Pipe()
	r := start(t, in, out, "-h", host, "-i", "home.vac")
	c, err := ninep.NewClient(t.Context(), two{fromServer, toServer}, ninep.ClientConfig{Dialect: ninep.Linux})
	must(t, err)
	if got := readFile(t, c, "", "home", "motd"); got != "hello\n" {
		t.Errorf("read %q", got)
	}
	c.Close()
	if status, msg := r.stop(); status != 0 {
		t.Errorf("ends with status %d, %s", status, msg)
	}
}

func TestMount(t *testing.T) {
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("no FUSE: %v", err)
	} else {
		f.Close()
	}
	if _, err := exec.LookPath("fusermount3"); err != nil && os.Geteuid() != 0 {
		t.Skip("no fusermount3 (package fuse3), and not root")
	}
	_, host := archived(t)
	must(t, os.Mkdir("mnt", 0o755))
	r := start(t, nil, nil, "-h", host, "-a", "unix!s", "-m", "mnt", "home.vac")
	r.line(t)
	if got := r.line(t); got != "mnt" {
		t.Errorf("says that %q is mounted", got)
	}
	got, err := os.ReadFile("mnt/home/motd")
	must(t, err)
	if string(got) != "hello\n" {
		t.Errorf("read %q", got)
	}
	if err := os.WriteFile("mnt/home/motd", nil, 0o644); err == nil {
		t.Error("written to an archive")
	}
	if status, msg := r.stop(); status != 0 {
		t.Errorf("ends with status %d, %s", status, msg)
	}
	if list, err := os.ReadDir("mnt"); err != nil || len(list) != 0 {
		t.Errorf("still mounted: %v, %v", list, err)
	}
}

func TestRefuses(t *testing.T) {
	score, host := archived(t)
	missing := "vac:" + strings.Repeat("12", 20)
	for _, tc := range []struct {
		name   string
		status int
		msg    string
		args   []string
	}{
		{"no such file", 1, "other.vac: no such file", []string{"-h", host, "other.vac"}},
		{"no such archive", 1, missing, []string{"-h", host, missing}},
		{"no score", 1, "bad score", []string{"-h", host, "vac:12"}},
		{"bad memory", 2, "-M x", []string{"-h", host, "-M", "x", score}},
		{"little memory", 1, "too few", []string{"-h", host, "-M", "1k", score}},
		{"a path as a service", 2, "-S a/b", []string{"-h", host, "-S", "a/b", score}},
		{"two of one name", 1, "that of another", []string{"-h", host, "home.vac", "home=" + score}},
		{"no server", 1, "no such file", []string{"-h", "unix!none", score}},
		{"an open address", 1, "not a loopback address", []string{"-h", host, "-a", "tcp!*!0", score}},
	} {
		var out, msg bytes.Buffer
		status := serve().Execute(t.Context(), tc.args, strings.NewReader(""), &out, &msg)
		if status != tc.status || !strings.Contains(msg.String(), tc.msg) || out.Len() > 0 {
			t.Errorf("%s: status %d, %q, %q", tc.name, status, out.String(), msg.String())
		}
	}
}
