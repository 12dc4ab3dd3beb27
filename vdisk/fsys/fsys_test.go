package fsys_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/vdisk/fsys"
)

var errBroken = errors.New("broken")

// mapOf yields extents, and errBroken in the place of an extent of zeros.
func mapOf(extents ...fsys.Extent) iter.Seq2[fsys.Extent, error] {
	return func(yield func(fsys.Extent, error) bool) {
		for _, x := range extents {
			var err error
			if x == (fsys.Extent{}) {
				err = errBroken
			}
			if !yield(x, err) {
				return
			}
		}
	}
}

func TestFree(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fs    fsys.FileSystem
		want  string
		wants string // part of the error
	}{
		{"no map", fsys.FileSystem{Size: 100}, "[]", ""},
		{"empty", fsys.FileSystem{Size: 100, FreeMap: mapOf()}, "[]", ""},
		{"whole", fsys.FileSystem{Size: 100, Whole: "why", FreeMap: mapOf(fsys.Extent{Off: 1, Len: 2})}, "[]", ""},
		{"merged", fsys.FileSystem{Size: 100, FreeMap: mapOf(
			fsys.Extent{Off: 0, Len: 2}, fsys.Extent{Off: 2, Len: 2}, fsys.Extent{Off: 4, Len: 1}, fsys.Extent{Off: 10, Len: 90})},
			"[{0 5} {10 90}]", ""},
		{"overlap", fsys.FileSystem{Size: 100, FreeMap: mapOf(fsys.Extent{Off: 0, Len: 4}, fsys.Extent{Off: 3, Len: 4})}, "[]", "out of place"},
		{"backwards", fsys.FileSystem{Size: 100, FreeMap: mapOf(fsys.Extent{Off: 5, Len: 4}, fsys.Extent{Off: 3, Len: 1})}, "[]", "out of place"},
		{"negative", fsys.FileSystem{Size: 100, FreeMap: mapOf(fsys.Extent{Off: -5, Len: 4})}, "[]", "out of place"},
		{"no length", fsys.FileSystem{Size: 100, FreeMap: mapOf(fsys.Extent{Off: 5, Len: 0})}, "[]", "out of place"},
		{"past the end", fsys.FileSystem{Size: 100, FreeMap: mapOf(fsys.Extent{Off: 5, Len: 96})}, "[]", "out of place"},
		{"overflow", fsys.FileSystem{Size: 100, FreeMap: mapOf(fsys.Extent{Off: 5, Len: 1<<63 - 1})}, "[]", "out of place"},
		{"error", fsys.FileSystem{Size: 100, FreeMap: mapOf(fsys.Extent{Off: 0, Len: 4}, fsys.Extent{Off: 5, Len: 4}, fsys.Extent{})}, "[{0 4}]", "broken"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := []fsys.Extent{}
			var last error
			for x, err := range tc.fs.Free() {
				if last = err; err == nil {
					got = append(got, x)
				}
			}
			if fmt.Sprint(got) != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			if last == nil && tc.wants != "" || last != nil && (tc.wants == "" || !strings.Contains(last.Error(), tc.wants)) {
				t.Errorf("got error %v, want %q", last, tc.wants)
			}
			for range tc.fs.Free() {
				break // must not go on
			}
		})
	}
}

// prober answers with a file system of a type, or nil for the empty one.
func prober(kind string, err error) fsys.Prober {
	return func(io.ReaderAt, int64) (*fsys.FileSystem, error) {
		if kind == "" || err != nil {
			return nil, err
		}
		return &fsys.FileSystem{Type: kind, UUID: "u", Size: 100}, nil
	}
}

func TestProbe(t *testing.T) {
	xfs := append([]byte("XFSB"), make([]byte, 4096)...)
	ext := make([]byte, 4096)
	ext[0x438], ext[0x439] = 0x53, 0xef
	for _, tc := range []struct {
		name    string
		data    []byte
		probers []fsys.Prober
		kind    string
		whole   string
		err     error
	}{
		{"nobody", make([]byte, 4096), []fsys.Prober{prober("", nil)}, "", "", nil},
		{"nothing", nil, nil, "", "", nil},
		{"one", make([]byte, 4096), []fsys.Prober{prober("", nil), prober("swap", nil)}, "swap", "", nil},
		{"two", make([]byte, 4096), []fsys.Prober{prober("ext4", nil), prober("swap", nil)}, "ext4", "signatures of ext4 and of swap", nil},
		{"signature only", xfs, []fsys.Prober{prober("", nil)}, "xfs", "no free map is known for xfs", nil},
		{"signature too", xfs, []fsys.Prober{prober("ext4", nil)}, "ext4", "signatures of ext4 and of xfs", nil},
		{"its own signature", xfs, []fsys.Prober{prober("xfs", nil)}, "xfs", "", nil},
		{"ext's own signature", ext, []fsys.Prober{prober("ext3", nil)}, "ext3", "", nil},
		{"error", xfs, []fsys.Prober{prober("", errBroken)}, "", "", errBroken},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs, err := fsys.Probe(bytes.NewReader(tc.data), int64(len(tc.data)), tc.probers...)
			if !errors.Is(err, tc.err) {
				t.Fatalf("got error %v, want %v", err, tc.err)
			}
			switch {
			case fs == nil && tc.kind != "":
				t.Fatalf("got nothing, want %s", tc.kind)
			case fs != nil && fs.Type != tc.kind:
				t.Fatalf("got %s, want %q", fs.Type, tc.kind)
			case fs != nil && (!strings.Contains(fs.Whole, tc.whole) || tc.whole == "" && fs.Whole != ""):
				t.Fatalf("whole because %q, want %q", fs.Whole, tc.whole)
			}
		})
	}
	if _, err := fsys.Probe(bytes.NewReader(xfs), 1<<20); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("region shorter than it is said to be: got error %v", err)
	}
}

// TestSignatures makes file systems with the tools of this machine.
func TestSignatures(t *testing.T) {
	for _, tc := range []struct {
		args []string // FILE stands for the image
		size int64
		want []string
	}{
		{[]string{"mkfs.xfs", "-q", "FILE"}, 320 << 20, []string{"xfs"}},
		{[]string{"mkfs.vfat", "-F", "12", "FILE"}, 1 << 20, []string{"vfat"}},
		{[]string{"mkfs.vfat", "-F", "32", "FILE"}, 64 << 20, []string{"vfat"}},
		{[]string{"mkfs.btrfs", "-q", "FILE"}, 128 << 20, []string{"btrfs"}},
		{[]string{"mkfs.ntfs", "-q", "-F", "FILE"}, 16 << 20, []string{"ntfs"}},
		{[]string{"mkfs.exfat", "FILE"}, 16 << 20, []string{"exfat"}},
		{[]string{"mke2fs", "-q", "-t", "ext4", "FILE"}, 16 << 20, []string{"ext"}},
		{[]string{"pvcreate", "-q", "FILE"}, 16 << 20, []string{"LVM2_member"}},
	} {
		t.Run(tc.args[0], func(t *testing.T) {
			bin, err := exec.LookPath(tc.args[0])
			if err != nil {
				if bin, err = exec.LookPath("/usr/sbin/" + tc.args[0]); err != nil {
					t.Skipf("%s is not installed", tc.args[0])
				}
			}
			name := filepath.Join(t.TempDir(), "image")
			f, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(tc.size); err != nil {
				t.Fatal(err)
			}
			var args []string
			for _, a := range tc.args[1:] {
				args = append(args, strings.ReplaceAll(a, "FILE", name))
			}
			if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
				t.Skipf("%s: %v\n%s", tc.args[0], err, out)
			}
			got, err := fsys.Signatures(f, tc.size)
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %v, %v, want %v", got, err, tc.want)
			}
		})
	}
}

// TestSignature puts one magic string after another in a region.
func TestSignature(t *testing.T) {
	for _, tc := range []struct {
		off   int
		magic string
		want  string
	}{
		{3, "NTFS    ", "[ntfs]"},
		{3, "EXFAT   ", "[exfat]"},
		{512 + 24, "LVM2 001", "[LVM2_member]"},
		{0, "LUKS\xba\xbe\x00\x02", "[crypto_LUKS]"},
		{64<<10 + 64, "_BHRfS_M", "[btrfs]"},
		{16 << 10, "\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", "[zfs_member]"},
		{0, "XFSB", "[xfs]"},
		{32<<10 + 1, "CD001", "[iso9660]"},
		{0, "hsqs", "[squashfs]"},
		{1080, "\x53\xef", "[ext]"},
		{1080, "\x53\xee", "[]"},
		{1, "XFSB", "[]"},
	} {
		data := make([]byte, 80<<10)
		copy(data[tc.off:], tc.magic)
		names, err := fsys.Signatures(bytes.NewReader(data), int64(len(data)))
		if got := fmt.Sprint(names); err != nil || got != tc.want {
			t.Errorf("%q at %d: got %s, %v, want %s", tc.magic, tc.off, got, err, tc.want)
		}
	}
}

func TestUUID(t *testing.T) {
	if got := fsys.UUID([16]byte{}); got != "" {
		t.Errorf("got %q for zeros", got)
	}
	if got, want := fsys.UUID([16]byte{0: 0xfe, 15: 1}), "fe000000-0000-0000-0000-000000000001"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
