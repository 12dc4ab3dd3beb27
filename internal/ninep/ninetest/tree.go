package ninetest

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"strata/internal/ninep"
)

// A TreeConfig says what TestTree may do.
type TreeConfig struct {
	User, Aname string

	// Skip leaves out a file or directory, by its path from the root.
	Skip func(path string) bool

	// MaxFiles bounds how many files are looked at; 0 is 1000.
	MaxFiles int

	// Write is a directory, by its path from the root, in which the suite may
	// make and remove files; "" is none.
	Write string
}

// TestTree holds a tree to the contract of package ninep: it walks all of it
// directly, and then through a server in each dialect and by memory, and sees
// the same everywhere. Then it holds the conversations in talk with a server of
// the tree. The tree must not change meanwhile.
func TestTree(t *testing.T, fs ninep.FS, cfg TreeConfig) {
	if cfg.MaxFiles == 0 {
		cfg.MaxFiles = 1000
	}
	if cfg.Skip == nil {
		cfg.Skip = func(string) bool { return false }
	}
	var direct map[string]string
	var file sample
	t.Run("contract", func(t *testing.T) { direct, file = testContract(t, fs, cfg) })
	defer talks(t, fs, cfg, file)
	for _, d := range []ninep.Dialect{ninep.Classic, ninep.Unix, ninep.Linux} {
		t.Run(d.String(), func(t *testing.T) {
			root := Dial(t, fs, d, cfg.User, cfg.Aname)
			testRemote(t, root, d, cfg, direct)
		})
	}
	t.Run("memory", func(t *testing.T) {
		c := ninep.NewServer(fs, ninep.Config{}).Local(ninep.ClientConfig{Dialect: ninep.Linux})
		defer c.Close()
		root, err := c.Attach(t.Context(), cfg.User, cfg.Aname)
		if err != nil {
			t.Fatal(err)
		}
		testRemote(t, root, ninep.Linux, cfg, direct)
	})
}

// testRemote sees through a client what was seen directly.
func testRemote(t *testing.T, root *ninep.File, d ninep.Dialect, cfg TreeConfig, direct map[string]string) {
	got := make(map[string]string)
	listRemote(t, root, "", cfg, got)
	for _, p := range slices.Sorted(maps.Keys(direct)) {
		if got[p] != direct[p] {
			t.Errorf("%s is %q, and directly %q", p, got[p], direct[p])
		}
	}
	if len(got) != len(direct) {
		t.Errorf("%d files, and directly %d", len(got), len(direct))
	}
	if cfg.Write != "" {
		testWrites(t, root, d, elements(cfg.Write))
	}
}

// Dial serves fs over a pipe until the test ends, and returns its root through
// a client.
func Dial(t testing.TB, fs ninep.FS, d ninep.Dialect, user, aname string) *ninep.File {
	t.Helper()
	ctx := context.Background()
	c, err := ninep.NewClient(ctx, pipe(t, fs), ninep.ClientConfig{Dialect: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	root, err := c.Attach(ctx, user, aname)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// describe is what must be the same of a file wherever it is seen.
func describe(d ninep.Dir, content []byte) string {
	kind := "file"
	switch {
	case d.Mode.Dir():
		return fmt.Sprintf("dir %#o %x", d.Mode&ninep.ModePerm, d.Qid.Path)
	case d.Mode&ninep.ModeSpecial != 0:
		kind = "special"
	}
	return fmt.Sprintf("%s %#o %x %d %x", kind, d.Mode&ninep.ModePerm, d.Qid.Path, d.Length, sha1.Sum(content))
}

// readable tells whether the contents of a file can be compared.
func readable(d ninep.Dir) bool {
	return d.Mode&(ninep.ModeDir|ninep.ModeSpecial) == 0 && d.Mode&0444 != 0
}

// testContract walks the tree without a server, and returns what it finds,
// and a file as deep down as there is.
func testContract(t *testing.T, fs ninep.FS, cfg TreeConfig) (map[string]string, sample) {
	ctx := t.Context()
	root, err := fs.Attach(ctx, cfg.User, cfg.Aname)
	if err != nil {
		t.Fatal(err)
	}
	if !root.Qid().Dir() {
		t.Fatalf("the root's qid is %v", root.Qid())
	}
	found := make(map[string]string)
	paths := make(map[uint64]string) // by qid path
	var file sample
	var visit func(n ninep.Node, p string)
	visit = func(n ninep.Node, p string) {
		d, err := n.Stat(ctx)
		if err != nil {
			t.Errorf("stat %s: %v", p, err)
			return
		}
		checkDir(t, p, d, n.Qid())
		if other, ok := paths[d.Qid.Path]; ok && d.Links < 2 {
			t.Errorf("%s and %s have one qid path, %x", p, other, d.Qid.Path)
		}
		paths[d.Qid.Path] = p
		if d.Mode.Dir() {
			found[p] = describe(d, nil)
			for _, e := range testDirectory(t, n, p) {
				ep := path.Join(p, e.Name)
				if cfg.Skip(ep) || len(found) >= cfg.MaxFiles {
					continue
				}
				child, err := n.Walk(ctx, e.Name)
				if err != nil {
					t.Errorf("walk to %s: %v", ep, err)
					continue
				}
				if child.Qid().Path != e.Qid.Path || child.Qid().Type != e.Qid.Type {
					t.Errorf("%s has qid %v, its entry %v", ep, child.Qid(), e.Qid)
				}
				visit(child, ep)
			}
			return
		}
		var content []byte
		if readable(d) {
			content = testContent(t, n, p, d)
			if names := elements(p); len(content) > 0 && len(names) > len(file.path) && len(names) < ninep.MaxNames {
				file = sample{names, d.Length, content[:min(len(content), maxHead)]}
			}
		}
		found[p] = describe(d, content)
	}
	visit(root, "")
	return found, file
}

// checkDir looks at what a file says of itself.
func checkDir(t *testing.T, p string, d ninep.Dir, qid ninep.Qid) {
	t.Helper()
	if p != "" && d.Name != path.Base(p) {
		t.Errorf("%s says that its name is %q", p, d.Name)
	}
	if d.Qid.Path != qid.Path || d.Qid.Type != qid.Type {
		t.Errorf("%s has qid %v, and %v in its stat", p, qid, d.Qid)
	}
	if d.Qid.Type != d.Mode.QidType() {
		t.Errorf("%s has qid type %#x and mode %#o", p, d.Qid.Type, d.Mode)
	}
	if d.Length < 0 || d.Mode.Dir() && d.Length != 0 {
		t.Errorf("%s has length %d", p, d.Length)
	}
}

// testDirectory reads a directory in all ways.
func testDirectory(t *testing.T, n ninep.Node, p string) []ninep.Dir {
	ctx := t.Context()
	if _, err := n.Walk(ctx, "no such name"); !errors.Is(err, ninep.ErrNotExist) {
		t.Errorf("walk from %s to what is not there: %v", p, err)
	}
	h, err := n.Open(ctx, ninep.OREAD)
	if err != nil {
		t.Errorf("open %s: %v", p, err)
		return nil
	}
	defer h.Close(ctx)
	r, ok := h.(ninep.DirReader)
	if !ok {
		t.Errorf("%s cannot be read", p)
		return nil
	}
	read := func(cookie uint64, most int) (list []ninep.Dir) {
		for d, err := range r.ReadDir(ctx, cookie) {
			if err != nil {
				t.Errorf("read %s: %v", p, err)
				return list
			}
			if list = append(list, d); len(list) == most {
				break
			}
		}
		return list
	}
	all := read(0, -1)
	seen := make(map[string]bool)
	last := uint64(0)
	for i, d := range all {
		if d.Name == "" || d.Name == "." || d.Name == ".." || strings.ContainsAny(d.Name, "/\x00") || seen[d.Name] {
			t.Errorf("%s has an entry %q", p, d.Name)
		}
		seen[d.Name] = true
		if d.Cookie <= last || d.Cookie > ninep.MaxCookie {
			t.Errorf("%s: cookie %d of %s comes after %d", p, d.Cookie, d.Name, last)
		}
		last = d.Cookie
		if d.Qid.Type != d.Mode.QidType() {
			t.Errorf("%s in %s has qid %v and mode %#o", d.Name, p, d.Qid, d.Mode)
		}
		if i%50 == 0 {
			if rest := read(d.Cookie, 1); len(rest) > 0 != (i+1 < len(all)) || len(rest) > 0 && rest[0].Name != all[i+1].Name {
				t.Errorf("%s: behind %s comes %v", p, d.Name, rest)
			}
		}
	}
	return all
}

// testContent reads a file in all ways.
func testContent(t *testing.T, n ninep.Node, p string, d ninep.Dir) []byte {
	ctx := t.Context()
	h, err := n.Open(ctx, ninep.OREAD)
	if err != nil {
		t.Errorf("open %s: %v", p, err)
		return nil
	}
	defer h.Close(ctx)
	r, ok := h.(ninep.Reader)
	if !ok {
		t.Errorf("%s cannot be read", p)
		return nil
	}
	size := min(d.Length, maxContent)
	all := make([]byte, size)
	if n, err := readFull(ctx, r, all, 0); int64(n) != size {
		t.Errorf("read %s: %d bytes of %d, %v", p, n, size, err)
		return nil
	}
	for _, off := range []int64{d.Length, d.Length + 1, 1 << 62} {
		if n, err := r.ReadAt(ctx, make([]byte, 10), off); n != 0 || err != nil && err != io.EOF {
			t.Errorf("read %s at %d of %d: %d, %v", p, off, d.Length, n, err)
		}
	}
	// Pieces, at once, none of them at a boundary.
	var wg sync.WaitGroup
	const piece = 5003
	for off := int64(1); off < size; off += size/8 + 1 {
		wg.Go(func() {
			want := all[off:min(size, off+piece)]
			got := make([]byte, len(want), len(want)+1)
			got[:len(want)+1][len(want)] = 0xa5
			n, err := readFull(ctx, r, got, off)
			if n != len(want) || !bytes.Equal(got, want) || got[:len(want)+1][len(want)] != 0xa5 {
				t.Errorf("read %s at %d: %d bytes, %v", p, off, n, err)
			}
		})
	}
	wg.Wait()
	if l, ok := h.(ninep.Lender); ok {
		if bufs, done, ok := l.Lend(nil, piece, 1); ok {
			if got := bytes.Join(bufs, nil); len(got) > piece || !bytes.HasPrefix(all[min(size, 1):], got) || len(got) == 0 && size > 1 {
				t.Errorf("%s lends %d bytes at 1 that are not its own", p, len(got))
			}
			if done != nil {
				done()
			}
		}
	}
	if c, ok := h.(ninep.CachedReader); ok {
		got := make([]byte, min(size, piece))
		if n, ok := c.ReadCached(got, 0); ok && !bytes.Equal(got[:n], all[:n]) {
			t.Errorf("%s is something else in the cache", p)
		}
	}
	return all
}

// maxContent bounds how much of a file is compared.
const maxContent = 4 << 20

func readFull(ctx context.Context, r ninep.Reader, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := r.ReadAt(ctx, p[done:], off+int64(done))
		done += n
		if err != nil || n == 0 {
			return done, err
		}
	}
	return done, nil
}

// listRemote describes the files under f as a client sees them.
func listRemote(t *testing.T, f *ninep.File, p string, cfg TreeConfig, found map[string]string) {
	ctx := t.Context()
	d, err := f.Stat(ctx)
	if err != nil {
		t.Errorf("stat %s: %v", p, err)
		return
	}
	open, err := f.Walk(ctx)
	if err != nil {
		t.Errorf("clone %s: %v", p, err)
		return
	}
	defer open.Close(ctx)
	if !d.Mode.Dir() {
		var content []byte
		if readable(d) {
			if err := open.Open(ctx, ninep.OREAD); err != nil {
				t.Errorf("%v", err)
				return
			}
			content = make([]byte, min(d.Length, maxContent))
			if n, err := open.ReadAt(ctx, content, 0); n != len(content) || err != nil {
				t.Errorf("read %s: %d bytes of %d, %v", p, n, len(content), err)
			}
		}
		found[p] = describe(d, content)
		return
	}
	found[p] = describe(d, nil)
	if err := open.Open(ctx, ninep.OREAD); err != nil {
		t.Errorf("%v", err)
		return
	}
	list, err := open.ReadDir(ctx)
	if err != nil {
		t.Errorf("%v", err)
	}
	for _, e := range list {
		ep := path.Join(p, e.Name)
		if cfg.Skip(ep) || len(found) >= cfg.MaxFiles {
			continue
		}
		child, err := f.Walk(ctx, e.Name)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		listRemote(t, child, ep, cfg, found)
		child.Close(ctx)
	}
	if _, err := f.Walk(ctx, "no such name"); !errors.Is(err, ninep.ErrNotExist) {
		t.Errorf("walk from %s to what is not there: %v", p, err)
	}
	up, err := f.Walk(ctx, "..")
	if err != nil {
		t.Errorf("%v", err)
		return
	}
	if (up.Qid().Path == f.Qid().Path) != (p == "") {
		t.Errorf("above %s is %v, itself %v", p, up.Qid(), f.Qid())
	}
	up.Close(ctx)
}

// testWrites makes, changes and removes files in a directory. It leaves it as
// it was.
func testWrites(t *testing.T, root *ninep.File, dialect ninep.Dialect, dir []string) {
	ctx := t.Context()
	step := func(what string, err, want error) {
		t.Helper()
		if want == nil && err != nil || want != nil && !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
	}
	walk := func(names ...string) *ninep.File {
		t.Helper()
		f, err := root.Walk(ctx, slices.Concat(dir, names)...)
		step("walk", err, nil)
		t.Cleanup(func() { f.Close(context.Background()) })
		return f
	}
	d := walk()
	step("make a directory", d.Create(ctx, "ninetest", ninep.ModeDir|0770, ninep.OREAD), nil)
	qid := d.Qid()
	if !qid.Dir() {
		t.Errorf("the new directory's qid is %v", qid)
	}
	step("make it again", walk().Create(ctx, "ninetest", ninep.ModeDir|0770, ninep.OREAD), ninep.ErrExist)
	f := walk("ninetest")
	step("make a file", f.Create(ctx, "a", 0660, ninep.ORDWR), nil)
	step("make it again", walk("ninetest").Create(ctx, "a", 0660, ninep.ORDWR), ninep.ErrExist)

	// Contents: a hole, an overwrite, growth, truncation, a hole again.
	model := make([]byte, 300000)
	write := func(off, n int, fill byte) {
		t.Helper()
		p := bytes.Repeat([]byte{fill}, n)
		copy(model[off:], p)
		_, err := f.WriteAt(ctx, p, int64(off))
		step("write", err, nil)
	}
	same := func(length int) {
		t.Helper()
		got := make([]byte, length+10)
		n, err := f.ReadAt(ctx, got, 0)
		if n != length || err != io.EOF || !bytes.Equal(got[:n], model[:length]) {
			t.Fatalf("the file has %d bytes, %v, and should have %d, or they differ", n, err, length)
		}
		s, err := f.Stat(ctx)
		if step("stat", err, nil); s.Length != int64(length) {
			t.Fatalf("the file's length is %d, want %d", s.Length, length)
		}
	}
	resize := func(n int64) {
		t.Helper()
		step("truncate", f.Wstat(ctx, ninep.Change{Length: &n}), nil)
		clear(model[n:])
	}
	same(0)
	before := f.Qid()
	write(100000, 5000, 'x')
	same(105000)
	write(0, 3, 'y')
	write(99999, 2, 'z')
	same(105000)
	resize(100001)
	same(100001)
	resize(250000)
	same(250000)
	step("sync", f.Sync(ctx), nil)
	s, err := f.Stat(ctx)
	if step("stat", err, nil); s.Qid.Path != before.Path || s.Qid.Vers == before.Vers {
		t.Errorf("the qid was %v, and is %v after writing", before, s.Qid)
	}

	mode, mtime := ninep.Mode(0640), time.Unix(1e9, 0)
	step("wstat", f.Wstat(ctx, ninep.Change{Mode: &mode, Mtime: &mtime}), nil)
	s, err = f.Stat(ctx)
	if step("stat", err, nil); s.Mode != mode || !s.Mtime.Equal(mtime) || s.Name != "a" {
		t.Errorf("after wstat: %+v", s)
	}
	b := walk("ninetest")
	step("make a second file", b.Create(ctx, "b", 0660, ninep.OWRITE), nil)
	if dialect != ninep.Linux { // there it would replace
		step("rename onto it", walk("ninetest", "a").Rename(ctx, d, "b"), ninep.ErrExist)
	}
	step("rename", walk("ninetest", "a").Rename(ctx, walk("ninetest"), "c"), nil)
	if _, err := root.Walk(ctx, append(slices.Clone(dir), "ninetest", "a")...); !errors.Is(err, ninep.ErrNotExist) {
		t.Errorf("the old name: %v", err)
	}
	same(250000)
	list, err := func() ([]ninep.Dir, error) {
		l := walk("ninetest")
		step("open", l.Open(ctx, ninep.OREAD), nil)
		return l.ReadDir(ctx)
	}()
	step("read directory", err, nil)
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"b", "c"}) {
		t.Errorf("the directory has %q", names)
	}
	step("write to a directory", walk("ninetest").Open(ctx, ninep.OWRITE), ninep.ErrIsDir)
	step("remove a full directory", walk("ninetest").Remove(ctx), ninep.ErrNotEmpty)
	step("remove", b.Remove(ctx), nil)
	step("remove", walk("ninetest", "c").Remove(ctx), nil)
	step("remove the directory", walk("ninetest").Remove(ctx), nil)
	if _, err := root.Walk(ctx, append(slices.Clone(dir), "ninetest")...); !errors.Is(err, ninep.ErrNotExist) {
		t.Errorf("the removed directory: %v", err)
	}
	again := walk()
	step("make it once more", again.Create(ctx, "ninetest", ninep.ModeDir|0770, ninep.OREAD), nil)
	if again.Qid().Path == qid.Path {
		t.Error("a qid path is used twice")
	}
	step("remove it", again.Remove(ctx), nil)
}
