package workload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A stresser does random things to a tree and a local one, after fsstress(8)
// of other systems, and compares what comes of each: the error's number, what
// was read, what a file is then. Few names make it meet all kinds of files.
type stresser struct {
	r          *run
	rnd        *rand.Rand
	dir, local string
	log        []string // what was done last
}

func stress(r *run) error {
	const workers = 3
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		sub := fmt.Sprintf("w%d", i)
		s := &stresser{r: r, rnd: rand.New(rand.NewPCG(r.Seed, uint64(2+i))), dir: filepath.Join(r.dir, sub), local: filepath.Join(r.local, sub)}
		wg.Go(func() {
			for _, d := range []string{s.dir, s.local} {
				if errs[i] = os.Mkdir(d, 0o755); errs[i] != nil {
					return
				}
			}
			for op := range 60 * r.Scale {
				if err := s.step(); err != nil {
					errs[i] = fmt.Errorf("%s, operation %d: %w\n%q", sub, op, err, s.log)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return r.same(r.dir, r.local)
}

// name returns one of the few names, at most two directories down.
func (s *stresser) name() string {
	elem := func() string { return string("abcd"[s.rnd.IntN(4)]) }
	name := elem()
	for range s.rnd.IntN(3) {
		name = filepath.Join(name, elem())
	}
	return name
}

// both does f in the tree and the local one, and compares the errors.
func (s *stresser) both(what, name string, f func(dir string) error) error {
	s.log = append(s.log[max(0, len(s.log)-11):], what+" "+name)
	err, lerr := f(s.dir), f(s.local)
	if (err == nil) != (lerr == nil) || errno(err) != errno(lerr) {
		return fmt.Errorf("%s %s: got %v, want %v", what, name, err, lerr)
	}
	return s.r.sameFile(filepath.Join(s.dir, name), filepath.Join(s.local, name))
}

// localKind returns the kind of file that a name is of, 0 if there is none.
func (s *stresser) localKind(name string) uint32 {
	var st syscall.Stat_t
	if syscall.Lstat(filepath.Join(s.local, name), &st) != nil {
		return 0
	}
	return st.Mode & syscall.S_IFMT
}

func (s *stresser) step() error {
	name := s.name()
	switch k := s.rnd.IntN(100); {
	case k < 12:
		return s.both("mkdir", name, func(dir string) error { return os.Mkdir(filepath.Join(dir, name), 0o750) })
	case k < 20:
		return s.both("rmdir", name, func(dir string) error { return syscall.Rmdir(filepath.Join(dir, name)) })
	case k < 28:
		return s.both("unlink", name, func(dir string) error { return syscall.Unlink(filepath.Join(dir, name)) })
	case k < 48:
		return s.write(name)
	case k < 58:
		return s.rename(name)
	case k < 63:
		return s.link(name)
	case k < 70:
		return s.symlink(name)
	case k < 76:
		size := s.rnd.Int64N(100000)
		return s.both("truncate", name, func(dir string) error { return os.Truncate(filepath.Join(dir, name), size) })
	case k < 81:
		if s.localKind(name) == syscall.S_IFLNK {
			return nil // chmod follows
		}
		mode := os.FileMode(s.rnd.IntN(0o1000)) | 0o600
		return s.both("chmod", name, func(dir string) error { return os.Chmod(filepath.Join(dir, name), mode) })
	case k < 86:
		return s.times(name)
	case k < 92:
		return s.unlinked(name)
	default:
		s.log = append(s.log, "list")
		return s.r.same(s.dir, s.local)
	}
}

// write opens a file in one of the ways there are, and writes and reads.
func (s *stresser) write(name string) error {
	flags := os.O_RDWR | []int{0, os.O_CREATE, os.O_CREATE | os.O_EXCL, os.O_CREATE | os.O_TRUNC, os.O_CREATE | os.O_APPEND}[s.rnd.IntN(5)]
	off, n := s.rnd.Int64N(100000), 1+s.rnd.IntN(70000)
	b := bytes.Repeat([]byte{byte(s.rnd.Uint32()), byte(s.rnd.Uint32()), byte(s.rnd.Uint32())}, n/3+1)[:n]
	var read [2][]byte
	i := 0
	err := s.both(fmt.Sprintf("open %#x, write %d at %d", flags, n, off), name, func(dir string) error {
		f, err := os.OpenFile(filepath.Join(dir, name), flags, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		if flags&os.O_APPEND != 0 {
			_, err = f.Write(b)
		} else {
			_, err = f.WriteAt(b, off)
		}
		if err != nil {
			return err
		}
		got := make([]byte, 50000)
		n, err := f.ReadAt(got, max(0, off-1000))
		if err == io.EOF {
			err = nil
		}
		read[i], i = got[:n], i+1
		return errors.Join(err, f.Close())
	})
	if err == nil && !bytes.Equal(read[0], read[1]) {
		err = fmt.Errorf("read %s: %s", name, difference(read[0], read[1]))
	}
	return err
}

// rename moves a file, in the classic dialects within its directory and to a
// free name only.
func (s *stresser) rename(name string) error {
	to := s.name()
	if !s.r.Can.Rename {
		to = filepath.Join(filepath.Dir(name), filepath.Base(to))
		if s.localKind(to) != 0 {
			return nil
		}
	}
	err := s.both("rename "+name+" to", to, func(dir string) error {
		return syscall.Rename(filepath.Join(dir, name), filepath.Join(dir, to))
	})
	if err != nil {
		return err
	}
	return s.r.sameFile(filepath.Join(s.dir, name), filepath.Join(s.local, name))
}

func (s *stresser) link(name string) error {
	to := s.name()
	if !s.r.Can.Links {
		return nil
	}
	return s.both("link "+name+" to", to, func(dir string) error {
		return syscall.Link(filepath.Join(dir, name), filepath.Join(dir, to))
	})
}

func (s *stresser) symlink(name string) error {
	if !s.r.Can.Symlinks {
		return nil
	}
	target := strings.Repeat("../", s.rnd.IntN(2)) + s.name()
	return s.both("symlink to "+target, name, func(dir string) error {
		return os.Symlink(target, filepath.Join(dir, name))
	})
}

func (s *stresser) times(name string) error {
	if s.localKind(name) == syscall.S_IFLNK {
		return nil
	}
	when := time.Unix(1e9+s.rnd.Int64N(1e8), 0)
	if s.r.Can.Nano {
		when = when.Add(time.Duration(s.rnd.Int64N(1e9)))
	}
	return s.both("utimes", name, func(dir string) error {
		path := filepath.Join(dir, name)
		if err := os.Chtimes(path, when, when); err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err == nil && !st.ModTime().Equal(when) {
			err = fmt.Errorf("mtime %v, want %v", st.ModTime(), when)
		}
		return err
	})
}

// unlinked removes a file while it is open.
func (s *stresser) unlinked(name string) error {
	if !s.r.Can.Removed || s.localKind(name) != syscall.S_IFREG {
		return nil
	}
	var read [2][]byte
	i := 0
	err := s.both("unlink while open", name, func(dir string) error {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
		if _, err := f.WriteAt([]byte("no name any more"), 100); err != nil {
			return err
		}
		read[i], err = io.ReadAll(f)
		i++
		return err
	})
	if err == nil && !bytes.Equal(read[0], read[1]) {
		err = fmt.Errorf("read %s: %s", name, difference(read[0], read[1]))
	}
	return err
}
