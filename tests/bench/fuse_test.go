package bench

import (
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"strata/tests/harness"
)

// The benchmarks of mounts read a file that nothing has in the page cache: by
// our 9pfuse from our server and from diod, by plan9port's 9pfuse from our
// server, and straight from tmpfs, where a read is a copy.

// mountFUSE mounts with a program, its flags and an address, and returns the
// path of the file in the tree.
func mountFUSE(b *testing.B, env []string, prog string, args ...string) string {
	b.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		b.Skipf("no FUSE here: %v", err)
	} else {
		f.Close()
	}
	dir := b.TempDir()
	cmd := exec.Command(prog, append(args, dir)...)
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Run(); err != nil { // no pipes: it goes on in the background
		b.Fatalf("%s %q: %v", prog, args, err)
	}
	b.Cleanup(func() {
		umount := []string{"fusermount3", "-u", dir}
		if os.Geteuid() == 0 {
			umount = []string{"umount", dir}
		}
		if out, err := exec.Command(umount[0], umount[1:]...).CombinedOutput(); err != nil {
			b.Errorf("umount: %v: %s", err, out)
		}
	})
	return filepath.Join(dir, "f")
}

// A fuseLoad is so many reads of a size, in order or at random.
type fuseLoad struct {
	size     int
	random   bool
	inFlight int
}

// run makes so many reads of the file, which is opened anew.
func (l fuseLoad) run(b *testing.B, name string, requests int) {
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for k := range l.inFlight {
		wg.Go(func() {
			p := make([]byte, l.size)
			rnd := rand.New(rand.NewPCG(1, uint64(k)))
			for i := k; i < requests; i += l.inFlight {
				off := int64(i) * int64(l.size)
				if l.random {
					off = rnd.Int64N(nineFile/int64(l.size)) * int64(l.size)
				}
				if n, err := io.ReadFull(io.NewSectionReader(f, off, int64(l.size)), p); err != nil {
					b.Errorf("%d bytes, %v", n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkFuse reads through mounts. ratio is ours to plan9port's.
func BenchmarkFuse(b *testing.B) {
	root := os.Getenv("PLAN9")
	if root == "" {
		b.Skip("$PLAN9 is not set: no 9pfuse to compare with")
	}
	for _, bm := range []struct {
		name        string
		load        fuseLoad
		ours, their int // requests
	}{
		{"read 1M", fuseLoad{mib, false, 1}, 64, 2},
		{"random read 4K", fuseLoad{4096, true, 1}, 2000, 500},
		{"random read 4K, 16 at once", fuseLoad{4096, true, 16}, 4000, 500},
	} {
		b.Run(bm.name, func(b *testing.B) {
			prog := harness.Ours(b).Command(b.Context(), "9pfuse").Path
			addr := nineChild(b, "copies")
			connect(b, addr).Close() // it answers
			ours := mountFUSE(b, nil, prog, addr)
			theirs := mountFUSE(b, []string{"PLAN9=" + root}, filepath.Join(root, "bin", "9pfuse"), "unix!"+addr)
			daddr, aname := diod(b)
			connect(b, daddr).Close()
			onDiod := mountFUSE(b, nil, prog, "-o", "aname="+aname, daddr)
			files := []struct {
				name     string
				file     string
				requests int
			}{{"", ours, bm.ours}, {"plan9port-", theirs, bm.their}, {"on-diod-", onDiod, bm.ours}, {"tmpfs-", filepath.Join(aname, "f"), bm.ours}}
			var runs []func()
			for _, f := range files {
				runs = append(runs, func() { bm.load.run(b, f.file, f.requests) })
			}
			t := medians(b, runs...)
			for i, f := range files {
				nineLoad{size: bm.load.size, requests: f.requests}.rate(b, f.name, t[i])
			}
			b.ReportMetric(t[1]/float64(bm.their)/(t[0]/float64(bm.ours)), "ratio")
		})
	}
}
