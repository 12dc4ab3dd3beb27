package vdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"strata/venti"
)

// A Source is a disk to import.
type Source interface {
	// ReadAt is called by several goroutines at once. A read that ends
	// before Size is an error of the import.
	io.ReaderAt

	// Size returns the bytes of the disk. It does not change.
	Size() int64

	// NextData returns the first range at or after off that may hold
	// something besides zeros, or io.EOF when only holes follow. It is
	// called by several goroutines at once.
	NextData(off int64) (start, end int64, err error)
}

// A checkedSource is a Source that can tell, when an import has read it all,
// whether it stayed the same meanwhile.
type checkedSource interface {
	Unchanged() error
}

// A Disk is a raw image in a file or on a block device. Holes of a sparse
// file are never read.
type Disk struct {
	f       *os.File
	size    int64
	regular bool
	mtime   time.Time

	// last is the range of data found last: a fragmented file system asks
	// for many pieces of each.
	last atomic.Pointer[[2]int64]
}

// OpenDisk opens the file or block device for reading.
func OpenDisk(name string) (*Disk, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	d, err := newDisk(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

func newDisk(f *os.File) (*Disk, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	d := &Disk{f: f, size: fi.Size(), mtime: fi.ModTime(), regular: fi.Mode().IsRegular()}
	switch {
	case d.regular:
	case fi.Mode()&os.ModeDevice != 0 && fi.Mode()&os.ModeCharDevice == 0:
		if d.size, err = f.Seek(0, io.SeekEnd); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%s: neither a regular file nor a block device", f.Name())
	}
	return d, nil
}

// Close closes the file.
func (d *Disk) Close() error { return d.f.Close() }

// Size returns the bytes of the disk when it was opened.
func (d *Disk) Size() int64 { return d.size }

// ReadAt reads as io.ReaderAt does.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) { return d.f.ReadAt(p, off) }

// NextData returns the first range at or after off that is not a hole. A
// file system or device that does not know its holes has none.
func (d *Disk) NextData(off int64) (start, end int64, err error) {
	if off >= d.size {
		return 0, 0, io.EOF
	}
	if !d.regular {
		return off, d.size, nil
	}
	if r := d.last.Load(); r != nil && r[0] <= off && off < r[1] {
		return off, r[1], nil
	}
	// The file offset that lseek moves is used by nobody: reads are preads.
	start, err = seek(d.f, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		// No data after off. A file that shrank says so too: Unchanged
		// tells the two apart.
		return 0, 0, io.EOF
	case errors.Is(err, unix.EINVAL):
		return off, d.size, nil
	case err != nil:
		return 0, 0, err
	}
	end, err = seek(d.f, start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) { // it shrank between the two calls
		return 0, 0, fmt.Errorf("%s: became shorter while it was read", d.f.Name())
	}
	if err != nil {
		return 0, 0, err
	}
	if start >= d.size { // it has grown, which Unchanged will say
		return 0, 0, io.EOF
	}
	end = min(end, d.size)
	d.last.Store(&[2]int64{start, end})
	return start, end, nil
}

func seek(f *os.File, off int64, whence int) (n int64, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := c.Control(func(fd uintptr) { n, err = unix.Seek(int(fd), off, whence) })
	if cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, &os.PathError{Op: "seek", Path: f.Name(), Err: err}
	}
	return n, nil
}

// Unchanged returns an error if the file was written to or changed its
// length since it was opened. It cannot tell about a device.
func (d *Disk) Unchanged() error {
	if !d.regular {
		return nil
	}
	fi, err := d.f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() != d.size {
		return fmt.Errorf("%s: changed from %d to %d bytes while it was read", d.f.Name(), d.size, fi.Size())
	}
	if !fi.ModTime().Equal(d.mtime) {
		return fmt.Errorf("%s: was written to while it was read", d.f.Name())
	}
	return nil
}

// spoolBlock is the unit in which Spool finds zeros: the block of the usual
// file systems, below which they cannot make holes.
const spoolBlock = 4096

// Spool copies a stream to a nameless file in the directory dir (os.TempDir
// if empty) with holes where the stream has blocks of zeros, so that it can be
// imported: file systems are not read from front to back. Closing the Disk
// lets go of the space. progress, if not nil, is told how far it is.
func Spool(ctx context.Context, r io.Reader, dir string, progress func(bytes int64)) (*Disk, error) {
	f, err := os.CreateTemp(dir, "vdisk-*")
	if err != nil {
		return nil, err
	}
	d, err := spool(ctx, f, r, progress)
	// It goes when the descriptor does, whatever happens to the program.
	if rmErr := os.Remove(f.Name()); err == nil {
		err = rmErr
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("spool: %w", err)
	}
	return d, nil
}

func spool(ctx context.Context, f *os.File, r io.Reader, progress func(int64)) (*Disk, error) {
	buf := make([]byte, 1<<20)
	size := int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := io.ReadFull(r, buf)
		if werr := writeSparse(f, buf[:n], size); werr != nil {
			return nil, werr
		}
		size += int64(n)
		if progress != nil {
			progress(size)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	return newDisk(f)
}

// writeSparse writes p at off, a multiple of spoolBlock, without its blocks
// of zeros. Blocks that are not zero go in runs.
func writeSparse(w io.WriterAt, p []byte, off int64) error {
	run := 0 // start of the run of blocks not yet written
	for i := 0; i < len(p); {
		n := min(spoolBlock, len(p)-i)
		if len(venti.Truncate(venti.DataType, p[i:i+n])) > 0 {
			i += n
			continue
		}
		if err := writeRun(w, p[run:i], off+int64(run)); err != nil {
			return err
		}
		i += n
		run = i
	}
	return writeRun(w, p[run:], off+int64(run))
}

func writeRun(w io.WriterAt, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	_, err := w.WriteAt(p, off)
	return err
}
