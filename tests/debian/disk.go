package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"strata/tests/mount/qemu"
)

// A Disk tells what to make. The zero value is a small disk of the release that
// this machine has.
type Disk struct {
	Release  string   // its code name; "" is this machine's
	Packages []string // besides systemd and the kernel for clouds
	Bring    []string // packages that lie in /root as files, and are not installed
	SizeMB   int      // of the disk; 0 is 1024
	Install  int      // tells apart disks that are made alike, each by itself
}

// base is what every disk has.
var base = []string{"systemd-sysv", "initramfs-tools", "linux-image-cloud-amd64"}

// An Image is a disk that was made, and its kernel, which QEMU can start without
// the disk's boot loader.
type Image struct {
	Path   string // raw; others use it too, so it is not to be written to
	Kernel string // without its compression: see qemu.Unpack
	Initrd string // finds the root at once; the disk's own takes a third of a start
	Root   string // what the kernel's root= is
}

// Number of the root partition, and where partitions begin, in sectors of 512.
const (
	RootPart  = 3
	RootStart = rootStart * 512 // in bytes

	loaderStart = 2048
	swapStart   = 2 * 2048
	rootStart   = 66 * 2048
)

// ErrNoArchive is what Make returns where Debian's archive cannot be reached.
var ErrNoArchive = errors.New("no archive of Debian packages can be reached")

// Missing returns the Debian packages that Make needs and that are not here.
func Missing() (list []string) {
	tools := map[string]string{"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "mkswap": "util-linux", "sfdisk": "fdisk", "lz4": "lz4", "busybox": "busybox-static",
		"grub-mkimage": "grub-common", grubDir + "/boot.img": "grub-pc-bin"}
	if os.Geteuid() != 0 {
		tools["fakeroot"] = "fakeroot"
	}
	for name, pkg := range tools {
		if _, err := os.Stat(name); err == nil {
			continue
		}
		if _, err := look(name); err != nil {
			list = append(list, pkg)
		}
	}
	list = append(list, qemu.Missing()...)
	slices.Sort(list)
	return list
}

// look finds a program, also one of root's.
func look(name string) (string, error) {
	p, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			p, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	return p, err
}

// Cache returns the folder that holds the disks that were made.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "strata", "disks"), err
}

// Make returns the disk, and makes it if nobody has before. That takes a minute
// or two, and the archive that apt is set up with.
func (d Disk) Make(ctx context.Context) (*Image, error) {
	mirror, release, err := archive(ctx)
	if err != nil {
		return nil, err
	}
	if d.Release == "" {
		d.Release = release
	}
	if d.SizeMB == 0 {
		d.SizeMB = 1024
	}
	recipe, err := json.Marshal([]any{d, base, early, extra(""), rootModules, mountRoot, initScript})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(recipe)
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x", d.Release, sum[:4]))
	sum[6], sum[8] = sum[6]&0x0f|0x40, sum[8]&0x3f|0x80 // a UUID says of itself what it is
	id := fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	img := &Image{Path: filepath.Join(dir, "disk.raw"), Kernel: filepath.Join(dir, "kernel"), Initrd: filepath.Join(dir, "initrd"), Root: fmt.Sprintf("/dev/vda%d", RootPart)}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // and the lock with it
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); err == nil {
		return img, nil
	}
	tmp, err := os.MkdirTemp(cache, "making")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := d.make(ctx, tmp, mirror, id); err != nil {
		return nil, fmt.Errorf("make a disk with Debian %s: %w", d.Release, err)
	}
	return img, os.Rename(tmp, dir)
}

// Get is Make for a test, which is skipped where there is no disk to be had.
func (d Disk) Get(t testing.TB) *Image {
	t.Helper()
	if list := Missing(); len(list) > 0 {
		t.Skipf("no %s here", strings.Join(list, ", "))
	}
	img, err := d.Make(t.Context())
	if errors.Is(err, ErrNoArchive) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// archive returns where apt gets this machine's own release, and its code name.
func archive(ctx context.Context) (mirror, release string, err error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			release = strings.Trim(name, `"`)
		}
	}
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", "", fmt.Errorf("%w: apt-get indextargets: %w", ErrNoArchive, err)
	}
	for line := range strings.Lines(string(out)) {
		if uri, ok := strings.CutPrefix(strings.TrimSpace(line), release+" main "); ok {
			return uri, release, nil
		}
	}
	return "", "", fmt.Errorf("%w: apt has none for %q", ErrNoArchive, release)
}

// early is what the root has before the kernel is installed, which makes the
// initial root file system: that needs nothing but this machine's disk.
const early = `mkdir -p "$1/etc/initramfs-tools/conf.d"
echo MODULES=list >"$1/etc/initramfs-tools/conf.d/modules"
printf '%s\n' virtio_pci virtio_blk ext4 >"$1/etc/initramfs-tools/modules"`

// obey is the program behind the second serial port. Each line that comes is a
// command; what it prints is followed by a line "done" with its status.
const obey = `#!/bin/sh
exec <>/dev/ttyS1 >&0 2>&0
stty raw -echo
echo ready
while read -r line; do
	sh -c "$line" </dev/null
	echo "done $?"
done
`

// A file is one that the root has besides those of packages.
type file struct {
	Mode int64  // as stat(2) has it; a regular file's may be without its kind
	Data string // of a symbolic link, where it leads
}

// masked are units that do nothing here, but for taking their time.
var masked = []string{"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "getty-static.service"}

// extra returns these files, for a root whose UUID is id.
func extra(id string) map[string]file {
	files := map[string]file{
		"etc/hostname":   {0o644, "debian\n"},
		"etc/hosts":      {0o644, "127.0.0.1 localhost debian\n"},
		"etc/machine-id": {0o444, strings.ReplaceAll(id, "-", "") + "\n"},
		// What has to be done to the file system is for the kernel to do.
		"etc/fstab":                       {0o644, "UUID=" + id + " / ext4 errors=remount-ro 0 0\nPARTLABEL=swap none swap nofail,x-systemd.device-timeout=1h 0 0\n"},
		"usr/local/sbin/obey":             {0o755, obey},
		"etc/systemd/system/obey.service": {0o644, "[Unit]\nDescription=Commands at the second serial port\n[Service]\nExecStart=/usr/local/sbin/obey\n"},
		"etc/systemd/system/multi-user.target.wants/obey.service": {qemu.Link, "../obey.service"},
		"boot/grub/grub.cfg": {0o644, "linux /vmlinuz root=UUID=" + id + " ro console=ttyS0 panic=-1\ninitrd /initrd.img\nboot\n"},
	}
	for _, unit := range masked {
		files["etc/systemd/system/"+unit] = file{qemu.Link, "/dev/null"}
	}
	return files
}

// make puts the disk, its kernel and its initrd into dir, which is empty.
func (d Disk) make(ctx context.Context, dir, mirror, id string) error {
	root, more, tree := filepath.Join(dir, "root.tar"), filepath.Join(dir, "extra.tar"), filepath.Join(dir, "tree")
	args := []string{"--variant=minbase", "--include=" + strings.Join(slices.Concat(base, d.Packages), ","), "--components=main",
		"--aptopt=Acquire::Languages \"none\"", "--dpkgopt=force-unsafe-io",
		"--essential-hook=" + early, `--customize-hook=chroot "$1" passwd -q -d root`}
	for _, p := range d.Bring {
		args = append(args, `--customize-hook=chroot "$1" sh -c 'cd /root && apt-get -q download `+p+"'")
	}
	if err := run(ctx, "mmdebstrap", append(args, d.Release, root, mirror)...); err != nil {
		if strings.Contains(err.Error(), "apt-get update") {
			return fmt.Errorf("%w: %w", ErrNoArchive, err)
		}
		return err
	}
	if err := os.WriteFile(more, packTar(extra(id)), 0o600); err != nil {
		return err
	}
	disk := filepath.Join(dir, "disk.raw")
	if err := d.partition(ctx, disk, id); err != nil {
		return err
	}
	// Owners and devices of the tree are real only to root, and to this shell.
	unpack := []string{"sh", "-ec", `mkdir "$1"; tar -xpf "$2" -C "$1" --numeric-owner; tar -xpf "$3" -C "$1"; shift 3; exec "$@"`, "sh", tree, root, more,
		"mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", id, "-d", tree, "-E", fmt.Sprintf("offset=%d,hash_seed=%s", rootStart*512, id), disk,
		fmt.Sprintf("%dk", d.SizeMB*1024-1024-rootStart/2)}
	if os.Geteuid() != 0 {
		unpack = append([]string{"fakeroot", "--"}, unpack...)
	}
	if err := run(ctx, unpack[0], unpack[1:]...); err != nil {
		return err
	}
	if err := addSwap(ctx, disk, id); err != nil {
		return err
	}
	if err := addGRUB(ctx, disk, id); err != nil {
		return err
	}
	if err := takeKernel(dir, tree); err != nil {
		return err
	}
	for _, name := range []string{root, more, tree} {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

// run runs a program, whose messages are in the error.
func run(ctx context.Context, name string, args ...string) error {
	path, err := look(name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		out = out[max(0, len(out)-4000):]
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// packTar returns the files as an archive, root's.
func packTar(files map[string]file) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f := files[name]
		h := &tar.Header{Name: name, Mode: f.Mode & 0o7777, Typeflag: tar.TypeReg, Size: int64(len(f.Data))}
		if f.Mode == qemu.Link {
			h.Typeflag, h.Linkname, h.Size, f.Data = tar.TypeSymlink, f.Data, 0, ""
		}
		w.WriteHeader(h) // errors come back from Close
		w.Write([]byte(f.Data))
	}
	if err := w.Close(); err != nil {
		panic(err) // of a buffer
	}
	return b.Bytes()
}

// partition makes the disk, with its table.
func (d Disk) partition(ctx context.Context, disk, id string) error {
	f, err := os.Create(disk)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(int64(d.SizeMB) << 20); err != nil {
		return err
	}
	table := filepath.Join(filepath.Dir(disk), "table")
	defer os.Remove(table)
	text := fmt.Sprintf("label: gpt\nlabel-id: %s\n", id)
	for i, p := range []struct {
		start, end int
		kind, name string
	}{{loaderStart, swapStart, "21686148-6449-6E6F-744E-656564454649", "loader"}, {swapStart, rootStart, "S", "swap"}, {rootStart, d.SizeMB*2048 - 2048, "L", "root"}} {
		text += fmt.Sprintf("start=%d, size=%d, type=%s, name=%s, uuid=%s%02d\n", p.start, p.end-p.start, p.kind, p.name, id[:len(id)-2], i+1)
	}
	if err := os.WriteFile(table, []byte(text), 0o600); err != nil {
		return err
	}
	return run(ctx, "sh", "-ec", `sfdisk -q "$1" <"$2"`, "sh", disk, table)
}

// addSwap puts the first page of a swap file, which is all that mkswap writes,
// into its partition.
func addSwap(ctx context.Context, disk, id string) error {
	swap := disk + ".swap"
	defer os.Remove(swap)
	f, err := os.OpenFile(swap, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate((rootStart - swapStart) * 512); err != nil {
		return err
	}
	if err := run(ctx, "mkswap", "-q", "-U", id[:len(id)-2]+"ff", swap); err != nil {
		return err
	}
	page := make([]byte, 4096)
	if _, err := f.ReadAt(page, 0); err != nil {
		return err
	}
	return patch(disk, page, swapStart*512)
}

// patch writes b into a file.
func patch(name string, b []byte, off int64) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, off)
	return errors.Join(err, f.Close())
}

// What the kernel needs for its root, and how it is mounted, as Initrd has it.
var rootModules = []string{"virtio_pci", "virtio_blk", "crc32c_generic", "ext4"}

const mountRoot = `while ! test -b $root; do :; done
mount -t ext4 -o ro $root /new`

// takeKernel takes the kernel out of a root, and makes an initrd with what it
// needs to mount that.
func takeKernel(dir, tree string) error {
	kernel, err := qemu.KernelIn(tree)
	if err != nil {
		return err
	}
	image, err := kernel.Image()
	if err != nil {
		return err
	}
	initrd, err := Initrd(kernel, rootModules, mountRoot)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "kernel"), image, 0o644), os.WriteFile(filepath.Join(dir, "initrd"), initrd, 0o644))
}

// initScript is the first program of the initial root file system; between its
// lines are those that mount the root.
var initScript = [2]string{`#!/bin/busybox sh
/bin/busybox mkdir -p /sbin /dev /proc /sys /new
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for m in /` + qemu.ModuleDir + `/*; do insmod $m; done
for word in $(cat /proc/cmdline); do
	case $word in root=*) root=${word#root=} ;; esac
done
`, `
for dir in dev proc sys; do mount --move /$dir /new/$dir; done
exec switch_root /new /sbin/init
`}

// Initrd returns an initial root file system that loads modules, mounts the root
// on /new as the lines of a shell say, and starts what is there. They find the
// kernel's root= in $root, and the commands of busybox.
func Initrd(k *qemu.Kernel, modules []string, mount string) ([]byte, error) {
	busybox, err := qemu.Busybox()
	if err != nil {
		return nil, err
	}
	return k.Root(map[string]qemu.File{
		"bin/busybox": {Mode: 0o100755, Data: busybox},
		"init":        {Mode: 0o100755, Data: []byte(initScript[0] + mount + initScript[1])},
	}, modules...)
}
