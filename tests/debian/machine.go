package debian

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A Machine is what Start starts.
type Machine struct {
	Drives   []string // as QEMU's -drive takes them, without if=
	Image    *Image   // whose kernel is started; nil is for the first drive's boot loader
	Append   string   // to the kernel's command line
	MemoryMB int      // 0 is 512
	Args     []string // more arguments of QEMU

	// Run is a command that runs QEMU with a disk, and takes more arguments for it,
	// as vdisk qemu --run does. Drives and Image are nil then.
	Run *exec.Cmd
}

// A Guest is a machine that has been started.
type Guest struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	lines   chan string // of the second serial port; closed at its end
	console string      // the file with what the first has said
	said    *bytes.Buffer
	done    chan struct{} // closed when it has ended
	err     error         // of Wait, valid then
}

// patience is how long a guest may take for anything.
const patience = 10 * time.Minute

// Start starts a machine. It is killed when the test ends, if it still runs.
func Start(t testing.TB, m Machine) *Guest {
	t.Helper()
	if m.MemoryMB == 0 {
		m.MemoryMB = 512
	}
	g := &Guest{lines: make(chan string, 1000), console: filepath.Join(t.TempDir(), "console"), said: new(bytes.Buffer), done: make(chan struct{})}
	args := []string{"-cpu", "Nehalem", "-m", fmt.Sprint(m.MemoryMB), "-no-reboot", "-device", "virtio-rng-pci"}
	if m.Run != nil {
		g.run(t, m.Run, append(args, m.Args...))
		return g
	}
	args = append(args, "-machine", "pc", "-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "file:"+g.console, "-serial", "stdio")
	for _, d := range m.Drives {
		args = append(args, "-drive", d+",if=virtio")
	}
	if m.Image != nil {
		args = append(args, "-kernel", m.Image.Kernel, "-initrd", m.Image.Initrd, "-append",
			"root="+m.Image.Root+" ro console=ttyS0 panic=-1 quiet loglevel=5 tsc=reliable nokaslr mitigations=off random.trust_cpu=on no_timer_check systemd.default_timeout_start_sec=1h "+m.Append)
	}
	g.cmd = exec.Command("qemu-system-x86_64", append(args, m.Args...)...)
	g.cmd.Stderr = g.said
	var err error
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := g.cmd.StdoutPipe()
	if err == nil {
		err = g.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	g.follow(t, out)
	return g
}

// run starts a command that runs QEMU, whose first serial line it has on its
// output. The second one is a socket.
func (g *Guest) run(t testing.TB, cmd *exec.Cmd, args []string) {
	t.Helper()
	console, err := os.Create(g.console)
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	sock := filepath.Join(filepath.Dir(g.console), "commands")
	cmd.Args = append(append(cmd.Args, args...), "-machine", "accel=tcg", "-chardev", "socket,id=commands,server=on,path="+sock, "-serial", "chardev:commands")
	cmd.Stdout, cmd.Stderr = console, g.said
	g.cmd = cmd
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if conn, err = net.Dial("unix", sock); err == nil {
			break
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("%v: %v\n%s%s", cmd, err, g.said, g.Console())
		}
	}
	g.in = conn
	g.follow(t, conn)
}

// follow takes what the second serial port says, until the machine ends.
func (g *Guest) follow(t testing.TB, out io.Reader) {
	go func() {
		s := bufio.NewScanner(out)
		s.Buffer(nil, 16<<20)
		for s.Scan() {
			g.lines <- s.Text()
		}
		close(g.lines)
		g.err = g.cmd.Wait()
		close(g.done)
	}()
	t.Cleanup(g.Kill)
}

// Ready waits until the guest takes commands, which is when it has booted.
func (g *Guest) Ready(t testing.TB) {
	t.Helper()
	for line := g.line(t); line != "ready"; line = g.line(t) {
	}
}

func (g *Guest) line(t testing.TB) string {
	t.Helper()
	select {
	case line, ok := <-g.lines:
		if !ok {
			<-g.done
			t.Fatalf("the guest has ended: %v\n%s%s", g.err, g.said, tail(g.Console()))
		}
		return line
	case <-time.After(patience):
		t.Fatalf("the guest says nothing\n%s", tail(g.Console()))
	}
	panic("not reached")
}

// Try has the guest run a command of one line, as root, and returns what that
// prints, and its status.
func (g *Guest) Try(t testing.TB, command string) (out string, status int) {
	t.Helper()
	if strings.Contains(command, "\n") {
		t.Fatalf("a command of more than a line: %q", command)
	}
	if _, err := fmt.Fprintln(g.in, command); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, tail(g.Console()))
	}
	for {
		line := g.line(t)
		// What the command prints last may have no end of line.
		if before, after, ok := strings.Cut(line, "done "); ok {
			if n, err := strconv.Atoi(after); err == nil {
				return out + before, n
			}
		}
		out += line + "\n"
	}
}

// Do is Try for a command that succeeds.
func (g *Guest) Do(t testing.TB, command string) string {
	t.Helper()
	out, status := g.Try(t, command)
	if status != 0 {
		t.Fatalf("in the guest, %s: status %d\n%s\n%s", command, status, out, tail(g.Console()))
	}
	return out
}

// PowerOff shuts the guest down, and waits for its end.
func (g *Guest) PowerOff(t testing.TB) {
	t.Helper()
	if _, err := fmt.Fprintln(g.in, "systemctl poweroff"); err != nil {
		t.Fatal(err)
	}
	for range g.lines {
	}
	<-g.done
	if g.err != nil || !strings.Contains(g.Console(), "Power down") {
		t.Fatalf("power off: %v\n%s%s", g.err, g.said, tail(g.Console()))
	}
}

// Kill ends the machine as a power cut does, but for what QEMU has taken and not
// handed on. It may be called again.
func (g *Guest) Kill() {
	g.cmd.Process.Kill()
	for range g.lines {
	}
	<-g.done
}

// Console returns what the first serial port has said: the boot loader, the
// kernel and the login.
func (g *Guest) Console() string {
	b, _ := os.ReadFile(g.console)
	return string(b)
}

// CPU returns the processor time of a guest that has ended.
func (g *Guest) CPU() time.Duration {
	<-g.done
	return g.cmd.ProcessState.UserTime() + g.cmd.ProcessState.SystemTime()
}

// tail returns the last lines of a text.
func tail(text string) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "")
}
