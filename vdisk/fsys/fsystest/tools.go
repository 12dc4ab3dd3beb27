package fsystest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strata/vdisk/fsys"
)

// Need returns the path of a program, or skips the test.
func Need(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// Run runs a program and returns what it prints. Exit statuses up to ok are
// successes.
func Run(t testing.TB, ok int, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(Need(t, name), args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", "MTOOLS_SKIP_CHECK=1")
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() > ok || cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out) + stderr.String()
}

// Sparse makes an empty file of size bytes in a directory of its own.
func Sparse(t testing.TB, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return name
}

// Noise makes a file of n bytes that nothing can compress.
func Noise(t testing.TB, name string, n int) {
	t.Helper()
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Tree makes a directory of n files of all sizes below max, in directories
// d0 to d4, and returns its name.
func Tree(t testing.TB, n, max int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	r := rand.New(rand.NewPCG(uint64(n), 2))
	for i := range n {
		Noise(t, filepath.Join(dir, fmt.Sprintf("d%d", i%5), fmt.Sprintf("a file with number %d", i)), r.IntN(max))
	}
	return dir
}

// Litter writes garbage to what is free in an image: all of it, or the first
// MiBs of a large one.
func Litter(t testing.TB, name string, free []fsys.Extent) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := bytes.Repeat([]byte("garbage "), 8<<10)
	for left := int64(32 << 20); len(free) > 0 && left > 0; free = free[1:] {
		x := free[0]
		left -= x.Len
		for off := x.Off; off < x.End() && off < x.Off+32<<20; off += int64(len(b)) {
			if _, err := f.WriteAt(b[:min(int64(len(b)), x.End()-off)], off); err != nil {
				t.Fatal(err)
			}
		}
	}
}
