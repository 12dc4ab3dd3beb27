package ninep_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"strata/internal/ninep"
)

// A piped is a server at the other end of a pipe, which holds nothing itself.
type piped struct {
	*peer
	fs    *slowFS
	ended chan error
}

// servePipe has a server with a clock that synctest turns.
func servePipe(t *testing.T, cfg ninep.Config) *piped {
	fs := newSlowFS()
	near, far := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- ninep.NewServer(fs, cfg).ServeConn(context.Background(), far) }()
	p := newPeer(t, near)
	near.SetDeadline(time.Time{})
	return &piped{p, fs, ended}
}

// ends checks that the connection ends after d, within what watch is exact to.
func (p *piped) ends(d time.Duration) {
	p.t.Helper()
	start := time.Now()
	err := <-p.ended
	if took := time.Since(start); took < d-time.Second || took > d*3/2 {
		p.t.Errorf("it ended after %v, want %v", took, d)
	}
	if !errors.Is(err, ninep.ErrTimeout) {
		p.t.Errorf("ServeConn: %v", err)
	}
}

// lasts checks that the connection does not end within d.
func (p *piped) lasts(d time.Duration) {
	p.t.Helper()
	select {
	case err := <-p.ended:
		p.t.Fatalf("it ended: %v", err)
	case <-time.After(d):
	}
}

func (p *piped) hangUp() {
	p.conn.Close()
	if err := <-p.ended; err != nil {
		p.t.Errorf("ServeConn: %v", err)
	}
}

// TestIdle has clients that ask for nothing.
func TestIdle(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"from the start", func(t *testing.T) {
			servePipe(t, ninep.Config{}).ends(time.Minute)
		}},
		{"after the version", func(t *testing.T) {
			p := servePipe(t, ninep.Config{})
			p.must(ninep.Fcall{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: 8192, Version: "9P2000"})
			p.ends(time.Minute)
		}},
		{"a mount that rests", func(t *testing.T) {
			p := servePipe(t, ninep.Config{})
			p.start(ninep.Classic, 8192)
			p.lasts(24 * time.Hour)
			p.must(ninep.Fcall{Type: ninep.Tstat, Fid: 1})
			p.hangUp()
		}},
		{"a mount, but not for ever", func(t *testing.T) {
			p := servePipe(t, ninep.Config{IdleTime: time.Hour})
			p.start(ninep.Classic, 8192)
			for range 5 {
				p.lasts(45 * time.Minute)
				p.must(ninep.Fcall{Type: ninep.Tstat, Fid: 1})
			}
			p.ends(time.Hour)
		}},
		{"while a read takes its time", func(t *testing.T) {
			p := servePipe(t, ninep.Config{IdleTime: time.Hour})
			p.start(ninep.Classic, 8192)
			p.openSlow()
			p.send(tread(1, 0))
			<-p.fs.started
			p.lasts(24 * time.Hour)
			p.fs.release <- nil
			p.expect(ninep.Fcall{Type: ninep.Rread, Tag: 1})
			p.hangUp()
		}},
	} {
		t.Run(c.name, func(t *testing.T) { synctest.Test(t, c.run) })
	}
}

// TestStall has a client that does not take its replies: it is cut off, and
// what it had is closed. One that takes them slowly is not.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := servePipe(t, ninep.Config{StallTime: time.Minute})
		p.start(ninep.Classic, 8192)
		p.openSlow()
		p.send(tread(1, 0)) // is never answered
		<-p.fs.started
		p.send(ninep.Fcall{Type: ninep.Tstat, Tag: 2, Fid: 1})
		p.ends(time.Minute)
		if n := p.fs.closed.Load(); n != 1 {
			t.Errorf("%d handles closed, want 1", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := servePipe(t, ninep.Config{StallTime: time.Minute})
		p.start(ninep.Classic, 8192)
		for range 10 {
			p.send(ninep.Fcall{Type: ninep.Tstat, Tag: 2, Fid: 1})
			p.lasts(30 * time.Second)
			p.take()
		}
		p.hangUp()
	})
}

// TestFlood has a client send without end and read nothing: the server stops
// to take it before much is in memory.
func TestFlood(t *testing.T) {
	const most = 64 << 10
	for _, c := range []struct {
		name string
		f    ninep.Fcall
	}{
		{"requests", ninep.Fcall{Type: ninep.Tstat, Fid: 1}},
		{"errors", ninep.Fcall{Type: ninep.Tstat, Fid: 99}},
		{"replies", ninep.Fcall{Type: ninep.Rclunk}},
		{"flushes of nothing", ninep.Fcall{Type: ninep.Tflush, Oldtag: 1}},
		{"versions", ninep.Fcall{Type: ninep.Tversion, Msize: 8192, Version: "9P2000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := servePipe(t, ninep.Config{MaxBytes: most, StallTime: time.Minute})
				p.start(ninep.Classic, 8192)
				sent := make(chan int)
				go func() {
					n := 0
					for ; ; n++ {
						c.f.Tag = uint16(n)
						b, err := c.f.Pack(nil, ninep.Classic)
						if err != nil {
							t.Error(err)
						}
						if _, err := p.conn.Write(b); err != nil {
							sent <- n
							return
						}
					}
				}()
				p.ends(time.Minute)
				p.conn.Close()
				// The read buffer, and as many again as wait for a turn.
				if n := <-sent; n == 0 || n > 32<<10/7+2*most/256 {
					t.Errorf("%d messages taken", n)
				}
			})
		})
	}
}

// TestKeepAlive looks what the system has been told about a connection.
func TestKeepAlive(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	caught := make(chan *net.TCPConn, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s := ninep.NewServer(newMemFS(), ninep.Config{KeepAlive: 77 * time.Second})
	go func() { ended <- s.Serve(ctx, catchListener{l, caught}) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	newPeer(t, conn).start(ninep.Classic, 8192)
	raw, err := (<-caught).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for _, o := range []struct {
			name             string
			level, opt, want int
		}{
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.SOL_TCP, unix.TCP_KEEPIDLE, 77},
			{"TCP_KEEPINTVL", unix.SOL_TCP, unix.TCP_KEEPINTVL, 77},
			{"TCP_KEEPCNT", unix.SOL_TCP, unix.TCP_KEEPCNT, 3},
		} {
			if got, err := unix.GetsockoptInt(int(fd), o.level, o.opt); got != o.want || err != nil {
				t.Errorf("%s is %d, %v, want %d", o.name, got, err, o.want)
			}
		}
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A catchListener accepts connections that hide what they are, as those of
// TLS do.
type catchListener struct {
	net.Listener
	caught chan *net.TCPConn
}

func (l catchListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.caught <- c.(*net.TCPConn)
	return hiddenConn{c, c}, nil
}

type hiddenConn struct {
	net.Conn
	inner net.Conn
}

func (c hiddenConn) NetConn() net.Conn { return c.inner }
