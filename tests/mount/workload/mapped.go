package workload

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// withMap maps n bytes at off, which need not be the start of a page, for do;
// privately where nothing that is open to write can be shared.
func (r *run) withMap(f *os.File, off int64, n, prot int, do func([]byte) error) error {
	skip := off % int64(os.Getpagesize())
	flags := unix.MAP_SHARED
	if !r.Can.Map {
		flags = unix.MAP_PRIVATE
	}
	m, err := unix.Mmap(int(f.Fd()), off-skip, n+int(skip), prot, flags)
	if err != nil {
		return fmt.Errorf("mmap %d bytes at %d: %w", n, off, err)
	}
	err = do(m[skip:])
	if err == nil && prot&unix.PROT_WRITE != 0 {
		if err = unix.Msync(m, unix.MS_SYNC); err != nil {
			err = fmt.Errorf("msync: %w", err)
		}
	}
	if uerr := unix.Munmap(m); err == nil {
		err = uerr
	}
	return err
}

// mapped reads through a mapping what was written, and where a mapping can be
// written to reads from the file what was put there, also through the other
// mount.
func mapped(r *run) error {
	name := filepath.Join(r.dir, "m")
	b := bytes.Repeat([]byte("0123456789abcdef"), 8192)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	err = r.withMap(f, 5, len(b)-5, unix.PROT_READ, func(m []byte) error {
		if !bytes.Equal(m, b[5:]) {
			return fmt.Errorf("mapped: %s", difference(m, b[5:]))
		}
		return nil
	})
	if err != nil || !r.Can.Map {
		return err
	}
	for i, off := range []int64{0, 4090, 65536, int64(len(b)) - 10} {
		text := fmt.Sprintf("written %d!", i)
		err := r.withMap(f, off, 10, unix.PROT_READ|unix.PROT_WRITE, func(m []byte) error {
			copy(m, text)
			return nil
		})
		if err != nil {
			return err
		}
		copy(b[off:], text)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := wantFile(name, b); err != nil {
		return err
	}
	if r.Other == "" || !r.Can.Shared {
		return nil
	}
	rel, err := filepath.Rel(r.Dir, name)
	if err != nil {
		return err
	}
	return wantFile(filepath.Join(r.Other, rel), b)
}
