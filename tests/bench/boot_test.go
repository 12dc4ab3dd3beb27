package bench

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strata/tests/debian"
	"strata/tests/harness"
)

// BenchmarkBoot boots Debian in turns from a raw file and from live disks over
// NBD, and says how long it takes until a service at the end of the start says
// that it is there, beside the raw file in the same round; medians. Warm is with
// what a start reads in memory; in cold ones the daemon has just been started, the
// system has nothing of its files, and the disk is a new clone. One that has a
// boot set is replayed. Besides the time there is the processor's, of QEMU and
// the daemon together: where others use the machine it is steadier.
func BenchmarkBoot(b *testing.B) {
	if _, err := exec.LookPath("cp"); err != nil {
		b.Skip(err)
	}
	img := debian.Disk{Bring: []string{"hello"}}.Get(b)
	ours, dir := harness.Ours(b), b.TempDir()
	store := filepath.Join(dir, "store")
	up := func() *harness.Strata {
		return ours.Up(b, store, "--size", "4", "--buffer", "2", "--log-level", "warn")
	}
	s := up()
	vdisk := func(args ...string) { s.Run(b, nil, "vdisk", args...) }
	overNBD := func(name string) string {
		return "file=nbd+unix:///" + name + "?socket=" + filepath.Join(store, "nbd.sock") + ",format=raw,discard=unmap"
	}
	boot := func(drive string) bootTime {
		before := processorTime(b, s.PID())
		began := time.Now()
		g := debian.Start(b, debian.Machine{Drives: []string{drive}, Image: img})
		g.Ready(b)
		wall := time.Since(began)
		server := processorTime(b, s.PID()) - before
		g.Kill()
		return bootTime{wall, g.CPU() + server}
	}
	vdisk("import", "--into", "deb", img.Path)
	vdisk("snap", "deb", "imported")
	boot(overNBD("deb")) // which makes its boot set

	count := 0
	clone := func() string {
		count++
		name := fmt.Sprintf("clone%d", count)
		vdisk("clone", "deb@imported", name)
		return name
	}
	cool := func() {
		s.Stop(b)
		forget(b, store)
		s = up()
	}
	kinds := []struct {
		name   string
		wanted float64 // times what the raw file takes
		boot   func() bootTime
	}{
		{"raw", 1, func() bootTime {
			file := filepath.Join(dir, "raw")
			if out, err := exec.Command("cp", "--sparse=always", img.Path, file).CombinedOutput(); err != nil {
				b.Fatalf("cp: %v: %s", err, out)
			}
			return boot("file=" + file + ",format=raw,discard=unmap")
		}},
		{"warm", 1.05, func() bootTime {
			name := clone()
			vdisk("boot", name, "off")
			return boot(overNBD(name))
		}},
		{"cold", 1.15, func() bootTime {
			name := clone()
			vdisk("boot", name, "off")
			cool()
			return boot(overNBD(name))
		}},
		{"replay", 1.1, func() bootTime {
			name := clone()
			cool()
			return boot(overNBD(name))
		}},
	}
	all := make([][]bootTime, len(kinds))
	for b.Loop() {
		for i, k := range kinds {
			all[i] = append(all[i], k.boot())
			b.Logf("%s: %.1f s, of a processor %.1f s", k.name, all[i][len(all[i])-1].wall.Seconds(), all[i][len(all[i])-1].cpu.Seconds())
		}
	}
	for i, k := range kinds {
		b.ReportMetric(middle(all[i], func(_ int, x bootTime) float64 { return x.wall.Seconds() }), k.name+"-s")
		if i == 0 {
			continue
		}
		b.ReportMetric(middle(all[i], func(n int, x bootTime) float64 { return float64(x.wall) / float64(all[0][n].wall) }), k.name+"-ratio")
		b.ReportMetric(middle(all[i], func(n int, x bootTime) float64 { return float64(x.cpu) / float64(all[0][n].cpu) }), k.name+"-cpu-ratio")
		b.ReportMetric(k.wanted, k.name+"-wanted")
	}
}

// A bootTime is what a boot took.
type bootTime struct{ wall, cpu time.Duration }

// middle returns the median of what f makes of each.
func middle(list []bootTime, f func(int, bootTime) float64) float64 {
	var v []float64
	for i, x := range list {
		v = append(v, f(i, x))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// processorTime returns what a process has used of processors.
func processorTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(after) // utime and stime are the 14th and 15th of all, in hundredths of a second
	total := time.Duration(0)
	for _, v := range f[11:13] {
		n, err := strconv.Atoi(v)
		if err != nil {
			b.Fatal(err)
		}
		total += time.Duration(n) * 10 * time.Millisecond
	}
	return total
}

// forget has the system forget what it has of the files in a directory.
func forget(b *testing.B, dir string) {
	b.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Sync(); err != nil {
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
	if err != nil {
		b.Fatal(err)
	}
}
