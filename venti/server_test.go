package venti_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"strata/venti"
	"strata/venti/ventitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	greeting04 = "venti-04:02-test\n\x00\x00\x00\x14\x04\x00\x00\x0204\x00\x09anonymous\x00\x00\x00"
	greeted04  = "venti-04:02-strata\n\x00\x00\x00\x0f\x05\x00\x00\x09anonymous\x00\x00"
)

// greet sends a version and a hello and reads those of the server.
func (k *talk) greet(t testing.TB) {
	t.Helper()
	io.WriteString(k.nc, greeting04)
	got := make([]byte, len(greeted04))
	if _, err := io.ReadFull(k.in, got); err != nil || string(got) != greeted04 {
		t.Fatalf("greeted with %q, %v", got, err)
	}
}

// tread and twrite make messages without a size.
func tread(tag byte, s venti.Score, count uint16) []byte {
	b := append([]byte{12, tag}, s[:]...)
	return binary.BigEndian.AppendUint16(append(b, 13, 0), count)
}

func twrite(tag byte, data []byte) []byte {
	return append([]byte{14, tag, 13, 0, 0, 0}, data...)
}

// gated is a store whose writes and syncs wait until they are let go.
type gated struct {
	*ventitest.Memory
	arrived chan string   // gets "write" or "sync" from each
	leave   chan struct{} // lets one go
}

func newGated() *gated {
	return &gated{ventitest.NewMemory(), make(chan string, 1000), make(chan struct{}, 1000)}
}

func (g *gated) wait(ctx context.Context, what string) error {
	g.arrived <- what
	select {
	case <-g.leave:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gated) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	if err := g.wait(ctx, "write"); err != nil {
		return venti.Score{}, err
	}
	return g.Memory.WriteBlock(ctx, t, data)
}

func (g *gated) Sync(ctx context.Context) error { return g.wait(ctx, "sync") }

// TestSyncWaitsForWrites shows that a Tsync reaches the store only after the
// Twrites that were received before it.
func TestSyncWaitsForWrites(t *testing.T) {
	st := newGated()
	k := newTalk(t, serve(t, st, venti.ServerConfig{}))
	k.greet(t)
	k.nc.Write(k.frame(twrite(1, []byte("a"))))
	k.nc.Write(k.frame([]byte{16, 2}))
	k.nc.Write(k.frame([]byte{16, 3}))
	k.nc.Write(k.frame([]byte{2, 4}))
	if m, err := k.message(); err != nil || !bytes.Equal(m, []byte{3, 4}) {
		t.Fatalf("got %x, %v, want the Rping", m, err)
	}
	if what := <-st.arrived; what != "write" || len(st.arrived) != 0 {
		t.Fatalf("%s reached the store, and %d more", what, len(st.arrived))
	}
	st.leave <- struct{}{}
	if m, err := k.message(); err != nil || m[0] != 15 {
		t.Fatalf("got %x, %v, want the Rwrite", m, err)
	}
	for range 2 {
		if what := <-st.arrived; what != "sync" {
			t.Fatalf("%s reached the store", what)
		}
		st.leave <- struct{}{}
	}
	for range 2 {
		if m, err := k.message(); err != nil || m[0] != 17 {
			t.Fatalf("got %x, %v, want an Rsync", m, err)
		}
	}
}

// TestOutOfOrder shows that a read does not wait for a write before it.
func TestOutOfOrder(t *testing.T) {
	st := newGated()
	s, _ := st.Memory.WriteBlock(t.Context(), venti.DataType, []byte("x"))
	k := newTalk(t, serve(t, st, venti.ServerConfig{}))
	k.greet(t)
	k.nc.Write(k.frame(twrite(1, []byte("a"))))
	k.nc.Write(k.frame(tread(2, s, 10)))
	if m, err := k.message(); err != nil || !bytes.Equal(m, []byte("\x0d\x02x")) {
		t.Fatalf("got %x, %v, want the Rread", m, err)
	}
	st.leave <- struct{}{}
	if m, err := k.message(); err != nil || m[0] != 15 {
		t.Fatalf("got %x, %v, want the Rwrite", m, err)
	}
}

// TestRequestsAreBounded sends more writes than may be in flight, each with
// the same tag, to a store that keeps them all.
func TestRequestsAreBounded(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  venti.ServerConfig
		size int
		want int
	}{
		{"count", venti.ServerConfig{}, 1, 256},
		{"bytes", venti.ServerConfig{MaxBytes: 4 * 10 * (8192 + 4096)}, 8192, 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const writes = 400
			st := newGated()
			k := newTalk(t, serve(t, st, tc.cfg))
			k.greet(t)
			var sender sync.WaitGroup
			sender.Go(func() {
				for range writes {
					k.nc.Write(k.frame(twrite(1, make([]byte, tc.size))))
				}
			})
			for range tc.want {
				<-st.arrived
			}
			// Each that leaves lets one more in; so there are never more than want.
			for i := range writes {
				if n := len(st.arrived); n > 1 {
					t.Fatalf("%d more requests in the store than %d", n, tc.want)
				}
				st.leave <- struct{}{}
				if m, err := k.message(); err != nil || m[0] != 15 {
					t.Fatalf("reply %d: %x, %v", i, m, err)
				}
				if i < writes-tc.want {
					<-st.arrived
				}
			}
			sender.Wait()
		})
	}
}

// TestSlowReader sends reads and takes no reply. The server must stop reading
// and not grow.
func TestSlowReader(t *testing.T) {
	for name, st := range map[string]venti.Store{"cached": ventitest.NewMemory(), "plain": plain{ventitest.NewMemory()}} {
		t.Run(name, func(t *testing.T) {
			s, err := st.WriteBlock(t.Context(), venti.DataType, ventitest.Block(1, 8192))
			if err != nil {
				t.Fatal(err)
			}
			k := newTalk(t, serve(t, st, venti.ServerConfig{}))
			k.greet(t)
			request := bytes.Repeat(k.frame(tread(1, s, 57344)), 1000)
			sent := 0
			for {
				k.nc.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				n, err := k.nc.Write(request)
				sent += n
				if err != nil {
					break // the server has stopped reading
				}
				if sent > 64<<20 {
					t.Fatal("the server reads on and on")
				}
			}
			var after runtime.MemStats
			runtime.GC()
			runtime.GC() // what other tests left in pools
			runtime.ReadMemStats(&after)
			if after.HeapAlloc > 48<<20 {
				t.Errorf("%d MB in use", after.HeapAlloc>>20)
			}
			// And it goes on when they are taken, to the last whole request.
			k.nc.CloseWrite()
			n := 0
			for {
				if _, err := k.message(); err != nil {
					break
				}
				n++
			}
			if want := sent / 30; n != want {
				t.Errorf("%d replies, want %d", n, want)
			}
		})
	}
}

// TestStalledClient and TestSilentClient run on a clock of their own.
func TestStalledClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := ventitest.NewMemory()
		near, far := net.Pipe()
		defer near.Close()
		served := make(chan struct{})
		go func() {
			venti.NewServer(st, venti.ServerConfig{}).ServeConn(t.Context(), far)
			close(served)
		}()
		go io.WriteString(near, greeting04+"\x00\x00\x00\x02\x02\x01")
		start := time.Now()
		io.ReadFull(near, make([]byte, len(greeted04)+3)) // and no more
		<-served
		if took := time.Since(start); took < 30*time.Second || took > 2*time.Minute {
			t.Errorf("cut off after %v", took)
		}
	})
}

func TestSilentClient(t *testing.T) {
	for name, said := range map[string]string{
		"nothing": "",
		"version": "venti-04-x\n",
		"half":    greeting04[:len(greeting04)-1],
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer near.Close()
				served := make(chan struct{})
				go func() {
					venti.NewServer(ventitest.NewMemory(), venti.ServerConfig{}).ServeConn(t.Context(), far)
					close(served)
				}()
				go io.Copy(io.Discard, near)
				io.WriteString(near, said)
				start := time.Now()
				<-served
				if took := time.Since(start); took < 5*time.Second || took > time.Minute {
					t.Errorf("cut off after %v", took)
				}
			})
		})
	}
}

// TestIdleClient may be silent for as long as it likes once it has said
// hello.
func TestIdleClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pipe(t, ventitest.NewMemory(), venti.ServerConfig{})
		time.Sleep(1000 * time.Hour) // on the test's clock
		if err := c.Sync(t.Context()); err != nil {
			t.Error(err)
		}
		c.Close()
	})
}

// TestStop ends a server with requests in flight: those are answered.
func TestStop(t *testing.T) {
	st := newGated()
	addr := filepath.Join(t.TempDir(), "s")
	ln, err := venti.ListenConfig{}.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- venti.NewServer(st, venti.ServerConfig{}).Serve(ctx, ln) }()
	idle, busy := newTalk(t, addr), newTalk(t, addr)
	idle.greet(t)
	busy.greet(t)
	busy.nc.Write(busy.frame(twrite(1, []byte("a"))))
	<-st.arrived
	cancel()
	if b, err := idle.message(); !isClosed(err) {
		t.Errorf("got %x, %v, want the end", b, err)
	}
	select {
	case err := <-served:
		t.Fatalf("the server left a request behind: %v", err)
	default:
	}
	st.leave <- struct{}{}
	if m, err := busy.message(); err != nil || m[0] != 15 {
		t.Errorf("got %x, %v, want the Rwrite", m, err)
	}
	if b, err := busy.message(); !isClosed(err) {
		t.Errorf("got %x, %v, want the end", b, err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if _, err := os.Lstat(addr); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestStopStuck ends a server whose store does not come back: after a while
// the request's context ends.
func TestStopStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newGated()
		near, far := net.Pipe()
		defer near.Close()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan struct{})
		go func() {
			venti.NewServer(st, venti.ServerConfig{}).ServeConn(ctx, far)
			close(served)
		}()
		go io.WriteString(near, greeting04+"\x00\x00\x00\x07\x0e\x01\x0d\x00\x00\x00a")
		go io.Copy(io.Discard, near)
		<-st.arrived
		cancel()
		start := time.Now()
		<-served
		if took := time.Since(start); took < time.Second || took > time.Minute {
			t.Errorf("stopped after %v", took)
		}
	})
}

// broken is a listener that fails with each error in turn.
type broken struct {
	net.Listener
	errs []error
}

func (b *broken) Accept() (net.Conn, error) {
	err := b.errs[0]
	b.errs = b.errs[1:]
	return nil, err
}

func (b *broken) Close() error { return nil }

// TestServeFails shows that a listener's passing troubles are waited for, and
// that others end the server.
func TestServeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &broken{errs: []error{&net.OpError{Op: "accept", Err: syscall.EMFILE}, syscall.ECONNABORTED, errors.New("it broke")}}
		start := time.Now()
		err := venti.NewServer(ventitest.NewMemory(), venti.ServerConfig{}).Serve(t.Context(), ln)
		if err == nil || !strings.Contains(err.Error(), "it broke") {
			t.Errorf("serve: %v", err)
		}
		if time.Since(start) == 0 {
			t.Error("the server does not wait for file descriptors")
		}
	})
}

func TestMaxConns(t *testing.T) {
	addr := serve(t, ventitest.NewMemory(), venti.ServerConfig{MaxConns: 1})
	k := newTalk(t, addr)
	k.greet(t)
	if c, err := venti.Dial(t.Context(), addr); err == nil {
		t.Error("a second client was let in")
		c.Close()
	}
	k.nc.Write(k.frame([]byte{6, 0}))
	if _, err := k.message(); !isClosed(err) {
		t.Errorf("goodbye: %v", err)
	}
	// The place is free again, at the latest when the server has noticed.
	for {
		c, err := venti.Dial(t.Context(), addr)
		if err == nil {
			c.Close()
			break
		}
		runtime.Gosched()
	}
}

func TestReadOnlyServer(t *testing.T) {
	st := ventitest.NewMemory()
	s, _ := st.WriteBlock(t.Context(), venti.DataType, []byte("x"))
	for name, st := range map[string]venti.Store{"memory": st, "plain": plain{st}} {
		t.Run(name, func(t *testing.T) {
			addr := serve(t, st, venti.ServerConfig{ReadOnly: true})
			c := dial(t, addr)
			buf := make([]byte, 10)
			if n, err := c.ReadBlock(t.Context(), s, venti.DataType, buf); string(buf[:n]) != "x" || err != nil {
				t.Errorf("read %q, %v", buf[:n], err)
			}
			if has, err := c.HasBlock(t.Context(), s, venti.DataType); !has || err != nil {
				t.Errorf("has: %v, %v", has, err)
			}
			if has, err := c.HasBlock(t.Context(), s, venti.DirType); has || err != nil {
				t.Errorf("has as another type: %v, %v", has, err)
			}
			_, err := c.WriteBlock(t.Context(), venti.DataType, []byte("y"))
			if !errors.Is(err, venti.ErrReadOnly) || err.Error() != "read only" {
				t.Errorf("write: %v", err)
			}
			if err := c.Sync(t.Context()); err != nil {
				t.Errorf("sync: %v", err)
			}
			k := newTalk(t, addr)
			k.greet(t)
			k.nc.Write(k.frame(twrite(1, nil)))
			if m, err := k.message(); err != nil || string(m) != "\x01\x01\x00\x09read only" {
				t.Errorf("empty write: %q, %v", m, err)
			}
		})
	}
}

// TestStoreErrors shows that the errors of a store come through, with their
// texts, and are logged where they are not the client's.
func TestStoreErrors(t *testing.T) {
	for _, tc := range []struct {
		err    error
		text   string
		logged bool
	}{
		{venti.ErrFull, "no space left in arenas", false},
		{venti.ErrCorrupt, "block is corrupt", true},
		{venti.ErrReadOnly, "read only", false},
		{ventitest.ErrFault, "injected fault", true},
	} {
		var log strings.Builder
		var mu sync.Mutex
		handler := slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return log.Write(b)
		}), nil)
		st := ventitest.NewFaulty(ventitest.NewMemory(), func(ventitest.Op) error { return tc.err })
		c := dial(t, serve(t, st, venti.ServerConfig{Logger: slog.New(handler)}))
		_, werr := c.WriteBlock(t.Context(), venti.DataType, []byte("x"))
		_, rerr := c.ReadBlock(t.Context(), venti.ScoreOf([]byte("x")), venti.DataType, make([]byte, 10))
		_, perr := c.HasBlock(t.Context(), venti.ScoreOf([]byte("x")), venti.DataType)
		serr := c.Sync(t.Context())
		for what, err := range map[string]error{"write": werr, "read": rerr, "probe": perr, "sync": serr} {
			if err == nil || err.Error() != tc.text || tc.err != ventitest.ErrFault && !errors.Is(err, tc.err) {
				t.Errorf("%s: %v, want %v", what, err, tc.err)
			}
		}
		mu.Lock()
		if got := strings.Count(log.String(), tc.text) == 4; got != tc.logged {
			t.Errorf("%v: logged %v, want %v: %s", tc.err, got, tc.logged, log.String())
		}
		mu.Unlock()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestManyClients has more clients than the server has room for requests.
func TestManyClients(t *testing.T) {
	addr := serve(t, plain{ventitest.NewMemory()}, venti.ServerConfig{MaxBytes: 100 << 10})
	var wg sync.WaitGroup
	var blocks atomic.Int64
	for i := range 20 {
		c := dial(t, addr)
		for j := range 10 {
			wg.Go(func() {
				data := ventitest.Block(uint64(i*10+j), 1+(i*10+j)*257)
				s, err := c.WriteBlock(t.Context(), venti.DataType, data)
				if err != nil {
					t.Error(err)
					return
				}
				buf := make([]byte, venti.MaxBlockSize)
				if n, err := c.ReadBlock(t.Context(), s, venti.DataType, buf); err != nil || !bytes.Equal(buf[:n], data) {
					t.Errorf("read: %d, %v", n, err)
				}
				blocks.Add(1)
			})
		}
	}
	wg.Wait()
	if blocks.Load() != 200 {
		t.Errorf("%d blocks", blocks.Load())
	}
}

// FuzzServer feeds a connection any bytes. The server must end with them, and
// say only whole messages.
func FuzzServer(f *testing.F) {
	f.Add([]byte("venti-04:02-test\n"))
	f.Add([]byte(greeting04))
	f.Add([]byte(greeting04 + "\x00\x00\x00\x11\x0e\x01\x0d\x00\x00\x00hello world\x00\x00\x00\x02\x10\x01"))
	f.Add([]byte(greeting04 + "\x00\x00\x00\x1a\x0c\x01*\xael5\xc9O\xcf\xb4\x15\xdb\xe9_@\x8b\x9c\xe9\x1e\xe8F\xed\x0d\x00\xff\xff"))
	f.Add([]byte(greeting04 + "\x00\x00\x00\x1a\x0c\x01*\xael5\xc9O\xcf\xb4\x15\xdb\xe9_@\x8b\x9c\xe9\x1e\xe8F\xed\x0d\x00\x00\x00\x00\x00\x00\x02\x06\x01"))
	f.Add([]byte(greeting04 + "\xff\xff\xff\xff\x0e\x01\x00"))
	f.Add([]byte("venti-02-x\n\x00\x14\x04\x00\x00\x0202\x00\x09anonymous\x00\x00\x00\x00\x02\x02\x01\x00\x02\x14\x01\x00\x01\x10"))
	st := ventitest.NewMemory()
	st.WriteBlock(context.Background(), venti.DataType, []byte("hello world"))
	srv := venti.NewServer(st, venti.ServerConfig{})
	f.Fuzz(func(t *testing.T, said []byte) {
		near, far := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() { srv.ServeConn(context.Background(), far) })
		wg.Go(func() {
			near.Write(said)
			near.SetReadDeadline(time.Now().Add(10 * time.Second))
			// A pipe has no half close; a last ping that is answered, or the end,
			// shows that all was read. Then hang up.
			near.Write([]byte("\x00\x00\x00\x02\x06\x00"))
			near.Close()
		})
		got, _ := io.ReadAll(near)
		wg.Wait()
		line, rest, ok := bytes.Cut(got, []byte("\n"))
		if !ok {
			return // the peer left first
		}
		if string(line)+"\n" != greeted04[:len(line)+1] {
			t.Fatalf("version line %q", line)
		}
		framing := 4
		if v := string(said); strings.HasPrefix(v, "venti-02") {
			return // the sizes are looked at in the other version only
		}
		for len(rest) >= framing {
			n := int(binary.BigEndian.Uint32(rest))
			if n < 2 || n > 64<<10 {
				t.Fatalf("message of %d bytes in %x", n, got)
			}
			if len(rest) < framing+n {
				return // cut off by the end
			}
			rest = rest[framing+n:]
		}
	})
}
