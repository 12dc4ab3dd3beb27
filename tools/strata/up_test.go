package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/venti"
	"strata/venti/blockcache"
)

// up serves dir on its sockets until the returned function is called.
func up(t *testing.T, dir string, opt upOptions) (*suite, func()) {
	t.Helper()
	opt.Local, opt.Size = true, 64*mib
	s, err := openSuite(t.Context(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx) }()
	return s, func() {
		t.Helper()
		stop()
		if err := errors.Join(<-done, s.close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "store")
	s, down := up(t, dir, upOptions{})
	c, err := venti.Dial(t.Context(), s.ventiSocket())
	if err != nil {
		t.Fatal(err)
	}
	score, err := c.WriteBlock(t.Context(), venti.DataType, []byte("kept"))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()

	// Nobody else may open the directory meanwhile.
	if _, err := openSuite(t.Context(), dir, upOptions{Local: true}); !errors.Is(err, disk.ErrInUse) {
		t.Errorf("opened a second time: %v, want %v", err, disk.ErrInUse)
	}
	down()

	// What was written is there after a stop, without a sync.
	s, down = up(t, dir, upOptions{})
	defer down()
	c, err = venti.Dial(t.Context(), s.ventiSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 10)
	if n, err := c.ReadBlock(t.Context(), score, venti.DataType, buf); err != nil || string(buf[:n]) != "kept" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if s.stored() == 0 {
		t.Error("nothing is stored")
	}
}

// TestUpAccess says who may use the sockets, and how.
func TestUpAccess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, down := up(t, dir, upOptions{SocketMode: "0660", SocketGroup: strconv.Itoa(os.Getgid()), Access: []string{"readonly unix"}, Limits: []string{"requests 1000"}})
	for _, path := range []string{s.ventiSocketPath(), s.vdiskSocketPath()} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	c, err := venti.Dial(t.Context(), s.ventiSocket())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteBlock(t.Context(), venti.DataType, []byte("x")); !errors.Is(err, venti.ErrReadOnly) {
		t.Errorf("a client that may only read wrote: %v", err)
	}
	c.Close()
	down()
	for _, opt := range []upOptions{{SocketMode: "rw"}, {SocketGroup: "no-such-group"}, {Access: []string{"allow us"}}, {Limits: []string{"friends 3"}}, {Users: []string{"us glenda"}}} {
		opt.Local = true
		if s, err := openSuite(t.Context(), dir, opt); err == nil {
			t.Errorf("%+v was taken", opt)
			s.close()
		}
	}
}

// TestMemory says how much memory caches have, and refuses what is none.
func TestMemory(t *testing.T) {
	if got := (&upOptions{}).memory(); got < minMemory || got > maxMemory {
		t.Errorf("caches have %d bytes when nobody says how many", got)
	}
	for all, want := range map[int64]int64{16 << 20: 12 << 20, 128 << 20: 96 << 20, 512 << 20: 96 << 20, 4 << 30: 512 << 20} {
		if store, live, stored := (&upOptions{Memory: all}).shares(); store != want || store+live+stored != all || stored < blockcache.Least {
			t.Errorf("of %d bytes, the store has %d, live disks have %d and stored ones %d", all, store, live, stored)
		}
	}
	for _, text := range []string{"lots", "1m", "-1"} {
		cmd := upCommand()
		fs := pflag.NewFlagSet(cmd.Name, pflag.ContinueOnError)
		cmd.Flags(fs)
		err := fs.Parse([]string{"--memory=" + text, t.TempDir()})
		if err == nil {
			err = cmd.Run(t.Context(), command.IO{Args: fs.Args()})
		}
		if err == nil || !strings.Contains(err.Error(), "--memory") {
			t.Errorf("--memory %s: %v", text, err)
		}
	}
}

// TestPages asks for the pages of a directory that is served.
func TestPages(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "http")
	_, down := up(t, filepath.Join(t.TempDir(), "store"), upOptions{HTTP: "unix!" + sock})
	defer down()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", sock)
	}}
	for target, want := range map[string]string{"/healthz": "ok\n", "/storage": "index=main\n", "/": "<!DOCTYPE html>"} {
		r, err := (&http.Client{Transport: transport}).Get("http://strata" + target)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != 200 || !strings.HasPrefix(string(body), want) {
			t.Errorf("%s: %s, %v\n%s", target, r.Status, err, body)
		}
	}
}

// TestFilesReadAsDisks reads a disk through a .vdisk file over 9P.
func TestFilesReadAsDisks(t *testing.T) {
	files := t.TempDir()
	image := filepath.Join(files, "raw")
	want := strings.Repeat("a disk without partitions. ", 4000)
	if err := os.WriteFile(image, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
	s, down := up(t, filepath.Join(t.TempDir(), "store"), upOptions{Files: files})
	defer down()
	res, err := importFile(t.Context(), s.store, image)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "day.vdisk"), []byte("vdisk:"+res.Score.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", s.vdiskSocketPath())
	if err != nil {
		t.Fatal(err)
	}
	c, err := ninep.NewClient(t.Context(), conn, ninep.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	root, err := c.Attach(t.Context(), "none", "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := root.Walk(t.Context(), "files", "day.vdisk")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t.Context(), ninep.OREAD); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if n, err := f.ReadAt(t.Context(), got, 0); n != len(want) || string(got) != want {
		t.Errorf("read %d bytes, %v; want the %d of the disk", n, err, len(want))
	}
}

func TestDemoLeavesForeignDirectoriesAlone(t *testing.T) {
	dir := t.TempDir()
	if err := freshDir(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing directory: %v, want %v", err, fs.ErrExist)
	}
	ours := filepath.Join(dir, "demo")
	for range 2 {
		if err := freshDir(ours); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(ours, "old"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := freshDir(ours); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(ours, "old")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what an earlier demo made is still there: %v", err)
	}
}

func TestCopyAndCompare(t *testing.T) {
	block := func(b byte) string { return strings.Repeat(string(b), 4096) }
	original := filepath.Join(t.TempDir(), "original")
	if err := os.WriteFile(original, []byte(block('a')+block('b')+block(0)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, disk   string
		same, zeroed int64
		err          string
	}{
		{"equal", block('a') + block('b') + block(0), 8192, 0, ""},
		{"a free block", block('a') + block(0) + block(0), 4096, 4096, ""},
		{"another byte", block('a') + block('c') + block(0), 0, 0, "differs from the original at 4096"},
		{"garbage", block('a') + block('b') + block('c'), 0, 0, "differs from the original at 8192"},
		{"short", block('a'), 0, 0, "4096 bytes, the original has 12288"},
		{"long", block('a') + block('b') + block(0) + block(0), 0, 0, "longer than the original"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			same, zeroed, err := copyAndCompare(t.Context(), strings.NewReader(tc.disk), original, filepath.Join(t.TempDir(), "copy"))
			if same != tc.same || zeroed != tc.zeroed || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%d same, %d zeroed, %v; want %d, %d, %q", same, zeroed, err, tc.same, tc.zeroed, tc.err)
			}
		})
	}
}
