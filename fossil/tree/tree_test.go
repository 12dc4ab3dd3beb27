package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"strata/fossil"
	"strata/fossil/internal/users"
	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
	"strata/vac/meta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A clock is a time that a test sets.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newClock() *clock { return &clock{time.Date(2026, 11, 27, 3, 0, 0, 0, time.Local)} }

// newTree formats and opens a file system, which is closed when the test ends,
// with a directory /active/tmp in which everybody may write.
func newTree(t *testing.T, cfg Config) (*Tree, *fossil.FS) {
	t.Helper()
	d := disk.NewMachine().NewDisk("part", 16<<20)
	if err := fossil.Format(t.Context(), d, fossil.FormatConfig{}); err != nil {
		t.Fatal(err)
	}
	f, err := fossil.Open(d, fossil.Config{Interval: time.Hour, Now: cfg.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	active, err := f.Walk(t.Context(), "/active")
	if err == nil {
		_, err = active.Create(t.Context(), "tmp", meta.ModeDir|0o777, "glenda")
	}
	if err != nil {
		t.Fatal(err)
	}
	return New(f, cfg), f
}

func TestContract(t *testing.T) {
	c := newClock()
	tr, f := newTree(t, Config{Now: c.Now})
	write(t, tr, "glenda", "main/active/tmp", "file", 0o644, strings.Repeat("some text ", 3000))
	for i := range 300 { // of several metadata blocks
		write(t, tr, "glenda", "main/active/tmp", fmt.Sprintf("file %d", i), 0o644, "text")
	}
	snapshot(t, f, fossil.SnapConfig{})
	snapshot(t, f, fossil.SnapConfig{})
	snapshot(t, f, fossil.SnapConfig{Archive: true})
	for aname, dir := range map[string]string{"": "tmp", "main": "active/tmp", "/active/tmp": ""} {
		t.Run("aname "+aname, func(t *testing.T) {
			ninetest.TestTree(t, tr, ninetest.TreeConfig{User: "glenda", Aname: aname, Write: dir, MaxFiles: 2000})
		})
	}
}

func TestDialects(t *testing.T) {
	for seed := range uint64(2) {
		newFS := func(t *testing.T) ninep.FS {
			tr, _ := newTree(t, Config{})
			return tr
		}
		ninetest.TestDialects(t, newFS, ninetest.TreeConfig{User: "glenda", Aname: "/active/tmp"}, seed, 1000)
	}
}

func snapshot(t *testing.T, f *fossil.FS, cfg fossil.SnapConfig) string {
	t.Helper()
	path, err := f.Snapshot(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// write makes a file as user, in the directory that aname leads to.
func write(t *testing.T, tr *Tree, user, aname, name string, perm ninep.Mode, text string) {
	t.Helper()
	_, h, err := create(t, tr, user, aname, name, perm, ninep.OWRITE)
	if err == nil && !perm.Dir() {
		_, err = h.(ninep.Writer).WriteAt(t.Context(), []byte(text), 0)
	}
	if err == nil {
		err = h.Close(t.Context())
	}
	if err != nil {
		t.Fatalf("write %s/%s: %v", aname, name, err)
	}
}

func attach(t *testing.T, tr *Tree, user, aname string) ninep.Node {
	t.Helper()
	n, err := tr.Attach(t.Context(), user, aname)
	if err != nil {
		t.Fatalf("attach %s as %s: %v", aname, user, err)
	}
	return n
}

func create(t *testing.T, tr *Tree, user, aname, name string, perm ninep.Mode, mode ninep.OpenMode) (ninep.Node, ninep.Handle, error) {
	t.Helper()
	return attach(t, tr, user, aname).(ninep.Creator).Create(t.Context(), name, perm, mode)
}

// open opens a file, and closes it when the test ends.
func open(t *testing.T, tr *Tree, user, aname string, mode ninep.OpenMode) (ninep.Handle, error) {
	t.Helper()
	n, err := tr.Attach(t.Context(), user, aname)
	if err != nil {
		return nil, err
	}
	h, err := n.Open(t.Context(), mode)
	if err == nil {
		t.Cleanup(func() { h.Close(context.Background()) })
	}
	return h, err
}

func read(t *testing.T, tr *Tree, user, aname string) (string, error) {
	t.Helper()
	h, err := open(t, tr, user, aname, ninep.OREAD)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.NewSectionReader(readerAt{h.(ninep.Reader)}, 0, 1<<20))
	return string(b), err
}

type readerAt struct{ r ninep.Reader }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.r.ReadAt(context.Background(), p, off)
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)):
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}

// someUsers are ken and rob, of whom ken leads the group that both are in, a
// guest of noworld, and what the default table has.
func someUsers(t *testing.T, more string) *users.Table {
	t.Helper()
	u, problems, err := users.Parse([]byte(`adm:adm:adm:sys
none:none::
noworld:noworld::guest
sys:sys::glenda
glenda:glenda:glenda:
k1:ken::
r1:rob::
guest:guest::
unix:unix:ken:ken,rob
` + more))
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	return u
}

func TestAttach(t *testing.T) {
	c := newClock()
	tr, f := newTree(t, Config{Now: c.Now})
	snapshot(t, f, fossil.SnapConfig{Archive: true})
	for aname, want := range map[string]string{
		"": "tmp", "main": "active archive snapshot", "main/": "active archive snapshot", "/": "active archive snapshot",
		"main/active": "tmp", "/active/tmp": "", "main/archive/2026": "1127", "main/archive/2026/1127": "tmp",
		"other": "! fsys: 'other' not found", "other/active": "! fsys: 'other' not found",
		"main/nothing": "! file does not exist", "main/archive/../active": "! file does not exist",
	} {
		n, err := tr.Attach(t.Context(), "glenda", aname)
		if wrong, ok := strings.CutPrefix(want, "! "); ok {
			wantError(t, "attach "+aname, err, wrong)
			continue
		}
		if err != nil {
			t.Errorf("attach %q: %v", aname, err)
			continue
		}
		if got := strings.Join(slices.Sorted(maps.Keys(list(t, n))), " "); got != want {
			t.Errorf("attach %q shows %q, want %q", aname, got, want)
		}
	}
}

// list returns what is in a directory.
func list(t *testing.T, n ninep.Node) map[string]ninep.Dir {
	t.Helper()
	h, err := n.Open(t.Context(), ninep.OREAD)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	found := map[string]ninep.Dir{}
	for d, err := range h.(ninep.DirReader).ReadDir(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		found[d.Name] = d
	}
	return found
}

// TestNoWayOut walks up from where a client is attached.
func TestNoWayOut(t *testing.T) {
	tr, _ := newTree(t, Config{})
	for _, d := range []ninep.Dialect{ninep.Classic, ninep.Linux} {
		root := ninetest.Dial(t, tr, d, "glenda", "main/active")
		up, err := root.Walk(t.Context(), "..", "..", "tmp", "..")
		if err != nil {
			t.Fatal(err)
		}
		if up.Qid().Path != root.Qid().Path {
			t.Errorf("%v: from %v the way up leads to %v", d, root.Qid(), up.Qid())
		}
		if _, err := root.Walk(t.Context(), "..", "archive"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: walk ../archive: %v", d, err)
		}
		up.Close(t.Context())
	}
}

func TestPermissions(t *testing.T) {
	tr, _ := newTree(t, Config{})
	tr.SetUsers(someUsers(t, ""))
	dir := func(name string, perm ninep.Mode, user string) {
		write(t, tr, user, "main/active/tmp", name, ninep.ModeDir|perm, "")
	}
	dir("kens", 0o755, "ken")
	write(t, tr, "ken", "main/active/tmp", "owned", 0o640, "secret")
	write(t, tr, "ken", "main/active/tmp/kens", "public", 0o644, "hello")
	write(t, tr, "none", "main/active/tmp", "anybodys", 0o666, "mine")
	for name, d := range list(t, attach(t, tr, "ken", "/active/tmp")) {
		if name == "anybodys" && (d.UID != "none" || d.GID != "adm") || name == "owned" && (d.UID != "ken" || d.Muid != "ken") {
			t.Errorf("%s is %s's and %s's, and was changed by %s", name, d.UID, d.GID, d.Muid)
		}
	}
	chgrp(t, tr, "ken", "/active/tmp/owned", "unix")
	for _, tc := range []struct {
		user, path string
		mode       ninep.OpenMode
		err        string
	}{
		{"ken", "owned", ninep.ORDWR, ""},
		{"rob", "owned", ninep.OREAD, ""}, // as a member of unix
		{"rob", "owned", ninep.OWRITE, "permission denied"},
		{"rob", "owned", ninep.OREAD | ninep.OTRUNC, "permission denied"},
		{"glenda", "owned", ninep.OREAD, "permission denied"},
		{"stranger", "owned", ninep.OREAD, "permission denied"},
		{"none", "owned", ninep.OREAD, "permission denied"},
		{"stranger", "kens/public", ninep.OREAD, ""},
		{"ken", "kens/public", ninep.OEXEC, "permission denied"},
		{"guest", "kens/public", ninep.OREAD, "permission denied"}, // of noworld: not as one of all others
		{"guest", "kens", ninep.OREAD, "permission denied"},
		{"none", "anybodys", ninep.ORDWR, ""},
		{"rob", "anybodys", ninep.ORDWR, ""},
	} {
		_, err := open(t, tr, tc.user, "/active/tmp/"+tc.path, tc.mode)
		wantError(t, fmt.Sprintf("%s opens %s for %#x", tc.user, tc.path, tc.mode), err, tc.err)
	}
	for _, tc := range []struct{ user, dir, err string }{
		{"ken", "kens", ""}, {"rob", "kens", "permission denied"}, {"none", "kens", "permission denied"},
		{"stranger", "", ""}, {"noworld", "", "permission denied"},
	} {
		_, h, err := create(t, tr, tc.user, "/active/tmp/"+tc.dir, "new "+tc.user, 0o644, ninep.OREAD)
		if err == nil {
			h.Close(t.Context())
		}
		wantError(t, tc.user+" creates a file in "+tc.dir, err, tc.err)
	}
}

func chgrp(t *testing.T, tr *Tree, user, aname, group string) {
	t.Helper()
	if err := attach(t, tr, user, aname).(ninep.Wstater).Wstat(t.Context(), ninep.Change{GID: &group}); err != nil {
		t.Fatal(err)
	}
}

// TestCreate looks at the modes of what is made, and at names.
func TestCreate(t *testing.T) {
	tr, _ := newTree(t, Config{})
	write(t, tr, "glenda", "/active/tmp", "d", ninep.ModeDir|0o750, "")
	for _, tc := range []struct{ perm, want ninep.Mode }{
		{0o777, 0o751}, // execution is not the directory's affair
		{0o666, 0o640},
		{ninep.ModeDir | 0o777, ninep.ModeDir | 0o750},
		{ninep.ModeAppend | ninep.ModeTmp | 0o600, ninep.ModeAppend | ninep.ModeTmp | 0o600},
		{ninep.ModeExcl | ninep.ModeSetuid | 0o700, ninep.ModeExcl | ninep.ModeSetuid | 0o700},
	} {
		name := fmt.Sprintf("%#o", tc.perm)
		write(t, tr, "glenda", "/active/tmp/d", name, tc.perm, "")
		d, err := attach(t, tr, "glenda", "/active/tmp/d/"+name).Stat(t.Context())
		if err != nil || d.Mode != tc.want || d.Qid.Type != tc.want.QidType() {
			t.Errorf("with %#o: %#o, qid %v, %v, want %#o", tc.perm, d.Mode, d.Qid, err, tc.want)
		}
	}
	for name, want := range map[string]string{
		"tab\tin it": "bad character in file name", "\n": "bad character in file name", "d": "file already exists",
		"\xff\xfe": "", "  ": "", strings.Repeat("long", 200): "",
	} {
		_, h, err := create(t, tr, "glenda", "/active/tmp", name, 0o644, ninep.OREAD)
		if err == nil {
			h.Close(t.Context())
		}
		wantError(t, fmt.Sprintf("create %.20q", name), err, want)
	}
}

func TestWstat(t *testing.T) {
	tr, _ := newTree(t, Config{})
	tr.SetUsers(someUsers(t, ""))
	write(t, tr, "ken", "/active/tmp", "unixs", 0o664, "text")
	chgrp(t, tr, "ken", "/active/tmp/unixs", "unix")
	write(t, tr, "rob", "/active/tmp", "robs", 0o644, "text")
	chgrp(t, tr, "rob", "/active/tmp/robs", "unix")
	write(t, tr, "ken", "/active/tmp", "log", ninep.ModeAppend|0o644, "line\n")
	write(t, tr, "ken", "/active/tmp", "kens", ninep.ModeDir|0o755, "")
	write(t, tr, "ken", "/active/tmp/kens", "f", 0o644, "text")
	mode, open, zero := ninep.Mode(0o600), ninep.Mode(0o644), int64(0)
	when := time.Unix(1e9, 0)
	str := func(s string) *string { return &s }
	for _, tc := range []struct {
		user, path string
		c          ninep.Change
		err        string
	}{
		{"none", "unixs", ninep.Change{Mode: &mode}, "permission denied"},
		{"rob", "unixs", ninep.Change{Mode: &mode}, "not owner or group leader"},
		{"rob", "unixs", ninep.Change{Mtime: &when}, "not owner or group leader"},
		{"rob", "unixs", ninep.Change{Length: &zero}, ""}, // may write it
		{"glenda", "unixs", ninep.Change{Length: &zero}, "not owner or group leader"},
		{"ken", "robs", ninep.Change{Mode: &mode}, ""}, // leads unix
		{"rob", "robs", ninep.Change{Mtime: &when, Mode: &open}, ""},
		{"rob", "robs", ninep.Change{GID: str("rob")}, ""},
		{"rob", "robs", ninep.Change{GID: str("ken")}, "not owner and not group leaders"},
		{"rob", "robs", ninep.Change{GID: str("nobody")}, "unknown gid"},
		{"ken", "unixs", ninep.Change{UID: str("rob")}, "not owner"},
		{"ken", "unixs", ninep.Change{UID: str("ken")}, ""}, // who it is already
		{"ken", "unixs", ninep.Change{UID: str("nobody")}, "unknown uid"},
		{"ken", "log", ninep.Change{Length: &zero}, "length of append-only file"},
		{"ken", "log", ninep.Change{Length: &zero, Mode: &open}, ""},
		{"rob", "kens/f", ninep.Change{Name: str("g")}, "permission denied"},
		{"ken", "kens/f", ninep.Change{Name: str("a\tb")}, "bad character in file name"},
		{"ken", "kens/f", ninep.Change{Name: str("g")}, ""},
		{"stranger", "kens", ninep.Change{Name: str("mine")}, ""}, // in a directory that all may write
	} {
		err := attach(t, tr, tc.user, "/active/tmp/"+tc.path).(ninep.Wstater).Wstat(t.Context(), tc.c)
		wantError(t, fmt.Sprintf("%s: %s %+v", tc.user, tc.path, tc.c), err, tc.err)
	}
	d, err := attach(t, tr, "rob", "/active/tmp/robs").Stat(t.Context())
	if err != nil || d.Mode != 0o644 || d.GID != "rob" || !d.Mtime.Equal(when) {
		t.Errorf("afterwards: %+v, %v", d, err)
	}

	// With AnyWstat whoever may change anything may change this too, but not
	// give a file to noworld.
	any := New(tr.fs, Config{AnyWstat: true})
	any.SetUsers(tr.Users())
	for uid, want := range map[string]string{"rob": "", "noworld": "not owner"} {
		err := attach(t, any, "glenda", "/active/tmp/unixs").(ninep.Wstater).Wstat(t.Context(), ninep.Change{UID: &uid})
		wantError(t, "AnyWstat: give it to "+uid, err, want)
	}
}

// TestWriteGroup has a group write, outside of which the file system is one
// to be read only.
func TestWriteGroup(t *testing.T) {
	tr, _ := newTree(t, Config{})
	write(t, tr, "glenda", "/active/tmp", "f", 0o666, "text")
	tr.SetUsers(someUsers(t, "write:write::ken\n"))
	mode := ninep.Mode(0o600)
	for user, want := range map[string]string{"ken": "", "glenda": "read-only filesystem"} {
		_, err := open(t, tr, user, "/active/tmp/f", ninep.OWRITE)
		wantError(t, user+" writes", err, want)
		_, h, err := create(t, tr, user, "/active/tmp", "new", 0o600, ninep.OREAD)
		if err == nil {
			h.Close(t.Context())
		}
		wantError(t, user+" creates", err, want)
		if user == "glenda" {
			n := attach(t, tr, user, "/active/tmp/f")
			wantError(t, "wstat", n.(ninep.Wstater).Wstat(t.Context(), ninep.Change{Mode: &mode}), want)
			wantError(t, "remove", n.(ninep.Remover).Remove(t.Context()), want)
		}
	}
	if got, err := read(t, tr, "glenda", "/active/tmp/f"); err != nil || got != "text" {
		t.Errorf("read: %q, %v", got, err)
	}
}

func TestNoPermissions(t *testing.T) {
	tr, _ := newTree(t, Config{NoPermissions: true})
	write(t, tr, "none", "/active", "f", 0, "text")
	if got, err := read(t, tr, "stranger", "/active/f"); err != nil || got != "text" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestExclusive has a file that is for one at a time.
func TestExclusive(t *testing.T) {
	c := newClock()
	tr, f := newTree(t, Config{Now: c.Now})
	write(t, tr, "glenda", "/active/tmp", "L", ninep.ModeExcl|0o666, "text")
	first, err := open(t, tr, "glenda", "/active/tmp/L", ninep.ORDWR)
	if err != nil {
		t.Fatal(err)
	}
	use := func(h ninep.Handle) error {
		_, err := h.(ninep.Writer).WriteAt(t.Context(), []byte("x"), 0)
		if _, rerr := h.(ninep.Reader).ReadAt(t.Context(), make([]byte, 1), 0); (rerr == nil) != (err == nil) {
			t.Errorf("writing: %v, reading: %v", err, rerr)
		}
		return err
	}
	_, err = open(t, tr, "glenda", "/active/tmp/L", ninep.OREAD)
	wantError(t, "open it twice", err, "exclusive use file already open")
	c.now = c.now.Add(leaseTime - time.Second)
	wantError(t, "use it in time", use(first), "")
	c.now = c.now.Add(leaseTime - time.Second)
	_, err = open(t, tr, "glenda", "/active/tmp/L", ninep.OREAD)
	wantError(t, "open it before its time is over", err, "exclusive use file already open")
	c.now = c.now.Add(2 * time.Second)
	wantError(t, "use it late", use(first), "") // nobody else wanted it
	c.now = c.now.Add(leaseTime)
	second, err := open(t, tr, "glenda", "/active/tmp/L", ninep.ORDWR)
	wantError(t, "open it after its time", err, "")
	wantError(t, "use it when another has it", use(first), "exclusive lock broken")
	first.Close(t.Context())
	wantError(t, "use it after the first has closed it", use(second), "")
	second.Close(t.Context())
	third, err := open(t, tr, "glenda", "/active/tmp/L", ninep.OREAD)
	wantError(t, "open it when it was closed", err, "")
	// A snapshot's is nobody's.
	path := snapshot(t, f, fossil.SnapConfig{})
	for range 2 {
		_, err := open(t, tr, "glenda", path+"/tmp/L", ninep.OREAD)
		wantError(t, "open it in a snapshot", err, "")
	}
	third.Close(t.Context())
}

func TestAppend(t *testing.T) {
	tr, _ := newTree(t, Config{})
	write(t, tr, "glenda", "/active/tmp", "log", ninep.ModeAppend|0o666, "one ")
	write(t, tr, "glenda", "/active/tmp", "f", 0o666, "one ")
	for path, mode := range map[string]ninep.OpenMode{"log": ninep.OWRITE | ninep.OTRUNC, "f": ninep.OWRITE | ninep.OAPPEND} {
		var hs []ninep.Handle
		for range 2 {
			h, err := open(t, tr, "glenda", "/active/tmp/"+path, mode)
			if err != nil {
				t.Fatal(err)
			}
			hs = append(hs, h)
		}
		for i, text := range []string{"two ", "three ", "four"} {
			if _, err := hs[i%2].(ninep.Writer).WriteAt(t.Context(), []byte(text), 0); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := read(t, tr, "glenda", "/active/tmp/"+path); err != nil || got != "one two three four" {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

func TestSymlink(t *testing.T) {
	tr, f := newTree(t, Config{})
	dir := attach(t, tr, "glenda", "/active/tmp")
	target := strings.Repeat("../x", 1000)
	n, err := dir.(ninep.Symlinker).Symlink(t.Context(), "link", target)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := n.Stat(t.Context()); err != nil || d.Target != target || d.Mode != ninep.ModeSymlink|0o777 || d.Qid.Type != ninep.QTSymlink {
		t.Errorf("%+v, %v", d, err)
	}
	path := snapshot(t, f, fossil.SnapConfig{})
	if d, err := attach(t, tr, "glenda", path+"/tmp/link").Stat(t.Context()); err != nil || d.Target != target {
		t.Errorf("in a snapshot: %+v, %v", d, err)
	}
	_, err = dir.(ninep.Symlinker).Symlink(t.Context(), "long", strings.Repeat("x", maxTarget+1))
	wantError(t, "a long target", err, "too long")
}

// TestSnapshotQids has a file in the active tree and in two snapshots of it,
// one of which is in the other.
func TestSnapshotQids(t *testing.T) {
	tr, f := newTree(t, Config{})
	write(t, tr, "glenda", "/active/tmp", "f", 0o644, "text")
	first := snapshot(t, f, fossil.SnapConfig{})
	second := snapshot(t, f, fossil.SnapConfig{Source: "/snapshot", Path: "/snapshot/outer"})
	inner := second + strings.TrimPrefix(first, "/snapshot")
	seen := map[uint64]string{}
	for _, path := range []string{"/active/tmp/f", first + "/tmp/f", inner + "/tmp/f"} {
		n := attach(t, tr, "glenda", path)
		d, err := n.Stat(t.Context())
		if err != nil || d.Qid != n.Qid() {
			t.Fatalf("%s: qid %v, or %v, %v", path, n.Qid(), d.Qid, err)
		}
		if other := seen[d.Qid.Path]; other != "" {
			t.Errorf("%s and %s have one qid %v", path, other, d.Qid)
		}
		seen[d.Qid.Path] = path
		// The same by whichever way.
		root := ninetest.Dial(t, tr, ninep.Linux, "glenda", "main")
		w, err := root.Walk(t.Context(), strings.Split(path[1:], "/")...)
		if err != nil || w.Qid() != d.Qid {
			t.Errorf("%s: from the root its qid is %v, %v, and not %v", path, w.Qid(), err, d.Qid)
		}
		w.Close(t.Context())
	}
	// What a snapshot has cannot be changed.
	n := attach(t, tr, "glenda", first+"/tmp/f")
	_, err := n.Open(t.Context(), ninep.OWRITE)
	wantError(t, "write in a snapshot", err, "file is read only")
	wantError(t, "remove in a snapshot", n.(ninep.Remover).Remove(t.Context()), "file is read only")
	_, _, err = attach(t, tr, "glenda", first+"/tmp").(ninep.Creator).Create(t.Context(), "g", 0o644, ninep.OREAD)
	wantError(t, "create in a snapshot", err, "file is read only")
}

// TestListing reads a directory piece by piece while it changes: what stays is
// seen once.
func TestListing(t *testing.T) {
	tr, _ := newTree(t, Config{})
	const files = 400
	for i := range files {
		write(t, tr, "glenda", "/active/tmp", fmt.Sprintf("%03d", i), 0o644, "")
	}
	n := attach(t, tr, "glenda", "/active/tmp")
	h, err := n.Open(t.Context(), ninep.OREAD)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	seen := map[string]int{}
	cookie, removed := uint64(0), 0
	for {
		var got []ninep.Dir
		for d, err := range h.(ninep.DirReader).ReadDir(t.Context(), cookie) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, d); len(got) == 7 {
				break
			}
		}
		if len(got) == 0 {
			break
		}
		for _, d := range got {
			seen[d.Name]++
		}
		cookie = got[len(got)-1].Cookie
		// Remove one that was seen, and make one.
		victim := attach(t, tr, "glenda", "/active/tmp/"+got[0].Name)
		if err := victim.(ninep.Remover).Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		removed++
		write(t, tr, "glenda", "/active/tmp", fmt.Sprintf("new %d", removed), 0o644, "")
	}
	for i := range files {
		if name := fmt.Sprintf("%03d", i); seen[name] != 1 {
			t.Errorf("%s was seen %d times", name, seen[name])
		}
	}
}

// TestRemovedWhileOpen removes an open file. Plan 9's clients lose it, Unix's
// keep it until they close it.
func TestRemovedWhileOpen(t *testing.T) {
	for _, d := range []ninep.Dialect{ninep.Classic, ninep.Unix, ninep.Linux} {
		t.Run(d.String(), func(t *testing.T) {
			ctx := t.Context()
			tr, f := newTree(t, Config{})
			client := ninep.NewServer(tr, ninep.Config{}).Local(ninep.ClientConfig{Dialect: d})
			defer client.Close()
			root, err := client.Attach(ctx, "glenda", "main/active/tmp")
			if err != nil {
				t.Fatal(err)
			}
			h, err := root.Walk(ctx)
			if err == nil {
				err = h.Create(ctx, "f", 0o666, ninep.ORDWR)
			}
			if err == nil {
				_, err = h.WriteAt(ctx, []byte("text"), 0)
			}
			if err == nil {
				err = root.RemoveName(ctx, "f", false)
			}
			if err != nil {
				t.Fatal(err)
			}
			var want error
			kept := 0
			if d == ninep.Classic {
				want = ninep.ErrRemoved
			} else {
				kept = 1
			}
			b := make([]byte, 10)
			n, err := h.ReadAt(ctx, b, 0)
			if err == io.EOF {
				err = nil
			}
			if !errors.Is(err, want) || want == nil && string(b[:n]) != "text" {
				t.Errorf("read %q, %v, want error %v", b[:n], err, want)
			}
			if _, err = h.WriteAt(ctx, []byte("more"), 4); !errors.Is(err, want) {
				t.Errorf("write: %v, want %v", err, want)
			}
			unnamed := func() (n int) {
				for info := range f.Root().List(ctx) {
					if strings.HasPrefix(info.Name, ".removed") {
						dir, err := f.Walk(ctx, "/"+info.Name)
						if err != nil {
							t.Fatal(err)
						}
						for range dir.List(ctx) {
							n++
						}
					}
				}
				return n
			}
			if n := unnamed(); n != kept {
				t.Errorf("%d files without a name are kept, want %d", n, kept)
			}
			if err := h.Close(ctx); err != nil {
				t.Error(err)
			}
			if n := unnamed(); n != 0 {
				t.Errorf("%d files without a name are left", n)
			}
		})
	}
}

// TestCreateMode makes files in a directory whose mode says less. Unix's clients
// have masked it already.
func TestCreateMode(t *testing.T) {
	tr, _ := newTree(t, Config{})
	for d, want := range map[ninep.Dialect]ninep.Mode{ninep.Classic: 0o640, ninep.Unix: 0o664, ninep.Linux: 0o664} {
		client := ninep.NewServer(tr, ninep.Config{}).Local(ninep.ClientConfig{Dialect: d})
		defer client.Close()
		root, err := client.Attach(t.Context(), "glenda", "main/active/tmp")
		if err == nil {
			err = root.Mkdir(t.Context(), d.String(), 0o750)
		}
		if err != nil {
			t.Fatal(err)
		}
		f, err := root.Walk(t.Context(), d.String())
		if err == nil {
			err = f.Create(t.Context(), "f", 0o664, ninep.OREAD)
		}
		if err != nil {
			t.Fatal(err)
		}
		a, _, err := f.Attr(t.Context())
		if err != nil || ninep.Mode(a.Mode&0o777) != want {
			t.Errorf("%v: mode %o, %v, want %o", d, a.Mode, err, want)
		}
		f.Close(t.Context())
	}
}

// TestLend reads without waiting what is in memory, and only that.
func TestLend(t *testing.T) {
	tr, _ := newTree(t, Config{})
	text := strings.Repeat("0123456789abcdef", 20000)
	write(t, tr, "glenda", "/active/tmp", "f", 0o644, text)
	h, err := open(t, tr, "glenda", "/active/tmp/f", ninep.ORDWR)
	if err != nil {
		t.Fatal(err)
	}
	lend := func(n int, off int64) (string, bool) {
		bufs, done, ok := h.(ninep.Lender).Lend(nil, n, off)
		if done != nil {
			t.Error("the bytes are to be given back")
		}
		return string(bytes.Join(bufs, nil)), ok
	}
	for _, c := range []struct{ off, n, want int }{{0, 10, 10}, {5000, 200000, 200000}, {len(text) - 5, 100, 5}, {len(text), 10, 0}, {len(text) + 9000, 10, 0}} {
		want := ""
		if c.want > 0 {
			want = text[c.off:][:c.want]
		}
		if got, ok := lend(c.n, int64(c.off)); !ok || got != want {
			t.Errorf("lend %d at %d: %d bytes, %t", c.n, c.off, len(got), ok)
		}
		b := make([]byte, c.n)
		if n, ok := h.(ninep.CachedReader).ReadCached(b, int64(c.off)); !ok || string(b[:n]) != want {
			t.Errorf("read %d at %d: %d bytes, %t", c.n, c.off, n, ok)
		}
	}
	// What is lent stays as it is.
	bufs, _, _ := h.(ninep.Lender).Lend(nil, 100, 0)
	if _, err := h.(ninep.Writer).WriteAt(t.Context(), []byte("other"), 0); err != nil {
		t.Fatal(err)
	}
	if got := string(bytes.Join(bufs, nil)); got != text[:100] {
		t.Errorf("the bytes that were lent are %q now", got)
	}
	if got, ok := lend(8, 0); !ok || got != "other567" {
		t.Errorf("after a write: %q, %t", got, ok)
	}
	if err := tr.Halt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := lend(8, 0); ok {
		t.Error("lent by a file system that is halted")
	}
	tr.Unhalt()
	if err := attach(t, tr, "glenda", "/active/tmp/f").(ninep.Remover).Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := lend(8, 0); ok {
		t.Error("lent of what was removed")
	}
}
