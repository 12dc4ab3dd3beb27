package live_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
	"strata/vdisk"
	"strata/vdisk/live"
)

// tree returns what the machine serves.
func (m *machine) tree() *vdisk.Tree {
	m.t.Helper()
	tree, err := vdisk.NewTree(m.store, vdisk.TreeConfig{})
	m.must(err)
	live.Mount(tree, m.cat)
	return tree
}

// A guest is a client of the tree.
type guest struct {
	t    *testing.T
	root *ninep.File
}

func (g guest) open(path string, mode ninep.OpenMode) (*ninep.File, error) {
	f, err := g.root.Walk(g.t.Context(), strings.FieldsFunc(path, func(r rune) bool { return r == '/' })...)
	if err != nil {
		return nil, err
	}
	if err := f.Open(g.t.Context(), mode); err != nil {
		f.Close(g.t.Context())
		return nil, err
	}
	return f, nil
}

func (g guest) read(path string) ([]byte, error) {
	f, err := g.open(path, ninep.OREAD)
	if err != nil {
		return nil, err
	}
	defer f.Close(g.t.Context())
	var all []byte
	for b, err := range f.Stream(g.t.Context(), 0) {
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}

func (g guest) names(path string) []string {
	g.t.Helper()
	f, err := g.open(path, ninep.OREAD)
	if err != nil {
		g.t.Fatal(err)
	}
	defer f.Close(g.t.Context())
	list, err := f.ReadDir(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	var names []string
	for _, d := range list {
		names = append(names, d.Name)
	}
	slices.Sort(names)
	return names
}

// tell gives a command to a ctl file, and returns what it says.
func (g guest) tell(ctl, line string) (string, error) {
	f, err := g.open(ctl, ninep.ORDWR)
	if err != nil {
		return "", err
	}
	defer f.Close(g.t.Context())
	if _, err := f.WriteAt(g.t.Context(), []byte(line+"\n"), 0); err != nil {
		return "", err
	}
	b := make([]byte, 1<<20)
	n, err := f.ReadAt(g.t.Context(), b, 0)
	if err == io.EOF {
		err = nil
	}
	return string(b[:n]), err
}

func (g guest) must(ctl, line string) string {
	g.t.Helper()
	text, err := g.tell(ctl, line)
	if err != nil {
		g.t.Fatalf("%s: %v", line, err)
	}
	return text
}

func TestTree(t *testing.T) {
	for _, dialect := range []ninep.Dialect{ninep.Classic, ninep.Unix, ninep.Linux} {
		t.Run(dialect.String(), func(t *testing.T) {
			m := newMachine(t, 32<<20)
			tree := m.tree()
			g := guest{t, ninetest.Dial(t, tree, dialect, "glenda", "")}
			if got := g.names("/"); !slices.Equal(got, []string{"ctl", "images", "score", "status"}) {
				t.Errorf("/: %q", got)
			}
			g.must("ctl", "create web/01 4m")
			disk, err := g.open("images/web/01/disk", ninep.ORDWR)
			m.must(err)
			want := make([]byte, 4<<20)
			copy(want, mbr([2]uint32{8, 1000}, [2]uint32{1008, 5000}))
			copy(want[4096:], random(1, 3<<20))
			_, err = disk.WriteAt(t.Context(), want, 0)
			m.must(err)
			m.must(disk.Sync(t.Context()))
			if got, err := g.read("images/web/01/info"); err != nil || !strings.Contains(string(got), "to be cut anew; written to by glenda over 9P") {
				t.Errorf("info: %s, %v", got, err)
			}
			// Another client cannot write at the same time, but read.
			other := guest{t, ninetest.Dial(t, tree, dialect, "ken", "")}
			if _, err := other.open("images/web/01/disk", ninep.OWRITE); err == nil || dialect != ninep.Linux && !strings.Contains(err.Error(), "glenda") {
				t.Errorf("a second writer: %v", err)
			}
			if got, err := other.read("images/web/01/disk"); err != nil || !bytes.Equal(got, want) {
				t.Errorf("a reader: %d bytes, %v", len(got), err)
			}
			m.must(disk.Close(t.Context())) // cuts it anew
			if got := g.names("images/web/01/parts"); !slices.Equal(got, []string{"1", "2"}) {
				t.Errorf("parts: %q", got)
			}
			part, err := g.open("images/web/01/parts/2/data", ninep.ORDWR|ninep.OTRUNC)
			m.must(err)
			_, err = part.WriteAt(t.Context(), []byte("hello"), 100)
			m.must(err)
			if _, err := part.WriteAt(t.Context(), []byte("over the end"), 5000*512); !errors.Is(err, ninep.ErrFull) {
				t.Errorf("behind the end of a partition: %v", err)
			}
			m.must(part.Close(t.Context()))
			copy(want[1008*512+100:], "hello")
			if got, err := g.read("images/web/01/parts/2/data"); err != nil || !bytes.Equal(got, want[1008*512:][:5000*512]) {
				t.Errorf("partition: %d bytes, %v", len(got), err)
			}
			if got := g.must("images/web/01/ctl", "snap first"); !strings.HasPrefix(got, "web/01@2026/1127 vdisk:") {
				t.Errorf("snap: %q", got)
			}
			m.clock.add(24 * 3600e9)
			m.nightly()
			for path, list := range map[string][]string{
				"images": {"web"}, "images/web": {"01"}, "images/web/01": {"ctl", "disk", "info", "parts", "score", "shared", "snap", "tag"},
				"images/web/01/snap": {"2026"}, "images/web/01/snap/2026": {"1127", "1128"}, "images/web/01/tag": {"first"},
				"images/web/01/tag/first": {"disk", "info", "parts", "score"},
			} {
				if got := g.names(path); !slices.Equal(got, list) {
					t.Errorf("%s: %q, want %q", path, got, list)
				}
			}
			for _, path := range []string{"disk", "snap/2026/1127/disk", "snap/2026/1128/disk", "tag/first/disk"} {
				if got, err := g.read("images/web/01/" + path); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v", path, len(got), err)
				}
			}
			score, err := g.read("images/web/01/score")
			if again, err2 := g.read("images/web/01/snap/2026/1127/score"); err != nil || err2 != nil || !bytes.Equal(score, again) || !strings.HasPrefix(string(score), "vdisk:") {
				t.Errorf("scores %q, %q, %v, %v", score, again, err, err2)
			}
			for path, want := range map[string]error{
				"images/none": fs.ErrNotExist, "images/web/01/snap/2025": fs.ErrNotExist, "images/web/01/tag/second": fs.ErrNotExist,
				"images/.new.x": fs.ErrNotExist, "images/web/01/parts/3": fs.ErrNotExist,
			} {
				if _, err := g.read(path); !errors.Is(err, want) {
					t.Errorf("%s: %v", path, err)
				}
			}
			if _, err := g.open("images/web/01/tag/first/disk", ninep.OWRITE); err == nil {
				t.Error("a snapshot can be written to")
			}
			// Who it is that asks must be known.
			nobody := guest{t, ninetest.Dial(t, tree, dialect, ninep.NoUser, "")}
			if _, err := nobody.open("images/web/01/disk", ninep.OWRITE); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("nobody writes: %v", err)
			}
			if _, err := nobody.tell("ctl", "rm -f web/01"); err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("nobody removes: %v", err)
			}
			if got := nobody.must("ctl", "ls"); got != "web/01\n" {
				t.Errorf("nobody lists: %q", got)
			}
			if _, err := g.tell("images/web/01/ctl", "rm"); err == nil {
				t.Error("removed without being sure")
			}
			// Why it failed can be read too, by the next who opens the file.
			if got, err := g.read("ctl"); err != nil || !strings.HasPrefix(string(got), "error: rm removes") {
				t.Errorf("after a failure: %q, %v", got, err)
			}
			g.must("images/web/01/ctl", "rm -f")
			if got := g.names("images"); len(got) != 0 {
				t.Errorf("images: %q", got)
			}
		})
	}
}

func TestTreeContract(t *testing.T) {
	m := newMachine(t, 32<<20)
	m.must(m.cat.Create(t.Context(), "web/01", 3<<20))
	m.must(m.cat.Create(t.Context(), "db", 100))
	_, err := m.cat.Snapshot(t.Context(), "db", "first")
	m.must(err)
	ninetest.TestTree(t, m.tree(), ninetest.TreeConfig{User: "glenda", Skip: func(path string) bool { return path == "status" }})
}

func TestCommands(t *testing.T) {
	m := newMachine(t, 64<<20)
	run := func(line string) string {
		t.Helper()
		text, err := m.cat.Run(t.Context(), line, "", true)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return text
	}
	run("create a/1 1m")
	d := m.writer("a/1")
	for i := range 20 {
		_, err := d.WriteAt(t.Context(), random(uint64(i), 4096), 4096*int64(i%8))
		m.must(err)
		run("snap a/1" + map[bool]string{true: " tag"}[i == 7])
		m.clock.add(20 * 3600e9)
	}
	m.must(d.Close(t.Context()))
	if got := run("diff a/1@2026/1127 a/1@2026/1128"); got != "4096 4096\n" {
		t.Errorf("diff: %q", got)
	}
	if got := run("verify a/1@tag"); !strings.HasPrefix(got, "good vdisk:") {
		t.Errorf("verify: %q", got)
	}
	if got := run("ls -l"); got != "a/1  1048576  none  -\n" {
		t.Errorf("ls: %q", got)
	}
	before := strings.Count(run("log a/1"), "\n")
	roots := run("roots")
	would := run("keep a/1 3 daily 2 weekly")
	if !strings.Contains(would, "would let go of ") || strings.Count(run("log a/1"), "\n") != before {
		t.Errorf("keep: %s", would)
	}
	did := run("keep -y a/1 3 daily 2 weekly")
	if strings.ReplaceAll(did, "let go", "would let go") != would {
		t.Errorf("keep would do\n%sand did\n%s", would, did)
	}
	after := strings.Count(run("log a/1"), "\n")
	if after+strings.Count(would, "\n")-1 != before || after < 4 || !strings.Contains(run("log a/1"), " tag\n") {
		t.Errorf("of %d snapshots %d are left", before, after)
	}
	if got := run("roots"); got == roots || !strings.HasSuffix(got, " a/1\n") {
		t.Errorf("roots: %q, were %q", got, roots)
	}
	m.restart()
	if n := strings.Count(run("log a/1"), "\n"); n != after {
		t.Errorf("%d snapshots after a restart, want %d", n, after)
	}
	run("clone a/1@tag b")
	run("protect b")
	if got := run("info b"); !strings.HasPrefix(got, "name b\nstate protected; not settled\nsize 1048576\n") {
		t.Errorf("info: %q", got)
	}
	run("unprotect b")
	run("resize b 2m")
	run("mv b c/d")
	run("settle -a c/d")
	run("rollback -n a/1 tag")
	run("rm -f c/d")
	for _, line := range []string{"x", "create", "create x", "create x y", "create x -1", "create x 1 2", "ls -z", "rm a/1", "snap none", "snap a/1 ../x",
		"clone a/1@none x", "import x y", "keep a/1 3", "keep a/1 x daily", "keep a/1 3 dayly", "resize a/1 1k", "rollback a/1 none", "diff a/1 none", "mv a/1 a/1"} {
		if text, err := m.cat.Run(t.Context(), line, "", true); err == nil && line != "resize a/1 1k" {
			t.Errorf("%s: %q", line, text)
		}
	}
	for name, usage := range map[string]string{"create": "usage: create NAME SIZE", "nothing": "help lists them"} {
		if _, err := m.cat.Run(t.Context(), name, "", true); err == nil || !strings.Contains(err.Error(), usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := run("help"); !strings.Contains(got, "rollback [-n] NAME SNAP") {
		t.Errorf("help: %s", got)
	}
}
