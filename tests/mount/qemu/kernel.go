package qemu

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// A Kernel is a Debian kernel package, unpacked: its image and its modules.
type Kernel struct {
	Release string
	image   string // vmlinuz
	modules string // the folder of the release
}

// Cache returns the folder in which tests/deps.sh unpacks kernel packages.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "strata", "kernels"), err
}

// FindKernel returns a kernel whose release begins with version and a dot,
// that has modules for 9P: from Cache or, if it is installed, from this machine.
func FindKernel(version string) (*Kernel, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	for _, root := range []string{cache, "/"} {
		images, _ := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-"+version+".*"))
		for _, image := range images {
			k := &Kernel{Release: strings.TrimPrefix(filepath.Base(image), "vmlinuz-"), image: image}
			for _, lib := range []string{"lib", "usr/lib"} {
				k.modules = filepath.Join(root, lib, "modules", k.Release)
				if found, _ := filepath.Glob(filepath.Join(k.modules, "kernel/fs/9p/9p.ko*")); len(found) > 0 {
					return k, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("no Linux %s: sh tests/deps.sh kernels unpacks Debian's", version)
}

// KernelIn returns the one kernel of a root file system.
func KernelIn(root string) (*Kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("%s: want one kernel, not %q", root, images)
	}
	k := &Kernel{Release: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-"), image: images[0]}
	k.modules = filepath.Join(root, "lib", "modules", k.Release)
	return k, nil
}

// Image returns the kernel without its compression, as an ELF file, which
// QEMU can start too: emulated, unpacking takes longer than all the rest.
//
// A bzImage begins with sectors of set-up code, whose number is at 0x1f1. In
// it are, as little-endian words, payload_offset at 0x248, counted from its
// end, and payload_length at 0x24c. The payload ends with the length of what
// it unpacks to.
func (k *Kernel) Image() ([]byte, error) {
	b, err := os.ReadFile(k.image)
	if err != nil {
		return nil, err
	}
	if len(b) < 0x250 || string(b[0x202:0x206]) != "HdrS" {
		return nil, fmt.Errorf("%s: not a bzImage", k.image)
	}
	start := (uint64(b[0x1f1])+1)*512 + uint64(binary.LittleEndian.Uint32(b[0x248:]))
	end := start + uint64(binary.LittleEndian.Uint32(b[0x24c:]))
	if end > uint64(len(b)) || end < start+8 {
		return nil, fmt.Errorf("%s: no payload", k.image)
	}
	b, err = expand(b[start : end-4])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.image, err)
	}
	return b, nil
}

// expand undoes the compression of a kernel or a module.
func expand(b []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(b, []byte(elf.ELFMAG)):
		return b, nil
	case bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")):
		d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return d.DecodeAll(b, nil)
	case bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")):
		return filter(b, "xz", "-dc", "--single-stream")
	case bytes.HasPrefix(b, []byte("\x02\x21\x4c\x18")):
		return filter(b, "lz4", "-dc")
	}
	return nil, fmt.Errorf("unknown compression %x", b[:min(4, len(b))])
}

// filter returns what a program makes of b.
func filter(b []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(b)
	return cmd.Output()
}

// A Module is a kernel module, ready to be loaded.
type Module struct {
	Name string
	Data []byte
}

// Modules returns the named modules and all that they need, in the order in
// which they can be loaded. A name for which there is no file is built in.
func (k *Kernel) Modules(names ...string) ([]Module, error) {
	files := map[string]string{}
	err := filepath.WalkDir(k.modules, func(path string, _ os.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok {
			files[moduleName(name)] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var list []Module
	seen := map[string]bool{}
	var load func(name string) error
	load = func(name string) error {
		name = moduleName(name)
		path := files[name]
		if seen[name] || path == "" {
			return nil
		}
		seen[name] = true
		b, err := os.ReadFile(path)
		if err == nil {
			b, err = expand(b)
		}
		if err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
		needs, err := depends(b)
		if err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
		for _, n := range needs {
			if err := load(n); err != nil {
				return err
			}
		}
		list = append(list, Module{name, b})
		return nil
	}
	for _, name := range names {
		if err := load(name); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// depends returns what a module says it needs.
func depends(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("no .modinfo")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(string(info), "\x00") {
		if v, ok := strings.CutPrefix(line, "depends="); ok && v != "" {
			return strings.Split(v, ","), nil
		}
	}
	return nil, nil
}

// Root returns an initial root file system with files, and with modules and what
// they need in ModuleDir, numbered in the order in which they are to be loaded.
func (k *Kernel) Root(files map[string]File, modules ...string) ([]byte, error) {
	list, err := k.Modules(modules...)
	if err != nil {
		return nil, err
	}
	files = maps.Clone(files)
	for i, m := range list {
		files[fmt.Sprintf("%s/%03d-%s", ModuleDir, i, m.Name)] = File{0o100644, m.Data}
	}
	return pack(files), nil
}
