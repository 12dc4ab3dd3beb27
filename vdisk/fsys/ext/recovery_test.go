package ext_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"strata/vdisk/fsys"
)

// copyFile copies an image, which is sparse, next to itself.
func copyFile(t testing.TB, name, suffix string) string {
	t.Helper()
	to := name + suffix
	if out, err := exec.Command("cp", "--sparse=always", name, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return to
}

// lose punches extents out of a file, so that they read as zeros.
func lose(t testing.TB, name string, extents []fsys.Extent) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, x := range extents {
		const keepSize, punchHole = 1, 2
		if err := syscall.Fallocate(int(f.Fd()), punchHole|keepSize, x.Off, x.Len); err != nil {
			t.Skipf("punch a hole: %v", err)
		}
	}
}

// inside fails if some of inner is not in outer. Both are ascending.
func inside(t testing.TB, inner, outer []fsys.Extent) {
	t.Helper()
	for _, x := range inner {
		for len(outer) > 0 && outer[0].End() <= x.Off {
			outer = outer[1:]
		}
		if len(outer) == 0 || x.Off < outer[0].Off || x.End() > outer[0].End() {
			t.Errorf("%+v is free and should not be", x)
		}
	}
}

// checkRecovery checks the free map of an image whose journal is to be
// replayed: what it calls free is free after e2fsck's replay, and if all that
// is lost, the replay gives a file system that is whole and has the same files.
func checkRecovery(t *testing.T, name string) []fsys.Extent {
	t.Helper()
	fs, free := probe(t, name)
	if fs.Whole != "" {
		t.Fatalf("stored whole: %s", fs.Whole)
	}
	replayed := copyFile(t, name, ".replayed")
	run(t, 1, "e2fsck", "-fy", replayed)
	after := dumped(t, replayed)
	inside(t, free, after)

	lost := copyFile(t, name, ".lost")
	lose(t, lost, free)
	if _, again := probe(t, lost); !slices.Equal(again, free) {
		t.Error("the free map is another one once it was used")
	}
	run(t, 1, "e2fsck", "-fy", lost)
	run(t, 0, "e2fsck", "-fn", lost)
	if got := dumped(t, lost); !slices.Equal(got, after) {
		t.Errorf("free after replay\n\t%v\nwant\n\t%v", got, after)
	}
	sameFiles(t, lost, replayed)
	return free
}

// sameFiles compares all files in two images.
func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	dirs := []string{t.TempDir(), t.TempDir()}
	for i, name := range []string{a, b} {
		run(t, 0, "debugfs", "-R", "rdump / "+dirs[i], name)
	}
	out, err := exec.Command("diff", "-r", "--no-dereference", dirs[0], dirs[1]).CombinedOutput()
	if err != nil {
		t.Errorf("diff: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dirs[0], "*", "*"))
	if err != nil || len(files) == 0 {
		t.Errorf("no files to compare: %v", err)
	}
}

// TestLost loses the free blocks of clean file systems.
func TestLost(t *testing.T) {
	for _, args := range []string{
		"-b 4096 -O " + debian12,
		"-b 1024 -O " + debian12 + ",^metadata_csum,^metadata_csum_seed,uninit_bg",
		"-b 1024 -O none",
		"-b 1024 -C 4096 -O " + debian12 + ",bigalloc",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			name := mkfs(t, 20<<20, append(strings.Fields(args), "-d", source(t))...)
			debugfs(t, name, "rm d0/f0", "rm d1/f1")
			fs, free := probe(t, name)
			if fs.Whole != "" {
				t.Fatalf("stored whole: %s", fs.Whole)
			}
			lost := copyFile(t, name, ".lost")
			lose(t, lost, free)
			run(t, 0, "e2fsck", "-fn", lost)
			sameFiles(t, lost, name)
		})
	}
}

// A version is one of the states that a file system went through.
type version struct {
	name string
	free []fsys.Extent
}

// versions makes an image and later versions of it. The last argument of mkfs
// are those of args.
func versions(t *testing.T, size int64, args string) []version {
	t.Helper()
	name := mkfs(t, size, append(strings.Fields(args), "-d", source(t))...)
	data := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(data, bytes.Repeat([]byte("data written later\n"), 30000), 0o600); err != nil {
		t.Fatal(err)
	}
	all := []version{{name: name}}
	for i, commands := range [][]string{
		{"rm d0/f0", "rm d1/f1", "rm d2/f2", "rm d2/f9"},
		{"write " + data + " d0/new", "mkdir d0/sub", "rm d3/f3"},
		{"rm d0/new", "write " + data + " d1/newer", "rm d4/f4"},
	} {
		next := copyFile(t, all[i].name, ".next")
		debugfs(t, next, commands...)
		all = append(all, version{name: next})
	}
	for i := range all {
		all[i].free = dumped(t, all[i].name)
	}
	return all
}

// changes returns the blocks in which b is not a, and what they are in b.
func changes(t *testing.T, a, b string, blockSize int) map[uint64][]byte {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	list := make(map[uint64][]byte)
	x, y := read(a), read(b)
	for off := 0; off < len(x); off += blockSize {
		if p := y[off : off+blockSize]; !bytes.Equal(x[off:off+blockSize], p) {
			list[uint64(off/blockSize)] = p
		}
	}
	return list
}

func sorted(m map[uint64][]byte) []uint64 {
	var list []uint64
	for b := range m {
		list = append(list, b)
	}
	slices.Sort(list)
	return list
}

// both returns what is in a and in b.
func both(a, b []fsys.Extent) []fsys.Extent {
	var all []fsys.Extent
	for len(a) > 0 && len(b) > 0 {
		from, to := max(a[0].Off, b[0].Off), min(a[0].End(), b[0].End())
		if from < to {
			all = append(all, fsys.Extent{Off: from, Len: to - from})
		}
		if a[0].End() < b[0].End() {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return all
}

// TestDebugfsJournal has debugfs put two transactions in the log of a file
// system, one of them without its commit.
func TestDebugfsJournal(t *testing.T) {
	for _, tc := range []struct{ args, open string }{
		{"-b 4096 -O " + debian12, "jo -c -v 3"},
		{"-b 1024 -O " + debian12, "jo -c -v 2"},
		{"-b 1024 -O " + debian12 + ",^64bit", "jo -c"},
		{"-b 1024 -O has_journal,filetype", "jo"},
	} {
		t.Run(tc.args+" "+tc.open, func(t *testing.T) {
			t.Parallel()
			v := versions(t, 10<<20, tc.args)
			size := 1024
			if strings.Contains(tc.args, "4096") {
				size = 4096
			}
			var commands []string
			for i, write := range []string{"jw", "jw", "jw -c"} {
				list := changes(t, v[i].name, v[i+1].name, size)
				var blocks []string
				var data []byte
				for _, b := range sorted(list) {
					blocks = append(blocks, fmt.Sprint(b))
					data = append(data, list[b]...)
				}
				name := filepath.Join(t.TempDir(), fmt.Sprintf("tx%d", i))
				if err := os.WriteFile(name, data, 0o600); err != nil {
					t.Fatal(err)
				}
				commands = append(commands, fmt.Sprintf("%s -b %s %s", write, strings.Join(blocks, ","), name))
			}
			name := copyFile(t, v[0].name, ".log")
			debugfs(t, name, slices.Concat([]string{tc.open}, commands, []string{"jc"})...)
			got := checkRecovery(t, name)
			want := both(both(v[0].free, v[1].free), both(v[2].free, v[3].free))
			if !slices.Equal(got, want) {
				t.Errorf("free\n\t%v\nwant\n\t%v", got, want)
			}
		})
	}
}

// TestKernel has this machine's kernel write to file systems, and looks at
// them as they are on the disk meanwhile.
func TestKernel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount")
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("unshare is not installed")
	}
	// A mount namespace of its own ends the mount with the script.
	const script = `
set -e
cd "$1"
mkdir m
mount -o loop,$2 image m || exit 77
snap() { cp --sparse=always image snap$1; }
for i in 1 2 3 4 5 6; do mkdir m/e$i; cp -r "$3" m/e$i; done
sync -f m
rm -r m/d1 m/e2 m/e4
dd if=/dev/urandom of=m/big bs=64k count=48 2>/dev/null
sync -f m
[ -z "$4" ] || { snap 1; exit; }
for i in 1 2 3 4 5 6 7 8; do
	mkdir m/g$i
	cp -r m/d2/* m/g$i
	dd if=/dev/urandom of=m/h$i bs=64k count=$i 2>/dev/null
	sync -f m
	rm -rf m/g$((i/2+1))
	[ $i != 5 ] || snap 1
done
snap 2
umount m
snap 3
`
	for _, tc := range []struct{ name, args, mount, whole string }{
		{"ext4", "-b 4096 -O " + debian12, "data=ordered", ""},
		{"small journal, uninit_bg", "-b 1024 -J size=1 -O " + debian12 + ",^metadata_csum,^metadata_csum_seed,uninit_bg", "nodelalloc", ""},
		{"data in the journal", "-b 2048 -J size=2 -O " + debian12 + ",^64bit,^resize_inode,meta_bg,^flex_bg", "data=journal", ""},
		{"ext3", "-b 1024 -O has_journal,filetype,sparse_super", "data=ordered", ""},
		{"bigalloc", "-b 1024 -C 4096 -J size=1 -O " + debian12 + ",bigalloc", "data=ordered", ""},
		{"fast commits", "-b 4096 -O " + debian12 + ",fast_commit", "data=ordered", "may hold fast commits"},
		{"journal_checksum", "-b 4096 -O " + debian12 + ",^metadata_csum,^metadata_csum_seed", "journal_checksum", "checksums of version 1"},
		{"asynchronous commits", "-b 4096 -O " + debian12, "journal_async_commit,data=writeback", "asynchronous commits"},
		{"no journal", "-b 4096 -O extent", "rw", "not unmounted cleanly"},
		{"ext2", "-b 1024 -O filetype", "rw", "not unmounted cleanly"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tree := source(t)
			name := mkfs(t, 24<<20, append(strings.Fields(tc.args), "-d", tree)...)
			dir := filepath.Dir(name)
			out, err := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", dir, tc.mount, tree+"/d3", tc.whole).CombinedOutput()
			if err != nil {
				if cmd := err.(*exec.ExitError); cmd.ExitCode() == 77 || bytes.Contains(out, []byte("unshare failed")) {
					t.Skipf("cannot mount: %s", out)
				}
				t.Fatalf("%v\n%s", err, out)
			}
			if tc.whole != "" {
				if fs, _ := probe(t, filepath.Join(dir, "snap1")); !strings.Contains(fs.Whole, tc.whole) {
					t.Errorf("whole because %q, want %q", fs.Whole, tc.whole)
				}
				return
			}
			for _, snap := range []string{"snap1", "snap2"} {
				snap = filepath.Join(dir, snap)
				if head := run(t, 0, "dumpe2fs", "-h", snap); !strings.Contains(head, "needs_recovery") {
					t.Fatal("there is nothing to recover")
				}
				checkRecovery(t, snap)
			}
			clean := filepath.Join(dir, "snap3")
			if fs, free := probe(t, clean); fs.Whole != "" || !slices.Equal(free, dumped(t, clean)) {
				t.Errorf("unmounted: whole because %q, free %v, want %v", fs.Whole, free, dumped(t, clean))
			}
		})
	}
}
