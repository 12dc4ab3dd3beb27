package command

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemory(t *testing.T) {
	if got := Memory(); got < 16<<20 {
		t.Errorf("Memory() = %d", got)
	}
	root := t.TempDir()
	for group, limit := range map[string]string{"a": "5000\n", "a/b": "max\n", "a/b/c": "7000\n", "d": "100\n", "e": "many\n"} {
		if err := os.MkdirAll(filepath.Join(root, group), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, group, "memory.max"), []byte(limit), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		own  string
		want int64
	}{
		{"", 6000},
		{"0::/\n", 6000},
		{"0::/a/b/c\n", 5000},
		{"2:memory:/d\n0::/a/b\n", 5000},
		{"0::/d", 100},
		{"0::/e\n", 6000},
		{"0::/none\n", 6000},
		{"0::/../../d\n", 100},
	} {
		if got := groupMemory(6000, tc.own, root); got != tc.want {
			t.Errorf("%q: %d, want %d", tc.own, got, tc.want)
		}
	}
}
