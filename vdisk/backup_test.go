package vdisk

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

// backupFile backs up a partition in a file.
func backupFile(t testing.TB, st venti.Store, name string, opt ImportOptions) *Result {
	t.Helper()
	d, err := OpenDisk(name)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	res, err := Backup(t.Context(), st, d, opt)
	if err != nil {
		t.Fatal(err)
	}
	checkCounts(t, res)
	return res
}

// writeInto writes data into a file at off.
func writeInto(t testing.TB, name string, data []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, off); err != nil {
		t.Fatal(err)
	}
}

func TestBackupExt(t *testing.T) {
	tr := tree(t, 11, 3*mib)
	for _, args := range []string{
		"-t ext2 -b 1024", "-t ext2 -b 4096", "-t ext3 -b 2048",
		"-t ext4 -b 1024 -O 64bit", "-t ext4 -b 4096 -O 64bit", "-t ext4 -b 4096 -O ^64bit",
		"-t ext4 -b 1024 -O 64bit,meta_bg,^resize_inode -g 1024",
	} {
		t.Run(args, func(t *testing.T) {
			img := extImage(t, 24*mib, tr, strings.Fields(args)...)
			boot := bytes.Repeat([]byte("boot"), 256)
			writeInto(t, img, boot, 0)
			st := ventitest.NewMemory()
			res := backupFile(t, st, img, ImportOptions{Name: "/dev/x"})
			r := res.Layout.Regions[0]
			if r.Kind != "ext2" || !r.FreeOmitted || r.DSize != r.FileSystem.BlockSize || res.Total.Free < mib {
				t.Errorf("layout %+v, %d bytes free", r, res.Total.Free)
			}
			im, err := OpenText(t.Context(), st, "ext2:"+res.Score.String())
			if err != nil {
				t.Fatal(err)
			}
			if root := im.Root(); root.Name != "/dev/x" || root.BlockSize != r.DSize {
				t.Errorf("root %+v", root)
			}
			e := im.entries[0]
			if e.Flags != venti.EntryActive|venti.EntryLocal || e.Size != 24*mib || e.DSize != r.DSize || e.PSize != r.DSize/20*20 {
				t.Errorf("entry %+v", e)
			}
			out := exportFile(t, st, res.Score)
			sameFiles(t, extFiles(t, out), treeFiles(t, tr))
			sameBytes(t, "boot block", extract(t, out, 0, 1024), extract(t, img, 0, 1024))
			if got, want := run(t, "", "dumpe2fs", out), run(t, "", "dumpe2fs", img); got != want {
				t.Error("dumpe2fs tells of another file system")
			}
		})
	}
}

// TestBackupRaw backs up what is no ext file system, or not only one.
func TestBackupRaw(t *testing.T) {
	noise := make([]byte, 100001)
	rand.New(rand.NewSource(12)).Read(noise)
	ext := extImage(t, 8*mib, tree(t, 13, mib), "-t", "ext4")
	swap := sparse(t, 4*mib)
	run(t, "", "mkswap", "-q", swap)
	writeInto(t, swap, noise, 2*mib)
	random := filepath.Join(t.TempDir(), "random")
	if err := os.WriteFile(random, noise, 0o666); err != nil {
		t.Fatal(err)
	}
	zeros := sparse(t, 3*mib+17)
	disk := partitioned(t, "gpt", 12*mib, place{ext, 2048, "linux"})
	st := ventitest.NewMemory()
	for what, img := range map[string]string{"noise": random, "zeros": zeros, "swap": swap, "disk with a table": disk} {
		res := backupFile(t, st, img, ImportOptions{})
		if r := res.Layout.Regions[0]; r.Kind != "rawdisk" || r.FreeOmitted || res.Total.Free != 0 {
			t.Errorf("%s: layout %+v", what, r)
		}
		sameBytes(t, what, exportFile(t, st, res.Score), img)
		if _, err := OpenText(t.Context(), st, "rawdisk:"+res.Score.String()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, extra := range []int64{1, 512, 5000} {
		img := extract(t, ext, 0, 8*mib)
		if err := os.Truncate(img, 8*mib+extra); err != nil {
			t.Fatal(err)
		}
		writeInto(t, img, noise[:extra], 8*mib)
		res := backupFile(t, st, img, ImportOptions{})
		if r := res.Layout.Regions[0]; r.Kind != "ext2" || !r.FreeOmitted {
			t.Errorf("ext and %d bytes: layout %+v", extra, r)
		}
		sameBytes(t, fmt.Sprintf("%d bytes behind ext", extra), extract(t, exportFile(t, st, res.Score), 8*mib, extra), extract(t, img, 8*mib, extra))
	}
	if _, err := Backup(t.Context(), st, &Disk{}, ImportOptions{}); err == nil {
		t.Error("an empty disk is backed up")
	}
}

// TestBackupWhole has a file system whose free blocks are not certain: it is
// still ext2, as long as its superblock says so, and every byte is kept.
func TestBackupWhole(t *testing.T) {
	img := extImage(t, 8*mib, tree(t, 14, mib), "-t", "ext4", "-b", "1024")
	run(t, "set_super_value feature_incompat 0x40000000\n", "debugfs", "-w", img)
	st := ventitest.NewMemory()
	res := backupFile(t, st, img, ImportOptions{})
	if r := res.Layout.Regions[0]; r.Kind != "ext2" || r.Whole == "" || r.DSize != 1024 {
		t.Errorf("layout %+v", r)
	}
	sameBytes(t, "image", exportFile(t, st, res.Score), img)
}

func TestBackupIncremental(t *testing.T) {
	tr := tree(t, 15, 3*mib)
	img := extImage(t, 24*mib, tr, "-t", "ext4", "-b", "1024")
	st := ventitest.NewMemory()
	first := backupFile(t, st, img, ImportOptions{})
	run(t, "rm /etc/f001\nwrite "+filepath.Join(tr, "f000")+" new\n", "debugfs", "-w", img)

	full := backupFile(t, ventitest.NewMemory(), img, ImportOptions{})
	inc := backupFile(t, st, img, ImportOptions{Base: first.Score})
	if inc.Score != full.Score {
		t.Errorf("incremental gives %v, full %v", inc.Score, full.Score)
	}
	if inc.Blocks == 0 || inc.Blocks > 300 || inc.Total.SharedBlocks < 2000 {
		t.Errorf("%d blocks were sent, %d shared", inc.Blocks, inc.Total.SharedBlocks)
	}
	withPrev := backupFile(t, st, img, ImportOptions{Base: first.Score, Prev: first.Score})
	im, err := Open(t.Context(), st, withPrev.Score)
	if err != nil {
		t.Fatal(err)
	}
	if im.Root().Prev != first.Score || im.entries[0].Score == venti.EmptyScore {
		t.Errorf("root %+v", im.Root())
	}

	// A base of another kind is refused.
	raw := backupFile(t, st, sparse(t, mib), ImportOptions{})
	d, err := OpenDisk(img)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := Backup(t.Context(), st, d, ImportOptions{Base: raw.Score}); err == nil || !strings.Contains(err.Error(), `"rawdisk"`) {
		t.Errorf("with a raw disk as base: %v", err)
	}
}
