package guest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestQuote(t *testing.T) {
	args := []string{"qemu-system-x86_64", "-drive", "file=nbd+unix:///a@b?socket=/x y", "", "it's", "$HOME", "a\nb"}
	out, err := exec.Command("sh", "-c", `f() { for a; do printf '%s\0' "$a"; done; }; f `+Quote(args)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(got, args) {
		t.Errorf("the shell makes %q of %q", got, Quote(args))
	}
	if got := Quote(args[:2]); got != "qemu-system-x86_64 -drive" {
		t.Errorf("%q is quoted without need", got)
	}
}

func TestURI(t *testing.T) {
	for _, tc := range []struct{ network, address, export, want string }{
		{"unix", "/run/nbd.sock", "web/01", "nbd+unix:///web/01?socket=/run/nbd.sock"},
		{"unix", "/a b/n?x.sock", "throw-away:web/01@2026/1127.1", "nbd+unix:///throw-away:web/01@2026/1127.1?socket=/a%20b/n%3Fx.sock"},
		{"tcp", "[::1]:10809", "vdisk:12", "nbd://[::1]:10809/vdisk:12"},
		{"tcp", "host:10809", "files/a b.vdisk", "nbd://host:10809/files/a%20b.vdisk"},
	} {
		if got := URI(tc.network, tc.address, tc.export); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

func TestCommand(t *testing.T) {
	m := &Machine{URI: "nbd+unix:///a?socket=/x,y"}
	line := Quote(m.Command())
	for _, want := range []string{"if=virtio", "'file=nbd+unix:///a?socket=/x,,y,format=raw", "-nic user,model=virtio-net-pci", "accel=kvm:tcg"} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
	for _, bad := range []string{"-bios", "snapshot"} {
		if strings.Contains(line, bad) {
			t.Errorf("%s in %s", bad, line)
		}
	}
	m = &Machine{URI: "u", Snapshot: true, IDE: true, Firmware: "/f", More: []string{"-m", "4g", "-nic", "none"}}
	line = Quote(m.Command())
	if !strings.Contains(line, "if=ide,discard=unmap,snapshot=on") || !strings.HasSuffix(line, "-bios /f -m 4g -nic none") || strings.Contains(line, "user") {
		t.Error(line)
	}
}

// run runs a program of the system, wherever root's path leads.
func run(t *testing.T, stdin, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			t.Skipf("no %s (packages fdisk, dosfstools, mtools, ntfs-3g)", name)
		}
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

const mib = 1 << 20

// TestLook makes disks as installers do.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	esp, empty, ntfs := filepath.Join(dir, "esp"), filepath.Join(dir, "empty"), filepath.Join(dir, "ntfs")
	for _, name := range []string{esp, empty, ntfs} {
		if err := os.WriteFile(name, make([]byte, 8*mib), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("MTOOLS_SKIP_CHECK", "1")
	run(t, "", "mkfs.vfat", esp)
	run(t, "", "mmd", "-i", esp, "::efi", "::efi/Boot")
	loader := filepath.Join(dir, "loader")
	if err := os.WriteFile(loader, []byte("MZ"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", "mcopy", "-i", esp, loader, "::efi/Boot/bootX64.efi")
	run(t, "", "mkfs.vfat", empty)
	run(t, "", "mmd", "-i", empty, "::EFI", "::EFI/debian")
	run(t, "", "mkfs.ntfs", "-q", "-F", ntfs)
	const uefi, bios, linux, basic = "U", "21686148-6449-6E6F-744E-656564454649", "L", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
	const legacy = ", attrs=LegacyBIOSBootable"
	for _, tc := range []struct {
		name  string
		table string // gpt or dos; empty for none
		parts []string
		files []string
		code  bool
		want  Needs
	}{
		{name: "nothing"},
		{name: "code alone", code: true},
		{"gpt with a loader", "gpt", []string{uefi, linux}, []string{esp}, false, Needs{UEFI: true}},
		{"the same, and code that leads nowhere", "gpt", []string{uefi, linux}, []string{esp}, true, Needs{UEFI: true}},
		{"the same, with a partition for GRUB", "gpt", []string{uefi, bios}, []string{esp}, true, Needs{}},
		{"the same, with syslinux", "gpt", []string{uefi, linux + legacy}, []string{esp}, true, Needs{}},
		{"for GRUB, but no code", "gpt", []string{uefi, bios}, []string{esp}, false, Needs{UEFI: true}},
		{"no loader", "gpt", []string{uefi, linux}, []string{empty}, false, Needs{}},
		{"no file system", "gpt", []string{uefi, linux}, nil, false, Needs{}},
		{"the loader is elsewhere", "gpt", []string{linux, linux}, []string{esp}, false, Needs{}},
		{"mbr with a loader", "dos", []string{"ef", "83"}, []string{esp}, false, Needs{UEFI: true}},
		{"mbr with both", "dos", []string{"ef", "83"}, []string{esp}, true, Needs{}},
		{"Windows", "gpt", []string{uefi, basic}, []string{esp, ntfs}, true, Needs{UEFI: true, IDE: true}},
		{"old Windows", "dos", []string{"7"}, []string{ntfs}, true, Needs{IDE: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			disk := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(disk, make([]byte, 24*mib), 0o600); err != nil {
				t.Fatal(err)
			}
			if tc.table != "" {
				script := "label: " + tc.table + "\n"
				for _, p := range tc.parts {
					script += "size=8MiB, type=" + p + "\n"
				}
				run(t, script, "sfdisk", "-q", disk)
			}
			b, err := os.ReadFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			for i, name := range tc.files {
				part, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				copy(b[mib+8*mib*i:], part)
			}
			if tc.code {
				b[0], b[510], b[511] = 0xfa, 0x55, 0xaa
			}
			got, err := Look(bytes.NewReader(b), int64(len(b)))
			if err != nil || got != tc.want {
				t.Errorf("%+v, %v, want %+v", got, err, tc.want)
			}
		})
	}
	if n, err := Look(bytes.NewReader(nil), 0); err != nil || n != (Needs{}) {
		t.Errorf("a disk of no bytes: %+v, %v", n, err)
	}
	if _, err := Look(bytes.NewReader(nil), mib); err == nil {
		t.Error("a disk that cannot be read needs nothing")
	}
}
