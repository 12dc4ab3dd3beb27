package vacfs_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/disk"
	"strata/internal/ninep/ninetest"
	"strata/vac/vacfs"
	"strata/venti"
	"strata/venti/store"
)

// goldenFile returns the contents of a file that the original programs have
// made, or skips the test. It unpacks .gz.
func goldenFile(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("STRATA_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared") // beside the module
	}
	b, err := os.ReadFile(filepath.Join(dir, "golden", name))
	if os.IsNotExist(err) {
		t.Skipf("no golden data: %v", err)
	}
	if err == nil && strings.HasSuffix(name, ".gz") {
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			b, err = io.ReadAll(z)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenStore opens the main store of the golden data.
func goldenStore(t testing.TB) venti.Store {
	t.Helper()
	m := disk.NewMachine()
	load := func(name string) disk.File {
		b := goldenFile(t, "v5/"+name)
		d := m.NewDisk(name, int64(len(b)))
		if _, err := d.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		return d
	}
	cfg := store.Config{
		LumpMem: 4 << 20, IndexMem: 4 << 20, Interval: -1, Arenas: []disk.File{load("arenas.gz")},
		Sections: []disk.File{load("isect0.gz"), load("isect1.gz")},
	}
	st, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// goldenScores returns the scores of the golden archives by their names.
func goldenScores(t testing.TB) map[string]string {
	t.Helper()
	scores := map[string]string{}
	for line := range strings.Lines(string(goldenFile(t, "v5/scores.txt"))) {
		if name, score, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(score, "vac:") {
			scores[name] = score
		}
	}
	return scores
}

// TestGolden holds the trees of golden archives, all at once, to the contract of
// 9P trees.
func TestGolden(t *testing.T) {
	st, scores := goldenStore(t), goldenScores(t)
	var all []vacfs.Archive
	for _, name := range []string{"archive", "merged", "stdin", "exact-1k", "exact-archive-day2"} {
		all = append(all, vacfs.Archive{Name: name, Source: scores[name]})
	}
	fs := newFS(t, st, vacfs.Config{NoPermissions: true}, all...)
	ninetest.TestTree(t, fs, ninetest.TreeConfig{User: "glenda"})
}
