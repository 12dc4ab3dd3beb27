package vdisk

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"strata/vdisk/fsys"
	"strata/vdisk/fsys/fsystest"
	"strata/venti/ventitest"
)

// A maker makes file systems of one kind with the tools that people have, and
// looks into them. It skips the test where they are not there.
type maker struct {
	name   string
	size   int64
	region string // what an import calls a disk of it
	dsize  int

	make    func(t *testing.T, img, tree string)             // fills img from a tree and deletes its d1 again
	check   func(t *testing.T, img string)                   // fails the test if the kind's own fsck finds something
	files   func(t *testing.T, img string) map[string]string // as treeFiles does
	add     func(t *testing.T, img, file string)             // makes one more file
	unclean func(t *testing.T, img string)                   // leaves img as a power cut does
	repair  func(t *testing.T, img string)                   // what its driver or fsck does then
	whole   string                                           // why it is stored whole then, empty if it is not
	mount   []string                                         // what mounts it for writing, if anything here does
}

// TestEncoders has every kind of file system made, filled, deleted from and
// littered: what an import leaves out is not missed.
func TestEncoders(t *testing.T) {
	for _, m := range makers() {
		t.Run(m.name, func(t *testing.T) {
			img, want := m.fill(t)
			m.testImport(t, img, want)
			m.testPlaces(t, img)
			m.testChanged(t, img)
			m.testUnclean(t, img, want)
			m.testCopied(t, img)
		})
	}
}

// fill makes an image with garbage in all that is free, and returns it and
// what is in its files.
func (m *maker) fill(t *testing.T) (img string, want map[string]string) {
	t.Helper()
	tr := fsystest.Tree(t, 40, 150000)
	img = sparse(t, m.size)
	m.make(t, img, tr)
	want = treeFiles(t, tr)
	maps.DeleteFunc(want, func(name, _ string) bool { return strings.HasPrefix(name, "d1/") })
	for r, free := range m.free(t, img) {
		litter(t, img, r, free)
	}
	m.check(t, img)
	sameFiles(t, m.files(t, img), want)
	return img, want
}

// free returns what is free in the regions of a disk.
func (m *maker) free(t *testing.T, img string) map[*part][]fsys.Extent {
	t.Helper()
	d := openDisk(t, img)
	_, parts, err := cut(d, keep{})
	if err != nil {
		t.Fatal(err)
	}
	free := make(map[*part][]fsys.Extent)
	for _, p := range parts {
		for x, ok := p.free.next(0); ok; x, ok = p.free.next(x.End()) {
			free[p] = append(free[p], x)
		}
	}
	return free
}

// litter writes garbage to free extents of a part of a disk, but no more than
// a few MiB: it need not be all of it.
func litter(t *testing.T, img string, p *part, free []fsys.Extent) {
	t.Helper()
	f, err := os.OpenFile(img, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rnd := rand.New(rand.NewSource(17))
	b := make([]byte, 64<<10)
	for left := int64(8 * mib); left > 0; left -= 64 << 10 {
		x := free[rnd.Intn(len(free))]
		rnd.Read(b)
		at := x.Off + rnd.Int63n(x.Len)/512*512
		if _, err := f.WriteAt(b[:min(int64(len(b)), x.End()-at)], p.Start+at); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *maker) testImport(t *testing.T, img string, want map[string]string) {
	t.Helper()
	st := ventitest.NewMemory()
	res := importFile(t, st, img, ImportOptions{})
	counts, l := res.region(t, m.region)
	if !l.FreeOmitted || l.DSize != m.dsize || counts.Free == 0 {
		t.Fatalf("got %+v %+v", l, counts)
	}
	used := res.Total.Size
	for _, free := range m.free(t, img) {
		for _, x := range free {
			used -= x.Len
		}
	}
	if stored := res.Total.New + res.Total.Shared; stored > used+used/50 {
		t.Errorf("%d bytes are stored, %d are in use", stored, used)
	}
	out := exportFile(t, st, res.Score)
	if again := importFile(t, st, out, ImportOptions{}); again.Score != res.Score || again.Total.NewBlocks != 0 {
		t.Errorf("the export is %v, want %v; %d blocks are new", again.Score, res.Score, again.Total.NewBlocks)
	}
	m.check(t, out)
	sameFiles(t, m.files(t, out), want)
	exact := importFile(t, st, img, ImportOptions{Exact: true})
	sameBytes(t, "exact", exportFile(t, st, exact.Score), img)
}

// testPlaces puts the file system at two places of two disks.
func (m *maker) testPlaces(t *testing.T, img string) {
	t.Helper()
	st := ventitest.NewMemory()
	importFile(t, st, partitioned(t, "dos", m.size+8*mib, place{img, 2048, "83"}), ImportOptions{})
	res := importFile(t, st, partitioned(t, "dos", m.size+4*mib, place{img, 63, "83"}), ImportOptions{})
	for i, r := range res.Regions {
		if l := res.Layout.Regions[i]; l.Kind != "mbr" && l.Kind != "gap" && r.NewBlocks > 0 {
			t.Errorf("at sector 63: %d blocks of %s are new", r.NewBlocks, r.Name)
		}
	}
}

// testChanged adds a file and imports the image again, with the one before as
// the base and without.
func (m *maker) testChanged(t *testing.T, img string) {
	t.Helper()
	img = copyOf(t, img)
	st := ventitest.NewMemory()
	before := importFile(t, st, img, ImportOptions{})
	file := filepath.Join(t.TempDir(), "a new file")
	fsystest.Noise(t, file, 123456)
	m.add(t, img, file)
	full := importFile(t, ventitest.NewMemory(), img, ImportOptions{})
	inc := importFile(t, st, img, ImportOptions{Base: before.Score})
	if inc.Score != full.Score || inc.Score == before.Score {
		t.Errorf("incremental: got %v, want %v; %v before", inc.Score, full.Score, before.Score)
	}
	if _, l := full.region(t, m.region); !l.FreeOmitted || inc.Total.New < 123456 || inc.Total.New > 3*mib {
		t.Errorf("incremental: %d bytes new: %+v", inc.Total.New, l)
	}
}

// testUnclean imports the image after a power cut.
func (m *maker) testUnclean(t *testing.T, img string, want map[string]string) {
	t.Helper()
	img = copyOf(t, img)
	m.unclean(t, img)
	st := ventitest.NewMemory()
	res := importFile(t, st, img, ImportOptions{})
	out := exportFile(t, st, res.Score)
	if !slices.ContainsFunc(res.Layout.Regions, func(r Region) bool { return r.Whole == m.whole && r.FreeOmitted == (m.whole == "") }) {
		t.Errorf("unclean: got %+v, want whole because %q", res.Layout, m.whole)
	}
	if m.whole != "" {
		sameBytes(t, "stored whole", out, img)
		return
	}
	m.repair(t, img)
	m.repair(t, out)
	got := m.files(t, out)
	sameFiles(t, got, m.files(t, img))
	for name, sum := range want {
		if got[name] != sum {
			t.Errorf("unclean: %s: got %q, want %q", name, got[name], sum)
		}
	}
}

// testCopied imports a copy of the image that is made while it is mounted and
// written to, as a machine leaves it that loses its power.
func (m *maker) testCopied(t *testing.T, img string) {
	t.Helper()
	if m.mount == nil {
		return
	}
	img = copyOf(t, img)
	var cut string
	mounted(t, img, func(dir string) {
		run(t, "", "cp", "-r", filepath.Join(dir, "d2"), filepath.Join(dir, "copy"))
		run(t, "", "rm", "-r", filepath.Join(dir, "d3"))
		run(t, "", "sync", "-f", dir)
		run(t, "", "cp", "-r", filepath.Join(dir, "d4"), filepath.Join(dir, "more"))
		run(t, "", "rm", "-r", filepath.Join(dir, "copy", "a file with number 12"))
		cut = copyOf(t, img)
	}, m.mount...)
	st := ventitest.NewMemory()
	res := importFile(t, st, cut, ImportOptions{})
	out := exportFile(t, st, res.Score)
	if _, l := res.region(t, m.region); !l.FreeOmitted {
		t.Logf("copied while mounted, it is stored whole: %s", l.Whole)
		sameBytes(t, "copied while mounted", out, cut)
		return
	}
	sameFiles(t, m.files(t, out), m.files(t, cut))
}

// copyOf copies an image.
func copyOf(t testing.TB, img string) string {
	t.Helper()
	return extract(t, img, 0, fileSize(t, img))
}

func fileSize(t testing.TB, name string) int64 {
	t.Helper()
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

// patch replaces bytes of a file.
func patch(t testing.TB, name string, off int64, b ...byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// makers returns all kinds but those of ext, which have tests of their own.
func makers() []maker {
	return []maker{
		fatMaker("FAT12 of 2 KiB", 7*mib, 2048, 0x25, "-F", "12", "-s", "4"),
		fatMaker("FAT16 of 1 KiB", 24*mib, 1024, 0x25, "-F", "16", "-s", "2"),
		fatMaker("FAT32 of 512 bytes", 40*mib, 512, 0x41, "-F", "32", "-s", "1"),
		ntfsMaker("NTFS of 512 bytes", 40*mib, 512),
		ntfsMaker("NTFS of 4 KiB", 60*mib, 4096),
		exfatMaker("exFAT of 512 bytes", 40*mib, 512),
		exfatMaker("exFAT of 32 KiB", 60*mib, 32<<10),
		xfsMaker("XFS of 1 KiB", 1024),
		xfsMaker("XFS of 4 KiB", 4096),
		btrfsMaker(),
		lvmMaker(),
		fatMaker("FAT32 of 4 KiB", 300*mib, 4096, 0x41, "-F", "32", "-s", "8"),
	}
}

// mounted calls f with the directory that an image is mounted on, and skips the
// test where it cannot be. mount is mount(8), or a program for FUSE that is
// told to stay in the foreground: it is done with the image when it ends.
func mounted(t *testing.T, img string, f func(dir string), command ...string) {
	t.Helper()
	dir := t.TempDir()
	mount := command[0]
	if mount == "mount.exfat-fuse" { // it takes no files
		loop := loopDevice(t, img)
		defer loop.Close()
		img = loop.Name()
	}
	cmd := exec.Command(need(t, mount), append(command[1:], img, dir)...)
	var msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &msg, &msg
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Skip(err)
	}
	defer mounts.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if mount == "mount" {
		err = <-ended
		ended <- nil
	} else {
		err = awaitMount(mounts, dir, ended)
	}
	if err != nil {
		t.Skipf("%s: %v: %s", mount, err, msg.String())
	}
	// A test that fails or skips must not leave it mounted.
	defer func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
			exec.Command("umount", "-l", dir).Run()
		}
		if err := <-ended; err != nil {
			t.Errorf("%s: %v: %s", mount, err, msg.String())
		}
	}()
	f(dir)
}

// loopDevice returns a device for a file, which the kernel takes back when it is
// closed, or skips the test.
func loopDevice(t *testing.T, img string) *os.File {
	t.Helper()
	out, err := exec.Command(need(t, "losetup"), "-f", "--show", img).CombinedOutput()
	if err != nil {
		t.Skipf("losetup: %v: %s", err, out)
	}
	name := strings.TrimSpace(string(out))
	loop, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "", "losetup", "-d", name)
	return loop
}

// awaitMount waits until something is mounted on dir or the program that is
// to do it has ended. The kernel tells those who poll the list of mounts when
// it changes.
func awaitMount(mounts *os.File, dir string, ended chan error) error {
	for {
		list, err := os.ReadFile(mounts.Name())
		if err != nil {
			return err
		}
		if bytes.Contains(list, []byte(" "+dir+" ")) {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("it has ended: %v", err)
		default:
		}
		// Not for ever: the program may end without a mount.
		fds := []unix.PollFd{{Fd: int32(mounts.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, 100); err != nil && err != unix.EINTR {
			return err
		}
	}
}

// fillMounted fills a mounted file system from a tree, in two steps so that
// its files lie between free space, and deletes its d1.
func fillMounted(t *testing.T, dir, tree string) {
	t.Helper()
	run(t, "", "cp", "-r", tree+"/.", dir)
	run(t, "", "rm", "-r", filepath.Join(dir, "d1"))
	run(t, "", "sync", "-f", dir)
}

// mountedFiles returns what is in the files of an image once it is mounted.
func mountedFiles(t *testing.T, img string, command ...string) (files map[string]string) {
	t.Helper()
	mounted(t, img, func(dir string) { files = treeFiles(t, dir) }, command...)
	return files
}

func ntfsMaker(name string, size int64, cluster int) maker {
	return maker{
		name: name, size: size, region: "disk.ntfs", dsize: cluster,
		make: func(t *testing.T, img, tree string) {
			run(t, "", "mkntfs", "-q", "-F", "-c", fmt.Sprint(cluster), img)
			mounted(t, img, func(dir string) { fillMounted(t, dir, tree) }, "ntfs-3g", "-o", "no_detach")
		},
		check: func(t *testing.T, img string) { run(t, "", "ntfsfix", "-n", img) },
		files: func(t *testing.T, img string) map[string]string {
			return mountedFiles(t, img, "ntfs-3g", "-o", "ro,no_detach")
		},
		add: func(t *testing.T, img, file string) {
			mounted(t, img, func(dir string) { run(t, "", "cp", file, dir) }, "ntfs-3g", "-o", "no_detach")
		},
		mount:   []string{"ntfs-3g", "-o", "no_detach"},
		unclean: func(t *testing.T, img string) { patch(t, img, ntfsState(t, img), 1) },
		whole:   "it was not unmounted",
	}
}

// ntfsState returns where the flags of the volume are.
func ntfsState(t *testing.T, img string) int64 {
	t.Helper()
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	version := bytes.Index(b, []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x03\x01\x00\x00"))
	if version < 0 {
		t.Fatal("no version of NTFS")
	}
	return int64(version) + 10
}

func exfatMaker(name string, size int64, cluster int) maker {
	// In the foreground it tells what it does.
	mount := []string{"mount.exfat-fuse", "-d"}
	return maker{
		name: name, size: size, region: "disk.exfat", dsize: min(cluster, 4096),
		make: func(t *testing.T, img, tree string) {
			need(t, mount[0])
			run(t, "", "mkfs.exfat", "-c", fmt.Sprint(cluster), img)
			mounted(t, img, func(dir string) { fillMounted(t, dir, tree) }, mount...)
		},
		check: func(t *testing.T, img string) { run(t, "", "fsck.exfat", "-n", img) },
		files: func(t *testing.T, img string) map[string]string {
			return mountedFiles(t, img, append(mount, "-o", "ro")...)
		},
		add: func(t *testing.T, img, file string) {
			mounted(t, img, func(dir string) { run(t, "", "cp", file, dir) }, mount...)
		},
		mount:   mount,
		unclean: func(t *testing.T, img string) { patch(t, img, 0x6a, 2) },
		whole:   "it was not unmounted",
	}
}

func xfsMaker(name string, block int) maker {
	const mount = "loop,nouuid"
	return maker{
		name: name, size: 320 * mib, region: "disk.xfs", dsize: block,
		make: func(t *testing.T, img, tree string) {
			run(t, "", "mkfs.xfs", "-q", "-b", fmt.Sprint("size=", block), img)
			mounted(t, img, func(dir string) { fillMounted(t, dir, tree) }, "mount", "-o", mount)
		},
		check: func(t *testing.T, img string) { run(t, "", "xfs_repair", "-n", img) },
		files: func(t *testing.T, img string) map[string]string {
			return mountedFiles(t, img, "mount", "-o", mount+",ro,norecovery")
		},
		add: func(t *testing.T, img, file string) {
			mounted(t, img, func(dir string) { run(t, "", "cp", file, dir) }, "mount", "-o", mount)
		},
		unclean: func(t *testing.T, img string) {
			mounted(t, img, func(dir string) {
				run(t, "", "cp", "-r", filepath.Join(dir, "d2"), filepath.Join(dir, "copy"))
				run(t, "", "rm", "-r", filepath.Join(dir, "d3"))
				run(t, "", "xfs_io", "-x", "-c", "shutdown -f", dir)
			}, "mount", "-o", mount)
		},
		whole: "its log has to be replayed",
		mount: []string{"mount", "-o", mount},
	}
}

func btrfsMaker() maker {
	mount := []string{"mount", "-o", "loop"}
	return maker{
		name: "btrfs", size: 256 * mib, region: "disk.btrfs", dsize: 4096,
		make: func(t *testing.T, img, tree string) {
			run(t, "", "mkfs.btrfs", "-q", img)
			mounted(t, img, func(dir string) { fillMounted(t, dir, tree) }, mount...)
		},
		check: func(t *testing.T, img string) { run(t, "", "btrfs", "check", "--check-data-csum", img) },
		files: func(t *testing.T, img string) map[string]string {
			return mountedFiles(t, img, "mount", "-o", "loop,ro")
		},
		add: func(t *testing.T, img, file string) {
			mounted(t, img, func(dir string) { run(t, "", "cp", file, dir) }, mount...)
		},
		// What was committed last is good, whatever comes after it.
		unclean: func(t *testing.T, img string) {
			var cut string
			mounted(t, img, func(dir string) {
				run(t, "", "cp", "-r", filepath.Join(dir, "d2"), filepath.Join(dir, "copy"))
				run(t, "", "rm", "-r", filepath.Join(dir, "copy", "a file with number 12"))
				run(t, "", "sync", "-f", dir)
				run(t, "", "cp", "-r", filepath.Join(dir, "d3"), filepath.Join(dir, "more"))
				cut = copyOf(t, img)
			}, mount...)
			if err := os.Rename(cut, img); err != nil {
				t.Fatal(err)
			}
		},
		repair: func(t *testing.T, img string) { mounted(t, img, func(string) {}, mount...) },
		mount:  mount,
	}
}

// TestNoPaging leaves out a pagefile on request only.
func TestNoPaging(t *testing.T) {
	img := sparse(t, 40*mib)
	run(t, "", "mkntfs", "-q", "-F", img)
	page := filepath.Join(t.TempDir(), "pagefile.sys")
	fsystest.Noise(t, page, mib)
	run(t, "", "ntfscp", "-f", img, page, "pagefile.sys")
	run(t, "", "ntfscp", "-f", img, page, "kept.sys")
	cat := func(name, file string) string { return run(t, "", "ntfscat", "-f", name, file) }
	for _, omit := range []bool{false, true} {
		st := ventitest.NewMemory()
		res := importFile(t, st, img, ImportOptions{OmitPaging: omit})
		if _, l := res.region(t, "disk.ntfs"); !l.FreeOmitted || l.PagingOmitted != omit {
			t.Errorf("got %+v", l)
		}
		out := exportFile(t, st, res.Score)
		if cat(out, "kept.sys") != cat(img, "kept.sys") {
			t.Error("another file is not what it was")
		}
		want := cat(img, "pagefile.sys")
		if omit {
			want = string(make([]byte, mib))
		}
		if cat(out, "pagefile.sys") != want {
			t.Errorf("pagefile.sys is not as it should be where it is left out: %v", omit)
		}
		im, err := Open(t.Context(), st, res.Score)
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := Compare(t.Context(), im, openDisk(t, img)); err != nil || rep.Failed > 0 {
			t.Errorf("compare: %+v, %v", rep, err)
		}
	}
}

func fatMaker(name string, size int64, dsize int, state int64, args ...string) maker {
	return maker{
		name: name, size: size, region: "disk.vfat", dsize: dsize,
		make: func(t *testing.T, img, tree string) {
			need(t, "fsck.vfat")
			need(t, "mcopy")
			run(t, "", "mkfs.vfat", append(args, "-i", "12345678", img)...)
			dirs, err := os.ReadDir(tree)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range dirs {
				run(t, "", "mcopy", "-s", "-i", img, filepath.Join(tree, d.Name()), "::")
			}
			run(t, "", "mdeltree", "-i", img, "::d1")
		},
		check: func(t *testing.T, img string) { run(t, "", "fsck.vfat", "-n", img) },
		files: func(t *testing.T, img string) map[string]string {
			dir := t.TempDir()
			run(t, "", "mcopy", "-s", "-n", "-i", img, "::*", dir)
			return treeFiles(t, dir)
		},
		add:     func(t *testing.T, img, file string) { run(t, "", "mcopy", "-i", img, file, "::") },
		unclean: func(t *testing.T, img string) { patch(t, img, state, 1) },
		whole:   "it was not unmounted",
	}
}

// lvmMaker has a root of ext4 in two runs, a deleted volume between them, and
// a volume of FAT, on one physical volume.
func lvmMaker() maker {
	// lvm runs a command of LVM that needs no device mapper.
	lvm := func(t *testing.T, img string, f func(lvm func(args ...string))) {
		t.Helper()
		need(t, "lvm")
		loop := loopDevice(t, img)
		defer loop.Close()
		f(func(args ...string) {
			t.Helper()
			for i, a := range args {
				args[i] = strings.ReplaceAll(a, "DEVICE", loop.Name())
			}
			more := []string{"--driverloaded", "n", "--config", `devices{use_devicesfile=0 scan_lvs=0 filter=["a|^` + loop.Name() + `$|","r|.*|"]} global{locking_type=0}`}
			run(t, "", "lvm", append(args, more...)...)
		})
	}
	const extent = 4 * mib
	root := func(t *testing.T, img string) string {
		t.Helper()
		out := sparse(t, 7*extent)
		copyData(t, out, 0, img, mib, 4*extent)
		copyData(t, out, 4*extent, img, mib+6*extent, 3*extent)
		return out
	}
	put := func(t *testing.T, img, root string) {
		t.Helper()
		// Garbage of the volume that was here stays in what is a hole of root.
		copyData(t, img, mib, root, 0, 4*extent)
		copyData(t, img, mib+6*extent, root, 4*extent, 3*extent)
	}
	boot := func(t *testing.T, img string) string { return extract(t, img, mib+9*extent, 2*extent) }
	return maker{
		name: "LVM2", size: 64 * mib, region: "disk.root.ext4", dsize: 4096,
		make: func(t *testing.T, img, tree string) {
			lvm(t, img, func(lvm func(args ...string)) {
				lvm("pvcreate", "-q", "DEVICE")
				lvm("vgcreate", "-q", "-s", "4M", "group", "DEVICE")
				for _, v := range []string{"root 4", "gone 2"} {
					name, n, _ := strings.Cut(v, " ")
					lvm("lvcreate", "-an", "-Zn", "-Wn", "-l", n, "-n", name, "group")
				}
				lvm("lvextend", "-l", "+3", "group/root")
				lvm("lvcreate", "-an", "-Zn", "-Wn", "-l", "2", "-n", "boot", "group")
				lvm("lvremove", "-q", "-y", "group/gone")
			})
			fs := sparse(t, 7*extent)
			run(t, "", "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, fs)
			for i := range 40 {
				if i%5 == 1 {
					run(t, fmt.Sprintf("rm \"d1/a file with number %d\"\n", i), "debugfs", "-w", fs)
				}
			}
			put(t, img, fs)
			fat := sparse(t, 2*extent)
			run(t, "", "mkfs.vfat", fat)
			copyData(t, img, mib+9*extent, fat, 0, -1)
		},
		check: func(t *testing.T, img string) {
			lvm(t, img, func(lvm func(args ...string)) { lvm("pvck", "DEVICE") })
			run(t, "", "e2fsck", "-fn", root(t, img))
			run(t, "", "fsck.vfat", "-n", boot(t, img))
		},
		files: func(t *testing.T, img string) map[string]string {
			return extFiles(t, root(t, img))
		},
		add: func(t *testing.T, img, file string) {
			fs := root(t, img)
			run(t, "write \""+file+"\" new\n", "debugfs", "-w", fs)
			put(t, img, fs)
		},
		// As when the machine ended between two writes of metadata.
		unclean: func(t *testing.T, img string) { patch(t, img, 4096+0x28+24+8, 1) },
		whole:   "bad header of the metadata at 4096",
	}
}
