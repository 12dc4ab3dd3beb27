package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/store"
)

// serve runs the command until the function that it returns is called, which
// gives back its exit status and messages.
func serve(t *testing.T, args ...string) (stop func() (int, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- newCommand().Execute(ctx, args, nil, io.Discard, w)
		w.Close()
	}()
	var log bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(r, &log))
	for lines.Scan() && !strings.Contains(lines.Text(), "; serving ") {
	}
	drained := make(chan struct{})
	go func() {
		for lines.Scan() {
		}
		close(drained)
	}()
	t.Cleanup(cancel)
	return func() (int, string) {
		cancel()
		n := <-status
		<-drained
		return n, log.String()
	}
}

func TestServe(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	conf, err := store.Format(ctx, dir, store.FormatConfig{Space: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	sock := "unix!" + filepath.Join(dir, "sock")
	data := []byte("hello, world")
	dial := func() *venti.Client {
		t.Helper()
		c, err := venti.Dial(ctx, sock)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}

	stop := serve(t, "-s", "-c", conf, "-a", sock, "-C", "1m", "-I", "1m", "-B", "1m")
	c := dial()
	score, err := c.WriteBlock(ctx, venti.DataType, data) // and no sync
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	if n := newCommand().Execute(ctx, []string{"-c", conf, "-a", sock}, nil, io.Discard, &stderr); n != 1 || !strings.Contains(stderr.String(), "in use") {
		t.Errorf("a second server ended with %d: %s", n, &stderr)
	}
	c.Close()
	if n, log := stop(); n != 0 {
		t.Fatalf("status %d\n%s", n, log)
	}

	stop = serve(t, "-r", "-c", conf, "-a", sock)
	c = dial()
	buf := make([]byte, 100)
	if n, err := c.ReadBlock(ctx, score, venti.DataType, buf); err != nil || !bytes.Equal(buf[:n], data) {
		t.Errorf("read of what was written before the stop: %q, %v", buf[:n], err)
	}
	if _, err := c.WriteBlock(ctx, venti.DataType, []byte("more")); !errors.Is(err, venti.ErrReadOnly) {
		t.Errorf("write to a read-only server: %v", err)
	}
	c.Close()
	if n, log := stop(); n != 0 {
		t.Fatalf("status %d\n%s", n, log)
	}
}

func TestRefused(t *testing.T) {
	conf, err := store.Format(t.Context(), t.TempDir(), store.FormatConfig{Space: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		args   []string
		status int
		stderr string
	}{
		{"arguments", []string{"x"}, 2, "usage: venti"},
		{"bad size", []string{"-C", "1q"}, 2, "bad size"},
		{"no HTTP", []string{"-h", "tcp!127.0.0.1!80"}, 2, "no HTTP server"},
		{"no configuration", []string{"-c", conf + "x"}, 1, "no such file"},
		{"open to all", []string{"-c", conf, "-a", "tcp!*!venti"}, 1, "open"},
	} {
		var stderr bytes.Buffer
		status := newCommand().Execute(t.Context(), tc.args, nil, io.Discard, &stderr)
		if status != tc.status || !strings.Contains(stderr.String(), tc.stderr) {
			t.Errorf("%s: status %d, want %d, and %q in\n%s", tc.name, status, tc.status, tc.stderr, &stderr)
		}
	}
}
