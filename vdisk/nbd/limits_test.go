package nbd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"strata/internal/netaddr"
	"strata/internal/netaddr/tlstest"
	"strata/vdisk/nbd"
)

// A talk is a client that says what it is told.
type talk struct {
	t  testing.TB
	nc net.Conn
}

func dial(t testing.TB, addr string) *talk {
	t.Helper()
	nc, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second)) // a hang is a failure
	return &talk{t, nc}
}

func (k *talk) say(format string, args ...any) {
	k.t.Helper()
	b, err := parseBytes(fmt.Sprintf(format, args...))
	if err != nil {
		k.t.Fatal(err)
	}
	if _, err := k.nc.Write(b); err != nil {
		k.t.Fatal(err)
	}
}

func (k *talk) hear(n int) []byte {
	k.t.Helper()
	b := make([]byte, n)
	if got, err := io.ReadFull(k.nc, b); err != nil {
		k.t.Fatalf("got %q, %v", b[:got], err)
	}
	return b
}

func (k *talk) expect(format string, args ...any) {
	k.t.Helper()
	want, err := parseBytes(fmt.Sprintf(format, args...))
	if err != nil {
		k.t.Fatal(err)
	}
	if got := k.hear(len(want)); !bytes.Equal(got, want) {
		k.t.Fatalf("got %x, want %x", got, want)
	}
}

// eof fails unless the server ends the connection.
func (k *talk) eof() {
	k.t.Helper()
	if b, err := io.ReadAll(k.nc); err != nil && !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		k.t.Fatalf("got %q, %v, want the end", b, err)
	}
}

// greet gets as far as options.
func (k *talk) greet() {
	k.t.Helper()
	k.hear(18)
	k.say("00000003")
}

// open chooses an export with simple replies.
func (k *talk) open(name string) {
	k.t.Helper()
	k.greet()
	k.say(`"IHAVEOPT" 00000001 %08x %q`, len(name), name)
	k.hear(10)
}

func (k *talk) request(typ int, cookie, offset uint64, length uint32) {
	k.t.Helper()
	k.say("25609513 0000 %04x %016x %016x %08x", typ, cookie, offset, length)
}

func TestRequestsOvertake(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	d := &memDisk{data: make([]byte, 8192), hook: func(_ context.Context, op string, off int64, n int) error {
		if op == "read" && off == 0 {
			close(entered)
			<-leave
		}
		return nil
	}}
	addr, _ := serve(t, exports{"disk": {Disk: d}}, nbd.Config{})
	k := dial(t, addr)
	k.open("disk")
	k.request(0, 1, 0, 1)
	<-entered
	k.request(0, 2, 1, 1)
	k.expect("67446698 00000000 0000000000000002 00")
	k.request(3, 3, 0, 0)
	close(leave)
	got := map[uint64]bool{}
	for range 2 {
		h := k.hear(16)
		cookie := binary.BigEndian.Uint64(h[8:])
		if got[cookie] = true; cookie == 1 {
			k.hear(1)
		}
	}
	if !got[1] || !got[3] {
		t.Errorf("got replies %v", got)
	}
}

// TestOneAtATime has a client that waits for each reply meet a slow read: what it
// sends from then on does not wait for another.
func TestOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leave := make(chan struct{})
		d := &memDisk{data: make([]byte, 16384), hook: func(_ context.Context, op string, off int64, n int) error {
			switch off {
			case 4096:
				time.Sleep(5 * time.Millisecond)
			case 8192:
				<-leave
			}
			return nil
		}}
		ours, theirs := net.Pipe()
		var served sync.WaitGroup
		served.Go(func() { nbd.NewServer(exports{"disk": {Disk: d}}, nbd.Config{}).ServeConn(t.Context(), theirs) })
		k := &talk{t, ours}
		k.open("disk")
		read := func(cookie, off uint64) {
			k.request(0, cookie, off, 1)
			k.expect("67446698 00000000 %016x 00", cookie)
		}
		for i := range uint64(20) {
			read(i, 0)
		}
		read(100, 4096)
		for i := range uint64(20) {
			read(i, 0)
		}
		k.request(0, 101, 8192, 1)
		read(102, 0)
		close(leave)
		k.expect("67446698 00000000 %016x 00", 101)
		ours.Close()
		served.Wait()
	})
}

// TestRequestsInFlight fills the slots of a connection.
func TestRequestsInFlight(t *testing.T) {
	const most = 5
	var mu sync.Mutex
	var once sync.Once
	running, peak := 0, 0
	full := make(chan struct{})
	d := &memDisk{data: make([]byte, 8192), hook: func(context.Context, string, int64, int) error {
		mu.Lock()
		running++
		peak = max(peak, running)
		if running == most {
			once.Do(func() { close(full) })
		}
		mu.Unlock()
		<-full
		mu.Lock()
		running--
		mu.Unlock()
		return nil
	}}
	addr, _ := serve(t, exports{"disk": {Disk: d}}, nbd.Config{MaxRequests: most})
	k := dial(t, addr)
	k.open("disk")
	for i := range 50 {
		k.request(0, uint64(i), 0, 1)
	}
	for range 50 {
		k.hear(17)
	}
	mu.Lock()
	defer mu.Unlock()
	if peak != most {
		t.Errorf("got %d requests at once, want %d", peak, most)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{syscall.EIO, 5},
		{syscall.ENOSPC, 28},
		{fmt.Errorf("write: %w", syscall.EDQUOT), 28},
		{syscall.EFBIG, 28},
		{syscall.EROFS, 1},
		{syscall.EINVAL, 22},
		{syscall.ENOMEM, 12},
		{syscall.ESHUTDOWN, 108},
		{errors.New("broken"), 5},
	} {
		d := &memDisk{data: make([]byte, 600<<10), hook: func(_ context.Context, _ string, off int64, n int) error {
			if off <= 300<<10 && 300<<10 < off+int64(n) || n == 0 {
				return c.err
			}
			return nil
		}}
		addr, _ := serve(t, exports{"disk": {Disk: d}}, nbd.Config{})
		k := dial(t, addr)
		k.open("disk")
		k.request(0, 1, 300<<10, 1)
		k.expect("67446698 %08x 0000000000000001", c.code)
		k.request(1, 2, 0, 600<<10)
		k.say("01*%d", 600<<10)
		k.expect("67446698 %08x 0000000000000002", c.code)
		k.request(0, 6, 255<<10, 1)
		k.expect("67446698 00000000 0000000000000006 01")
		k.request(3, 3, 0, 0)
		k.expect("67446698 %08x 0000000000000003", c.code)
		k.request(6, 4, 0, 600<<10)
		k.expect("67446698 %08x 0000000000000004", c.code)
		k.request(5, 5, 0, 600<<10)
		k.expect("67446698 %08x 0000000000000005", c.code)
	}
}

// TestReadErrorAtOffset reads past a bad place with structured replies: what
// came before is sent, and the error says where it is.
func TestReadErrorAtOffset(t *testing.T) {
	d := &memDisk{data: bytes.Repeat([]byte{7}, 600<<10), hook: func(_ context.Context, op string, off int64, n int) error {
		if op == "read" && off >= 256<<10 {
			return syscall.EIO
		}
		return nil
	}}
	addr, _ := serve(t, exports{"disk": {Disk: d}}, nbd.Config{})
	k := dial(t, addr)
	k.greet()
	k.say(`"IHAVEOPT" 00000008 00000000`)
	k.hear(20)
	k.say(`"IHAVEOPT" 00000001 00000004 "disk"`)
	k.hear(10)
	k.request(0, 1, 0, 600<<10)
	k.expect("668e33ef 0000 0001 0000000000000001 %08x 0000000000000000 07*%d", 8+256<<10, 256<<10)
	k.expect("668e33ef 0001 8002 0000000000000001 00000020 00000005 0012 %q 0000000000040000", "input/output error")
}

func TestOneWriter(t *testing.T) {
	released := make(chan string, 10)
	x := exports{
		"disk":   {Disk: &memDisk{data: make([]byte, 512)}, Release: func() { released <- "disk" }},
		"same":   {Name: "disk", Disk: &memDisk{data: make([]byte, 512)}},
		"shared": {Disk: &memDisk{data: make([]byte, 512)}, Shared: true},
		"ro":     {Disk: &memDisk{data: make([]byte, 512)}, ReadOnly: true},
	}
	addr, _ := serve(t, x, nbd.Config{})
	k := dial(t, addr)
	k.open("disk")
	other := dial(t, addr)
	other.greet()
	const busy = "permission denied: another connection may write to the export"
	for _, name := range []string{"disk", "same"} {
		other.say(`"IHAVEOPT" 00000007 0000000a 00000004 %q 0000`, name)
		other.expect("0003e889045565a9 00000007 80000002 %08x %q", len(busy), busy)
	}
	// To ask about it is no writing.
	other.say(`"IHAVEOPT" 00000006 0000000a 00000004 "disk" 0000`)
	other.hear(20 + 12 + 20)
	late := dial(t, addr)
	late.greet()
	late.say(`"IHAVEOPT" 00000001 00000004 "disk"`)
	late.eof()
	for _, name := range []string{"shared", "shared", "ro", "ro"} {
		dial(t, addr).open(name)
	}
	for len(released) > 0 {
		<-released
	}
	k.nc.Close()
	<-released
	// The slot is free right after the disk is.
	for {
		other.say(`"IHAVEOPT" 00000007 0000000a 00000004 "disk" 0000`)
		if b := other.hear(20); b[12] == 0 {
			break
		}
		other.hear(len(busy))
		runtime.Gosched()
	}
}

func TestTooManyConnections(t *testing.T) {
	addr, _ := serve(t, exports{"disk": {Disk: &memDisk{data: make([]byte, 512)}}}, nbd.Config{MaxConns: 2})
	dial(t, addr).greet()
	dial(t, addr).greet()
	dial(t, addr).eof()
}

// TestMemory has clients that claim to write much and then say nothing, and
// others that read much and take nothing.
func TestMemory(t *testing.T) {
	d := &memDisk{data: bytes.Repeat([]byte{1}, 40<<20)}
	addr, _ := serve(t, exports{"disk": {Disk: d, Shared: true}}, nbd.Config{MaxConns: 100, MaxBytes: 32 << 20})
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 30 {
		k := dial(t, addr)
		k.open("disk")
		k.request(1, 1, 0, 32<<20)
		k.say("01*100000")
	}
	for range 30 {
		k := dial(t, addr)
		k.open("disk")
		for i := range 10 {
			k.request(0, uint64(i), 0, 32<<20)
		}
	}
	last := dial(t, addr)
	last.open("disk")
	last.request(5, 1, 0, 0)
	last.hear(16)
	runtime.ReadMemStats(&after)
	if got := int64(after.HeapInuse) - int64(before.HeapInuse); got > 100<<20 {
		t.Errorf("sixty bad clients take %d MiB", got>>20)
	}
}

// TestPatience has clients that stop in the middle.
func TestPatience(t *testing.T) {
	for name, said := range map[string]string{
		"greeting": "",
		"option":   `00000003 "IHAVEOPT" 000000`,
		"data":     `00000003 "IHAVEOPT" 00000007 00000010 00`,
		"request":  `00000003 "IHAVEOPT" 00000001 00000004 "disk" 25`,
		"write":    `00000003 "IHAVEOPT" 00000001 00000004 "disk" 25609513 0000 0001 0000000000000001 0000000000000000 00000008 00`,
		"idle":     `00000003 "IHAVEOPT" 00000001 00000004 "disk"`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, err := parseBytes(said)
				if err != nil {
					t.Fatal(err)
				}
				ours, theirs := net.Pipe()
				defer ours.Close()
				d := &memDisk{data: make([]byte, 512)}
				srv := nbd.NewServer(exports{"disk": {Disk: d}}, nbd.Config{IdleTime: time.Hour})
				var wg sync.WaitGroup
				wg.Go(func() { srv.ServeConn(t.Context(), theirs) })
				wg.Go(func() { ours.Write(b) })
				began := time.Now()
				io.Copy(io.Discard, ours)
				want := time.Minute
				if name == "idle" {
					want = time.Hour
				}
				if got := time.Since(began); got != want {
					t.Errorf("cut off after %v, want %v", got, want)
				}
				wg.Wait()
			})
		})
	}
}

// TestSleepers is TestPatience for who has nothing to say.
func TestSleepers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		srv := nbd.NewServer(exports{"disk": {Disk: &memDisk{data: make([]byte, 512)}}}, nbd.Config{})
		var wg sync.WaitGroup
		wg.Go(func() { srv.ServeConn(t.Context(), theirs) })
		k := &talk{t, ours}
		k.open("disk")
		time.Sleep(1000 * time.Hour)
		k.request(0, 1, 0, 1)
		k.expect("67446698 00000000 0000000000000001 00")
		ours.Close()
		wg.Wait()
	})
}

// TestStop ends the server while a request is under way, which is answered.
func TestStop(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	d := &memDisk{data: make([]byte, 512), hook: func(ctx context.Context, op string, _ int64, _ int) error {
		close(entered)
		<-leave
		return ctx.Err()
	}}
	addr, stop := serve(t, exports{"disk": {Disk: d}}, nbd.Config{})
	k := dial(t, addr)
	k.open("disk")
	idle := dial(t, addr)
	idle.greet()
	k.request(0, 1, 0, 4)
	<-entered
	var wg sync.WaitGroup
	wg.Go(stop)
	idle.eof()
	close(leave)
	k.expect("67446698 00000000 0000000000000001 00*4")
	k.eof()
	wg.Wait()
}

// TestGiveUp ends the server while a disk does not answer.
func TestGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		d := &memDisk{data: make([]byte, 512), hook: func(ctx context.Context, _ string, _ int64, _ int) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		srv := nbd.NewServer(exports{"disk": {Disk: d}}, nbd.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { srv.ServeConn(ctx, theirs) })
		k := &talk{t, ours}
		k.open("disk")
		k.request(0, 1, 0, 4)
		synctest.Wait()
		cancel()
		wg.Wait()
		ours.Close()
	})
}

func TestTLS(t *testing.T) {
	ca := tlstest.NewCA(t, "our ca")
	server := ca.Issue("server", nil)
	log := make(chan string, 100)
	ln, err := netaddr.Config{Upgrade: true}.Listen(t.Context(), "tls!127.0.0.1!0!cert="+server+"!ca="+ca.File, nbd.Service)
	if err != nil {
		t.Fatal(err)
	}
	d := &memDisk{data: talkDisk()}
	serveOn(t, exports{"disk": {Disk: d}}, nbd.Config{Logger: slog.New(slog.NewTextHandler(lines(log), nil))}, ln)
	connect := func() *talk {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(20 * time.Second))
		k := &talk{t, nc}
		k.greet()
		return k
	}
	k := connect()
	for _, option := range []int{3, 6, 7, 8, 9, 10, 99} {
		k.say(`"IHAVEOPT" %08x 00000000`, option)
		k.expect(`0003e889045565a9 %08x 80000005 0000000f "TLS comes first"`, option)
	}
	k.say(`"IHAVEOPT" 00000005 00000001 00`)
	k.expect(`0003e889045565a9 00000005 80000003 0000001b "data after NBD_OPT_STARTTLS"`)
	k.say(`"IHAVEOPT" 00000005 00000000`)
	k.expect("0003e889045565a9 00000005 00000001 00000000")
	client := ca.Issue("client", nil)
	pair, err := tls.LoadX509KeyPair(client, client)
	if err != nil {
		t.Fatal(err)
	}
	secure := &talk{t, tls.Client(k.nc, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})}
	secure.say(`"IHAVEOPT" 00000005 00000000`)
	secure.expect(`0003e889045565a9 00000005 80000003 00000015 "TLS has begun already"`)
	secure.say(`"IHAVEOPT" 00000001 00000004 "disk"`)
	secure.hear(10)
	secure.request(0, 1, 0x200, 6)
	secure.expect(`67446698 00000000 0000000000000001 "strata"`)

	// Without TLS no export, and nothing in front of the handshake.
	k = connect()
	k.say(`"IHAVEOPT" 00000001 00000004 "disk"`)
	k.eof()
	k = connect()
	k.say(`"IHAVEOPT" 00000005 00000000 "IHAVEOPT" 00000003 00000000`)
	k.eof()
	k = connect()
	k.say(`"IHAVEOPT" 00000005 00000000`)
	k.hear(20)
	nobody := &talk{t, tls.Client(k.nc, &tls.Config{InsecureSkipVerify: true})}
	nobody.say(`"IHAVEOPT" 00000003 00000000`)
	if _, err := nobody.nc.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: got %v", err)
	}
	for line := range log {
		if strings.Contains(line, "didn't provide a certificate") {
			break
		}
	}
}

// lines are what a logger writes.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}
