package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"strata/tests/harness"
)

// The benchmarks of this file store and restore a tree of 1 GB in 50,000 files
// with plan9port's vac and with ours, each with its own server: plan9port's as
// it comes, ours as strata up makes it. The tree is in memory, and what is
// restored is put into a file system in memory where there is one, so that the
// programs are compared and not the disk. Ratios are of plan9port's time to
// ours.

const (
	vacFiles = 50_000
	vacMean  = 20_000 // bytes of a file
)

// makeVacTree makes the tree: 100 files to a directory, the sizes spread as in
// a source tree, one half text and one half bytes that do not compress.
func makeVacTree(b *testing.B, dir string) {
	b.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	text := make([]byte, 8*mib)
	for at := 0; at < len(text); {
		word := fmt.Sprintf("%x ", rng.IntN(4000)*7919%65536)
		at += copy(text[at:], word)
	}
	noise := make([]byte, 8*mib)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	for i := range vacFiles {
		sub := fmt.Sprintf("%s/d%03d/e%d", dir, i/1000, i/100%10)
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		size := min(int(rng.ExpFloat64()*vacMean), 20*vacMean)
		from := text
		if i%2 == 0 {
			from = noise
		}
		at := rng.IntN(len(from) - size)
		if err := os.WriteFile(fmt.Sprintf("%s/file%05d", sub, i), from[at:at+size], 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

// memoryDir returns a directory in memory, or else on disk.
func memoryDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "strata-bench-")
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// vacServe starts a suite's server on a new store.
func vacServe(b *testing.B, s harness.Suite) *harness.Server {
	if s.Name == "plan9port" {
		return peerServe(b, s, 3<<30, peerCache)
	}
	st := s.Format(b, 512*mib, 8, "compression zstd")
	return s.Serve(b, st, "-C", fmt.Sprint(peerCache), "-I", fmt.Sprint(peerCache))
}

// inDir runs a program of a suite in a directory.
func inDir(b *testing.B, s harness.Suite, srv *harness.Server, dir, name string, args ...string) {
	b.Helper()
	cmd := s.Command(b.Context(), name, append([]string{"-h", srv.Addr}, args...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s %s: %v\n%s", s.Name, name, err, out)
	}
}

// BenchmarkVac stores the tree on a new store, stores it again, and with -q;
// then it restores it.
func BenchmarkVac(b *testing.B) {
	suites := peers(b)
	if !suites[0].Has("vac") {
		b.Skip("this plan9port has no vac")
	}
	tree := memoryDir(b) + "/tree"
	makeVacTree(b, tree)
	var cold, again, unvac, quick, find [2]float64
	for range b.N {
		for i, s := range suites {
			srv, dir := vacServe(b, s), b.TempDir()
			vac := filepath.Join(dir, "tree.vac")
			cold[i] += timed(func() { inDir(b, s, srv, tree, "vac", "-f", vac, ".") })
			again[i] += timed(func() { inDir(b, s, srv, tree, "vac", "-f", filepath.Join(dir, "again.vac"), ".") })
			if s.Name == "strata" {
				quick[i] += timed(func() { inDir(b, s, srv, tree, "vac", "-q", "-d", vac, "-f", filepath.Join(dir, "q.vac"), ".") })
				find[i] += timed(func() {
					if err := exec.Command("find", tree, "-printf", "%p %s %T@ %C@ %i\n").Run(); err != nil {
						b.Fatal(err)
					}
				})
			}
			out := memoryDir(b)
			unvac[i] += timed(func() { inDir(b, s, srv, out, "unvac", "-T", vac) })
			os.RemoveAll(out)
			srv.Kill()
		}
	}
	n := float64(b.N)
	b.ReportMetric(0, "ns/op")
	for _, m := range []struct {
		what string
		t    [2]float64
	}{{"cold", cold}, {"again", again}, {"unvac", unvac}} {
		b.ReportMetric(m.t[0]/n, m.what+"-plan9port-s")
		b.ReportMetric(m.t[1]/n, m.what+"-s")
		b.ReportMetric(m.t[0]/m.t[1], m.what+"-ratio")
	}
	b.ReportMetric(quick[1]/n, "quick-s")
	b.ReportMetric(find[1]/n, "find-s")
	b.ReportMetric(quick[1]/find[1], "quick/find")
}
