package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/disk"
)

func TestConf(t *testing.T) {
	dir := t.TempDir()
	file, config := filepath.Join(dir, "part"), filepath.Join(dir, "config")
	if err := disk.Create(file, 1<<20); err != nil {
		t.Fatal(err)
	}
	text := "fsys main config\nfsys main open -V\n"
	if err := os.WriteFile(config, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name   string
		stdin  string
		args   []string
		status int
		stdout string
		stderr string
	}{
		{"none yet", "", []string{file}, 1, "", "no configuration"},
		{"store", "", []string{"-w", file, config}, 0, "", ""},
		{"print", "", []string{file}, 0, text, ""},
		{"store standard input", "dflag\n", []string{"-w", file}, 0, "", ""},
		{"print again", "", []string{file}, 0, "dflag\n", ""},
		{"too long", strings.Repeat("x", 1011), []string{"-w", file}, 1, "", "longer than 1010"},
		{"as long as can be", strings.Repeat("x", 1010), []string{"-w", file}, 0, "", ""},
		{"unchanged", "", []string{file}, 0, strings.Repeat("x", 1010), ""},
		{"too many", "", []string{file, config}, 2, "", "usage: fossil/conf"},
		{"missing", "", []string{file + ".none"}, 1, "", "no such file"},
	} {
		var stdout, stderr bytes.Buffer
		status := newCommand().Execute(t.Context(), step.args, strings.NewReader(step.stdin), &stdout, &stderr)
		if status != step.status || stdout.String() != step.stdout || !strings.Contains(stderr.String(), step.stderr) {
			t.Errorf("%s: status %d, %q, %q, want %d, %q, %q", step.name, status, stdout.String(), stderr.String(), step.status, step.stdout, step.stderr)
		}
	}
}
