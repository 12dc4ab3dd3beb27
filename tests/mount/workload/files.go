package workload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// open tries the flags of open(2), truncation, modes and times.
func open(r *run) error {
	name := filepath.Join(r.dir, "f")
	try := func(name string, flags int) error {
		f, err := os.OpenFile(name, flags, 0o640)
		if err == nil {
			err = f.Close()
		}
		return err
	}
	for _, c := range []struct {
		what  string
		name  string
		flags int
		want  syscall.Errno
	}{
		{"open what is not there", name, os.O_RDONLY, syscall.ENOENT},
		{"create", name, os.O_CREATE | os.O_EXCL | os.O_WRONLY, 0},
		{"create again", name, os.O_CREATE | os.O_EXCL | os.O_WRONLY, syscall.EEXIST},
		{"open or create", name, os.O_CREATE | os.O_RDWR, 0},
		{"open a file as a directory", name, os.O_RDONLY | syscall.O_DIRECTORY, syscall.ENOTDIR},
		{"open below a file", filepath.Join(name, "x"), os.O_RDONLY, syscall.ENOTDIR},
		{"write to a directory", r.dir, os.O_WRONLY, syscall.EISDIR},
		{"create in what is not there", filepath.Join(r.dir, "none", "x"), os.O_CREATE | os.O_WRONLY, syscall.ENOENT},
	} {
		if err := wantErrno(c.what, try(c.name, c.flags), c.want); err != nil {
			return err
		}
	}
	if err := os.WriteFile(name, []byte("0123456789"), 0); err != nil {
		return err
	}
	for _, size := range []int64{4, 20, 0} {
		if err := os.Truncate(name, size); err != nil {
			return err
		}
		b := make([]byte, size)
		copy(b, "0123")
		if err := wantFile(name, b); err != nil {
			return fmt.Errorf("truncate to %d: %w", size, err)
		}
	}
	if err := os.WriteFile(name, []byte("long"), 0); err != nil {
		return err
	}
	if err := try(name, os.O_WRONLY|os.O_TRUNC); err != nil {
		return err
	}
	if err := wantFile(name, nil); err != nil {
		return fmt.Errorf("open with O_TRUNC: %w", err)
	}
	if err := os.Chmod(name, 0o604); err != nil {
		return err
	}
	when := time.Unix(1234567890, 123456789)
	if !r.Can.Nano {
		when = time.Unix(1234567890, 0)
	}
	if err := os.Chtimes(name, when, when); err != nil {
		return err
	}
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if st.Mode() != 0o604 || !st.ModTime().Equal(when) {
		return fmt.Errorf("mode %v, mtime %v, want 0604, %v", st.Mode(), st.ModTime(), when)
	}
	// What is written is newer.
	if err := os.WriteFile(name, []byte("new"), 0); err != nil {
		return err
	}
	if st, err = os.Stat(name); err != nil || !st.ModTime().After(when) {
		return fmt.Errorf("written, and then mtime %v, %v", st.ModTime(), err)
	}
	return nil
}

// appending writes through two descriptors to the end of one file.
func appending(r *run) error {
	name := filepath.Join(r.dir, "log")
	var files [2]*os.File
	for i := range files {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	var b []byte
	for i := range 20 {
		line := strings.Repeat(string(rune('a'+i)), 1+i*173) + "\n"
		if _, err := files[i%2].WriteString(line); err != nil {
			return err
		}
		b = append(b, line...)
	}
	return wantFile(name, b)
}

// unlinked goes on with files that have no name any more.
func unlinked(r *run) error {
	if !r.Can.Removed {
		return nil
	}
	name := filepath.Join(r.dir, "f")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	b := bytes.Repeat([]byte("removed "), 2000)
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := os.Remove(name); err != nil {
		return err
	}
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stat of what was removed: %v", err)
	}
	if left, err := os.ReadDir(r.dir); err != nil || slices.ContainsFunc(left, func(e fs.DirEntry) bool { return e.Name() == "f" }) {
		return fmt.Errorf("removed, but listed: %v, %v", left, err)
	}
	// A new one by that name is another.
	if err := os.WriteFile(name, []byte("another"), 0o600); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte("REMOVED"), 8000); err != nil {
		return err
	}
	copy(b[8000:], "REMOVED")
	if err := f.Sync(); err != nil {
		return err
	}
	got := make([]byte, len(b)+1)
	n, err := f.ReadAt(got, 0)
	if err != io.EOF || !bytes.Equal(got[:n], b) {
		return fmt.Errorf("read after remove: %v, %s", err, difference(got[:n], b))
	}
	if st, err := f.Stat(); err != nil || st.Size() != int64(len(b)) {
		return fmt.Errorf("fstat after remove: %v, %v", st, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return wantFile(name, []byte("another"))
}

// holes writes where nothing is before.
func holes(r *run) error {
	const far = 5<<30 + 12345
	f, err := os.Create(filepath.Join(r.dir, "sparse"))
	if err != nil {
		return err
	}
	defer f.Close()
	for _, off := range []int64{far, 1 << 20, 3} {
		if _, err := f.WriteAt([]byte("data"), off); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if f, err = os.Open(f.Name()); err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != far+4 {
		return fmt.Errorf("%v, %v, want %d bytes", st, err, int64(far+4))
	}
	for _, off := range []int64{0, 1<<20 - 100, 4 << 30, far - 300} {
		b := make([]byte, 400)
		n, err := f.ReadAt(b, off)
		if err != nil && err != io.EOF {
			return err
		}
		expect := make([]byte, min(400, far+4-off))
		for _, at := range []int64{far, 1 << 20, 3} {
			if at >= off && at < off+400 {
				copy(expect[at-off:], "data")
			}
		}
		if !bytes.Equal(b[:n], expect) {
			return fmt.Errorf("at %d: %s", off, difference(b[:n], expect))
		}
	}
	return nil
}

// names tries long names, odd ones, and long ways.
func names(r *run) error {
	long := strings.Repeat("n", 255)
	list := []string{long, "a b", "ünïcödé", "\xff\xfe", "-", "...", "a\\b", "'\"`$"}
	if r.Can.AnyName {
		list = append(list, "new\nline")
	}
	for _, name := range list {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(name), 0o600); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if err := wantFile(filepath.Join(r.dir, name), []byte(name)); err != nil {
			return err
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(r.dir, &st); err != nil {
		return err
	}
	if st.Namelen == int64(len(long)) {
		if err := wantErrno("a name of 256 bytes", os.WriteFile(filepath.Join(r.dir, long+"n"), nil, 0o600), syscall.ENAMETOOLONG); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(list)
	if !slices.Equal(got, list) {
		return fmt.Errorf("listed %q, want %q", got, list)
	}
	// 20 levels: more than one walk takes.
	deep := filepath.Join(r.dir, strings.Repeat("d/", 20))
	if err := os.MkdirAll(deep, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(deep, "f"), []byte("deep"), 0o600); err != nil {
		return err
	}
	return wantFile(filepath.Join(deep, strings.Repeat("../", 10), strings.Repeat("d/", 10), "f"), []byte("deep"))
}

// bigDirectory lists a directory of 10,000 files while it changes.
func bigDirectory(r *run) error {
	dir := r.Big
	if dir == "" {
		dir = r.dir
		for i := range BigEntries {
			if err := os.WriteFile(filepath.Join(dir, BigName(i)), nil, 0o600); err != nil {
				return err
			}
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	seen := make(map[string]bool)
	for {
		list, err := d.Readdirnames(500)
		for _, name := range list {
			if seen[name] {
				return fmt.Errorf("%s is listed twice", name)
			}
			seen[name] = true
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		// What comes and goes meanwhile is nothing to the rest.
		name := filepath.Join(dir, "passing")
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			return err
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	delete(seen, "passing")
	for i := range BigEntries {
		if !seen[BigName(i)] {
			return fmt.Errorf("%s is missing", BigName(i))
		}
	}
	if len(seen) != BigEntries {
		return fmt.Errorf("%d entries, want %d", len(seen), BigEntries)
	}
	for i := 0; i < BigEntries; i += BigEntries / 20 {
		if _, err := os.Lstat(filepath.Join(dir, BigName(i))); err != nil {
			return err
		}
	}
	return nil
}

// xattrs sets attributes, or learns that there are none.
func xattrs(r *run) error {
	name := filepath.Join(r.dir, "f")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		return err
	}
	b := make([]byte, 100)
	err := unix.Setxattr(name, "user.colour", []byte("blue"), 0)
	if !r.Can.Xattrs {
		if err := wantErrno("setxattr", err, syscall.EOPNOTSUPP); err != nil {
			return err
		}
		_, err = unix.Getxattr(name, "user.colour", b)
		return wantErrno("getxattr", err, syscall.EOPNOTSUPP)
	}
	if err != nil {
		return err
	}
	if n, err := unix.Getxattr(name, "user.colour", b); err != nil || string(b[:n]) != "blue" {
		return fmt.Errorf("getxattr: %q, %v", b[:max(n, 0)], err)
	}
	_, err = unix.Getxattr(name, "user.none", b)
	if err := wantErrno("getxattr of none", err, syscall.ENODATA); err != nil {
		return err
	}
	if n, err := unix.Listxattr(name, b); err != nil || string(b[:n]) != "user.colour\x00" {
		return fmt.Errorf("listxattr: %q, %v", b[:max(n, 0)], err)
	}
	err = unix.Setxattr(name, "user.colour", []byte("red"), unix.XATTR_CREATE)
	if err := wantErrno("setxattr of what is there", err, syscall.EEXIST); err != nil {
		return err
	}
	if err := unix.Removexattr(name, "user.colour"); err != nil {
		return err
	}
	_, err = unix.Getxattr(name, "user.colour", b)
	return wantErrno("getxattr of what was removed", err, syscall.ENODATA)
}

// statfs asks how full the file system is.
func statfs(r *run) error {
	var st unix.Statfs_t
	if err := unix.Statfs(r.dir, &st); err != nil {
		return err
	}
	if st.Namelen < 255 || r.Can.StatFS && (st.Blocks == 0 || st.Bfree > st.Blocks) {
		return fmt.Errorf("%+v", st)
	}
	return nil
}
