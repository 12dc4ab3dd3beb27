package live_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/vdisk"
	"strata/vdisk/live"
)

// run runs a program, or skips the test where it is missing.
func run(t testing.TB, stdin, prog string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(prog)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, prog))
		}
	}
	if err != nil {
		t.Skipf("no %s on this machine", prog)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "E2FSPROGS_FAKE_TIME=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", prog, strings.Join(args, " "), err, out)
	}
}

// A raw is a disk in a file that programs work on.
type raw struct {
	t    testing.TB
	path string
}

const table = "label: gpt\nlabel-id: 11111111-1111-1111-1111-111111111111\n" +
	"start=1MiB, size=8MiB, type=linux, uuid=11111111-1111-1111-1111-111111111112\n" +
	"start=9MiB, size=4MiB, type=swap, uuid=11111111-1111-1111-1111-111111111113\n"

// newRaw makes a disk with an ext4 of blocks of some size, and swap.
func newRaw(t testing.TB, blockSize string) *raw {
	t.Helper()
	d := &raw{t, filepath.Join(t.TempDir(), "disk")}
	if err := os.WriteFile(d.path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.path, 16<<20); err != nil {
		t.Fatal(err)
	}
	run(t, table, "sfdisk", "-q", d.path)
	d.put(1<<20, d.mkfs(8<<20, blockSize))
	d.put(9<<20, d.mkswap(4<<20))
	return d
}

func (d *raw) mkfs(size int64, blockSize string) []byte {
	d.t.Helper()
	f := filepath.Join(d.t.TempDir(), "ext4")
	if err := os.WriteFile(f, make([]byte, size), 0o644); err != nil {
		d.t.Fatal(err)
	}
	run(d.t, "", "mke2fs", "-q", "-t", "ext4", "-b", blockSize, "-U", "11111111-1111-1111-1111-111111111114", "-E", "hash_seed=11111111-1111-1111-1111-111111111115,lazy_itable_init=0,nodiscard", f)
	return d.read(f)
}

func (d *raw) mkswap(size int64) []byte {
	d.t.Helper()
	f := filepath.Join(d.t.TempDir(), "swap")
	if err := os.WriteFile(f, make([]byte, size), 0o600); err != nil {
		d.t.Fatal(err)
	}
	run(d.t, "", "mkswap", "-q", "-U", "11111111-1111-1111-1111-111111111116", f)
	return d.read(f)
}

func (d *raw) read(path string) []byte {
	d.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	return b
}

func (d *raw) bytes() []byte { return d.read(d.path) }

func (d *raw) put(off int64, b []byte) {
	d.t.Helper()
	f, err := os.OpenFile(d.path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(b, off)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// debugfs runs commands on the ext4.
func (d *raw) debugfs(commands ...string) {
	d.t.Helper()
	script := filepath.Join(d.t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(strings.Join(commands, "\n")+"\n"), 0o644); err != nil {
		d.t.Fatal(err)
	}
	run(d.t, "", "debugfs", "-w", "-f", script, d.path+"?offset=1048576")
}

// follow writes to an image what makes it like the raw disk, block by block.
func (d *raw) follow(m *machine, name string) {
	d.t.Helper()
	was, is := m.contents(name), d.bytes()
	w := m.writer(name)
	const block = 1024
	for off := 0; off < len(is); off += block {
		if end := min(off+block, len(is)); !bytes.Equal(was[off:end], is[off:end]) {
			if _, err := w.WriteAt(d.t.Context(), is[off:end], int64(off)); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	if got := m.contents(name); !bytes.Equal(got, is) {
		d.t.Fatal("what was written is not what is read")
	}
	m.must(w.Close(d.t.Context()))
}

// same fails unless a snapshot of the image is the import of the raw disk.
func (d *raw) same(m *machine, name string) {
	d.t.Helper()
	s, err := m.cat.Snapshot(d.t.Context(), name, "")
	m.must(err)
	m.sameImage(s.Score, m.imported(d.bytes()))
}

// TestSettle makes a disk live as a guest would, and has it always be what an
// import of the same disk is.
func TestSettle(t *testing.T) {
	for _, blockSize := range []string{"1024", "4096"} {
		t.Run(blockSize, func(t *testing.T) {
			d := newRaw(t, blockSize)
			m := newMachine(t, 256<<20)
			ctx := t.Context()
			m.must(m.cat.Create(ctx, "a", 16<<20))
			d.follow(m, "a")
			d.same(m, "a")

			// Files come and go, and what they were stays on the disk.
			big := filepath.Join(t.TempDir(), "big")
			if err := os.WriteFile(big, random(1, 1<<20), 0o644); err != nil {
				t.Fatal(err)
			}
			d.debugfs("write "+big+" one", "write "+big+" two")
			d.debugfs("rm one")
			d.follow(m, "a")
			d.same(m, "a")
			if got, want := m.contents("a"), d.bytes(); bytes.Equal(got, want) {
				t.Error("what is free was not trimmed")
			}

			// Swapped pages are there while the machine runs, and nowhere else.
			w := m.writer("a")
			page := random(2, 4096)
			_, err := w.WriteAt(ctx, page, 9<<20+40960)
			m.must(err)
			m.must(w.Close(ctx))
			if got := m.contents("a")[9<<20+40960:][:4096]; !bytes.Equal(got, page) {
				t.Error("a swapped page is lost")
			}
			d.same(m, "a")
			m.must(m.cat.Settle(ctx, "a", true))
			if got := m.contents("a")[9<<20+40960:][:4096]; !bytes.Equal(got, make([]byte, 4096)) {
				t.Error("the swap area was not emptied")
			}

			// Another file system in its place, another partition, another size.
			d.put(9<<20, d.mkfs(4<<20, "1024"))
			d.follow(m, "a")
			d.same(m, "a")
			run(t, "label: dos\nlabel-id: 0x12345678\nstart=2048, size=16384\nstart=18432, size=8192\nstart=26624\n", "sfdisk", "-q", "--no-reread", "--wipe", "always", d.path)
			d.follow(m, "a")
			d.same(m, "a")
			if err := os.Truncate(d.path, 20<<20); err != nil {
				t.Fatal(err)
			}
			m.must(m.cat.Resize(ctx, "a", 20<<20, false))
			d.same(m, "a")
			run(t, ", +\n", "sfdisk", "-q", "--no-reread", "-N", "3", d.path)
			d.follow(m, "a")
			d.same(m, "a")
			d.put(17<<20, []byte("data"))
			d.follow(m, "a")
			if err := m.cat.Resize(ctx, "a", 15<<20, false); err == nil {
				t.Error("data was cut off")
			}
			// The last partition leaves the disk now, which is then one region.
			short := m.contents("a")[:15<<20]
			m.must(m.cat.Resize(ctx, "a", 15<<20, true))
			if !bytes.Equal(m.contents("a"), short) {
				t.Error("cut off, it is another disk")
			}
			s, err := m.cat.Snapshot(ctx, "a", "")
			m.must(err)
			if s.Score != m.imported(short) {
				t.Error("cut off, its score is not that of an import")
			}
		})
	}
}

// TestMounted leaves alone what is free in a file system that may be in use.
func TestMounted(t *testing.T) {
	d := newRaw(t, "4096")
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, random(1, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	d.debugfs("write " + big + " one")
	d.debugfs("rm one")
	d.debugfs("feature needs_recovery")
	m := newMachine(t, 128<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "a", 16<<20))
	d.follow(m, "a")
	if !bytes.Equal(m.contents("a"), d.bytes()) {
		t.Error("something was trimmed while it may be mounted")
	}
	l, err := m.cat.Layout(ctx, "a")
	m.must(err)
	i := slices.IndexFunc(l.Regions, func(r vdisk.Region) bool { return r.Name == "p1.ext4" })
	if i < 0 || l.Regions[i].FreeOmitted || !strings.Contains(l.Regions[i].Whole, "not unmounted") {
		t.Errorf("layout: %+v", l.Regions)
	}
	m.must(m.cat.Settle(ctx, "a", true)) // who asks for it gets it
	d.same(m, "a")
	d.debugfs("feature -needs_recovery", "write "+big+" two")
	d.debugfs("rm two")
	d.follow(m, "a")
	d.same(m, "a")
}

// TestNoTrim does not trim when told so.
func TestNoTrim(t *testing.T) {
	d := newRaw(t, "4096")
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, random(1, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	d.debugfs("write " + big + " one")
	d.debugfs("rm one")
	m := newMachine(t, 128<<20)
	m.must(m.cat.Close(t.Context()))
	m.cfg = live.Config{NoTrim: true}
	m.open()
	m.must(m.cat.Create(t.Context(), "a", 16<<20))
	d.follow(m, "a")
	if !bytes.Equal(m.contents("a"), d.bytes()) {
		t.Error("something was trimmed")
	}
}
