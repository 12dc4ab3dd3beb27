package interop

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strata/tests/harness"
)

// vacPairs are who stores and who extracts, with our server between.
func vacPairs(t *testing.T) []pair {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	if !theirs.Has("vac") || !theirs.Has("unvac") {
		t.Skip("this plan9port has no vac and unvac")
	}
	return []pair{{"ours, theirs", ours, theirs}, {"theirs, ours", theirs, ours}, {"ours, ours", ours, ours}}
}

// vacTrees are directories to store: one that is made, that of the golden
// data, and a part of this system, a larger one in a trial.
func vacTrees(t *testing.T) map[string]string {
	made := t.TempDir()
	makeTree(t, made)
	for _, name := range []string{strings.Repeat("n", 255), "ünïcode", "new\nline", "a", "ab", "abc", "..."} {
		if err := os.WriteFile(filepath.Join(made, name), []byte(name), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	trees := map[string]string{"made": made}
	system := "/usr/share/perl5"
	if os.Getenv("STRATA_TRIAL") != "" {
		system = "/usr/include"
	}
	if _, err := os.Stat(system); err == nil {
		trees["system"] = system
	}
	golden := "../../../shared/golden/tree.tar.gz"
	if dir := os.Getenv("STRATA_SHARED"); dir != "" {
		golden = dir + "/golden/tree.tar.gz"
	}
	if _, err := os.Stat(golden); err == nil && os.Getuid() == 0 {
		dir := t.TempDir()
		if out, err := exec.Command("tar", "-xzf", golden, "-C", dir).CombinedOutput(); err != nil {
			t.Fatalf("tar: %v\n%s", err, out)
		}
		trees["golden"] = dir + "/tree"
	}
	return trees
}

// run runs a program of a suite in a directory.
func run(t *testing.T, s harness.Suite, dir string, stdin []byte, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := s.Command(t.Context(), name, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

func mustRun(t *testing.T, s harness.Suite, dir string, name string, args ...string) string {
	t.Helper()
	stdout, stderr, err := run(t, s, dir, nil, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", s.Name, name, err, stderr)
	}
	return strings.TrimSpace(stdout)
}

// TestVacBothWays stores trees with one make of vac and extracts them with the
// other's unvac.
func TestVacBothWays(t *testing.T) {
	trees := vacTrees(t)
	for _, p := range vacPairs(t) {
		srv := harness.Ours(t).Serve(t, harness.Ours(t).Format(t, 256<<20, 3))
		t.Setenv("venti", srv.Addr)
		for name, tree := range trees {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				score := mustRun(t, p.server, tree, "vac", ".")
				out := t.TempDir()
				stdout, stderr, err := run(t, p.client, out, nil, "unvac", "-T", score)
				if err != nil && p.client.Name != "plan9port" && !onlyDamagedLinks(p, stderr) {
					t.Errorf("unvac: %v\n%s%s", err, stdout, stderr)
				}
				compareTrees(t, p, tree, out)
			})
		}
		srv.Kill()
	}
}

// onlyDamagedLinks tells whether unvac complains of nothing but the links that
// plan9port's vac spoils, and devices.
func onlyDamagedLinks(p pair, stderr string) bool {
	for line := range strings.Lines(stderr) {
		known := strings.Contains(line, "devices are made only on request") || strings.HasSuffix(line, " errors\n") ||
			p.server.Name == "plan9port" && strings.Contains(line, "target of the link is lost")
		if !known {
			return false
		}
	}
	return true
}

// compareTrees compares what the pair is able to restore.
func compareTrees(t *testing.T, p pair, want, got string) {
	t.Helper()
	theirs := p.client.Name == "plan9port"
	n := 0
	err := filepath.WalkDir(want, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(want, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.IsDir() && !info.Mode().IsRegular() && theirs || info.Mode()&fs.ModeDevice != 0 {
			return nil // unvac of plan9port leaves it out; ours, without --devices, too
		}
		if theirs && strings.Contains(rel, "\xff") {
			return nil // and it changes such names
		}
		if p.server.Name == "plan9port" && info.Mode()&fs.ModeSymlink != 0 {
			if target, err := os.Readlink(path); err == nil && len(target) > 8 {
				return nil // and its vac such targets
			}
		}
		n++
		out, err := os.Lstat(filepath.Join(got, rel))
		if err != nil {
			t.Error(err)
			return nil
		}
		if info.Mode().IsRegular() {
			a, errA := os.ReadFile(path)
			b, errB := os.ReadFile(filepath.Join(got, rel))
			if errA != nil || errB != nil || !bytes.Equal(a, b) {
				t.Errorf("%s: other contents: %v, %v", rel, errA, errB)
			}
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			a, _ := os.Readlink(path)
			if b, err := os.Readlink(filepath.Join(got, rel)); err != nil || a != b {
				t.Errorf("%s: link to %q, %v, want %q", rel, b, err, a)
			}
			return nil // plan9port's vac takes mode and time from what it leads to
		}
		if theirs && info.ModTime().Unix() > math.MaxInt32 {
			return nil // to it, that was before 1970
		}
		if rel != "." && (!theirs || !info.IsDir()) && out.ModTime().Unix() != info.ModTime().Unix() {
			t.Errorf("%s: changed %v, want %v", rel, out.ModTime(), info.ModTime())
		}
		// Modes go through the umask, and set-id bits are lost.
		if perm := info.Mode().Perm() &^ umask; rel != "." && info.Mode().IsRegular() && out.Mode() != perm {
			t.Errorf("%s: mode %v, want %v", rel, out.Mode(), perm)
		}
		return nil
	})
	if err != nil || n < 5 {
		t.Errorf("compared %d files: %v", n, err)
	}
}

var umask = func() fs.FileMode {
	m := unix.Umask(0)
	unix.Umask(m)
	return fs.FileMode(m)
}()

// TestVacScore stores what plan9port's vac stores alike each time but for its
// clock, within one second of it, and asks ours for the same score.
func TestVacScore(t *testing.T) {
	pairs := vacPairs(t)
	ours, theirs := pairs[0].server, pairs[0].client
	srv := ours.Serve(t, ours.Format(t, 64<<20, 4))
	t.Setenv("venti", srv.Addr)
	dir := t.TempDir()
	var args []string
	for i, size := range []int{0, 1, 100, 8191, 8192, 8193, 100_000, 409 * 8192, 409*8192 + 1} {
		name := fmt.Sprintf("f%d", i)
		if err := os.WriteFile(filepath.Join(dir, name), random(uint64(i), size), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	zeros := make([]byte, 30_000)
	for name, data := range map[string][]byte{"g": zeros, "d/e/deep": []byte("deep")} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args = append(args, "d", "g")
	slices.Sort(args)
	for _, flags := range [][]string{nil, {"-b", "1k"}, {"-b", "56k"}} {
		for try := 1; ; try++ {
			// Times of access that reading leaves alone.
			setTimes(t, dir, time.Now())
			before := time.Now().Unix()
			want := mustRun(t, theirs, dir, "vac", append(flags, args...)...)
			if time.Now().Unix() == before {
				got := mustRun(t, ours, dir, "vac", append(append(flags, fmt.Sprintf("--plan9port=%d", before)), args...)...)
				if got != want {
					t.Errorf("vac %v: %s, want %s", flags, got, want)
				}
				break
			}
			if try == 20 {
				t.Skip("plan9port's vac never ends within a second here")
			}
		}
	}
}

// setTimes gives all files in a directory the time of access now, and older
// times of change.
func setTimes(t *testing.T, dir string, now time.Time) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, now, now.Add(-time.Hour))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestUnvacLists compares what both unvacs say of archives by both vacs.
func TestUnvacLists(t *testing.T) {
	pairs := vacPairs(t)
	ours, theirs := pairs[0].server, pairs[0].client
	srv := ours.Serve(t, ours.Format(t, 64<<20, 4))
	t.Setenv("venti", srv.Addr)
	t.Setenv("TZ", "UTC")
	dir := t.TempDir()
	makeTree(t, dir)
	if err := unix.Mkfifo(dir+"/pipe", 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []harness.Suite{ours, theirs} {
		score := mustRun(t, s, dir, "vac", ".")
		for _, flags := range []string{"-t", "-tv"} {
			got, want := mustRun(t, ours, dir, "unvac", flags, score), mustRun(t, theirs, dir, "unvac", flags, score)
			if got != want || got == "" {
				t.Errorf("unvac %s of an archive by %s prints\n%s\nwant\n%s", flags, s.Name, got, want)
			}
		}
		got, want := mustRun(t, ours, dir, "unvac", "-c", score, "d2/f100"), mustRun(t, theirs, dir, "unvac", "-c", score, "d2/f100")
		if got != want {
			t.Errorf("unvac -c of an archive by %s: %d bytes, want %d", s.Name, len(got), len(want))
		}
	}
}

// TestVacDaily has both vacs add to one archive in turn, and both unvacs read
// every day.
func TestVacDaily(t *testing.T) {
	pairs := vacPairs(t)
	ours, theirs := pairs[0].server, pairs[0].client
	srv := ours.Serve(t, ours.Format(t, 64<<20, 4))
	t.Setenv("venti", srv.Addr)
	dir := t.TempDir()
	for i, s := range []harness.Suite{theirs, ours, ours, theirs, ours} {
		text := fmt.Sprintf("day %d", i)
		if err := os.WriteFile(dir+"/f", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		mustRun(t, s, dir, "vac", "-a", "days.vac", "f")
	}
	days := time.Now().Format("2006/0102")
	for _, s := range []harness.Suite{ours, theirs} {
		for i := range 5 {
			path := days + "/f"
			if i > 0 {
				path = fmt.Sprintf("%s.%d/f", days, i)
			}
			if got, want := mustRun(t, s, dir, "unvac", "-c", "days.vac", path), fmt.Sprintf("day %d", i); got != want {
				t.Errorf("%s: %s holds %q, want %q", s.Name, path, got, want)
			}
		}
	}
}
