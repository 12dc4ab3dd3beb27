// Package harness starts real servers for black-box tests: ours, built from
// this tree, and plan9port's, from $PLAN9, which take the same commands with
// the same flags.
package harness

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Suite is one make of the programs: the folder that holds vac, unvac and
// so on, and below it venti/ with read, write, fmtarenas and the rest.
type Suite struct {
	Name string
	Bin  string
	Env  []string // added to the environment of each program
}

// binDir is where Ours builds; the name is this process's own.
func binDir() string { return filepath.Join(os.TempDir(), fmt.Sprintf("strata-bin-%d", os.Getpid())) }

var build = sync.OnceValues(func() (string, error) {
	dir := binDir()
	for _, noun := range []string{"venti", "fossil"} {
		if err := os.MkdirAll(filepath.Join(dir, noun), 0o755); err != nil {
			return "", err
		}
	}
	for _, args := range [][]string{
		{"build", "-o", dir + "/venti/", "strata/venti/cmd/..."},
		{"build", "-o", dir + "/fossil/", "strata/fossil/cmd/..."},
		{"build", "-o", dir + "/", "strata/vac/cmd/...", "strata/vdisk/cmd/...", "strata/tools/..."},
	} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return dir, nil
})

// Ours builds this tree's commands, once for each test process.
func Ours(t testing.TB) Suite {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return Suite{Name: "strata", Bin: dir}
}

// Cleanup removes what Ours built, if it did. TestMain calls it when the tests
// have run.
func Cleanup() { os.RemoveAll(binDir()) }

// Plan9 returns plan9port's programs, and skips the test where $PLAN9 does
// not hold them.
func Plan9(t testing.TB) Suite {
	t.Helper()
	dir := os.Getenv("PLAN9")
	if dir == "" {
		t.Skip("$PLAN9 is not set: no plan9port to try against")
	}
	if _, err := os.Stat(filepath.Join(dir, "bin/venti/venti")); err != nil {
		t.Skipf("$PLAN9 holds no built venti: %v", err)
	}
	return Suite{Name: "plan9port", Bin: filepath.Join(dir, "bin"), Env: []string{"PLAN9=" + dir}}
}

// Command returns a program of the suite, such as "venti/read", ready to run.
func (s Suite) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, name), args...)
	cmd.Env = append(os.Environ(), s.Env...)
	return cmd
}

// Has tells whether the suite holds a program.
func (s Suite) Has(name string) bool {
	_, err := os.Stat(filepath.Join(s.Bin, name))
	return err == nil
}

// Run runs a program to its end with stdin as its input, and returns what it
// printed on stdout. It fails the test when the program fails.
func (s Suite) Run(t testing.TB, stdin []byte, name string, args ...string) string {
	t.Helper()
	out, errOut, err := s.Try(t, stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %s %s: %v\n%s%s", s.Name, name, strings.Join(args, " "), err, out, errOut)
	}
	return out
}

// Try is Run for a program that may fail. It gives up after two minutes.
func (s Suite) Try(t testing.TB, stdin []byte, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := s.Command(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// A Store is a folder of partitions with their venti.conf. Any suite can
// serve it.
type Store struct {
	Dir string
}

// Conf returns the path of the store's configuration.
func (st *Store) Conf() string { return filepath.Join(st.Dir, "venti.conf") }

// Arenas returns the path of the store's arena partition.
func (st *Store) Arenas() string { return filepath.Join(st.Dir, "arenas") }

// Format makes a store with the suite's own tools: one arena partition of
// arenaCount arenas of arenaSize bytes, one index section and a Bloom filter.
// extra lines go into the configuration.
func (s Suite) Format(t testing.TB, arenaSize int64, arenaCount int, extra ...string) *Store {
	t.Helper()
	st := &Store{Dir: t.TempDir()}
	space := arenaSize * int64(arenaCount)
	for name, size := range map[string]int64{"arenas": space + 1<<20, "isect": max(6<<20, space/10), "bloom": 1 << 20} {
		f, err := os.Create(filepath.Join(st.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	conf := "index main\nmem 16m\nbcmem 16m\nicmem 16m\n"
	for _, line := range extra {
		conf += line + "\n"
	}
	for _, key := range []string{"arenas", "isect", "bloom"} {
		conf += key + " " + filepath.Join(st.Dir, key) + "\n"
	}
	if err := os.WriteFile(st.Conf(), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Run(t, nil, "venti/fmtarenas", "-a", fmt.Sprint(arenaSize), "arena", st.Arenas())
	s.Run(t, nil, "venti/fmtisect", "isect", filepath.Join(st.Dir, "isect"))
	s.Run(t, nil, "venti/fmtbloom", "-N", "32", filepath.Join(st.Dir, "bloom"))
	s.Run(t, nil, "venti/fmtindex", st.Conf())
	return st
}

// A Server is a running venti.
type Server struct {
	Addr  string // in the form that -h and $venti take
	cmd   *exec.Cmd
	log   *lockedBuffer
	done  chan struct{}
	err   error // of Wait, valid when done is closed
	under bool  // the process that was started runs the server
}

// Serve starts the suite's venti on st, with its socket in the store's folder, and
// waits until it answers. The server is killed when the test ends, if it still runs.
func (s Suite) Serve(t testing.TB, st *Store, flags ...string) *Server {
	t.Helper()
	return s.start(t, st.addr(), append([]string{filepath.Join(s.Bin, "venti/venti")}, st.flags(flags...)...))
}

// ServeUnder is Serve for a server that is run by another program, such as
// strace, whose command line comes in front of the server's.
func (s Suite) ServeUnder(t testing.TB, st *Store, under ...string) *Server {
	t.Helper()
	srv := s.start(t, st.addr(), append(append(under, filepath.Join(s.Bin, "venti/venti")), st.flags()...))
	srv.under = true
	return srv
}

// ServeReadOnly starts the suite's venti/ro in front of a server.
func (s Suite) ServeReadOnly(t testing.TB, of *Server) *Server {
	t.Helper()
	addr := "unix!" + filepath.Join(t.TempDir(), "ro.sock")
	return s.start(t, addr, []string{filepath.Join(s.Bin, "venti/ro"), "-a", addr, "-h", of.Addr})
}

func (st *Store) addr() string { return "unix!" + filepath.Join(st.Dir, "venti.sock") }

func (st *Store) flags(more ...string) []string {
	return append([]string{"-s", "-c", st.Conf(), "-a", st.addr()}, more...)
}

// start starts a server, and waits until it answers at addr, a socket.
func (s Suite) start(t testing.TB, addr string, args []string) *Server {
	t.Helper()
	sock := strings.TrimPrefix(addr, "unix!")
	os.Remove(sock)
	srv := &Server{Addr: addr, log: new(lockedBuffer), done: make(chan struct{})}
	srv.cmd = exec.Command(args[0], args[1:]...)
	srv.cmd.Env = append(os.Environ(), s.Env...)
	srv.cmd.Stdout, srv.cmd.Stderr = srv.log, srv.log
	// plan9port's venti serves from a child of the process that was started.
	srv.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := srv.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		srv.err = srv.cmd.Wait()
		close(srv.done)
	}()
	t.Cleanup(srv.Kill)
	for deadline := time.Now().Add(time.Minute); ; {
		if c, err := net.Dial("unix", sock); err == nil {
			c.Close()
			return srv
		}
		select {
		case <-srv.done:
			t.Fatalf("%s %s ended: %v\n%s", s.Name, filepath.Base(args[0]), srv.err, srv.log)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %s does not answer\n%s", s.Name, filepath.Base(args[0]), srv.log)
		}
	}
}

// Kill ends the server's processes with SIGKILL and waits for their end. It
// may be called again.
func (s *Server) Kill() {
	select {
	case <-s.done: // its number may be another's by now
	default:
		for _, pid := range descendants(s.cmd.Process.Pid) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.done
	}
}

// descendants returns the processes below one: plan9port's venti leaves the
// group of a tracer that it runs under.
func descendants(pid int) (list []int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil // it has ended
	}
	for field := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(field); err == nil {
			list = append(append(list, child), descendants(child)...)
		}
	}
	return list
}

// Stop ends the server with SIGTERM, as a service manager does, and fails the
// test if it does not end well within a minute.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	pid := s.cmd.Process.Pid
	if s.under {
		if list := descendants(pid); len(list) > 0 {
			pid = list[0]
		}
	}
	syscall.Kill(pid, syscall.SIGTERM)
	select {
	case <-s.done:
		if s.err != nil {
			t.Fatalf("venti ended with %v\n%s", s.err, s.log)
		}
	case <-time.After(time.Minute):
		t.Fatalf("venti did not end at SIGTERM\n%s", s.log)
	}
}

// PID returns the server's process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Log returns what the server has printed.
func (s *Server) Log() string { return s.log.String() }

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
