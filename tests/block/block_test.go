// Package block has Linux's own NBD client, in guests, use our server.
package block

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strata/internal/ninep"
	"strata/tests/harness"
	"strata/tests/mount/qemu"
	"strata/vdisk/nbd"
)

// A fileDisk is a plain file, and the only export there is.
type fileDisk struct{ f *os.File }

func (d fileDisk) Open(_ context.Context, name string) (*nbd.Export, error) {
	if name != "disk" {
		return nil, fs.ErrNotExist
	}
	return &nbd.Export{Name: name, Disk: d}, nil
}

func (d fileDisk) List(context.Context) ([]nbd.Listing, error) { return nil, nil }

func (d fileDisk) Size() int64 {
	fi, err := d.f.Stat()
	if err != nil {
		panic(err)
	}
	return fi.Size()
}

func (d fileDisk) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return d.f.ReadAt(p, off)
}

func (d fileDisk) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	return d.f.WriteAt(p, off)
}

func (d fileDisk) Flush(context.Context) error { return d.f.Sync() }

func (d fileDisk) Trim(ctx context.Context, off, n int64) error {
	return d.Zero(ctx, off, n, nbd.Zeroing{})
}

func (d fileDisk) Zero(_ context.Context, off, n int64, how nbd.Zeroing) error {
	mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
	if how.Allocate {
		mode = unix.FALLOC_FL_ZERO_RANGE
	}
	for {
		if err := unix.Fallocate(int(d.f.Fd()), mode, off, n); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// A job is what the guest's program is told: see its Config.
type job struct {
	Addr, Export string
	Seed, Count  int
	Nine         *nine
}

type nine struct{ Source, Options, Image string }

// guestAddr is this machine's loopback to a guest.
const guestAddr = "10.0.2.2"

// inGuest has a guest do a job, and says which lines it prints.
func inGuest(t *testing.T, version string, j job, line func(string)) {
	t.Helper()
	if list := qemu.Missing(); len(list) > 0 {
		t.Skipf("no %s here", strings.Join(list, ", "))
	}
	kernel, err := qemu.FindKernel(version)
	if err != nil {
		t.Skip(err)
	}
	modules := []string{"virtio_pci", "virtio_net", "nbd"}
	if j.Nine != nil {
		modules = append(modules, "9pnet_fd", "9p")
	}
	if _, err := kernel.Modules(modules...); err != nil {
		t.Skipf("not all modules are unpacked (sh tests/deps.sh kernels): %v", err)
	}
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "guest")
	build := exec.Command("go", "build", "-o", program, "./guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the guest's program: %v\n%s", err, out)
	}
	init, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	g := qemu.Guest{Kernel: kernel, Modules: modules, Files: map[string]qemu.File{
		"init":        {Mode: 0o100755, Data: init},
		"config.json": {Mode: 0o100644, Data: text},
	}}
	run, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	if err := g.Run(run, line); err != nil {
		t.Fatal(err)
	}
}

func TestLinux(t *testing.T) {
	for seed, version := range []string{"6.1", "6.12"} {
		t.Run(version, func(t *testing.T) { testLinux(t, version, seed) })
	}
}

func testLinux(t *testing.T, version string, seed int) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(24 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("what was there ", 100000)), 5<<20); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { nbd.NewServer(fileDisk{f}, nbd.Config{}).Serve(ctx, ln) })
	defer wg.Wait()
	defer cancel()

	said := ""
	inGuest(t, version, job{
		Addr: fmt.Sprintf("%s:%d", guestAddr, ln.Addr().(*net.TCPAddr).Port), Export: "disk", Seed: seed, Count: 200,
	}, func(line string) { said += line + "\n" })
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("ok %x", sha256.Sum256(data)); strings.TrimSpace(said) != want {
		t.Errorf("the guest says %q; of the file it is %q", said, want)
	}
}

// TestLive has Linux use a live disk by its client of NBD and by that of 9P,
// alone and both at once, and see that it has grown when it connects anew. Then
// the server is killed.
func TestLive(t *testing.T) {
	versions := []string{"6.12"}
	if os.Getenv("STRATA_TRIAL") != "" {
		versions = append(versions, "6.1")
	}
	for seed, version := range versions {
		t.Run(version, func(t *testing.T) { testLive(t, version, seed) })
	}
}

func testLive(t *testing.T, version string, seed int) {
	ours, dir := harness.Ours(t), filepath.Join(t.TempDir(), "store")
	up := ours.Up(t, dir, "--size", "2", "--buffer", "1")
	up.Run(t, nil, "vdisk", "create", "vm/a", "24m")
	said := ""
	inGuest(t, version, job{
		Addr: fmt.Sprintf("%s:%d", guestAddr, harness.Relay(t, up.Sock("nbd"))), Export: "vm/a", Seed: seed, Count: 200,
		Nine: &nine{
			Source: guestAddr, Image: "images/vm/a",
			Options: fmt.Sprintf("trans=tcp,port=%d,version=9p2000.L,cache=none,uname=root,access=any", harness.Relay(t, up.Sock("vdisk"))),
		},
	}, func(line string) {
		if line == "grow" {
			if _, said, err := up.Try(t, nil, "vdisk", "resize", "vm/a", "30m"); err != nil {
				t.Errorf("resize: %v %s", err, said)
			}
			return
		}
		said += line + "\n"
	})
	up.Kill()
	up = ours.Up(t, dir)
	disk := harness.Open(t, up.Vdisk(t), "images/vm/a/disk", ninep.OREAD)
	defer disk.Close(t.Context())
	data := make([]byte, 30<<20)
	if _, err := disk.ReadAt(t.Context(), data, 0); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("ok %x", sha256.Sum256(data)); strings.TrimSpace(said) != want {
		t.Errorf("the guest says %q; of the disk it is %q", said, want)
	}
}
