package interop

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/tests/harness"
)

// withVenti returns s with $venti set: the one way to tell plan9port's vbackup
// and vcat where the server is.
func withVenti(s harness.Suite, addr string) harness.Suite {
	s.Env = append(slices.Clone(s.Env), "venti="+addr)
	return s
}

// backedUp runs a suite's vbackup and returns the score.
func backedUp(t *testing.T, s harness.Suite, args ...string) string {
	t.Helper()
	out := s.Run(t, nil, "vbackup", append([]string{"-m", "host", "-M", "/mnt"}, args...)...)
	words := strings.Fields(out)
	if len(words) < 4 || words[0] != "mount" || !strings.HasPrefix(words[1], "/host/") || !strings.HasSuffix(words[1], "/mnt") {
		t.Fatalf("%s vbackup printed %q", s.Name, out)
	}
	return words[2]
}

// TestVbackup has each suite's vcat give back what the other's vbackup stored,
// as far as plan9port can: its vbackup needs blocks of 4 KiB, and neither of its
// two sees which blocks of an ext4 group are in use that was never written to.
func TestVbackup(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	for _, tc := range []struct {
		name, args        string
		theyStore, theyGo bool
	}{
		{"ext2, 1 KiB", "-t ext2 -b 1024", false, true},
		{"ext2, 2 KiB", "-t ext2 -b 2048", false, true},
		{"ext2, 4 KiB", "-t ext2 -b 4096", true, true},
		{"ext3, 1 KiB", "-t ext3 -b 1024", false, true},
		{"ext3, 4 KiB", "-t ext3 -b 4096", true, true},
		{"ext4, 4 KiB, 32 bits, one group", "-t ext4 -b 4096 -O ^64bit", true, true},
		{"ext4, 1 KiB, 64 bits", "-t ext4 -b 1024 -O 64bit", false, false},
		{"ext4, 4 KiB, 64 bits, groups of 8 MiB", "-t ext4 -b 4096 -O 64bit -g 2048", false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "fs")
			mkext(t, image, strings.Fields(tc.args)...)
			want, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			srv := ours.Serve(t, ours.Format(t, 8<<20, 8))
			ours, theirs := withVenti(ours, srv.Addr), withVenti(theirs, srv.Addr)
			score := backedUp(t, ours, image)
			if !strings.HasPrefix(score, "ext2:") {
				t.Errorf("our vbackup prints the score %s", score)
			}
			readers := []harness.Suite{ours}
			if tc.theyGo {
				readers = append(readers, theirs)
			}
			for _, s := range readers {
				if got := vcat(t, s, score); got != string(want) {
					t.Errorf("vcat of %s gives %d bytes that are not the %d of the image", s.Name, len(got), len(want))
				}
			}
			// To a pipe, too.
			if got := ours.Run(t, nil, "vcat", score); got != string(want) {
				t.Errorf("our vcat puts %d bytes into a pipe, want the %d of the image", len(got), len(want))
			}
			if tc.theyStore {
				if their := backedUp(t, theirs, image); their != score {
					t.Errorf("our root is %s, theirs %s", score, their)
				}
			}
		})
	}
}

// TestVbackupIncremental has each suite go on from the other's backup.
func TestVbackupIncremental(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	image := filepath.Join(t.TempDir(), "fs")
	mkext(t, image, "-t", "ext3", "-b", "4096")
	srv := ours.Serve(t, ours.Format(t, 8<<20, 8))
	ours, theirs = withVenti(ours, srv.Addr), withVenti(theirs, srv.Addr)
	first := backedUp(t, ours, image)

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, random(5, 300000), 0o644); err != nil {
		t.Fatal(err)
	}
	debugfs, err := exec.LookPath("debugfs")
	if err != nil {
		t.Skip("no debugfs (package e2fsprogs)")
	}
	cmd := exec.Command(debugfs, "-w", image)
	cmd.Stdin = strings.NewReader("rm d0/f0\nwrite " + file + " new\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("debugfs: %v\n%s", err, out)
	}
	want, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	second := backedUp(t, ours, image, first)
	if their := backedUp(t, theirs, image, first); their != second || second == first {
		t.Errorf("from %s our root is %s, theirs %s", first, second, their)
	}
	for _, s := range []harness.Suite{ours, theirs} {
		// What was deleted is free, and reads as zeros.
		got := vcat(t, s, second)
		if len(got) != len(want) || !bytes.Contains([]byte(got), random(5, 300000)[:4096]) {
			t.Errorf("vcat of %s gives %d bytes without the new file", s.Name, len(got))
		}
	}
	if a, b := vcat(t, ours, second), vcat(t, theirs, second); a != b {
		t.Error("their vcat gives other bytes than ours")
	}
}
