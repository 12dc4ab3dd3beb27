package vdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/vdisk/fsys/fsystest"
	"strata/venti"
	"strata/venti/ventitest"
)

// changedFiles returns what DiffFiles says of two stored disks.
func changedFiles(t *testing.T, br venti.BlockReader, a, b venti.Score) []string {
	t.Helper()
	var images [2]*Image
	for i, s := range []venti.Score{a, b} {
		im, err := Open(t.Context(), br, s)
		if err != nil {
			t.Fatal(err)
		}
		images[i] = im
	}
	list := []string{}
	for c, err := range DiffFiles(t.Context(), images[0], images[1]) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c.String())
	}
	return list
}

// overwrite changes a file where it lies, so that nothing else does.
func overwrite(t *testing.T, img string, contents []byte) {
	t.Helper()
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, contents[:512])
	if at < 0 || bytes.Contains(b[at+512:], contents[:512]) {
		t.Fatalf("the file lies at %d, or not only there", at)
	}
	patch(t, img, int64(at)+100, ^contents[100])
}

func TestDiffFiles(t *testing.T) {
	dir := fsystest.Tree(t, 60, 30000)
	for i := range 300 {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("many/%d", i%10)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("many/%d/%d", i%10, i)), []byte{byte(i), 1}, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	secret := ventitest.Block(7, 5000)
	for name, b := range map[string][]byte{"secret": secret, "gone": {1}, "mode": {2}, "more": {3}} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	more := filepath.Join(t.TempDir(), "more")
	fsystest.Noise(t, more, 2000)
	debugfs := func(t *testing.T, img string, lines ...string) {
		run(t, strings.Join(lines, "\n")+"\n", "debugfs", "-w", img)
	}
	ext := func(args ...string) (make func(t *testing.T) string, change func(t *testing.T, img string)) {
		return func(t *testing.T) string {
				img := sparse(t, 24*mib)
				run(t, "", "mke2fs", append(args, "-q", "-d", dir, img)...)
				return img
			}, func(t *testing.T, img string) {
				debugfs(t, img, "rm gone", "set_inode_field mode mode 0100600", "rm more", "write "+more+" more", "mkdir added", "write "+more+" added/x")
				debugfs(t, img, "rm \"d1/a file with number 1\"")
			}
	}
	fat := func(args ...string) (make func(t *testing.T) string, change func(t *testing.T, img string)) {
		return func(t *testing.T) string {
				img := sparse(t, 40*mib)
				run(t, "", "mkfs.vfat", append(args, "-i", "12345678", img)...)
				list, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range list {
					run(t, "", "mcopy", "-s", "-m", "-i", img, filepath.Join(dir, d.Name()), "::")
				}
				return img
			}, func(t *testing.T, img string) {
				run(t, "", "mdel", "-i", img, "::gone")
				run(t, "", "mattrib", "-i", img, "+r", "::mode")
				run(t, "", "mcopy", "-o", "-i", img, more, "::more")
				run(t, "", "mmd", "-i", img, "::added")
				run(t, "", "mcopy", "-i", img, more, "::added/x")
				run(t, "", "mdel", "-i", img, "::d1/a file with number 1")
			}
	}
	type kind struct {
		name   string
		make   func(t *testing.T) string
		change func(t *testing.T, img string)
	}
	var kinds []kind
	add := func(name string, make func(t *testing.T) string, change func(t *testing.T, img string)) {
		kinds = append(kinds, kind{name, make, change})
	}
	m, c := ext("-t", "ext4", "-b", "4096")
	add("ext4", m, c)
	m, c = ext("-t", "ext2", "-b", "1024")
	add("ext2", m, c)
	m, c = ext("-t", "ext4", "-b", "1024", "-O", "inline_data")
	add("inline", m, c)
	m, c = fat("-F", "32", "-s", "1")
	add("FAT32", m, c)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			st := ventitest.NewMemory()
			br := &countingReader{BlockReader: st}
			img := k.make(t)
			disk := func(img string, start int64) venti.Score {
				return importFile(t, st, partitioned(t, "gpt", 48*mib, place{img, start, "linux"}), ImportOptions{}).Score
			}
			before := disk(img, 2048)
			if got := changedFiles(t, br, before, before); len(got) > 0 {
				t.Errorf("with itself: %q", got)
			}
			overwritten := copyOf(t, img)
			overwrite(t, overwritten, secret)
			n := br.n.Load()
			if got := changedFiles(t, br, before, disk(overwritten, 2048)); !slices.Equal(got, []string{"changed 1/secret"}) {
				t.Errorf("overwritten in its place: %q", got)
			}
			t.Logf("%d blocks read to find one", br.n.Load()-n)
			if got := changedFiles(t, br, before, disk(img, 4096)); len(got) > 0 {
				t.Errorf("the same in another place: %q", got)
			}
			after := copyOf(t, img)
			k.change(t, after)
			want := []string{"added 1/added", "removed 1/d1/a file with number 1", "removed 1/gone", "changed 1/mode", "changed 1/more"}
			for name, start := range map[string]int64{"the same place": 2048, "another": 8192} {
				if got := changedFiles(t, br, before, disk(after, start)); !slices.Equal(got, want) {
					t.Errorf("at %s: %q, want %q", name, got, want)
				}
			}
			empty := importFile(t, st, partitioned(t, "gpt", 48*mib), ImportOptions{}).Score
			if got := changedFiles(t, br, before, empty); !slices.Equal(got, []string{"removed 1/"}) {
				t.Errorf("with an empty disk: %q", got)
			}
			if got := changedFiles(t, br, empty, before); !slices.Equal(got, []string{"added 1/"}) {
				t.Errorf("from an empty disk: %q", got)
			}
		})
	}
}

func TestFileChange(t *testing.T) {
	for _, tc := range []struct {
		c    FileChange
		want string
	}{
		{FileChange{What: Added, Part: "1.root", Path: "etc/a b"}, "added 1.root/etc/a b"},
		{FileChange{What: Removed, Part: "1", Path: "two\nlines"}, `removed "1/two\nlines"`},
		{FileChange{What: Changed, Part: "1", Path: `a"b`}, `changed "1/a\"b"`},
		{FileChange{Unknown, "2", "", errLeaf}, "unknown 2/: a leaf cannot be read"},
	} {
		if got := tc.c.String(); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

// TestDiffFilesLarge has the blocks that are read grow with what a file system
// says of its files, not with what is in them.
func TestDiffFilesLarge(t *testing.T) {
	dir := fsystest.Tree(t, 200, 400000) // 40 MB
	img := sparse(t, 64*mib)
	run(t, "", "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", dir, img)
	st := ventitest.NewMemory()
	br := &countingReader{BlockReader: st}
	a := importFile(t, st, img, ImportOptions{}).Score
	run(t, "rm \"d1/a file with number 6\"\n", "debugfs", "-w", img)
	b := importFile(t, st, img, ImportOptions{}).Score
	if got := changedFiles(t, br, a, b); !slices.Equal(got, []string{"removed 0/d1/a file with number 6"}) {
		t.Errorf("got %q", got)
	}
	if n := br.n.Load(); n > 500 {
		t.Errorf("%d blocks were read, of %d", n, 64*mib/4096)
	}
}

// A failingReader cannot read leaves but that of the layout.
type failingReader struct{ venti.BlockReader }

var errLeaf = errors.New("a leaf cannot be read")

func (f failingReader) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	n, err := f.BlockReader.ReadBlock(ctx, s, t, buf)
	if err == nil && t == venti.DataType && buf[0] != '{' { // the layout
		return 0, errLeaf
	}
	return n, err
}

// TestDiffFilesDamaged goes on where something cannot be read, and ends with
// the archive's errors.
func TestDiffFilesDamaged(t *testing.T) {
	dir := fsystest.Tree(t, 10, 30000)
	img := sparse(t, 16*mib)
	run(t, "", "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "^metadata_csum", "-d", dir, img)
	st := ventitest.NewMemory()
	a := importFile(t, st, img, ImportOptions{Exact: true})
	run(t, "set_inode_field \"d1/a file with number 1\" mode 0170644\nset_inode_field d2 block[2] 0\nset_inode_field d2 block[0] 0\nrm \"d3/a file with number 3\"\n", "debugfs", "-w", img)
	b := importFile(t, st, img, ImportOptions{Exact: true})
	got := changedFiles(t, st, a.Score, b.Score)
	for _, want := range []string{"unknown 0/d1/a file with number 1: inode", "unknown 0/d2/", "removed 0/d3/a file with number 3"} {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	x, err := Open(t.Context(), st, a.Score)
	if err != nil {
		t.Fatal(err)
	}
	y, err := Open(t.Context(), failingReader{st}, b.Score)
	if err != nil {
		t.Fatal(err)
	}
	for _, err = range DiffFiles(t.Context(), x, y) {
	}
	if !errors.Is(err, errLeaf) {
		t.Errorf("an archive that fails: %v", err)
	}
}
