package vac_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strata/vac"
	"strata/venti"
	"strata/venti/ventitest"
)

func random(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o777))
	must(t, os.WriteFile(path, data, 0o666))
}

// archive stores what lies in a directory, and fails the test for anything but
// success.
func archive(t testing.TB, st venti.Store, dir string, opt vac.Options) vac.Result {
	t.Helper()
	t.Chdir(dir)
	opt.Warn = func(err error) { t.Errorf("store: %v", err) }
	r, err := vac.Store(t.Context(), st, []string{"."}, opt)
	if err != nil || r.Failed > 0 || r.Changed > 0 {
		t.Fatalf("store: %+v, %v", r, err)
	}
	return r
}

func open(t testing.TB, st venti.BlockReader, s venti.Score) *vac.Archive {
	t.Helper()
	a, err := vac.Open(t.Context(), st, s)
	must(t, err)
	return a
}

func extract(t testing.TB, st venti.BlockReader, s venti.Score, into string, opt vac.ExtractOptions) vac.ExtractResult {
	t.Helper()
	opt.Warn = func(err error) { t.Errorf("extract: %v", err) }
	r, err := vac.Extract(t.Context(), open(t, st, s).Root, into, opt)
	if err != nil || r.Failed > 0 {
		t.Fatalf("extract: %+v, %v", r, err)
	}
	return r
}

// makeHardTree makes a tree of what is hard to store, for blocks of 512 bytes.
// What it returns undoes what TempDir cannot remove.
func makeHardTree(t testing.TB, dir string) {
	t.Helper()
	// 25 pointers in a block: sizes on both sides of each depth.
	under := 512
	for depth := range 3 {
		for _, size := range []int{under - 1, under, under + 1} {
			write(t, fmt.Sprintf("%s/sizes/depth%d-%d", dir, depth, size), random(uint64(size), size))
		}
		under *= 25
	}
	// Deeper ones are islands in holes.
	for depth, size := range map[int]int64{3: 5 << 20, 4: 100 << 20, 5: 3 << 30} {
		f, err := os.Create(fmt.Sprintf("%s/sizes/sparse%d", dir, depth))
		must(t, err)
		_, err = f.WriteAt(random(9, 100_000), size/3)
		must(t, err)
		must(t, f.Truncate(size))
		must(t, f.Close())
	}
	write(t, dir+"/sizes/zeros", make([]byte, 100_000))
	write(t, dir+"/sizes/tail", append(random(4, 1000), make([]byte, 5000)...))
	write(t, dir+"/sizes/empty", nil)
	for _, name := range []string{
		strings.Repeat("n", 255), strings.Repeat("é", 127), "\xff\xfe", "new\nline", "star*?[x]", "...", "..a", " ", "-f", "a", "ab", "abc",
		"b\\c", "\x01", "日本語",
	} {
		write(t, dir+"/names/"+name, []byte(name))
	}
	for i := range 300 {
		write(t, fmt.Sprintf("%s/many/%d", dir, i*i), []byte(fmt.Sprint(i)))
	}
	must(t, os.MkdirAll(dir+"/sub/empty", 0o755))
	for i, mode := range []os.FileMode{0, 0o400, 0o755, 0o777, 0o644 | os.ModeSetuid, 0o755 | os.ModeSetgid} {
		path := fmt.Sprintf("%s/sub/mode%d", dir, i)
		write(t, path, []byte{byte(i)})
		must(t, os.Chmod(path, mode))
	}
	must(t, os.Mkdir(dir+"/sub/sticky", 0o777))
	must(t, os.Chmod(dir+"/sub/sticky", 0o777|os.ModeSticky))
	must(t, os.Symlink(strings.Repeat("long/", 100), dir+"/sub/dangling"))
	must(t, os.Symlink("mode3", dir+"/sub/link"))
	must(t, os.Symlink("/", dir+"/sub/up"))
	must(t, unix.Mkfifo(dir+"/sub/pipe", 0o640))
	must(t, os.Link(dir+"/sub/mode3", dir+"/sub/hard"))

	// Longer than any path may be: 60 times 101.
	root, err := os.OpenRoot(dir)
	must(t, err)
	for range 60 {
		name := strings.Repeat("d", 100)
		must(t, root.Mkdir(name, 0o777))
		next, err := root.OpenRoot(name)
		must(t, err)
		root.Close()
		root = next
	}
	must(t, root.WriteFile("bottom", []byte("bottom"), 0o644))
	root.Close()

	// Whole seconds, which is all that an archive keeps; what lies deeper than a
	// path reaches has them from the time it is made, or not.
	i := int64(0)
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			i++
			ts := []unix.Timespec{{Sec: 1e9 + i}, {Sec: 1e9 + 3*i}}
			unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW)
		}
		return nil
	})
}

// sameTree compares two directories, down to where no path reaches.
func sameTree(t testing.TB, a, b string) {
	t.Helper()
	ra, err := os.OpenRoot(a)
	must(t, err)
	defer ra.Close()
	rb, err := os.OpenRoot(b)
	must(t, err)
	defer rb.Close()
	sameRoot(t, ra, rb, ".")
}

func sameRoot(t testing.TB, a, b *os.Root, path string) {
	t.Helper()
	list := func(r *os.Root) []string {
		f, err := r.Open(".")
		must(t, err)
		defer f.Close()
		names, err := f.Readdirnames(-1)
		must(t, err)
		slices.Sort(names)
		return names
	}
	names := list(a)
	if got := list(b); !slices.Equal(got, names) {
		t.Errorf("%s: holds %q, want %q", path, got, names)
		return
	}
	for _, name := range names {
		path := path + "/" + name
		ia, err := a.Lstat(name)
		must(t, err)
		ib, err := b.Lstat(name)
		must(t, err)
		sa, sb := ia.Sys().(*syscall.Stat_t), ib.Sys().(*syscall.Stat_t)
		if ia.Mode() != ib.Mode() || sa.Uid != sb.Uid || sa.Gid != sb.Gid || ia.ModTime().Unix() != ib.ModTime().Unix() {
			t.Errorf("%.200s: %v %d %d %v, want %v %d %d %v", path, ib.Mode(), sb.Uid, sb.Gid, ib.ModTime(), ia.Mode(), sa.Uid, sa.Gid, ia.ModTime())
		}
		switch {
		case ia.Mode()&fs.ModeSymlink != 0:
			la, err := a.Readlink(name)
			must(t, err)
			if lb, err := b.Readlink(name); err != nil || la != lb {
				t.Errorf("%s: link to %q, %v, want %q", path, lb, err, la)
			}
		case ia.IsDir():
			da, err := a.OpenRoot(name)
			must(t, err)
			db, err := b.OpenRoot(name)
			must(t, err)
			sameRoot(t, da, db, path)
			da.Close()
			db.Close()
		case ia.Mode().IsRegular():
			if ia.Size() != ib.Size() {
				t.Errorf("%s: %d bytes, want %d", path, ib.Size(), ia.Size())
				continue
			}
			if sb.Blocks > sa.Blocks+256 {
				t.Errorf("%s: takes %d blocks of the disk, want %d", path, sb.Blocks, sa.Blocks)
			}
			if ia.Size() > 1<<30 {
				continue // its depth is tested by its shorter brothers' comparison
			}
			ba, err := a.ReadFile(name)
			if errors.Is(err, fs.ErrPermission) {
				continue
			}
			must(t, err)
			if bb, err := b.ReadFile(name); err != nil || !bytes.Equal(ba, bb) {
				t.Errorf("%s: other contents: %v", path, err)
			}
		}
	}
}

// removeAll removes what is too deep for os.RemoveAll's paths.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vac-test-")
	must(t, err)
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, which may read and own everything")
	}
}

// TestRoundTrip stores the hard tree and extracts it, with small blocks and
// with usual ones.
func TestRoundTrip(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	makeHardTree(t, dir+"/tree")
	for _, size := range []int{512, 0, venti.MaxBlockSize} {
		st := ventitest.NewMemory()
		r := archive(t, st, dir+"/tree", vac.Options{BlockSize: size})
		out := fmt.Sprintf("%s/out%d", dir, size)
		extract(t, st, r.Score, out, vac.ExtractOptions{Times: true, Owners: true})
		sameTree(t, dir+"/tree", out)
		if r.Lost.Links != 2 {
			t.Errorf("%d names of files with several, want 2", r.Lost.Links)
		}
		if size == 512 {
			deepest := 0
			walkTree(t, open(t, st, r.Score).Root, func(f *vac.File) { deepest = max(deepest, f.Data().Depth) })
			if deepest < 5 {
				t.Errorf("the deepest tree has %d levels of pointers, want 5", deepest)
			}
		}
	}
}

// TestRepeatable: the same tree has the same score, whenever it is stored and
// whether it is compared with an older archive or not.
func TestRepeatable(t *testing.T) {
	dir := tempDir(t)
	for i := range 50 {
		write(t, fmt.Sprintf("%s/d%d/%d", dir, i%3, i), random(uint64(i), 1000*i))
	}
	must(t, os.MkdirAll(dir+"/sub", 0o777))
	must(t, os.Symlink("target", dir+"/sub/link"))
	st := ventitest.NewMemory()
	first := archive(t, st, dir, vac.Options{Now: time.Unix(1e9, 0)})
	if again := archive(t, st, dir, vac.Options{}); again.Score != first.Score || again.Written != 0 {
		t.Errorf("stored again: %+v, want score %v", again, first.Score)
	}
	old := open(t, st, first.Score)
	for _, quick := range []bool{false, true} {
		n := st.Len()
		r := archive(t, st, dir, vac.Options{Diff: old, Quick: quick})
		if a := open(t, st, r.Score); a.Root.Data() != old.Root.Data() || a.Root.Meta() != old.Root.Meta() || a.Head.Prev != first.Score {
			t.Errorf("quick %v: the tree is another", quick)
		}
		if want := map[bool]int64{true: 50}[quick]; r.Skipped != want {
			t.Errorf("quick %v: %d files skipped, want %d", quick, r.Skipped, want)
		}
		if n = st.Len() - n; n > 2 {
			t.Errorf("quick %v: %d blocks more", quick, n)
		}
	}
}

// TestQuickSees changes files in ways that are hard to see.
func TestQuickSees(t *testing.T) {
	for _, plan9port := range []bool{false, true} {
		dir := tempDir(t)
		names := []string{"same", "contents", "replaced", "shorter", "kind", "touched"}
		for _, name := range names {
			write(t, dir+"/"+name, []byte("old contents"))
			must(t, os.Chtimes(dir+"/"+name, time.Unix(1e9, 0), time.Unix(1e9, 0)))
		}
		must(t, os.MkdirAll(dir+"/sub", 0o777))
		st := ventitest.NewMemory()
		// plan9port's archive says that it came to the files after they were made.
		r := archive(t, st, dir, vac.Options{Plan9port: plan9port, Now: time.Now().Add(time.Hour)})
		old := open(t, st, r.Score)
		rewrite := func(path, text string) {
			must(t, os.WriteFile(path, []byte(text), 0o666))
			must(t, os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 0)))
		}
		rewrite(dir+"/contents", "new contents")
		rewrite(dir+"/sub/replaced", "new contents")
		must(t, os.Rename(dir+"/sub/replaced", dir+"/replaced"))
		rewrite(dir+"/shorter", "new")
		must(t, os.Remove(dir+"/kind"))
		must(t, os.Symlink("new contents", dir+"/kind"))
		must(t, os.Chtimes(dir+"/touched", time.Unix(1e9, 0), time.Unix(2e9, 0)))
		// So that the archive by plan9port cannot have come to them any later.
		r = archive(t, st, dir, vac.Options{Diff: old, Quick: true, Plan9port: plan9port})
		if plan9port {
			// Its times say that it was there before: only size and mtime tell.
			if r.Skipped != 3 {
				t.Errorf("plan9port: %d files skipped, want 3", r.Skipped)
			}
			continue
		}
		if r.Skipped != 1 {
			t.Errorf("%d files skipped, want 1", r.Skipped)
		}
		extract(t, st, r.Score, dir+"/out", vac.ExtractOptions{Times: true})
		for _, name := range names {
			want, err := os.ReadFile(dir + "/" + name)
			if name == "kind" {
				want, err = []byte("new contents"), nil
			}
			must(t, err)
			got, err := os.ReadFile(dir + "/out/" + name)
			if name == "kind" {
				var link string
				link, err = os.Readlink(dir + "/out/kind")
				got = []byte(link)
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %q, %v, want %q", name, got, err, want)
			}
		}
	}
}

// TestQuickOldArchive: of an archive without inodes, a file that may have
// changed in the second in which it was stored is read.
func TestQuickOldArchive(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/f", []byte("contents"))
	must(t, os.Mkdir(dir+"/sub", 0o777))
	info, err := os.Lstat(dir + "/f")
	must(t, err)
	ctime := info.Sys().(*syscall.Stat_t).Ctim.Sec
	st := ventitest.NewMemory()
	for after, want := range map[int64]int64{-1: 0, 0: 0, 1: 1} {
		r := archive(t, st, dir, vac.Options{Plan9port: true, Now: time.Unix(ctime+after, 0)})
		r = archive(t, st, dir, vac.Options{Diff: open(t, st, r.Score), Quick: true})
		if r.Skipped != want {
			t.Errorf("stored %d s after the change: %d files skipped, want %d", after, r.Skipped, want)
		}
	}
}

// TestChanging changes files when they have been seen, and when they are being
// read.
func TestChanging(t *testing.T) {
	dir := tempDir(t)
	for _, name := range []string{"gone", "grows", "stays", "shrinks"} {
		write(t, dir+"/"+name, []byte("old contents"))
	}
	const large = 40 << 20
	f, err := os.Create(dir + "/large")
	must(t, err)
	_, err = f.Write(bytes.Repeat([]byte{1}, large))
	must(t, err)
	must(t, f.Close())
	st := ventitest.NewMemory()
	cut := false
	var told []string
	t.Chdir(dir)
	r, err := vac.Store(t.Context(), st, []string{"."}, vac.Options{
		Warn: func(err error) { told = append(told, err.Error()) },
		Trace: func(line string) {
			switch filepath.Base(line) {
			case "gone":
				must(t, os.Remove(dir+"/gone"))
			case "grows":
				write(t, dir+"/grows", []byte("old contents and new"))
			case "shrinks":
				write(t, dir+"/shrinks", []byte("old"))
			}
		},
		Progress: func(n int64) {
			if !cut && n > 1<<20 {
				cut = true
				must(t, os.Truncate(dir+"/large", large/2+5))
			}
		},
	})
	must(t, err)
	slices.Sort(told)
	if want := []string{"large: changed while it was read", "open gone: no such file or directory"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if r.Failed != 0 || r.Changed != 2 || r.Files != 4 {
		t.Errorf("%+v, want 4 files, 2 changed, none failed", r)
	}
	extract(t, st, r.Score, dir+"-out", vac.ExtractOptions{})
	defer os.RemoveAll(dir + "-out")
	must(t, os.Remove(dir+"/large"))
	got, err := os.ReadFile(dir + "-out/large")
	if err != nil || len(got) != large/2+5 || bytes.Count(got, []byte{1}) != len(got) {
		t.Errorf("large: %d bytes, %v", len(got), err)
	}
	for name, want := range map[string]string{"grows": "old contents and new", "stays": "old contents", "shrinks": "old"} {
		if got, err := os.ReadFile(dir + "-out/" + name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

// TestRestless stores files that other goroutines never leave alone.
func TestRestless(t *testing.T) {
	dir := tempDir(t)
	must(t, os.Mkdir(dir+"/sub", 0o777))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			path := fmt.Sprintf("%s/f%d", dir, i%7)
			switch i % 5 {
			case 0:
				os.Remove(path)
			case 1:
				os.Truncate(path, int64(i%30000))
			default:
				os.WriteFile(path, bytes.Repeat([]byte{7}, i%50000), 0o666)
			}
		}
	}()
	st := ventitest.NewMemory()
	for range 50 {
		r, err := vac.Store(t.Context(), st, []string{dir}, vac.Options{
			Warn: func(err error) {
				if !strings.Contains(err.Error(), "changed while") && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			},
		})
		must(t, err)
		walkTree(t, open(t, st, r.Score).Root, func(f *vac.File) { contentSHA1(t, f) })
	}
	close(stop)
	<-stopped
}

// TestUnreadable: what cannot be read is told of and counted, and the rest is
// stored.
func TestUnreadable(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/a/good", []byte("good"))
	write(t, dir+"/a/secret", []byte("secret"))
	write(t, dir+"/a/hidden/file", []byte("hidden"))
	args := []string{dir + "/a", dir + "/none", dir + "/b/a"}
	write(t, dir+"/b/a", []byte("of the same name"))
	want := []string{dir + "/b/a: file already exists", "open " + dir + "/none: no such file or directory"}
	if os.Getuid() != 0 {
		must(t, os.Chmod(dir+"/a/secret", 0))
		must(t, os.Chmod(dir+"/a/hidden", 0))
		defer os.Chmod(dir+"/a/hidden", 0o777)
		want = append(want, "open "+dir+"/a/hidden: permission denied", "open "+dir+"/a/secret: permission denied")
	}
	slices.Sort(want)
	st := ventitest.NewMemory()
	var told []string
	r, err := vac.Store(t.Context(), st, args, vac.Options{Warn: func(err error) { told = append(told, err.Error()) }})
	slices.Sort(told)
	if err != nil || r.Failed != int64(len(want)) || !slices.Equal(told, want) {
		t.Errorf("%+v, %v, told %q, want %q", r, err, told, want)
	}
	f, err := open(t, st, r.Score).Root.Lookup(t.Context(), "a/good")
	if err != nil || f.Size() != 4 {
		t.Error("the rest is not stored:", err)
	}
}

// TestShortOnPurpose stores a file of the system that says to be longer than it
// is.
func TestShortOnPurpose(t *testing.T) {
	const name = "/sys/kernel/mm/transparent_hugepage/enabled"
	want, err := os.ReadFile(name)
	if err != nil {
		t.Skip("no such file here:", err)
	}
	st := ventitest.NewMemory()
	r, err := vac.Store(t.Context(), st, []string{name}, vac.Options{Warn: func(err error) { t.Error(err) }})
	must(t, err)
	f, err := open(t, st, r.Score).Root.Lookup(t.Context(), "enabled")
	if err != nil || f.Size() != int64(len(want)) {
		t.Errorf("%v, want %d bytes", err, len(want))
	}
}

// TestStoreFails: when the store fails there is no score.
func TestStoreFails(t *testing.T) {
	dir := tempDir(t)
	for i := range 30 {
		write(t, fmt.Sprintf("%s/%d/f", dir, i), random(uint64(i), 20_000))
	}
	must(t, os.Mkdir(dir+"/sub", 0o777))
	for n := range 30 {
		st := failAfter{ventitest.NewMemory(), make(chan struct{}, 5*n)}
		r, err := vac.Store(t.Context(), st, []string{dir}, vac.Options{})
		if !errors.Is(err, venti.ErrFull) || !r.Score.IsZero() {
			t.Errorf("after %d writes: %v, %v, want ErrFull", 5*n, r.Score, err)
		}
	}
}

// failAfter is a store that is full after as many writes as writes has room.
type failAfter struct {
	venti.Store
	writes chan struct{}
}

func (f failAfter) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	select {
	case f.writes <- struct{}{}:
		return f.Store.WriteBlock(ctx, t, data)
	default:
		return venti.Score{}, venti.ErrFull
	}
}

// TestManyFiles has a directory of many files, of which some change.
func TestManyFiles(t *testing.T) {
	n := 5000
	if os.Getenv("STRATA_TRIAL") != "" {
		n = 100_000
	}
	dir := tempDir(t)
	must(t, os.Mkdir(dir+"/sub", 0o777))
	for i := range n {
		must(t, os.WriteFile(fmt.Sprintf("%s/file%07d", dir, i*7919%n), []byte(fmt.Sprint(i)), 0o666))
	}
	st := ventitest.NewMemory()
	r := archive(t, st, dir, vac.Options{})
	for i := range 10 {
		must(t, os.WriteFile(fmt.Sprintf("%s/file%07d", dir, i*n/10), []byte("changed"), 0o666))
	}
	r = archive(t, st, dir, vac.Options{Diff: open(t, st, r.Score), Quick: true})
	if r.Files != int64(n) || r.Skipped != int64(n-10) {
		t.Errorf("%d of %d files skipped, want %d", r.Skipped, r.Files, n-10)
	}
	extract(t, st, r.Score, dir+"-out", vac.ExtractOptions{Times: true})
	defer os.RemoveAll(dir + "-out")
	sameTree(t, dir, dir+"-out")
	root := open(t, st, r.Score).Root
	for i := range 100 {
		if _, err := root.Walk(t.Context(), fmt.Sprintf("file%07d", i*n/100)); err != nil {
			t.Error(err)
		}
	}
	if _, err := root.Walk(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestDaily adds days to an archive: each is whole, no qid is used twice, and
// what has not changed is not stored again.
func TestDaily(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/f", random(1, 100_000))
	write(t, dir+"/d/g", random(2, 100_000))
	st := ventitest.NewMemory()
	var last *vac.Archive
	want := []string{"2026/1231", "2027/0101", "2027/0101.1", "2027/0101.2", "2027/0301"}
	for i, now := range []time.Time{
		time.Date(2026, 12, 31, 23, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2027, 1, 1, 1, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 2, 0, 0, 0, time.UTC), time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC),
	} {
		write(t, fmt.Sprintf("%s/new%d", dir, i), []byte{byte(i)})
		var traced []string
		opt := vac.Options{Daily: true, Append: last, Quick: true, Now: now, Trace: func(line string) { traced = append(traced, line) }}
		r, err := vac.Store(t.Context(), st, []string{dir + "/f", dir + "/d", fmt.Sprintf("%s/new%d", dir, i)}, opt)
		must(t, err)
		if i > 0 && (traced[0] != "diff "+want[i-1] || r.Skipped != 2) {
			t.Errorf("%s: %q, %d files skipped, want 2", want[i], traced[0], r.Skipped)
		}
		last = open(t, st, r.Score)
	}
	qids := map[uint64]string{last.Root.FullQid(): "."}
	var days []string
	walkTree(t, last.Root, func(f *vac.File) {
		if other, ok := qids[f.FullQid()]; ok {
			t.Errorf("%s and %s have qid %d", other, f.Path(), f.FullQid())
		}
		qids[f.FullQid()] = f.Path()
		if f.FullQid() >= last.Root.QidMax {
			t.Errorf("%s has qid %d, not below %d", f.Path(), f.FullQid(), last.Root.QidMax)
		}
		if f.IsDir() && strings.Count(f.Path(), "/") == 1 {
			days = append(days, f.Path())
			if g, err := f.Lookup(t.Context(), "d/g"); err != nil || g.Size() != 100_000 {
				t.Error(err)
			}
		}
	})
	slices.Sort(days)
	if !slices.Equal(days, want) {
		t.Errorf("days %q, want %q", days, want)
	}
}

// TestMerge puts archives into each other.
func TestMerge(t *testing.T) {
	dir := tempDir(t)
	st := ventitest.NewMemory()
	write(t, dir+"/one/a/b", []byte("b"))
	write(t, dir+"/one/c", []byte("c"))
	must(t, os.Mkdir(dir+"/one/sub", 0o777))
	one := archive(t, st, dir+"/one", vac.Options{})
	write(t, dir+"/two/x", []byte("x"))
	write(t, dir+"/two/one.vac", []byte(vac.FormatScore(one.Score)+"\n"))
	write(t, dir+"/two/sub/one.vac", []byte(vac.FormatScore(one.Score)))
	write(t, dir+"/two/not.vac", []byte("no score"))
	two := func() vac.Result {
		opt := vac.Options{Merge: true, Warn: func(err error) {
			if err.Error() != "sub: file already exists" { // one.vac has brought it
				t.Error(err)
			}
		}}
		t.Chdir(dir + "/two")
		r, err := vac.Store(t.Context(), st, []string{"."}, opt)
		must(t, err)
		return r
	}()
	// And the result once more.
	write(t, dir+"/three/two.vac", []byte(vac.FormatScore(two.Score)))
	write(t, dir+"/three/y", []byte("y"))
	must(t, os.Mkdir(dir+"/three/z", 0o777))
	t.Chdir(dir + "/three")
	r, err := vac.Store(t.Context(), st, []string{"."}, vac.Options{Merge: true, Warn: func(err error) { t.Error(err) }})
	must(t, err)
	qids, got := map[uint64]string{}, []string{}
	a := open(t, st, r.Score)
	walkTree(t, a.Root, func(f *vac.File) {
		if other, ok := qids[f.FullQid()]; ok || f.FullQid() >= a.Root.QidMax {
			t.Errorf("%s has qid %d, below %d; %q has it, too", f.Path(), f.FullQid(), a.Root.QidMax, other)
		}
		qids[f.FullQid()] = f.Path()
		got = append(got, f.Path())
	})
	slices.Sort(got)
	if want := strings.Fields("a a/b c not.vac sub x y z"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFilter(t *testing.T) {
	for _, tc := range []struct{ pattern, yes, no string }{
		{"tree/names/*", "tree/names/a tree/names/ab.c tree/names/", "tree/names/.hidden tree/names/a/b tree/names"},
		{"*/text", "tree/text a/text /text", "tree/x/text .tree/text text"},
		{".../deep", "a/deep a/b/deep /deep", "deep a/deeper"},
		{"a*c", "ac abc a.c", "a/c abcd"},
		{"a/?", "a/b", "a/.  a/ a/bb"},
		{"?.c", "a.c", "..c /.c"},
		{"[a-c]x", "ax cx", "dx /x"},
		{"[~a-c]x", "dx .x", "ax /x"},
		{"[+-a]", "+ . 0 a", "/ b"},
		{"a...", "a a/b ab/.c", "b"},
		{"a.b", "a.b", "axb"},
		{"\xff*", "\xff \xffa", "a"},
		{"(a|b)+", "(a|b)+", "a ab"},
	} {
		var f vac.Filter
		must(t, f.Exclude(tc.pattern))
		for _, path := range strings.Fields(tc.yes) {
			if !f.Excludes(path) {
				t.Errorf("%q does not match %q", tc.pattern, path)
			}
		}
		for _, path := range strings.Fields(tc.no) {
			if f.Excludes(path) {
				t.Errorf("%q matches %q", tc.pattern, path)
			}
		}
	}
	for _, pattern := range []string{"[", "[a", "[]", "[~]", "[a/b]", "[/]", "[b-a]"} {
		if err := new(vac.Filter).Exclude(pattern); err == nil {
			t.Errorf("%q is a pattern", pattern)
		}
	}
	var f vac.Filter
	must(t, f.Read(strings.NewReader("# comment\n\ninclude a/keep\n  exclude\ta/...\n")))
	if f.Excludes("a/keep") || !f.Excludes("a/other") || f.Excludes("b") {
		t.Error("the first pattern that matches does not decide")
	}
	for _, text := range []string{"exclude", "leave out x", "exclude [", "a/b"} {
		if err := new(vac.Filter).Read(strings.NewReader(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
