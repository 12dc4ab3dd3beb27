package workload

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// helperEnv makes this program a process that tries to lock a file: "fcntl"
// or "flock", "read" or "write", then its name, with spaces between.
const helperEnv = "WORKLOAD_TRY_LOCK"

// Helper does what helperEnv asks for, if it does, and ends the process. Who
// calls Run calls it first: locks belong to processes.
func Helper() {
	text := os.Getenv(helperEnv)
	if text == "" {
		return
	}
	f := strings.SplitN(text, " ", 3)
	err := tryLock(f[0], f[1], f[2])
	switch errno(err) {
	case 0:
		fmt.Print("got")
	case syscall.EAGAIN, syscall.EACCES:
		fmt.Print("refused")
	}
	if err != nil {
		fmt.Fprint(os.Stderr, err)
	}
	os.Exit(0)
}

// tryLock locks the file, without waiting, until the process ends.
func tryLock(how, kind, name string) error {
	fd, err := syscall.Open(name, syscall.O_RDWR, 0)
	if err != nil {
		return err
	}
	if how == "flock" {
		op := syscall.LOCK_SH
		if kind == "write" {
			op = syscall.LOCK_EX
		}
		return syscall.Flock(fd, op|syscall.LOCK_NB)
	}
	return syscall.FcntlFlock(uintptr(fd), syscall.F_SETLK, posixLock(kind))
}

func posixLock(kind string) *syscall.Flock_t {
	l := &syscall.Flock_t{Type: syscall.F_RDLCK, Start: 10, Len: 10}
	if kind == "write" {
		l.Type = syscall.F_WRLCK
	}
	return l
}

// another has another process try a lock, and returns whether it got it.
func another(how, kind, name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperEnv+"="+how+" "+kind+" "+name)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("%s", stderr.String())
	}
	return string(out), err
}

// locks has another process try what this one has locked, through the same
// mount and through the other, where only the server can know.
func locks(r *run) error {
	name := filepath.Join(r.dir, "f")
	if err := os.WriteFile(name, make([]byte, 100), 0o600); err != nil {
		return err
	}
	ways := []string{name}
	if r.Can.Locks && r.Other != "" {
		rel, err := filepath.Rel(r.Dir, name)
		if err != nil {
			return err
		}
		ways = append(ways, filepath.Join(r.Other, rel))
	}
	for _, way := range ways {
		for _, c := range []struct{ how, held, tried, want string }{
			{"fcntl", "read", "read", "got"},
			{"fcntl", "read", "write", "refused"},
			{"fcntl", "write", "read", "refused"},
			{"fcntl", "write", "write", "refused"},
			{"flock", "read", "read", "got"},
			{"flock", "read", "write", "refused"},
			{"flock", "write", "write", "refused"},
		} {
			if c.how == "fcntl" && !r.Can.Fcntl {
				continue
			}
			if err := holdAndTry(name, way, c.how, c.held, c.tried, c.want); err != nil {
				return fmt.Errorf("%s %s, %s of %s: %w", c.how, c.held, c.tried, way, err)
			}
		}
	}
	return nil
}

func holdAndTry(name, way, how, held, tried, want string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	if how == "flock" {
		op := map[string]int{"read": syscall.LOCK_SH, "write": syscall.LOCK_EX}[held]
		err = syscall.Flock(fd, op|syscall.LOCK_NB)
	} else {
		err = syscall.FcntlFlock(uintptr(fd), syscall.F_SETLK, posixLock(held))
	}
	if err != nil {
		return err
	}
	got, err := another(how, tried, way)
	if err != nil || got != want {
		return fmt.Errorf("%s, %v, want %s", got, err, want)
	}
	// And when it is free again.
	if how == "flock" {
		err = syscall.Flock(fd, syscall.LOCK_UN)
	} else {
		l := posixLock(held)
		l.Type = syscall.F_UNLCK
		err = syscall.FcntlFlock(uintptr(fd), syscall.F_SETLK, l)
	}
	if err != nil {
		return err
	}
	if got, err = another(how, "write", way); err != nil || got != "got" {
		return fmt.Errorf("unlocked, and then %s, %v", got, err)
	}
	return nil
}
