// guest is what package mount's tests run: in a Linux guest as its init, where
// it mounts a 9P server as /config.json says, and on the host as a process that
// works in a tree that is mounted already. It prints results as JSON, one a
// line.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"strata/tests/mount/qemu/inside"
	"strata/tests/mount/workload"
)

func main() {
	workload.Helper()
	if os.Getpid() == 1 {
		out, err := inside.Boot()
		if err == nil {
			err = inGuest(out)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			if out != nil {
				report(out, workload.Result{Name: "guest", Error: err.Error()})
			}
		}
		unix.Sync()
		inside.Reboot()
	}
	var cfg workload.Config
	if err := json.NewDecoder(os.Stdin).Decode(&cfg); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
	workload.Run(cfg, func(r workload.Result) { report(os.Stdout, r) })
}

func report(w io.Writer, r workload.Result) { json.NewEncoder(w).Encode(r) }

// A Job is what /config.json holds: mounts to be tried, one after the other.
type Job struct {
	Mounts []Mount
}

// A Mount is one way to mount the server.
type Mount struct {
	Name    string // in front of the checks'
	Source  string // the server's address
	Options string // as for mount -t 9p -o
	Run     workload.Config
}

// inGuest does the job.
func inGuest(out io.Writer) error {
	b, err := os.ReadFile("/config.json")
	if err != nil {
		return err
	}
	var job Job
	if err := json.Unmarshal(b, &job); err != nil {
		return err
	}
	for i, m := range job.Mounts {
		if err := tryMount(out, i, m); err != nil {
			report(out, workload.Result{Name: m.Name + "/mount", Error: err.Error()})
		} else {
			report(out, workload.Result{Name: m.Name + "/mount"})
		}
	}
	return nil
}

// tryMount mounts the server twice, works in the one, and unmounts both.
func tryMount(out io.Writer, i int, m Mount) error {
	cfg := m.Run
	main, other := fmt.Sprintf("/mnt/%d", i), fmt.Sprintf("/mnt/%d.other", i)
	for _, dir := range []string{main, other} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.Source, dir, "9p", 0, m.Options); err != nil {
			return fmt.Errorf("mount -t 9p -o %s %s: %w", m.Options, m.Source, err)
		}
	}
	sub := strings.ReplaceAll(m.Name, "/", "-")
	cfg.Dir, cfg.Other = filepath.Join(main, sub), filepath.Join(other, sub)
	cfg.Local = filepath.Join("/tmp", sub)
	if cfg.Big != "" {
		cfg.Big = filepath.Join(main, cfg.Big)
	}
	for _, dir := range []string{cfg.Dir, cfg.Local} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	workload.Run(cfg, func(r workload.Result) {
		r.Name = m.Name + "/" + r.Name
		report(out, r)
	})
	for _, dir := range []string{other, main} {
		if err := unix.Unmount(dir, 0); err != nil {
			return fmt.Errorf("umount %s: %w", dir, err)
		}
	}
	return nil
}
