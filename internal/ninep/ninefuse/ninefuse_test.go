package ninefuse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strata/internal/ninep"
	"strata/internal/ninep/ninefuse"
	"strata/internal/ninep/ninetest"
)

var dialects = []ninep.Dialect{ninep.Classic, ninep.Unix, ninep.Linux}

// mount shows fs at a new directory until the test ends, in a dialect.
func mount(t *testing.T, fs ninep.FS, d ninep.Dialect, cfg ninefuse.Config) string {
	t.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("no FUSE here: %v", err)
	} else {
		f.Close()
	}
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "9p"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- ninep.NewServer(fs, ninep.Config{}).Serve(ctx, ln) }()
	conn, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client, err := ninep.NewClient(ctx, conn, ninep.ClientConfig{Dialect: d, Users: ninep.HostUsers()})
	if err != nil {
		t.Fatal(err)
	}
	root, err := client.Attach(ctx, "root", "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m, err := ninefuse.Mount(dir, client, root, cfg)
	if errors.Is(err, syscall.EPERM) || err != nil && strings.Contains(err.Error(), "fusermount") {
		client.Close()
		cancel()
		<-served
		t.Skipf("mounting is not allowed here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
		m.Wait()
		client.Close()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFiles(t *testing.T) {
	for _, d := range dialects {
		t.Run(d.String(), func(t *testing.T) {
			fs := ninetest.NewMemFS(time.Now)
			dir := mount(t, fs, d, ninefuse.Config{})
			at := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
			ok := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			want := func(err, want error) {
				t.Helper()
				if !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			}
			content := func(name, want string) {
				t.Helper()
				b, err := os.ReadFile(at(name))
				if err != nil || string(b) != want {
					t.Errorf("%s: %q, %v, want %q", name, b, err, want)
				}
			}
			ok(os.WriteFile(at("a"), []byte("hello\n"), 0o640))
			content("a", "hello\n")
			st, err := os.Stat(at("a"))
			ok(err)
			if st.Mode() != 0o640 || st.Size() != 6 {
				t.Errorf("mode %v, size %d", st.Mode(), st.Size())
			}
			ok(os.Chmod(at("a"), 0o604))
			ok(os.Chtimes(at("a"), time.Unix(1, 0), time.Unix(12345, 0)))
			st, err = os.Stat(at("a"))
			ok(err)
			if st.Mode() != 0o604 || st.ModTime().Unix() != 12345 {
				t.Errorf("mode %v, mtime %v", st.Mode(), st.ModTime())
			}

			_, err = os.Stat(at("none"))
			want(err, syscall.ENOENT)
			_, err = os.Stat(at("a", "b"))
			want(err, syscall.ENOTDIR)
			_, err = os.OpenFile(at("a"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			want(err, syscall.EEXIST)
			want(os.Mkdir(at("a"), 0o700), syscall.EEXIST)
			ok(os.MkdirAll(at("d", "e"), 0o755))
			want(syscall.Rmdir(at("d")), syscall.ENOTEMPTY)
			want(syscall.Rmdir(at("a")), syscall.ENOTDIR)

			// Renaming: in place, over another, to another directory.
			ok(os.Rename(at("a"), at("b")))
			content("b", "hello\n")
			ok(os.WriteFile(at("c"), []byte("old"), 0o600))
			ok(os.Rename(at("b"), at("c")))
			content("c", "hello\n")
			_, err = os.Stat(at("b"))
			want(err, syscall.ENOENT)
			want(unix.Renameat2(unix.AT_FDCWD, at("d"), unix.AT_FDCWD, at("c"), unix.RENAME_NOREPLACE), syscall.EEXIST)
			err = os.Rename(at("c"), at("d", "c"))
			if d != ninep.Linux {
				want(err, syscall.EXDEV)
			} else {
				ok(err)
				content("d/c", "hello\n")
				ok(os.Rename(at("d"), at("D")))
				content("D/c", "hello\n")
				ok(os.Rename(at("D"), at("d")))
				ok(os.Rename(at("d", "c"), at("c")))
			}

			// Truncation, appending, writing far beyond the end.
			ok(os.Truncate(at("c"), 3))
			content("c", "hel")
			f, err := os.OpenFile(at("c"), os.O_APPEND|os.O_WRONLY, 0)
			ok(err)
			_, err = f.WriteString("p\n")
			ok(err)
			ok(f.Sync())
			ok(f.Close())
			content("c", "help\n")
			if fs.Syncs() == 0 {
				t.Error("fsync did not reach the tree")
			}
			ok(os.WriteFile(at("c"), nil, 0))
			content("c", "")

			// A file that is removed while it is open goes on to be one.
			f, err = os.OpenFile(at("c"), os.O_RDWR, 0)
			ok(err)
			_, err = f.WriteString("still here")
			ok(err)
			ok(os.Remove(at("c")))
			_, err = os.Stat(at("c"))
			want(err, syscall.ENOENT)
			b := make([]byte, 32)
			n, err := f.ReadAt(b, 0)
			if string(b[:n]) != "still here" || err != io.EOF {
				t.Errorf("removed file: %q, %v", b[:n], err)
			}
			ok(f.Close())

			if d == ninep.Classic {
				want(os.Symlink("x", at("l")), syscall.EOPNOTSUPP)
			} else {
				ok(os.Symlink("some/where", at("l")))
				to, err := os.Readlink(at("l"))
				if to != "some/where" {
					t.Errorf("link to %q, %v", to, err)
				}
				ok(syscall.Mkfifo(at("p"), 0o600))
				st, err := os.Lstat(at("p"))
				if err != nil || st.Mode()&os.ModeNamedPipe == 0 {
					t.Errorf("fifo: %v, %v", st, err)
				}
			}
			ok(os.WriteFile(at("f"), []byte("x"), 0o600))
			err = os.Link(at("f"), at("g"))
			if d == ninep.Linux {
				ok(err)
				content("g", "x")
				ok(unix.Setxattr(at("f"), "user.colour", []byte("blue"), 0))
				n, err := unix.Getxattr(at("g"), "user.colour", b)
				if err != nil || string(b[:n]) != "blue" {
					t.Errorf("xattr %q, %v", b[:n], err)
				}
				n, err = unix.Listxattr(at("f"), b)
				if err != nil || string(b[:n]) != "user.colour\x00" {
					t.Errorf("xattrs %q, %v", b[:n], err)
				}
				_, err = unix.Getxattr(at("f"), "user.colour", b[:2])
				want(err, syscall.ERANGE)
				ok(unix.Removexattr(at("f"), "user.colour"))
				_, err = unix.Getxattr(at("f"), "user.colour", b)
				want(err, syscall.ENODATA)
				var sfs unix.Statfs_t
				ok(unix.Statfs(dir, &sfs))
				if sfs.Namelen != 255 {
					t.Errorf("statfs %+v", sfs)
				}
			} else {
				want(err, syscall.EOPNOTSUPP)
			}
		})
	}
}

// TestDirectory lists one that needs many replies, with and without look-ups.
func TestDirectory(t *testing.T) {
	for _, d := range dialects {
		t.Run(d.String(), func(t *testing.T) {
			dir := mount(t, ninetest.NewMemFS(time.Now), d, ninefuse.Config{})
			var want []string
			for i := range 700 {
				name := fmt.Sprintf("file%05d%s", i, strings.Repeat("x", i%100))
				want = append(want, name)
				if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				entries, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, e := range entries {
					st, err := e.Info()
					if err != nil || st.Size() != int64(len(e.Name())) {
						t.Fatal(e.Name(), st, err)
					}
					got = append(got, e.Name())
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%d names, want %d", len(got), len(want))
				}
			}
		})
	}
}

// TestContents does the same random things to a file of the mount and one of
// this machine, through several descriptors, and compares.
func TestContents(t *testing.T) {
	for _, cache := range []string{ninefuse.CacheVersions, ninefuse.CacheNone, ninefuse.CacheLoose} {
		t.Run("cache="+cache, func(t *testing.T) {
			dir := mount(t, ninetest.NewMemFS(time.Now), ninep.Linux, ninefuse.Config{Cache: cache})
			const seed, most = 1, 3 << 20
			rnd := rand.New(rand.NewPCG(seed, 0))
			open := func(name string, flags int) *os.File {
				f, err := os.OpenFile(name, os.O_RDWR|flags, 0o600)
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
			name, local := filepath.Join(dir, "f"), filepath.Join(t.TempDir(), "f")
			ours, theirs := open(name, os.O_CREATE), open(local, os.O_CREATE)
			defer func() { ours.Close(); theirs.Close() }()
			both := func(f func(*os.File) error) {
				t.Helper()
				if a, b := f(ours), f(theirs); (a == nil) != (b == nil) {
					t.Fatalf("seed %d: %v, want %v", seed, a, b)
				}
			}
			for i := range 400 {
				off := rnd.Int64N(most)
				switch k := rnd.IntN(10); {
				case k < 4:
					b := make([]byte, rnd.IntN(200<<10))
					for i := range b {
						b[i] = byte(rnd.Uint32())
					}
					both(func(f *os.File) error { _, err := f.WriteAt(b, off); return err })
				case k < 8:
					var got [2][]byte
					n := rnd.IntN(300 << 10)
					for i, f := range []*os.File{ours, theirs} {
						b := make([]byte, n)
						n, err := f.ReadAt(b, off)
						if err != nil && err != io.EOF {
							t.Fatal(err)
						}
						got[i] = b[:n]
					}
					if !bytes.Equal(got[0], got[1]) {
						t.Fatalf("seed %d, operation %d: read of %d at %d differs: %d and %d bytes", seed, i, n, off, len(got[0]), len(got[1]))
					}
				case k == 8:
					both(func(f *os.File) error { return f.Truncate(off) })
				default:
					ours.Close()
					theirs.Close()
					ours, theirs = open(name, 0), open(local, 0)
				}
			}
			a, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(local)
			if err != nil || !bytes.Equal(a, b) {
				t.Fatalf("seed %d: files differ: %d and %d bytes, %v", seed, len(a), len(b), err)
			}
		})
	}
}

// mapEnv names the file that TestMmap, run as a process of its own, maps.
const mapEnv = "NINEFUSE_MAP"

// TestMmap writes through a shared mapping, and reads the file. A process of
// its own has the mapping: one that serves the tree too stops for good when the
// collector of garbage waits for a thread that waits for a page.
func TestMmap(t *testing.T) {
	if name := os.Getenv(mapEnv); name != "" {
		writeMapped(t, name)
		return
	}
	name := filepath.Join(mount(t, ninetest.NewMemFS(time.Now), ninep.Linux, ninefuse.Config{}), "m")
	cmd := exec.Command(os.Args[0], "-test.run=^TestMmap$")
	cmd.Env = append(os.Environ(), mapEnv+"="+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(name)
	if err != nil || len(b) != 1<<16 || string(b[40000:40006]) != "mapped" {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func writeMapped(t *testing.T, name string) {
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 16); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	copy(m[40000:], "mapped")
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		t.Fatal(err)
	}
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
}

// TestDirect opens a file as QEMU does with cache=none.
func TestDirect(t *testing.T) {
	dir := mount(t, ninetest.NewMemFS(time.Now), ninep.Linux, ninefuse.Config{})
	name := filepath.Join(dir, "disk")
	if err := os.WriteFile(name, bytes.Repeat([]byte("strata"), 1<<14), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(page)
	copy(page, "direct")
	if n, err := unix.Pwrite(fd, page, 8192); n != 4096 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := unix.Pread(fd, page, 8192); n != 4096 || err != nil || string(page[:6]) != "direct" {
		t.Fatalf("%d, %v, %q", n, err, page[:6])
	}
}

// TestMade reads files that are made as they are read, and have no length.
func TestMade(t *testing.T) {
	var mu sync.Mutex
	count := 0
	fs := ninep.NewDir(ninep.Dir{Name: "/", Mode: 0o555}, map[string]ninep.Node{
		"count": ninep.NewText(ninep.Dir{Name: "count", Mode: 0o444, Qid: ninep.Qid{Path: 2}}, func(context.Context) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			count++
			return fmt.Sprintf("%d\n", count), nil
		}),
	})
	dir := mount(t, static{fs}, ninep.Linux, ninefuse.Config{})
	for last := 0; last < 20; {
		b, err := os.ReadFile(filepath.Join(dir, "count"))
		if err != nil {
			t.Fatal(err)
		}
		was := last
		if _, err := fmt.Sscanf(string(b), "%d\n", &last); err != nil || last <= was {
			t.Fatalf("%q after %d: %v", b, was, err)
		}
	}
}

// static is a tree with one root for all.
type static struct{ root ninep.Node }

func (s static) Attach(context.Context, string, string) (ninep.Node, error) { return s.root, nil }

// TestInterrupt signals a thread that reads what never comes: from a file that
// is made up as it is read any signal ends that, from another one only that
// which ends the process.
func TestInterrupt(t *testing.T) {
	blocked := make(chan struct{}, 8)
	tree := ninep.NewDir(ninep.Dir{Name: "/", Mode: 0o555}, map[string]ninep.Node{
		"event": event{blocked},
		"disk":  ninep.NewFile(ninep.Dir{Name: "disk", Mode: 0o444, Length: 1 << 20, Qid: ninep.Qid{Path: 3}}, waiting(blocked)),
	})
	dir := mount(t, static{tree}, ninep.Linux, ninefuse.Config{Cache: ninefuse.CacheNone})
	f, err := os.Open(filepath.Join(dir, "event"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var tid int
	ready, result := make(chan struct{}), make(chan error, 1)
	go func() {
		// A signal must find the thread that reads.
		runtime.LockOSThread()
		tid = unix.Gettid()
		close(ready)
		_, err := unix.Pread(int(f.Fd()), make([]byte, 10), 0)
		result <- err
	}()
	<-ready
	<-blocked
	// SIGURG is what the runtime sends its threads too, and takes no notice of.
	if err := unix.Tgkill(os.Getpid(), tid, unix.SIGURG); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != unix.EINTR {
		t.Errorf("read ended with %v, want %v", err, unix.EINTR)
	}
	f.Close()

	cmd := exec.Command("sh", "-c", `trap : USR1; exec dd bs=10 count=1 <"$1"`, "sh", filepath.Join(dir, "disk"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-blocked
	// dd prints statistics and goes on; then it ends.
	for _, sig := range []os.Signal{syscall.SIGUSR1, syscall.SIGTERM} {
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("dd ended with %v", err)
	}
}

// An event is a file without a length, and its own handle.
type event struct{ waiting }

func (e event) Qid() ninep.Qid                                             { return ninep.Qid{Path: 2} }
func (e event) Walk(context.Context, string) (ninep.Node, error)           { return nil, ninep.ErrNotDir }
func (e event) Open(context.Context, ninep.OpenMode) (ninep.Handle, error) { return e, nil }
func (e event) Close(context.Context) error                                { return nil }
func (e event) Stat(context.Context) (ninep.Dir, error) {
	return ninep.Dir{Name: "event", Mode: 0o444, Qid: e.Qid()}, nil
}

// waiting is a Reader that tells of each read, which lasts until it is given
// up.
type waiting chan struct{}

func (w waiting) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	w <- struct{}{}
	<-ctx.Done()
	return 0, ctx.Err()
}

// TestParallel has many use many files at once.
func TestParallel(t *testing.T) {
	dir := mount(t, ninetest.NewMemFS(time.Now), ninep.Linux, ninefuse.Config{})
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for j := range 25 {
				name := filepath.Join(dir, fmt.Sprintf("f%d", (i+j)%5))
				tmp := fmt.Sprintf("%s.%d", name, i)
				data := bytes.Repeat([]byte{byte(i)}, 10000)
				if err := os.WriteFile(tmp, data, 0o600); err != nil {
					t.Error(err)
					return
				}
				if err := os.Rename(tmp, name); err != nil {
					t.Error(err)
					return
				}
				b, err := os.ReadFile(name)
				if err != nil || len(b) != len(data) || bytes.Count(b, b[:1]) != len(b) {
					t.Errorf("%s: %d bytes, %v", name, len(b), err)
				}
			}
		})
	}
	wg.Wait()
}
