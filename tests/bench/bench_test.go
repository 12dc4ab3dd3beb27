// Package bench measures the whole suite from outside, each figure beside
// what this machine allows in the same run: a core's SHA-1, dd, cp, a bare
// socket; and, where $PLAN9 names one, plan9port's server. Run it with make bench. "ratio" is ours over the limit, higher is
// better; "wanted" is what the ratio should reach.
package bench

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"strata/tests/harness"
	"strata/venti"
)

const (
	mib       = 1 << 20
	imageSize = 512 * mib
	cacheSize = 800 * mib // the server's block cache: holds the whole image
)

func TestMain(m *testing.M) {
	if path := os.Getenv("STRATA_BENCH_BARE"); path != "" {
		serveBare(path)
		return
	}
	if what := os.Getenv(nineEnv); what != "" {
		serveNine(what)
		return
	}
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// sha1Speed returns the bytes a second that one core hashes, in 4 KiB
// blocks.
func sha1Speed() float64 {
	block := make([]byte, 4096)
	start, n := time.Now(), 0
	for time.Since(start) < time.Second {
		for range 1000 {
			sha1.Sum(block)
		}
		n += 1000 * len(block)
	}
	return float64(n) / time.Since(start).Seconds()
}

// writeImage fills path with random bytes, and brings it into the page cache.
func writeImage(b *testing.B, path string, seed uint64) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	if _, err := io.CopyN(f, rand.NewChaCha8(key), imageSize); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
}

// serve starts our server on a new store with room for size bytes.
func serve(b *testing.B, size int64, conf ...string) *harness.Server {
	ours := harness.Ours(b)
	arena := int64(512 * mib)
	st := ours.Format(b, arena, int(size/arena)+2, conf...)
	return ours.Serve(b, st, "-C", strconv.Itoa(cacheSize), "-I", strconv.Itoa(128*mib))
}

func timed(f func()) float64 {
	start := time.Now()
	f()
	return time.Since(start).Seconds()
}

// report prints a speed beside its limit, both in bytes a second.
func report(b *testing.B, ours, limit, wanted float64) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours/1e6, "MB/s")
	b.ReportMetric(limit/1e6, "limit-MB/s")
	b.ReportMetric(ours/limit, "ratio")
	b.ReportMetric(wanted, "wanted")
}

// BenchmarkImportStored imports an image from the page cache that the store
// already has, beside one core's SHA-1.
func BenchmarkImportStored(b *testing.B) {
	ours, image := harness.Ours(b), filepath.Join(b.TempDir(), "image")
	writeImage(b, image, 1)
	srv := serve(b, imageSize, "compression none")
	ours.Run(b, nil, "vdisk", "import", "-h", srv.Addr, image)
	limit := sha1Speed()
	var total float64
	n := 0
	for b.Loop() {
		total += timed(func() { ours.Run(b, nil, "vdisk", "import", "-h", srv.Addr, image) })
		n++
	}
	report(b, float64(n)*imageSize/total, limit, 0.5)
}

// BenchmarkImportNew imports new, incompressible images with compression off,
// beside dd conv=fsync to the same disk and then SHA-1 on two cores.
func BenchmarkImportNew(b *testing.B) {
	ours, dir := harness.Ours(b), b.TempDir()
	image, copied := filepath.Join(dir, "image"), filepath.Join(dir, "copy")
	srv := serve(b, 12*imageSize, "compression none")
	hash := sha1Speed()
	var oursTime, limitTime float64
	n := 0
	for b.Loop() {
		b.StopTimer()
		if n == 12 {
			b.Fatal("the store is sized for 12 images: use a smaller -benchtime")
		}
		writeImage(b, image, uint64(100+n))
		limitTime += timed(func() {
			if out, err := exec.Command("dd", "if="+image, "of="+copied, "bs=1M", "conv=fsync").CombinedOutput(); err != nil {
				b.Fatalf("dd: %v\n%s", err, out)
			}
		}) + imageSize/(2*hash)
		os.Remove(copied)
		b.StartTimer()
		oursTime += timed(func() { ours.Run(b, nil, "vdisk", "import", "-h", srv.Addr, image) })
		n++
	}
	total := float64(n) * imageSize
	report(b, total/oursTime, total/limitTime, 0.4)
}

// BenchmarkExportCached exports an image that the server holds in memory,
// beside cp --sparse=always of the same image.
func BenchmarkExportCached(b *testing.B) {
	ours, dir := harness.Ours(b), b.TempDir()
	image, out := filepath.Join(dir, "image"), filepath.Join(dir, "out")
	writeImage(b, image, 2)
	srv := serve(b, imageSize, "compression none")
	score := strings.TrimSpace(ours.Run(b, nil, "vdisk", "import", "-h", srv.Addr, image))
	export := func() {
		os.Remove(out)
		ours.Run(b, nil, "vdisk", "export", "-h", srv.Addr, score, out)
	}
	export() // fills the cache
	if err := exec.Command("cmp", image, out).Run(); err != nil {
		b.Fatalf("the exported image differs: %v", err)
	}
	var oursTime, limitTime float64
	n := 0
	for b.Loop() {
		oursTime += timed(export)
		limitTime += timed(func() {
			os.Remove(out)
			if err := exec.Command("cp", "--sparse=always", image, out).Run(); err != nil {
				b.Fatal(err)
			}
		})
		n++
	}
	total := float64(n) * imageSize
	report(b, total/oursTime, total/limitTime, 1.0/3)
}

// BenchmarkRead4K reads 4 KiB blocks from the server's memory, 64 in flight
// over a unix socket, beside a process that answers every request from a
// buffer, with the same framing and the same client.
func BenchmarkRead4K(b *testing.B) {
	srv := serve(b, 512*mib, "compression none")
	c, err := venti.Dial(b.Context(), srv.Addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	scores := make([]venti.Score, 4096)
	block := make([]byte, 4096)
	for i := range scores {
		binary.BigEndian.PutUint64(block, uint64(i)+1)
		block[4095] = 1
		if scores[i], err = c.WriteBlock(b.Context(), venti.DataType, block); err != nil {
			b.Fatal(err)
		}
	}

	bareSock := filepath.Join(b.TempDir(), "bare.sock")
	bare := exec.Command(os.Args[0])
	bare.Env = append(os.Environ(), "STRATA_BENCH_BARE="+bareSock)
	if err := bare.Start(); err != nil {
		b.Fatal(err)
	}
	defer bare.Wait()
	defer bare.Process.Kill()

	const requests = 400_000
	oursConn, bareConn := dialRaw(b, strings.TrimPrefix(srv.Addr, "unix!")), dialRaw(b, bareSock)
	var oursTime, bareTime float64
	n := 0
	for b.Loop() {
		bareTime += timed(func() { pipeline(b, bareConn, scores, requests) })
		oursTime += timed(func() { pipeline(b, oursConn, scores, requests) })
		n++
	}
	total := float64(n * requests)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(total/oursTime, "reads/s")
	b.ReportMetric(total/bareTime, "limit-reads/s")
	b.ReportMetric(bareTime/oursTime, "ratio")
	b.ReportMetric(0.75, "wanted")
}

// dialRaw connects, retrying while the server starts, and says hello.
func dialRaw(b *testing.B, path string) net.Conn {
	b.Helper()
	var c net.Conn
	var err error
	for range 500 {
		if c, err = net.Dial("unix", path); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	hello := "venti-04:02-bench\n" + "\x00\x00\x00\x0f\x04\x00" + "\x00\x0204" + "\x00\x04none" + "\x00\x00\x00"
	if _, err := c.Write([]byte(hello)); err != nil {
		b.Fatal(err)
	}
	one := make([]byte, 1)
	for one[0] != '\n' {
		if _, err := io.ReadFull(c, one); err != nil {
			b.Fatal(err)
		}
	}
	size := make([]byte, 4)
	if _, err := io.ReadFull(c, size); err != nil {
		b.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(size))); err != nil {
		b.Fatal(err)
	}
	return c
}

// pipeline reads n blocks with 64 requests in flight: a new one goes out for
// each reply that has come.
func pipeline(b *testing.B, c net.Conn, scores []venti.Score, n int) {
	b.Helper()
	window := make(chan int, 64) // free tags
	for tag := 1; tag <= cap(window); tag++ {
		window <- tag
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		w := bufio.NewWriterSize(c, 64<<10)
		for i := range n {
			if len(window) == 0 {
				if err := w.Flush(); err != nil {
					b.Error(err)
					return
				}
			}
			tag := <-window
			msg := [30]byte{3: 26, 4: 12, 5: byte(tag), 26: byte(venti.DiskData)}
			copy(msg[6:], scores[i%len(scores)][:])
			msg[28] = 4096 >> 8
			if _, err := w.Write(msg[:]); err != nil {
				b.Error(err)
				return
			}
		}
		if err := w.Flush(); err != nil {
			b.Error(err)
		}
	})
	r := bufio.NewReaderSize(c, 256<<10)
	var head [6]byte
	for range n {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			b.Fatal(err)
		}
		if size := binary.BigEndian.Uint32(head[:]); head[4] != 13 || size != 2+4096 {
			b.Fatalf("reply of type %d, %d bytes", head[4], size)
		}
		if _, err := r.Discard(4096); err != nil {
			b.Fatal(err)
		}
		window <- int(head[5])
	}
	wg.Wait()
}

// serveBare answers every request on a unix socket with 4 KiB, with Venti's
// framing and no more work than that takes.
func serveBare(path string) {
	l, err := net.Listen("unix", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c, err := l.Accept()
	if err != nil {
		os.Exit(1)
	}
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 256<<10)
	w.WriteString("venti-04:02-bare\n\x00\x00\x00\x0a\x05\x00\x00\x04none\x00\x00")
	w.Flush()
	if _, err := r.ReadString('\n'); err != nil {
		os.Exit(1)
	}
	reply := make([]byte, 6+4096)
	binary.BigEndian.PutUint32(reply, 2+4096)
	reply[4] = 13
	var head [6]byte
	for {
		if r.Buffered() == 0 {
			w.Flush()
		}
		if _, err := io.ReadFull(r, head[:]); err != nil {
			os.Exit(0)
		}
		if _, err := r.Discard(int(binary.BigEndian.Uint32(head[:])) - 2); err != nil {
			os.Exit(0)
		}
		if head[4] != 12 {
			continue
		}
		reply[5] = head[5]
		w.Write(reply)
	}
}

// BenchmarkServerMemory writes a gigabyte through 32 clients at once and
// reports what the server's process holds beyond its caches.
func BenchmarkServerMemory(b *testing.B) {
	const clients, blocks = 32, 4000
	srv := serve(b, 2<<30)
	for b.Loop() {
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				c, err := venti.Dial(b.Context(), srv.Addr)
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				var inner sync.WaitGroup
				for w := range 4 {
					inner.Go(func() {
						block := make([]byte, 8192)
						rng := rand.New(rand.NewPCG(uint64(i), uint64(w)))
						for range blocks / 4 {
							for off := 0; off < len(block); off += 8 {
								binary.LittleEndian.PutUint64(block[off:], rng.Uint64())
							}
							if _, err := c.WriteBlock(b.Context(), venti.DataType, block); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				inner.Wait()
				if err := c.Sync(b.Context()); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	resident := float64(residentBytes(b, srv.PID()))
	caches := float64(cacheSize + 128*mib + 16*mib + 1*mib) // -C, -I, bcmem, the Bloom filter
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(resident/mib, "peak-MiB")
	b.ReportMetric(caches/mib, "caches-MiB")
	b.ReportMetric((resident-caches)/mib, "beyond-MiB")
	b.ReportMetric(100, "wanted-below")
}

// residentBytes returns the largest resident size that a process has had.
func residentBytes(b *testing.B, pid int) int64 {
	b.Helper()
	n, err := peakBytes(pid)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func peakBytes(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no VmHWM")
}
