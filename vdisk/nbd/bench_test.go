package nbd_test

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strata/vdisk/nbd"
)

// qemuNBD serves a file with qemu-nbd and returns the URI.
func qemuNBD(t testing.TB, file, format string) string {
	t.Helper()
	need(t, "qemu-nbd", "qemu-utils")
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	addr := filepath.Join(dir, "s")
	cmd := exec.Command("qemu-nbd", "-f", format, "-k", addr, "-x", "disk", "-t", "-e", "8", "--discard=unmap", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		nc, err := net.Dial("unix", addr)
		if err == nil {
			nc.Close()
			return uri(addr, "disk")
		}
		if time.Now().After(deadline) {
			t.Fatal("qemu-nbd does not answer")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// fioRate returns how many requests a second fio gets done.
func fioRate(t testing.TB, uri string, args ...string) float64 {
	t.Helper()
	out := run(t, "fio", append([]string{"--name=x", "--ioengine=nbd", "--uri=" + uri, "--output-format=json", "--bs=4k",
		"--time_based", "--runtime=2", "--randrepeat=1"}, args...)...)
	var res struct {
		Jobs []struct {
			Read, Write struct{ IOPS float64 }
		}
	}
	if err := json.Unmarshal([]byte(out[strings.IndexByte(out, '{'):]), &res); err != nil {
		t.Fatal(err)
	}
	return res.Jobs[0].Read.IOPS + res.Jobs[0].Write.IOPS
}

// BenchmarkBesideQEMU compares the server with qemu-nbd on one raw file, in
// turns. The figure that counts is of-qemu: ours by theirs, median of the runs.
func BenchmarkBesideQEMU(b *testing.B) {
	need(b, "fio", "fio")
	need(b, "nbdcopy", "libnbd-bin")
	const size = 256 * mb
	name := filepath.Join(b.TempDir(), "disk")
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i>>12*7 + i)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		b.Fatal(err)
	}
	b.Chdir(b.TempDir())
	stream := func(target string) float64 {
		began := time.Now()
		for range 4 {
			run(b, "nbdcopy", "--request-size=1048576", target, "null:")
		}
		return 4 * size / time.Since(began).Seconds() / mb
	}
	fio := func(args ...string) func(string) float64 {
		return func(target string) float64 { return fioRate(b, target, append(args, "--size=256m")...) }
	}
	for _, c := range []struct {
		name    string
		unit    string
		measure func(target string) float64
	}{
		{"Stream1M", "MiB/s", stream},
		{"Read4KDepth1", "reads/s", fio("--rw=randread", "--iodepth=1")},
		{"Read4KDepth4", "reads/s", fio("--rw=randread", "--iodepth=4")},
		{"Read4KDepth16", "reads/s", fio("--rw=randread", "--iodepth=16")},
		{"Write4KDepth16Flush64", "writes/s", fio("--rw=randwrite", "--iodepth=16", "--fsync=64")},
	} {
		b.Run(c.name, func(b *testing.B) {
			theirs := qemuNBD(b, name, "raw")
			addr, _ := serve(b, exports{"disk": {Disk: openFile(b, name), Shared: true}}, nbd.Config{})
			ours := uri(addr, "disk")
			var a, z, ratios []float64
			for b.Loop() {
				t := c.measure(theirs)
				o := c.measure(ours)
				a, z, ratios = append(a, o), append(z, t), append(ratios, o/t)
			}
			b.ReportMetric(median(a), c.unit)
			b.ReportMetric(median(z), "qemu-"+c.unit)
			b.ReportMetric(median(ratios), "of-qemu")
		})
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
