package workload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// An exerciser does random things to one file and to its image in memory,
// after fsx(8) of other systems: read, write, map, truncate, append, punch,
// copy, sync, close and open again, at random places.
type exerciser struct {
	r     *run
	rnd   *rand.Rand
	name  string
	f     *os.File
	image []byte
	log   []string // what was done last
}

const (
	fsxMost = 300 << 10 // bytes of the file
	fsxOne  = 90 << 10  // bytes of one operation: some messages
)

func fsx(r *run) error {
	x := &exerciser{r: r, rnd: rand.New(rand.NewPCG(r.Seed, 1)), name: filepath.Join(r.dir, "fsx")}
	var err error
	if x.f, err = os.OpenFile(x.name, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	defer func() { x.f.Close() }()
	for i := range 150 * r.Scale {
		if err := x.step(); err != nil {
			return fmt.Errorf("operation %d: %w\n%q", i, err, x.log)
		}
	}
	if err := x.f.Close(); err != nil {
		return err
	}
	return wantFile(x.name, x.image)
}

// note remembers the operation.
func (x *exerciser) note(format string, args ...any) {
	x.log = append(x.log[max(0, len(x.log)-11):], fmt.Sprintf(format, args...))
}

// place returns a range; inside says that it ends within the file, unless
// that is empty.
func (x *exerciser) place(inside bool) (off int64, n int) {
	most := fsxMost
	if inside {
		most = len(x.image)
	}
	if most == 0 {
		return 0, 0
	}
	off = x.rnd.Int64N(int64(most))
	n = 1 + x.rnd.IntN(min(fsxOne, most-int(off)))
	if x.rnd.IntN(4) == 0 { // whole pages, which are treated otherwise
		off &^= 4095
		n = min((n+4095)&^4095, most-int(off))
	}
	return off, n
}

// noise returns n bytes that no other operation writes.
func (x *exerciser) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(x.rnd.Uint32())
	}
	return b
}

// put is what a write does to the image.
func (x *exerciser) put(b []byte, off int64) {
	x.resize(max(len(x.image), int(off)+len(b)))
	copy(x.image[off:], b)
}

func (x *exerciser) resize(n int) {
	if n <= len(x.image) {
		x.image = x.image[:n:n]
	} else {
		x.image = append(x.image, make([]byte, n-len(x.image))...)
	}
}

func (x *exerciser) step() error {
	switch k := x.rnd.IntN(100); {
	case k < 24:
		return x.read()
	case k < 50:
		off, n := x.place(false)
		x.note("write %d at %d", n, off)
		b := x.noise(n)
		if _, err := x.f.WriteAt(b, off); err != nil {
			return err
		}
		x.put(b, off)
	case k < 60:
		off, n := x.place(true)
		if n == 0 {
			return nil
		}
		x.note("map to read %d at %d", n, off)
		return x.r.withMap(x.f, off, n, unix.PROT_READ, func(m []byte) error {
			if part := x.image[off : off+int64(n)]; !bytes.Equal(m, part) {
				return fmt.Errorf("mapped %d at %d: %s", n, off, difference(m, part))
			}
			return nil
		})
	case k < 70:
		if !x.r.Can.Map {
			return x.read()
		}
		return x.writeMapped()
	case k < 78:
		size := x.rnd.Int64N(fsxMost)
		x.note("truncate from %d to %d", len(x.image), size)
		if err := x.f.Truncate(size); err != nil {
			return err
		}
		x.resize(int(size))
	case k < 83:
		b := x.noise(1 + x.rnd.IntN(20000))
		x.note("append %d at %d", len(b), len(x.image))
		f, err := os.OpenFile(x.name, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		x.put(b, int64(len(x.image)))
	case k < 87:
		x.note("sync")
		return x.f.Sync()
	case k < 91:
		off, n := x.place(true)
		if n == 0 {
			return nil
		}
		x.note("punch %d at %d", n, off)
		err := unix.Fallocate(int(x.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, int64(n))
		if err == nil {
			clear(x.image[off : off+int64(n)])
		} else if err != syscall.EOPNOTSUPP && err != syscall.ENOSYS {
			return err
		}
	case k < 94:
		return x.copyRange()
	default:
		x.note("close and open")
		if err := x.f.Close(); err != nil {
			return err
		}
		var err error
		x.f, err = os.OpenFile(x.name, os.O_RDWR, 0)
		return err
	}
	return x.sizes()
}

// sizes compares the length.
func (x *exerciser) sizes() error {
	st, err := x.f.Stat()
	if err == nil && st.Size() != int64(len(x.image)) {
		err = fmt.Errorf("%d bytes long, want %d", st.Size(), len(x.image))
	}
	return err
}

func (x *exerciser) read() error {
	off, n := x.place(false)
	x.note("read %d at %d", n, off)
	b := make([]byte, n)
	n, err := x.f.ReadAt(b, off)
	if err != nil && err != io.EOF {
		return err
	}
	var part []byte
	if off < int64(len(x.image)) {
		part = x.image[off:min(len(x.image), int(off)+len(b))]
	}
	if !bytes.Equal(b[:n], part) {
		return fmt.Errorf("read %d at %d: %s", len(b), off, difference(b[:n], part))
	}
	return nil
}

func (x *exerciser) writeMapped() error {
	off, n := x.place(false)
	if end := off + int64(n); end > int64(len(x.image)) {
		if err := x.f.Truncate(end); err != nil { // beyond the end there is no page
			return err
		}
		x.resize(int(end))
	}
	x.note("map to write %d at %d", n, off)
	b := x.noise(n)
	err := x.r.withMap(x.f, off, n, unix.PROT_READ|unix.PROT_WRITE, func(m []byte) error {
		copy(m, b)
		return nil
	})
	if err != nil {
		return err
	}
	x.put(b, off)
	return x.sizes()
}

// copyRange copies within the file, to another place.
func (x *exerciser) copyRange() error {
	from, n := x.place(true)
	to := x.rnd.Int64N(fsxMost)
	if n == 0 || to < from+int64(n) && from < to+int64(n) {
		return nil
	}
	x.note("copy %d from %d to %d", n, from, to)
	for n > 0 {
		src, dst := from, to
		m, err := unix.CopyFileRange(int(x.f.Fd()), &src, int(x.f.Fd()), &dst, n, 0)
		if err != nil || m <= 0 {
			return fmt.Errorf("copy_file_range: %d, %w", m, err)
		}
		x.put(bytes.Clone(x.image[from:from+int64(m)]), to)
		from, to, n = from+int64(m), to+int64(m), n-m
	}
	return x.sizes()
}
