package ninep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"testing"
	"time"

	"strata/internal/ninep"
)

var dialects = []ninep.Dialect{ninep.Classic, ninep.Unix, ninep.Linux}

// dial returns the root of fs through a client.
func dial(t testing.TB, tree ninep.FS, cfg ninep.ClientConfig) (*ninep.Client, *ninep.File) {
	t.Helper()
	c, err := ninep.NewClient(t.Context(), serve(t, tree, ninep.Config{Users: cfg.Users}), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	root, err := c.Attach(t.Context(), "glenda", "")
	if err != nil {
		t.Fatal(err)
	}
	return c, root
}

// TestClient does the same through each dialect, with messages large and
// small.
func TestClient(t *testing.T) {
	for _, d := range dialects {
		for _, msize := range []int{256, 8192, ninep.DefaultMsize} {
			t.Run(fmt.Sprintf("%s/%d", d, msize), func(t *testing.T) {
				users := ninep.NewUsers(map[string]uint32{"adm": 1, "glenda": 1000, "sys": 3})
				c, root := dial(t, newMemFS(), ninep.ClientConfig{Dialect: d, Msize: msize, Users: users})
				if c.Dialect() != d {
					t.Errorf("dialect is %s", c.Dialect())
				}
				testClient(t, root, d, msize)
			})
		}
	}
}

func testClient(t *testing.T, root *ninep.File, d ninep.Dialect, msize int) {
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, err := root.Walk(ctx)
	check(err)
	check(dir.Create(ctx, "dir", ninep.ModeDir|0750, ninep.OREAD))
	list, err := dir.ReadDir(ctx)
	if err != nil || len(list) != 0 {
		t.Errorf("new directory has %v, %v", list, err)
	}
	check(dir.Close(ctx))

	f, err := root.Walk(ctx, "dir")
	check(err)
	check(f.Create(ctx, "f", 0640, ninep.ORDWR))
	want := pattern(100*min(msize, 30000) + 17)
	n, err := f.WriteAt(ctx, want, 5)
	if n != len(want) || err != nil {
		t.Fatalf("WriteAt: %d, %v", n, err)
	}
	got := make([]byte, len(want)+100)
	n, err = f.ReadAt(ctx, got, 5)
	if n != len(want) || err != io.EOF || !bytes.Equal(got[:n], want) {
		t.Fatalf("ReadAt: %d, %v", n, err)
	}
	n, err = f.ReadAt(ctx, got[:len(want)-1], 6)
	if n != len(want)-1 || err != nil || !bytes.Equal(got[:n], want[1:]) {
		t.Fatalf("ReadAt of what is there: %d, %v", n, err)
	}
	if n, err := f.ReadAt(ctx, got, 1<<40); n != 0 || err != io.EOF {
		t.Errorf("ReadAt beyond the end: %d, %v", n, err)
	}
	check(f.Sync(ctx))

	mode, gid, length, mtime := ninep.Mode(0600), "sys", int64(10), time.Unix(77, 0)
	check(f.Wstat(ctx, ninep.Change{Length: &length}))
	check(f.Wstat(ctx, ninep.Change{Mode: &mode, GID: &gid, Mtime: &mtime}))
	s, err := f.Stat(ctx)
	check(err)
	if s.Name != "f" || s.Mode != mode || s.GID != gid || s.UID != "glenda" || s.Length != length || !s.Mtime.Equal(mtime) {
		t.Errorf("Stat: %+v", s)
	}
	if s.Qid.Path != f.Qid().Path {
		t.Errorf("Stat has qid %v, the file %v", s.Qid, f.Qid())
	}
	dir, err = root.Walk(ctx, "dir")
	check(err)
	check(f.Rename(ctx, dir, "g"))
	for i := range 20 {
		g, err := dir.Walk(ctx)
		check(err)
		check(g.Create(ctx, fmt.Sprintf("n%02d", i), 0600, ninep.OWRITE))
		check(g.Close(ctx))
	}
	check(dir.Open(ctx, ninep.OREAD))
	list, err = dir.ReadDir(ctx)
	check(err)
	var names []string
	for _, d := range list {
		names = append(names, d.Name)
	}
	if slices.Sort(names); len(names) != 21 || names[0] != "g" || names[1] != "n00" || names[20] != "n19" {
		t.Errorf("ReadDir: %q", names)
	}
	check(dir.Close(ctx))

	// Errors are the table's on this side too.
	if _, err := root.Walk(ctx, "dir", "f"); !errors.Is(err, ninep.ErrNotExist) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Walk to what is not there: %v", err)
	}
	if dir, err = root.Walk(ctx, "dir"); err != nil {
		t.Fatal(err)
	}
	if err := dir.Remove(ctx); !errors.Is(err, ninep.ErrNotEmpty) {
		t.Errorf("Remove of a full directory: %v", err)
	}
	check(f.Remove(ctx))
	if err := f.Close(ctx); !errors.Is(err, ninep.ErrFid) {
		t.Errorf("Close of a file that was removed: %v", err)
	}

	// A way of more names than one message takes.
	deep, err := root.Walk(ctx)
	check(err)
	var way []string
	for i := range 40 {
		name := fmt.Sprint("d", i)
		check(deep.Create(ctx, name, ninep.ModeDir|0700, ninep.OREAD))
		check(deep.Close(ctx))
		way = append(way, name)
		deep, err = root.Walk(ctx, way...)
		check(err)
	}
	if _, err := root.Walk(ctx, append(way[:39:39], "not")...); !errors.Is(err, ninep.ErrNotExist) {
		t.Errorf("a long way to nothing: %v", err)
	}
	up := make([]string, 40)
	for i := range up {
		up[i] = ".."
	}
	top, err := deep.Walk(ctx, up...)
	check(err)
	if top.Qid().Path != root.Qid().Path {
		t.Errorf("the top is %v, want %v", top.Qid(), root.Qid())
	}
}

// TestClientCancel gives reads up: the server is told, and the client goes
// on.
func TestClientCancel(t *testing.T) {
	tree := newSlowFS()
	_, root := dial(t, tree, ninep.ClientConfig{Msize: 8192})
	f, err := root.Walk(t.Context(), "slow")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t.Context(), ninep.OREAD); err != nil {
		t.Fatal(err)
	}
	for range 200 { // more than there are tags
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := f.ReadAt(ctx, make([]byte, 100), 0)
			ended <- err
		}()
		<-tree.started
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatalf("ReadAt: %v", err)
		}
	}
	if _, err := f.Stat(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestClientHangUp loses the connection with calls under way.
func TestClientHangUp(t *testing.T) {
	for _, how := range []string{"the server hangs up", "the client closes"} {
		t.Run(how, func(t *testing.T) {
			tree := newSlowFS()
			near, far := socketPair(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			served := make(chan error, 1)
			go func() { served <- ninep.NewServer(tree, ninep.Config{}).ServeConn(ctx, far) }()
			c, err := ninep.NewClient(ctx, near, ninep.ClientConfig{})
			if err != nil {
				t.Fatal(err)
			}
			root, err := c.Attach(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			f, err := root.Walk(t.Context(), "slow")
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Open(t.Context(), ninep.OREAD); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 10)
			for range cap(ended) {
				go func() {
					_, err := f.ReadAt(t.Context(), make([]byte, 100), 0)
					ended <- err
				}()
				<-tree.started
			}
			if how == "the server hangs up" {
				cancel()
			} else if err := c.Close(); err != nil {
				t.Error(err)
			}
			for range cap(ended) {
				if err := <-ended; err == nil {
					t.Error("a read succeeded")
				}
			}
			if _, err := f.Stat(t.Context()); err == nil {
				t.Error("a later call succeeded")
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
			c.Close()
		})
	}
}

// TestClientVersion meets servers that speak otherwise.
func TestClientVersion(t *testing.T) {
	for _, c := range []struct {
		name  string
		asked ninep.Dialect
		reply ninep.Fcall
		want  ninep.Dialect
		ok    bool
	}{
		{"as asked", ninep.Linux, ninep.Fcall{Type: ninep.Rversion, Msize: 8192, Version: "9P2000.L"}, ninep.Linux, true},
		{"less", ninep.Linux, ninep.Fcall{Type: ninep.Rversion, Msize: 8192, Version: "9P2000"}, ninep.Classic, true},
		{"more", ninep.Classic, ninep.Fcall{Type: ninep.Rversion, Msize: 8192, Version: "9P2000.L"}, 0, false},
		{"unknown", ninep.Linux, ninep.Fcall{Type: ninep.Rversion, Msize: 8192, Version: "unknown"}, 0, false},
		{"an error", ninep.Linux, ninep.Fcall{Type: ninep.Rerror, Ename: "go away"}, 0, false},
		{"a larger message", ninep.Linux, ninep.Fcall{Type: ninep.Rversion, Msize: 1 << 30, Version: "9P2000.L"}, 0, false},
		{"no message", ninep.Linux, ninep.Fcall{Type: ninep.Rversion, Msize: 10, Version: "9P2000.L"}, 0, false},
		{"nonsense", ninep.Linux, ninep.Fcall{Type: ninep.Rwalk}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, far := net.Pipe()
			go func() {
				defer far.Close()
				b := make([]byte, 100)
				far.Read(b)
				c.reply.Tag = ninep.NoTag
				b, _ = c.reply.Pack(b[:0], ninep.Classic)
				far.Write(b)
				far.Read(b[:1]) // until the client closes
			}()
			cl, err := ninep.NewClient(t.Context(), near, ninep.ClientConfig{Dialect: c.asked})
			if c.ok != (err == nil) {
				t.Fatalf("NewClient: %v", err)
			}
			if err == nil {
				if cl.Dialect() != c.want {
					t.Errorf("dialect %s, want %s", cl.Dialect(), c.want)
				}
				cl.Close()
			}
		})
	}
	near, far := net.Pipe()
	defer far.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ninep.NewClient(ctx, near, ninep.ClientConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("NewClient of a silent server: %v", err)
	}
}

// TestClientDevice makes devices and looks at them, in the dialects that know
// any.
func TestClientDevice(t *testing.T) {
	for _, d := range []ninep.Dialect{ninep.Unix, ninep.Linux} {
		_, root := dial(t, newMemFS(), ninep.ClientConfig{Dialect: d})
		for _, want := range []ninep.Device{{Block: true, Major: 7, Minor: 9}, {Major: 1, Minor: 300}} {
			name := fmt.Sprint("dev", want.Major)
			if err := root.Mknod(t.Context(), name, ninep.ModeDevice|0o600, want); err != nil {
				t.Fatalf("%v: %v", d, err)
			}
			f, err := root.Walk(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			a, _, err := f.Attr(t.Context())
			if got := ninep.UnpackDevice(a.Rdev, a.Mode&0o170000 == 0o060000); err != nil || got != want {
				t.Errorf("%v: %v, %v, want %v", d, got, err, want)
			}
		}
	}
}
