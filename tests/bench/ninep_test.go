package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"strata/internal/ninep"
)

// The benchmarks of 9P have two processes, with a unix socket between them.
// The limit is a server that understands the framing only and moves
// the same bytes between the same memories without a copy of its own, and a client
// that does nothing but keep requests in flight. Ours is
// internal/ninep at both ends, its server with a file in memory; diod has the
// same file on tmpfs, and the same client. README.md has what they print.

const (
	nineFile  = 64 * mib // read and written over and over
	nineMsize = ninep.DefaultMsize
	nineEnv   = "STRATA_BENCH_9P" // what a child serves, and where
)

// memFile is a tree of one file in memory, which nobody locks. Reads can be
// answered at once, as those of a cache.
type memFile []byte

func (m memFile) Attach(context.Context, string, string) (ninep.Node, error) {
	return ninep.NewDir(ninep.Dir{Name: "/", Mode: 0o555, Qid: ninep.Qid{Path: 1}}, map[string]ninep.Node{"f": m}), nil
}
func (m memFile) Qid() ninep.Qid                                   { return ninep.Qid{Path: 2} }
func (m memFile) Walk(context.Context, string) (ninep.Node, error) { return nil, ninep.ErrNotDir }
func (m memFile) Stat(context.Context) (ninep.Dir, error) {
	return ninep.Dir{Name: "f", Mode: 0o666, Length: nineFile, Qid: m.Qid()}, nil
}
func (m memFile) Open(context.Context, ninep.OpenMode) (ninep.Handle, error) { return m, nil }
func (m memFile) Close(context.Context) error                                { return nil }
func (m memFile) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(m)) {
		return 0, io.EOF
	}
	return copy(p, m[off:]), nil
}
func (m memFile) ReadCached(p []byte, off int64) (int, bool) {
	n, _ := m.ReadAt(nil, p, off)
	return n, true
}

// A lentFile does not copy what is read.
type lentFile struct{ memFile }

func (m lentFile) Open(context.Context, ninep.OpenMode) (ninep.Handle, error) { return m, nil }
func (m lentFile) Attach(context.Context, string, string) (ninep.Node, error) {
	return ninep.NewDir(ninep.Dir{Name: "/", Mode: 0o555, Qid: ninep.Qid{Path: 1}}, map[string]ninep.Node{"f": m}), nil
}
func (m lentFile) Lend(bufs [][]byte, n int, off int64) ([][]byte, func(), bool) {
	if off < nineFile {
		bufs = append(bufs, m.memFile[off:min(off+int64(n), nineFile)])
	}
	return bufs, nil, true
}

func (m memFile) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	return copy(m[min(off, int64(len(m))):], p), nil
}

// serveNine is the child.
func serveNine(what string) {
	kind, path, _ := strings.Cut(what, " ")
	l, err := net.Listen("unix", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	data := make(memFile, nineFile)
	fillRandom(data)
	if kind != "bare" {
		var fs ninep.FS = data
		if kind == "lends" {
			fs = lentFile{data}
		}
		ninep.NewServer(fs, ninep.Config{}).Serve(context.Background(), l)
		return
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go serveFrames(c, data)
	}
}

func fillRandom(p []byte) {
	var key [32]byte
	rand.NewChaCha8(key).Read(p)
}

// serveFrames answers reads and writes of any fid, and nothing else. The data
// is not copied between the socket and the file.
func serveFrames(c net.Conn, file []byte) {
	br := bufio.NewReaderSize(c, 64<<10)
	var in [23]byte
	out := make([]byte, 11)
	for {
		if _, err := io.ReadFull(br, in[:]); err != nil {
			return
		}
		off := binary.LittleEndian.Uint64(in[11:])
		data := file[off:][:binary.LittleEndian.Uint32(in[19:])]
		out[4] = in[4] + 1
		copy(out[5:7], in[5:7])
		copy(out[7:], in[19:])
		reply := net.Buffers{out, data}
		if in[4] == byte(ninep.Twrite) {
			if _, err := io.ReadFull(br, data); err != nil {
				return
			}
			reply = reply[:1]
		}
		size := 0
		for _, p := range reply {
			size += len(p)
		}
		binary.LittleEndian.PutUint32(out, uint32(size))
		if _, err := reply.WriteTo(c); err != nil {
			return
		}
	}
}

// nineChild starts this program as a server, and returns its address.
func nineChild(b *testing.B, kind string) string {
	path := filepath.Join(b.TempDir(), kind+".sock")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), nineEnv+"="+kind+" "+path)
	startNine(b, cmd)
	return path
}

func startNine(b *testing.B, cmd *exec.Cmd) {
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the original's fossil serves from a child
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
}

// diod starts diod with the file on tmpfs.
func diod(b *testing.B) (addr, aname string) {
	prog, err := exec.LookPath("diod")
	if err != nil {
		if prog, err = exec.LookPath("/usr/sbin/diod"); err != nil {
			b.Skip("no diod to compare with: apt-get install diod")
		}
	}
	dir, err := os.MkdirTemp("/dev/shm", "strata-bench-")
	if err != nil {
		b.Skipf("no tmpfs: %v", err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	data := make([]byte, nineFile)
	fillRandom(data)
	if err := os.WriteFile(filepath.Join(dir, "f"), data, 0o666); err != nil {
		b.Fatal(err)
	}
	addr = filepath.Join(b.TempDir(), "diod.sock")
	startNine(b, exec.Command(prog, "-f", "-n", "-N", "-S", "-U", "root", "-e", dir, "-l", addr, "-L", "/dev/null", "-c", "/dev/null"))
	return addr, dir
}

// connect waits for a server and connects to it.
func connect(b *testing.B, path string) net.Conn { return connectTo(b, "unix", path) }

func connectTo(b *testing.B, network, path string) net.Conn {
	b.Helper()
	for range 500 {
		if c, err := net.Dial(network, path); err == nil {
			b.Cleanup(func() { c.Close() })
			return c
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatalf("nobody answers at %s", path)
	return nil
}

// mount opens the file f of a server through our client.
func mount(b *testing.B, path, aname string, d ninep.Dialect, msize int) *ninep.File {
	b.Helper()
	return openNine(b, path, aname, d, msize, ninep.ORDWR)
}

func openNine(b *testing.B, path, aname string, d ninep.Dialect, msize int, mode ninep.OpenMode) *ninep.File {
	b.Helper()
	ctx := context.Background()
	users := ninep.NewUsers(map[string]uint32{"root": uint32(os.Geteuid())})
	c, err := ninep.NewClient(ctx, connect(b, path), ninep.ClientConfig{Dialect: d, Msize: msize, Users: users})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	root, err := c.Attach(ctx, "root", aname)
	if err != nil {
		b.Fatal(err)
	}
	f, err := root.Walk(ctx, "f")
	if err == nil {
		err = f.Open(ctx, mode)
	}
	if err != nil {
		b.Fatal(err)
	}
	return f
}

// A nineLoad is so many requests of a size, at offsets in order or not.
type nineLoad struct {
	write    bool
	size     int
	inFlight int
	random   bool
	requests int
}

// offset returns where request i is.
func (l nineLoad) offset(i int) int64 {
	blocks := nineFile / l.size
	if l.random {
		i *= 2531 // a prime far from any power of two
	}
	return int64(i%blocks) * int64(l.size)
}

// raw puts the load on a connection, for a fid that its server does not look
// at.
func (l nineLoad) raw(b *testing.B, c net.Conn, p []byte) {
	t := ninep.Tread
	if l.write {
		t = ninep.Twrite
	}
	head := make([]byte, 23)
	var out net.Buffers
	br := bufio.NewReaderSize(c, 64<<10)
	reply := make([]byte, 11)
	for sent, got := 0, 0; got < l.requests; {
		tag := uint16(sent)
		if sent >= l.inFlight {
			if _, err := io.ReadFull(br, reply[:11]); err != nil {
				b.Fatal(err)
			}
			if n := binary.LittleEndian.Uint32(reply) - 11; n > 0 {
				if _, err := io.ReadFull(br, part(p, got, l.size)[:n]); err != nil {
					b.Fatal(err)
				}
			}
			tag = binary.LittleEndian.Uint16(reply[5:])
			got++
		}
		if sent < l.requests {
			binary.LittleEndian.PutUint32(head, 23)
			head[4] = byte(t)
			binary.LittleEndian.PutUint16(head[5:], tag)
			binary.LittleEndian.PutUint64(head[11:], uint64(l.offset(sent)))
			binary.LittleEndian.PutUint32(head[19:], uint32(l.size))
			out = append(out[:0], head)
			if l.write {
				binary.LittleEndian.PutUint32(head, uint32(23+l.size))
				out = append(out, part(p, sent, l.size))
			}
			w := out
			if _, err := w.WriteTo(c); err != nil {
				b.Fatal(err)
			}
		}
		sent++
	}
}

// part returns the memory of request i, one part of p after the other.
func part(p []byte, i, size int) []byte {
	i %= len(p) / size
	return p[i*size:][:size]
}

// client puts the load on a file: reads in order as a stream, writes in order
// as large ones, which the client cuts, and others from as many goroutines as
// are in flight.
func (l nineLoad) client(b *testing.B, f *ninep.File, p []byte) {
	ctx := context.Background()
	do := f.ReadAt
	if l.write {
		do = f.WriteAt
	}
	if !l.random && !l.write {
		for left := l.requests * l.size; left > 0; {
			for p, err := range f.Stream(ctx, 0) {
				if err != nil {
					b.Fatal(err)
				}
				if left -= len(p); left <= 0 {
					break
				}
			}
		}
		return
	}
	if !l.random {
		for left := l.requests * l.size; left > 0; left -= len(p) {
			if n, err := do(ctx, p[:min(left, len(p))], int64(left%nineFile/len(p)*len(p))); err != nil {
				b.Fatalf("%d, %v", n, err)
			}
		}
		return
	}
	var wg sync.WaitGroup
	for k := range l.inFlight {
		wg.Go(func() {
			p := make([]byte, l.size)
			for i := k; i < l.requests; i += l.inFlight {
				if n, err := do(ctx, p, l.offset(i)); err != nil {
					b.Errorf("%d, %v", n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// medians runs each function in turn, again and again, and returns the
// median of its times in seconds.
func medians(b *testing.B, runs ...func()) []float64 {
	const rounds = 5 // of each iteration
	for _, f := range runs {
		f() // warm
	}
	times := make([][]float64, len(runs))
	for b.Loop() {
		for range rounds {
			for i, f := range runs {
				times[i] = append(times[i], timed(f))
			}
		}
	}
	var list []float64
	for _, t := range times {
		slices.Sort(t)
		list = append(list, t[len(t)/2])
	}
	b.ReportMetric(0, "ns/op")
	return list
}

// rate reports what the load came to in so many seconds.
func (l nineLoad) rate(b *testing.B, name string, seconds float64) {
	if n := float64(l.requests); l.size > 64<<10 {
		b.ReportMetric(n*float64(l.size)/seconds/1e6, name+"MB/s")
	} else {
		b.ReportMetric(n/seconds, name+"op/s")
	}
}

// nineTarget is memory to read into and write from.
func nineTarget() []byte { return make([]byte, 16*mib) }

var (
	read1M   = nineLoad{size: mib, inFlight: 16, requests: 128}
	write1M  = nineLoad{size: mib, inFlight: 16, requests: 128, write: true}
	random4K = nineLoad{size: 4096, inFlight: 16, requests: 20_000, random: true}
)

// BenchmarkNinep measures what 9P leaves of a bare socket. Its server lends
// what it has in memory, or copies it.
func BenchmarkNinep(b *testing.B) {
	for _, bm := range []struct {
		name   string
		server string
		load   nineLoad
		wanted float64
	}{
		{"read 1M", "lends", read1M, 0.6},
		{"read 1M copied", "copies", read1M, 0},
		{"write 1M", "copies", write1M, 0.6},
		{"random read 4K", "copies", random4K, 0.75},
	} {
		b.Run(bm.name, func(b *testing.B) {
			p := nineTarget()
			bare := connect(b, nineChild(b, "bare"))
			f := mount(b, nineChild(b, bm.server), "", ninep.Linux, nineMsize)
			t := medians(b, func() { bm.load.raw(b, bare, p) }, func() { bm.load.client(b, f, p) })
			bm.load.rate(b, "", t[1])
			bm.load.rate(b, "limit-", t[0])
			b.ReportMetric(t[0]/t[1], "ratio")
			if bm.wanted > 0 {
				b.ReportMetric(bm.wanted, "wanted")
			}
		})
	}
}

// BenchmarkNinepClassic reads with 9P2000 and messages of 128 KiB, beside
// 9P2000.L with the same and with messages of 1 MiB.
func BenchmarkNinepClassic(b *testing.B) {
	const msize = 128 << 10
	p, addr := nineTarget(), nineChild(b, "lends")
	classic := mount(b, addr, "", ninep.Classic, msize)
	linux := mount(b, addr, "", ninep.Linux, msize)
	large := mount(b, addr, "", ninep.Linux, nineMsize)
	t := medians(b, func() { read1M.client(b, linux, p) }, func() { read1M.client(b, large, p) }, func() { read1M.client(b, classic, p) })
	read1M.rate(b, "", t[2])
	read1M.rate(b, "L-", t[0])
	read1M.rate(b, "L-1M-", t[1])
	b.ReportMetric(t[0]/t[2], "ratio")
	b.ReportMetric(t[1]/t[2], "ratio-1M")
	b.ReportMetric(0.8, "wanted")
}

// BenchmarkNinepDiod has our client read from our server and from diod, with
// the largest messages that each takes.
func BenchmarkNinepDiod(b *testing.B) {
	for _, bm := range []struct {
		name   string
		server string
		load   nineLoad
	}{
		{"read 1M", "lends", read1M},
		{"write 1M", "copies", write1M},
		{"random read 4K", "copies", random4K},
	} {
		b.Run(bm.name, func(b *testing.B) {
			p := nineTarget()
			addr, aname := diod(b)
			theirs := mount(b, addr, aname, ninep.Linux, nineMsize)
			ours := mount(b, nineChild(b, bm.server), "", ninep.Linux, nineMsize)
			t := medians(b, func() { bm.load.client(b, theirs, p) }, func() { bm.load.client(b, ours, p) })
			bm.load.rate(b, "", t[1])
			bm.load.rate(b, "diod-", t[0])
			b.ReportMetric(t[0]/t[1], "ratio")
			b.ReportMetric(2.5, "wanted")
		})
	}
}
