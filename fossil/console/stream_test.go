package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// TestStream types at a served console.
func TestStream(t *testing.T) {
	dir := t.TempDir()
	part := newPartition(t, dir, "part")
	h := newHost(t, Config{Now: newClock().Now})
	var out bytes.Buffer
	in := "\necho hello\nnonsense\nfsys main config " + part + "\nopen\nhalt\ndf" // the last line has no end
	err := h.ServeConsole(t.Context(), struct {
		io.Reader
		io.Writer
	}{strings.NewReader(in), &out})
	want := "prompt: hello\nprompt: nonsense: - eh?\nprompt: main: main: main: file system main is halted\nmain: "
	if err != nil || out.String() != want {
		t.Errorf("got %q, %v, want %q", &out, err, want)
	}
}

// TestClient uses a console as fscons does.
func TestClient(t *testing.T) {
	dir := t.TempDir()
	h := newHost(t, Config{})
	addr, err := h.Serve(t.Context(), ServiceConfig{Addr: "unix!" + filepath.Join(dir, "c.sock"), Console: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	long := strings.Repeat("x", 100000)
	for _, tc := range []struct{ line, out, err string }{
		{"echo a", "a\n", ""},
		{"nonsense", "", "nonsense: - eh?"},
		{"", "", ""},
		{"echo " + long, long + "\n", ""},
		{"echo a\x00b", "a\uFFFDb\n", ""},
		{"echo a\necho b", "", "a line has an end of line within"},
	} {
		var out bytes.Buffer
		err := c.Exec(t.Context(), &out, tc.line)
		if got := ""; err != nil {
			if got = err.Error(); got != tc.err {
				t.Errorf("%.20q: error %q, want %q", tc.line, got, tc.err)
			}
		} else if tc.err != "" {
			t.Errorf("%.20q: no error, want %q", tc.line, tc.err)
		}
		if out.String() != tc.out {
			t.Errorf("%.20q: %.100q, want %.100q", tc.line, &out, tc.out)
		}
	}
	if c.Prompt() != "prompt: " {
		t.Errorf("prompt %q", c.Prompt())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Exec(ctx, io.Discard, "echo late"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: %v", err)
	}
	other, err := Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	service := h.serviceList(func(*service) bool { return true })[0]
	if err := h.endService(addr); err != nil {
		t.Error(err)
	}
	<-service.done
	if err := other.Exec(t.Context(), io.Discard, "echo late"); err == nil {
		t.Error("a service that has ended answers")
	}
}
