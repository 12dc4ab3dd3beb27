package suite

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strata/tests/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// TestADiskInAndBack takes a disk through the commands a user types: strata
// up, vdisk import, info, verify and export, and through a 9P client of
// somebody else's, across a restart.
func TestADiskInAndBack(t *testing.T) {
	ours, dir := harness.Ours(t), t.TempDir()
	store, image := filepath.Join(dir, "store"), filepath.Join(dir, "disk.img")
	disk := make([]byte, 3<<20+512)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 1 << 20; i < 2<<20; i++ {
		disk[i] = byte(rng.Uint32())
	}
	copy(disk[len(disk)-9:], "the end.\n")
	if err := os.WriteFile(image, disk, 0o644); err != nil {
		t.Fatal(err)
	}
	host := "unix!" + filepath.Join(store, "venti.sock")

	stop := strataUp(t, ours, store, "--files", dir)
	score := strings.TrimSpace(ours.Run(t, nil, "vdisk", "import", "-h", host, image))
	if !strings.HasPrefix(score, "vdisk:") || len(score) != 46 {
		t.Fatalf("import printed %q", score)
	}
	if piped := strings.TrimSpace(ours.Run(t, disk, "vdisk", "import", "-h", host, "-")); piped != score {
		t.Errorf("imported from a pipe it is %s, from the file %s", piped, score)
	}
	stop()

	stop = strataUp(t, ours, store, "--files", dir)
	defer stop()
	ours.Run(t, nil, "vdisk", "verify", "-h", host, score)
	if info := ours.Run(t, nil, "vdisk", "info", "-h", host, score); !strings.Contains(info, "disk") {
		t.Errorf("info says %q", info)
	}
	back := filepath.Join(dir, "back.img")
	ours.Run(t, nil, "vdisk", "export", "-h", host, score, back)
	got, err := os.ReadFile(back)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, disk) {
		t.Errorf("exported %d bytes that differ from the %d imported", len(got), len(disk))
	}

	if err := os.WriteFile(filepath.Join(dir, "day.vdisk"), []byte(score+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("NBD", func(t *testing.T) { copyByNBD(t, filepath.Join(store, "nbd.sock"), score, disk) })

	// The same over 9P, by diod's client, from both ways in.
	diodcat, err := exec.LookPath("diodcat")
	if err != nil {
		if _, err := os.Stat("/usr/sbin/diodcat"); err != nil {
			t.Skip("no diodcat (package diod) to read over 9P with")
		}
		diodcat = "/usr/sbin/diodcat"
	}
	for _, name := range []string{"score/" + score + "/disk", "files/day.vdisk"} {
		cmd := exec.Command(diodcat, "-s", filepath.Join(store, "vdisk.sock"), "-a", "/", name)
		var said bytes.Buffer
		cmd.Stderr = &said
		got, err := cmd.Output()
		if err != nil {
			t.Errorf("diodcat %s: %v: %s", name, err, &said)
			continue
		}
		if sha256.Sum256(got) != sha256.Sum256(disk) {
			t.Errorf("diodcat %s: %d bytes that differ from the %d of the disk", name, len(got), len(disk))
		}
	}
}

// copyByNBD reads the disk over NBD with libnbd's tools.
func copyByNBD(t *testing.T, socket, score string, disk []byte) {
	nbdcopy, err := exec.LookPath("nbdcopy")
	if err != nil {
		t.Skip("no nbdcopy (package libnbd-bin) to read over NBD with")
	}
	for _, name := range []string{score, "files/day.vdisk", "score/" + score + "/parts/0"} {
		cmd := exec.Command(nbdcopy, "nbd+unix:///"+name+"?socket="+socket, "-")
		var said bytes.Buffer
		cmd.Stderr = &said
		got, err := cmd.Output()
		if err != nil {
			t.Errorf("nbdcopy %s: %v: %s", name, err, &said)
			continue
		}
		if !bytes.Equal(got, disk) {
			t.Errorf("nbdcopy %s: %d bytes that differ from the %d of the disk", name, len(got), len(disk))
		}
	}
	out, err := exec.Command("nbdinfo", "--list", "nbd+unix://?socket="+socket).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "files/day.vdisk") {
		t.Errorf("nbdinfo --list: %v\n%s", err, out)
	}
}

// strataUp serves store until the returned function is called.
func strataUp(t *testing.T, ours harness.Suite, store string, flags ...string) (stop func()) {
	t.Helper()
	args := append([]string{"up", "--local", "--size", "1"}, flags...)
	cmd := ours.Command(t.Context(), "strata", append(args, store)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for deadline := time.Now().Add(time.Minute); ; {
		if _, _, err := ours.Try(t, nil, "venti/sync", "-h", "unix!"+filepath.Join(store, "venti.sock")); err == nil {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("strata up ended: %v\n%s", err, &said)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			t.Fatalf("strata up does not answer\n%s", &said)
		}
	}
	return func() {
		t.Helper()
		cmd.Process.Signal(os.Interrupt)
		if err := <-done; err != nil {
			t.Fatalf("strata up ended with %v\n%s", err, &said)
		}
	}
}
