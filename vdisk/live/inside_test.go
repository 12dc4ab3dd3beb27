package live_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
)

// TestInside looks at the files in a live disk, while it changes, and in its
// snapshots.
func TestInside(t *testing.T) {
	d := newRaw(t, "1024")
	put := func(name string, b []byte) {
		t.Helper()
		f := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(f, b, 0o644); err != nil {
			t.Fatal(err)
		}
		d.debugfs("rm "+name, "write "+f+" "+name)
	}
	d.debugfs("mkdir etc", "symlink etc/link passwd")
	one, two, big := []byte("root\n"), []byte("root\nken\n"), random(1, 300000)
	put("etc/passwd", one)
	put("big", big)
	m := newMachine(t, 128<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "web/01", 16<<20))
	d.follow(m, "web/01")
	root := ninetest.Dial(t, m.tree(), ninep.Linux, "glenda", "")
	g := guest{t, root}
	same := func(path string, want []byte) {
		t.Helper()
		if got, err := g.read(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v, want %d", path, len(got), err, len(want))
		}
	}
	const live = "images/web/01/parts/1/fs"
	if got := g.names("images/web/01/parts/1"); !slices.Equal(got, []string{"data", "fs", "info", "type"}) {
		t.Errorf("parts/1: %q", got)
	}
	if got := g.names("images/web/01/parts/2"); slices.Contains(got, "fs") {
		t.Errorf("swap: %q", got)
	}
	if got := g.names(live); !slices.Equal(got, []string{"big", "etc", "lost+found"}) {
		t.Errorf("fs: %q", got)
	}
	same(live+"/etc/passwd", one)
	same(live+"/big", big)
	if _, err := g.read(live + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := g.open(live+"/big", ninep.OWRITE); err == nil {
		t.Error("a file can be written to")
	}
	if f, err := root.Walk(ctx, "images", "web", "01", "parts", "1", "fs", "etc", "link"); err != nil {
		t.Error(err)
	} else if target, err := f.Readlink(ctx); err != nil || target != "passwd" {
		t.Errorf("link: %q, %v", target, err)
	}
	before, err := m.cat.Snapshot(ctx, "web/01", "before")
	m.must(err)

	// A file that is open stays what it was found to be; others are as they are.
	etc, err := root.Walk(ctx, "images", "web", "01", "parts", "1", "fs", "etc")
	m.must(err)
	was, err := etc.Stat(ctx)
	m.must(err)
	put("etc/passwd", two)
	put("etc/new", two)
	d.follow(m, "web/01")
	same(live+"/etc/passwd", two)
	same(live+"/etc/new", two)
	if is, err := etc.Stat(ctx); err != nil || is.Qid.Path != was.Qid.Path || is.Qid.Vers == was.Qid.Vers {
		t.Errorf("directory: qid %v, was %v, %v", is.Qid, was.Qid, err)
	}
	m.clock.add(24 * 3600e9)
	m.nightly()
	same("images/web/01/snap/2026/1127/parts/1/fs/etc/passwd", one)
	same("images/web/01/snap/2026/1128/parts/1/fs/etc/passwd", two)
	same("images/web/01/tag/before/parts/1/fs/etc/passwd", one)
	if got := g.names("images/web/01/snap/2026/1128/parts/1/fs/etc"); !slices.Equal(got, []string{"link", "new", "passwd"}) {
		t.Errorf("etc of a snapshot: %q", got)
	}

	for line, want := range map[string]string{
		"diff -F web/01@before web/01":                                 "added 1/etc/new\nchanged 1/etc/passwd\n",
		"diff -F web/01 vdisk:" + before.Score.String():                "removed 1/etc/new\nchanged 1/etc/passwd\n",
		"diff -F vdisk:" + before.Score.String() + " web/01@2026/1127": "",
	} {
		if got, err := m.cat.Run(ctx, line, "", true); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", line, got, err, want)
		}
	}
	both, err := m.cat.Run(ctx, "diff web/01@before web/01@2026/1128", "", true)
	ranges, err2 := m.cat.Run(ctx, "diff -r web/01@before web/01@2026/1128", "", true)
	if want := ranges + "added 1/etc/new\nchanged 1/etc/passwd\n"; both != want || ranges == "" || err != nil || err2 != nil {
		t.Errorf("diff: %q, %v, want %q, %v", both, err, want, err2)
	}

	// Who looks into an image is not in its way, and goes on when it moves.
	f, err := g.open(live+"/big", ninep.OREAD)
	m.must(err)
	m.must(m.cat.Rename(ctx, "web/01", "db"))
	got := make([]byte, 1000)
	if _, err := f.ReadAt(ctx, got, 5000); err != nil && err != io.EOF || !bytes.Equal(got, big[5000:6000]) {
		t.Errorf("after a rename: %v", err)
	}
	m.must(f.Close(ctx))
	same("images/db/parts/1/fs/big", big)
	m.must(m.cat.Rollback(ctx, "db", "before", true))
	same("images/db/parts/1/fs/etc/passwd", one)
	if s, err := m.cat.Snapshot(ctx, "db", ""); err != nil || s.Score != before.Score {
		t.Errorf("rolled back: %v, %v", s.Score, err)
	}
	m.must(m.cat.Remove(ctx, "db"))
	for i := range 8 { // more than are kept open
		name := "clone" + string(rune('a'+i))
		m.must(m.cat.Graft(ctx, name, before.Score))
		same("images/"+name+"/parts/1/fs/etc/passwd", one)
	}
	if _, err := m.cat.Files(context.Background(), "clonea", "7"); err == nil {
		t.Error("files in a partition that is not there")
	}
}

// mount serves the machine's tree and mounts it with 9pfuse, until the test
// ends. It returns the directory.
func (m *machine) mount(t *testing.T) string {
	t.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("no FUSE here: %v", err)
	} else {
		f.Close()
	}
	tmp, dir := t.TempDir(), t.TempDir()
	prog, sock := filepath.Join(tmp, "9pfuse"), filepath.Join(tmp, "sock")
	if out, err := exec.Command("go", "build", "-o", prog, "strata/tools/9pfuse").CombinedOutput(); err != nil {
		t.Fatalf("build 9pfuse: %v: %s", err, out)
	}
	ln, err := net.Listen("unix", sock)
	m.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- ninep.NewServer(m.tree(), ninep.Config{}).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		<-served
	})
	log := filepath.Join(tmp, "log")
	out, err := os.Create(log)
	m.must(err)
	defer out.Close()
	cmd := exec.Command(prog, sock, dir)
	cmd.Stdout, cmd.Stderr = out, out // files: it goes on in the background
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log)
		t.Skipf("mount: %v: %s", err, text)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
			exec.Command("umount", "-l", dir).Run()
		}
	})
	return dir
}

// TestDiffNights compares a directory in the file system of one night with that
// of the next, in a mount.
func TestDiffNights(t *testing.T) {
	d := newRaw(t, "1024")
	file := filepath.Join(t.TempDir(), "file")
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		d.debugfs("rm "+name, "write "+file+" "+name)
	}
	d.debugfs("mkdir etc", "mkdir etc/ssh", "mkdir usr")
	put("etc/passwd", "root\n")
	put("etc/ssh/config", "Port 22\n")
	put("usr/big", string(random(1, 200000)))
	m := newMachine(t, 128<<20)
	m.clock.add(-6 * 24 * 3600e9) // to the 21st
	m.must(m.cat.Create(t.Context(), "web", 16<<20))
	d.follow(m, "web")
	m.nightly()
	put("etc/passwd", "root\nken\n")
	put("etc/motd", "hello\n")
	d.follow(m, "web")
	m.clock.add(24 * 3600e9)
	m.nightly()
	images := filepath.Join(m.mount(t), "images")
	diff := func(a, b, want string) {
		t.Helper()
		cmd := exec.Command("diff", "-r", a, b)
		cmd.Dir = images
		out, err := cmd.CombinedOutput()
		if status := cmd.ProcessState.ExitCode(); string(out) != want || (status == 0) != (want == "") {
			t.Errorf("diff -r %s %s: %v:\n%s\nwant\n%s", a, b, err, out, want)
		}
	}
	const one, two = "web/snap/2026/1121/parts/1/fs", "web/snap/2026/1122/parts/1/fs"
	diff(one+"/etc", two+"/etc", "Only in "+two+"/etc: motd\ndiff -r "+one+"/etc/passwd "+two+"/etc/passwd\n1a2\n> ken\n")
	diff(one+"/usr", two+"/usr", "")
	diff(two, "web/parts/1/fs", "")
}
