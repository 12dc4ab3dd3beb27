package crash

import (
	"bufio"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strata/internal/ninep"
	"strata/tests/harness"
)

// images lists what is in the directory of images of the file system.
func (s *strata) images() (names []string) {
	s.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(s.dir, "fossil.sock"))
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := ninep.NewClient(s.t.Context(), conn, ninep.ClientConfig{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	root, err := c.Attach(s.t.Context(), "", "main")
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := root.Walk(s.t.Context(), "active", "vdisk")
	if err == nil {
		err = d.Open(s.t.Context(), ninep.OREAD)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	list, err := d.ReadDir(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range list {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	return names
}

// TestKillThrowAway kills the client that has a disk to be thrown away, and the
// server: nothing is left of it.
func TestKillThrowAway(t *testing.T) {
	if _, err := exec.LookPath("qemu-io"); err != nil {
		t.Skip("no qemu-io (package qemu-utils)")
	}
	ours := harness.Ours(t)
	dir := filepath.Join(t.TempDir(), "store")
	s := startStrata(t, ours, dir)
	ctl := s.open("ctl", ninep.ORDWR)
	for _, line := range []string{"create web 4m", "snap web first"} {
		if _, err := ctl.WriteAt(t.Context(), []byte(line), 0); err != nil {
			t.Fatal(err)
		}
	}
	// write has a client write and stay.
	write := func() *exec.Cmd {
		t.Helper()
		cmd := exec.Command("qemu-io", "-f", "raw", "nbd+unix:///throw-away:web@first?socket="+filepath.Join(dir, "nbd.sock"))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
		if _, err := in.Write([]byte("write -P 7 0 1m\nflush\n")); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); ; {
			if !lines.Scan() {
				t.Fatal("qemu-io ended")
			}
			if strings.Contains(lines.Text(), "wrote 1048576/1048576") {
				return cmd
			}
		}
	}
	has := func() bool {
		return slices.ContainsFunc(s.images(), func(name string) bool { return strings.HasPrefix(name, ".throw.") })
	}
	client := write()
	if !has() {
		t.Fatalf("there is only %q while a client has a disk to be thrown away", s.images())
	}
	client.Process.Kill()
	for deadline := time.Now().Add(time.Minute); has(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a minute after the client was killed there is %q", s.images())
		}
	}
	write()
	write()
	s.kill()
	s = startStrata(t, ours, dir)
	if has() {
		t.Errorf("after the server was killed there is %q", s.images())
	}
}
