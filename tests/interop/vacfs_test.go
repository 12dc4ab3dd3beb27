package interop

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"strata/tests/harness"
)

// serveVacfs runs our vacfs until the test ends, and returns its address.
func serveVacfs(t *testing.T, ventiAddr string, args ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vacfs")
	if err != nil {
		t.Fatal(err)
	}
	addr := "unix!" + filepath.Join(dir, "s")
	cmd := harness.Ours(t).Command(context.Background(), "vacfs", append([]string{"-h", ventiAddr, "-a", addr}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("vacfs: %v", err)
		}
		os.RemoveAll(dir)
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != addr+"\n" {
		t.Fatalf("vacfs printed %q, %v", line, err)
	}
	return addr
}

// mounted mounts a 9P server with our 9pfuse until the test ends.
func mounted(t *testing.T, addr, version string) (dir string) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no FUSE: %v", err)
	}
	f.Close()
	dir = t.TempDir()
	out, err := harness.Ours(t).Command(t.Context(), "9pfuse", "-o", "ro,version="+version, addr, dir).CombinedOutput()
	if err != nil && strings.Contains(string(out), "fusermount") {
		t.Skipf("mounting is not allowed: %s", out)
	}
	if err != nil {
		t.Fatalf("9pfuse: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		umount := exec.Command("umount", dir)
		if os.Geteuid() != 0 {
			umount = exec.Command("fusermount3", "-u", dir)
		}
		if out, err := umount.CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return dir
}

// sameTree compares all that lies in two folders: kind, permissions, time,
// contents. lost tells that targets of links are cut to 8 bytes, and the bits
// above permissions are lost.
func sameTree(t *testing.T, got, want string, lost bool) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(want, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(want, path)
		if err != nil {
			return err
		}
		n++
		other := filepath.Join(got, rel)
		var a, b syscall.Stat_t
		if err := syscall.Lstat(other, &a); err != nil {
			t.Errorf("%s: %v", rel, err)
			return nil
		}
		if err := syscall.Lstat(path, &b); err != nil {
			return err
		}
		if lost && e.Type()&fs.ModeSymlink != 0 && b.Size > 8 {
			return nil
		}
		mask := uint32(0o177777)
		if lost {
			mask &^= 0o7000
		}
		if e.Type()&fs.ModeSymlink != 0 {
			mask = 0o170000 // that of a link means nothing, and is its target's in plan9port's
		}
		if a.Mode&mask != b.Mode&mask || a.Mtim.Sec != b.Mtim.Sec && mask != 0o170000 || !e.IsDir() && a.Size != b.Size {
			t.Errorf("%s: mode %#o, time %d, size %d; want %#o, %d, %d", rel, a.Mode, a.Mtim.Sec, a.Size, b.Mode, b.Mtim.Sec, b.Size)
		}
		if a.Uid != b.Uid && e.Type().IsRegular() {
			t.Errorf("%s: of user %d, want %d", rel, a.Uid, b.Uid)
		}
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			x, err := os.Readlink(other)
			if y, _ := os.Readlink(path); x != y || err != nil {
				t.Errorf("%s: links to %q, %v, want %q", rel, x, err, y)
			}
		case e.Type().IsRegular() && b.Mode&0o400 != 0:
			if b.Size > 64<<20 {
				if out, err := exec.Command("cmp", other, path).CombinedOutput(); err != nil {
					t.Errorf("%s: %v, %s", rel, err, out)
				}
				return nil
			}
			got, err := os.ReadFile(other)
			want, err2 := os.ReadFile(path)
			if err != nil || err2 != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes differ from %d: %v, %v", rel, len(got), len(want), err, err2)
			}
		case e.IsDir():
			x, err := os.ReadDir(other)
			if y, _ := os.ReadDir(path); len(x) != len(y) || err != nil {
				t.Errorf("%s: %d entries, %v, want %d", rel, len(x), err, len(y))
			}
		}
		return nil
	})
	if err != nil || n < 10 {
		t.Fatalf("compared %d files: %v", n, err)
	}
}

// goldenTree unpacks the tree of the golden data into dir, as far as it is
// there and we may.
func goldenTree(t *testing.T, dir string) (ok bool) {
	t.Helper()
	shared := os.Getenv("STRATA_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	file := filepath.Join(shared, "golden", "tree.tar.gz")
	if _, err := os.Stat(file); err != nil || os.Geteuid() != 0 {
		return false
	}
	if out, err := exec.Command("tar", "-xzf", file, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return true
}

// TestVacfs mounts archives of either vac, through every client that there is.
func TestVacfs(t *testing.T) {
	for _, maker := range []func(testing.TB) harness.Suite{harness.Ours, harness.Plan9} {
		t.Run(map[bool]string{true: "theirs", false: "ours"}[fmt.Sprintf("%p", maker) == fmt.Sprintf("%p", harness.Plan9)], func(t *testing.T) {
			vac, ours := maker(t), harness.Ours(t)
			lost := vac.Name == "plan9port"
			work := t.TempDir()
			tree := filepath.Join(work, "tree")
			if !goldenTree(t, work) {
				makeTree(t, tree)
				if err := os.Symlink("d0/f0 and more", filepath.Join(tree, "link")); err != nil {
					t.Fatal(err)
				}
			}
			// Some hundred files more, of all sizes.
			source := filepath.Join(runtime.GOROOT(), "src", "net")
			if _, err := os.Stat(source); err != nil {
				t.Skipf("no source of Go: %v", err)
			}
			srv := ours.Serve(t, ours.Format(t, 32<<20, 8))
			small := vacIn(t, vac, srv.Addr, work, "tree")
			large := vacIn(t, vac, srv.Addr, filepath.Dir(source), "net")
			addr := serveVacfs(t, srv.Addr, "-p", "small="+small, "large="+large)
			for _, version := range []string{"9p2000.L", "9p2000.u"} {
				t.Run(version, func(t *testing.T) {
					dir := mounted(t, addr, version)
					sameTree(t, filepath.Join(dir, "small/tree"), tree, lost)
					sameTree(t, filepath.Join(dir, "large/net"), source, lost)
				})
			}
			const file = "http/server.go"
			want, err := os.ReadFile(filepath.Join(source, file))
			if err != nil {
				t.Fatal(err)
			}
			t.Run("diodcat", func(t *testing.T) {
				diodcat, err := exec.LookPath("diodcat")
				if err != nil {
					t.Skip("no diodcat (package diod)")
				}
				sock := strings.TrimPrefix(addr, "unix!")
				for _, aname := range []string{"/large", large} {
					got, err := exec.Command(diodcat, "-s", sock, "-a", aname, "net/"+file).Output()
					if err != nil || string(got) != string(want) {
						t.Errorf("%s: %d bytes, want %d: %v", aname, len(got), len(want), err)
					}
				}
			})
			t.Run("9p", func(t *testing.T) {
				theirs := harness.Plan9(t)
				if got := theirs.Run(t, nil, "9p", "-a", addr, "read", "large/net/"+file); got != string(want) {
					t.Errorf("read %d bytes, want %d", len(got), len(want))
				}
				if got := theirs.Run(t, nil, "9p", "-a", addr, "-A", large, "read", "net/"+file); got != string(want) {
					t.Errorf("by score: %d bytes, want %d", len(got), len(want))
				}
				if got := theirs.Run(t, nil, "9p", "-a", addr, "ls", "/"); got != "large\nsmall\n" {
					t.Errorf("ls: %q", got)
				}
				if out, msg, err := theirs.Try(t, []byte("x"), "9p", "-a", addr, "write", "large/net/"+file); err == nil {
					t.Errorf("written: %s%s", out, msg)
				}
			})
		})
	}
}
