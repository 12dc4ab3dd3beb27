package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"strata/internal/ninep"
	"strata/internal/ninep/ninefuse"
	"strata/internal/ninep/ninetest"
)

func TestOptions(t *testing.T) {
	for _, tc := range []struct {
		opts string
		err  string // a part of it
	}{
		{"ro,aname=x,uname=glenda,version=9p2000.L,msize=64k,cache=loose", ""},
		{"direct_io,auto_cache,big_writes,fsname=x,subtype=y", ""},
		{"attr_timeout=0,entry_timeout=2.5,negative_timeout=1,uid=1,gid=2,allow_other,nodefault_permissions", ""},
		{"rw,nodev,nosuid,noexec,relatime,_netdev,x-systemd.automount,nofail,defaults", ""},
		{"version=9p3000", "option version=9p3000: no such version"},
		{"msize=17m", "want 256 to 16777216"},
		{"msize=x", "option msize=x"},
		{"cache=sometimes", "want none or loose"},
		{"uid=glenda", "want a number"},
		{"attr_timeout=-1", "want a number of seconds"},
		{"colour=blue", "option colour=blue: unknown"},
	} {
		t.Run(tc.opts, func(t *testing.T) {
			_, err := parseOptions([]string{tc.opts})
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
		})
	}
	o, err := parseOptions([]string{"ro,msize=64k", "attr_timeout=0,version=9p2000.u,uid=7"})
	if err != nil {
		t.Fatal(err)
	}
	want := ninefuse.Config{ReadOnly: true, AttrTime: -1, UID: o.mount.UID}
	if o.msize != 64<<10 || *o.dialect != ninep.Unix || *o.mount.UID != 7 || !o.mount.ReadOnly || o.mount.AttrTime != want.AttrTime {
		t.Errorf("%+v", o)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"one"}, {"-o", "colour=blue", "a", "b"}, {"-A", "x", "a", "b"}} {
		var out bytes.Buffer
		if got := newCommand().Execute(t.Context(), args, nil, &out, &out); got != 2 {
			t.Errorf("%q: status %d, want 2: %s", args, got, &out)
		}
	}
}

// program builds 9pfuse, once, and skips the test where nothing can be mounted.
func program(t *testing.T) string {
	t.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("no FUSE here: %v", err)
	} else {
		f.Close()
	}
	prog := filepath.Join(t.TempDir(), "9pfuse")
	if out, err := exec.Command("go", "build", "-o", prog, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return prog
}

// serveMem serves fs at a unix socket until stop is called.
func serveMem(t *testing.T, fs ninep.FS, sock string) (stop func()) {
	t.Helper()
	ln, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- ninep.NewServer(fs, ninep.Config{}).Serve(ctx, ln) }()
	return sync.OnceFunc(func() {
		cancel()
		<-served
	})
}

// mountOrSkip mounts with a program and arguments.
func mountOrSkip(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err == nil {
		return
	}
	if strings.Contains(string(out), "not permitted") || strings.Contains(string(out), "fusermount") {
		t.Skipf("mounting is not allowed here: %s", out)
	}
	t.Fatalf("%v: %s", err, out)
}

func umount(t *testing.T, dir string) {
	t.Helper()
	args := []string{"fusermount3", "-u", dir}
	if os.Geteuid() == 0 {
		args = []string{"umount", dir}
	}
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("umount: %v: %s", err, out)
	}
}

// TestMount runs the program itself, as people do.
func TestMount(t *testing.T) {
	prog := program(t)
	sock := filepath.Join(t.TempDir(), "9p")
	defer serveMem(t, ninetest.NewMemFS(time.Now), sock)()
	dir := t.TempDir()
	run := func(args ...string) (string, error) {
		out, err := exec.Command(prog, args...).CombinedOutput()
		return string(out), err
	}
	if out, err := run(sock+"none", dir); err == nil || !strings.HasPrefix(out, "9pfuse: ") {
		t.Errorf("no server: %v, %q", err, out)
	}
	if out, err := run("-a", "missing", sock, dir); err == nil || !strings.Contains(out, "file does not exist") {
		t.Errorf("no tree: %v, %q", err, out)
	}
	if out, err := run(sock, filepath.Join(dir, "none")); err == nil || !strings.Contains(out, "no such file") {
		t.Errorf("no mount point: %v, %q", err, out)
	}
	for _, version := range []string{"9p2000", "9p2000.u", "9p2000.L"} {
		t.Run(version, func(t *testing.T) {
			mountOrSkip(t, exec.Command(prog, "-o", "version="+version, sock, dir))
			name := filepath.Join(dir, version)
			err := os.WriteFile(name, []byte("x\n"), 0o600)
			if err == nil {
				_, err = os.ReadFile(name)
			}
			mounts, _ := os.ReadFile("/proc/self/mounts")
			if want := sock + " " + dir + " fuse.9pfuse rw,nosuid,nodev"; !strings.Contains(string(mounts), want) {
				t.Errorf("/proc/self/mounts has no line %q", want)
			}
			umount(t, dir)
			if err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(name); err == nil {
				t.Error("still there after umount")
			}
		})
	}
}

// TestMountHelper mounts through mount(8), as fstab(5) does. It looks in the
// usual folders only, so that the program stands in one of them, in a mount
// namespace.
func TestMountHelper(t *testing.T) {
	prog := program(t)
	if os.Geteuid() != 0 {
		t.Skip("mount -t fuse.9pfuse is for root")
	}
	if _, err := os.Stat("/sbin/mount.fuse3"); err != nil {
		t.Skip("no mount.fuse3 (package fuse3) here")
	}
	sock, dir := filepath.Join(t.TempDir(), "9p"), t.TempDir()
	defer serveMem(t, ninetest.NewMemFS(time.Now), sock)()
	mount := func(opts string) *exec.Cmd {
		return exec.Command("unshare", "-m", "sh", "-ec", `mount --bind "$1" /usr/local/bin
			mount -t fuse.9pfuse -o "$4" "$2" "$3"
			grep " $3 " /proc/self/mounts
			touch "$3/x" || echo it is $?
			umount "$3"`, "sh", filepath.Dir(prog), sock, dir, opts)
	}
	out, err := mount("ro,noatime,nofail,_netdev,x-systemd.automount,uname=glenda").CombinedOutput()
	if err != nil && strings.Contains(string(out), "not permitted") {
		t.Skipf("mounting is not allowed here: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "Read-only file system") ||
		!strings.Contains(string(out), sock+" "+dir+" fuse.9pfuse ro,nosuid,nodev,noatime") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := mount("colour=blue").CombinedOutput(); err == nil || !strings.Contains(string(out), "option colour=blue: unknown") {
		t.Errorf("unknown option: %v, %q", err, out)
	}
}

// TestSignal ends the program while a file is open.
func TestSignal(t *testing.T) {
	prog := program(t)
	sock, dir := filepath.Join(t.TempDir(), "9p"), t.TempDir()
	defer serveMem(t, ninetest.NewMemFS(time.Now), sock)()
	fuse := exec.Command(prog, "-f", sock, dir)
	var out bytes.Buffer
	fuse.Stderr = &out
	if err := fuse.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- fuse.Wait() }()
	waitMounted(t, dir, ended, &out)
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fuse.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("%v: %s", err, &out)
	}
	if _, err := f.WriteString("x"); err == nil {
		t.Error("an open file can still be written")
	}
	if mounts, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(mounts), dir) {
		t.Error("still mounted")
	}
}

// waitMounted returns when something is mounted on dir.
func waitMounted(t *testing.T, dir string, ended <-chan error, out *bytes.Buffer) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if mounts, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(mounts), " "+dir+" ") {
			return
		}
		select {
		case err := <-ended:
			if strings.Contains(out.String(), "not permitted") || strings.Contains(out.String(), "fusermount") {
				t.Skipf("mounting is not allowed here: %s", out)
			}
			t.Fatalf("%v: %s", err, out)
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Fatal("not mounted after a minute")
}

// TestServerAway stops the server and starts it again, under a mount that has
// a file open.
func TestServerAway(t *testing.T) {
	prog := program(t)
	sock, dir := filepath.Join(t.TempDir(), "9p"), t.TempDir()
	fs := ninetest.NewMemFS(time.Now)
	stop := serveMem(t, fs, sock)
	defer func() { stop() }()
	mountOrSkip(t, exec.Command(prog, "-o", "cache=none,attr_timeout=0,entry_timeout=0", sock, dir))
	defer umount(t, dir)
	name := filepath.Join(dir, "f")
	if err := os.WriteFile(name, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stop()
	// Everything fails, and nothing hangs.
	if _, err := os.ReadDir(dir); err == nil {
		t.Error("the directory can be read without the server")
	}
	if _, err := f.ReadAt(make([]byte, 6), 0); err == nil {
		t.Error("the file can be read without the server")
	}
	stop = serveMem(t, fs, sock)
	if b, err := os.ReadFile(name); err != nil || string(b) != "before" {
		t.Errorf("with the server back: %q, %v", b, err)
	}
	b := make([]byte, 6)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "before" {
		t.Errorf("with the server back, from an open file: %q, %v", b, err)
	}
	if _, err := f.WriteAt([]byte("after!"), 0); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "after!" {
		t.Errorf("written with the server back: %q, %v", b, err)
	}
}
