package suite

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"strata/tests/harness"
)

// fakeQEMU is a QEMU that prints its arguments and waits for SIGTERM.
const fakeQEMU = `#!/bin/sh
trap 'echo term; exit 7' TERM
for a; do echo "$a"; done
echo ready
while :; do sleep 0.05; done
`

// TestQEMU prints and runs command lines of QEMU, which is a shell's script.
func TestQEMU(t *testing.T) {
	ours := harness.Ours(t)
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	defer strataUp(t, ours, store)()
	nbd := filepath.Join(store, "nbd.sock")
	t.Setenv("venti", "unix!"+filepath.Join(store, "venti.sock"))
	t.Setenv("vdisk", "unix!"+filepath.Join(store, "vdisk.sock"))
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte(fakeQEMU), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	run := func(args ...string) string {
		t.Helper()
		return ours.Run(t, nil, "vdisk", args...)
	}
	run("create", "web/01", "1m")
	snap := strings.Fields(run("snap", "web/01", "first"))
	ref, score := snap[0], snap[1]
	socket := "?socket=" + nbd
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"web/01"}, "file=nbd+unix:///web/01" + socket},
		{[]string{"--throw-away", "web/01"}, "file=nbd+unix:///throw-away:web/01" + socket},
		{[]string{ref}, "file=nbd+unix:///throw-away:" + ref + socket},
		{[]string{"web/01@first"}, "file=nbd+unix:///throw-away:web/01@first" + socket},
		{[]string{score}, "file=nbd+unix:///throw-away:" + score + socket},
		{[]string{"web/01", "--", "-m", "4g", "-name", "it's"}, `-m 4g -name 'it'\''s'`},
		{[]string{"--firmware", "/x.fd", "web/01"}, "-bios /x.fd"},
	} {
		if got := run(append([]string{"qemu"}, tc.args...)...); !strings.Contains(got, tc.want) || strings.Contains(got, "snapshot=on") {
			t.Errorf("vdisk qemu %q prints %s, want %s", tc.args, got, tc.want)
		}
	}
	for _, args := range [][]string{{}, {"none"}, {"web/01@none"}, {"web/01@"}, {"vdisk:12"}} {
		if _, said, err := ours.Try(t, nil, "vdisk", append([]string{"qemu"}, args...)...); err == nil || said == "" {
			t.Errorf("vdisk qemu %q: %v, %s", args, err, said)
		}
	}

	// What is printed gets to the disk, and what is run is QEMU.
	cmd := ours.Command(t.Context(), "vdisk", "qemu", "--run", "web/01@first", "--", "-name", "a b")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	uri, said := "", ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said += lines.Text() + "\n"
		if file, ok := strings.CutPrefix(lines.Text(), "file="); ok {
			uri, _, _ = strings.Cut(file, ",")
		}
		if lines.Text() == "ready" {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("vdisk qemu --run ends with %v, QEMU with status 7", err)
	}
	if !strings.HasSuffix(said, "-name\na b\nready\nterm\n") {
		t.Errorf("QEMU says %q", said)
	}
	if _, err := exec.LookPath("qemu-io"); err != nil {
		t.Skip("no qemu-io (package qemu-utils)")
	}
	got, err := exec.Command("qemu-io", "-f", "raw", uri, "-c", "write -P 7 4k 64k", "-c", "read -P 7 4k 64k", "-c", "flush").CombinedOutput()
	if err != nil || strings.Contains(string(got), "failed") || strings.Count(string(got), "65536/65536") != 2 {
		t.Errorf("qemu-io: %v\n%s", err, got)
	}
}

// TestQEMUReadOnly is of a vdisk that has no live disks: what a guest writes is
// QEMU's to keep.
func TestQEMUReadOnly(t *testing.T) {
	ours := harness.Ours(t)
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	defer strataUp(t, ours, store)()
	t.Setenv("venti", "unix!"+filepath.Join(store, "venti.sock"))
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	score := strings.TrimSpace(ours.Run(t, nil, "vdisk", "import", raw))
	sock := "unix!" + filepath.Join(dir, "vdisk.sock")
	serve := func(flags ...string) (stop func()) {
		t.Helper()
		cmd := ours.Command(t.Context(), "vdisk", append([]string{"serve", "-a", sock}, flags...)...)
		said, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(said)
		for range 1 + len(flags)/2 {
			lines.Scan()
		}
		return func() {
			cmd.Process.Signal(os.Interrupt)
			cmd.Wait()
		}
	}
	stop := serve("--nbd", filepath.Join(dir, "nbd.sock"))
	got := ours.Run(t, nil, "vdisk", "qemu", "-s", sock, score)
	if want := "nbd+unix:///" + score + "?socket=" + dir + "/nbd.sock,format=raw,if=virtio,discard=unmap,snapshot=on"; !strings.Contains(got, want) {
		t.Errorf("vdisk qemu prints %s, want %s", got, want)
	}
	stop()
	stop = serve()
	if _, said, err := ours.Try(t, nil, "vdisk", "qemu", "-s", sock, score); err == nil || !strings.Contains(said, "no disks over NBD") {
		t.Errorf("without NBD: %v, %s", err, said)
	}
	stop()
}
