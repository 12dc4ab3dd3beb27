package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"strata/fossil/console"
)

// serve serves a console without file systems, and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	h := console.New(console.Config{})
	t.Cleanup(func() { h.Close(context.Background()) })
	addr, err := h.Serve(t.Context(), console.ServiceConfig{Addr: "unix!" + filepath.Join(t.TempDir(), "c"), Console: true})
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func TestFscons(t *testing.T) {
	addr := serve(t)
	for _, tc := range []struct {
		name              string
		args              string
		stdin             string
		status            int
		stdout, stderrHas string
	}{
		{"words", "echo -n it's", "", 0, "it's", ""},
		{"a failure", "nonsense -x", "", 1, "", "nonsense: - eh?"},
		{"commands", "-c|echo a|-c|echo 'b  c'", "", 0, "a\nb  c\n", ""},
		{"commands, one of which fails", "-c|echo a|-c|nonsense|-c|echo b", "", 1, "a\n", "nonsense: - eh?"},
		{"lines", "", "echo a\r\n\n# nothing\necho b", 0, "a\nb\n", ""},
		{"lines, one of which fails", "", "nonsense\necho b\n", 1, "b\n", "nonsense: - eh?\nfossil/fscons: 1 commands failed"},
		{"both", "-c|echo|echo", "", 2, "", "usage: fossil/fscons"},
		{"nobody there", "-a|unix!/nowhere|echo", "", 1, "", "/nowhere"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := []string{"-a", addr}
			sep := " "
			if strings.Contains(tc.args, "|") {
				sep = "|"
			}
			if tc.args != "" {
				args = append(args, strings.Split(tc.args, sep)...)
			}
			var stdout, stderr bytes.Buffer
			status := newCommand().Execute(t.Context(), args, strings.NewReader(tc.stdin), &stdout, &stderr)
			if status != tc.status || stdout.String() != tc.stdout || !strings.Contains(stderr.String(), tc.stderrHas) {
				t.Errorf("status %d, want %d; printed %q, want %q; said %q, want %q", status, tc.status, &stdout, tc.stdout, &stderr, tc.stderrHas)
			}
		})
	}
}

func TestComplete(t *testing.T) {
	names := []string{"halt", "help", "snap", "snapclean", "snaptime"}
	for _, tc := range []struct{ line, want string }{
		{"he", "help "},
		{"s", "snap"},
		{"snapt", "snaptime "},
		{"h", "h"},
		{"nothing", "nothing"},
		{"fsys main sna", "fsys main snap"},
		{"fsys ma", "fsys ma"},
		{"help snapc", "help snapclean "},
		{"snap -s ha", "snap -s ha"},
	} {
		got, pos, ok := complete(names, tc.line, len(tc.line))
		if !ok {
			got, pos = tc.line, len(tc.line)
		}
		if got != tc.want || pos != len(tc.want) {
			t.Errorf("%q becomes %q at %d, want %q", tc.line, got, pos, tc.want)
		}
	}
}

// newTerminal returns the ends of a terminal: who sits at it, and what is
// used by programs.
func newTerminal(t *testing.T) (person, device *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	device, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { device.Close() })
	return person, device
}

// TestTerminal types at a terminal: it corrects a letter, completes a name,
// and calls back what it has typed before.
func TestTerminal(t *testing.T) {
	addr := serve(t)
	person, device := newTerminal(t)
	ended := make(chan int, 1)
	go func() {
		ended <- newCommand().Execute(t.Context(), []string{"-a", addr}, device, device, device)
	}()
	var seen strings.Builder
	expect := func(want string) {
		t.Helper()
		b := make([]byte, 1024)
		for from := seen.Len(); !strings.Contains(seen.String()[from:], want); {
			n, err := person.Read(b)
			if err != nil {
				t.Fatalf("%v, after %q", err, seen.String()[from:])
			}
			seen.Write(b[:n])
		}
	}
	expect("prompt: ")
	io.WriteString(person, "echx\x7fo hello\r")
	expect("hello\r\nprompt: ")
	io.WriteString(person, "nons\r")
	expect("nons: - eh?\r\nprompt: ")
	io.WriteString(person, "\x1b[A\x1b[A\r") // two lines up
	expect("hello\r\nprompt: ")
	io.WriteString(person, "ech\tagain\r")
	expect("again\r\nprompt: ")
	io.WriteString(person, "\x04")
	if status := <-ended; status != 0 {
		t.Errorf("status %d\n%q", status, seen.String())
	}
}

func TestHungUp(t *testing.T) {
	addr := serve(t)
	c, err := console.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	var failed console.Error
	if ran, err := run(t.Context(), c, io.Discard, io.Discard, "echo"); ran || err == nil || errors.As(err, &failed) {
		t.Errorf("without a console: %t, %v", ran, err)
	}
}
