package ninep_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"

	"strata/internal/ninep"
)

// These benchmarks move data through a unix socket with a client that does
// nothing but keep a number of requests in flight, in this same process. Each
// runs against the server in its dialects, and against a bare socket: a peer
// that understands only the framing and answers from one buffer.
//
//	go test -run '^$' -bench . ./internal/ninep

const benchFile = 16 << 20

// block is a handle's contents that takes no lock: the server alone is
// measured.
type block []byte

func (b block) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	return copy(p, b[off:]), nil
}

// cachedBlock answers in the goroutine that reads the connection.
type cachedBlock struct{ block }

func (b cachedBlock) ReadCached(p []byte, off int64) (int, bool) {
	n, _ := b.ReadAt(nil, p, off)
	return n, true
}

// fixedFS is a tree whose root is fixed.
type fixedFS struct{ root ninep.Node }

func (fs fixedFS) Attach(context.Context, string, string) (ninep.Node, error) { return fs.root, nil }

func benchTree(r ninep.Reader) ninep.FS {
	return fixedFS{ninep.NewDir(ninep.Dir{Name: "/", Mode: 0555, Qid: ninep.Qid{Path: 1}}, map[string]ninep.Node{
		"f": ninep.NewFile(ninep.Dir{Name: "f", Mode: 0444, Length: benchFile, Qid: ninep.Qid{Path: 2}}, r),
	})}
}

// rawClient is a connection on which fid 2 is open.
type rawClient struct {
	net.Conn
	br  *bufio.Reader
	buf []byte
}

func newRawClient(b *testing.B, conn net.Conn) *rawClient {
	b.Helper()
	return &rawClient{conn, bufio.NewReaderSize(conn, 64<<10), make([]byte, 2<<20)}
}

// call sends a message and returns the type of its reply.
func (c *rawClient) call(b *testing.B, d ninep.Dialect, f ninep.Fcall) ninep.Type {
	b.Helper()
	p, err := f.Pack(nil, d)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := c.Write(p); err != nil {
		b.Fatal(err)
	}
	return ninep.Type(c.reply(b)[4])
}

// reply reads the next message.
func (c *rawClient) reply(b *testing.B) []byte {
	if _, err := io.ReadFull(c.br, c.buf[:4]); err != nil {
		b.Fatal(err)
	}
	n := binary.LittleEndian.Uint32(c.buf)
	if _, err := io.ReadFull(c.br, c.buf[4:n]); err != nil {
		b.Fatal(err)
	}
	return c.buf[:n]
}

// open opens the file f of the tree as fid 2.
func (c *rawClient) open(b *testing.B, d ninep.Dialect, write bool) {
	b.Helper()
	open := ninep.Fcall{Type: ninep.Topen, Fid: 2}
	if d == ninep.Linux {
		open.Type = ninep.Tlopen
	}
	if write {
		open.Mode, open.Flags = 1, 1
	}
	for _, f := range []ninep.Fcall{
		{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: ninep.DefaultMsize, Version: d.String()},
		{Type: ninep.Tattach, Fid: 1, Afid: ninep.NoFid, UID: ninep.NoUID},
		{Type: ninep.Twalk, Fid: 1, Newfid: 2, Names: []string{"f"}},
		open,
	} {
		if got := c.call(b, d, f); got != f.Type+1 {
			b.Fatalf("reply %d to %d", got, f.Type)
		}
	}
}

// run keeps depth reads or writes of size bytes in flight.
func (c *rawClient) run(b *testing.B, t ninep.Type, size, depth int, random bool) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	f := ninep.Fcall{Type: t, Fid: 2, Count: uint32(size)}
	want := 11 + size
	if t == ninep.Twrite {
		f.Data = make([]byte, size)
		want = 11
	}
	msgs := make([][]byte, depth)
	for i := range msgs {
		f.Tag = uint16(i)
		msgs[i], _ = f.Pack(nil, ninep.Classic)
	}
	step := uint64(1)
	if random {
		step = 2531 // a prime far from any power of two
	}
	blocks := uint64(benchFile / size)
	next := uint64(0)
	send := func(tag uint16) {
		m := msgs[tag]
		binary.LittleEndian.PutUint64(m[11:], next%blocks*uint64(size))
		next += step
		if _, err := c.Write(m); err != nil {
			b.Fatal(err)
		}
	}
	inFlight := 0
	take := func() uint16 {
		m := c.reply(b)
		if m[4] != byte(t+1) || len(m) != want {
			b.Fatalf("reply of type %d and %d bytes", m[4], len(m))
		}
		return binary.LittleEndian.Uint16(m[5:])
	}
	free := make([]uint16, 0, depth)
	for i := range depth {
		free = append(free, uint16(i))
	}
	for b.Loop() {
		if len(free) > 0 {
			send(free[len(free)-1])
			free = free[:len(free)-1]
			inFlight++
			continue
		}
		send(take())
	}
	for range inFlight {
		take()
	}
}

// bareServer answers reads and writes, and the messages that open a file.
func bareServer(conn net.Conn) {
	br := bufio.NewReaderSize(conn, 32<<10)
	buf := make([]byte, 2<<20)
	out := make([]byte, 2<<20)
	for {
		if _, err := io.ReadFull(br, buf[:4]); err != nil {
			return
		}
		n := binary.LittleEndian.Uint32(buf)
		if _, err := io.ReadFull(br, buf[4:n]); err != nil {
			return
		}
		size := uint32(11)
		if ninep.Type(buf[4]) == ninep.Tread {
			count := binary.LittleEndian.Uint32(buf[19:])
			binary.LittleEndian.PutUint32(out[7:], count)
			size += count
		}
		binary.LittleEndian.PutUint32(out, size)
		out[4] = buf[4] + 1
		copy(out[5:7], buf[5:7])
		if _, err := conn.Write(out[:size]); err != nil {
			return
		}
	}
}

type benchPeer struct {
	name    string
	dialect ninep.Dialect
	fs      ninep.FS // nil is the bare socket
}

func benchPeers() []benchPeer {
	data := block(pattern(benchFile)) // not zeros, which the kernel may not have in memory
	return []benchPeer{
		{"bare", ninep.Classic, nil},
		{"linux", ninep.Linux, benchTree(data)},
		{"linux-cached", ninep.Linux, benchTree(cachedBlock{data})},
		{"classic", ninep.Classic, benchTree(data)},
	}
}

func (p benchPeer) dial(b *testing.B) *rawClient {
	if p.fs != nil {
		return newRawClient(b, serve(b, p.fs, ninep.Config{}))
	}
	near, far := socketPair(b)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		bareServer(far)
	}()
	b.Cleanup(func() {
		near.Close()
		<-ended
		far.Close()
	})
	return newRawClient(b, near)
}

func BenchmarkRead(b *testing.B) {
	peers := benchPeers()
	for _, c := range []struct{ size, depth int }{{4 << 10, 1}, {4 << 10, 16}, {128 << 10, 16}, {1 << 20, 4}, {1 << 20, 16}} {
		for _, p := range peers {
			b.Run(fmt.Sprintf("%dK/%d-in-flight/%s", c.size>>10, c.depth, p.name), func(b *testing.B) {
				rc := p.dial(b)
				rc.open(b, p.dialect, false)
				rc.run(b, ninep.Tread, c.size, c.depth, c.size <= 4<<10)
			})
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, c := range []struct{ size, depth int }{{4 << 10, 16}, {128 << 10, 16}, {1 << 20, 4}} {
		for _, p := range []benchPeer{{"bare", ninep.Classic, nil}, {"linux", ninep.Linux, sink{}}, {"classic", ninep.Classic, sink{}}} {
			b.Run(fmt.Sprintf("%dK/%d-in-flight/%s", c.size>>10, c.depth, p.name), func(b *testing.B) {
				rc := p.dial(b)
				rc.open(b, p.dialect, true)
				rc.run(b, ninep.Twrite, c.size, c.depth, false)
			})
		}
	}
}

// sink is a tree with one file, f, that takes what it is given.
type sink struct{}

func (s sink) Attach(context.Context, string, string) (ninep.Node, error) {
	return ninep.LookupDir(ninep.Dir{Name: "/"}, func(context.Context, string) (ninep.Node, error) { return s, nil }, nil), nil
}
func (s sink) Qid() ninep.Qid                                             { return ninep.Qid{Path: 2} }
func (s sink) Walk(context.Context, string) (ninep.Node, error)           { return nil, ninep.ErrNotDir }
func (s sink) Stat(context.Context) (ninep.Dir, error)                    { return ninep.Dir{Name: "f"}, nil }
func (s sink) Open(context.Context, ninep.OpenMode) (ninep.Handle, error) { return s, nil }
func (s sink) Close(context.Context) error                                { return nil }

func (s sink) WriteAt(_ context.Context, p []byte, _ int64) (int, error) { return len(p), nil }
