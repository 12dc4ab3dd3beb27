package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strata/internal/ninep"
)

// A Fossil is a running fossil with one file system, main.
type Fossil struct {
	suite Suite
	sock  string
	cmd   *exec.Cmd
	done  chan struct{} // closed when it has ended
	err   error         // of Wait, valid then
	tty   io.Closer     // the terminal of theirs, or nil
	in    io.Writer     // of the console
	out   *console
	errs  *lockedBuffer // what it prints elsewhere
	read  int           // of out, by Console
}

// A console gathers what one prints.
type console struct {
	mu   sync.Mutex // guards the fields below
	text []byte
	more chan struct{} // closed when there is more, or the end
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, p...)
	close(c.more)
	c.more = make(chan struct{})
	return len(p), nil
}

// get returns what there is, and what is closed when there is more.
func (c *console) get() (string, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text), c.more
}

// ServeFossil starts the suite's fossil on the file system in a partition, which
// it opens with flags, has it run commands of the console, and waits until it
// answers at a socket. It is killed when the test ends, if it still runs.
func (s Suite) ServeFossil(t testing.TB, part, flags string, commands ...string) *Fossil {
	t.Helper()
	f := &Fossil{suite: s, sock: filepath.Join(t.TempDir(), "9p"), done: make(chan struct{}), out: &console{more: make(chan struct{})}, errs: new(lockedBuffer)}
	args := []string{filepath.Join(s.Bin, "fossil/fossil"), "-t"}
	for _, c := range append([]string{"fsys main config " + part, "fsys main open " + flags, "fsys main"}, commands...) {
		args = append(args, "-c", c)
	}
	var err error
	if s.Name == "plan9port" {
		err = f.startTheirs(append(args, "-c", "listen unix!"+f.sock))
	} else {
		err = f.startOurs(append(args, "-a", "unix!"+f.sock, "--console", "none"))
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		f.err = f.cmd.Wait()
		close(f.done)
	}()
	t.Cleanup(f.Kill)
	for deadline := time.Now().Add(time.Minute); ; {
		if c, err := net.Dial("unix", f.sock); err == nil {
			c.Close()
			return f
		}
		select {
		case <-f.done:
			t.Fatalf("%s fossil ended: %v\n%s", s.Name, f.err, f.Log())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s fossil does not answer\n%s", s.Name, f.Log())
		}
	}
}

func (f *Fossil) startOurs(args []string) error {
	f.cmd = exec.Command(args[0], args[1:]...)
	f.cmd.Dir = filepath.Dir(f.sock)
	f.cmd.Env = append(os.Environ(), f.suite.Env...)
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	f.cmd.Stdout, f.cmd.Stderr = f.out, f.errs
	var err error
	if f.in, err = f.cmd.StdinPipe(); err != nil {
		return err
	}
	return f.cmd.Start()
}

// startTheirs starts plan9port's. Its console is on /dev/tty, so that it gets a
// terminal; and since it makes a process group of its own, it must be a job of a
// shell, which sees to it that it may read there.
func (f *Fossil) startTheirs(args []string) error {
	master, slave, err := terminal()
	if err != nil {
		return err
	}
	defer slave.Close()
	f.cmd = exec.Command("sh", append([]string{"-c", `set -m; "$@"`, "sh"}, args...)...)
	f.cmd.Dir = filepath.Dir(f.sock)
	f.cmd.Env = append(os.Environ(), f.suite.Env...)
	f.cmd.Stdin, f.cmd.Stdout, f.cmd.Stderr = slave, slave, f.errs
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	f.in, f.tty = master, master
	go io.Copy(f.out, master) // ends when the other end is closed
	return f.cmd.Start()
}

// terminal returns both ends of a new terminal that does nothing to bytes.
func terminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	if err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	term, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err == nil {
		term.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
		term.Iflag &^= unix.ICRNL
		term.Oflag &^= unix.OPOST
		err = unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, term)
	}
	return master, slave, err
}

// Console has the console run a command, and returns what it prints.
func (f *Fossil) Console(t testing.TB, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	wait := func(what string) string {
		for {
			text, more := f.out.get()
			if text = text[f.read:]; strings.HasSuffix(text, "main: ") || f.read == 0 && strings.HasSuffix(text, "prompt: ") {
				f.read += len(text)
				return strings.TrimSuffix(text, "main: ")
			}
			select {
			case <-more:
			case <-f.done:
				t.Fatalf("%s: fossil has ended: %v\n%s", what, f.err, f.Log())
			case <-ctx.Done():
				t.Fatalf("%s: no prompt\n%q", what, f.Log())
			}
		}
	}
	if f.read == 0 {
		wait("before " + line)
	}
	if _, err := fmt.Fprintln(f.in, line); err != nil {
		t.Fatal(err)
	}
	out := wait(line)
	return strings.TrimPrefix(out, line+"\n") // theirs has an echo
}

// Dial returns a new client. Nobody asks what it is allowed.
func (f *Fossil) Dial(t testing.TB, cfg ninep.ClientConfig) *ninep.Client {
	t.Helper()
	c, err := ninep.NewClient(t.Context(), f.Conn(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Conn returns a new connection.
func (f *Fossil) Conn(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", f.sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Sock returns the path of the socket at which files are served.
func (f *Fossil) Sock() string { return f.sock }

// Kill ends it with SIGKILL. It may be called again.
func (f *Fossil) Kill() {
	select {
	case <-f.done: // its number may be another's by now
		return
	default:
	}
	list := descendants(f.cmd.Process.Pid)
	if f.tty != nil {
		list = append(list, inSession(f.cmd.Process.Pid)...)
	}
	for _, pid := range list {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	syscall.Kill(-f.cmd.Process.Pid, syscall.SIGKILL)
	<-f.done
	if f.tty != nil {
		f.tty.Close()
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		// Their child is nobody's to wait for.
		if f.tty == nil || len(inSession(f.cmd.Process.Pid)) == 0 {
			return
		}
	}
}

// inSession returns the processes of a session, but its leader, and those that
// have ended.
func inSession(leader int) (list []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range dirs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var pid, parent, group, session int
		var state string
		i := bytes.LastIndexByte(text, ')')
		if _, err := fmt.Sscan(string(text[i+1:]), &state, &parent, &group, &session); err != nil || session != leader || state == "Z" {
			continue
		}
		if fmt.Sscan(string(text), &pid); pid != leader {
			list = append(list, pid)
		}
	}
	return list
}

// Stop ends it so that the partition is whole.
func (f *Fossil) Stop(t testing.TB) {
	t.Helper()
	if f.suite.Name == "plan9port" {
		f.Console(t, "fsys main sync")
		f.Console(t, "fsys main halt")
		f.Kill()
		return
	}
	syscall.Kill(f.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-f.done:
		if f.err != nil {
			t.Fatalf("fossil ended with %v\n%s", f.err, f.Log())
		}
	case <-time.After(time.Minute):
		t.Fatalf("fossil did not end at SIGTERM\n%s", f.Log())
	}
}

// Log returns what it has printed.
func (f *Fossil) Log() string {
	text, _ := f.out.get()
	return text + f.errs.String()
}
