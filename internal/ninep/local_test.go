package ninep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"strata/internal/ninep"
)

// local returns a client of tree in memory, and the root.
func local(t testing.TB, tree ninep.FS, cfg ninep.ClientConfig) (*ninep.Client, *ninep.File) {
	t.Helper()
	c := ninep.NewServer(tree, ninep.Config{Users: cfg.Users}).Local(cfg)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	root, err := c.Attach(context.Background(), "glenda", "")
	if err != nil {
		t.Fatal(err)
	}
	return c, root
}

// TestLocal does through memory what TestClient does through sockets.
func TestLocal(t *testing.T) {
	for _, d := range dialects {
		t.Run(d.String(), func(t *testing.T) {
			users := ninep.NewUsers(map[string]uint32{"adm": 1, "glenda": 1000, "sys": 3})
			fs := newMemFS()
			c, root := local(t, fs, ninep.ClientConfig{Dialect: d, Users: users})
			testClient(t, root, d, ninep.DefaultMsize)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if n := fs.Open(); n != 0 {
				t.Errorf("%d handles are open", n)
			}
		})
	}
}

// seen is a file that remembers the memory that it is read into and written
// from.
type seen struct {
	sink
	p []byte
}

func (s *seen) Attach(context.Context, string, string) (ninep.Node, error) { return s, nil }
func (s *seen) Open(context.Context, ninep.OpenMode) (ninep.Handle, error) { return s, nil }

func (s *seen) ReadAt(_ context.Context, p []byte, _ int64) (int, error) {
	s.p = p
	return len(p), nil
}

func (s *seen) WriteAt(_ context.Context, p []byte, _ int64) (int, error) {
	s.p = p
	return len(p), nil
}

// TestLocalByReference has the tree get the caller's own memory, all of it at
// once, however much.
func TestLocalByReference(t *testing.T) {
	fs := new(seen)
	_, root := local(t, fs, ninep.ClientConfig{Dialect: ninep.Linux})
	if err := root.Open(t.Context(), ninep.ORDWR); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 40<<20) // more than the largest message
	for what, do := range map[string]func(context.Context, []byte, int64) (int, error){"read": root.ReadAt, "write": root.WriteAt} {
		fs.p = nil
		if n, err := do(t.Context(), p, 7); n != len(p) || err != nil {
			t.Errorf("%s: %d, %v", what, n, err)
		}
		if len(fs.p) != len(p) || &fs.p[0] != &p[0] {
			t.Errorf("%s: the tree got %d bytes elsewhere", what, len(fs.p))
		}
		if n := testing.AllocsPerRun(100, func() { do(context.Background(), p, 7) }); n > 1 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

// TestLocalCancel gives a read up: its context is the tree's.
func TestLocalCancel(t *testing.T) {
	tree := newSlowFS()
	_, root := local(t, tree, ninep.ClientConfig{})
	f, err := root.Walk(t.Context(), "slow")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t.Context(), ninep.OREAD); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := f.ReadAt(ctx, make([]byte, 100), 0)
		ended <- err
	}()
	<-tree.started
	if _, err := f.Stat(t.Context()); err != nil { // is not held up
		t.Error(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ReadAt: %v", err)
	}
}

// TestLocalClose closes a client with reads under way: they end, what was
// open is closed, and no more is possible.
func TestLocalClose(t *testing.T) {
	tree := newSlowFS()
	c, root := local(t, tree, ninep.ClientConfig{})
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
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { c.Close() })
	}
	wg.Wait()
	for range cap(ended) {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("ReadAt: %v", err)
		}
	}
	if n := tree.closed.Load(); n != 1 {
		t.Errorf("%d handles closed, want 1", n)
	}
	if _, err := f.Stat(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a later call: %v", err)
	}
}

// TestLocalErrors has errors arrive as a server's do.
func TestLocalErrors(t *testing.T) {
	c, root := local(t, newMemFS(), ninep.ClientConfig{})
	if _, err := root.Walk(t.Context(), "nothing"); !errors.Is(err, ninep.ErrNotExist) {
		t.Errorf("walk to nothing: %v", err)
	}
	for _, tc := range []struct {
		f    ninep.Fcall
		want error
	}{
		{ninep.Fcall{Type: ninep.Tversion}, ninep.ErrBotch},
		{ninep.Fcall{Type: ninep.Rread}, ninep.ErrBotch},
		{ninep.Fcall{Type: ninep.Tgetattr}, ninep.ErrBotch}, // not of this dialect
		{ninep.Fcall{Type: 255}, ninep.ErrBotch},
		{ninep.Fcall{Type: ninep.Twalk, Fid: 1, Newfid: 9, Names: make([]string, 17)}, ninep.ErrTooManyNames},
		{ninep.Fcall{Type: ninep.Tread, Fid: 1, Count: 1<<32 - 1}, ninep.ErrNotReadable},
		{ninep.Fcall{Type: ninep.Tclunk, Fid: 99}, ninep.ErrFid},
		{ninep.Fcall{Type: ninep.Tflush}, nil},
	} {
		if _, err := c.Call(t.Context(), &tc.f); !errors.Is(err, tc.want) {
			t.Errorf("message %d: %v, want %v", tc.f.Type, err, tc.want)
		}
	}
	if err := root.Create(t.Context(), "f", 0600, ninep.ORDWR); err != nil {
		t.Fatal(err)
	}
	want := pattern(100 << 10)
	if _, err := root.WriteAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	// A read by hand, with nowhere to go.
	rep, err := c.Call(t.Context(), &ninep.Fcall{Type: ninep.Tread, Fid: 1, Count: 1<<32 - 1})
	if err != nil || !bytes.Equal(rep.Data, want) {
		t.Errorf("Tread: %d bytes, %v", len(rep.Data), err)
	}
}

// BenchmarkTransport reads and writes with this package's client: over a
// socket, and by memory, where the tree's work is all there is.
func BenchmarkTransport(b *testing.B) {
	data := block(pattern(benchFile))
	for _, size := range []int{4 << 10, 1 << 20} {
		for _, write := range []bool{false, true} {
			for _, mem := range []bool{false, true} {
				name := fmt.Sprintf("%dK/%s/%s", size>>10, map[bool]string{false: "read", true: "write"}[write], map[bool]string{false: "socket", true: "memory"}[mem])
				b.Run(name, func(b *testing.B) {
					tree, mode := benchTree(data), ninep.OREAD
					if write {
						tree, mode = sink{}, ninep.OWRITE
					}
					var root *ninep.File
					if mem {
						_, root = local(b, tree, ninep.ClientConfig{Dialect: ninep.Linux})
					} else {
						_, root = dial(b, tree, ninep.ClientConfig{Dialect: ninep.Linux})
					}
					ctx := context.Background()
					f, err := root.Walk(ctx, "f")
					if err == nil {
						err = f.Open(ctx, mode)
					}
					if err != nil {
						b.Fatal(err)
					}
					do, p := f.ReadAt, make([]byte, size)
					if write {
						do = f.WriteAt
					}
					b.SetBytes(int64(size))
					b.ReportAllocs()
					off := int64(0)
					for b.Loop() {
						if n, err := do(ctx, p, off); n != size || err != nil && err != io.EOF {
							b.Fatalf("%d, %v", n, err)
						}
						off = (off + int64(size)) % benchFile
					}
				})
			}
		}
	}
}
