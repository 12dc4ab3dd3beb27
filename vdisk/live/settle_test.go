package live_test

import (
	"bytes"
	"crypto/sha1"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/vdisk"
	"strata/vdisk/live"
	"strata/venti"
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

// TestGrow makes disks longer while they are written to, which are cut as they
// were until their writer leaves.
func TestGrow(t *testing.T) {
	for name, table := range map[string][]byte{
		"bare": nil, "gap": mbr([2]uint32{8, 1000}), "no gap": mbr([2]uint32{8, 1000}, [2]uint32{1008, 2<<20/512 - 1008}),
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, 64<<20)
			ctx := t.Context()
			m.must(m.cat.Create(ctx, "a", 2<<20))
			want := append(table, random(3, 1<<20)...)
			want = append(want, make([]byte, 2<<20-len(want))...)
			d := m.writer("a")
			_, err := d.WriteAt(ctx, want, 0)
			m.must(err)
			m.must(d.Close(ctx)) // cuts it
			d = m.writer("a")
			for i, size := range []int64{3<<20 + 512, 9 << 20} {
				m.must(m.cat.Resize(ctx, "a", size, false))
				if d.Size() != size {
					t.Fatalf("%d bytes long, want %d", d.Size(), size)
				}
				p := random(uint64(i), 8192)
				want = append(want, make([]byte, size-int64(len(want)))...)
				copy(want[size-8192:], p)
				_, err := d.WriteAt(ctx, p, size-8192)
				m.must(err)
				if got := m.contents("a"); !bytes.Equal(got, want) {
					t.Fatal("grown, it is another disk")
				}
			}
			if err := m.cat.Resize(ctx, "a", 8<<20, true); err == nil || !strings.Contains(err.Error(), "is being written to") {
				t.Errorf("made shorter: %v", err)
			}
			m.must(d.Flush(ctx))
			s, err := m.cat.Snapshot(ctx, "a", "grown")
			m.must(err)
			if got, _ := m.archived(s.Score); !bytes.Equal(got, want) {
				t.Error("its snapshot is another disk")
			}
			m.must(d.Close(ctx))
			if got := m.contents("a"); !bytes.Equal(got, want) {
				t.Error("settled, it is another disk")
			}
			s, err = m.cat.Snapshot(ctx, "a", "")
			m.must(err)
			m.sameImage(s.Score, m.imported(want))
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

// TestSwap has nights archive a machine that runs: nothing of what it has swapped
// out is kept, and all of what is a swap area no more.
func TestSwap(t *testing.T) {
	d := newRaw(t, "4096")
	m := newMachine(t, 128<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "a", 16<<20))
	d.follow(m, "a")
	w := m.writer("a")
	write := func(b []byte, off int64) {
		t.Helper()
		_, err := w.WriteAt(ctx, b, off)
		m.must(err)
	}
	night := func() []byte {
		t.Helper()
		m.clock.add(24 * 3600e9)
		m.nightly()
		list, err := m.cat.Log(ctx, "a")
		m.must(err)
		b, _ := m.archived(list[len(list)-1].Score)
		return b
	}
	const area, page = 9 << 20, 9<<20 + 40960
	secret := random(7, 4096)
	stored := func() bool {
		buf := make([]byte, venti.MaxBlockSize)
		_, err := m.store.ReadBlock(ctx, venti.Score(sha1.Sum(secret)), venti.DataType, buf)
		return err == nil
	}
	write(secret, page)
	label := slices.Clone(d.bytes()[area:][:4096])
	copy(label[1024+28:], "renamed") // by swaplabel
	write(label, area)
	if got := night(); !bytes.Equal(got[page:][:4096], make([]byte, 4096)) || !bytes.Equal(got[area:][:4096], label) {
		t.Error("a night has a swapped page, or not the header")
	}
	if stored() {
		t.Error("a swapped page is in the archive")
	}
	m.must(w.Flush(ctx))
	if got := m.contents("a")[page:][:4096]; !bytes.Equal(got, secret) {
		t.Error("the swapped page is lost")
	}

	// The machine goes to sleep: its memory is in there now.
	asleep := slices.Clone(label)
	copy(asleep[4086:], "S1SUSPEND\x00")
	write(asleep, area)
	if got := night(); !bytes.Equal(got, m.contents("a")) || !bytes.Equal(got[page:][:4096], secret) {
		t.Error("a night does not have the memory of a machine that is asleep")
	}
	// It wakes up. What is swapped out is not kept again as soon as it has gone.
	write(label, area)
	m.must(w.Close(ctx))
	if got := night(); !bytes.Equal(got[page:][:4096], make([]byte, 4096)) {
		t.Error("swapped pages are kept for ever")
	}

	// Another makes a file system of it, and goes on.
	w = m.writer("a")
	fs := d.mkfs(4<<20, "1024")
	write(random(8, 4096), page)
	for off := len(fs) - 4096; off >= 0; off -= 4096 {
		if b := fs[off:][:4096]; off == 0 || !bytes.Equal(b, make([]byte, 4096)) {
			write(b, area+int64(off))
		}
	}
	if got := night(); !bytes.Equal(got, m.contents("a")) {
		t.Error("a night does not have all of a file system that was a swap area")
	}
	m.must(w.Trim(ctx, area, 4<<20))
	m.must(w.Close(ctx))
	if got := night(); !bytes.Equal(got, m.contents("a")) {
		t.Error("a night is another disk")
	}
}

// TestSwapTrimmed makes nothing of a swap area by a trim of its header.
func TestSwapTrimmed(t *testing.T) {
	d := newRaw(t, "4096")
	m := newMachine(t, 64<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "a", 16<<20))
	d.follow(m, "a")
	w := m.writer("a")
	page := random(7, 4096)
	_, err := w.WriteAt(ctx, page, 10<<20)
	m.must(err)
	m.must(w.Trim(ctx, 9<<20, 4096))
	m.nightly()
	s, err := m.cat.Find(ctx, "a", "2026/1127")
	m.must(err)
	if got, _ := m.archived(s.Score); !bytes.Equal(got, m.contents("a")) || !bytes.Equal(got[10<<20:][:4096], page) {
		t.Error("a night has lost what is no swap area any more")
	}
	m.must(w.Close(ctx))
}

// TestTrim has what is free in each kind of file system trimmed when the last
// writer leaves, where the file system says that it was unmounted.
func TestTrim(t *testing.T) {
	for _, tc := range []struct {
		kind  string
		size  int64
		clean bool
		mkfs  []string
	}{
		{"ext4", 16 << 20, true, []string{"mke2fs", "-q", "-t", "ext4", "-E", "nodiscard"}},
		{"vfat", 16 << 20, true, []string{"mkfs.vfat"}},
		{"exfat", 16 << 20, true, []string{"mkfs.exfat"}},
		{"xfs", 300 << 20, true, []string{"mkfs.xfs", "-q", "-K"}},
		{"ntfs", 16 << 20, false, []string{"mkntfs", "-q", "-F"}}, // ntfs-3g leaves no mark
		{"btrfs", 128 << 20, false, []string{"mkfs.btrfs", "-q", "-K"}},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			d := &raw{t, filepath.Join(t.TempDir(), "disk")}
			if err := os.WriteFile(d.path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(d.path, tc.size); err != nil {
				t.Fatal(err)
			}
			run(t, "", tc.mkfs[0], append(tc.mkfs[1:], d.path)...)
			disk, err := vdisk.OpenDisk(d.path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := vdisk.NewSurvey(disk, false)
			disk.Close()
			if err != nil || len(s.Layout.Regions) != 1 || s.Layout.Regions[0].FileSystem.Type != tc.kind || !s.Layout.Regions[0].FreeOmitted {
				t.Fatalf("survey: %+v, %v", s.Layout, err)
			}
			var free []int64
			for x := range s.Free(0) {
				if at := x.Off + x.Len/2/4096*4096; x.Len > 1<<20 {
					d.put(at, random(uint64(at), 4096))
					free = append(free, at)
				}
			}
			m := newMachine(t, 512<<20)
			ctx := t.Context()
			score := m.imported(d.bytes())
			m.must(m.cat.Create(ctx, "a", tc.size))
			d.follow(m, "a")
			there := func() (n int) {
				r, err := m.cat.Disk(ctx, "a", live.OpenOptions{})
				m.must(err)
				defer r.Close(ctx)
				b := make([]byte, 4096)
				for _, at := range free {
					_, err := r.ReadAt(ctx, b, at)
					m.must(err)
					if !bytes.Equal(b, make([]byte, 4096)) {
						n++
					}
				}
				return n
			}
			if n := there(); len(free) == 0 || n > 0 && n < len(free) || (n == 0) != tc.clean {
				t.Errorf("of %d pieces of garbage %d are there, want all or none: %v", len(free), n, tc.clean)
			}
			m.must(m.cat.Settle(ctx, "a", true))
			if n := there(); n > 0 {
				t.Errorf("told to, it left %d of %d pieces of garbage", n, len(free))
			}
			snap, err := m.cat.Snapshot(ctx, "a", "")
			m.must(err)
			m.sameImage(snap.Score, score)
		})
	}
}
