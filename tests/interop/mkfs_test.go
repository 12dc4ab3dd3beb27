package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// mkext2 makes an ext2 image of 20 MiB with 4 KiB blocks, the one kind that
// plan9port's vbackup reads without loss.
func mkext2(t *testing.T, image string) {
	t.Helper()
	mkext(t, image, "-t", "ext2", "-b", "4096", "-O", "^64bit,^metadata_csum,^resize_inode")
}

// mkext makes an image of 20 MiB as mke2fs does with args, filled by makeTree.
func mkext(t *testing.T, image string, args ...string) {
	t.Helper()
	mke2fs, err := exec.LookPath("mke2fs")
	if err != nil {
		t.Skip("no mke2fs (package e2fsprogs)")
	}
	dir := filepath.Join(t.TempDir(), "root")
	makeTree(t, dir)
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	args = append(append([]string{"-q", "-d", dir}, args...), image, "20M")
	out, err := exec.Command(mke2fs, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
}
