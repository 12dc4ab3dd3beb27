package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/vdisk/fsys/fsystest"
	"strata/venti/ventitest"
)

func TestFS(t *testing.T) {
	dir := fsystest.Tree(t, 10, 30000)
	if err := os.Symlink("d1/a file with number 1", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	disk := fsystest.Sparse(t, 16<<20)
	fsystest.Run(t, 0, "", "mke2fs", "-q", "-t", "ext4", "-b", "1024", "-d", dir, disk)
	fsystest.Run(t, 0, "mknod pipe p\n", "debugfs", "-w", disk)
	host := filepath.Join(t.TempDir(), "venti")
	startVenti(t, ventitest.NewMemory(), host)
	out, _ := mustRun(t, "", "import", "-h", host, disk)
	score := strings.TrimSpace(out)

	out, _ = mustRun(t, "", "fs", "-h", host, "ls", score+":0")
	names := strings.Fields(out)
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "d0 d1 d2 d3 d4 link lost+found pipe" {
		t.Errorf("ls: got %s", got)
	}
	if out, _ := mustRun(t, "", "fs", "-h", host, "ls", "-l", score+":0/"); !strings.Contains(out, "link -> d1/a file with number 1") || !strings.Contains(out, "drwx") {
		t.Errorf("ls -l: got %s", out)
	}
	want, err := os.ReadFile(filepath.Join(dir, "link"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{":0/link", ":0/d1/a file with number 1", ":0//d1/../d1/./a file with number 1"} {
		if out, _ := mustRun(t, "", "fs", "-h", host, "cat", score+file); out != string(want) {
			t.Errorf("cat %s: got %d bytes, want %d", file, len(out), len(want))
		}
	}
	to := t.TempDir()
	mustRun(t, "", "fs", "-h", host, "cp", score+":0/link", to)
	if got, err := os.ReadFile(filepath.Join(to, "link")); err != nil || string(got) != string(want) {
		t.Errorf("cp: got %d bytes, %v", len(got), err)
	}
	_, msg := mustRun(t, "", "fs", "-h", host, "cp", "-r", score+":0/", filepath.Join(to, "all"))
	if !strings.Contains(msg, "all/pipe is left out") {
		t.Errorf("cp -r says %s", msg)
	}
	os.Remove(filepath.Join(to, "all", "lost+found"))
	if out, err := exec.Command("diff", "-r", "--no-dereference", dir, filepath.Join(to, "all")).CombinedOutput(); err != nil {
		t.Errorf("cp -r: %v: %s", err, out)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"ls"}, 2, "usage: vdisk fs"},
		{[]string{"rm", score + ":0/x"}, 2, "usage: vdisk fs"},
		{[]string{"ls", score}, 2, "want DISK:N/PATH"},
		{[]string{"ls", score + ":1/"}, 1, "partition 1: no file system that can be read"},
		{[]string{"ls", score + ":0/none"}, 1, "file does not exist"},
		{[]string{"cat", score + ":0/d1"}, 1, "not a regular file"},
		{[]string{"cp", score + ":0/d1", to}, 1, "a directory, and no -r"},
		{[]string{"cp", score + ":0/link", to}, 1, "file exists"},
	} {
		status, _, msg := vdiskRun(t, "", append([]string{"fs", "-h", host}, c.args...)...)
		if status != c.status || !strings.Contains(msg, c.want) {
			t.Errorf("vdisk fs %s: got %d, %s, want %d, %q", strings.Join(c.args, " "), status, msg, c.status, c.want)
		}
	}
}
