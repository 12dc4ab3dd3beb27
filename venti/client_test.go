package venti_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"strata/venti"
	"strata/venti/ventitest"
)

// newFake connects a client to a server that the test plays by hand.
func newFake(t *testing.T) (*venti.Client, *talk) {
	t.Helper()
	addr := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	type result struct {
		c   *venti.Client
		err error
	}
	dialled := make(chan result, 1)
	go func() {
		c, err := venti.Dial(t.Context(), addr)
		dialled <- result{c, err}
	}()
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	k := newTalkOver(t, nc.(*net.UnixConn))
	io.WriteString(nc, "venti-04:02-fake\n")
	if line, err := k.in.ReadString('\n'); err != nil || line != "venti-04:02-strata\n" {
		t.Fatalf("version line %q, %v", line, err)
	}
	if m, err := k.message(); err != nil || string(m) != "\x04\x00\x00\x0204\x00\x09anonymous\x00\x00\x00" {
		t.Fatalf("hello %q, %v", m, err)
	}
	k.nc.Write(k.frame([]byte("\x05\x00\x00\x01x\x00\x00")))
	r := <-dialled
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.c.Close() })
	return r.c, k
}

// TestBadReplies gives a client replies that it must refuse: with an error
// for the call, and the end of the connection when the protocol is broken.
func TestBadReplies(t *testing.T) {
	data := []byte("hello world")
	s := venti.ScoreOf(data)
	read := func(c *venti.Client) error {
		buf := bytes.Repeat([]byte{0xa5}, 20)
		_, err := c.ReadBlock(context.Background(), s, venti.DataType, buf[:11])
		if !bytes.Equal(buf[11:], bytes.Repeat([]byte{0xa5}, 9)) {
			return errors.New("wrote past the buffer")
		}
		return err
	}
	write := func(c *venti.Client) error {
		_, err := c.WriteBlock(context.Background(), venti.DataType, data)
		return err
	}
	writeScored := func(c *venti.Client) error {
		return c.WriteScored(context.Background(), s, venti.DataType, data)
	}
	probe := func(c *venti.Client) error {
		_, err := c.HasBlock(context.Background(), s, venti.DataType)
		return err
	}
	sync := func(c *venti.Client) error { return c.Sync(context.Background()) }
	for _, tc := range []struct {
		name  string
		call  func(*venti.Client) error
		reply string // T is the request's tag
		want  string
		is    error
		fatal bool
	}{
		{"other data", read, "\x0dThello WORLD", "read asked for 2aae6c35c94fcfb415dbe95f408b9ce91ee846ed got", venti.ErrCorrupt, false},
		{"short data", read, "\x0dThello", "read asked for", venti.ErrCorrupt, false},
		{"no data", read, "\x0dT", "read asked for", venti.ErrCorrupt, false},
		{"too much data", read, "\x0dThello world!", "read returned too much data", nil, true},
		{"another reply", read, "\x11T", "type mismatch: sent T12 got R17", nil, true},
		{"a request", read, "\x0cT" + strings.Repeat("x", 24), "type mismatch: sent T12 got R12", nil, true},
		{"unknown tag", read, "\x0d\xc8", "unknown tag 200", nil, true},
		{"tag of the hello", read, "\x0d\x00", "unknown tag 0", nil, true},
		{"malformed error", read, "\x01T\x00\x10x", "bad reply", nil, true},
		{"unknown reply", read, "\x14T", "bad reply", nil, true},
		{"remote error", read, "\x01T\x00\x0cdisk on fire", "disk on fire", nil, false},
		{"not found", read, "\x01T\x00\x1eno block with score x/0 exists", "no block with score", venti.ErrNotFound, false},
		{"too long", read, "\x01T\x00\x12read too small 1: ", "read too small 1: ", venti.ErrTooLong, false},
		{"corrupt", read, "\x01T\x00\x17clump is marked corrupt", "clump is marked corrupt", venti.ErrCorrupt, false},
		{"probe with a reply", probe, "\x0dT", "read asked for", venti.ErrCorrupt, false},
		{"probe with data", probe, "\x0dTx", "read returned too much data", nil, true},
		{"probe with an error", probe, "\x01T\x00\x0cdisk on fire", "disk on fire", nil, false},
		{"another score", write, "\x0fTxxxxxxxxxxxxxxxxxxxx", "sha1 hash mismatch: want 2aae6c35c94fcfb415dbe95f408b9ce91ee846ed got 7878", venti.ErrCorrupt, false},
		{"another score, known", writeScored, "\x0fTxxxxxxxxxxxxxxxxxxxx", "sha1 hash mismatch", venti.ErrCorrupt, false},
		{"short score", write, "\x0fTxxxx", "bad reply", nil, true},
		{"full", write, "\x01T\x00\x17no space left in arenas", "no space left in arenas", venti.ErrFull, false},
		{"read only", write, "\x01T\x00\x10read-only server", "read-only server", venti.ErrReadOnly, false},
		{"too large", write, "\x01T\x00\x0elump too large", "lump too large", venti.ErrTooLarge, false},
		{"sync that fails", sync, "\x01T\x00\x0cdisk on fire", "disk on fire", nil, false},
		{"reply of a write to a sync", sync, "\x0fTxxxxxxxxxxxxxxxxxxxx", "type mismatch: sent T16 got R15", nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, k := newFake(t)
			failed := make(chan error, 1)
			go func() { failed <- tc.call(c) }()
			m, err := k.message()
			if err != nil {
				t.Fatal(err)
			}
			reply := []byte(tc.reply)
			if reply[1] == 'T' {
				reply[1] = m[1]
			}
			k.nc.Write(k.frame(reply))
			err = <-failed
			if err == nil || !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %v, want %q, %v", err, tc.want, tc.is)
			}
			if tc.fatal {
				if _, err := k.message(); !isClosed(err) {
					t.Errorf("the connection is still there: %v", err)
				}
				if again := c.Sync(t.Context()); again == nil || again.Error() != err.Error() {
					t.Errorf("the next call: %v, want %v", again, err)
				}
				return
			}
			// The connection goes on.
			go func() { failed <- c.Sync(t.Context()) }()
			if m, err = k.message(); err != nil || m[0] != 16 {
				t.Fatalf("got %x, %v, want a Tsync", m, err)
			}
			k.nc.Write(k.frame([]byte{17, m[1]}))
			if err := <-failed; err != nil {
				t.Errorf("sync: %v", err)
			}
		})
	}
}

// TestAnyOrder answers 255 calls in the opposite order, and shows that there
// are no more in flight.
func TestAnyOrder(t *testing.T) {
	c, k := newFake(t)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			data := ventitest.Block(uint64(i), 100)
			buf := make([]byte, 100)
			n, err := c.ReadBlock(t.Context(), venti.ScoreOf(data), venti.DataType, buf)
			if err != nil || !bytes.Equal(buf[:n], data) {
				t.Errorf("read %d: %d, %v", i, n, err)
			}
		})
	}
	byScore := map[venti.Score][]byte{}
	for i := range 300 {
		data := ventitest.Block(uint64(i), 100)
		byScore[venti.ScoreOf(data)] = data
	}
	tags := map[byte]bool{}
	var requests [][]byte
	answer := func() {
		m := requests[len(requests)-1]
		requests = requests[:len(requests)-1]
		delete(tags, m[1])
		k.nc.Write(k.frame(append([]byte{13, m[1]}, byScore[venti.Score(m[2:22])]...)))
	}
	for i := range 300 {
		if i >= 255 {
			answer()
		}
		m, err := k.message()
		if err != nil {
			t.Fatal(err)
		}
		if m[0] != 12 || m[1] == 0 || tags[m[1]] {
			t.Fatalf("request %x, tags in use %v", m, tags)
		}
		tags[m[1]] = true
		requests = append(requests, m)
		if i == 254 {
			k.nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if m, err := k.message(); err == nil {
				t.Fatalf("request 256: %x", m)
			}
			k.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
		}
	}
	for len(requests) > 0 {
		answer()
	}
	wg.Wait()
}

// TestCancelledCall shows that a call whose context ends returns at once,
// that its buffer is left alone from then on, and that its tag is not used
// before the reply has come.
func TestCancelledCall(t *testing.T) {
	c, k := newFake(t)
	data := ventitest.Block(1, 8192)
	buf := bytes.Repeat([]byte{0xa5}, 8192)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := c.ReadBlock(ctx, venti.ScoreOf(data), venti.DataType, buf)
		failed <- err
	}()
	late, err := k.message()
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("read: %v", err)
	}
	sync := func() {
		t.Helper()
		go func() { failed <- c.Sync(t.Context()) }()
		m, err := k.message()
		if err != nil {
			t.Fatal(err)
		}
		if m[1] == late[1] {
			t.Fatalf("tag %d is used again", m[1])
		}
		k.nc.Write(k.frame([]byte{17, m[1]}))
		if err := <-failed; err != nil {
			t.Fatalf("sync: %v", err)
		}
	}
	for range 300 {
		sync()
	}
	k.nc.Write(k.frame(append([]byte{13, late[1]}, data...)))
	sync() // the late reply is taken before this one
	if !bytes.Equal(buf, bytes.Repeat([]byte{0xa5}, 8192)) {
		t.Error("the late reply was put in the caller's buffer")
	}
	// Now the tag can be used again: all 255 of them.
	for range 255 {
		go func() { failed <- c.Sync(t.Context()) }()
	}
	for range 255 {
		m, err := k.message()
		if err != nil {
			t.Fatal(err)
		}
		k.nc.Write(k.frame([]byte{17, m[1]}))
	}
	for range 255 {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
}

// TestCancelledInQueue cancels calls that wait for a tag, or for room for
// their blocks, behind calls that the server does not answer.
func TestCancelledInQueue(t *testing.T) {
	for name, size := range map[string]int{"tag": 1, "room": venti.MaxBlockSize} {
		t.Run(name, func(t *testing.T) {
			st := newGated()
			c := dial(t, serve(t, st, venti.ServerConfig{MaxBytes: 1}))
			data := ventitest.Block(1, size)
			const calls = 400
			var wg sync.WaitGroup
			for range calls {
				wg.Go(func() {
					if _, err := c.WriteBlock(t.Context(), venti.DataType, data); err != nil {
						t.Errorf("write: %v", err)
					}
				})
			}
			<-st.arrived
			var cancelled sync.WaitGroup
			ctx, cancel := context.WithCancel(t.Context())
			for range 20 {
				cancelled.Go(func() {
					if _, err := c.WriteBlock(ctx, venti.DataType, data); !errors.Is(err, context.Canceled) {
						t.Errorf("cancelled write: %v", err)
					}
				})
			}
			cancel()
			cancelled.Wait()
			for range calls + 20 { // some of the cancelled ones may have been sent
				st.leave <- struct{}{}
			}
			wg.Wait()
			if n := st.Len(); n != 1 {
				t.Errorf("%d blocks", n)
			}
		})
	}
}

// TestCancelUnderLoad cancels many calls at any moment while others go on.
func TestCancelUnderLoad(t *testing.T) {
	st := ventitest.NewMemory()
	var data [16][]byte
	var scores [16]venti.Score
	for i := range data {
		data[i] = ventitest.Block(uint64(i), 3000*i+1)
		scores[i], _ = st.WriteBlock(t.Context(), venti.DataType, data[i])
	}
	for name, c := range map[string]*venti.Client{
		"socket": dial(t, serve(t, plain{st}, venti.ServerConfig{})),
		"pipe":   pipe(t, st, venti.ServerConfig{}),
	} {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Go(func() {
					buf := make([]byte, 64<<10)
					for j := range 40 {
						ctx, cancel := context.WithCancel(t.Context())
						if i%2 == 0 {
							go cancel()
						}
						k := (i + j) % 16
						n, err := c.ReadBlock(ctx, scores[k], venti.DataType, buf)
						if err == nil && !bytes.Equal(buf[:n], data[k]) || err != nil && (i%2 == 1 || !errors.Is(err, context.Canceled)) {
							t.Errorf("read: %d, %v", n, err)
						}
						clear(buf) // it is ours again: the race detector watches
						w := bytes.Clone(data[k])
						_, err = c.WriteBlock(ctx, venti.DataType, w)
						if err != nil && !errors.Is(err, context.Canceled) {
							t.Errorf("write: %v", err)
						}
						clear(w)
						cancel()
					}
				})
			}
			wg.Wait()
			if err := c.Sync(t.Context()); err != nil {
				t.Errorf("sync: %v", err)
			}
		})
	}
}

// TestLostConnection shows that every call in flight and every later one
// fails with the cause, whoever ends the connection.
func TestLostConnection(t *testing.T) {
	for name, end := range map[string]struct {
		by   func(c *venti.Client, k *talk)
		want error
	}{
		"server": {func(c *venti.Client, k *talk) { k.nc.Close() }, nil},
		"client": {func(c *venti.Client, k *talk) { c.Close() }, net.ErrClosed},
		"half a reply": {func(c *venti.Client, k *talk) {
			k.nc.Write([]byte{0, 0, 0, 9, 13})
			k.nc.CloseWrite()
		}, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			c, k := newFake(t)
			const calls = 300 // more than there are tags
			failed := make(chan error, calls)
			for i := range calls {
				go func() {
					var err error
					switch i % 3 {
					case 0:
						err = c.Sync(context.Background())
					case 1:
						_, err = c.WriteBlock(context.Background(), venti.DataType, ventitest.Block(1, venti.MaxBlockSize))
					case 2:
						_, err = c.HasBlock(context.Background(), venti.ScoreOf([]byte("x")), venti.DataType)
					}
					failed <- err
				}()
			}
			if _, err := k.message(); err != nil {
				t.Fatal(err)
			}
			end.by(c, k)
			for range calls {
				if err := <-failed; err == nil || end.want != nil && !errors.Is(err, end.want) {
					t.Errorf("error %v, want %v", err, end.want)
				}
			}
			if err := c.Sync(context.Background()); err == nil || end.want != nil && !errors.Is(err, end.want) {
				t.Errorf("the next call: %v, want %v", err, end.want)
			}
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			c.Close() // again
		})
	}
}

// TestGreetings are those that a client must refuse or take.
func TestGreetings(t *testing.T) {
	rhello := "\x00\x00\x00\x07\x05\x00\x00\x01x\x00\x00"
	for _, tc := range []struct{ name, says, want string }{
		{"good", "venti-04:02-x\n" + rhello, ""},
		{"02", "venti-02-x\n" + rhello[2:], ""},
		{"02 first", "venti-02:04-x\n" + rhello, ""},
		{"no common version", "venti-03-x\n", "no common version"},
		{"not venti", "220 mail\r\n", "bad byte"},
		{"too long", strings.Repeat("v", 2000), "version line too long"},
		{"end", "venti-", "closed"},
		{"end after the version", "venti-04-x\n", "closed"},
		{"refused", "venti-04-x\n\x00\x00\x00\x09\x01\x00\x00\x05go on", "go on"},
		{"another reply", "venti-04-x\n\x00\x00\x00\x02\x03\x00", "type mismatch: sent T4 got R3"},
		{"another tag", "venti-04-x\n\x00\x00\x00\x07\x05\x01\x00\x01x\x00\x00", "type mismatch"},
		{"malformed", "venti-04-x\n\x00\x00\x00\x06\x05\x00\x00\x01x\x00", "bad packet"},
		{"huge", "venti-04-x\n\x7f\x00\x00\x06\x05\x00\x00\x01x\x00", "message too large"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			near, far := net.Pipe()
			var wg sync.WaitGroup
			wg.Go(func() { io.Copy(io.Discard, far) })
			wg.Go(func() {
				io.WriteString(far, tc.says)
				if strings.HasPrefix(tc.name, "end") {
					far.Close()
				}
			})
			c, err := venti.NewClient(t.Context(), near)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if c != nil {
				c.Close()
			}
			far.Close()
			wg.Wait()
		})
	}
}

// TestDialCancelled has a server that says nothing.
func TestDialCancelled(t *testing.T) {
	addr := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if c, err := venti.Dial(ctx, addr); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial: %v, %v", c, err)
	}
}

func TestDialDefault(t *testing.T) {
	addr := serve(t, ventitest.NewMemory(), venti.ServerConfig{})
	t.Setenv("venti", "unix!"+addr)
	c, err := venti.Dial(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	os.Unsetenv("venti")
	if venti.DefaultAddr != "tcp!127.0.0.1!17034" {
		t.Errorf("default %s", venti.DefaultAddr)
	}
}

func TestListenOffLoopback(t *testing.T) {
	if ln, err := (venti.ListenConfig{}).Listen(t.Context(), "tcp!*!0"); err == nil {
		t.Errorf("announced %v", ln.Addr())
		ln.Close()
	}
}

// TestVersion02 reads and writes over the older framing, whose largest count
// has two bytes.
func TestVersion02(t *testing.T) {
	near, far := net.Pipe()
	near2, far2 := net.Pipe()
	var wg sync.WaitGroup
	// A relay that makes the server look like Plan 9's.
	wg.Go(func() {
		venti.NewServer(ventitest.NewMemory(), venti.ServerConfig{}).ServeConn(context.Background(), far2)
	})
	wg.Go(func() {
		line := make([]byte, len("venti-04:02-strata\n"))
		io.ReadFull(far, line)
		io.WriteString(near2, "venti-02-relay\n")
		io.Copy(near2, far)
		near2.Close()
	})
	wg.Go(func() {
		line := make([]byte, len("venti-04:02-strata\n"))
		io.ReadFull(near2, line)
		io.WriteString(far, "venti-02-relay\n")
		io.Copy(far, near2)
	})
	c, err := venti.NewClient(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 4096, venti.MaxBlockSize} {
		data := ventitest.Block(1, size)
		s, err := c.WriteBlock(t.Context(), venti.DataType, data)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1<<20)
		if n, err := c.ReadBlock(t.Context(), s, venti.DataType, buf); err != nil || !bytes.Equal(buf[:n], data) {
			t.Errorf("read: %d, %v", n, err)
		}
	}
	c.Close()
	wg.Wait()
}

func TestReadOnlyStore(t *testing.T) {
	m := ventitest.NewMemory()
	s, _ := m.WriteBlock(t.Context(), venti.DataType, []byte("x"))
	for name, st := range map[string]venti.Store{"memory": venti.ReadOnly(m), "plain": venti.ReadOnly(plain{m})} {
		buf := make([]byte, 10)
		if n, err := st.ReadBlock(t.Context(), s, venti.DataType, buf); string(buf[:n]) != "x" || err != nil {
			t.Errorf("%s: read %q, %v", name, buf[:n], err)
		}
		n, ok, err := st.(venti.CachedReader).ReadCached(s, venti.DataType, buf)
		if ok != (name == "memory") || ok && (n != 1 || err != nil) {
			t.Errorf("%s: cached read %d, %v, %v", name, n, ok, err)
		}
		if has, err := venti.HasBlock(t.Context(), st, s, venti.DataType); !has || err != nil {
			t.Errorf("%s: has %v, %v", name, has, err)
		}
		if has, err := venti.HasBlock(t.Context(), st, venti.ScoreOf([]byte("y")), venti.DataType); has || err != nil {
			t.Errorf("%s: has an absent block: %v, %v", name, has, err)
		}
		if _, err := venti.HasBlock(t.Context(), st, s, venti.CorruptType); !errors.Is(err, venti.ErrBadType) {
			t.Errorf("%s: has a bad type: %v", name, err)
		}
		if _, err := st.WriteBlock(t.Context(), venti.DataType, []byte("x")); !errors.Is(err, venti.ErrReadOnly) {
			t.Errorf("%s: write: %v", name, err)
		}
		if _, ok := st.(venti.ScoredWriter); ok {
			t.Errorf("%s: offers to write", name)
		}
		if err := st.Sync(t.Context()); err != nil {
			t.Errorf("%s: sync: %v", name, err)
		}
	}
}
