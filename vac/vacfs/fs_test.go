package vacfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
	"strata/vac"
	"strata/vac/vacfs"
	"strata/vac/vactest"
	"strata/venti"
	"strata/venti/ventitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newFS returns an FS that is closed when the test ends.
func newFS(t testing.TB, br venti.BlockReader, cfg vacfs.Config, archives ...vacfs.Archive) *vacfs.FS {
	t.Helper()
	fs, err := vacfs.New(br, archives, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return fs
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// hostTree makes a directory with files of all kinds and sizes.
func hostTree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for i, size := range []int{0, 1, 8191, 8192, 8193, 100_000, 409*8192 + 1} {
		b := random(uint64(i), size)
		if i%2 == 1 {
			clear(b[size/3 : size/2])
		}
		sub := filepath.Join(dir, fmt.Sprintf("d%d/sub", i%3))
		must(t, os.MkdirAll(sub, 0o755))
		must(t, os.WriteFile(filepath.Join(sub, fmt.Sprintf("size%d", size)), b, os.FileMode(0o400+i)))
	}
	deep := filepath.Join(dir, strings.Repeat("deep/", 50))
	must(t, os.MkdirAll(deep, 0o700))
	must(t, os.WriteFile(filepath.Join(deep, "bottom"), []byte("here"), 0o644))
	for _, name := range []string{strings.Repeat("n", 255), "\xff\xfe no utf-8", "new\nline", "ätherisch", " ", "-rf", "a=b"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
	}
	must(t, os.Symlink("d0/sub/a target that is longer than 8 bytes", filepath.Join(dir, "link")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "empty"), 0o711))
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(t, err)
	must(t, f.Truncate(1<<33))
	_, err = f.WriteAt([]byte("end"), 1<<33-3)
	must(t, err)
	must(t, f.Close())
	for i := range 700 {
		must(t, os.WriteFile(filepath.Join(dir, "d2", fmt.Sprint("many", i)), []byte{byte(i)}, 0o644))
	}
	when := time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)
	must(t, os.Chtimes(filepath.Join(dir, "empty"), when, when))
	return dir
}

// stored archives what is in dir, and returns the archive's score.
func stored(t testing.TB, st venti.Store, opt vac.Options, dir string) string {
	t.Helper()
	t.Chdir(dir) // only "." stands for its contents
	opt.Warn = func(err error) { t.Errorf("vac: %v", err) }
	res, err := vac.Store(t.Context(), st, []string{"."}, opt)
	must(t, err)
	return vac.FormatScore(res.Score)
}

func TestTree(t *testing.T) {
	dir, st := hostTree(t), ventitest.NewMemory()
	for _, block := range []int{1024, 8192} {
		t.Run(fmt.Sprint("blocks of ", block), func(t *testing.T) {
			score := stored(t, st, vac.Options{BlockSize: block}, dir)
			fs := newFS(t, st, vacfs.Config{NoPermissions: true}, vacfs.Archive{Source: score})
			ninetest.TestTree(t, fs, ninetest.TreeConfig{})
			compare(t, ninetest.Dial(t, fs, ninep.Linux, "glenda", ""), dir)
		})
	}
}

// compare compares all below a directory with what lies in dir.
func compare(t *testing.T, root *ninep.File, dir string) {
	t.Helper()
	ctx := t.Context()
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		must(t, err)
		files++
		rel, err := filepath.Rel(dir, path)
		must(t, err)
		names := strings.Split(rel, "/")
		if rel == "." {
			names = nil
		}
		f, err := root.Walk(ctx, names...)
		if err != nil {
			t.Errorf("%s: %v", rel, err)
			return nil
		}
		defer f.Close(ctx)
		a, _, err := f.Attr(ctx)
		must(t, err)
		var want syscall.Stat_t
		must(t, syscall.Lstat(path, &want))
		if rel == "." {
			return nil // vac's own, whatever was stored
		}
		if a.Mode != want.Mode {
			t.Errorf("%s: mode %#o, want %#o", rel, a.Mode, want.Mode)
		}
		if a.MtimeSec != uint64(want.Mtim.Sec) {
			t.Errorf("%s: time %d, want %d", rel, a.MtimeSec, want.Mtim.Sec)
		}
		if !e.IsDir() && a.Size != uint64(want.Size) {
			t.Errorf("%s: size %d, want %d", rel, a.Size, want.Size)
		}
		switch {
		case e.Type() == os.ModeSymlink:
			got, err := f.Readlink(ctx)
			want, _ := os.Readlink(path)
			if err != nil || got != want {
				t.Errorf("%s: target %q, %v, want %q", rel, got, err, want)
			}
		case e.Type().IsRegular():
			must(t, f.Open(ctx, ninep.OREAD))
			compareContents(t, f, path, want.Size)
		case e.IsDir():
			must(t, f.Open(ctx, ninep.OREAD))
			list, err := f.ReadDir(ctx)
			if err != nil {
				t.Errorf("%s: %v", rel, err)
			}
			want, err := os.ReadDir(path)
			must(t, err)
			if len(list) != len(want) {
				t.Errorf("%s: %d entries, want %d", rel, len(list), len(want))
			}
		}
		return nil
	})
	must(t, err)
	if files < 10 {
		t.Errorf("compared %d files", files)
	}
}

// compareContents compares the start and the end of a file, which may be
// enormous.
func compareContents(t *testing.T, f *ninep.File, path string, size int64) {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	const most = 6 << 20
	for _, off := range []int64{0, max(0, size-most)} {
		want := make([]byte, min(size, most))
		_, err := file.ReadAt(want, off)
		must(t, err)
		got := make([]byte, len(want)+1)
		n, err := f.ReadAt(t.Context(), got, off)
		if err != nil && err != io.EOF || n < len(want) || !bytes.Equal(got[:len(want)], want) {
			t.Errorf("%s: %d bytes at %d of %d, %v, differ", path, n, off, size, err)
		}
	}
}

// names returns the names in a directory that was attached to.
func names(t *testing.T, root *ninep.File, path ...string) []string {
	t.Helper()
	f, err := root.Walk(t.Context(), path...)
	must(t, err)
	defer f.Close(t.Context())
	must(t, f.Open(t.Context(), ninep.OREAD))
	list, err := f.ReadDir(t.Context())
	must(t, err)
	var names []string
	for _, d := range list {
		names = append(names, d.Name)
	}
	slices.Sort(names)
	return names
}

func TestAttach(t *testing.T) {
	dir, st := t.TempDir(), ventitest.NewMemory()
	for _, name := range []string{"a/x/file", "b/y/file", "c/z/file"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
	}
	a, b, c := stored(t, st, vac.Options{}, dir+"/a"), stored(t, st, vac.Options{}, dir+"/b"), stored(t, st, vac.Options{}, dir+"/c")
	file := filepath.Join(dir, "home.vac")
	must(t, os.WriteFile(file, []byte(b+"\n"), 0o644))
	one := newFS(t, st, vacfs.Config{}, vacfs.Archive{Name: "a", Source: a})
	two := newFS(t, st, vacfs.Config{}, vacfs.Archive{Name: "a", Source: a}, vacfs.Archive{Name: "home", Source: file})
	none := newFS(t, st, vacfs.Config{})
	missing := "vac:" + strings.Repeat("12", 20)
	for _, tc := range []struct {
		fs    *vacfs.FS
		aname string
		want  string // names, or an error
	}{
		{one, "", "x"}, {one, "/", "x"}, {one, "x", "file"}, {one, "/x/", "file"}, {one, c, "z"}, {one, c + "/z", "file"},
		{one, "a", "file does not exist"}, {one, "x/file", "not a directory"}, {one, "..", "file does not exist"}, {one, "vac:12", "bad score"},
		{one, missing, "venti i/o error"},
		{two, "", "a home"}, {two, "a", "x"}, {two, "home", "y"}, {two, "home/y", "file"}, {two, c, "z"}, {two, "x", "file does not exist"},
		{none, "", ""}, {none, c, "z"}, {none, "a", "file does not exist"},
	} {
		n, err := tc.fs.Attach(t.Context(), "glenda", tc.aname)
		if err != nil {
			if !strings.Contains(err.Error(), tc.want) || tc.want == "" {
				t.Errorf("%q: %v, want %s", tc.aname, err, tc.want)
			}
			continue
		}
		if got := strings.Join(names(t, ninetest.Dial(t, tc.fs, ninep.Classic, "glenda", tc.aname)), " "); got != tc.want {
			t.Errorf("%q has %q, want %q", tc.aname, got, tc.want)
		}
		if d, err := n.Stat(t.Context()); err != nil || d.Name != "/" {
			t.Errorf("%q: %+v, %v", tc.aname, d, err)
		}
	}

	// The file names another archive tomorrow; who has attached stays with the
	// old one.
	before := ninetest.Dial(t, two, ninep.Linux, "glenda", "home")
	must(t, os.WriteFile(file, []byte(c), 0o644))
	if got := names(t, before); !slices.Equal(got, []string{"y"}) {
		t.Errorf("who has attached sees %q", got)
	}
	if got := names(t, ninetest.Dial(t, two, ninep.Linux, "glenda", "home")); !slices.Equal(got, []string{"z"}) {
		t.Errorf("who attaches sees %q", got)
	}
	must(t, os.WriteFile(file, []byte("no score"), 0o644))
	if _, err := two.Attach(t.Context(), "glenda", "home"); err == nil {
		t.Error("attached to a file that holds no score")
	}
	if got := names(t, ninetest.Dial(t, two, ninep.Linux, "glenda", "")); !slices.Equal(got, []string{"a", "home"}) {
		t.Errorf("with one that cannot be opened: %q", got)
	}

	for what, list := range map[string][]vacfs.Archive{
		"two of one name": {{Name: "a", Source: a}, {Name: "a", Source: b}},
		"no name":         {{Source: a}, {Name: "b", Source: b}},
		"a path":          {{Name: "a/b", Source: a}, {Name: "b", Source: b}},
	} {
		if _, err := vacfs.New(st, list, vacfs.Config{}); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if _, err := vacfs.New(st, nil, vacfs.Config{Memory: 1000}); err == nil {
		t.Error("1000 bytes of memory: accepted")
	}
	if err := one.Check(t.Context(), vacfs.Archive{Source: missing}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("check of what is not there: %v", err)
	}
}

// TestDays walks through an archive that grows by a day, as vac -a makes it.
func TestDays(t *testing.T) {
	dir, st := t.TempDir(), ventitest.NewMemory()
	must(t, os.WriteFile(filepath.Join(dir, "same"), []byte("same"), 0o644))
	opt := vac.Options{Daily: true}
	var score string
	for day := range 3 {
		must(t, os.WriteFile(filepath.Join(dir, "file"), fmt.Append(nil, "day ", day), 0o644))
		opt.Now = time.Date(2026, 11, 22+day/2, 12, 0, 0, 0, time.UTC)
		score = stored(t, st, opt, dir)
		s, err := vac.FindScore(score)
		must(t, err)
		opt.Append, err = vac.Open(t.Context(), st, s)
		must(t, err)
	}
	fs := newFS(t, st, vacfs.Config{}, vacfs.Archive{Source: score})
	ninetest.TestTree(t, fs, ninetest.TreeConfig{User: "glenda"})
	root := ninetest.Dial(t, fs, ninep.Linux, "glenda", "2026")
	if got := names(t, root); !slices.Equal(got, []string{"1122", "1122.1", "1123"}) {
		t.Fatalf("2026 has %q", got)
	}
	for i, day := range []string{"1122", "1122.1", "1123"} {
		f, err := root.Walk(t.Context(), day, "file")
		must(t, err)
		must(t, f.Open(t.Context(), ninep.OREAD))
		got := make([]byte, 5)
		if _, err := f.ReadAt(t.Context(), got, 0); err != nil || string(got) != fmt.Sprint("day ", i) {
			t.Errorf("%s: %q, %v", day, got, err)
		}
	}
}

func TestPermissions(t *testing.T) {
	dir, st := t.TempDir(), ventitest.NewMemory()
	for _, mode := range []os.FileMode{0o400, 0o040, 0o004, 0o111, 0o700, 0o070, 0o007} {
		name := filepath.Join(dir, fmt.Sprintf("f%03o", mode))
		must(t, os.WriteFile(name, []byte("text"), 0o644))
		must(t, os.Mkdir(filepath.Join(dir, fmt.Sprintf("d%03o", mode)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("d%03o", mode), "file"), nil, 0o644))
		if os.Geteuid() == 0 { // who may read what he may not
			must(t, os.Chmod(name, mode))
			must(t, os.Chmod(filepath.Join(dir, fmt.Sprintf("d%03o", mode)), mode))
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("files that their owner cannot read are only stored by root")
	}
	score := stored(t, st, vac.Options{}, dir)
	fs := newFS(t, st, vacfs.Config{}, vacfs.Archive{Source: score})
	all := newFS(t, st, vacfs.Config{NoPermissions: true}, vacfs.Archive{Source: score})
	for _, tc := range []struct {
		user string
		may  string // what it may open to read
	}{
		{"root", "400 040 004 700 070 007"}, // owner, and group of that name
		{"glenda", "004 007"},
		{ninep.NoUser, "004 007"},
	} {
		root, err := fs.Attach(t.Context(), tc.user, "")
		must(t, err)
		for _, mode := range []string{"400", "040", "004", "111", "700", "070", "007"} {
			n, err := root.Walk(t.Context(), "f"+mode)
			must(t, err)
			_, err = n.Open(t.Context(), ninep.OREAD)
			may := strings.Contains(tc.may, mode)
			if may != (err == nil) || !may && !errors.Is(err, ninep.ErrPermission) {
				t.Errorf("%s reads %s: %v", tc.user, mode, err)
			}
			n, err = root.Walk(t.Context(), "d"+mode)
			must(t, err)
			_, err = n.Walk(t.Context(), "file")
			if exec := mode == "111" || may && strings.Contains(mode, "7"); exec != (err == nil) {
				t.Errorf("%s walks into %s: %v", tc.user, mode, err)
			}
			if n, err = all.Attach(t.Context(), tc.user, ""); err == nil {
				if n, err = n.Walk(t.Context(), "f"+mode); err == nil {
					_, err = n.Open(t.Context(), ninep.OREAD)
				}
			}
			must(t, err)
		}
		n, err := root.Walk(t.Context(), "f111")
		must(t, err)
		if _, err := n.Open(t.Context(), ninep.OEXEC); err != nil {
			t.Errorf("%s executes: %v", tc.user, err)
		}
		if _, err := n.Open(t.Context(), ninep.OWRITE); !errors.Is(err, ninep.ErrReadOnly) {
			t.Errorf("%s writes: %v", tc.user, err)
		}
	}
}

// TestLargeDirectory lists a directory in small pieces and looks up every name
// of it, from several clients at once.
func TestLargeDirectory(t *testing.T) {
	const n = 6000
	st := ventitest.NewMemory()
	fs := newFS(t, st, vacfs.Config{}, vacfs.Archive{Source: vac.FormatScore(vactest.Directory(t, st, n))})
	var wg sync.WaitGroup
	for _, d := range []ninep.Dialect{ninep.Classic, ninep.Linux} {
		root := ninetest.Dial(t, fs, d, "glenda", "")
		if got := names(t, root); len(got) != n || len(slices.Compact(got)) != n {
			t.Errorf("%v: %d names, want %d", d, len(got), n)
		}
		for k := range 2 {
			wg.Go(func() {
				for i := k; i < n; i += 2 {
					f, err := root.Walk(t.Context(), fmt.Sprint("file", i))
					if err != nil {
						t.Errorf("%v: %v", d, err)
						return
					}
					f.Close(t.Context())
				}
				if _, err := root.Walk(t.Context(), fmt.Sprint("file", n)); !errors.Is(err, ninep.ErrNotExist) {
					t.Errorf("%v: %v", d, err)
				}
			})
		}
	}
	wg.Wait()
}

// failing is a store that has lost some blocks, or is away.
type failing struct {
	*ventitest.Memory
	mu   sync.Mutex // guards the field below
	away error
}

func (s *failing) ReadBlock(ctx context.Context, score venti.Score, t venti.Type, buf []byte) (int, error) {
	s.mu.Lock()
	err := s.away
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return s.Memory.ReadBlock(ctx, score, t, buf)
}

func (s *failing) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = err
}

func TestDamage(t *testing.T) {
	dir, st := t.TempDir(), &failing{Memory: ventitest.NewMemory()}
	must(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
	for i := range 300 {
		must(t, os.WriteFile(filepath.Join(dir, "d", fmt.Sprint("file", i)), fmt.Append(nil, "contents ", i), 0o644))
	}
	must(t, os.WriteFile(filepath.Join(dir, "good"), []byte("good"), 0o644))
	score := stored(t, st.Memory, vac.Options{BlockSize: 1024}, dir)
	s, err := vac.FindScore(score)
	must(t, err)
	a, err := vac.Open(t.Context(), st, s)
	must(t, err)
	d, err := a.Root.Lookup(t.Context(), "d")
	must(t, err)
	lost, err := d.Walk(t.Context(), "file7")
	must(t, err)
	st.Remove(lost.Data().Score, venti.DataType)

	open := func() *vacfs.FS { return newFS(t, st, vacfs.Config{}, vacfs.Archive{Source: score}) }
	root := ninetest.Dial(t, open(), ninep.Classic, "glenda", "")
	read := func(names ...string) (string, error) {
		f, err := root.Walk(t.Context(), names...)
		if err != nil {
			return "", err
		}
		defer f.Close(t.Context())
		if err := f.Open(t.Context(), ninep.OREAD); err != nil {
			return "", err
		}
		b := make([]byte, 100)
		n, err := f.ReadAt(t.Context(), b, 0)
		if err == io.EOF {
			err = nil
		}
		return string(b[:n]), err
	}
	if got, err := read("d", "file7"); err == nil || !strings.Contains(err.Error(), "venti i/o error") || errors.Is(err, ninep.ErrNotExist) {
		t.Errorf("a lost block: %q, %v", got, err)
	}
	if got, err := read("d", "file8"); got != "contents 8" {
		t.Errorf("its neighbour: %q, %v", got, err)
	}

	// A metadata block is lost: the others are listed, and then the error.
	var metas []venti.Score
	pointers := make([]byte, 1024)
	n, err := st.ReadBlock(t.Context(), d.Meta().Score, venti.DataType+1, pointers)
	must(t, err)
	for i := 0; i+venti.ScoreSize <= n; i += venti.ScoreSize {
		metas = append(metas, venti.Score(pointers[i:i+venti.ScoreSize]))
	}
	st.Remove(metas[1], venti.DataType)
	root = ninetest.Dial(t, open(), ninep.Classic, "glenda", "")
	f, err := root.Walk(t.Context(), "d")
	must(t, err)
	must(t, f.Open(t.Context(), ninep.OREAD))
	list, err := f.ReadDir(t.Context())
	if len(list) < 200 || len(list) >= 300 || err == nil || !strings.Contains(err.Error(), "d: metadata block 1") {
		t.Errorf("a directory with a lost block has %d entries, %v", len(list), err)
	}
	must(t, f.Close(t.Context()))

	// The store goes away and comes back.
	st.set(syscall.ECONNRESET)
	if got, err := read("good"); err == nil || errors.Is(err, ninep.ErrNotExist) {
		t.Errorf("without the store: %q, %v", got, err)
	}
	st.set(nil)
	if got, err := read("good"); got != "good" {
		t.Errorf("with the store again: %q, %v", got, err)
	}
}
