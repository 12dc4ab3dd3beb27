package ninep_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"strata/internal/ninep"
)

// A peer sends and takes messages one by one.
type peer struct {
	t       testing.TB
	conn    net.Conn
	br      *bufio.Reader
	dialect ninep.Dialect
}

func newPeer(t testing.TB, conn net.Conn) *peer {
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &peer{t: t, conn: conn, br: bufio.NewReader(conn)}
}

func (p *peer) send(f ninep.Fcall) {
	p.t.Helper()
	b, err := f.Pack(nil, p.dialect)
	if err != nil {
		p.t.Fatal(err)
	}
	p.sendBytes(b)
}

func (p *peer) sendBytes(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) take() ninep.Fcall {
	p.t.Helper()
	var f ninep.Fcall
	head, err := p.br.Peek(4)
	if err != nil {
		p.t.Fatal(err)
	}
	b := make([]byte, binary.LittleEndian.Uint32(head))
	if _, err := io.ReadFull(p.br, b); err != nil {
		p.t.Fatal(err)
	}
	if err := f.Unpack(b, p.dialect); err != nil {
		p.t.Fatal(err)
	}
	return f
}

// call sends f and returns its reply, which must be the next.
func (p *peer) call(f ninep.Fcall) ninep.Fcall {
	p.t.Helper()
	p.send(f)
	r := p.take()
	if r.Tag != f.Tag {
		p.t.Fatalf("reply %s to %s", r.Text(p.dialect), f.Text(p.dialect))
	}
	return r
}

// must is call for what has to succeed.
func (p *peer) must(f ninep.Fcall) ninep.Fcall {
	p.t.Helper()
	r := p.call(f)
	if r.Type != f.Type+1 {
		p.t.Fatalf("%s got %s", f.Text(p.dialect), r.Text(p.dialect))
	}
	return r
}

// start agrees on a version and attaches fid 1.
func (p *peer) start(d ninep.Dialect, msize uint32) {
	p.t.Helper()
	p.must(ninep.Fcall{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: msize, Version: d.String()})
	p.dialect = d
	p.must(ninep.Fcall{Type: ninep.Tattach, Fid: 1, Afid: ninep.NoFid, Uname: "glenda", UID: ninep.NoUID})
}

// slowFS is a tree with one file, of which reads wait to be let go, or for
// their context to end.
type slowFS struct {
	started  chan int64   // gets the offset of each read that starts
	release  chan error   // lets one read go: nil to succeed
	stubborn bool         // reads do not heed their context
	closed   atomic.Int32 // handles closed
}

func newSlowFS() *slowFS {
	return &slowFS{started: make(chan int64, 1000), release: make(chan error)}
}

func (fs *slowFS) Attach(context.Context, string, string) (ninep.Node, error) {
	return ninep.NewDir(ninep.Dir{Name: "/"}, map[string]ninep.Node{"slow": slowNode{fs}}), nil
}

type slowNode struct{ fs *slowFS }

func (n slowNode) Qid() ninep.Qid                                   { return ninep.Qid{Path: 2} }
func (n slowNode) Walk(context.Context, string) (ninep.Node, error) { return nil, ninep.ErrNotDir }
func (n slowNode) Stat(context.Context) (ninep.Dir, error)          { return ninep.Dir{Name: "slow"}, nil }
func (n slowNode) Open(context.Context, ninep.OpenMode) (ninep.Handle, error) {
	return slowHandle(n), nil
}

type slowHandle struct{ fs *slowFS }

func (h slowHandle) Close(context.Context) error { h.fs.closed.Add(1); return nil }

func (h slowHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	h.fs.started <- off
	done := ctx.Done()
	if h.fs.stubborn {
		done = nil
	}
	select {
	case err := <-h.fs.release:
		if err != nil {
			return 0, err
		}
		return copy(p, "slow"), nil
	case <-done:
		return 0, ctx.Err()
	}
}

// openSlow makes fid 2 the open slow file.
func (p *peer) openSlow() {
	p.t.Helper()
	p.must(ninep.Fcall{Type: ninep.Twalk, Fid: 1, Newfid: 2, Names: []string{"slow"}})
	p.must(ninep.Fcall{Type: ninep.Topen, Fid: 2})
}

func tread(tag uint16, off uint64) ninep.Fcall {
	return ninep.Fcall{Type: ninep.Tread, Tag: tag, Fid: 2, Offset: off, Count: 8000}
}

func tflush(tag, old uint16) ninep.Fcall {
	return ninep.Fcall{Type: ninep.Tflush, Tag: tag, Oldtag: old}
}

// expect takes replies with these types and tags, in order.
func (p *peer) expect(want ...ninep.Fcall) {
	p.t.Helper()
	for _, w := range want {
		if got := p.take(); got.Type != w.Type || got.Tag != w.Tag {
			p.t.Fatalf("got %s, want type %d with tag %d", got.Text(p.dialect), w.Type, w.Tag)
		}
	}
}

// TestFlush has reads given up: the reply to the flush comes instead of
// theirs.
func TestFlush(t *testing.T) {
	fs := newSlowFS()
	p := newPeer(t, serve(t, fs, ninep.Config{}))
	p.start(ninep.Classic, 8192)
	p.openSlow()
	p.send(tread(5, 0))
	<-fs.started
	// Others are not held up.
	p.must(ninep.Fcall{Type: ninep.Tstat, Tag: 6, Fid: 1})
	p.send(tflush(7, 5))
	p.expect(ninep.Fcall{Type: ninep.Rflush, Tag: 7})
	// The tag is free again.
	p.send(tread(5, 0))
	<-fs.started
	fs.release <- nil
	p.expect(ninep.Fcall{Type: ninep.Rread, Tag: 5})
}

// TestFlushTooLate has a read succeed in spite of two flushes, one of them
// flushed itself: its reply comes first, then theirs.
func TestFlushTooLate(t *testing.T) {
	fs := newSlowFS()
	fs.stubborn = true
	p := newPeer(t, serve(t, fs, ninep.Config{}))
	p.start(ninep.Classic, 8192)
	p.openSlow()
	p.send(tread(5, 0))
	<-fs.started
	p.send(tflush(7, 5))
	p.send(tflush(8, 5))
	p.send(tflush(9, 7))
	p.must(ninep.Fcall{Type: ninep.Tstat, Tag: 6, Fid: 1}) // the flushes have been read
	fs.release <- nil
	p.expect(ninep.Fcall{Type: ninep.Rread, Tag: 5}, ninep.Fcall{Type: ninep.Rflush, Tag: 7},
		ninep.Fcall{Type: ninep.Rflush, Tag: 9}, ninep.Fcall{Type: ninep.Rflush, Tag: 8})
}

// TestFlushOrder flushes reads at the moment when they end, many times: no
// reply may come behind that of its flush.
func TestFlushOrder(t *testing.T) {
	fs := newSlowFS()
	p := newPeer(t, serve(t, fs, ninep.Config{}))
	p.start(ninep.Classic, 8192)
	p.openSlow()
	replied := 0
	for i := range 500 {
		p.send(tread(5, 0))
		<-fs.started
		over := make(chan struct{})
		go func() {
			select {
			case fs.release <- nil:
			case <-over: // it was cancelled first
			}
		}()
		p.send(tflush(6, 5))
		got := p.take()
		if got.Type == ninep.Rread {
			replied++
			got = p.take()
		}
		if got.Type != ninep.Rflush || got.Tag != 6 {
			t.Fatalf("round %d: %s", i, got.Text(ninep.Classic))
		}
		close(over)
	}
	t.Logf("%d reads of 500 were faster than their flush", replied)
}

// TestParked has more requests than may run at once: they wait their turn, and
// can be flushed while they do.
func TestParked(t *testing.T) {
	for _, limit := range []struct {
		name            string
		cfg             ninep.Config
		requests, bytes int // set later
	}{
		{"by number", ninep.Config{MaxRequests: 2}, 0, 0},
		{"by bytes", ninep.Config{MaxBytes: 25000}, 0, 0},
		{"by number, set later", ninep.Config{}, 2, 0},
		{"by bytes, set later", ninep.Config{MaxRequests: 5}, 0, 25000},
	} {
		t.Run(limit.name, func(t *testing.T) {
			fs := newSlowFS()
			s := ninep.NewServer(fs, limit.cfg)
			s.SetLimits(limit.requests, limit.bytes)
			p := newPeer(t, serveWith(t, s))
			p.start(ninep.Classic, 8192)
			p.openSlow()
			for tag := range uint16(5) {
				p.send(tread(tag+10, uint64(tag)))
			}
			if a, b := <-fs.started, <-fs.started; a+b != 1 {
				t.Errorf("the reads at %d and %d started first", a, b)
			}
			p.send(tflush(20, 12)) // waits its turn
			p.expect(ninep.Fcall{Type: ninep.Rflush, Tag: 20})
			select {
			case off := <-fs.started:
				t.Fatalf("read at %d started beyond the limit", off)
			default:
			}
			fs.release <- nil
			if r := p.take(); r.Type != ninep.Rread || r.Tag > 11 {
				t.Errorf("got %s", r.Text(ninep.Classic))
			}
			if off := <-fs.started; off != 3 {
				t.Errorf("read at %d started next, want 3", off)
			}
			fs.release <- nil
			p.take()
			if off := <-fs.started; off != 4 {
				t.Errorf("read at %d started last, want 4", off)
			}
			requests, bytes := s.Limits()
			number := requests == 2
			if st := s.Stats(); (st.NumberWaits > 0) != number || (st.ByteWaits > 0) == number || bytes == 0 {
				t.Errorf("limits %d and %d, %+v", requests, bytes, st)
			}
			// What still runs ends with the connection.
		})
	}
}

// TestBackpressure sends more than the server will hold while a read is under
// way: it stops reading, goes on when the read has ended, and loses nothing.
func TestBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newSlowFS()
		near, far := net.Pipe() // which holds nothing itself
		ended := make(chan error, 1)
		const most, size, writes = 10000, 1000, 100
		go func() {
			ended <- ninep.NewServer(fs, ninep.Config{MaxBytes: most}).ServeConn(context.Background(), far)
		}()
		p := newPeer(t, near)
		p.start(ninep.Classic, 65536)
		p.openSlow()
		read := tread(1, 0)
		read.Count = most
		p.send(read)
		<-fs.started
		taken := 0
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for i := range uint16(writes) {
				b, _ := (&ninep.Fcall{Type: ninep.Twrite, Tag: 2 + i, Fid: 2, Data: make([]byte, size)}).Pack(nil, ninep.Classic)
				p.conn.Write(b)
				taken++
			}
		}()
		synctest.Wait()
		// Beyond most there is one frame that did not fit, and the read buffer.
		if taken == 0 || taken > (most+32<<10)/size+1 {
			t.Errorf("the server has taken %d writes", taken)
		}
		fs.release <- nil
		p.expect(ninep.Fcall{Type: ninep.Rread, Tag: 1})
		seen := make(map[uint16]bool)
		for range writes {
			r := p.take()
			if r.Type != ninep.Rerror || seen[r.Tag] {
				t.Fatal(r.Text(ninep.Classic))
			}
			seen[r.Tag] = true
		}
		<-sent
		near.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestHangUp ends a connection with reads under way: their contexts are
// cancelled, and all is closed, before ServeConn returns (see serve).
func TestHangUp(t *testing.T) {
	for _, how := range []string{"close", "shut down", "version"} {
		t.Run(how, func(t *testing.T) {
			fs := newSlowFS()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			near, far := socketPair(t)
			ended := make(chan error, 1)
			go func() { ended <- ninep.NewServer(fs, ninep.Config{MaxRequests: 3}).ServeConn(ctx, far) }()
			p := newPeer(t, near)
			p.start(ninep.Classic, 8192)
			p.openSlow()
			for tag := range uint16(5) {
				p.send(tread(tag, 0))
			}
			for range 3 {
				<-fs.started
			}
			switch how {
			case "close":
				near.Close()
			case "shut down":
				cancel()
			case "version":
				// A new session: no reply to the reads, and no fid is left.
				p.must(ninep.Fcall{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: 8192, Version: "9P2000.L"})
				if fs.closed.Load() != 1 {
					t.Error("the file is open after Rversion")
				}
				p.dialect = ninep.Linux
				if r := p.call(ninep.Fcall{Type: ninep.Tgetattr, Tag: 1, Fid: 1}); r.Type != ninep.Rlerror || r.Errno != 9 {
					t.Errorf("getattr of an old fid: %s", r.Text(ninep.Linux))
				}
				near.Close()
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if fs.closed.Load() != 1 {
				t.Errorf("%d handles closed, want 1", fs.closed.Load())
			}
			near.Close()
		})
	}
}

// TestRemoveOnClose sees files removed that were opened to be, when their
// connection ends.
func TestRemoveOnClose(t *testing.T) {
	fs := newMemFS()
	s := ninep.NewServer(fs, ninep.Config{})
	near, far := socketPair(t)
	ended := make(chan error, 1)
	go func() { ended <- s.ServeConn(context.Background(), far) }()
	p := newPeer(t, near)
	p.start(ninep.Classic, 8192)
	p.must(ninep.Fcall{Type: ninep.Tcreate, Fid: 1, Name: "f", Perm: 0600, Mode: 0x42})
	near.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if fs.Open() != 0 {
		t.Errorf("%d handles are open", fs.Open())
	}
	p = newPeer(t, serveWith(t, s))
	p.start(ninep.Classic, 8192)
	if r := p.call(ninep.Fcall{Type: ninep.Twalk, Fid: 1, Newfid: 2, Names: []string{"f"}}); r.Ename != "file does not exist" {
		t.Errorf("walk to what should be gone: %s", r.Text(ninep.Classic))
	}
}

// TestBadMessages sends what is no message: in a good frame it gets an error
// reply and the connection goes on; a bad frame ends it.
func TestBadMessages(t *testing.T) {
	frame := func(t ninep.Type, tag uint16, body ...byte) []byte {
		b := binary.LittleEndian.AppendUint32(nil, uint32(7+len(body)))
		b = append(b, byte(t))
		b = binary.LittleEndian.AppendUint16(b, tag)
		return append(b, body...)
	}
	walk17 := binary.LittleEndian.AppendUint16([]byte{1, 0, 0, 0, 2, 0, 0, 0}, 17)
	for range 17 {
		walk17 = append(walk17, 1, 0, 'x')
	}
	for _, d := range []ninep.Dialect{ninep.Classic, ninep.Unix, ninep.Linux} {
		for _, c := range []struct {
			name  string
			bytes []byte
			want  string // error of the reply; "" is the end of the connection
		}{
			{"no type 0", frame(0, 9), "protocol botch"},
			{"no type 106", frame(106, 9), "protocol botch"},
			{"no type 255", frame(255, 9, 1, 2, 3), "protocol botch"},
			{"a reply", frame(ninep.Rclunk, 9), "protocol botch"},
			{"a clunk cut short", frame(ninep.Tclunk, 9, 1, 0), "protocol botch"},
			{"a clunk too long", frame(ninep.Tclunk, 9, 1, 0, 0, 0, 0), "protocol botch"},
			{"a walk of 17 names", frame(ninep.Twalk, 9, walk17...), "too many names in walk"},
			{"a write of more than there is", frame(ninep.Twrite, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 'x'), "protocol botch"},
			{"a name of more than there is", frame(ninep.Twalk, 9, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 200, 0, 'x'), "protocol botch"},
			{"a frame of 6 bytes", []byte{6, 0, 0, 0, 120, 9}, ""},
			{"a frame of nothing", []byte{0, 0, 0, 0}, ""},
			{"a frame of more than msize", []byte{1, 32, 0, 0, 118, 9, 0}, ""},
			{"a frame of 4 GiB", []byte{255, 255, 255, 255, 118, 9, 0}, ""},
		} {
			t.Run(d.String()+"/"+c.name, func(t *testing.T) {
				near, far := socketPair(t)
				ended := make(chan error, 1)
				go func() { ended <- ninep.NewServer(newMemFS(), ninep.Config{}).ServeConn(context.Background(), far) }()
				defer func() { near.Close() }()
				p := newPeer(t, near)
				p.start(d, 8192)
				p.sendBytes(c.bytes)
				if c.want == "" {
					if err := <-ended; !errors.Is(err, ninep.ErrTooLong) {
						t.Errorf("ServeConn: %v", err)
					}
					return
				}
				r := p.take()
				if r.Tag != 9 || d != ninep.Linux && r.Ename != c.want || d != ninep.Classic && r.Errno != 71 {
					t.Errorf("got %s", r.Text(d))
				}
				stat := ninep.Tstat
				if d == ninep.Linux {
					stat = ninep.Tgetattr
				}
				p.must(ninep.Fcall{Type: stat, Tag: 9, Fid: 1})
				near.Close()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestCutFrames ends the connection inside of each byte of a message.
func TestCutFrames(t *testing.T) {
	whole, err := (&ninep.Fcall{Type: ninep.Twalk, Fid: 1, Newfid: 2, Names: []string{"a", "b"}}).Pack(nil, ninep.Classic)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		near, far := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- ninep.NewServer(newMemFS(), ninep.Config{}).ServeConn(context.Background(), far) }()
		p := newPeer(t, near)
		p.start(ninep.Classic, 8192)
		p.sendBytes(whole[:n])
		near.Close()
		err := <-ended
		if n > 0 != errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

// TestDuplicateTag uses a tag twice at once.
func TestDuplicateTag(t *testing.T) {
	fs := newSlowFS()
	p := newPeer(t, serve(t, fs, ninep.Config{}))
	p.start(ninep.Classic, 8192)
	p.openSlow()
	p.send(tread(5, 0))
	<-fs.started
	if r := p.call(ninep.Fcall{Type: ninep.Tstat, Tag: 5, Fid: 1}); r.Ename != "duplicate tag" {
		t.Errorf("second use: %s", r.Text(ninep.Classic))
	}
	if r := p.call(tflush(5, 5)); r.Ename != "duplicate tag" {
		t.Errorf("flush: %s", r.Text(ninep.Classic))
	}
	fs.release <- nil
	p.expect(ninep.Fcall{Type: ninep.Rread, Tag: 5})
}

// TestMsize reads and writes a file with many message sizes, for data, and
// looks that no reply is longer than it may be.
func TestMsize(t *testing.T) {
	all := pattern(300 << 10)
	for _, d := range []ninep.Dialect{ninep.Classic, ninep.Unix, ninep.Linux} {
		for _, msize := range []uint32{0, 24, 255, 256, 257, 8192, 65536 + 24, 1 << 20, 16 << 20, 16<<20 + 1, 1<<32 - 1} {
			t.Run(fmt.Sprintf("%s/%d", d, msize), func(t *testing.T) {
				p := newPeer(t, serve(t, newMemFS(), ninep.Config{Msize: ninep.MaxMsize}))
				r := p.call(ninep.Fcall{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: msize, Version: d.String()})
				if msize < ninep.MinMsize {
					if r.Ename != "Tversion: message size too small" {
						t.Errorf("got %s", r.Text(d))
					}
					return
				}
				got := min(msize, ninep.MaxMsize)
				want := all[:min(len(all), int(got)*30)]
				if r.Msize != got || r.Version != d.String() {
					t.Fatalf("got %s", r.Text(d))
				}
				p.start(d, msize)
				if d == ninep.Linux {
					p.must(ninep.Fcall{Type: ninep.Tlcreate, Fid: 1, Name: "f", Flags: 2, Perm: 0600})
				} else {
					p.must(ninep.Fcall{Type: ninep.Tcreate, Fid: 1, Name: "f", Mode: 2, Perm: 0600})
				}
				for off := 0; off < len(want); {
					data := want[off:min(len(want), off+int(got)-23)]
					if r := p.must(ninep.Fcall{Type: ninep.Twrite, Fid: 1, Offset: uint64(off), Data: data}); int(r.Count) != len(data) {
						t.Fatalf("wrote %d of %d", r.Count, len(data))
					}
					off += len(data)
				}
				var back []byte
				for {
					r := p.must(ninep.Fcall{Type: ninep.Tread, Fid: 1, Offset: uint64(len(back)), Count: 1<<32 - 1})
					if len(r.Data) == 0 {
						break
					}
					if len(r.Data) > int(got)-11 {
						t.Fatalf("%d bytes of data in a message of at most %d", len(r.Data), got)
					}
					back = append(back, r.Data...)
				}
				if !bytes.Equal(back, want) {
					t.Fatal("read something else than was written")
				}
			})
		}
	}
}

// TestManyFids has 10,000 fids in use, and none more than allowed; when the
// client has gone they take no memory.
func TestManyFids(t *testing.T) {
	const most = 10000
	fs := newMemFS()
	before := heap()
	near, far := socketPair(t)
	ended := make(chan error, 1)
	go func() { ended <- ninep.NewServer(fs, ninep.Config{MaxFids: most}).ServeConn(context.Background(), far) }()
	p := newPeer(t, near)
	p.start(ninep.Linux, 8192)
	go func() {
		for i := range uint32(most - 1) {
			b, _ := (&ninep.Fcall{Type: ninep.Twalk, Tag: uint16(i), Fid: 1, Newfid: i + 2}).Pack(nil, ninep.Linux)
			p.conn.Write(b)
		}
	}()
	for range most - 1 {
		if r := p.take(); r.Type != ninep.Rwalk {
			t.Fatal(r.Text(ninep.Linux))
		}
	}
	if r := p.call(ninep.Fcall{Type: ninep.Twalk, Fid: 1, Newfid: most + 2}); r.Errno != 24 {
		t.Errorf("one fid more: %s", r.Text(ninep.Linux))
	}
	p.must(ninep.Fcall{Type: ninep.Tclunk, Fid: 77})
	p.must(ninep.Fcall{Type: ninep.Twalk, Fid: 1, Newfid: most + 2})
	if used := heap() - before; used < most*100 {
		t.Errorf("%d fids take %d bytes: that is no measure", most, used)
	}
	near.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if more := heap() - before; more > 256<<10 {
		t.Errorf("%d bytes more are in use than before", more)
	}
}

// heap returns how many bytes are in use, pools emptied.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the pools kept through the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestManyConnections has 1,000 connections at once, and no more memory or
// goroutines (see TestMain) afterwards.
func TestManyConnections(t *testing.T) {
	before := heap()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	fs := newMemFS()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ninep.NewServer(fs, ninep.Config{}).Serve(ctx, l) }()
	var wg sync.WaitGroup
	all := make(chan struct{})
	var open atomic.Int32
	const conns = 1000
	for i := range conns {
		wg.Go(func() {
			conn, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			p := newPeer(t, conn)
			p.start(ninep.Classic, 8192)
			p.must(ninep.Fcall{Type: ninep.Tcreate, Fid: 1, Name: fmt.Sprint(i), Mode: 1})
			if open.Add(1) == conns {
				close(all)
			}
			<-all
			p.must(ninep.Fcall{Type: ninep.Twrite, Fid: 1, Data: []byte("x")})
		})
	}
	wg.Wait()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := fs.Open(); n != 0 {
		t.Errorf("%d handles are open", n)
	}
	const files = 2 << 20 // the tree's own
	if more := heap() - before; more > files {
		t.Errorf("%d bytes more are in use than before", more)
	}
}

// TestSync counts what reaches the tree of fsync and the null wstat.
func TestSync(t *testing.T) {
	fs := newMemFS()
	p := newPeer(t, serve(t, fs, ninep.Config{}))
	p.start(ninep.Classic, 8192)
	null := ninep.Fcall{Type: ninep.Twstat, Fid: 1}
	full, err := ninep.ParseText("Twstat fid 1 stat []", ninep.Classic)
	if err != nil {
		t.Fatal(err)
	}
	null.Stat = full.Stat
	p.must(null)
	p.must(ninep.Fcall{Type: ninep.Tcreate, Fid: 1, Name: "f", Mode: 1})
	p.must(null)
	if n := fs.Syncs(); n != 2 {
		t.Errorf("%d syncs, want 2", n)
	}
	q := newPeer(t, serve(t, fs, ninep.Config{}))
	q.start(ninep.Linux, 8192)
	q.must(ninep.Fcall{Type: ninep.Tfsync, Fid: 1})
	// As clients send it that know no datasync.
	q.sendBytes([]byte{11, 0, 0, 0, byte(ninep.Tfsync), 3, 0, 1, 0, 0, 0})
	if r := q.take(); r.Type != ninep.Rfsync || r.Tag != 3 {
		t.Error(r.Text(ninep.Linux))
	}
	if n := fs.Syncs(); n != 4 {
		t.Errorf("%d syncs, want 4", n)
	}
}

// TestTreeErrors sees how errors that are not the table's arrive.
func TestTreeErrors(t *testing.T) {
	for _, c := range []struct {
		err   error
		text  string
		errno uint32
	}{
		{ninep.ErrFull, "file system is full", 28},
		{fmt.Errorf("write block 7: %w", ninep.ErrFull), "file system is full", 28},
		{&ninep.Error{Text: "no such tag", Errno: 2}, "no such tag", 2},
		{errors.New("arena is on fire"), "arena is on fire", 5},
		{errors.New(strings.Repeat("é", 200)), strings.Repeat("é", 120), 5},
		{context.DeadlineExceeded, "Connection timed out", 110},
		{context.Canceled, "Interrupted system call", 4},
		{io.ErrUnexpectedEOF, "unexpected EOF", 5},
	} {
		fs := newSlowFS()
		p := newPeer(t, serve(t, fs, ninep.Config{}))
		p.start(ninep.Unix, 8192)
		p.openSlow()
		p.send(tread(1, 0))
		fs.release <- c.err
		if r := p.take(); r.Ename != c.text || r.Errno != c.errno {
			t.Errorf("%v became %s", c.err, r.Text(ninep.Unix))
		}
	}
}
