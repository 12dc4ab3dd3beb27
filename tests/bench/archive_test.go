package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/internal/ninep"
	"strata/tests/harness"
)

// BenchmarkVacfs has our client read a file of an archive, which vacfs has in
// memory, beside a server of internal/ninep that lends or copies the same bytes
// from memory.
func BenchmarkVacfs(b *testing.B) {
	ours, dir := harness.Ours(b), b.TempDir()
	data := make([]byte, nineFile)
	fillRandom(data)
	if err := os.WriteFile(filepath.Join(dir, "f"), data, 0o644); err != nil {
		b.Fatal(err)
	}
	srv := serve(b, nineFile)
	score := strings.TrimSpace(ours.Run(b, nil, "vac", "-h", srv.Addr, filepath.Join(dir, "f")))
	sock := filepath.Join(dir, "s")
	startNine(b, ours.Command(b.Context(), "vacfs", "-p", "-h", srv.Addr, "-M", "256m", "-a", "unix!"+sock, score))
	for _, bm := range []struct {
		name    string
		dialect ninep.Dialect
		msize   int
		server  string
		load    nineLoad
	}{
		{"read 1M", ninep.Linux, nineMsize, "lends", read1M},
		{"read 8K classic", ninep.Classic, 8192 + 24, "copies", nineLoad{size: 8192, inFlight: 16, requests: 20_000, random: true}},
		{"random read 4K", ninep.Linux, nineMsize, "copies", random4K},
	} {
		b.Run(bm.name, func(b *testing.B) {
			p := nineTarget()
			limit := openNine(b, nineChild(b, bm.server), "", bm.dialect, bm.msize, ninep.OREAD)
			f := openNine(b, sock, "", bm.dialect, bm.msize, ninep.OREAD)
			t := medians(b, func() { bm.load.client(b, limit, p) }, func() { bm.load.client(b, f, p) })
			bm.load.rate(b, "", t[1])
			bm.load.rate(b, "limit-", t[0])
			b.ReportMetric(t[0]/t[1], "ratio")
			b.ReportMetric(0.5, "wanted")
		})
	}
}

// BenchmarkVbackup backs a file system up that plan9port's vbackup reads as
// well, each into a server of its own: for the first time, and once more with the
// old score when nothing has changed.
func BenchmarkVbackup(b *testing.B) {
	suites := peers(b)
	image := filepath.Join(b.TempDir(), "fs")
	bytes := extImage(b, image)
	again := make([]float64, len(suites))
	first := make([]float64, len(suites))
	n := 0
	for b.Loop() {
		n++
		for i, s := range suites {
			srv := peerServe(b, s, 2*bytes, peerCache)
			s.Env = append(slices.Clone(s.Env), "venti="+srv.Addr)
			var out string
			first[i] += timed(func() { out = s.Run(b, nil, "vbackup", "-w", "16", image) })
			words := strings.Fields(out)
			if len(words) < 3 {
				b.Fatalf("%s vbackup printed %q", s.Name, out)
			}
			again[i] += timed(func() { s.Run(b, nil, "vbackup", "-w", "16", image, words[2]) })
			srv.Kill()
		}
	}
	mb := float64(n) * float64(bytes) / 1e6
	b.ReportMetric(0, "ns/op")
	for i, name := range []string{"plan9port-", ""} {
		b.ReportMetric(mb/first[i], name+"MB/s")
		b.ReportMetric(mb/again[i], name+"again-MB/s")
	}
	b.ReportMetric(first[0]/first[1], "ratio")
	b.ReportMetric(again[0]/again[1], "again-ratio")
}

// extImage makes an ext3 file system of random bytes in files, and returns how
// many bytes they have.
func extImage(b *testing.B, image string) int64 {
	mke2fs := "mke2fs"
	if _, err := exec.LookPath(mke2fs); err != nil {
		if mke2fs = "/usr/sbin/mke2fs"; exec.Command(mke2fs, "-V").Run() != nil {
			b.Skip("no mke2fs (package e2fsprogs)")
		}
	}
	const files, size = 64, 4 * mib
	dir := b.TempDir()
	data := make([]byte, files*size)
	fillRandom(data)
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), data[i*size:][:size], 0o644); err != nil {
			b.Fatal(err)
		}
	}
	if out, err := exec.Command(mke2fs, "-q", "-t", "ext3", "-b", "4096", "-d", dir, image, "400M").CombinedOutput(); err != nil {
		b.Fatalf("mke2fs: %v\n%s", err, out)
	}
	return files * size
}
