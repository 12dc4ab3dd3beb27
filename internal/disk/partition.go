package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrInUse is why a partition that another program, or another File of this
// one, has locked cannot be opened.
var ErrInUse = errors.New("in use by another program")

// Options say how Open opens a partition.
type Options struct {
	ReadOnly bool // refuse writes; others may read at the same time

	// Unlocked, with ReadOnly, takes no lock: somebody may be writing what is
	// read, and the reader knows which bytes of it stay as they are.
	Unlocked bool
}

// A Partition is a File of the machine: a file or block device, or a part of
// one. Its bytes are locked from Open to Close.
//
// The lock is an open file description lock (fcntl(2), F_OFD_SETLK) on
// exactly the partition's bytes: shared for readers, exclusive for a writer.
// flock(2) would lock the whole file, so that a server could not hold two
// partitions of one disk; a process's own record locks would let it open the
// same bytes twice, and would be dropped when it closed any descriptor of the
// file. This one goes when the description does, also at a kill. Programs
// that take no lock, as Plan 9's do not, are not kept out.
type Partition struct {
	name     string
	f        *os.File
	lo, size int64
	readOnly bool
	broken   sticky
}

// Open opens the partition that name tells:
//
//	file            the whole file       file:lo-hi   bytes lo up to hi
//	file:-hi        0 up to hi           file:lo-     lo to the end; file:lo is the same
//	file:part       the sub-partition called part in the file's Plan 9 table
//
// Numbers are ParseSize's; a hi of 0 is the end. The name is cut at its last
// colon, unless a file with all of the name exists. The error is ErrInUse
// when the range overlaps one that is open.
func Open(name string, o Options) (*Partition, error) {
	file, rng, ranged := splitName(name)
	if ranged {
		if _, err := os.Stat(name); err == nil {
			file, ranged = name, false
		}
	}
	mode := os.O_RDWR
	if o.ReadOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return nil, fmt.Errorf("open partition: %w", err)
	}
	p := &Partition{name: name, f: f, readOnly: o.ReadOnly}
	if err := p.open(rng, ranged, o); err != nil {
		f.Close()
		return nil, fmt.Errorf("open partition %s: %w", name, err)
	}
	return p, nil
}

// open finds the bytes of p in its file, and locks them as o says.
func (p *Partition) open(rng string, ranged bool, o Options) error {
	fi, err := p.f.Stat()
	if err != nil {
		return err
	}
	if m := fi.Mode(); !m.IsRegular() && (m&os.ModeDevice == 0 || m&os.ModeCharDevice != 0) {
		return errors.New("neither a file nor a block device")
	}
	hi, err := p.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	switch {
	case !ranged:
	case rng != "" && (rng[0]|0x20 >= 'a' && rng[0]|0x20 <= 'z'):
		p.lo, hi, err = plan9Part(p.f, rng, hi)
	default:
		p.lo, hi, err = parseRange(rng, hi)
	}
	if err != nil {
		return err
	}
	if p.size = hi - p.lo; p.size == 0 {
		return errors.New("empty") // and a lock of length 0 would lock to the end of time
	}
	if p.readOnly && o.Unlocked {
		return nil
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: p.lo, Len: p.size}
	if p.readOnly {
		lock.Type = unix.F_RDLCK
	}
	err = unix.FcntlFlock(p.f.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrInUse
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

// Create makes a file of size zero bytes, which must not exist yet, and
// syncs its directory. The file is sparse.
func Create(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = SyncDir(filepath.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	return nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Name returns the name that p was opened by.
func (p *Partition) Name() string { return p.name }

// Size returns the number of bytes in p.
func (p *Partition) Size() int64 { return p.size }

// ReadAt implements io.ReaderAt, except that a range past the end is an
// error at once.
func (p *Partition) ReadAt(b []byte, off int64) (int, error) {
	if err := checkRange(p.name, "read", off, len(b), p.size); err != nil {
		return 0, err
	}
	n, err := p.f.ReadAt(b, p.lo+off)
	if n == len(b) {
		return n, nil
	}
	return n, fmt.Errorf("%s: read of %d bytes at %d: %w", p.name, len(b), off, unwrapPath(err))
}

// WriteAt implements io.WriterAt.
func (p *Partition) WriteAt(b []byte, off int64) (int, error) {
	if err := checkRange(p.name, "write", off, len(b), p.size); err != nil {
		return 0, err
	}
	if p.readOnly {
		return 0, fmt.Errorf("%s: write: opened for reading", p.name)
	}
	if err := p.broken.err(); err != nil {
		return 0, err
	}
	n, err := p.f.WriteAt(b, p.lo+off)
	if err != nil {
		return n, p.broken.failWrite(fmt.Errorf("%s: write of %d bytes at %d: %w", p.name, len(b), off, unwrapPath(err)))
	}
	return n, nil
}

// Sync returns when what was written before is on stable storage, or else
// the first error of a write or a sync of p. It is fdatasync(2): no format
// of ours depends on a file's times.
func (p *Partition) Sync() error {
	if err := p.broken.err(); err != nil || p.readOnly {
		return err
	}
	for {
		switch err := unix.Fdatasync(int(p.f.Fd())); err {
		case nil:
			return p.broken.err()
		case unix.EINTR:
		default:
			return p.broken.failSync(p.name, err)
		}
	}
}

// Close gives the lock up and closes the file. It does not sync.
func (p *Partition) Close() error { return p.f.Close() }

// unwrapPath drops the verb and path of an *os.PathError, which our errors
// say themselves.
func unwrapPath(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}
