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

func TestLinux(t *testing.T) {
	if list := qemu.Missing(); len(list) > 0 {
		t.Skipf("no %s here", strings.Join(list, ", "))
	}
	guest := filepath.Join(t.TempDir(), "guest")
	build := exec.Command("go", "build", "-o", guest, "./guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the guest's program: %v\n%s", err, out)
	}
	for seed, version := range []string{"6.1", "6.12"} {
		t.Run(version, func(t *testing.T) { testLinux(t, version, guest, seed) })
	}
}

func testLinux(t *testing.T, version, program string, seed int) {
	kernel, err := qemu.FindKernel(version)
	if err != nil {
		t.Skip(err)
	}
	if _, err := kernel.Modules("nbd"); err != nil {
		t.Skipf("no nbd among the modules that are unpacked (sh tests/deps.sh kernels): %v", err)
	}
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

	job, err := json.Marshal(map[string]any{
		"Addr": fmt.Sprintf("10.0.2.2:%d", ln.Addr().(*net.TCPAddr).Port), "Export": "disk", "Seed": seed, "Count": 200,
	})
	if err != nil {
		t.Fatal(err)
	}
	init, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	g := qemu.Guest{Kernel: kernel, Modules: []string{"virtio_pci", "virtio_net", "nbd"}, Files: map[string]qemu.File{
		"init":        {Mode: 0o100755, Data: init},
		"config.json": {Mode: 0o100644, Data: job},
	}}
	run, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	said := ""
	if err := g.Run(run, func(line string) { said += line + "\n" }); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("ok %x", sha256.Sum256(data)); strings.TrimSpace(said) != want {
		t.Errorf("the guest says %q; of the file it is %q", said, want)
	}
}
