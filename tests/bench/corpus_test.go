package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strata/tests/harness"
)

// The benchmark of this file stores six disks one after the other, as a person
// would who keeps them: with vdisk in a strata up, and with what Debian has for
// it. All get the same files, which are in the page cache, on the same disk,
// and take turns in being the first. None encrypts, but for restic, which always
// does.

// corpusDisks are the disks in the order in which they are stored, and the files
// that $STRATA_CORPUS has them in: a Debian system; a clone of it with packages
// added; the first after a day of use; the same packages installed anew; the first
// one's root file system in a partition that begins at sector 63; a clone in whose
// free space a third as much was written and deleted.
var corpusDisks = []struct{ name, file string }{
	{"base", "deb12-base.raw"},
	{"web", "deb12-web.raw"},
	{"day2", "deb12-base-day2.raw"},
	{"reinstall", "deb12-reinstall.raw"},
	{"mbr63", "deb12-mbr63.raw"},
	{"garbage", "deb12-garbage.raw"},
}

// A keeper is a program that keeps disks.
type keeper interface {
	// store keeps the disk at path under a name. It reads all of it, whatever it
	// knows of the file.
	store(path, name string) *exec.Cmd
	// restore returns the command that brings a disk back, and the directory in
	// which that leaves it, under the name that it had in its own.
	restore(path, name, dir string) *exec.Cmd
	// paths is where it keeps them.
	paths() []string
}

// borg is Borg Backup, with some options for how a file is cut.
type borg struct {
	dir  string
	opts []string
}

func newBorg(b *testing.B, opts ...string) keeper {
	k := &borg{filepath.Join(b.TempDir(), "repo"), opts}
	run(b, k.command("init", "-e", "none", k.dir))
	return k
}

func (k *borg) command(args ...string) *exec.Cmd {
	cmd := exec.Command("borg", args...)
	cmd.Env = append(os.Environ(), "BORG_BASE_DIR="+filepath.Dir(k.dir), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes")
	return cmd
}

func (k *borg) store(path, name string) *exec.Cmd {
	args := append([]string{"create", "--files-cache", "disabled"}, k.opts...)
	cmd := k.command(append(args, k.dir+"::"+name, filepath.Base(path))...)
	cmd.Dir = filepath.Dir(path)
	return cmd
}

func (k *borg) restore(path, name, dir string) *exec.Cmd {
	cmd := k.command("extract", "--sparse", k.dir+"::"+name)
	cmd.Dir = dir
	return cmd
}

func (k *borg) paths() []string { return []string{k.dir} }

// restic is Restic. A snapshot of it is found by its tag.
type restic struct {
	dir    string
	sparse bool // it can restore holes
}

func newRestic(b *testing.B) keeper {
	k := &restic{dir: filepath.Join(b.TempDir(), "repo")}
	run(b, k.command("init"))
	help, err := exec.Command("restic", "help", "restore").Output()
	if err != nil {
		b.Fatal(err)
	}
	k.sparse = bytes.Contains(help, []byte("--sparse"))
	return k
}

func (k *restic) command(args ...string) *exec.Cmd {
	cmd := exec.Command("restic", append([]string{"--quiet", "--repo", k.dir, "--cache-dir", k.dir + ".cache"}, args...)...)
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=none")
	return cmd
}

func (k *restic) store(path, name string) *exec.Cmd {
	cmd := k.command("backup", "--force", "--tag", name, filepath.Base(path))
	cmd.Dir = filepath.Dir(path)
	return cmd
}

func (k *restic) restore(path, name, dir string) *exec.Cmd {
	args := []string{"restore", "latest", "--tag", name, "--target", dir}
	if k.sparse {
		args = append(args, "--sparse")
	}
	return k.command(args...)
}

func (k *restic) paths() []string { return []string{k.dir} }

// casync is casync with an index file for each disk.
type casync struct{ dir string }

func newCasync(b *testing.B) keeper { return &casync{b.TempDir()} }

func (k *casync) store(path, name string) *exec.Cmd {
	return exec.Command("casync", "make", "--store="+filepath.Join(k.dir, "store.castr"), k.index(name), path)
}

func (k *casync) restore(path, name, dir string) *exec.Cmd {
	return exec.Command("casync", "extract", "--store="+filepath.Join(k.dir, "store.castr"), k.index(name), filepath.Join(dir, filepath.Base(path)))
}

func (k *casync) index(name string) string { return filepath.Join(k.dir, name+".caibx") }
func (k *casync) paths() []string          { return []string{k.dir} }

// strata is ours.
type strata struct {
	suite  harness.Suite
	dir    string
	server *exec.Cmd
	scores map[string]*bytes.Buffer // by name, what the import printed
}

func newStrata(b *testing.B) *strata {
	k := &strata{suite: harness.Ours(b), dir: filepath.Join(b.TempDir(), "store"), scores: make(map[string]*bytes.Buffer)}
	args := append([]string{"up", "--local", "--size", "4", "--log-level", "warn"}, strings.Fields(os.Getenv("STRATA_UP"))...)
	k.server = start(b, filepath.Join(k.dir, "nbd.sock"), k.suite.Command(b.Context(), "strata", append(args, k.dir)...))
	return k
}

func (k *strata) addr() string { return "unix!" + filepath.Join(k.dir, "venti.sock") }

func (k *strata) store(path, name string) *exec.Cmd {
	cmd := k.suite.Command(context.Background(), "vdisk", "import", "-h", k.addr(), path)
	k.scores[name] = new(bytes.Buffer)
	cmd.Stdout = k.scores[name]
	return cmd
}

func (k *strata) score(name string) string { return strings.TrimSpace(k.scores[name].String()) }

func (k *strata) restore(path, name, dir string) *exec.Cmd {
	return k.suite.Command(context.Background(), "vdisk", "export", "-h", k.addr(), k.score(name), filepath.Join(dir, filepath.Base(path)))
}

// paths is where blocks are; the index can be made from them again.
func (k *strata) paths() []string { return []string{filepath.Join(k.dir, "arenas")} }

// settle waits until the server has had nothing to do for some seconds: what it
// does in the background belongs to what was asked of it before.
func (k *strata) settle(b *testing.B) {
	const quiet = 5 * time.Second // the index is flushed when three are quiet
	last, since := k.cpu(b), time.Now()
	for deadline := since.Add(2 * time.Minute); time.Since(since) < quiet && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if now := k.cpu(b); now != last {
			last, since = now, time.Now()
		}
	}
}

// cpu returns the seconds of processor that the server has taken.
func (k *strata) cpu(b *testing.B) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", k.server.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	// The name before the state is in parentheses; utime and stime are the 14th
	// and 15th field, in hundredths on every Linux.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+2:]))
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) / 100
}

// run runs a command to its end, and returns the largest resident size that it
// was seen to have had. What the kernel tells of a child at its end
// includes what its parent had when it was forked.
func run(b *testing.B, cmd *exec.Cmd) (resident int64) {
	b.Helper()
	var said bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &said
	}
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- cmd.Wait() }()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case err := <-done:
			tick.Stop()
			if err != nil {
				b.Fatalf("%v: %v\n%s", cmd.Args, err, &said)
			}
			return resident
		case <-tick.C:
			if n, err := peakBytes(cmd.Process.Pid); err == nil { // it may just have ended
				resident = max(resident, n)
			}
		}
	}
}

// A cost is what one run of a keeper took.
type cost struct {
	wall, cpu float64 // seconds
	mem       int64   // of the command, at most
}

// measure runs a command of a keeper.
func measure(b *testing.B, k keeper, cmd *exec.Cmd) (c cost) {
	b.Helper()
	unix.Sync() // what others have written
	var before float64
	ours, _ := k.(*strata)
	if ours != nil {
		before = ours.cpu(b)
	}
	c.wall = timed(func() { c.mem = run(b, cmd) })
	c.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if ours != nil {
		ours.settle(b)
		c.cpu += ours.cpu(b) - before
	}
	return c
}

// warm brings a file into the page cache.
func warm(b *testing.B, path string) {
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{f}); err != nil {
		b.Fatal(err)
	}
}

// allocated returns the bytes of disk that files take.
func allocated(b *testing.B, paths ...string) (n int64) {
	b.Helper()
	for _, p := range paths {
		err := filepath.WalkDir(p, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			n += st.Blocks * 512
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return n
}

// keepers returns ours and those others that this machine has.
func keepers(b *testing.B) (names []string, list []keeper) {
	add := func(name string, k keeper) { names, list = append(names, name), append(list, k) }
	add("strata", newStrata(b))
	for _, p := range []string{"restic", "borg", "casync"} {
		if _, err := exec.LookPath(p); err != nil {
			b.Logf("no %s: left out (package %sbackup or %s)", p, p, p)
			continue
		}
		switch p {
		case "restic":
			add(p, newRestic(b))
		case "borg":
			add("borg", newBorg(b))
			add("borg-64K", newBorg(b, "--chunker-params", "fixed,65536"))
		case "casync":
			add(p, newCasync(b))
		}
	}
	if len(list) == 1 {
		b.Skip("none of restic, borg and casync is here to compare with")
	}
	return names, list
}

// BenchmarkCorpus stores the disks, stores the first one again, and brings it
// back. Each must be read and hashed in full. The disks are those of $STRATA_CORPUS
// or, if that is not set, small ones that it makes. $STRATA_UP has further flags
// for strata up.
func BenchmarkCorpus(b *testing.B) {
	corpus := os.Getenv("STRATA_CORPUS")
	if corpus == "" {
		corpus = b.TempDir()
		makeSmallCorpus(b, corpus)
	}
	for _, d := range corpusDisks {
		if _, err := os.Stat(filepath.Join(corpus, d.file)); err != nil {
			b.Skipf("the corpus is not whole: %v", err)
		}
	}
	names, list := keepers(b)
	ours := list[0].(*strata)
	ours.settle(b)
	peak := make([]int64, len(list)) // memory
	// each has every keeper do something, from the i-th on, and reports it.
	each := func(what string, i int, do func(k int) cost) {
		costs := make([]cost, len(list))
		for n := range list {
			k := (i + n) % len(list)
			costs[k] = do(k)
			peak[k] = max(peak[k], costs[k].mem)
		}
		b.Run(what, func(b *testing.B) {
			b.ReportMetric(0, "ns/op")
			wall, cpu := costs[1].wall, costs[1].cpu
			for k, c := range costs {
				b.ReportMetric(c.wall, names[k]+"-s")
				b.ReportMetric(c.cpu, names[k]+"-cpu-s")
				if k > 0 {
					wall, cpu = min(wall, c.wall), min(cpu, c.cpu)
				}
			}
			b.ReportMetric(costs[0].wall/wall, "of-fastest")
			b.ReportMetric(costs[0].cpu/cpu, "of-least-cpu")
		})
	}
	path := func(i int) string { return filepath.Join(corpus, corpusDisks[i].file) }
	for i, d := range corpusDisks {
		warm(b, path(i))
		each("Import-"+d.name, i, func(k int) cost { return measure(b, list[k], list[k].store(path(i), d.name)) })
	}
	first := corpusDisks[0].name
	warm(b, path(0))
	each("Again-"+first, 1, func(k int) cost { return measure(b, list[k], list[k].store(path(0), first+"-again")) })
	if a, z := ours.score(first), ours.score(first+"-again"); a != z {
		b.Errorf("imported twice, a disk has the scores %s and %s", a, z)
	}
	stored := make([]int64, len(list))
	for k := range list {
		stored[k] = allocated(b, list[k].paths()...)
	}
	sparse := make([]int64, len(list))
	each("Restore-"+first, 2, func(k int) cost {
		dir := b.TempDir()
		c := measure(b, list[k], list[k].restore(path(0), first, dir))
		out := filepath.Join(dir, filepath.Base(path(0)))
		sparse[k] = allocated(b, out)
		if list[k] == ours {
			// What was free is zeros now. The rest is the same if its score is.
			run(b, ours.store(out, "restored"))
			if a, z := ours.score(first), ours.score("restored"); a != z {
				b.Errorf("exported and imported again, %s is %s", a, z)
			}
		} else {
			run(b, exec.Command("cmp", path(0), out))
		}
		os.RemoveAll(dir)
		return c
	})
	server := residentBytes(b, ours.server.Process.Pid)
	b.Run("Disk", func(b *testing.B) {
		b.ReportMetric(0, "ns/op")
		for k, name := range names {
			b.ReportMetric(float64(stored[k])/1e6, name+"-MB")
			b.ReportMetric(float64(sparse[k])/1e6, name+"-restored-MB")
		}
		b.ReportMetric(float64(allocated(b, path(0)))/1e6, "original-MB")
		b.ReportMetric(float64(allocated(b, ours.dir))/1e6, "strata-with-index-MB")
	})
	b.Run("Memory", func(b *testing.B) {
		b.ReportMetric(0, "ns/op")
		for k, name := range names {
			b.ReportMetric(float64(peak[k])/1e6, name+"-MB")
		}
		b.ReportMetric(float64(server)/1e6, "strata-up-MB")
	})
	checkExact(b, ours, path(0))
}

// checkExact stores and exports a disk with every byte.
func checkExact(b *testing.B, k *strata, path string) {
	out, score := filepath.Join(b.TempDir(), "exact"), new(bytes.Buffer)
	cmd := k.suite.Command(b.Context(), "vdisk", "import", "-h", k.addr(), "--exact", path)
	cmd.Stdout = score
	run(b, cmd)
	run(b, k.suite.Command(b.Context(), "vdisk", "export", "-h", k.addr(), strings.TrimSpace(score.String()), out))
	run(b, exec.Command("cmp", path, out))
}
