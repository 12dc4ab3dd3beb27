package vac

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os/user"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"strata/vac/meta"
)

// A hostFile is a regular file that is open for reading. Its reads may be at
// once.
type hostFile struct {
	fd    int
	short atomic.Bool           // a read met the end of the file
	err   atomic.Pointer[error] // of a read that failed
}

// openHost opens the regular file called name in the directory dir. Reading
// it does not change its time of access where the system allows that.
func openHost(dir int, name string) (*hostFile, unix.Stat_t, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	var st unix.Stat_t
	fd, err := openat(dir, name, flags|unix.O_NOATIME)
	if err == unix.EPERM { // not the owner
		fd, err = openat(dir, name, flags)
	}
	if err != nil {
		return nil, st, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, st, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, st, unix.ENOENT // another file has taken its name
	}
	return &hostFile{fd: fd}, st, nil
}

func openat(dir int, name string, flags int) (fd int, err error) {
	for {
		if fd, err = unix.Openat(dir, name, flags, 0); err != unix.EINTR {
			return fd, err
		}
	}
}

// sized tells whether the file still says that it is as long as st.
func (f *hostFile) sized(st *unix.Stat_t) bool {
	var now unix.Stat_t
	return unix.Fstat(f.fd, &now) == nil && now.Size == st.Size
}

func (f *hostFile) close() { unix.Close(f.fd) }

// ReadAt implements io.ReaderAt.
func (f *hostFile) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pread(f.fd, p[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			f.err.Store(&err)
			return n, err
		case m == 0:
			f.short.Store(true)
			return n, io.EOF
		default:
			n += m
		}
	}
	return n, nil
}

// A sparseFile is a hostFile of which the holes are not read.
type sparseFile struct{ *hostFile }

// NextData implements hashtree.DataSeeker.
func (f sparseFile) NextData(off int64) (start, end int64, err error) {
	start, err = unix.Seek(f.fd, off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return 0, 0, io.EOF
	}
	if err == nil {
		end, err = unix.Seek(f.fd, start, unix.SEEK_HOLE)
	}
	if err == unix.EINVAL { // a file system that does not know
		return off, math.MaxInt64, nil
	}
	return start, end, err
}

// source returns f as what hashtree.Write reads.
func (f *hostFile) source(st *unix.Stat_t) io.ReaderAt {
	if st.Blocks*512 < st.Size {
		return sparseFile{f}
	}
	return f
}

// sameTimes tells whether a file is, by what is known of it, as it was.
func sameTimes(a, b *unix.Stat_t) bool {
	return a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

// modeOf returns the mode of a file, and whether the format has its kind.
func modeOf(st *unix.Stat_t) (meta.Mode, bool) {
	m := meta.Mode(st.Mode & 0o777)
	for _, bit := range []struct {
		host uint32
		mode meta.Mode
	}{{unix.S_ISVTX, meta.ModeSticky}, {unix.S_ISUID, meta.ModeSetuid}, {unix.S_ISGID, meta.ModeSetgid}} {
		if st.Mode&bit.host != 0 {
			m |= bit.mode
		}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		m |= meta.ModeDir
	case unix.S_IFLNK:
		m |= meta.ModeLink
	case unix.S_IFCHR, unix.S_IFBLK:
		m |= meta.ModeDevice
	case unix.S_IFIFO:
		m |= meta.ModePipe
	default:
		return 0, false
	}
	return m, true
}

// contents returns the contents that the format gives to a link or device.
func contents(dir int, name string, st *unix.Stat_t) ([]byte, error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, b)
		if err != nil {
			return nil, err
		}
		if n == len(b) {
			return nil, errors.New("target of the link is too long")
		}
		return b[:n], nil
	case unix.S_IFCHR, unix.S_IFBLK:
		d := Device{
			Block: st.Mode&unix.S_IFMT == unix.S_IFBLK,
			Major: unix.Major(uint64(st.Rdev)), Minor: unix.Minor(uint64(st.Rdev)),
		}
		return []byte(d.String()), nil
	}
	return nil, nil
}

// A nameCache finds the names of users and groups. It is used by one
// goroutine.
type nameCache struct {
	users, groups map[uint32]string
}

func newNameCache() *nameCache {
	return &nameCache{users: map[uint32]string{}, groups: map[uint32]string{}}
}

// user returns a user's name or, of one without, the number.
func (c *nameCache) user(id uint32) string {
	name, ok := c.users[id]
	if !ok {
		name = strconv.FormatUint(uint64(id), 10)
		if u, err := user.LookupId(name); err == nil {
			name = u.Username
		}
		c.users[id] = name
	}
	return name
}

// group returns a group's name or, of one without, the number.
func (c *nameCache) group(id uint32) string {
	name, ok := c.groups[id]
	if !ok {
		name = strconv.FormatUint(uint64(id), 10)
		if g, err := user.LookupGroupId(name); err == nil {
			name = g.Name
		}
		c.groups[id] = name
	}
	return name
}

// pathError says what failed on which file.
func pathError(op, path string, err error) error { return fmt.Errorf("%s %s: %w", op, path, err) }
