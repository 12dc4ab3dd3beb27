package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"strata/tests/harness"
	"strata/venti"
)

// TestFaults shows the faults of Plan 9's server that section 17 of the
// specification lists: plan9port's has each of them, ours none. The sixth,
// locks and compression that make clients wait for each other, shows in speed
// alone, which the benchmarks measure. Our server is tried without plan9port
// too.
func TestFaults(t *testing.T) {
	for _, f := range []struct {
		number string
		what   string
		find   func(t *testing.T, s harness.Suite) error // the fault, or nil
	}{
		{"1", "reads wait for syncs", readsWaitForSyncs},
		{"2", "failed syncs are acknowledged", failedSyncs},
		{"3", "queuewrites loses what was synced", queuewrites},
		{"4", "the Bloom filter denies what is stored", bloomDenies},
		{"5", "a full bucket wedges the server", fullBucket},
		{"7", "a sync takes three", manySyncs},
		{"8", "the Bloom filter is written whole", wholeFilter},
		{"9", "the index is hours behind", lateIndex},
		{"10", "a lost trailer keeps the server from starting", lostTrailer},
		{"11a", "two servers share partitions", twoServers},
		{"11b", "malformed requests get no reply", malformed},
		{"12", "a corrupt block stays corrupt when it is written again", corruptStays},
		{"13", "one disk is written at a time", oneDisk},
	} {
		t.Run(f.number+" "+f.what, func(t *testing.T) {
			t.Run("strata", func(t *testing.T) {
				if err := f.find(t, harness.Ours(t)); err != nil {
					t.Error(err)
				}
			})
			t.Run("plan9port", func(t *testing.T) {
				switch err := f.find(t, harness.Plan9(t)); err {
				case nil:
					t.Error("it does not show")
				default:
					t.Log(err)
				}
			})
		})
	}
}

// ctxFor bounds what a server may take to answer.
func ctxFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, srv *harness.Server) *venti.Client {
	t.Helper()
	c, err := venti.Dial(t.Context(), srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func mustWrite(t *testing.T, c *venti.Client, data []byte) venti.Score {
	t.Helper()
	score, err := c.WriteBlock(ctxFor(t, time.Minute), venti.DataType, data)
	if err != nil {
		t.Fatal(err)
	}
	return score
}

func mustSync(t *testing.T, c *venti.Client) {
	t.Helper()
	if err := c.Sync(ctxFor(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
}

// readBack returns an error unless a block is there.
func readBack(t *testing.T, c *venti.Client, data []byte) error {
	buf := make([]byte, venti.MaxBlockSize)
	n, err := c.ReadBlock(ctxFor(t, 20*time.Second), venti.ScoreOf(data), venti.DataType, buf)
	if err == nil && !bytes.Equal(buf[:n], data) {
		err = errors.New("another block came back")
	}
	return err
}

// traced starts a server under strace, with the given flags for it, which
// are about syncs.
func traced(t *testing.T, s harness.Suite, st *harness.Store, flags ...string) *harness.Server {
	t.Helper()
	return tracedCalls(t, s, st, "fsync,fdatasync", flags...)
}

// tracedCalls is traced for other system calls.
func tracedCalls(t *testing.T, s harness.Suite, st *harness.Store, calls string, flags ...string) *harness.Server {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace (package strace)")
	}
	if err := exec.Command(strace, "-o", os.DevNull, "true").Run(); err != nil {
		t.Skipf("strace may not trace here: %v", err)
	}
	return s.ServeUnder(t, st, append([]string{strace, "-f", "--seccomp-bpf", "-e", "trace=" + calls}, flags...)...)
}

func readsWaitForSyncs(t *testing.T, s harness.Suite) error {
	srv := traced(t, s, s.Format(t, 4<<20, 2), "-o", os.DevNull, "-e", "inject=fsync,fdatasync:delay_enter=1500000")
	reader, writer := dial(t, srv), dial(t, srv)
	block := random(1, 8192)
	mustWrite(t, reader, block)
	if err := readBack(t, reader, block); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, writer, random(2, 8192))
	done := make(chan struct{})
	go func() {
		defer close(done)
		mustSync(t, writer)
	}()
	n := 0
	for {
		select {
		case <-done:
			if n < 50 {
				return fmt.Errorf("while a sync of more than a second was under way, %d reads of a cached block were answered", n)
			}
			return nil
		default:
		}
		if err := readBack(t, reader, block); err != nil {
			t.Fatal(err)
		}
		n++
		time.Sleep(time.Millisecond)
	}
}

func failedSyncs(t *testing.T, s harness.Suite) error {
	srv := traced(t, s, s.Format(t, 4<<20, 2), "-o", os.DevNull, "-e", "inject=fsync,fdatasync:error=EIO")
	c := dial(t, srv)
	mustWrite(t, c, random(1, 8192))
	if c.Sync(ctxFor(t, time.Minute)) == nil {
		return errors.New("every fsync fails, and Tsync is answered by Rsync")
	}
	return nil
}

func queuewrites(t *testing.T, s harness.Suite) error {
	rounds := 3
	if s.Name == "plan9port" {
		rounds = 30 // it is a matter of luck
	}
	st := s.Format(t, 4<<20, 20, "queuewrites")
	for round := range rounds {
		srv := s.Serve(t, st)
		c := dial(t, srv)
		var list [][]byte
		for i := range 20 {
			list = append(list, random(uint64(round*100+i), 50_000))
			mustWrite(t, c, list[i])
		}
		mustSync(t, c)
		srv.Kill()
		srv = s.Serve(t, st)
		c = dial(t, srv)
		for i, b := range list {
			if err := readBack(t, c, b); err != nil {
				return fmt.Errorf("round %d: block %d of %d, synced before a kill: %w", round, i, len(list), err)
			}
		}
		stop(t, s, srv)
	}
	return nil
}

// freePort returns a port of the loopback that nobody listens at.
func freePort(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

// serveFlushed starts a server, and returns with it what has its index
// written: ours writes it of its own accord when it stops, theirs when a page
// is asked for.
func serveFlushed(t *testing.T, s harness.Suite, st *harness.Store) (srv *harness.Server, flush func()) {
	t.Helper()
	if s.Name != "plan9port" {
		srv = s.Serve(t, st)
		return srv, func() { srv.Stop(t) }
	}
	port := freePort(t)
	srv = s.Serve(t, st, "-h", "tcp!127.0.0.1!"+port)
	get := func(path string) {
		req, err := http.NewRequestWithContext(ctxFor(t, time.Minute), "GET", "http://127.0.0.1:"+port+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if b, err := io.ReadAll(r.Body); err != nil || r.StatusCode != 200 {
			t.Fatalf("%s: %v, %s %s", path, err, r.Status, b)
		}
	}
	return srv, func() {
		get("/set?name=manualscheduling&value=1")
		get("/set?name=icachesleeptime&value=0")
		get("/flushdcache")
		get("/flushicache")
		get("/flushdcache") // the trailers, which say what is in the index
		srv.Kill()
	}
}

// bloomDenies stores blocks one of whose bits lies where the header of a
// filter of 1 MiB and 32 hashes does.
func bloomDenies(t *testing.T, s harness.Suite) error {
	inHeader := func(score venti.Score) bool {
		w := func(i int) uint32 { return binary.LittleEndian.Uint32(score[4*i:]) }
		a, b := w(1)^w(3), w(2)^w(4)
		for i := range uint32(32) {
			if x := a + i*b; x >= 128 && x&(1<<23-1) < 128 {
				return true
			}
		}
		return false
	}
	var list [][]byte
	for i := 0; len(list) < 4; i++ {
		if b := []byte(fmt.Sprint("block ", i)); inHeader(venti.ScoreOf(b)) {
			list = append(list, b)
		}
	}
	st := s.Format(t, 4<<20, 2)
	srv, flush := serveFlushed(t, s, st)
	c := dial(t, srv)
	for _, b := range list {
		mustWrite(t, c, b)
	}
	mustSync(t, c)
	flush()
	srv = s.Serve(t, st)
	c = dial(t, srv)
	for _, b := range list {
		if err := readBack(t, c, b); err != nil {
			return fmt.Errorf("%q, synced and indexed: %w", b, err)
		}
	}
	return nil
}

// fullBucket writes more blocks than an index of two buckets has room for.
func fullBucket(t *testing.T, s harness.Suite) error {
	st := s.Format(t, 4<<20, 4)
	// Small caches, and a section with two buckets.
	edit(t, st, "mem 16m\nbcmem 16m\nicmem 16m\n", "mem 1m\nbcmem 1m\nicmem 1m\n")
	isect := filepath.Join(st.Dir, "isect")
	if err := os.Truncate(isect, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(isect, (256+8+512+16)<<10); err != nil {
		t.Fatal(err)
	}
	s.Run(t, nil, "venti/fmtisect", "isect", isect)
	s.Run(t, nil, "venti/fmtindex", st.Conf())
	srv := s.Serve(t, st)
	c := dial(t, srv)
	var list [][]byte
	for i := range 30_000 {
		b := []byte(fmt.Sprint("number ", i))
		_, err := c.WriteBlock(ctxFor(t, 15*time.Second), venti.DataType, b)
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("write %d is not answered for 15 seconds", i)
		}
		if err != nil {
			t.Logf("write %d: %v", i, err)
			if !errors.Is(err, venti.ErrFull) {
				return fmt.Errorf("write %d: %w", i, err)
			}
			break
		}
		list = append(list, b)
	}
	if err := c.Sync(ctxFor(t, 15*time.Second)); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	for _, b := range list {
		if err := readBack(t, c, b); err != nil {
			return fmt.Errorf("%q, which was acknowledged: %w", b, err)
		}
	}
	return nil
}

// edit replaces a part of a store's configuration.
func edit(t *testing.T, st *harness.Store, old, new string) {
	t.Helper()
	b, err := os.ReadFile(st.Conf())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("%q is not in the configuration", old)
	}
	if err := os.WriteFile(st.Conf(), []byte(strings.Replace(string(b), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func manySyncs(t *testing.T, s harness.Suite) error {
	trace := filepath.Join(t.TempDir(), "trace")
	srv := traced(t, s, s.Format(t, 4<<20, 2), "-o", trace)
	c := dial(t, srv)
	mustWrite(t, c, random(0, 100))
	mustSync(t, c)
	const n = 50
	before := lines(t, trace)
	for i := range n {
		mustWrite(t, c, random(uint64(i+1), 100))
		mustSync(t, c)
	}
	// Some are for checkpoints, of which there is one a second at most.
	if took := lines(t, trace) - before; took > 2*n {
		return fmt.Errorf("%d syncs took %d", n, took)
	}
	return nil
}

// lines counts the system calls in a trace.
func lines(t *testing.T, trace string) int {
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	return len(regexp.MustCompile(`f(data)?sync\(`).FindAll(b, -1))
}

// wholeFilter counts the bytes that a server writes to have one block stored
// and in the index.
func wholeFilter(t *testing.T, s harness.Suite) error {
	trace := filepath.Join(t.TempDir(), "trace")
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace (package strace)")
	}
	st := s.Format(t, 4<<20, 2)
	var srv *harness.Server
	flush := func() { srv.Stop(t) }
	under := []string{strace, "-f", "-o", trace, "-e", "trace=pwrite64"}
	if s.Name == "plan9port" {
		port := freePort(t)
		edit(t, st, "index main\n", "index main\nhttpaddr tcp!127.0.0.1!"+port+"\n")
		flush = func() {
			for _, path := range []string{"/set?name=manualscheduling&value=1", "/set?name=icachesleeptime&value=0", "/flushdcache", "/flushicache"} {
				r, err := http.Get("http://127.0.0.1:" + port + path)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
		}
	}
	srv = s.ServeUnder(t, st, under...)
	c := dial(t, srv)
	mustWrite(t, c, random(1, 100))
	mustSync(t, c)
	flush()
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, m := range regexp.MustCompile(`(?m)pwrite64\(.* = (\d+)$`).FindAllSubmatch(b, -1) {
		n, _ := strconv.Atoi(string(m[1]))
		total += n
	}
	if total == 0 {
		t.Fatal("the trace has no writes")
	}
	if total > 1<<19 {
		return fmt.Errorf("one block of 100 bytes, stored and indexed, has %d bytes written", total)
	}
	return nil
}

// lateIndex looks into the index section some seconds after blocks were
// synced.
func lateIndex(t *testing.T, s harness.Suite) error {
	st := s.Format(t, 4<<20, 2)
	srv := s.Serve(t, st)
	c := dial(t, srv)
	const n = 300
	for i := range n {
		mustWrite(t, c, random(uint64(i), 1000))
	}
	mustSync(t, c)
	count := 0
	for range 10 {
		time.Sleep(500 * time.Millisecond)
		out := harness.Ours(t).Run(t, nil, "venti/printindex", st.Conf())
		if count = len(regexp.MustCompile(`(?m)^.*[0-9a-f]{40}`).FindAllString(out, -1)); count >= n {
			return nil
		}
	}
	return fmt.Errorf("5 seconds after the sync %d of %d blocks are in the index", count, n)
}

// lostTrailer destroys the one copy of a trailer.
func lostTrailer(t *testing.T, s harness.Suite) error {
	st := s.Format(t, 1<<20, 3)
	srv := s.Serve(t, st)
	c := dial(t, srv)
	var list [][]byte
	for i := range 20 {
		list = append(list, random(uint64(i), 8000))
		mustWrite(t, c, list[i])
	}
	mustSync(t, c)
	stop(t, s, srv)
	f, err := os.OpenFile(st.Arenas(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const trailer = 794624 + 1<<20 - 8192 // of the first arena
	if _, err := f.WriteAt(make([]byte, 512), trailer); err != nil {
		t.Fatal(err)
	}
	if err := ends(t, s, st, 2*time.Second); err != nil {
		return fmt.Errorf("the server does not start: %w", err)
	}
	c = dial(t, s.Serve(t, st))
	for i, b := range list {
		if err := readBack(t, c, b); err != nil {
			return fmt.Errorf("block %d of %d: %w", i, len(list), err)
		}
	}
	return nil
}

// ends starts a server, at an address of its own, and returns the error with
// which it ends, or kills it after a while and returns nil.
func ends(t *testing.T, s harness.Suite, st *harness.Store, after time.Duration) error {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := s.Command(t.Context(), "venti/venti", "-s", "-c", st.Conf(), "-a", "unix!"+filepath.Join(t.TempDir(), "other.sock"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // plan9port's serves from a child
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		text, _ := os.ReadFile(log.Name())
		if err == nil {
			t.Fatalf("the server ends well:\n%s", text)
		}
		return fmt.Errorf("%w: %s", err, text)
	case <-time.After(after):
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		return nil
	}
}

func twoServers(t *testing.T, s harness.Suite) error {
	st := s.Format(t, 4<<20, 2)
	s.Serve(t, st)
	if ends(t, s, st, 3*time.Second) == nil {
		return errors.New("a second server runs on the same partitions")
	}
	return nil
}

func malformed(t *testing.T, s harness.Suite) error {
	srv := s.Serve(t, s.Format(t, 4<<20, 2))
	nc, err := net.Dial("unix", strings.TrimPrefix(srv.Addr, "unix!"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(5 * time.Second))
	r := bufio.NewReader(nc)
	frame := func() ([]byte, error) {
		var size [2]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return nil, err
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		_, err := io.ReadFull(r, b)
		return b, err
	}
	io.WriteString(nc, "venti-02-test\n")
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	hello := []byte{0, 0, 4, 0, 0, 2, '0', '2', 0, 4, 'n', 'o', 'n', 'e', 0, 0, 0}
	hello[1] = byte(len(hello) - 2)
	nc.Write(hello)
	if b, err := frame(); err != nil || b[0] != 5 {
		t.Fatalf("hello: %x, %v", b, err)
	}
	nc.Write([]byte{0, 4, 12, 7, 1, 2}) // a Tread of two bytes
	if b, err := frame(); err != nil || b[0] != 1 {
		return fmt.Errorf("a Tread of four bytes is answered by %x, %w", b, err)
	}
	return nil
}

func corruptStays(t *testing.T, s harness.Suite) error {
	st := s.Format(t, 1<<20, 2)
	srv := s.Serve(t, st)
	c := dial(t, srv)
	block := random(1, 8192)
	mustWrite(t, c, block)
	mustSync(t, c)
	stop(t, s, srv)
	f, err := os.OpenFile(st.Arenas(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const data = 794624 + 8192 + 38 // of the first clump of the first arena
	if _, err := f.WriteAt([]byte("broken"), data+1000); err != nil {
		t.Fatal(err)
	}
	c = dial(t, s.Serve(t, st))
	if err := readBack(t, c, block); err == nil {
		t.Fatal("the corrupt block can be read")
	}
	mustWrite(t, c, block)
	mustSync(t, c)
	if err := readBack(t, c, block); err != nil {
		return fmt.Errorf("written again, and then: %w", err)
	}
	return nil
}

func oneDisk(t *testing.T, s harness.Suite) error {
	st := s.Format(t, 16<<20, 3)
	second := filepath.Join(st.Dir, "arenas2")
	if err := os.WriteFile(second, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(second, 49<<20); err != nil {
		t.Fatal(err)
	}
	s.Run(t, nil, "venti/fmtarenas", "-a", fmt.Sprint(16<<20), "other", second)
	edit(t, st, "index main\n", "index main\narenas "+second+"\n")
	s.Run(t, nil, "venti/fmtisect", "isect", filepath.Join(st.Dir, "isect"))
	s.Run(t, nil, "venti/fmtindex", st.Conf())
	// The disks are slow. Ours writes large pieces, theirs a block at a time.
	delay := "20000"
	if s.Name == "plan9port" {
		delay = "500"
	}
	srv := tracedCalls(t, s, st, "pwrite64", "-o", os.DevNull, "-e", "inject=pwrite64:delay_enter="+delay)
	c := dial(t, srv)
	for i := range 250 { // 14 MiB: less than an arena
		mustWrite(t, c, random(uint64(i), 57_000))
	}
	mustSync(t, c)
	stop(t, s, srv)
	for _, part := range []string{st.Arenas(), second} {
		if out := harness.Ours(t).Run(t, nil, "venti/checkarenas", "-v", part); !strings.Contains(out, "clumps=") {
			return fmt.Errorf("14 MiB were written, and none of it to %s", filepath.Base(part))
		}
	}
	return nil
}
