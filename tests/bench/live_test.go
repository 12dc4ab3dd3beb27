package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"strata/internal/ninep"
	"strata/tests/harness"
)

// A liveStore is strata up in a process of its own.
type liveStore struct {
	b    *testing.B
	dir  string
	root *ninep.File // of vdisk
}

// newLiveStore makes one. Its caches have as much memory as strata up gives them,
// or as --memory says.
func newLiveStore(b *testing.B, memory string) *liveStore {
	b.Helper()
	for _, p := range []string{"fio", "nbdcopy", "qemu-nbd", "qemu-img"} {
		if _, err := exec.LookPath(p); err != nil {
			b.Skipf("no %s (packages fio, libnbd-bin, qemu-utils)", p)
		}
	}
	s := &liveStore{b: b, dir: filepath.Join(b.TempDir(), "store")}
	up := harness.Ours(b).Command(b.Context(), "strata", "up", "--local", "--size", "4", s.dir)
	if memory != "" {
		up.Args = append(up.Args, "--memory", memory)
	}
	start(b, filepath.Join(s.dir, "nbd.sock"), up)
	conn, err := net.Dial("unix", filepath.Join(s.dir, "vdisk.sock"))
	if err != nil {
		b.Fatal(err)
	}
	c, err := ninep.NewClient(b.Context(), conn, ninep.ClientConfig{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	if s.root, err = c.Attach(b.Context(), "", ""); err != nil {
		b.Fatal(err)
	}
	return s
}

// uri names an export.
func (s *liveStore) uri(export string) string {
	return nbdURI(filepath.Join(s.dir, "nbd.sock"), export)
}

func nbdURI(socket, export string) string { return "nbd+unix:///" + export + "?socket=" + socket }

// tell gives a command to the file ctl, and returns how long it took, in
// milliseconds.
func (s *liveStore) tell(format string, args ...any) float64 {
	s.b.Helper()
	f := s.open("ctl")
	defer f.Close(s.b.Context())
	return 1000 * timed(func() {
		if _, err := f.WriteAt(s.b.Context(), fmt.Appendf(nil, format, args...), 0); err != nil {
			s.b.Fatal(err)
		}
	})
}

func (s *liveStore) open(path ...string) *ninep.File {
	s.b.Helper()
	f, err := s.root.Walk(s.b.Context(), path...)
	if err == nil {
		err = f.Open(s.b.Context(), ninep.ORDWR)
	}
	if err != nil {
		s.b.Fatal(err)
	}
	return f
}

// fioRate returns how many requests of 4 KiB at random places fio gets done in
// a second, 16 at once: reads, or writes with a flush after each 64.
func fioRate(b *testing.B, uri, rw string, seconds int) float64 {
	b.Helper()
	cmd := exec.Command("fio", "--name=x", "--ioengine=nbd", "--uri="+uri, "--output-format=json", "--bs=4k", "--rw="+rw,
		"--iodepth=16", "--time_based", fmt.Sprintf("--runtime=%d", seconds), "--randrepeat=0")
	if rw == "randwrite" {
		cmd.Args = append(cmd.Args, "--fsync=64")
	}
	cmd.Dir = b.TempDir()
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("fio: %v\n%s%s", err, out, &said)
	}
	type rate struct{ IOPS float64 }
	var res struct{ Jobs []struct{ Read, Write rate } }
	if err := json.Unmarshal(out[bytes.IndexByte(out, '{'):], &res); err != nil {
		b.Fatal(err)
	}
	return res.Jobs[0].Read.IOPS + res.Jobs[0].Write.IOPS
}

// reportMedians reports the median of each list.
func reportMedians(b *testing.B, lists map[string][]float64) {
	for unit, list := range lists {
		slices.Sort(list)
		b.ReportMetric(list[len(list)/2], unit)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLive reads and writes a live disk over NBD beside qemu-nbd, which
// serves the same bytes raw or as qcow2, in turns. The disk was written over NBD
// and is in the file system's buffer (local), or is a clone of what was archived
// (stored). Servers and page cache are warm: our caches have the whole disk, if
// the machine has the memory (default), or an eighth of it at most (32m), and the
// page cache has the rest.
func BenchmarkLive(b *testing.B) {
	b.Run("default", func(b *testing.B) { benchmarkLive(b, "") })
	b.Run("32m", func(b *testing.B) { benchmarkLive(b, "32m") })
}

func benchmarkLive(b *testing.B, memory string) {
	const size = 256 * mib
	s, dir := newLiveStore(b, memory), b.TempDir()
	raw, qcow := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	writeSomeFiles(b, raw, size)
	if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow).CombinedOutput(); err != nil {
		b.Fatalf("qemu-img: %v\n%s", err, out)
	}
	s.tell("create local %d", size)
	if out, err := exec.Command("nbdcopy", "--flush", raw, s.uri("local")).CombinedOutput(); err != nil {
		b.Fatalf("nbdcopy: %v\n%s", err, out)
	}
	s.tell("clone local stored")
	peer := func(format, file string) string {
		socket := filepath.Join(dir, format+".sock")
		start(b, socket, exec.Command("qemu-nbd", "-f", format, "-k", socket, "-x", "disk", "-t", "-e", "8", file))
		return nbdURI(socket, "disk")
	}
	asQcow, asRaw := peer("qcow2", qcow), peer("raw", raw)
	for _, c := range []struct {
		name, peer string
		measure    func(uri string) float64
	}{
		{"Stream1M", asRaw, func(uri string) float64 { return nbdcopyMiB(b, uri, size) }},
		{"Read4KDepth16", asRaw, func(uri string) float64 { return fioRate(b, uri, "randread", 3) }},
		{"Write4KDepth16", asQcow, func(uri string) float64 { return fioRate(b, uri, "randwrite", 3) }},
	} {
		for _, export := range []string{"local", "stored"} {
			b.Run(c.name+"/"+export, func(b *testing.B) {
				nbdcopyMiB(b, s.uri(export), size)
				nbdcopyMiB(b, c.peer, size)
				lists := map[string][]float64{}
				for b.Loop() {
					theirs := c.measure(c.peer)
					ours := c.measure(s.uri(export))
					lists["ours/s"] = append(lists["ours/s"], ours)
					lists["qemu/s"] = append(lists["qemu/s"], theirs)
					lists["ratio"] = append(lists["ratio"], ours/theirs)
				}
				reportMedians(b, lists)
				b.ReportMetric(0.5, "wanted")
			})
		}
	}
}

// manySnapshots is how many snapshots an image has that has many.
const manySnapshots = 1000

// BenchmarkLiveHistory takes snapshots, clones and rolls back: an image of 100
// MiB, one of 100 GiB, and one of 100 MiB that has a thousand snapshots, with as
// much in each. Before that it reads the thousandth snapshot beside the first, and
// the disk that has them beside one that has one.
func BenchmarkLiveHistory(b *testing.B) {
	s := newLiveStore(b, "")
	const pieces, piece = 64, mib
	sizes := map[string]int64{"small": 100 * mib, "large": 100 << 30, "old": 100 * mib}
	file := filepath.Join(b.TempDir(), "files")
	writeSomeFiles(b, file, pieces*piece)
	data, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	at := func(name string, i int) int64 { return sizes[name] / pieces / piece * piece * int64(i) }
	// scribble changes blocks of 4 KiB in n of the image's pieces.
	scribble := func(name string, n int) {
		d := s.open("images", name, "disk")
		for range n {
			i, off := rng.IntN(pieces), rng.Int64N(piece/4096)*4096
			block := data[int64(i)*piece+off:][:4096]
			block[rng.IntN(4096)]++
			if _, err := d.WriteAt(b.Context(), block, at(name, i)+off); err != nil {
				b.Fatal(err)
			}
		}
		if err := d.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	names := []string{"small", "large", "old"}
	for _, name := range names {
		s.tell("create %s %d", name, sizes[name])
		d := s.open("images", name, "disk")
		for i := range pieces {
			if _, err := d.WriteAt(b.Context(), data[i*piece:][:piece], at(name, i)); err != nil {
				b.Fatal(err)
			}
		}
		d.Close(b.Context())
		s.tell("snap %s first", name)
	}
	for range manySnapshots - 2 {
		scribble("old", 2)
		s.tell("snap old")
	}
	scribble("old", 2)
	s.tell("snap old last")

	for _, c := range []struct{ what, last, first string }{{"ReadSnapshot", "old@last", "old@first"}, {"ReadDisk", "old", "small"}} {
		b.Run(c.what, func(b *testing.B) {
			lists := map[string][]float64{}
			for b.Loop() {
				for range 5 {
					last, first := fioRate(b, s.uri(c.last), "randread", 1), fioRate(b, s.uri(c.first), "randread", 1)
					lists["last/s"] = append(lists["last/s"], last)
					lists["first/s"] = append(lists["first/s"], first)
					lists["ratio"] = append(lists["ratio"], last/first)
				}
			}
			reportMedians(b, lists)
			b.ReportMetric(0.98, "wanted")
		})
	}
	for _, c := range []struct {
		what string
		do   func(name string) float64
	}{
		{"Snapshot", func(name string) float64 {
			scribble(name, 16)
			return s.tell("snap %s", name)
		}},
		{"Clone", func(name string) float64 {
			defer s.tell("rm -f new")
			return s.tell("clone %s@first new", name)
		}},
		{"Rollback", func(name string) float64 { return s.tell("rollback -n %s first", name) }},
	} {
		b.Run(c.what, func(b *testing.B) {
			lists := map[string][]float64{}
			for b.Loop() {
				for range 20 {
					took := map[string]float64{}
					for _, name := range names {
						took[name] = c.do(name)
						lists[name+"-ms"] = append(lists[name+"-ms"], took[name])
					}
					lists["large/small"] = append(lists["large/small"], took["large"]/took["small"])
					lists["old/small"] = append(lists["old/small"], took["old"]/took["small"])
				}
			}
			reportMedians(b, lists)
		})
	}
}
