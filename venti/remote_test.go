package venti_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"strata/venti"
	"strata/venti/ventitest"
)

// A host is a machine on which a server of an address is started and killed.
type host struct {
	t    testing.TB
	addr string

	mu    sync.Mutex // guards the fields below
	conns []net.Conn
	kill  func()
}

func newHost(t testing.TB) *host {
	h := &host{t: t, addr: filepath.Join(t.TempDir(), "sock")}
	t.Cleanup(h.stop)
	return h
}

// start starts a server of st.
func (h *host) start(st venti.Store) {
	h.t.Helper()
	ln, err := venti.ListenConfig{}.Listen(h.t.Context(), h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- venti.NewServer(st, venti.ServerConfig{}).Serve(ctx, hostListener{ln, h}) }()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kill = func() {
		ln.Close()
		h.cut()
		cancel()
		<-served
		h.cut()
	}
}

// stop kills the server: nothing that was asked is answered.
func (h *host) stop() {
	h.mu.Lock()
	kill := h.kill
	h.kill = nil
	h.mu.Unlock()
	if kill != nil {
		kill()
	}
}

// cut cuts the connections that there are.
func (h *host) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, nc := range h.conns {
		nc.Close()
	}
	h.conns = nil
}

type hostListener struct {
	net.Listener
	h *host
}

func (l hostListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		l.h.mu.Lock()
		defer l.h.mu.Unlock()
		l.h.conns = append(l.h.conns, nc)
	}
	return nc, err
}

func dialRemote(t testing.TB, h *host, cfg venti.RemoteConfig) *venti.Remote {
	t.Helper()
	r, err := venti.DialRemote(t.Context(), h.addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestRemoteStore(t *testing.T) {
	ventitest.TestStore(t, func(t *testing.T) venti.Store {
		h := newHost(t)
		h.start(ventitest.NewMemory())
		return dialRemote(t, h, venti.RemoteConfig{})
	})
}

func put(t testing.TB, st venti.Store, data string) venti.Score {
	t.Helper()
	s, err := st.WriteBlock(t.Context(), venti.DataType, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLostWrites kills a server between writes and the sync, and starts
// another that has all of them, some, or none.
func TestLostWrites(t *testing.T) {
	ctx := t.Context()
	kept := ventitest.NewMemory()
	h := newHost(t)
	h.start(kept)
	r := dialRemote(t, h, venti.RemoteConfig{})
	sync := func(what string, want error) {
		t.Helper()
		if err := r.Sync(ctx); !errors.Is(err, want) {
			t.Errorf("%s: sync returns %v, want %v", what, err, want)
		}
	}
	restart := func(st venti.Store) {
		h.stop()
		h.start(st)
	}
	a, b := put(t, r, "a"), put(t, r, "b")
	restart(kept)
	sync("nothing was lost", nil)
	if n, err := r.ReadBlock(ctx, a, venti.DataType, make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}

	put(t, r, "c")
	put(t, r, "d")
	some := ventitest.NewMemory()
	put(t, some, "c")
	restart(some)
	sync("one block was lost", venti.ErrLost)
	sync("and still is", venti.ErrLost)
	put(t, r, "c")
	put(t, r, "e")
	sync("another was written", venti.ErrLost)
	restart(some)
	sync("and after another restart", venti.ErrLost)
	put(t, r, "d")
	sync("it was written again", nil)

	// What a sync has made durable is not asked for again, and what is said to be
	// there counts as written.
	restart(ventitest.NewMemory())
	sync("nothing was written since", nil)
	put(t, some, "there")
	restart(some)
	if has, err := r.HasBlock(ctx, venti.ScoreOf([]byte("there")), venti.DataType); !has || err != nil {
		t.Fatalf("%v, %v", has, err)
	}
	restart(ventitest.NewMemory())
	sync("a block that was found was lost", venti.ErrLost)
	if has, err := r.HasBlock(ctx, b, venti.DataType); has || err != nil {
		t.Errorf("%v, %v", has, err)
	}
	if err := r.WriteScored(ctx, venti.ScoreOf([]byte("there")), venti.DataType, []byte("there")); err != nil {
		t.Fatal(err)
	}
	sync("it was written", nil)

	// By type, not by score alone.
	put(t, r, "typed")
	other := ventitest.NewMemory()
	if _, err := other.WriteBlock(ctx, venti.DirType, []byte("typed")); err != nil {
		t.Fatal(err)
	}
	restart(other)
	sync("only one of another type is there", venti.ErrLost)
	if _, err := r.WriteBlock(ctx, venti.DataType, nil); err != nil {
		t.Error(err)
	}
}

// TestKilledInFlight kills a server that has not answered yet.
func TestKilledInFlight(t *testing.T) {
	for _, tc := range []struct {
		name     string
		lose     bool // the blocks of the first server
		syncWant error
	}{
		{"nothing lost", false, nil},
		{"all lost", true, venti.ErrLost},
	} {
		t.Run(tc.name, func(t *testing.T) {
			first := newGated()
			h := newHost(t)
			h.start(first)
			r := dialRemote(t, h, venti.RemoteConfig{})
			stop := func() {
				h.cut()
				first.leave <- struct{}{} // what was in flight ends, unheard
				h.stop()
			}
			// A write is made again.
			done := make(chan error, 1)
			go func() {
				_, err := r.WriteBlock(t.Context(), venti.DataType, []byte("x"))
				done <- err
			}()
			<-first.arrived
			stop()
			second := newGated()
			second.leave <- struct{}{}
			h.start(second)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			<-second.arrived
			first = second
			// And a sync finds out what there is.
			go func() { done <- r.Sync(t.Context()) }()
			<-first.arrived
			stop()
			third := newGated()
			if !tc.lose {
				third.Memory = second.Memory
			}
			third.leave <- struct{}{}
			h.start(third)
			if err := <-done; !errors.Is(err, tc.syncWant) {
				t.Errorf("sync returns %v, want %v", err, tc.syncWant)
			}
		})
	}
}

// TestUnsyncedIsBounded writes more blocks than are remembered.
func TestUnsyncedIsBounded(t *testing.T) {
	st := &countingSyncs{Memory: ventitest.NewMemory()}
	h := newHost(t)
	h.start(st)
	r := dialRemote(t, h, venti.RemoteConfig{})
	r.SetMaxUnsynced(10)
	for i := range 95 {
		put(t, r, fmt.Sprint(i))
	}
	if st.syncs != 9 {
		t.Errorf("%d syncs, want 9", st.syncs)
	}
	h.stop()
	h.start(ventitest.NewMemory())
	if err := r.Sync(t.Context()); !errors.Is(err, venti.ErrLost) || !bytes.Contains([]byte(err.Error()), []byte("of 5 blocks written since the last sync 5")) {
		t.Errorf("sync: %v", err)
	}
}

type countingSyncs struct {
	*ventitest.Memory
	syncs int
}

func (c *countingSyncs) Sync(ctx context.Context) error {
	c.syncs++
	return c.Memory.Sync(ctx)
}

// TestAway has a server that does not come back.
func TestAway(t *testing.T) {
	h := newHost(t)
	h.start(ventitest.NewMemory())
	impatient := dialRemote(t, h, venti.RemoteConfig{Patience: 50 * time.Millisecond})
	r := dialRemote(t, h, venti.RemoteConfig{Patience: -1})
	h.stop()
	if err := impatient.Sync(t.Context()); !errors.Is(err, venti.ErrDisconnected) {
		t.Errorf("sync: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Sync(ctx) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("sync: %v", err)
	}
	go func() { done <- r.Sync(t.Context()) }()
	r.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("sync of a closed one: %v", err)
	}
	if _, err := venti.DialRemote(t.Context(), h.addr, venti.RemoteConfig{}); !isNoServer(err) {
		t.Errorf("dial: %v", err)
	}
	// It comes back for the other.
	h.start(ventitest.NewMemory())
	for {
		if err := impatient.Sync(t.Context()); err == nil {
			break
		}
	}
}

func isNoServer(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// TestDone tells who waits that a connection is gone.
func TestDone(t *testing.T) {
	h := newHost(t)
	h.start(ventitest.NewMemory())
	c := dial(t, h.addr)
	select {
	case <-c.Done():
		t.Error("gone already")
	default:
	}
	h.stop()
	<-c.Done()
	if err := c.Sync(t.Context()); !errors.Is(err, venti.ErrDisconnected) {
		t.Errorf("sync: %v", err)
	}
}

// TestRemoteThroughRestarts reads and writes while the server is killed again
// and again.
func TestRemoteThroughRestarts(t *testing.T) {
	st := ventitest.NewMemory()
	h := newHost(t)
	h.start(st)
	r := dialRemote(t, h, venti.RemoteConfig{})
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for w := range 4 {
		busy.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				data := ventitest.Block(uint64(w*1000000+i), 3000)
				s, err := r.WriteBlock(t.Context(), venti.DataType, data)
				if err == nil && i%5 == 0 {
					err = r.Sync(t.Context())
				}
				buf := make([]byte, 4000)
				n := 0
				if err == nil {
					n, err = r.ReadBlock(t.Context(), s, venti.DataType, buf)
				}
				if err != nil || !bytes.Equal(buf[:n], data) {
					t.Errorf("block %d: %v", i, err)
					return
				}
			}
		})
	}
	for i := range 20 {
		put(t, r, fmt.Sprint("round ", i)) // so that the last connection was in use
		h.stop()
		h.start(st)
	}
	close(stop)
	busy.Wait()
	if err := r.Sync(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestNewRemote asks a server that is not there yet, is, and is not any more.
func TestNewRemote(t *testing.T) {
	h := newHost(t)
	r := venti.NewRemote(h.addr, venti.RemoteConfig{Patience: 10 * time.Millisecond})
	defer r.Close()
	buf := make([]byte, 10)
	read := func(s venti.Score) error {
		_, err := r.ReadBlock(t.Context(), s, venti.DataType, buf)
		return err
	}
	// Its socket does not exist, which is not to be taken for the block.
	away := func(err error) bool { return errors.Is(err, venti.ErrDisconnected) && !errors.Is(err, fs.ErrNotExist) }
	if err := read(venti.ScoreOf([]byte("block"))); !away(err) {
		t.Fatalf("read from nobody: %v", err)
	}
	st := ventitest.NewMemory()
	s := put(t, st, "block")
	h.start(st)
	for { // it dials by itself
		if err := read(s); err == nil {
			break
		} else if !away(err) {
			t.Fatal(err)
		}
	}
	if err := read(venti.ScoreOf([]byte("another"))); !errors.Is(err, venti.ErrNotFound) {
		t.Errorf("a block that is not there: %v", err)
	}
	h.stop()
	if err := read(s); !away(err) {
		t.Errorf("read from nobody again: %v", err)
	}
}
