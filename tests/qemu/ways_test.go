//go:build !race

package qemu

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"strata/tests/debian"
)

// needTrial skips what takes minutes, unless it is asked for. Two guests run at
// once then.
func needTrial(t *testing.T) {
	t.Helper()
	if os.Getenv("STRATA_TRIAL") == "" {
		t.Skip("STRATA_TRIAL is not set")
	}
	t.Parallel()
}

// Test9pfuse has a guest live on the file that bin/9pfuse shows.
func Test9pfuse(t *testing.T) {
	needTrial(t)
	w := newWorld(t)
	dir := t.TempDir()
	// It goes on in the background, with its streams.
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	mount := w.Command(t.Context(), "9pfuse", filepath.Join(w.Dir, "vdisk.sock"), dir)
	mount.Stdout, mount.Stderr = out, out
	if err := mount.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		if _, err := os.Stat("/dev/fuse"); err != nil || bytes.Contains(text, []byte("not permitted")) {
			t.Skipf("mounting is not possible here: %s", text)
		}
		t.Fatalf("9pfuse: %v: %s", err, text)
	}
	umount := []string{"fusermount3", "-u", dir}
	if os.Geteuid() == 0 {
		umount = []string{"umount", dir}
	}
	t.Cleanup(func() {
		if out, err := exec.Command(umount[0], umount[1:]...).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	live(t, w, func(_ *testing.T, w *world, name string) debian.Machine {
		return debian.Machine{Drives: []string{"file=" + filepath.Join(dir, "images", name, "disk") + ",format=raw"}, Image: w.img}
	})
}
