package vdisk

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
	"strata/vdisk/fsys/fsystest"
	"strata/venti/ventitest"
)

// insideDisk stores a disk with an EFI system partition and ext4, and returns
// its image and what was put into each.
func insideDisk(t *testing.T, st *ventitest.Memory) (im *Image, efi, root string) {
	t.Helper()
	root = tree(t, 12, mib)
	for link, target := range map[string]string{"loop": "loop", "absolute": "/etc/deep/er", "up": "../../etc/deep", "nowhere": "none"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	efi = fsystest.Tree(t, 10, 20000)
	esp := sparse(t, 8*mib)
	run(t, "", "mkfs.vfat", esp)
	list, err := os.ReadDir(efi)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		run(t, "", "mcopy", "-s", "-i", esp, filepath.Join(efi, d.Name()), "::")
	}
	swap := sparse(t, mib)
	run(t, "", "mkswap", "-q", swap)
	disk := partitioned(t, "gpt", 42*mib, place{esp, 2048, "uefi"}, place{extImage(t, 24*mib, root, "-t", "ext4", "-b", "4096"), 2048 + 8*2048, "linux"},
		place{swap, 2048 + 32*2048, "swap"})
	im, err = Open(t.Context(), st, importFile(t, st, disk, ImportOptions{}).Score)
	if err != nil {
		t.Fatal(err)
	}
	return im, efi, root
}

func TestFilesInside(t *testing.T) {
	st := ventitest.NewMemory()
	im, efi, root := insideDisk(t, st)
	for part, dir := range map[string]string{"1": efi, "2": root} {
		f, err := im.Files(part)
		if err != nil {
			t.Fatal(err)
		}
		fsystest.SameFiles(t, f, dir, part == "2", "lost+found")
	}
	for _, part := range []string{"0", "3", "4", ""} {
		if _, err := im.Files(part); !errors.Is(err, ErrNoFiles) {
			t.Errorf("partition %q: got %v", part, err)
		}
	}
	f, err := im.Files("2")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path   string
		follow bool
		mode   fs.FileMode
		err    error
	}{
		{"", true, fs.ModeDir, nil},
		{"/etc/./deep/../deep/er/", true, fs.ModeDir, nil},
		{"../../empty", true, 0, nil},
		{"link", false, fs.ModeSymlink, nil},
		{"link", true, fs.ModeDir, nil},
		{"link/er", false, fs.ModeDir, nil},
		{"up/er", true, fs.ModeDir, nil},
		{"absolute", true, fs.ModeDir, nil},
		{"loop", true, 0, syscall.ELOOP},
		{"nowhere", true, 0, fs.ErrNotExist},
		{"none/x", true, 0, fs.ErrNotExist},
		{"empty/x", true, 0, syscall.ENOTDIR},
	} {
		got, err := WalkFiles(f, tc.path, tc.follow)
		if !errors.Is(err, tc.err) || err == nil && got.Info().Mode.Type() != tc.mode {
			t.Errorf("%s: got %v, %v", tc.path, got, err)
		}
	}
}

// An imageFS is the tree of one image.
type imageFS struct {
	tree  *Tree
	score string
}

func (f imageFS) Attach(ctx context.Context, user, aname string) (ninep.Node, error) {
	return f.tree.walkScore(ctx, f.score)
}

// TestFilesTree holds the files inside to what holds for every tree, and
// compares them with those that went in.
func TestFilesTree(t *testing.T) {
	st := ventitest.NewMemory()
	im, efi, root := insideDisk(t, st)
	tr, err := NewTree(st, TreeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	image := imageFS{tr, "vdisk:" + im.Score().String()}
	ninetest.TestTree(t, image, ninetest.TreeConfig{User: "glenda"})

	top := ninetest.Dial(t, image, ninep.Linux, "glenda", "")
	for part, dir := range map[string]string{"1": efi, "2": root} {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(dir, name)
			f, err := top.Walk(t.Context(), append([]string{"parts", part, "fs"}, splitPath(rel)...)...)
			if err != nil {
				return err
			}
			defer f.Close(t.Context())
			switch d.Type() {
			case fs.ModeSymlink:
				want, _ := os.Readlink(name)
				if got, err := f.Readlink(t.Context()); err != nil || got != want {
					t.Errorf("%s: got a link to %q, %v, want %q", rel, got, err, want)
				}
			case 0:
				want, err := os.ReadFile(name)
				if err != nil {
					return err
				}
				if err := f.Open(t.Context(), ninep.OREAD); err != nil {
					return err
				}
				got := make([]byte, len(want)+1)
				n := 0
				for n < len(got) {
					m, err := f.ReadAt(t.Context(), got[n:], int64(n))
					n += m
					if m == 0 || err == io.EOF {
						break
					}
					if err != nil {
						return err
					}
				}
				if string(got[:n]) != string(want) {
					t.Errorf("%s: contents differ", rel)
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("partition %s: %v", part, err)
		}
	}
}

// splitPath returns the elements of a relative path.
func splitPath(p string) []string {
	if p == "." {
		return nil
	}
	dir, name := filepath.Split(p)
	return append(splitPath(filepath.Clean(dir)), name)
}

// TestFilesVolume looks into a logical volume in two runs.
func TestFilesVolume(t *testing.T) {
	m := lvmMaker()
	img := sparse(t, m.size)
	tr := fsystest.Tree(t, 20, 100000)
	m.make(t, img, tr)
	if err := os.RemoveAll(filepath.Join(tr, "d1")); err != nil {
		t.Fatal(err)
	}
	st := ventitest.NewMemory()
	disk := partitioned(t, "dos", m.size+2*mib, place{img, 2048, "8e"})
	im, err := Open(t.Context(), st, importFile(t, st, disk, ImportOptions{}).Score)
	if err != nil {
		t.Fatal(err)
	}
	f, err := im.Files("1.root")
	if err != nil {
		t.Fatal(err)
	}
	if d, err := f.Lookup("d1"); err != nil || !d.Info().Mode.IsDir() {
		t.Errorf("d1: %v", err)
	}
	fsystest.SameFiles(t, f, tr, true, "lost+found", "d1")
	for _, part := range []string{"1", "1.gone", "1.none", "2.root"} {
		if _, err := im.Files(part); !errors.Is(err, ErrNoFiles) {
			t.Errorf("partition %s: got %v", part, err)
		}
	}
	if _, err := im.Files("1.boot"); err != nil {
		t.Errorf("boot: %v", err)
	}
	tree, err := NewTree(st, TreeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	image := imageFS{tree, "vdisk:" + im.Score().String()}
	ninetest.TestTree(t, image, ninetest.TreeConfig{User: "glenda"})
	top := ninetest.Dial(t, image, ninep.Linux, "glenda", "")
	for name, want := range map[string]int64{"1": m.size, "1.root": 28 * mib, "1.boot": 8 * mib} {
		data, err := top.Walk(t.Context(), "parts", name, "data")
		if err != nil {
			t.Fatal(err)
		}
		if d, err := data.Stat(t.Context()); err != nil || d.Length != want {
			t.Errorf("%s: got %d bytes, %v, want %d", name, d.Length, err, want)
		}
		data.Close(t.Context())
	}
}
