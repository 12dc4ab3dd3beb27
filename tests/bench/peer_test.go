package bench

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"strata/tests/harness"
	"strata/venti"
	"strata/venti/store"
)

// The benchmarks of this file put the same requests to our server and to
// plan9port's, one after the other on the same files' shape: 8 KiB blocks,
// unix sockets, the same memory, a client that does next to nothing.

const (
	peerBlock = 8192
	peerCache = 256 * mib // of memory: holds 30,000 blocks
)

// A load is blocks that differ in their first bytes, on some connections.
type load struct {
	conns []*rawConn
	seed  uint64
}

// A rawConn speaks the wire protocol with many requests in flight, and looks
// at replies no further than it must.
type rawConn struct {
	c net.Conn
	r *bufio.Reader
	w *bufio.Writer
}

func newLoad(b *testing.B, addr string, conns int, seed uint64) *load {
	l := &load{seed: seed}
	for range conns {
		c := dialRaw(b, strings.TrimPrefix(addr, "unix!"))
		l.conns = append(l.conns, &rawConn{c, bufio.NewReaderSize(c, 256<<10), bufio.NewWriterSize(c, 256<<10)})
	}
	return l
}

func (l *load) close() {
	for _, c := range l.conns {
		c.c.Close()
	}
}

// template returns a block of random bytes.
func (l *load) template() []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], l.seed)
	b := make([]byte, peerBlock)
	rand.NewChaCha8(key).Read(b)
	return b
}

// scores returns the scores of blocks 0 to n.
func (l *load) scores(n int) []venti.Score {
	list, block := make([]venti.Score, n), l.template()
	for i := range list {
		binary.BigEndian.PutUint64(block, uint64(i))
		list[i] = venti.ScoreOf(block)
	}
	return list
}

// The types of messages.
const (
	tRead, rRead   = 12, 13
	tWrite, rWrite = 14, 15
	tSync, rSync   = 16, 17
)

// run puts n requests, shared among the connections, each of which has window
// in flight. request appends request i to a message.
func (l *load) run(b *testing.B, n, window int, reply byte, request func(msg []byte, i int) []byte) {
	var wg sync.WaitGroup
	for k, c := range l.conns {
		from, to := k*n/len(l.conns), (k+1)*n/len(l.conns)
		wg.Go(func() {
			if err := c.run(from, to, window, reply, request); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

func (c *rawConn) run(from, to, window int, reply byte, request func(msg []byte, i int) []byte) error {
	free := make(chan byte, window)
	for tag := 1; tag <= window; tag++ {
		free <- byte(tag)
	}
	failed := make(chan error, 1)
	go func() {
		msg := make([]byte, 0, peerBlock+64)
		for i := from; i < to; i++ {
			if len(free) == 0 {
				if err := c.w.Flush(); err != nil {
					failed <- err
					return
				}
			}
			tag := <-free
			msg = request(append(msg[:0], 0, 0, 0, 0, 0, tag), i)
			binary.BigEndian.PutUint32(msg, uint32(len(msg)-4))
			if _, err := c.w.Write(msg); err != nil {
				failed <- err
				return
			}
		}
		failed <- c.w.Flush()
	}()
	for range to - from {
		tag, err := c.reply(reply)
		if err != nil {
			return err
		}
		free <- tag
	}
	return <-failed
}

func (c *rawConn) reply(want byte) (tag byte, err error) {
	var head [6]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, err
	}
	size := int(binary.BigEndian.Uint32(head[:])) - 2
	if head[4] != want {
		text := make([]byte, min(size, 200))
		io.ReadFull(c.r, text)
		return 0, fmt.Errorf("reply of type %d, want %d: %q", head[4], want, text)
	}
	_, err = c.r.Discard(size)
	return head[5], err
}

// write has blocks from to to written, and synced.
func (l *load) write(b *testing.B, from, to int) {
	template := l.template()
	l.run(b, to-from, 32, rWrite, func(msg []byte, i int) []byte {
		msg[4] = tWrite
		msg = append(msg, byte(venti.DiskData), 0, 0, 0)
		msg = binary.BigEndian.AppendUint64(msg, uint64(from+i))
		return append(msg, template[8:]...)
	})
	l.sync(b)
}

func (l *load) sync(b *testing.B) {
	l.run(b, len(l.conns), 1, rSync, func(msg []byte, i int) []byte {
		msg[4] = tSync
		return msg
	})
}

// appendRead makes msg a request for a block.
func appendRead(msg []byte, s venti.Score) []byte {
	msg[4] = tRead
	msg = append(msg, s[:]...)
	return append(msg, byte(venti.DiskData), 0, peerBlock>>8, peerBlock&0xff)
}

// read has blocks read in the order given, so many in flight.
func (l *load) read(b *testing.B, scores []venti.Score, order []int, window int) {
	l.run(b, len(order), window, rRead, func(msg []byte, i int) []byte {
		return appendRead(msg, scores[order[i]])
	})
}

// latencies reads blocks one by one and returns the times, sorted.
func (c *rawConn) latencies(scores []venti.Score, order []int) ([]time.Duration, error) {
	var times []time.Duration
	msg := make([]byte, 0, 64)
	for _, i := range order {
		msg = appendRead(append(msg[:0], 0, 0, 0, 0, 0, 1), scores[i])
		binary.BigEndian.PutUint32(msg, uint32(len(msg)-4))
		start := time.Now()
		if _, err := c.c.Write(msg); err != nil {
			return nil, err
		}
		if _, err := c.reply(rRead); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times, nil
}

// peers are the servers to compare: ours last.
func peers(b *testing.B) []harness.Suite { return []harness.Suite{harness.Plan9(b), harness.Ours(b)} }

// peerServe starts a suite's server on a new store for some bytes, with caches
// of so many.
func peerServe(b *testing.B, s harness.Suite, space, cache int64) *harness.Server {
	return s.Serve(b, peerStore(b, s, space, cache))
}

// peerStore makes the store of peerServe. plan9port takes the sizes of caches
// from the file.
func peerStore(b *testing.B, s harness.Suite, space, cache int64) *harness.Store {
	const arena = 512 * mib
	st := s.Format(b, arena, int(space/arena)+2)
	conf, err := os.ReadFile(st.Conf())
	if err != nil {
		b.Fatal(err)
	}
	text := strings.ReplaceAll(string(conf), "mem 16m\nbcmem 16m\nicmem 16m\n", fmt.Sprintf("mem %d\nbcmem %d\nicmem %d\n", cache, peerCache, peerCache))
	if err := os.WriteFile(st.Conf(), []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	return st
}

// forgetFiles has the system forget what it has of files in memory. It needs
// to be root.
func forgetFiles(b *testing.B) {
	if err := exec.Command("sync").Run(); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		b.Skipf("cold files: %v", err)
	}
}

// compare reports rates of plan9port's server and of ours.
func compare(b *testing.B, unit string, rates []float64, wanted float64) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rates[1], unit)
	b.ReportMetric(rates[0], "plan9port-"+unit)
	b.ReportMetric(rates[1]/rates[0], "ratio")
	b.ReportMetric(wanted, "wanted")
}

// shuffled returns n of the numbers below limit.
func shuffled(n, limit int, seed uint64) []int {
	rng := rand.New(rand.NewPCG(seed, 9))
	list := make([]int, n)
	for i := range list {
		list[i] = rng.IntN(limit)
	}
	return list
}

// BenchmarkPeerWrite has 8 clients write blocks that are new and do not
// compress, then all of them again, and sync.
func BenchmarkPeerWrite(b *testing.B) {
	const blocks = 40_000
	for _, dup := range []bool{false, true} {
		b.Run(map[bool]string{false: "new", true: "stored"}[dup], func(b *testing.B) {
			rates := make([]float64, 2)
			for i, s := range peers(b) {
				srv := peerServe(b, s, 2*int64(b.N+1)*blocks*peerBlock, peerCache)
				l := newLoad(b, srv.Addr, 8, 1<<32)
				l.write(b, 0, blocks) // fills the caches
				l.close()
				total := 0.0
				for n := range b.N {
					l := newLoad(b, srv.Addr, 8, uint64(n))
					if dup {
						l.write(b, 0, blocks)
					}
					total += timed(func() { l.write(b, 0, blocks) })
					l.close()
				}
				rates[i] = float64(b.N*blocks) / total
				srv.Kill()
			}
			compare(b, "writes/s", rates, 10)
		})
	}
}

// BenchmarkPeerRead has 8 clients read blocks at random: from the server's
// memory; from files that the system has in memory; from files it has not.
func BenchmarkPeerRead(b *testing.B) {
	for _, bm := range []struct {
		name   string
		blocks int   // stored
		cache  int64 // of blocks
		cold   bool
		reads  int
		wanted float64
	}{
		{"cached", 10_000, peerCache, false, 200_000, 10},
		{"warm files", 200_000, 16 * mib, false, 100_000, 3},
		{"cold files", 200_000, 16 * mib, true, 20_000, 3},
	} {
		b.Run(bm.name, func(b *testing.B) {
			rates := make([]float64, 2)
			for i, s := range peers(b) {
				srv := peerServe(b, s, int64(bm.blocks)*peerBlock, bm.cache)
				l := newLoad(b, srv.Addr, 8, 1)
				scores := l.scores(bm.blocks)
				l.write(b, 0, bm.blocks)
				l.read(b, scores, shuffled(bm.blocks, bm.blocks, 0), 8)
				total := 0.0
				for n := range b.N {
					order := shuffled(bm.reads, bm.blocks, uint64(n+1))
					if bm.cold {
						forgetFiles(b)
					}
					total += timed(func() { l.read(b, scores, order, 8) })
				}
				rates[i] = float64(b.N*bm.reads) / total
				l.close()
				srv.Kill()
			}
			compare(b, "reads/s", rates, bm.wanted)
		})
	}
}

// BenchmarkPeerLatency reads cached blocks one by one, while another client
// writes new ones and syncs after each 64.
func BenchmarkPeerLatency(b *testing.B) {
	const blocks, reads = 2000, 5000
	for _, busy := range []bool{false, true} {
		b.Run(map[bool]string{false: "alone", true: "writes beside"}[busy], func(b *testing.B) {
			var p99, p50 [2]float64
			for i, s := range peers(b) {
				srv := peerServe(b, s, 16<<30, peerCache)
				l := newLoad(b, srv.Addr, 1, 1)
				scores := l.scores(blocks)
				l.write(b, 0, blocks)
				stop := make(chan struct{})
				var wg sync.WaitGroup
				if busy {
					wg.Go(func() {
						w := newLoad(b, srv.Addr, 1, 2)
						defer w.close()
						for n := 0; ; n += 64 {
							select {
							case <-stop:
								return
							default:
								w.write(b, n, n+64)
							}
						}
					})
				}
				var times []time.Duration
				for n := range b.N {
					list, err := l.conns[0].latencies(scores, shuffled(reads, blocks, uint64(n)))
					if err != nil {
						b.Fatal(err)
					}
					times = append(times, list...)
				}
				close(stop)
				wg.Wait()
				slices.Sort(times)
				p50[i] = float64(times[len(times)/2].Nanoseconds()) / 1e3
				p99[i] = float64(times[len(times)*99/100].Nanoseconds()) / 1e3
				l.close()
				srv.Kill()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(p50[1], "p50-us")
			b.ReportMetric(p99[1], "p99-us")
			b.ReportMetric(p50[0], "plan9port-p50-us")
			b.ReportMetric(p99[0], "plan9port-p99-us")
			b.ReportMetric(p99[0]/p99[1], "ratio")
			if busy {
				b.ReportMetric(10, "wanted")
			}
		})
	}
}

// BenchmarkGroupCommit has one client, and then 64, write a block and sync,
// over and over: on this machine's disk, and on one whose syncs take 5 ms.
func BenchmarkGroupCommit(b *testing.B) {
	b.Run("this disk", func(b *testing.B) {
		groupCommit(b, peerServe(b, harness.Ours(b), 8<<30, peerCache))
	})
	b.Run("5 ms", func(b *testing.B) {
		strace, err := exec.LookPath("strace")
		if err != nil {
			b.Skip("no strace (package strace) to slow syncs down with")
		}
		if err := exec.Command(strace, "-o", os.DevNull, "true").Run(); err != nil {
			b.Skipf("strace may not trace here: %v", err)
		}
		st := peerStore(b, harness.Ours(b), 8<<30, peerCache)
		groupCommit(b, harness.Ours(b).ServeUnder(b, st, strace, "-f", "--seccomp-bpf", "-o", os.DevNull,
			"-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=5000"))
	})
}

func groupCommit(b *testing.B, srv *harness.Server) {
	const each = 200
	rate := func(clients int, seed uint64) float64 {
		l := newLoad(b, srv.Addr, clients, seed)
		defer l.close()
		template := l.template()
		return float64(clients*each) / timed(func() {
			var wg sync.WaitGroup
			for k, c := range l.conns {
				wg.Go(func() {
					for n := range each {
						err := c.run(0, 1, 1, rWrite, func(msg []byte, i int) []byte {
							msg[4] = tWrite
							msg = append(msg, byte(venti.DiskData), 0, 0, 0)
							msg = binary.BigEndian.AppendUint64(msg, uint64(k*each+n))
							return append(msg, template[8:]...)
						})
						if err == nil {
							err = c.run(0, 1, 1, rSync, func(msg []byte, i int) []byte {
								msg[4] = tSync
								return msg
							})
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
	warm := newLoad(b, srv.Addr, 8, 1<<32)
	warm.write(b, 0, 40_000) // fills the caches
	warm.close()
	var one, many float64
	for n := range b.N {
		one += rate(1, uint64(2*n))
		many += rate(64, uint64(2*n+1))
	}
	n := float64(b.N)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(many/n, "syncs/s")
	b.ReportMetric(one/n, "alone-syncs/s")
	b.ReportMetric(many/one, "ratio")
	b.ReportMetric(20, "wanted")
}

// BenchmarkStoreSize has 8 clients write new blocks and sync, and the server
// index them, in a store of 1 GiB and in one of 100 GiB. Both are sparse files, and
// as large as full ones: what is written to the large index is spread over 100 times
// as many buckets.
func BenchmarkStoreSize(b *testing.B) {
	const blocks = 40_000
	ours := harness.Ours(b)
	sizes := [2]int64{1 << 30, 100 << 30}
	var written, indexed [2]float64 // seconds
	for n := range b.N {
		for k := range sizes {
			i := (k + n) % len(sizes)
			dir := b.TempDir()
			if _, err := store.Format(b.Context(), dir, store.FormatConfig{Space: sizes[i]}); err != nil {
				b.Fatal(err)
			}
			srv := ours.Serve(b, &harness.Store{Dir: dir}, "-C", fmt.Sprint(peerCache), "-I", fmt.Sprint(peerCache))
			l := newLoad(b, srv.Addr, 8, uint64(n))
			written[i] += timed(func() { l.write(b, 0, blocks) })
			l.close()
			indexed[i] += timed(func() { srv.Stop(b) })
			os.RemoveAll(dir)
		}
	}
	total := float64(b.N * blocks)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(total/written[0], "1GiB-writes/s")
	b.ReportMetric(total/written[1], "100GiB-writes/s")
	b.ReportMetric(indexed[0]/total*1e6, "1GiB-µs-to-index")
	b.ReportMetric(indexed[1]/total*1e6, "100GiB-µs-to-index")
	b.ReportMetric(written[0]/written[1], "ratio")
	b.ReportMetric(0.85, "wanted")
}
