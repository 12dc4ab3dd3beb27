// Package inside is for the init of a guest of package qemu.
//
//	func main() {
//		out, err := inside.Boot()
//		...                      // lines written to out are for the test
//		inside.Reboot()          // which ends the guest
//	}
package inside

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"strata/tests/mount/qemu"
)

// Boot makes a machine of what the kernel has started: with the usual file
// systems, its modules, and the network on which the host is 10.0.2.2. It returns
// where lines for the test go, also with some errors.
func Boot() (out *os.File, err error) {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/mnt"}} {
		os.MkdirAll(m[1], 0o755)
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if console, err := os.OpenFile("/dev/console", os.O_WRONLY, 0); err == nil {
		unix.Dup2(int(console.Fd()), 1)
		unix.Dup2(int(console.Fd()), 2)
	}
	if out, err = os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0); err != nil {
		return nil, err
	}
	modules, err := filepath.Glob("/" + qemu.ModuleDir + "/*")
	if err != nil {
		return out, err
	}
	slices.Sort(modules)
	for _, name := range modules {
		b, err := os.ReadFile(name)
		if err == nil {
			err = unix.InitModule(b, "")
		}
		if err != nil {
			return out, fmt.Errorf("load %s: %w", name, err)
		}
	}
	for name, addr := range map[string][]byte{"lo": nil, "eth0": {10, 0, 2, 15}} {
		if err := up(name, addr); err != nil {
			return out, fmt.Errorf("network %s: %w", name, err)
		}
	}
	return out, os.Setenv("PATH", "/bin")
}

// up gives a network interface an address of a net of 256, if there is one, and
// starts it.
func up(name string, addr []byte) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if addr != nil {
		for _, set := range []struct {
			op uint
			v  []byte
		}{{unix.SIOCSIFADDR, addr}, {unix.SIOCSIFNETMASK, []byte{255, 255, 255, 0}}} {
			if err := req.SetInet4Addr(set.v); err != nil {
				return err
			}
			if err := unix.IoctlIfreq(s, set.op, req); err != nil {
				return err
			}
		}
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req)
}

// Reboot ends the guest. What its file systems have not written is lost.
func Reboot() { unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) }
