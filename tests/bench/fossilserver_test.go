package bench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/tests/harness"
)

// The benchmarks of Fossil have the same client work through our server, beside
// the original's and beside diod, which serves a directory of the disk that our
// partition is on. All of it, partitions and cache, is new.

const (
	fossilFile   = 64 * mib // written and read
	fossilBlocks = 32768    // of 8 KiB, in the cache of either
	fossilSpace  = 1 << 30  // of a partition
)

// A fossilTree is a directory of a server, as a client sees it.
type fossilTree struct {
	name string
	root *ninep.File
	n    int // directories made
}

// attachTree attaches to a server of a kind, and makes a directory to work in.
func attachTree(b *testing.B, name string, conn net.Conn, d ninep.Dialect, aname string) *fossilTree {
	b.Helper()
	ctx := context.Background()
	users := ninep.NewUsers(map[string]uint32{"adm": 0, "root": 0})
	c, err := ninep.NewClient(ctx, conn, ninep.ClientConfig{Dialect: d, Users: users})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	user := "adm"
	if aname != "" {
		user = "root"
	}
	root, err := c.Attach(ctx, user, aname)
	if err != nil {
		b.Fatal(err)
	}
	return &fossilTree{name: name, root: root}
}

// newPartition returns the name of a file for a file system.
func newPartition(b *testing.B) string {
	b.Helper()
	part := filepath.Join(b.TempDir(), "part")
	if err := disk.Create(part, fossilSpace); err != nil {
		b.Fatal(err)
	}
	return part
}

// ourFossil starts our server on a new file system.
func ourFossil(b *testing.B) *fossilTree {
	ours, part := harness.Ours(b), newPartition(b)
	ours.Run(b, nil, "fossil/flfmt", "-y", part)
	sock := filepath.Join(b.TempDir(), "sock")
	startNine(b, ours.Command(b.Context(), "fossil/fossil", "-c", "fsys main config "+part,
		"-c", fmt.Sprintf("fsys main open -APVW -c %d", fossilBlocks), "-a", "unix!"+sock, "--console", "none"))
	return attachTree(b, "fossil", connect(b, sock), ninep.Linux, "")
}

// theirFossil starts the original's server on a new file system.
func theirFossil(b *testing.B) *fossilTree {
	dir := os.Getenv("FOSSIL_BIN")
	if dir == "" && os.Getenv("PLAN9") != "" {
		dir = filepath.Join(os.Getenv("PLAN9"), "bin", "fossil")
	}
	prog := filepath.Join(dir, "fossil")
	if _, err := os.Stat(prog); dir == "" || err != nil {
		b.Skip("neither $FOSSIL_BIN, a folder with Plan 9's fossil and flfmt, nor $PLAN9 with bin/fossil")
	}
	part := newPartition(b)
	if out, err := exec.Command(filepath.Join(dir, "flfmt"), "-y", part).CombinedOutput(); err != nil {
		b.Fatalf("flfmt: %v: %s", err, out)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	cmd := exec.Command(prog, "-t", "-c", "fsys main config "+part, "-c", fmt.Sprintf("fsys main open -APVW -c %d", fossilBlocks),
		"-c", "listen tcp!127.0.0.1!"+strconv.Itoa(port))
	in, err := cmd.StdinPipe() // its end would be the program's
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close() })
	startNine(b, cmd)
	return attachTree(b, "original", connectTo(b, "tcp", ln.Addr().String()), ninep.Classic, "")
}

// diodTree starts diod on a directory of the disk.
func diodTree(b *testing.B) *fossilTree {
	prog, err := exec.LookPath("diod")
	if err != nil {
		if prog, err = exec.LookPath("/usr/sbin/diod"); err != nil {
			b.Skip("no diod to compare with: apt-get install diod")
		}
	}
	dir, sock := b.TempDir(), filepath.Join(b.TempDir(), "sock")
	startNine(b, exec.Command(prog, "-f", "-n", "-N", "-S", "-U", "root", "-e", dir, "-l", sock, "-L", "/dev/null", "-c", "/dev/null"))
	return attachTree(b, "diod", connect(b, sock), ninep.Linux, dir)
}

// fresh makes an empty directory.
func (t *fossilTree) fresh(b *testing.B) *ninep.File {
	b.Helper()
	ctx := context.Background()
	t.n++
	name := fmt.Sprintf("dir%d", t.n)
	err := t.root.Mkdir(ctx, name, 0o777)
	var d *ninep.File
	if err == nil {
		d, err = t.root.Walk(ctx, name)
	}
	if err != nil {
		b.Fatalf("%s: %v", t.name, err)
	}
	return d
}

// file makes a file, opened for reading and writing.
func (t *fossilTree) file(b *testing.B) *ninep.File {
	b.Helper()
	d := t.fresh(b)
	if err := d.Create(context.Background(), "f", 0o666, ninep.ORDWR); err != nil {
		b.Fatalf("%s: %v", t.name, err)
	}
	return d
}

// each does work for 0 to n-1, some at a time.
func (t *fossilTree) each(b *testing.B, n, atOnce int, work func(i int) error) {
	b.Helper()
	next := make(chan int)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				if err := work(i); err != nil {
					b.Errorf("%s: %v", t.name, err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// write writes the file from its beginning, and makes it durable if the server
// can.
func (t *fossilTree) write(b *testing.B, f *ninep.File, data []byte, size int) {
	ctx := context.Background()
	t.each(b, size/len(data), 8, func(i int) error {
		_, err := f.WriteAt(ctx, data, int64(i*len(data)))
		return err
	})
	if err := f.Sync(ctx); err != nil {
		b.Errorf("%s: %v", t.name, err)
	}
}

// read reads the file from its beginning.
func (t *fossilTree) read(b *testing.B, f *ninep.File, size int) {
	const n = mib
	t.each(b, size/n, 8, func(i int) error {
		_, err := f.ReadAt(context.Background(), make([]byte, n), int64(i*n))
		if err == io.EOF {
			err = nil
		}
		return err
	})
}

// overwrite writes blocks of 4 KiB of a file at random, with a sync each 64.
func (t *fossilTree) overwrite(b *testing.B, f *ninep.File, size, count int) {
	ctx := context.Background()
	rnd := rand.New(rand.NewPCG(1, 1))
	data := make([]byte, 4096)
	fillRandom(data)
	for range count / 64 {
		at := make([]int64, 64)
		for i := range at {
			at[i] = rnd.Int64N(int64(size/4096)) * 4096
		}
		t.each(b, len(at), 8, func(i int) error {
			_, err := f.WriteAt(ctx, data, at[i])
			return err
		})
		if err := f.Sync(ctx); err != nil {
			b.Errorf("%s: %v", t.name, err)
		}
	}
}

// create makes files with some bytes in a new directory.
func (t *fossilTree) create(b *testing.B, count, size int) {
	ctx := context.Background()
	d := t.fresh(b)
	data := make([]byte, size)
	fillRandom(data)
	t.each(b, count, 8, func(i int) error {
		f, err := d.Walk(ctx)
		if err != nil {
			return err
		}
		if err := f.Create(ctx, fmt.Sprintf("file%05d", i), 0o644, ninep.OWRITE); err != nil {
			return err
		}
		if size > 0 {
			if _, err := f.WriteAt(ctx, data, 0); err != nil {
				return err
			}
		}
		return f.Close(ctx)
	})
}

// BenchmarkFossil compares our server with others: the times of a load are the
// medians of runs that alternate.
func BenchmarkFossil(b *testing.B) {
	big := make([]byte, mib)
	fillRandom(big)
	for _, peer := range []struct {
		name  string
		start func(b *testing.B) *fossilTree
		loads []fossilLoad
	}{
		{"original", theirFossil, []fossilLoad{
			{"write", 5, fossilFile, true, func(b *testing.B, t *fossilTree) func() {
				return func() { t.write(b, t.file(b), big, fossilFile) }
			}},
			{"read", 5, fossilFile, true, func(b *testing.B, t *fossilTree) func() {
				f := t.file(b)
				t.write(b, f, big, fossilFile)
				return func() { t.read(b, f, fossilFile) }
			}},
			{"create", 5, 2000, false, func(b *testing.B, t *fossilTree) func() {
				return func() { t.create(b, 2000, 1024) }
			}},
		}},
		{"diod on ext4", diodTree, []fossilLoad{
			{"write", 0.7, fossilFile, true, func(b *testing.B, t *fossilTree) func() {
				return func() { t.write(b, t.file(b), big, fossilFile) }
			}},
			{"read", 0.7, fossilFile, true, func(b *testing.B, t *fossilTree) func() {
				f := t.file(b)
				t.write(b, f, big, fossilFile)
				return func() { t.read(b, f, fossilFile) }
			}},
			{"overwrite", 0.5, 4096, false, func(b *testing.B, t *fossilTree) func() {
				f := t.file(b)
				t.write(b, f, big, fossilFile)
				return func() { t.overwrite(b, f, fossilFile, 4096) }
			}},
			{"create", 0.5, 10000, false, func(b *testing.B, t *fossilTree) func() {
				return func() { t.create(b, 10000, 0) }
			}},
		}},
	} {
		b.Run(peer.name, func(b *testing.B) {
			for _, l := range peer.loads {
				b.Run(l.name, func(b *testing.B) {
					trees := []*fossilTree{ourFossil(b), peer.start(b)}
					runs := []func(){l.prepare(b, trees[0]), l.prepare(b, trees[1])}
					var times [2][]float64
					for b.Loop() {
						for i, f := range runs {
							times[i] = append(times[i], timed(f))
						}
					}
					b.ReportMetric(0, "ns/op")
					var rates [2]float64
					for i := range times {
						slices.Sort(times[i])
						rates[i] = l.amount / times[i][len(times[i])/2]
						if l.bytes {
							b.ReportMetric(rates[i]/1e6, trees[i].name+"-MB/s")
						} else {
							b.ReportMetric(rates[i], trees[i].name+"-op/s")
						}
					}
					b.ReportMetric(rates[0]/rates[1], "ratio")
					b.ReportMetric(l.wanted, "wanted")
				})
			}
		})
	}
}

// A fossilLoad is something to be done in a tree.
type fossilLoad struct {
	name    string
	wanted  float64
	amount  float64
	bytes   bool // what amount counts
	prepare func(b *testing.B, t *fossilTree) func()
}
