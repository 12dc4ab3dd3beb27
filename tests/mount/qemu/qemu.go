// Package qemu starts Linux guests for tests, from Debian's packages alone:
// no root, no KVM and no disk image.
//
//	k, err := qemu.FindKernel("6.12")
//	g := qemu.Guest{Kernel: k, Modules: []string{"9p", "9pnet_fd"}, Files: map[string]qemu.File{"init": {0o100755, program}}}
//	err = g.Run(ctx, func(line string) { ... })
//
// The guest runs init, which loads /modules and writes lines to /dev/ttyS1; it
// ends when that reboots it. The host's loopback is 10.0.2.2 to it.
package qemu

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// program is the emulator's name.
const program = "qemu-system-x86_64"

// Missing returns the Debian packages that a guest needs and that are not
// here.
func Missing() (list []string) {
	for prog, pkg := range map[string]string{program: "qemu-system-x86", "xz": "xz-utils"} {
		if _, err := exec.LookPath(prog); err != nil {
			list = append(list, pkg)
		}
	}
	return list
}

// Busybox returns a busybox that needs no libraries.
func Busybox() ([]byte, error) {
	name, err := exec.LookPath("busybox")
	if err != nil {
		return nil, errors.New("no busybox-static here")
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		return nil, fmt.Errorf("%s is not the one of busybox-static: it needs %q, %v", name, libs, err)
	}
	return b, nil
}

// A Guest is a machine that runs once.
type Guest struct {
	Kernel   *Kernel
	Modules  []string        // to be loaded, with what they need
	Files    map[string]File // of its root, by path without the first slash
	MemoryMB int             // 0 is 512
	CPUs     int             // 0 is 1
}

// ModuleDir is where the guest finds its modules, numbered in the order in
// which they are to be loaded.
const ModuleDir = "modules"

// Run starts the guest, hands each line that it writes to /dev/ttyS1 to line,
// and returns when it has ended: with an error that holds the end of the
// kernel's log if the kernel or the guest found a fault.
func (g *Guest) Run(ctx context.Context, line func(string)) error {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image, err := g.Kernel.Image()
	if err != nil {
		return err
	}
	files, err := g.Kernel.Root(g.Files, g.Modules...)
	if err != nil {
		return err
	}
	kernel, root, console := filepath.Join(dir, "kernel"), filepath.Join(dir, "root"), filepath.Join(dir, "console")
	if err := os.WriteFile(kernel, image, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(root, files, 0o600); err != nil {
		return err
	}
	memory, cpus := g.MemoryMB, g.CPUs
	if memory == 0 {
		memory = 512
	}
	if cpus == 0 {
		cpus = 1
	}
	cmd := exec.CommandContext(ctx, program,
		"-machine", "pc", "-accel", "tcg", "-cpu", "max", "-smp", fmt.Sprint(cpus), "-m", fmt.Sprint(memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-kernel", kernel, "-initrd", root,
		"-append", "console=ttyS0 panic=-1 quiet loglevel=5 tsc=reliable nokaslr mitigations=off random.trust_cpu=on no_timer_check net.ifnames=0",
		"-serial", "file:"+console, "-serial", "stdio",
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var messages bytes.Buffer
	cmd.Stderr = &messages
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line(strings.TrimRight(lines.Text(), "\r"))
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	log, _ := os.ReadFile(console)
	if err == nil {
		err = fault(string(log))
	}
	if err != nil {
		return fmt.Errorf("guest with Linux %s: %w\n%s%s", g.Kernel.Release, err, &messages, tail(string(log)))
	}
	return nil
}

// faults are what a kernel says of itself when something is wrong with it.
var faults = []string{"BUG:", "WARNING:", "Oops", "Kernel panic", "Call Trace:", "blocked for more than"}

// A warning begins and ends so in the log.
const (
	cutHere  = "[ cut here ]"
	endTrace = "[ end trace"
)

// forgive takes out of a log the warnings that are the kernel's own affair: when
// a file's last names go one after the other, v9fs counts its links down to none
// from what the server says of it, and then once more for the removal.
func forgive(log string) string {
	var kept strings.Builder
	for {
		before, rest, ok := strings.Cut(log, cutHere)
		kept.WriteString(before)
		if !ok {
			return kept.String()
		}
		warning, after, ok := strings.Cut(rest, endTrace)
		if !ok || !strings.Contains(warning, "drop_nlink") || !strings.Contains(warning, "v9fs_remove") {
			kept.WriteString(cutHere)
			log = rest
			continue
		}
		log = after
	}
}

func fault(log string) error {
	for l := range strings.Lines(forgive(log)) {
		for _, f := range faults {
			if strings.Contains(l, f) {
				return fmt.Errorf("kernel: %s", strings.TrimSpace(l))
			}
		}
	}
	return nil
}

// tail returns the last lines of a log.
func tail(log string) string {
	lines := strings.SplitAfter(log, "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "")
}
