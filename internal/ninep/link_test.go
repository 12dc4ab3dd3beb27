package ninep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"strata/internal/ninep"
)

// A line is a client whose connections can be cut, and a server that stays.
type line struct {
	t    *testing.T
	srv  *ninep.Server
	mu   sync.Mutex
	cuts []func() // of each connection so far
	down error    // what dialling says
}

func (l *line) dial(context.Context) (io.ReadWriteCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return nil, l.down
	}
	near, far := socketPair(l.t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := l.srv.ServeConn(ctx, far); err != nil {
			l.t.Errorf("ServeConn: %v", err)
		}
	}()
	cut := func() { cancel(); <-ended }
	l.t.Cleanup(cut)
	l.cuts = append(l.cuts, cut)
	return near, nil
}

// cut ends the newest connection.
func (l *line) cut() {
	l.mu.Lock()
	cut := l.cuts[len(l.cuts)-1]
	l.mu.Unlock()
	cut()
}

func (l *line) set(down error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
}

// newLine serves tree to a client that dials again.
func newLine(t *testing.T, tree ninep.FS, d ninep.Dialect) (*line, *ninep.Client, *ninep.File) {
	t.Helper()
	l := &line{t: t, srv: ninep.NewServer(tree, ninep.Config{})}
	rwc, err := l.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := ninep.NewClient(t.Context(), rwc, ninep.ClientConfig{Dialect: d, Redial: l.dial, Msize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	root, err := c.Attach(t.Context(), "glenda", "")
	if err != nil {
		t.Fatal(err)
	}
	return l, c, root
}

// TestRedial loses the connection between calls: files are found again, open
// as they were, and what is not there any more is not mistaken for another.
func TestRedial(t *testing.T) {
	for _, d := range dialects {
		t.Run(d.String(), func(t *testing.T) {
			ctx := t.Context()
			check := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			l, c, root := newLine(t, newMemFS(), d)
			dir, err := root.Walk(ctx)
			check(err)
			check(dir.Create(ctx, "dir", ninep.ModeDir|0700, ninep.OREAD))
			f, err := root.Walk(ctx, "dir", "..", "dir")
			check(err)
			check(f.Create(ctx, "f", 0600, ninep.ORDWR))
			want := pattern(300 << 10)
			_, err = f.WriteAt(ctx, want, 0)
			check(err)
			check(f.Sync(ctx))
			closed, err := root.Walk(ctx, "dir", "f")
			check(err)

			l.cut()
			got := make([]byte, len(want))
			if n, err := f.ReadAt(ctx, got, 0); n != len(got) || err != nil || !bytes.Equal(got, want) {
				t.Fatalf("ReadAt: %d, %v", n, err)
			}
			if s, err := closed.Stat(ctx); err != nil || s.Length != int64(len(want)) {
				t.Errorf("Stat: %+v, %v", s, err)
			}
			if list, err := dir.ReadDir(ctx); err != nil || len(list) != 1 || list[0].Name != "f" {
				t.Errorf("ReadDir: %v, %v", list, err)
			}
			check(f.Sync(ctx)) // nothing was unsynced
			l.cut()
			check(closed.Close(ctx))
			if _, err := f.WriteAt(ctx, []byte("over"), 0); err != nil {
				t.Error(err)
			}
			l.cut()
			// The first may only find out that the connection is lost.
			told := 0
			for f.Sync(ctx) != nil {
				told++
			}
			if told < 1 || told > 2 {
				t.Errorf("%d syncs failed after the loss of what a write went over", told)
			}

			// The way leads elsewhere.
			g, err := root.Walk(ctx, "dir", "f")
			check(err)
			check(g.Rename(ctx, mustWalk(t, root, "dir"), "g"))
			check(g.Close(ctx))
			other := mustWalk(t, root, "dir")
			check(other.Create(ctx, "f", 0600, ninep.OWRITE))
			l.cut()
			if _, err := f.ReadAt(ctx, got, 0); !errors.Is(err, ninep.ErrRemoved) {
				t.Errorf("ReadAt of what has another name now: %v", err)
			}
			if err := f.Remove(ctx); !errors.Is(err, ninep.ErrRemoved) {
				t.Errorf("Remove of what has another name now: %v", err)
			}
			check(mustWalk(t, root, "dir", "f").Remove(ctx))
			if _, err := other.Stat(ctx); d != ninep.Linux && !errors.Is(err, ninep.ErrNotExist) && err != nil {
				t.Errorf("Stat of what was removed: %v", err)
			}

			// No server; then one again; and then a closed client.
			l.set(errors.New("nobody there"))
			l.cut()
			if _, err := root.Stat(ctx); err == nil || !strings.Contains(err.Error(), "nobody there") {
				t.Errorf("Stat without a server: %v", err)
			}
			l.set(nil)
			if _, err := root.Stat(ctx); err != nil {
				t.Error(err)
			}
			check(c.Close())
			if _, err := root.Stat(ctx); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Stat of a closed client: %v", err)
			}
		})
	}
}

func mustWalk(t *testing.T, f *ninep.File, names ...string) *ninep.File {
	t.Helper()
	g, err := f.Walk(t.Context(), names...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestRedialInFlight loses the connection with requests under way: those with
// the same effect twice are done on the next, others fail.
func TestRedialInFlight(t *testing.T) {
	tree := newSlowFS()
	l, _, root := newLine(t, tree, ninep.Classic)
	f := mustWalk(t, root, "slow")
	if err := f.Open(t.Context(), ninep.OREAD); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 10)
	for range cap(ended) {
		go func() {
			p := make([]byte, 4)
			_, err := f.ReadAt(t.Context(), p, 0)
			if err == nil && string(p) != "slow" {
				err = fmt.Errorf("read %q", p)
			}
			ended <- err
		}()
		<-tree.started
	}
	l.cut()
	for range cap(ended) {
		<-tree.started
		tree.release <- nil
	}
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	// Three connections lost are too many for one read.
	go func() {
		_, err := f.ReadAt(t.Context(), make([]byte, 4), 0)
		ended <- err
	}()
	for range 3 {
		<-tree.started
		l.cut()
	}
	if err := <-ended; err == nil {
		t.Error("a read outlived three connections")
	}
	// What is not known to be safe is not tried again.
	dir := &stuckDir{Node: ninep.NewDir(ninep.Dir{Name: "/"}, nil), started: make(chan struct{}, 10)}
	l, _, root = newLine(t, fixedFS{dir}, ninep.Classic)
	go func() { ended <- mustWalk(t, root).Create(t.Context(), "f", 0600, ninep.OREAD) }()
	<-dir.started
	l.cut()
	if err := <-ended; err == nil {
		t.Error("a create whose connection broke succeeded")
	}
	if _, err := root.Stat(t.Context()); err != nil {
		t.Error(err)
	}
	if n := len(dir.started); n != 0 {
		t.Errorf("%d creates more", n)
	}
}

// A stuckDir creates nothing until its context ends.
type stuckDir struct {
	ninep.Node
	started chan struct{}
}

func (d *stuckDir) Create(ctx context.Context, _ string, _ ninep.Mode, _ ninep.OpenMode) (ninep.Node, ninep.Handle, error) {
	d.started <- struct{}{}
	<-ctx.Done()
	return nil, nil, ctx.Err()
}
