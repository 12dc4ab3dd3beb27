package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The layout of the demo's disks, in bytes.
const (
	mib = 1 << 20

	diskSize  = 2048 * mib
	espStart  = 1 * mib
	espSize   = 64 * mib
	rootStart = espStart + espSize
	rootSize  = 1800 * mib
	swapStart = rootStart + rootSize
	swapSize  = 128 * mib

	// How much of the machine's own files goes into the root file system, and
	// how much is written and deleted again on the second day.
	rootBudget    = 250 * mib
	garbageBudget = 40 * mib
)

// dayTwoPasswd is what etc/passwd of the second disk holds.
const dayTwoPasswd = "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000:since the second day:/home/guest:/bin/sh\n"

const partitionTable = `label: gpt
start=1MiB, size=64MiB, type=uefi, name="EFI"
size=1800MiB, type=linux, name="root"
size=128MiB, type=swap, name="swap"
`

// makeFirstDisk makes a GPT disk at path with an EFI system partition, an ext4
// root filled from this machine's own files, and swap, using the tools that an
// installer uses. work is an empty folder for its parts.
func makeFirstDisk(ctx context.Context, path, work string) error {
	tree := filepath.Join(work, "tree")
	if err := fillTree(tree, rootBudget); err != nil {
		return err
	}
	disk, err := os.Create(path)
	if err != nil {
		return err
	}
	defer disk.Close()
	if err := disk.Truncate(diskSize); err != nil {
		return err
	}
	if err := tool(ctx, strings.NewReader(partitionTable), "sfdisk", "-q", path); err != nil {
		return err
	}

	esp, root, swap := filepath.Join(work, "esp"), filepath.Join(work, "root"), filepath.Join(work, "swap")
	loader := filepath.Join(work, "loader")
	if err := os.WriteFile(loader, []byte("a boot loader would be here\n"), 0o644); err != nil {
		return err
	}
	for _, part := range []struct {
		path  string
		start int64
		size  int64
		make  [][]string
	}{
		{esp, espStart, espSize, [][]string{
			{"mkfs.vfat", "-F", "32", "-n", "EFI", esp},
			{"mmd", "-i", esp, "::EFI", "::EFI/BOOT"},
			{"mcopy", "-i", esp, loader, "::EFI/BOOT/BOOTX64.EFI"},
		}},
		{root, rootStart, rootSize, [][]string{{"mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", tree, root}}},
		{swap, swapStart, swapSize, [][]string{{"mkswap", "-q", "-L", "swap", swap}}},
	} {
		if err := os.WriteFile(part.path, nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(part.path, part.size); err != nil {
			return err
		}
		for _, args := range part.make {
			if err := tool(ctx, nil, args[0], args[1:]...); err != nil {
				return err
			}
		}
		if err := copySparse(disk, part.start, part.path); err != nil {
			return err
		}
		if err := os.Remove(part.path); err != nil {
			return err
		}
	}
	return disk.Close()
}

// makeSecondDisk makes path from the disk at first as a day of use leaves it:
// files deleted, changed and added, and in its free blocks the remains of a
// file that was written and deleted again.
func makeSecondDisk(ctx context.Context, path, first, work string) error {
	disk, err := os.Create(path)
	if err != nil {
		return err
	}
	defer disk.Close()
	if err := disk.Truncate(diskSize); err != nil {
		return err
	}
	if err := copySparse(disk, 0, first); err != nil {
		return err
	}
	if err := disk.Close(); err != nil {
		return err
	}

	garbage, log, passwd := filepath.Join(work, "garbage"), filepath.Join(work, "log"), filepath.Join(work, "passwd")
	if err := os.WriteFile(passwd, []byte(dayTwoPasswd), 0o644); err != nil {
		return err
	}
	if err := writeRandom(garbage, garbageBudget); err != nil {
		return err
	}
	if err := writeLog(log); err != nil {
		return err
	}
	fsys := fmt.Sprintf("%s?offset=%d", path, rootStart)
	// What one run deletes another may overwrite, so the garbage comes last.
	for _, script := range []string{
		"rm etc/passwd\nmkdir var\nmkdir var/log\nwrite " + log + " var/log/today.log\nwrite " + passwd + " etc/passwd\n",
		"write " + garbage + " var/garbage\n",
		"rm var/garbage\n",
	} {
		if err := debugfs(ctx, fsys, work, script); err != nil {
			return err
		}
	}
	return nil
}

// debugfs runs a script of debugfs(8) on a file system. debugfs exits 0 whatever
// its commands say, so what it says on stderr beyond its banner is the error.
func debugfs(ctx context.Context, fsys, work, script string) error {
	cmds := filepath.Join(work, "commands")
	if err := os.WriteFile(cmds, []byte(script), 0o600); err != nil {
		return err
	}
	cmd := toolCommand(ctx, "debugfs", "-w", "-f", cmds, fsys)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("debugfs: %w: %s", err, said.String())
	}
	for line := range strings.Lines(said.String()) {
		if !strings.HasPrefix(line, "debugfs ") {
			return fmt.Errorf("debugfs: %s", strings.TrimSpace(line))
		}
	}
	return nil
}

// errBudget ends a walk that has copied enough.
var errBudget = errors.New("enough")

// fillTree copies regular files of this machine below dir until budget bytes
// are there.
func fillTree(dir string, budget int64) error {
	for _, top := range []string{"/etc", "/usr/sbin", "/usr/bin", "/usr/lib", "/usr/share"} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return nil // what cannot be read is not needed
			case d.IsDir():
				return os.MkdirAll(filepath.Join(dir, path), 0o755)
			case !d.Type().IsRegular():
				return nil
			}
			info, err := d.Info()
			if err != nil || info.Size() > budget/8 {
				return nil
			}
			if budget -= info.Size(); budget < 0 {
				return errBudget
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			return os.WriteFile(filepath.Join(dir, path), data, 0o644)
		})
		if errors.Is(err, errBudget) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("copy %s: %w", top, err)
		}
	}
	return nil
}

func writeRandom(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		return err
	}
	return f.Close()
}

// writeLog writes some megabytes that look like a day's log.
func writeLog(path string) error {
	var b strings.Builder
	for i := range 60000 {
		fmt.Fprintf(&b, "2026-11-22T%02d:%02d:%02dZ host daemon[%d]: request %d served in %d us\n",
			i/2500%24, i/42%60, i%60, 1000+i%17, i, 100+i*i%9000)
	}
	return os.WriteFile(path, []byte(b.String()), 0o600)
}

// copySparse copies the data of the file at src, not its holes, into dst at
// offset off.
func copySparse(dst *os.File, off int64, src string) error {
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: seek data: %w", src, err)
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("%s: seek hole: %w", src, err)
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, off+start), io.NewSectionReader(f, start, end-start)); err != nil {
			return err
		}
		at = end
	}
}

// tool runs a program of the system and returns what it said if it failed.
func tool(ctx context.Context, stdin io.Reader, name string, args ...string) error {
	cmd := toolCommand(ctx, name, args...)
	cmd.Stdin = stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// toolCommand finds name also where only root's path leads.
func toolCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	if _, err := exec.LookPath(name); err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				name = filepath.Join(dir, name)
				break
			}
		}
	}
	return exec.CommandContext(ctx, name, args...)
}
