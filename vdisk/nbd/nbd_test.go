package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"strata/vdisk/nbd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A memDisk is a disk in memory. Before a call does anything, hook, if there
// is one, is told of it and may fail it.
type memDisk struct {
	hook func(ctx context.Context, op string, off int64, n int) error

	mu      sync.Mutex // guards the fields below
	data    []byte
	flushes int
}

func (d *memDisk) begin(ctx context.Context, op string, off int64, n int) error {
	if d.hook != nil {
		if err := d.hook(ctx, op, off, n); err != nil {
			return err
		}
	}
	d.mu.Lock()
	return nil
}

func (d *memDisk) Size() int64 { return int64(len(d.data)) }

func (d *memDisk) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := d.begin(ctx, "read", off, len(p)); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	return copy(p, d.data[off:]), nil
}

func (d *memDisk) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := d.begin(ctx, "write", off, len(p)); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	return copy(d.data[off:], p), nil
}

func (d *memDisk) Flush(ctx context.Context) error {
	if err := d.begin(ctx, "flush", 0, 0); err != nil {
		return err
	}
	defer d.mu.Unlock()
	d.flushes++
	return nil
}

// NextData finds data in units of 512 bytes.
func (d *memDisk) NextData(ctx context.Context, off int64) (start, end int64, err error) {
	if err := d.begin(ctx, "find", off, 0); err != nil {
		return 0, 0, err
	}
	defer d.mu.Unlock()
	size := int64(len(d.data))
	zero := func(at int64) bool {
		p := d.data[at:min(at/512*512+512, size)]
		return bytes.Equal(p, zeros[:len(p)])
	}
	for off < size && zero(off) {
		off = off/512*512 + 512
	}
	if off >= size {
		return 0, 0, io.EOF
	}
	for end = off; end < size && !zero(end); {
		end = end/512*512 + 512
	}
	return off, min(end, size), nil
}

var zeros [512]byte

// A richDisk is a memDisk with all abilities.
type richDisk struct{ memDisk }

func (d *richDisk) Trim(ctx context.Context, off, n int64) error {
	return d.Zero(ctx, off, n, nbd.Zeroing{})
}

func (d *richDisk) Zero(ctx context.Context, off, n int64, how nbd.Zeroing) error {
	if how.Fast && how.Allocate {
		return nbd.ErrNotFast
	}
	if err := d.begin(ctx, "zero", off, int(n)); err != nil {
		return err
	}
	defer d.mu.Unlock()
	clear(d.data[off : off+n])
	return nil
}

func (d *richDisk) ReadCached(p []byte, off int64) (int, bool) {
	if d.hook != nil && d.hook(context.Background(), "cached", off, len(p)) != nil {
		return 0, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(p, d.data[off:]), true
}

// A fileDisk is a plain file.
type fileDisk struct{ f *os.File }

func openFile(t testing.TB, name string) *fileDisk {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &fileDisk{f}
}

func (d *fileDisk) Size() int64 {
	fi, err := d.f.Stat()
	if err != nil {
		panic(err)
	}
	return fi.Size()
}

func (d *fileDisk) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return d.f.ReadAt(p, off)
}

func (d *fileDisk) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	return d.f.WriteAt(p, off)
}

func (d *fileDisk) Flush(context.Context) error {
	return ignoringEINTR(func() error { return unix.Fdatasync(int(d.f.Fd())) })
}

func (d *fileDisk) Trim(ctx context.Context, off, n int64) error {
	return d.Zero(ctx, off, n, nbd.Zeroing{})
}

func (d *fileDisk) Zero(_ context.Context, off, n int64, how nbd.Zeroing) error {
	mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
	if how.Allocate {
		mode = unix.FALLOC_FL_ZERO_RANGE
	}
	return ignoringEINTR(func() error { return unix.Fallocate(int(d.f.Fd()), mode, off, n) })
}

func (d *fileDisk) NextData(_ context.Context, off int64) (start, end int64, err error) {
	if start, err = unix.Seek(int(d.f.Fd()), off, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err == nil {
		end, err = unix.Seek(int(d.f.Fd()), start, unix.SEEK_HOLE)
	}
	return start, end, err
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// exports are disks by name.
type exports map[string]*nbd.Export

func (x exports) Open(_ context.Context, name string) (*nbd.Export, error) {
	if name == "broken" {
		return nil, fmt.Errorf("open %q: %w", name, syscall.EIO)
	}
	if name == "secret" {
		return nil, fmt.Errorf("open %q: %w", name, fs.ErrPermission)
	}
	e := x[name]
	if e == nil {
		return nil, fmt.Errorf("export %q: %w", name, fs.ErrNotExist)
	}
	c := *e
	if c.Name == "" {
		c.Name = name
	}
	return &c, nil
}

func (x exports) List(context.Context) ([]nbd.Listing, error) {
	var list []nbd.Listing
	for _, name := range []string{"", "disk", "file"} {
		if e := x[name]; e != nil {
			list = append(list, nbd.Listing{Name: name, Description: e.Description})
		}
	}
	return list, nil
}

// serve serves x on a socket until the test ends, or stop is called, and
// returns the socket's name.
func serve(t testing.TB, x nbd.Exports, cfg nbd.Config) (addr string, stop func()) {
	t.Helper()
	// Names of sockets are short, those of tests are not.
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	addr = filepath.Join(dir, "s")
	ln, err := net.Listen("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	stop = serveOn(t, x, cfg, ln)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return addr, stop
}

func serveOn(t testing.TB, x nbd.Exports, cfg nbd.Config, ln net.Listener) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := nbd.NewServer(x, cfg).Serve(ctx, ln); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); wg.Wait() }) }
	t.Cleanup(stop)
	return stop
}
