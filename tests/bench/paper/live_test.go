package paper

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strata/tests/debian"
	"strata/tests/harness"
	"strata/vdisk"
	"strata/vdisk/fsys/ext"
)

// renewed are packages that an update brings, besides all upgrades of what is there.
const renewed = "htop tmux git"

// packages downloads what an update of a disk consists of, and returns the folder.
func packages(t *testing.T, dir, disk string) string {
	t.Helper()
	status, debs := filepath.Join(dir, "status"), filepath.Join(dir, "debs")
	err := withDisk(disk, func(src vdisk.Source) error {
		part, err := rootOf(src)
		if err != nil {
			return err
		}
		root, err := ext.Open(part, part.Size())
		if err != nil {
			return err
		}
		f, err := vdisk.WalkFiles(root, "var/lib/dpkg/status", true)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Info().Size))
		if err != nil {
			return err
		}
		return os.WriteFile(status, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(debs, "partial"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "apt-get", append([]string{"-qq", "-y", "--download-only", "-o", "Dir::State::status=" + status, "-o", "Dir::State::extended_states=" + os.DevNull,
		"-o", "Dir::Cache::archives=" + debs, "-o", "Debug::NoLocking=1", "-o", "APT::Install-Recommends=false", "-o", "APT::Sandbox::User=root",
		"upgrade"}, strings.Fields(renewed)...)...)
	// To install certificates a program is run for each, which takes minutes where it is emulated.
	run(t, "sh", "-c", `cd "$1" && rm -rf partial lock ca-certificates_*`, "sh", debs)
	return debs
}

// renew boots an install from disk, a qcow2, and has it installed what debs holds.
func renew(t *testing.T, img *debian.Image, disk, debs string) {
	t.Helper()
	archive := disk + ".tar"
	run(t, "tar", "-cf", archive, "-C", debs, ".")
	defer os.Remove(archive)
	g := debian.Start(t, debian.Machine{Image: img, Drives: []string{"file=" + disk + ",format=qcow2,cache=unsafe", "file=" + archive + ",format=raw,readonly=on"}})
	g.Ready(t)
	g.Do(t, "cd /var/cache/apt/archives && tar -xf /dev/vdb && DEBIAN_FRONTEND=noninteractive dpkg -i --force-confold ./*.deb && apt-get clean")
	g.PowerOff(t)
}

// allocatedBytes returns what a file takes of its disk.
func allocatedBytes(t *testing.T, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// storage keeps two installs and an update of each, as files and in a store.
func (p *paper) storage(t *testing.T) {
	dir := p.temp(t)
	states := []string{"first install", "second install", "first updated", "second updated"}
	var images, disks []string // each install as qcow2, and each state
	for i, in := range installs[:2] {
		img := in.disk.Get(t)
		images = append(images, img.Path)
		disks = append(disks, filepath.Join(dir, fmt.Sprintf("%d.qcow2", i)))
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", img.Path, disks[i])
	}
	debs := packages(t, dir, images[0])
	for i, in := range installs[:2] {
		next := filepath.Join(dir, fmt.Sprintf("%d-updated.qcow2", i))
		run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disks[i], next)
		renew(t, in.disk.Get(t), next, debs)
		disks = append(disks, next)
	}
	store := filepath.Join(dir, "store")
	var sum [5]int64
	var rows [][]string
	for i, disk := range disks {
		raw, small := filepath.Join(dir, "raw"), filepath.Join(dir, "small.qcow2")
		run(t, "qemu-img", "convert", "-O", "raw", disk, raw)
		compress := []string{"convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd"}
		if i >= 2 {
			compress = append(compress, "-F", "qcow2", "-B", disks[i-2])
		}
		run(t, "qemu-img", append(compress, disk, small)...)
		sum[0] += allocatedBytes(t, raw)
		sum[1] += allocatedBytes(t, disk)
		sum[2] += allocatedBytes(t, small)
		s := p.up(t, store)
		var res vdisk.Result
		if err := json.Unmarshal([]byte(s.Run(t, nil, "vdisk", "import", "--json", disk)), &res); err != nil {
			t.Fatal(err)
		}
		s.Stop(t)
		sum[3] += res.Total.New
		sum[4] = allocatedBytes(t, filepath.Join(store, "arenas"))
		row := []string{states[i]}
		for _, n := range sum {
			row = append(row, megabytes(n))
		}
		rows = append(rows, row)
		for _, name := range []string{raw, small} {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	printTable("What is kept, in all, after each step:",
		[]string{"", "raw", "qcow2, updates as overlays", "the same, compressed (zstd)", "Strata: new blocks", "Strata: arenas (zstd)"}, rows,
		"no numbers in its text.")
	fmt.Printf("\n(The store's index takes %s besides, for 8 GiB.)\n", megabytes(allocatedBytes(t, filepath.Join(store, "isect"))))
}

// up starts a suite in dir.
func (p *paper) up(t *testing.T, dir string) *harness.Strata {
	t.Helper()
	return p.ours.Up(t, dir, "--size", "8", "--log-level", "warn")
}

// rounds is how often each thing is measured, in turns; what is printed is the median.
const rounds = 3

// streamMB is how much of the root partition is read in order.
const streamMB = 400

// measured are the times of a guest: to boot, and to read.
type measured struct{ boot, read []float64 }

func (m *measured) guest(t *testing.T, img *debian.Image, drive string) {
	t.Helper()
	start := time.Now()
	g := debian.Start(t, debian.Machine{Image: img, Drives: []string{drive}})
	g.Ready(t)
	m.boot = append(m.boot, time.Since(start).Seconds())
	start = time.Now()
	g.Do(t, fmt.Sprintf("dd if=/dev/vda%d of=/dev/null bs=1M count=%d iflag=direct 2>/dev/null", debian.RootPart, streamMB))
	m.read = append(m.read, time.Since(start).Seconds())
	g.PowerOff(t)
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// boot boots the base from a raw file and from clones of a live disk, with all caches
// warm and with those of the server cold.
func (p *paper) boot(t *testing.T) {
	dir, img := p.temp(t), installs[0].disk.Get(t)
	store := filepath.Join(dir, "store")
	s := p.up(t, store)
	s.Run(t, nil, "vdisk", "import", "--into", "base", img.Path)
	var raw, warm, cold measured
	var copyRaw, copyWarm, copyCold []float64
	nbdcopy := func(uri string) float64 {
		start := time.Now()
		run(t, "nbdcopy", "--request-size=1048576", uri, "null:")
		return time.Since(start).Seconds()
	}
	file, sock := filepath.Join(dir, "raw"), filepath.Join(dir, "raw.sock")
	for i := range rounds {
		run(t, "cp", "--sparse=always", img.Path, file)
		raw.guest(t, img, "file="+file+",format=raw")

		name := fmt.Sprintf("warm%d", i)
		s.Run(t, nil, "vdisk", "clone", "base", name)
		nbdcopy(s.NBD(name))
		warm.guest(t, img, "file="+s.NBD(name)+",format=raw")
		copyWarm = append(copyWarm, nbdcopy(s.NBD("base")))

		name = fmt.Sprintf("cold%d", i)
		s.Run(t, nil, "vdisk", "clone", "base", name)
		s.Stop(t)
		s = p.up(t, store)
		cold.guest(t, img, "file="+s.NBD(name)+",format=raw")
		s.Stop(t)
		s = p.up(t, store)
		copyCold = append(copyCold, nbdcopy(s.NBD("base")))

		// It goes into the background when it listens, and ends with its client.
		run(t, "qemu-nbd", "--fork", "-f", "raw", "-r", "-k", sock, "-x", "disk", img.Path)
		copyRaw = append(copyRaw, nbdcopy("nbd+unix:///disk?socket="+sock))
	}
	s.Stop(t)
	seconds := func(what string, a, b, c []float64) []string {
		x, y, z := median(a), median(b), median(c)
		return []string{what, fmt.Sprintf("%.1f s", x), fmt.Sprintf("%.1f s", y), ratio(y, x), fmt.Sprintf("%.1f s", z), ratio(z, x)}
	}
	printTable(fmt.Sprintf("Times beside the raw file, medians of %d (lower is better):", rounds),
		[]string{"", "raw", "Strata, warm", "ratio", "Strata, cold", "ratio"}, [][]string{
			seconds("boot until the system takes commands", raw.boot, warm.boot, cold.boot),
			seconds(fmt.Sprintf("%d MiB read in order in the guest", streamMB), raw.read, warm.read, cold.read),
			seconds("the whole disk by nbdcopy, raw from qemu-nbd", copyRaw, copyWarm, copyCold),
		}, "its boot took 1.34 times as long as from the raw file.")
}
