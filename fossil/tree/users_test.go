package tree

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"strata/fossil"
	"strata/fossil/internal/users"
	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/vac"
	"strata/venti"
	"strata/venti/ventitest"
)

// rewrite gives the file of users other contents.
func rewrite(t *testing.T, f *fossil.FS, text string) {
	t.Helper()
	u, err := f.Walk(t.Context(), UsersFile)
	if err == nil {
		err = u.Replace(t.Context(), []byte(text), "adm")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, f *fossil.FS, path string) string {
	t.Helper()
	u, err := f.Walk(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100<<10)
	n, err := u.ReadAt(t.Context(), b, 0)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// TestUsersFile edits the table of a file system, and opens it again.
func TestUsersFile(t *testing.T) {
	ctx := t.Context()
	tr, f := newTree(t, Config{})
	load := func(tr *Tree) (string, error) {
		problems, err := tr.LoadUsers(ctx)
		text := ""
		for _, p := range problems {
			text += p.Error() + "\n"
		}
		return text, err
	}
	if problems, err := load(tr); problems != "" || err != nil || tr.Users().ByName("glenda") == nil {
		t.Errorf("without a file: %q, %v", problems, err)
	}
	if _, err := f.Walk(ctx, "/active/adm"); !errors.Is(err, ninep.ErrNotExist) {
		t.Errorf("loading makes a directory: %v", err)
	}
	if err := tr.AddUser(ctx, "ken", "kt", false); err != nil {
		t.Fatal(err)
	}
	if err := tr.AddUser(ctx, "rob", "rob", true); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/active/adm": "adm adm", "/active/usr": "adm adm", "/active/usr/ken": "kt kt"} {
		d, err := f.Walk(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		if e := d.DirEntry(); e.UID+" "+e.GID != want || e.Mode&0o777 != 0o775 {
			t.Errorf("%s: %+v", path, e)
		}
	}
	if _, err := f.Walk(ctx, "/active/usr/rob"); !errors.Is(err, ninep.ErrNotExist) {
		t.Errorf("home that was not to be: %v", err)
	}
	if err := tr.EditUsers(ctx, func(u *users.Table) (*users.Table, error) { return u.Edit("sys", "+ken") }); err != nil {
		t.Fatal(err)
	}
	if err := tr.EditUsers(ctx, func(u *users.Table) (*users.Table, error) { return u.Edit("sys", "+nobody") }); err == nil {
		t.Error("a member who is nobody")
	}
	again := New(f, Config{})
	if problems, err := load(again); problems != "" || err != nil || !again.Users().Member("sys", "ken") || again.Users().Name("kt") != "ken" {
		t.Errorf("again: %q, %v\n%s", problems, err, again.Users().Text())
	}
	if text := contents(t, f, UsersFile); text != string(tr.Users().Text()) {
		t.Errorf("the file has\n%s", text)
	}

	// Lines that make no sense are left out; a table without adm is no table.
	rewrite(t, f, string(users.Default().Text())+"what is this\nken:ken::nobody\n")
	if problems, err := load(tr); err != nil || strings.Count(problems, "\n") != 2 || tr.Users().ByName("ken") == nil {
		t.Errorf("bad lines: %q, %v", problems, err)
	}
	rewrite(t, f, "ken:ken::\n")
	if _, err := load(tr); err == nil || !strings.Contains(err.Error(), "mandatory") || tr.Users().ByName("adm") == nil {
		t.Errorf("no adm: %v\n%s", err, tr.Users().Text())
	}
	if _, err := tr.ReadUsers(ctx, "/active/none"); !errors.Is(err, ninep.ErrNotExist) {
		t.Errorf("another file, which there is not: %v", err)
	}
	// With a directory in its place, nothing changes.
	u, err := f.Walk(ctx, UsersFile)
	if err == nil {
		err = u.Remove(ctx, "adm")
	}
	if err != nil {
		t.Fatal(err)
	}
	adm, err := f.Walk(ctx, "/active/adm")
	if err == nil {
		_, err = adm.Create(ctx, "users", 0o775|1<<15, "adm")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.AddUser(ctx, "bob", "bob", true); err == nil || tr.Users().ByName("bob") != nil {
		t.Errorf("a user who is not in the file: %v", err)
	}
}

// TestScore reads the score of an archive as an attribute of its directory.
func TestScore(t *testing.T) {
	st := ventitest.NewMemory()
	d := disk.NewMachine().NewDisk("part", 16<<20)
	if err := fossil.Format(t.Context(), d, fossil.FormatConfig{}); err != nil {
		t.Fatal(err)
	}
	f, err := fossil.Open(d, fossil.Config{Interval: time.Hour, Venti: st, NoArchiver: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(context.Background())
	tr := New(f, Config{NoPermissions: true})
	write(t, tr, "glenda", "main/active", "f", 0o644, "text")
	path := snapshot(t, f, fossil.SnapConfig{Archive: true})
	n := attach(t, tr, "glenda", path).(ninep.Xattrer)
	if names, err := n.Xattrs(t.Context()); len(names) != 0 || err != nil {
		t.Errorf("before it is archived: %q, %v", names, err)
	}
	if v, err := n.Xattr(t.Context(), scoreXattr); !errors.Is(err, ninep.ErrNoXattr) {
		t.Errorf("before it is archived: %q, %v", v, err)
	}
	if _, err := f.Archive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names, err := n.Xattrs(t.Context()); len(names) != 1 || names[0] != scoreXattr || err != nil {
		t.Errorf("names %q, %v", names, err)
	}
	v, err := n.Xattr(t.Context(), scoreXattr)
	if err != nil {
		t.Fatal(err)
	}
	s, err := venti.ParseScore(strings.TrimPrefix(string(v), "vac:"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := vac.Open(t.Context(), st, s)
	if err != nil {
		t.Fatal(err)
	}
	if file, err := a.Root.Walk(t.Context(), "f"); err != nil || file.Size() != 4 {
		t.Errorf("the archive has %v, %v", file, err)
	}
	wantError(t, "set", n.SetXattr(t.Context(), scoreXattr, v, 0), "not supported")
}
