package suite

import (
	"bufio"
	"bytes"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/tests/harness"
)

// TestALiveDisk makes a disk from the shell, one from a file and one from that,
// and reads what is kept of them.
func TestALiveDisk(t *testing.T) {
	ours := harness.Ours(t)
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	stop := strataUp(t, ours, store)
	defer func() { stop() }()
	t.Setenv("venti", "unix!"+filepath.Join(store, "venti.sock"))
	t.Setenv("vdisk", "unix!"+filepath.Join(store, "vdisk.sock"))
	disk := make([]byte, 3<<20)
	rand.New(rand.NewSource(1)).Read(disk[1<<20 : 2<<20])
	raw := filepath.Join(dir, "web.raw")
	if err := os.WriteFile(raw, disk, 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		return ours.Run(t, nil, "vdisk", args...)
	}
	fails := func(want, input string, args ...string) {
		t.Helper()
		if _, said, err := ours.Try(t, []byte(input), "vdisk", args...); err == nil || !strings.Contains(said, want) {
			t.Errorf("vdisk %s: %v, %s", strings.Join(args, " "), err, said)
		}
	}
	run("create", "db", "1g")
	score := strings.TrimSpace(run("import", "--into", "web/01", raw))
	if got := strings.Fields(run("snap", "web/01", "first")); len(got) != 2 || got[1] != score {
		t.Errorf("snap says %q, the score of the file is %s", got, score)
	}
	run("clone", "web/01@first", "web/02")
	if got := run("ls"); got != "db\nweb/01\nweb/02\n" {
		t.Errorf("ls: %q", got)
	}
	fails("already exists", "", "create", "db", "1g")
	fails("usage: create", "", "create", "db")
	fails("nothing was done", "n\n", "rm", "db")
	run("protect", "db")
	fails("protected", "", "rm", "--force", "db")
	run("unprotect", "db")
	ours.Run(t, []byte("y\n"), "vdisk", "rm", "db")
	stop()
	stop = strataUp(t, ours, store)
	if got := run("ls", "-l", "web"); strings.Count(got, "3145728") != 2 {
		t.Errorf("ls -l: %q", got)
	}
	back := filepath.Join(dir, "back.raw")
	run("snap", "web/02", "kept")
	run("export", "web/02@kept", back)
	fails("no snapshot", "", "verify", "web/02@none")
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, disk) {
		t.Errorf("%d bytes that differ from the %d of the disk, %v", len(got), len(disk), err)
	}

	sock := filepath.Join(dir, "vdisk.sock")
	if _, said, err := ours.Try(t, nil, "vdisk", "serve", "--fossil", "unix!"+filepath.Join(store, "fossil.sock"), "-a", "unix!"+sock); err == nil || !strings.Contains(said, "another vdisk") {
		t.Errorf("a second vdisk over one Fossil: %v, %s", err, said)
	}
	t.Setenv("vdisk", "unix!"+filepath.Join(store, "fossil.sock"))
	fails("vdisk ls:", "", "ls")
}

// TestALiveDiskOfItsOwn has a vdisk of its own, which meets Fossil over 9P.
func TestALiveDiskOfItsOwn(t *testing.T) {
	ours, dir := harness.Ours(t), t.TempDir()
	srv := ours.Serve(t, ours.Format(t, 64<<20, 2))
	t.Setenv("venti", srv.Addr)
	part := filepath.Join(dir, "part")
	if err := os.WriteFile(part, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(part, 64<<20); err != nil {
		t.Fatal(err)
	}
	ours.Run(t, nil, "fossil/flfmt", "-y", "-b", "4K", part)
	fossil := ours.ServeFossil(t, part, "")
	sock := filepath.Join(dir, "vdisk.sock")
	serve := ours.Command(t.Context(), "vdisk", "serve", "--fossil", "unix!"+fossil.Sock(), "-a", "unix!"+sock)
	said, err := serve.StdoutPipe()
	if err == nil {
		err = serve.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer serve.Wait()
	defer serve.Process.Signal(os.Interrupt)
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil {
		t.Fatalf("vdisk serve says %q, %v", line, err)
	}
	t.Setenv("vdisk", "unix!"+sock)
	run := func(args ...string) string {
		t.Helper()
		return ours.Run(t, nil, "vdisk", args...)
	}
	raw := filepath.Join(dir, "web.raw")
	if err := os.WriteFile(raw, bytes.Repeat([]byte("a disk "), 1<<17), 0o644); err != nil {
		t.Fatal(err)
	}
	run("create", "db", "1m")
	score := strings.TrimSpace(run("import", "--into", "web/01", raw))
	if got := strings.Fields(run("snap", "web/01")); len(got) != 2 || got[1] != score {
		t.Errorf("snap says %q, the score of the file is %s", got, score)
	}
	if got := run("ls"); got != "db\nweb/01\n" {
		t.Errorf("ls: %q", got)
	}
}
