package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"strata/fossil"
	"strata/fossil/console"
	"strata/internal/disk"
	"strata/internal/netaddr"
	"strata/internal/ninep"
)

// newPartition makes a file system in a file of the current directory, which
// is a new one; config is what is in front of it.
func newPartition(t *testing.T, config string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := disk.Create("part", 16<<20); err != nil {
		t.Fatal(err)
	}
	p, err := disk.Open("part", disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := fossil.Format(t.Context(), p, fossil.FormatConfig{}); err != nil {
		t.Fatal(err)
	}
	if config == "" {
		return
	}
	if _, err := p.WriteAt([]byte("fossil config\n"+config), 127<<10); err != nil {
		t.Fatal(err)
	}
}

// A program is a fossil that runs.
type program struct {
	addrs  []string // that it serves
	stderr *locked
	stop   func() int // and returns its status
}

// A locked is a buffer that may be read while it is written.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs fossil until it has announced so many addresses.
func start(t *testing.T, addrs int, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	p := &program{stderr: &locked{}}
	status := make(chan int, 1)
	go func() {
		status <- newCommand().Execute(ctx, args, strings.NewReader(""), out, p.stderr)
		out.Close()
	}()
	lines := bufio.NewScanner(in)
	for range addrs {
		if !lines.Scan() {
			t.Fatalf("it ended with %d: %s", <-status, p.stderr)
		}
		p.addrs = append(p.addrs, strings.TrimSpace(lines.Text()))
	}
	p.stop = sync.OnceValue(func() int {
		cancel()
		io.Copy(io.Discard, in)
		return <-status
	})
	t.Cleanup(func() { p.stop() })
	return p
}

func attach(t *testing.T, addr, user string) *ninep.File {
	t.Helper()
	conn, err := netaddr.Dial(t.Context(), addr, "5640")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ninep.NewClient(t.Context(), conn, ninep.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	root, err := c.Attach(t.Context(), user, "main")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestServe serves a partition that says itself how, as somebody writes to it,
// and again after an end by a signal.
func TestServe(t *testing.T) {
	newPartition(t, "# how to start\nfsys main config *\nfsys main open -V -c 1000\n\nfsys main create /active/tmp adm adm d777\n")
	p := start(t, 4, "-f", "part", "-a", "unix!f.sock", "-a", "tcp!127.0.0.1!0", "--http", "unix!h.sock", "-m", "1", "-D")
	if p.addrs[0] != "unix!f.sock" || !strings.HasPrefix(p.addrs[1], "tcp!127.0.0.1!") || p.addrs[2] != "unix!fscons.sock" || p.addrs[3] != "unix!h.sock" {
		t.Errorf("it serves %q", p.addrs)
	}
	root := attach(t, p.addrs[0], "glenda")
	f, err := root.Walk(t.Context(), "active", "tmp")
	if err == nil {
		err = f.Create(t.Context(), "f", 0o644, ninep.OWRITE)
	}
	if err == nil {
		_, err = f.WriteAt(t.Context(), []byte("kept"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := console.Dial(t.Context(), "unix!fscons.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out strings.Builder
	if err := c.Exec(t.Context(), &out, "stat /active/tmp/f"); err != nil || out.String() != "\tstat /active/tmp/f f glenda adm 644 4\n" {
		t.Errorf("the console says %q, %v", &out, err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return netaddr.Dial(ctx, "unix!h.sock", "9100")
	}}}
	r, err := client.Get("http://fossil/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || !bytes.Contains(text, []byte(`fossil_file_write_bytes_total{fsys="main"} 4`)) {
		t.Errorf("metrics: %v\n%s", err, text)
	}
	if status := p.stop(); status != 0 {
		t.Errorf("status %d: %s", status, p.stderr)
	}
	if !strings.Contains(p.stderr.String(), "Twrite tag") {
		t.Error("-D logs no messages")
	}

	p = start(t, 1, "-c", "fsys main config part", "-c", "open -Vr", "-a", "unix!f.sock", "--console", "none")
	root = attach(t, p.addrs[0], "none")
	f, err = root.Walk(t.Context(), "active", "tmp", "f")
	if err == nil {
		err = f.Open(t.Context(), ninep.OREAD)
	}
	b := make([]byte, 10)
	if err == nil {
		var n int
		n, err = f.ReadAt(t.Context(), b, 0)
		b = b[:n]
	}
	if string(b) != "kept" {
		t.Errorf("read %q, %v", b, err)
	}
	if status := p.stop(); status != 0 {
		t.Errorf("status %d: %s", status, p.stderr)
	}
}

// TestOwnServices has start-up commands that say where to serve: then nothing
// is served elsewhere.
func TestOwnServices(t *testing.T) {
	newPartition(t, "fsys main config\nfsys main open -V\nsrv -p cons\nsrv -A files\n")
	p := start(t, 2, "-f", "part")
	if want := []string{"unix!cons.sock", "unix!files.sock"}; fmt.Sprint(p.addrs) != fmt.Sprint(want) {
		t.Errorf("it serves %q, want %q", p.addrs, want)
	}
	if _, err := os.Stat("fossil.sock"); err == nil {
		t.Error("it serves at the usual socket, too")
	}
	attach(t, p.addrs[1], "anybody")
	if status := p.stop(); status != 0 {
		t.Errorf("status %d: %s", status, p.stderr)
	}
}

func TestFailures(t *testing.T) {
	newPartition(t, "fsys main config *\nnonsense\n")
	if err := os.WriteFile("empty", make([]byte, 1<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(t.TempDir(), "none", "s")
	for _, tc := range []struct {
		name, args     string
		status         int
		stdout, stderr string
	}{
		{"words", "main", 2, "", "usage: fossil"},
		{"bad percentage", "-m 101", 2, "", "bad percentage 101"},
		{"bad rule", "--user us", 2, "", "user rule"},
		{"bad format of logs", "--log-format xml", 2, "", "unknown log format"},
		{"a configuration with an error", "-f part", 1, "nonsense: nonsense: - eh?\npart: part: 1 commands failed\n", "start: 1 of 1 failed"},
		{"no configuration", "-f empty", 1, "empty: empty: no configuration\n", "start: 1 of 1 failed"},
		{"the second command", "-c echo -c open", 1, "\nopen: no current file system", "start: 1 of 2 failed"},
		{"an address that cannot be", "-a unix!" + in, 1, "", in},
		{"one that others reach", "-a tcp!*!0", 1, "", "not a loopback address"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(t.Context(), strings.Fields(tc.args), strings.NewReader(""), &stdout, &stderr)
			if status != tc.status || !strings.HasPrefix(stdout.String(), tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) {
				t.Errorf("status %d, want %d; printed %q, want %q; said %q, want %q", status, tc.status, &stdout, tc.stdout, &stderr, tc.stderr)
			}
		})
	}
}

// TestTerminal gives commands on standard input; the end of that is the end.
func TestTerminal(t *testing.T) {
	newPartition(t, "")
	var stdout, stderr bytes.Buffer
	in := "fsys main config part\nopen -V\ndf -x\nstat /active"
	status := newCommand().Execute(t.Context(), []string{"-t", "-c", "nonsense", "-a", "unix!f.sock", "--console", "none"}, strings.NewReader(in), &stdout, &stderr)
	want := "nonsense: nonsense: - eh?\nunix!f.sock\nprompt: main: main: unknown shorthand flag: 'x' in -x; usage: [fsys name] df\nmain: \tstat /active active adm adm d555 0\nmain: "
	if status != 0 || stdout.String() != want {
		t.Errorf("status %d, %s, printed\n%s\nwant\n%s", status, &stderr, &stdout, want)
	}
}
