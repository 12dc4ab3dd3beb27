package ext_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"strata/vdisk/fsys"
	"strata/vdisk/fsys/ext"
)

// run runs a program of e2fsprogs, skips the test if it is not installed, and
// returns what it printed. Exit statuses up to ok are successes.
func run(t testing.TB, ok int, name string, args ...string) string {
	t.Helper()
	bin, err := exec.LookPath(name)
	if err != nil {
		if bin, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	cmd := exec.Command(bin, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBUGFS_PAGER=cat", "MKE2FS_CONFIG=/dev/null")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() > ok || cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out) + stderr.String()
}

// scratch returns a directory for images, in memory where there is a place for
// that: e2fsprogs syncs all it does, which took most of these tests' time.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ext")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// mkfs makes a file system of size bytes, filled from a tree, in a new file.
// Unless args say otherwise it is as Debian 12 makes ext4.
func mkfs(t testing.TB, size int64, args ...string) string {
	t.Helper()
	name := filepath.Join(scratch(t), "image")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	f.Close()
	run(t, 0, "mke2fs", append(slices.Concat([]string{"-q", "-F", "-I", "256", "-L", "a label", "-U", uuid}, args), name)...)
	return name
}

const uuid = "00112233-4455-6677-8899-aabbccddeeff"

// debian12 are the features of ext4 there.
const debian12 = "has_journal,extent,huge_file,flex_bg,metadata_csum,metadata_csum_seed,64bit,dir_nlink,extra_isize,orphan_file," +
	"sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr"

// debugfs gives commands to debugfs.
func debugfs(t testing.TB, name string, commands ...string) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(strings.Join(commands, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return run(t, 0, "debugfs", "-w", "-f", script, name)
}

// source makes a tree of files of many sizes.
func source(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		data := make([]byte, r.IntN(40000))
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		name := filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("f%d", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// probe probes a file and checks what must hold for every answer.
func probe(t testing.TB, name string) (*fsys.FileSystem, []fsys.Extent) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fs, err := fsys.Probe(f, st.Size(), ext.Probe)
	if err != nil || fs == nil {
		t.Fatalf("probe: %v, %v", fs, err)
	}
	return fs, extents(t, fs, st.Size())
}

func extents(t testing.TB, fs *fsys.FileSystem, size int64) []fsys.Extent {
	t.Helper()
	var all []fsys.Extent
	var sum int64
	for x, err := range fs.Free() {
		if err != nil {
			t.Fatal(err)
		}
		if x.Off < 2048 || x.Off%int64(fs.BlockSize) != 0 || x.Len%int64(fs.BlockSize) != 0 || x.End() > size {
			t.Fatalf("extent %+v in a region of %d", x, size)
		}
		all = append(all, x)
		sum += x.Len
	}
	if sum != fs.FreeBytes {
		t.Fatalf("the map has %d free bytes, want %d", sum, fs.FreeBytes)
	}
	return all
}

var (
	freeLine    = regexp.MustCompile(`(?m)^  Free blocks: (.*)$`)
	sizeLine    = regexp.MustCompile(`(?m)^Block size: +(\d+)$`)
	countLine   = regexp.MustCompile(`(?m)^Block count: +(\d+)$`)
	clusterLine = regexp.MustCompile(`(?m)^Cluster size: +(\d+)$`)
)

// dumped returns the free extents that dumpe2fs prints.
func dumped(t testing.TB, name string) []fsys.Extent {
	t.Helper()
	out := run(t, 0, "dumpe2fs", name)
	number := func(s string) int64 {
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	size := number(sizeLine.FindStringSubmatch(out)[1])
	count := number(countLine.FindStringSubmatch(out)[1])
	cluster := int64(1) // blocks; a run is printed as the first blocks of its first and last cluster
	if m := clusterLine.FindStringSubmatch(out); m != nil {
		cluster = number(m[1]) / size
	}
	var all []fsys.Extent
	for _, m := range freeLine.FindAllStringSubmatch(out, -1) {
		if strings.TrimSpace(m[1]) == "" {
			continue
		}
		for _, w := range strings.Split(m[1], ",") {
			a, b, ok := strings.Cut(w, "-")
			if !ok {
				b = a
			}
			from, to := number(a), min(number(b)+cluster, count)
			if n := len(all); n > 0 && all[n-1].End() == from*size {
				all[n-1].Len += (to - from) * size
			} else {
				all = append(all, fsys.Extent{Off: from * size, Len: (to - from) * size})
			}
		}
	}
	return all
}

// TestMke2fs compares the free map of file systems of all kinds with what
// dumpe2fs says.
func TestMke2fs(t *testing.T) {
	const mib = 1 << 20
	for _, tc := range []struct {
		name  string
		kind  string
		size  int64
		args  string
		empty bool // without files
	}{
		{"ext4", "ext4", 64 * mib, "-b 4096 -O " + debian12, false},
		{"ext4 of 1 KiB blocks", "ext4", 64 * mib, "-b 1024 -O " + debian12, false},
		{"ext4 of 2 KiB blocks", "ext4", 64 * mib, "-b 2048 -O " + debian12, false},
		{"ext4, many groups", "ext4", 600 * mib, "-b 4096 -O " + debian12, false},
		{"ext4, many groups, 1 KiB", "ext4", 301 * mib, "-b 1024 -O " + debian12, true},
		{"ext4, 32 bits", "ext4", 64 * mib, "-b 4096 -O " + debian12 + ",^64bit", false},
		{"ext4, 32 bits, 1 KiB", "ext4", 164 * mib, "-b 1024 -O " + debian12 + ",^64bit", false},
		{"ext4 without flex_bg", "ext4", 300*mib + 12345, "-b 4096 -O " + debian12 + ",^flex_bg", false},
		{"ext4 without flex_bg, 1 KiB", "ext4", 100 * mib, "-b 1024 -O " + debian12 + ",^flex_bg", false},
		{"ext4 without a journal", "ext4", 64 * mib, "-b 4096 -O extent,metadata_csum", false},
		{"ext4 with uninit_bg", "ext4", 300 * mib, "-b 4096 -O " + debian12 + ",^metadata_csum,^metadata_csum_seed,uninit_bg", false},
		{"ext4 with uninit_bg, 1 KiB, 32 bits", "ext4", 100 * mib, "-b 1024 -O " + debian12 + ",^metadata_csum,^metadata_csum_seed,^64bit,uninit_bg", false},
		{"ext4 without checksums", "ext4", 300 * mib, "-b 4096 -O " + debian12 + ",^metadata_csum,^metadata_csum_seed", false},
		{"ext4, tiny", "ext4", 256 * 1024, "-b 1024 -N 16 -O extent", true},
		{"meta_bg", "ext4", 600 * mib, "-b 4096 -O " + debian12 + ",^resize_inode,meta_bg", false},
		{"meta_bg, 1 KiB", "ext4", 301 * mib, "-b 1024 -O " + debian12 + ",^resize_inode,meta_bg", false},
		{"meta_bg, 1 KiB, 32 bits, no flex_bg", "ext4", 301 * mib, "-b 1024 -O " + debian12 + ",^resize_inode,meta_bg,^64bit,^flex_bg", false},
		{"sparse_super2", "ext4", 600 * mib, "-b 4096 -O " + debian12 + ",sparse_super2,^resize_inode", false},
		{"sparse_super2, no flex_bg, 1 KiB", "ext4", 200 * mib, "-b 1024 -O " + debian12 + ",sparse_super2,^flex_bg", false},
		{"no sparse_super", "ext4", 200 * mib, "-b 1024 -O " + debian12 + ",^sparse_super,^resize_inode", false},
		{"bigalloc", "ext4", 600 * mib, "-b 4096 -C 65536 -O " + debian12 + ",bigalloc", false},
		{"bigalloc, 1 KiB", "ext4", 164*mib + 5000, "-b 1024 -C 8192 -O " + debian12 + ",bigalloc", false},
		{"bigalloc, small clusters", "ext4", 64 * mib, "-b 1024 -C 2048 -O " + debian12 + ",bigalloc,^flex_bg,^resize_inode", false},
		{"other features", "ext4", 64 * mib, "-b 4096 -O " + debian12 + ",quota,project,large_dir,inline_data,ea_inode,encrypt,casefold,verity,stable_inodes,fast_commit", false},
		{"mmp", "ext4", 64 * mib, "-b 4096 -O " + debian12 + ",mmp", false},
		{"small groups", "ext4", 64 * mib, "-b 4096 -g 1024 -O " + debian12, false},
		{"64 KiB blocks", "ext4", 600 * mib, "-b 65536 -O " + debian12, true},
		{"ext3", "ext3", 100 * mib, "-b 1024 -O has_journal,sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr", false},
		{"ext3 of 4 KiB blocks", "ext3", 300 * mib, "-b 4096 -O has_journal,sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr", false},
		{"ext2", "ext2", 100*mib + 700, "-b 1024 -O sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr", false},
		{"ext2 of 4 KiB blocks", "ext2", 100 * mib, "-b 4096 -O none", false},
		{"ext2, revision 0", "ext2", 20 * mib, "-b 1024 -r 0 -I 128 -O none", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			args := strings.Fields(tc.args)
			if !tc.empty {
				args = append(args, "-d", source(t))
			}
			name := mkfs(t, tc.size, args...)
			if !tc.empty && !strings.Contains(tc.args, "mmp") { // debugfs waits for other users of mmp
				debugfs(t, name, "rm d0/f0", "rm d1/f1", "rm d1/f22", "rm d3/f3")
			}
			fs, got := probe(t, name)
			if fs.Whole != "" {
				t.Fatalf("stored whole: %s", fs.Whole)
			}
			if fs.Type != tc.kind || fs.UUID != uuid || fs.Label != "a label" {
				t.Errorf("got %s, %s, %q", fs.Type, fs.UUID, fs.Label)
			}
			want := dumped(t, name)
			if len(want) == 0 {
				t.Fatal("dumpe2fs found nothing free")
			}
			if !slices.Equal(got, want) {
				t.Errorf("free\n\t%v\nwant\n\t%v", got, want)
			}
		})
	}
}
