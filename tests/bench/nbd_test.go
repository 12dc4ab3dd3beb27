package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strata/tests/harness"
)

// writeSomeFiles fills path with files of this machine: what disks hold, more
// than random bytes are.
func writeSomeFiles(b *testing.B, path string, size int64) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	left := size
	for _, top := range []string{"/usr/lib", "/usr/bin", "/usr/share"} {
		filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
			if left == 0 {
				return fs.SkipAll
			}
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			data, err := os.ReadFile(name)
			if err != nil {
				return nil
			}
			data = data[:min(int64(len(data)), left)]
			if n := int64(len(data)) % 4096; n > 0 && int64(len(data)) < left {
				data = append(data, make([]byte, min(4096-n, left-int64(len(data))))...)
			}
			if _, err := f.Write(data); err != nil {
				b.Fatal(err)
			}
			left -= int64(len(data))
			return nil
		})
	}
	if left > 0 {
		b.Skipf("this machine has too few files: %d bytes are missing", left)
	}
}

// fioReads returns how many reads of 4 KiB at random places fio gets in a
// second.
func fioReads(b *testing.B, uri, depth string) float64 {
	b.Helper()
	cmd := exec.Command("fio", "--name=x", "--ioengine=nbd", "--uri="+uri, "--output-format=json", "--bs=4k", "--rw=randread",
		"--iodepth="+depth, "--time_based", "--runtime=3", "--randrepeat=1")
	cmd.Dir = b.TempDir()
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("fio: %v\n%s%s", err, out, &said)
	}
	var res struct {
		Jobs []struct{ Read struct{ IOPS float64 } }
	}
	if err := json.Unmarshal(out[bytes.IndexByte(out, '{'):], &res); err != nil {
		b.Fatal(err)
	}
	return res.Jobs[0].Read.IOPS
}

// nbdcopyMiB returns how many MiB nbdcopy reads in a second, in requests of
// 1 MiB.
func nbdcopyMiB(b *testing.B, uri string, size int64) float64 {
	b.Helper()
	s := timed(func() {
		if out, err := exec.Command("nbdcopy", "--request-size=1048576", uri, "null:").CombinedOutput(); err != nil {
			b.Fatalf("nbdcopy: %v\n%s", err, out)
		}
	})
	return float64(size) / mib / s
}

// start runs a server that is killed when the benchmark ends, and waits for
// its socket.
func start(b *testing.B, socket string, cmd *exec.Cmd) *exec.Cmd {
	b.Helper()
	cmd.Stderr = os.Stderr
	cmd.Stdout = io.Discard
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if nc, err := net.Dial("unix", socket); err == nil {
			nc.Close()
			return cmd
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not answer", cmd.Path)
		}
	}
}

// BenchmarkNBD reads an imported disk over NBD beside qemu-nbd, which serves
// the same disk as a plain qcow2, or raw, in turns. Cold is with nothing in the
// server's cache; all else, and the page cache, is warm.
func BenchmarkNBD(b *testing.B) {
	for _, p := range []string{"fio", "nbdcopy", "qemu-nbd", "qemu-img"} {
		if _, err := exec.LookPath(p); err != nil {
			b.Skipf("no %s (packages fio, libnbd-bin, qemu-utils)", p)
		}
	}
	const size = 256 * mib
	ours, dir := harness.Ours(b), b.TempDir()
	raw, qcow, store := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "store")
	writeSomeFiles(b, raw, size)
	if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow).CombinedOutput(); err != nil {
		b.Fatalf("qemu-img: %v\n%s", err, out)
	}
	up := func() *exec.Cmd {
		return start(b, filepath.Join(store, "nbd.sock"), ours.Command(b.Context(), "strata", "up", "--local", "--size", "1", store))
	}
	first := up()
	score := strings.TrimSpace(ours.Run(b, nil, "vdisk", "import", "-h", "unix!"+filepath.Join(store, "venti.sock"), raw))
	first.Process.Signal(os.Interrupt)
	first.Wait()
	uri := func(socket, name string) string { return "nbd+unix:///" + name + "?socket=" + socket }
	peer := func(format, file string) string {
		socket := filepath.Join(dir, format+".sock")
		start(b, socket, exec.Command("qemu-nbd", "-f", format, "-k", socket, "-x", "disk", "-t", "-e", "8", "-r", file))
		return uri(socket, "disk")
	}
	plain, asRaw := peer("qcow2", qcow), peer("raw", raw)
	mine := uri(filepath.Join(store, "nbd.sock"), score)
	for _, c := range []struct {
		name    string
		peer    string
		cold    bool
		wanted  float64
		measure func(uri string) float64
	}{
		{"Read4KDepth1Cold", plain, true, 1, func(uri string) float64 { return fioReads(b, uri, "1") }},
		{"Read4KDepth1", plain, false, 1, func(uri string) float64 { return fioReads(b, uri, "1") }},
		{"Read4KDepth4Cold", plain, true, 1, func(uri string) float64 { return fioReads(b, uri, "4") }},
		{"Read4KDepth4", plain, false, 1, func(uri string) float64 { return fioReads(b, uri, "4") }},
		{"Read4KDepth16", asRaw, false, 0.5, func(uri string) float64 { return fioReads(b, uri, "16") }},
		{"Stream1MCold", asRaw, true, 0.5, func(uri string) float64 { return nbdcopyMiB(b, uri, size) }},
		{"Stream1M", asRaw, false, 0.5, func(uri string) float64 { return nbdcopyMiB(b, uri, size) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			var a, z, ratios []float64
			server := up()
			if !c.cold {
				nbdcopyMiB(b, mine, size)
			}
			peak := int64(0)
			for b.Loop() {
				if c.cold {
					server.Process.Signal(os.Interrupt)
					server.Wait()
					server = up()
				}
				t := c.measure(c.peer)
				o := c.measure(mine)
				a, z, ratios = append(a, o), append(z, t), append(ratios, o/t)
				peak = max(peak, residentBytes(b, server.Process.Pid))
			}
			server.Process.Signal(os.Interrupt)
			server.Wait()
			for _, list := range [][]float64{a, z, ratios} {
				slices.Sort(list)
			}
			n := len(a) / 2
			b.ReportMetric(a[n], "ours/s")
			b.ReportMetric(z[n], "qemu/s")
			b.ReportMetric(ratios[n], "ratio")
			b.ReportMetric(c.wanted, "wanted")
			b.ReportMetric(float64(peak)/mib, "peak-MiB")
		})
	}
}
