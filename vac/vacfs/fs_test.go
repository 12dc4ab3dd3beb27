package vacfs_test

import (
	"testing"

	"go.uber.org/goleak"

	"strata/internal/ninep/ninetest"
	"strata/vac/vacfs"
	"strata/venti"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newFS returns an FS that is closed when the test ends.
func newFS(t testing.TB, br venti.BlockReader, cfg vacfs.Config, archives ...vacfs.Archive) *vacfs.FS {
	t.Helper()
	fs, err := vacfs.New(br, archives, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return fs
}

// TestGolden holds the tree of the golden archives, all at once, to the contract
// of 9P trees.
func TestGolden(t *testing.T) {
	st, scores := goldenStore(t), goldenScores(t)
	var all []vacfs.Archive
	for name, score := range scores {
		all = append(all, vacfs.Archive{Name: name, Source: score})
	}
	fs := newFS(t, st, vacfs.Config{NoPermissions: true}, all...)
	ninetest.TestTree(t, fs, ninetest.TreeConfig{User: "glenda", MaxFiles: 20000})
	ninetest.TestTree(t, fs, ninetest.TreeConfig{User: "glenda", Aname: scores["tree8k"] + "/tree"})
	ninetest.TestTree(t, fs, ninetest.TreeConfig{User: "glenda", Aname: "archive"})
}
