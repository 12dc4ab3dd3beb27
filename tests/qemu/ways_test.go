//go:build !race

package qemu

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strata/tests/debian"
	"strata/tests/mount/qemu"
)

// needTrial skips what takes minutes, unless it is asked for. Two guests run at
// once then.
func needTrial(t *testing.T) {
	t.Helper()
	if os.Getenv("STRATA_TRIAL") == "" {
		t.Skip("STRATA_TRIAL is not set")
	}
	t.Parallel()
}

// Test9pfuse has a guest live on the file that bin/9pfuse shows.
func Test9pfuse(t *testing.T) {
	needTrial(t)
	w := newWorld(t)
	dir := t.TempDir()
	// It goes on in the background, with its streams.
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	mount := w.Command(t.Context(), "9pfuse", filepath.Join(w.Dir, "vdisk.sock"), dir)
	mount.Stdout, mount.Stderr = out, out
	if err := mount.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		if _, err := os.Stat("/dev/fuse"); err != nil || bytes.Contains(text, []byte("not permitted")) {
			t.Skipf("mounting is not possible here: %s", text)
		}
		t.Fatalf("9pfuse: %v: %s", err, text)
	}
	umount := []string{"fusermount3", "-u", dir}
	if os.Geteuid() == 0 {
		umount = []string{"umount", dir}
	}
	t.Cleanup(func() {
		if out, err := exec.Command(umount[0], umount[1:]...).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	live(t, w, func(_ *testing.T, w *world, name string) debian.Machine {
		return debian.Machine{Drives: []string{"file=" + filepath.Join(dir, "images", name, "disk") + ",format=raw"}, Image: w.img}
	})
}

// mountTree is how a guest comes to a root that is a file of a server: the
// partition of an image, in a loop device.
const mountTree = `ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 up
mkdir /tree
mount -t 9p -o trans=tcp,port=564,version=9p2000.L,cache=none,msize=524288,uname=root,access=any 10.0.2.100 /tree
losetup /dev/loop0 /tree/images/$root/parts/3/data
mount -t ext4 -o ro /dev/loop0 /new`

// TestV9fs has a guest live on a partition that its own kernel reaches by 9P.
func TestV9fs(t *testing.T) {
	needTrial(t)
	kernel, err := qemu.FindKernel("6.12")
	if err != nil {
		t.Skip(err)
	}
	w := newWorld(t)
	image, err := kernel.Image()
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := debian.Initrd(kernel, []string{"virtio_pci", "virtio_net", "9p", "9pnet_fd", "loop", "crc32c_generic", "ext4"}, mountTree)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	img := debian.Image{Kernel: filepath.Join(dir, "kernel"), Initrd: filepath.Join(dir, "initrd")}
	if err := os.WriteFile(img.Kernel, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(img.Initrd, initrd, 0o600); err != nil {
		t.Fatal(err)
	}
	live(t, w, func(_ *testing.T, w *world, name string) debian.Machine {
		here := img
		here.Root = name
		// The guest's address 10.0.2.100 is the socket, since who comes by TCP
		// may not write.
		return debian.Machine{Image: &here, Append: "net.ifnames=0 systemd.swap=no", Args: []string{
			"-chardev", "socket,id=tree,path=" + filepath.Join(w.Dir, "vdisk.sock"),
			"-netdev", "user,id=net,restrict=on,guestfwd=tcp:10.0.2.100:564-chardev:tree", "-device", "virtio-net-pci,netdev=net"}}
	})
}

// TestRun has vdisk qemu run a disk, which is booted by its own boot loader: the
// live one; a throw-away of it, of which nothing stays; and one of a snapshot.
func TestRun(t *testing.T) {
	needTrial(t)
	w := newWorld(t)
	run := func(args ...string) *debian.Guest {
		g := debian.Start(t, debian.Machine{Run: w.Command(t.Context(), "vdisk", append(append([]string{"qemu", "--run"}, args...), "--")...)})
		g.Ready(t)
		return g
	}
	g := run("deb")
	if line := g.Do(t, "cat /proc/cmdline"); !strings.Contains(line, "BOOT_IMAGE=/vmlinuz") {
		t.Errorf("booted with %q, which is not what GRUB says", line)
	}
	g.Do(t, "dpkg -i ~root/hello_*.deb && hello")
	g.PowerOff(t)
	off := w.snap(t, "off")
	w.check(t, off)

	g = run("--throw-away", "deb")
	g.Do(t, "hello && dpkg -P hello && touch /srv/thrown && sync")
	g.PowerOff(t)
	g = run("deb@imported")
	g.Do(t, "test ! -e /usr/bin/hello && test ! -e /srv/thrown && touch /srv/thrown && sync")
	g.Kill()
	if again := w.snap(t, "again"); again != off {
		t.Errorf("after two throw-aways the disk is %s, it was %s", again, off)
	}
	if list := w.vdisk(t, "ls"); strings.TrimSpace(list) != "deb" {
		t.Errorf("besides deb there is %q", list)
	}
}
