package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

// serve runs the command until the test ends, when it must end well.
func serve(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- newCommand().Execute(ctx, args, nil, io.Discard, w)
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	for lines.Scan() && !strings.Contains(lines.Text(), "serving ") {
	}
	drained := make(chan struct{})
	go func() {
		for lines.Scan() {
		}
		close(drained)
	}()
	t.Cleanup(func() {
		cancel()
		if n := <-status; n != 0 {
			t.Errorf("status %d", n)
		}
		<-drained
	})
}

func dial(t *testing.T, addr string) *venti.Client {
	t.Helper()
	c, err := venti.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRo(t *testing.T) {
	ctx := t.Context()
	st := ventitest.NewMemory()
	data := []byte("hello, world")
	score, err := st.WriteBlock(ctx, venti.DataType, data)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	upstream := filepath.Join(dir, "upstream")
	start := func() (stop func()) {
		ctx, cancel := context.WithCancel(ctx)
		ln, err := venti.ListenConfig{}.Listen(ctx, upstream)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- venti.NewServer(st, venti.ServerConfig{}).Serve(ctx, ln) }()
		return func() {
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
	}
	stop := start()
	addr := filepath.Join(dir, "ro")
	serve(t, "-v", "-a", addr, "-h", upstream)
	c := dial(t, addr)
	buf := make([]byte, 100)
	read := func() error {
		n, err := c.ReadBlock(ctx, score, venti.DataType, buf)
		if err == nil && !bytes.Equal(buf[:n], data) {
			t.Errorf("%q came back", buf[:n])
		}
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadBlock(ctx, score, venti.DirType, buf); !errors.Is(err, venti.ErrNotFound) {
		t.Errorf("a block that is not there: %v", err)
	}
	if _, err := c.ReadBlock(ctx, score, venti.DataType, buf[:3]); !errors.Is(err, venti.ErrTooLong) || !strings.Contains(err.Error(), "asked for 3 need at least 12") {
		t.Errorf("a block that is longer than asked for: %v", err)
	}
	for s, want := range map[venti.Score]bool{score: true, venti.ScoreOf(buf): false} {
		if has, err := c.HasBlock(ctx, s, venti.DataType); err != nil || has != want {
			t.Errorf("has %v: %v, %v", s, has, err)
		}
	}
	if _, err := c.WriteBlock(ctx, venti.DataType, data); !errors.Is(err, venti.ErrReadOnly) || err.Error() != "read-only server" {
		t.Errorf("a write: %v", err)
	}
	if err := c.Sync(ctx); err != nil {
		t.Errorf("a sync: %v", err)
	}

	// The other server goes, and comes again.
	stop()
	if read() == nil {
		t.Error("a block is read without a server")
	}
	stop = start()
	if err := read(); err != nil {
		t.Errorf("after the server came back: %v", err)
	}
	stop()
}

func TestPing(t *testing.T) {
	addr := filepath.Join(t.TempDir(), "ro")
	serve(t, "-a", addr, "-h", ventitest.Serve(t, ventitest.NewMemory()))
	nc, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	io.WriteString(nc, "venti-04:02-test\n\x00\x00\x00\x0f\x04\x00\x00\x0204\x00\x04none\x00\x00\x00"+
		"\x00\x00\x00\x02\x02\x07"+ // Tping
		"\x00\x00\x00\x02\x06\x08") // Tgoodbye
	if got, err := io.ReadAll(nc); err != nil || !bytes.HasSuffix(got, []byte("\x00\x00\x00\x02\x03\x07")) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"x"}, 2, "usage: "},
		{[]string{"-h", filepath.Join(t.TempDir(), "none")}, 1, "no such file"},
		{[]string{"-h", ventitest.Serve(t, ventitest.NewMemory()), "-a", "tcp!*!0"}, 1, "not a loopback address"},
	} {
		var stderr bytes.Buffer
		if n := newCommand().Execute(t.Context(), tc.args, nil, io.Discard, &stderr); n != tc.status || !strings.Contains(stderr.String(), tc.stderr) {
			t.Errorf("%q: status %d, %q", tc.args, n, &stderr)
		}
	}
}
