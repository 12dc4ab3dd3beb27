package suite

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strata/tests/harness"
)

// TestFilesOfALiveDisk looks at the files in an image from the shell: of the
// archive, of a snapshot and as the disk is now.
func TestFilesOfALiveDisk(t *testing.T) {
	ours, dir := harness.Ours(t), t.TempDir()
	mkfs, err := exec.LookPath("mke2fs")
	if err != nil {
		if mkfs, err = exec.LookPath("/usr/sbin/mke2fs"); err != nil {
			t.Skip("no mke2fs on this machine")
		}
	}
	files := filepath.Join(dir, "files")
	for name, data := range map[string][]byte{"etc/passwd": []byte("root\n"), "etc/ssh/config": []byte("Port 22\n"), "big": bytes.Repeat([]byte("0123456789"), 50000)} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(files, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(files, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("passwd", filepath.Join(files, "etc", "link")); err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(dir, "raw")
	if out, err := exec.Command(mkfs, "-q", "-t", "ext4", "-d", files, raw, "8m").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	store := filepath.Join(dir, "store")
	defer strataUp(t, ours, store)()
	t.Setenv("venti", "unix!"+filepath.Join(store, "venti.sock"))
	t.Setenv("vdisk", "unix!"+filepath.Join(store, "vdisk.sock"))
	run := func(args ...string) string {
		t.Helper()
		return ours.Run(t, nil, "vdisk", args...)
	}
	score := strings.TrimSpace(run("import", "--into", "web/01", raw))
	snap := strings.Fields(run("snap", "web/01", "first"))[0]
	for _, disk := range []string{score, "web/01", "web/01@first", snap} {
		if got := run("fs", "ls", disk+":0/"); got != "big\netc\nlost+found\n" {
			t.Errorf("%s: ls says %q", disk, got)
		}
		if got := run("fs", "ls", "-l", disk+":0/etc"); !strings.Contains(got, "link -> passwd\n") || !strings.Contains(got, "drwxr-xr-x") {
			t.Errorf("%s: ls -l says %q", disk, got)
		}
		if got := run("fs", "cat", disk+":0/etc/link", disk+":0/etc/ssh/config"); got != "root\nPort 22\n" {
			t.Errorf("%s: cat says %q", disk, got)
		}
		to := filepath.Join(t.TempDir(), "copy")
		run("fs", "cp", "-r", disk+":0/", to)
		if err := os.Remove(filepath.Join(to, "lost+found")); err != nil {
			t.Error(err)
		}
		if out, err := exec.Command("diff", "-r", "--no-dereference", files, to).CombinedOutput(); err != nil {
			t.Errorf("%s: cp: %v: %s", disk, err, out)
		}
	}
	for _, disk := range []string{"web/01:1/etc", "web/02:0/etc", "web/01@none:0/", "web/01:0/none"} {
		if _, said, err := ours.Try(t, nil, "vdisk", "fs", "ls", disk); err == nil || !strings.Contains(said, "not exist") {
			t.Errorf("%s: %v, %s", disk, err, said)
		}
	}
}

// TestSpaceBack moves the images of one store to another, without what their
// rules have let go.
func TestSpaceBack(t *testing.T) {
	ours, dir := harness.Ours(t), t.TempDir()
	venti := func(store string) string { return "unix!" + filepath.Join(dir, store, "venti.sock") }
	vdisk := func(store string) string { return "unix!" + filepath.Join(dir, store, "vdisk.sock") }
	defer strataUp(t, ours, filepath.Join(dir, "old"))()
	raw := filepath.Join(dir, "raw")
	t.Setenv("venti", venti("old"))
	t.Setenv("vdisk", vdisk("old"))
	run := func(args ...string) string {
		t.Helper()
		return ours.Run(t, nil, "vdisk", args...)
	}
	disk := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	for i, name := range []string{"web/01", "db"} {
		disk[i] = '!'
		if err := os.WriteFile(raw, disk, 0o644); err != nil {
			t.Fatal(err)
		}
		run("import", "--into", name, raw)
		run("snap", name, "first")
		run("snap", name)
		run("keep", "--yes", name, "1", "last")
	}
	// logs returns what was asked for: a nightly snapshot comes whenever the first
	// minute is over.
	logs := func() (text string) {
		for line := range strings.Lines(run("log", "web/01") + run("log", "db")) {
			if !strings.Contains(line, " nightly ") {
				text += line
			}
		}
		return text
	}
	roots, want := run("roots"), logs()
	defer strataUp(t, ours, filepath.Join(dir, "new"))()
	for line := range strings.Lines(roots) {
		f := strings.Fields(line)
		if len(f) != 2 {
			t.Fatalf("roots: %q", roots)
		}
		ours.Run(t, nil, "venti/copy", "-f", venti("old"), venti("new"), f[0])
		run("import", "-s", vdisk("new"), "--into", f[1], f[0])
	}
	t.Setenv("venti", venti("new"))
	t.Setenv("vdisk", vdisk("new"))
	if got := logs(); got != want || strings.Count(got, " first\n") != 2 {
		t.Errorf("log:\n%swant\n%s", got, want)
	}
	if got := run("verify", strings.Fields(run("log", "db"))[3]); !strings.HasPrefix(got, "good ") {
		t.Errorf("verify says %q", got)
	}
	back := filepath.Join(dir, "back")
	run("export", "db@first", back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, disk) {
		t.Errorf("%d bytes that differ from the %d of the disk, %v", len(got), len(disk), err)
	}
}
