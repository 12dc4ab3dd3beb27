package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// mkext2 makes an ext2 image of 16 MiB with 4 KiB blocks, the one kind that
// plan9port's vbackup reads without loss.
func mkext2(t *testing.T, image string) {
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
	out, err := exec.Command(mke2fs, "-q", "-t", "ext2", "-b", "4096", "-O", "^64bit,^metadata_csum,^resize_inode", "-d", dir, image, "16M").CombinedOutput()
	if err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
}
