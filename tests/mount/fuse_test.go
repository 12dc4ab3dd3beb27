package mount

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
	"strata/tests/mount/workload"
)

// needFUSE skips the test where nothing can be mounted.
func needFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	f.Close()
}

// fuse mounts with a program, its flags and an address, until the test ends.
// It returns the directory.
func fuse(t testing.TB, env []string, prog string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(prog, append(args, dir)...)
	cmd.Env = append(os.Environ(), env...)
	// What goes on in the background may keep its streams: they must not be
	// pipes whose end is waited for.
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		if bytes.Contains(text, []byte("not permitted")) {
			t.Skipf("mounting is not allowed here: %s", text)
		}
		t.Fatalf("%s: %v: %s", prog, err, text)
	}
	t.Cleanup(func() {
		umount, lazily := []string{"fusermount3", "-u", dir}, "-z"
		if os.Geteuid() == 0 {
			umount, lazily = []string{"umount", dir}, "-l"
		}
		if out, err := exec.Command(umount[0], umount[1:]...).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s, used by %q", err, out, users(dir))
			exec.Command(umount[0], append(umount[1:], lazily)...).Run()
		}
	})
	return dir
}

// users returns which processes use what is below a directory, and how.
func users(dir string) []string {
	var list []string
	for _, kind := range []string{"cwd", "exe", "root", "fd/*", "map_files/*"} {
		names, _ := filepath.Glob("/proc/[0-9]*/" + kind)
		for _, name := range names {
			if to, err := os.Readlink(name); err == nil && strings.HasPrefix(to, dir) {
				prog, _ := os.ReadFile(filepath.Join("/proc", strings.Split(name, "/")[2], "comm"))
				list = append(list, fmt.Sprintf("%s %s: %s", strings.TrimSpace(string(prog)), name, to))
			}
		}
	}
	return list
}

// work does the workload in a tree, in a process of its own.
func work(t *testing.T, cfg workload.Config) {
	t.Helper()
	cfg.Dir, cfg.Local, cfg.Only = filepath.Join(cfg.Dir, "work"), t.TempDir(), os.Getenv("WORKLOAD")
	cfg.Scale = 2 * scale(t) // nothing is emulated
	if err := os.Mkdir(cfg.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(deadline(t, 3*time.Minute), program(t, "guest"))
	cmd.Stdin = bytes.NewReader(in)
	var messages bytes.Buffer
	cmd.Stderr = &messages
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var list []workload.Result
	for lines := bufio.NewScanner(out); lines.Scan(); {
		r, err := decode(lines.Text())
		if err != nil {
			t.Error(err)
		}
		list = append(list, r)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("workload: %v: %s", err, &messages)
	}
	results(t, list)
}

// Test9pfuse has 9pfuse mount our server in each dialect and with each way to
// cache, and work in it.
func Test9pfuse(t *testing.T) {
	needFUSE(t)
	prog := program(t, "9pfuse")
	for i, dialect := range []string{"9p2000.L", "9p2000.u", "9p2000"} {
		for k, cache := range []string{"versions", "none", "loose"} {
			t.Run(dialect+"/"+cache, func(t *testing.T) {
				fs := ninetest.NewMemFS(time.Now)
				addBig(t, fs, "root")
				sock := serve(t, fs, "unix", filepath.Join(t.TempDir(), "9p")).String()
				opts := "version=" + dialect
				if cache != "versions" {
					opts += ",cache=" + cache
				}
				can := workload.Everything
				if dialect != "9p2000.L" {
					can = workload.Abilities{Removed: true, AnyName: true, Reopen: true, Symlinks: dialect == "9p2000.u", Fcntl: true}
				}
				can.Map = cache != "none"
				dir := fuse(t, nil, prog, "-o", opts, sock)
				work(t, workload.Config{Dir: dir, Big: filepath.Join(dir, bigDirectory), Can: can, Seed: uint64(100 + 10*i + k)})
			})
		}
	}
}

// Test9pfuseOnDiod has 9pfuse mount diod, which serves 9P2000.L. It finds files
// by their names, so that one whose name was removed has the length of another.
func Test9pfuseOnDiod(t *testing.T) {
	needFUSE(t)
	prog := program(t, "9pfuse")
	sock, export := diod(t)
	if err := os.Mkdir(filepath.Join(export, bigDirectory), 0o777); err != nil {
		t.Fatal(err)
	}
	for i := range workload.BigEntries {
		if err := os.WriteFile(filepath.Join(export, bigDirectory, workload.BigName(i)), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for k, cache := range []string{"versions", "none"} {
		t.Run(cache, func(t *testing.T) {
			opts := "aname=" + export
			if cache == "none" {
				opts += ",cache=none"
			}
			dir := fuse(t, nil, prog, "-o", opts, sock)
			sub := filepath.Join(dir, cache)
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			can := workload.Everything
			can.Map, can.Removed = cache != "none", false
			work(t, workload.Config{Dir: sub, Big: filepath.Join(dir, bigDirectory), Can: can, Seed: uint64(200 + k)})
		})
	}
}

// diod serves a new directory, and returns the socket and the directory.
func diod(t testing.TB) (sock, export string) {
	t.Helper()
	prog, err := exec.LookPath("diod")
	if err != nil {
		if prog, err = exec.LookPath("/usr/sbin/diod"); err != nil {
			t.Skip("no diod here")
		}
	}
	sock, export = filepath.Join(t.TempDir(), "diod"), t.TempDir()
	start(t, sock, exec.Command(prog, "-f", "-n", "-N", "-S", "-U", "root", "-e", export, "-l", sock, "-L", "/dev/null", "-c", "/dev/null"))
	return sock, export
}

// start starts a server and waits until its socket is there. It ends with the
// test.
func start(t testing.TB, sock string, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if _, err := os.Stat(sock); err == nil {
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s: %v: %s", cmd, err, &out)
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Fatalf("%s: no socket after a minute", cmd)
}

// plan9 returns plan9port's programs and their environment, with a name space
// of its own.
func plan9(t testing.TB) (bin string, env []string, namespace string) {
	t.Helper()
	root := os.Getenv("PLAN9")
	if root == "" {
		t.Skip("$PLAN9 is not set: no plan9port to try against")
	}
	namespace = t.TempDir()
	bin = filepath.Join(root, "bin")
	t.Cleanup(func() { endAll(t, namespace) })
	return bin, []string{"PLAN9=" + root, "NAMESPACE=" + namespace, "PATH=" + bin + ":" + os.Getenv("PATH")}, namespace
}

// endAll ends the servers that were started with a name space and went on in
// the background.
func endAll(t testing.TB, namespace string) {
	list, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Error(err)
	}
	for _, name := range list {
		env, _ := os.ReadFile(name) // it may have ended, or be another user's
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil && bytes.Contains(env, []byte("NAMESPACE="+namespace+"\x00")) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// basics writes, reads, lists, renames and removes files: what any server and
// any mount can do.
func basics(t *testing.T, dir string) {
	t.Helper()
	sub := filepath.Join(dir, "sub")
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(os.Mkdir(sub, 0o755))
	b := make([]byte, 40*8000)
	for i := range b {
		b[i] = byte(i>>12 ^ i)
	}
	for i := range 40 {
		ok(os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%02d", i)), b[:i*8000], 0o644))
	}
	ok(os.Rename(filepath.Join(sub, "f39"), filepath.Join(sub, "last")))
	ok(os.Remove(filepath.Join(sub, "f00")))
	list, err := os.ReadDir(sub)
	ok(err)
	if len(list) != 39 || list[0].Name() != "f01" || list[38].Name() != "last" {
		t.Errorf("listed %v", list)
	}
	for i := 1; i < 39; i++ {
		got, err := os.ReadFile(filepath.Join(sub, fmt.Sprintf("f%02d", i)))
		if err != nil || !bytes.Equal(got, b[:i*8000]) {
			t.Errorf("f%02d: %d bytes, %v", i, len(got), err)
		}
	}
	ok(os.RemoveAll(sub))
}

// Test9pfuseOnPlan9Ramfs has 9pfuse mount plan9port's ramfs.
func Test9pfuseOnPlan9Ramfs(t *testing.T) {
	needFUSE(t)
	bin, env, namespace := plan9(t)
	sock := filepath.Join(namespace, "ramfs")
	cmd := exec.Command(filepath.Join(bin, "ramfs"), "-s")
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Run(); err != nil { // it goes on in the background
		t.Fatal(err)
	}
	basics(t, fuse(t, nil, program(t, "9pfuse"), sock))
}

// TestPlan9FuseOnStrata has plan9port's 9pfuse mount our server.
func TestPlan9FuseOnStrata(t *testing.T) {
	needFUSE(t)
	bin, env, _ := plan9(t)
	sock := serve(t, ninetest.NewMemFS(time.Now), "unix", filepath.Join(t.TempDir(), "9p")).String()
	basics(t, fuse(t, env, filepath.Join(bin, "9pfuse"), "unix!"+sock))
}

// TestQEMUOn9pfuse has QEMU's tools make, write, read, convert and check disks
// on a mount, with each of their cache modes: none and directsync open the file
// with O_DIRECT.
func TestQEMUOn9pfuse(t *testing.T) {
	needFUSE(t)
	for _, prog := range []string{"qemu-img", "qemu-io"} {
		if _, err := exec.LookPath(prog); err != nil {
			t.Skipf("no %s (package qemu-utils) here", prog)
		}
	}
	run := func(t *testing.T, prog string, args ...string) string {
		t.Helper()
		out, err := exec.Command(prog, args...).CombinedOutput()
		// qemu-io tells of a wrong pattern, and ends well.
		if err != nil || strings.Contains(string(out), "failed") {
			t.Fatalf("%s %q: %v: %s", prog, args, err, out)
		}
		return string(out)
	}
	for _, cache := range []string{"versions", "none"} {
		fs := ninetest.NewMemFS(time.Now)
		sock := serve(t, fs, "unix", filepath.Join(t.TempDir(), "9p")).String()
		args := []string{sock}
		if cache == "none" {
			args = []string{"-o", "cache=none", sock}
		}
		dir := fuse(t, nil, program(t, "9pfuse"), args...)
		for _, mode := range []string{"none", "directsync", "writethrough", "writeback", "unsafe"} {
			t.Run(cache+"/"+mode, func(t *testing.T) {
				raw, qcow, again := filepath.Join(dir, mode+".raw"), filepath.Join(dir, mode+".qcow2"), filepath.Join(dir, mode+".again")
				run(t, "qemu-img", "create", "-f", "raw", raw, "16M")
				out := run(t, "qemu-io", "-f", "raw", "-t", mode, "-c", "write -P 0xab 1M 320k", "-c", "write -P 0xcd 4096 512", "-c", "flush",
					"-c", "read -P 0xab 1M 320k", "-c", "read -P 0xcd 4096 512", "-c", "read -P 0 4608 1000k", raw)
				if n := strings.Count(out, "ops;"); n != 5 {
					t.Errorf("%d operations, want 5: %s", n, out)
				}
				// What was flushed is on the server.
				b := content(t, fs, mode+".raw")
				if len(b) != 16<<20 || bytes.Count(b[1<<20:1<<20+320<<10], []byte{0xab}) != 320<<10 || b[4096] != 0xcd || b[4095] != 0 {
					t.Errorf("the server has %d bytes, or others", len(b))
				}
				run(t, "qemu-img", "convert", "-t", mode, "-T", mode, "-f", "raw", "-O", "qcow2", raw, qcow)
				run(t, "qemu-img", "check", "-f", "qcow2", qcow)
				run(t, "qemu-img", "convert", "-t", mode, "-T", mode, "-f", "qcow2", "-O", "raw", qcow, again)
				run(t, "qemu-img", "compare", "-T", mode, "-f", "raw", "-F", "raw", raw, again)
			})
		}
	}
}

// content returns what a file of the tree's root holds.
func content(t *testing.T, fs *ninetest.MemFS, name string) []byte {
	t.Helper()
	ctx := t.Context()
	root, err := fs.Attach(ctx, "root", "")
	if err != nil {
		t.Fatal(err)
	}
	n, err := root.Walk(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	d, err := n.Stat(ctx)
	if err != nil {
		t.Fatal(err)
	}
	h, err := n.Open(ctx, ninep.OREAD)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(ctx)
	b := make([]byte, d.Length)
	if _, err := h.(ninep.Reader).ReadAt(ctx, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}
