package ninep_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"9fans.net/go/plan9"
	"9fans.net/go/plan9/client"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"strata/internal/ninep"
)

// pattern returns n bytes of which no part is like another.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// Test9fansClientWorks has 9fans.net/go's client for 9P2000 make, read, change and
// remove files.
func Test9fansClientWorks(t *testing.T) {
	conn, err := client.NewConn(serve(t, newMemFS(), ninep.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Auth("glenda", ""); err == nil || err.Error() != "authentication not required" {
		t.Errorf("Auth: %v", err)
	}
	fs, err := conn.Attach(nil, "glenda", "")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := fs.Create("usr", plan9.OREAD, plan9.DMDIR|0755)
	if err != nil {
		t.Fatal(err)
	}
	dir.Close()
	want := pattern(1 << 20)
	f, err := fs.Create("usr/f", plan9.ORDWR, 0644)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.Write(want); n != len(want) || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("ReadAll: %d bytes, %v", len(got), err)
	}
	f.Close()

	var d plan9.Dir
	d.Null()
	d.Name, d.Length, d.Mode = "g", 10, plan9.DMAPPEND|0600
	if err := fs.Wstat("usr/f", &d); err != nil {
		t.Fatal(err)
	}
	s, err := fs.Stat("usr/g")
	if err != nil || s.Length != 10 || s.Mode != plan9.DMAPPEND|0600 || s.Uid != "glenda" || s.Qid.Type != plan9.QTAPPEND {
		t.Errorf("Stat: %v, %v", s, err)
	}
	for _, name := range []string{"a", "b", "c"} {
		f, err := fs.Create("usr/"+name, plan9.OREAD, 0644)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	dir, err = fs.Open("usr", plan9.OREAD)
	if err != nil {
		t.Fatal(err)
	}
	list, err := dir.Dirreadall()
	var names []string
	for _, d := range list {
		names = append(names, d.Name)
	}
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"a", "b", "c", "g"}) {
		t.Errorf("Dirreadall: %v, %v", names, err)
	}
	dir.Close()
	if err := fs.Remove("usr"); err == nil || err.Error() != "directory is not empty" {
		t.Errorf("Remove of a full directory: %v", err)
	}
	if err := fs.Remove("usr/a"); err != nil {
		t.Error(err)
	}
	if _, err := fs.Open("usr/a", plan9.OREAD); err == nil {
		t.Error("what was removed can be opened")
	}
}

// TestP9ClientWorksButForLock has hugelgupf/p9's client for 9P2000.L do the same, and what
// else that dialect has.
func TestP9ClientWorksButForLock(t *testing.T) {
	users := ninep.NewUsers(map[string]uint32{"adm": 5, "glenda": 1000})
	c, err := p9.NewClient(serve(t, newMemFS(), ninep.Config{Users: users}), p9.WithMessageSize(256<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	root, err := c.Attach("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Mkdir("usr", 0755, p9.NoUID, p9.NoGID); err != nil {
		t.Fatal(err)
	}
	_, usr, err := root.Walk([]string{"usr"})
	if err != nil {
		t.Fatal(err)
	}
	_, clone, err := usr.Walk(nil)
	if err != nil {
		t.Fatal(err)
	}
	f, _, _, err := clone.Create("f", p9.ReadWrite, 0644, p9.NoUID, p9.NoGID)
	if err != nil {
		t.Fatal(err)
	}
	want := pattern(1 << 20)
	if n, err := f.WriteAt(want, 0); n != len(want) || err != nil {
		t.Fatalf("WriteAt: %d, %v", n, err)
	}
	got := make([]byte, len(want)+10)
	if n, err := f.ReadAt(got, 0); n != len(want) || err != nil && err != io.EOF || !bytes.Equal(got[:n], want) {
		t.Fatalf("ReadAt: %d, %v", n, err)
	}
	if err := f.FSync(); err != nil {
		t.Error(err)
	}
	if err := f.SetAttr(p9.SetAttrMask{Size: true, Permissions: true, GID: true}, p9.SetAttr{Size: 7, Permissions: 0600, GID: 1000}); err != nil {
		t.Error(err)
	}
	_, _, attr, err := f.GetAttr(p9.AttrMaskAll)
	if err != nil || attr.Size != 7 || attr.Mode != 0100600 || attr.GID != 1000 {
		t.Errorf("GetAttr: %+v, %v", attr, err)
	}
	// This client's Lock names fid 0 whatever the file.
	if _, err := f.Lock(1, p9.WriteLock, 0, 0, 10, "here"); !errors.Is(err, linux.EBADF) {
		t.Errorf("Lock: %v", err)
	}
	f.Close()

	if _, err := usr.Symlink("f", "s", p9.NoUID, p9.NoGID); err != nil {
		t.Error(err)
	}
	_, s, err := usr.Walk([]string{"s"})
	if err != nil {
		t.Fatal(err)
	}
	if target, err := s.Readlink(); target != "f" || err != nil {
		t.Errorf("Readlink: %q, %v", target, err)
	}
	s.Close()
	if err := usr.RenameAt("f", root, "g"); err != nil {
		t.Error(err)
	}
	_, g, err := root.Walk([]string{"g"})
	if err != nil {
		t.Fatal(err)
	}
	if err := usr.Link(g, "again"); err != nil {
		t.Error(err)
	}
	g.Close()
	if st, err := root.StatFS(); err != nil || st.Blocks != 1000 {
		t.Errorf("StatFS: %+v, %v", st, err)
	}
	if err := root.UnlinkAt("usr", 0x200); !errors.Is(err, linux.ENOTEMPTY) {
		t.Errorf("UnlinkAt of a full directory: %v", err)
	}
	_, dir, err := usr.Walk(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := dir.Open(p9.ReadOnly); err != nil {
		t.Fatal(err)
	}
	list, err := dir.Readdir(0, 1<<16)
	var names []string
	for _, d := range list {
		names = append(names, d.Name)
	}
	if !slices.Equal(names, []string{".", "..", "s", "again"}) || err != nil {
		t.Errorf("Readdir: %q, %v", names, err)
	}
	dir.Close()
	usr.Close()
	root.Close()
}
