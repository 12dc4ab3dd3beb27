// Package workload does to a mounted tree what programs do to file systems,
// and compares it, operation by operation, with a local file system or a model
// in memory. All that is random follows from a seed.
//
//	workload.Run(workload.Config{Dir: "/mnt/9p", Local: "/tmp", Can: workload.Everything, Seed: 1, Scale: 1}, report)
//
// It must not run in the process that serves the tree: a page of a mapping
// that is waited for stops the whole of a Go program sooner or later.
package workload

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Abilities are what a tree can do, as it is mounted.
type Abilities struct {
	Links    bool // hard links
	Nlink    bool // their count
	Symlinks bool
	Rename   bool // into other directories and in the place of files
	Removed  bool // files without a name go on to be themselves, also when another has the name
	Map      bool // shared mappings that are written to
	Xattrs   bool // user.*; without it they are EOPNOTSUPP
	Fcntl    bool // locks of fcntl(2); those of flock(2) work everywhere
	Locks    bool // of both kinds, between the two mounts
	Shared   bool // the other mount sees what was closed
	Nano     bool // times to the nanosecond; without it to the second
	StatFS   bool // the server's figures
	AnyName  bool // names with control characters
	Reopen   bool // what was looked up can be opened though another has its name by then
}

// Everything is what a tree over 9P2000.L can do.
var Everything = Abilities{
	Links: true, Nlink: true, Symlinks: true, Rename: true, Removed: true, Map: true, Xattrs: true, Fcntl: true, Locks: true, Shared: true, Nano: true, StatFS: true, AnyName: true, Reopen: true,
}

// A Config says what to do where.
type Config struct {
	Dir   string // an empty directory of the tree
	Local string // an empty directory of a local file system
	Other string // Dir once more, by another mount; "" if there is none
	Big   string // a directory of the tree with BigEntries files; "" to make one
	Can   Abilities
	Seed  uint64
	Scale int    // how much: 1 is seconds on a slow machine
	Only  string // the name of the one check to do; "" for all

	// Programs are which checks to do besides, that need programs: untar, git,
	// sqlite. Tar is an archive of a source tree, for them.
	Programs []string
	Tar      string
}

// BigEntries is how many files a large directory has.
const BigEntries = 10000

// BigName returns the name of a file of a large directory.
func BigName(i int) string { return fmt.Sprintf("entry%05d", i) }

// A Result is what came of one check.
type Result struct {
	Name    string
	Error   string // "" if it passed
	Seconds float64
}

// A run is what a check has to work with: directories of its own.
type run struct {
	Config
	dir, local string
}

var checks = []struct {
	name string
	do   func(*run) error
}{
	{"open", open},
	{"append", appending},
	{"unlinked", unlinked},
	{"holes", holes},
	{"names", names},
	{"big directory", bigDirectory},
	{"locks", locks},
	{"xattrs", xattrs},
	{"statfs", statfs},
	{"map", mapped},
	{"fsx", fsx},
	{"fsstress", stress},
	{"renames", renames},
	{"tools", tools},
	{"untar", untar},
	{"git", git},
	{"sqlite", sqlite},
}

// programs are those of the checks that are done only if they are asked for.
var programs = []string{"untar", "git", "sqlite"}

// Run does every check, whatever came of those before.
func Run(cfg Config, report func(Result)) {
	for _, c := range checks {
		if cfg.Only != "" && cfg.Only != c.name || slices.Contains(programs, c.name) && !slices.Contains(cfg.Programs, c.name) {
			continue
		}
		start := time.Now()
		err := runOne(cfg, c.name, c.do)
		res := Result{Name: c.name, Seconds: time.Since(start).Seconds()}
		if err != nil {
			res.Error = fmt.Sprintf("seed %d: %v", cfg.Seed, err)
		}
		report(res)
	}
}

func runOne(cfg Config, name string, do func(*run) error) (err error) {
	r := &run{cfg, filepath.Join(cfg.Dir, name), filepath.Join(cfg.Local, name)}
	for _, d := range []string{r.dir, r.local} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	defer os.RemoveAll(r.local)
	if err := do(r); err != nil {
		return err // what is in r.dir may tell why
	}
	if err := os.RemoveAll(r.dir); err != nil {
		return err
	}
	if _, err := os.Lstat(r.dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removed, and then: %v", err)
	}
	return nil
}

// errno returns the number in err, or 0.
func errno(err error) syscall.Errno {
	var e syscall.Errno
	errors.As(err, &e)
	return e
}

// wantErrno fails unless err has the number.
func wantErrno(what string, err error, want syscall.Errno) error {
	if errno(err) != want || (err == nil) != (want == 0) {
		return fmt.Errorf("%s: got %v, want %v", what, err, want)
	}
	return nil
}

// wantFile fails unless the file holds the bytes.
func wantFile(name string, b []byte) error {
	got, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, b) {
		return fmt.Errorf("%s: %s", name, difference(got, b))
	}
	return nil
}

// difference says where two contents differ.
func difference(got, want []byte) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			n := i
			for n < min(len(got), len(want)) && got[n] != want[n] {
				n++
			}
			return fmt.Sprintf("at %d: %d bytes differ, %x..., want %x...", i, n-i, got[i:min(n, i+8)], want[i:min(n, i+8)])
		}
	}
	return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
}

// same compares two trees: names, kinds, modes, lengths, contents, links.
func (r *run) same(dir, local string) error {
	got, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	want, err := os.ReadDir(local)
	if err != nil {
		return err
	}
	var a, b []string
	for _, e := range got {
		a = append(a, e.Name())
	}
	for _, e := range want {
		b = append(b, e.Name())
	}
	if fmt.Sprint(a) != fmt.Sprint(b) {
		return fmt.Errorf("%s has %q, want %q", dir, a, b)
	}
	for _, name := range a {
		x, y := filepath.Join(dir, name), filepath.Join(local, name)
		if err := r.sameFile(x, y); err != nil {
			return err
		}
		if st, err := os.Lstat(y); err == nil && st.IsDir() {
			if err := r.same(x, y); err != nil {
				return err
			}
		}
	}
	return nil
}

// sameFile compares two files, or that there is none.
func (r *run) sameFile(name, local string) error {
	var got, want syscall.Stat_t
	err, lerr := syscall.Lstat(name, &got), syscall.Lstat(local, &want)
	if err != lerr {
		return fmt.Errorf("stat %s: %v, want %v", name, err, lerr)
	}
	if err != nil {
		return nil
	}
	kind := want.Mode & syscall.S_IFMT
	mode := uint32(0o7777)
	if kind == syscall.S_IFLNK {
		mode = 0
	}
	switch {
	case got.Mode&syscall.S_IFMT != kind, got.Mode&mode != want.Mode&mode:
		return fmt.Errorf("%s: mode %o, want %o", name, got.Mode, want.Mode)
	case kind != syscall.S_IFDIR && got.Size != want.Size:
		return fmt.Errorf("%s: %d bytes, want %d", name, got.Size, want.Size)
	case kind != syscall.S_IFDIR && r.Can.Nlink && got.Nlink != want.Nlink:
		return fmt.Errorf("%s: %d links, want %d", name, got.Nlink, want.Nlink)
	}
	switch kind {
	case syscall.S_IFREG:
		b, err := os.ReadFile(local)
		if err != nil {
			return err
		}
		return wantFile(name, b)
	case syscall.S_IFLNK:
		a, err := os.Readlink(name)
		if err != nil {
			return err
		}
		if b, _ := os.Readlink(local); a != b {
			return fmt.Errorf("%s leads to %q, want %q", name, a, b)
		}
	}
	return nil
}
