package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// A Go program cannot fork. What goes on in the background is this program
// once more, which tells the first through a pipe how the mount went.
const (
	readyEnv = "_9PFUSE_READY" // set in the second
	readyFD  = 3               // the pipe there
	readyOK  = "ok\n"
)

// inBackground runs f in a process of its own and returns when that has
// called ready, or failed.
func inBackground(f func(ready func()) error) error {
	if os.Getenv(readyEnv) == "" {
		return startBackground()
	}
	os.Unsetenv(readyEnv)
	pipe := os.NewFile(readyFD, "ready")
	err := f(func() {
		io.WriteString(pipe, readyOK)
		pipe.Close()
		// The terminal belongs to others now, and the working directory may
		// be unmounted.
		if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
			for fd := range 3 {
				syscall.Dup3(int(null.Fd()), fd, 0)
			}
		}
		os.Chdir("/")
	})
	if err != nil {
		fmt.Fprint(pipe, err)
	}
	return err
}

func startBackground() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), readyEnv+"=1")
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	said, err := io.ReadAll(r)
	if string(said) == readyOK {
		return nil
	}
	cmd.Wait()
	if err == nil {
		err = errors.New(strings.TrimSpace(string(said)))
	}
	return err
}
