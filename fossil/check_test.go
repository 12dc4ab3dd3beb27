package fossil

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/internal/disk"
)

// TestCheckGolden finds what the original's check finds in its partitions.
func TestCheckGolden(t *testing.T) {
	for _, name := range []string{"local8k", "archived8k", "crashed8k"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := load(t, disk.NewMachine(), name+".fossil")
			fs, err := Open(d, Config{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			defer fs.Close(t.Context())
			var progress []string
			r, err := fs.Check(t.Context(), CheckConfig{Progress: func(l string) { progress = append(progress, l) }})
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			r.Print(&out, true)
			found := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			summary := found[0]
			if name == "crashed8k" {
				checkCrashed(t, r, summary)
				return
			}
			got := append(progress, found...)
			text, err := os.ReadFile(filepath.Join(goldenDir(t), name+".super.json"))
			if err != nil {
				t.Fatal(err)
			}
			var want struct{ Flchk []string }
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want.Flchk) {
				t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want.Flchk, "\n"))
			}
		})
	}
}

func checkCrashed(t *testing.T, r CheckResult, summary string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(goldenDir(t), "crashed8k.expect.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Clri     []string       `json:"flchk_clri"`
		Commands map[string]int `json:"flchk_commands"`
		Summary  string         `json:"flchk_summary"`
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	var clri []string
	commands := map[string]int{}
	for _, f := range r.Findings {
		cmd, path, _ := strings.Cut(f.Repair, " ")
		commands[cmd]++
		if cmd == "clri" {
			clri = append(clri, path)
		}
	}
	slices.Sort(clri)
	slices.Sort(want.Clri)
	if !slices.Equal(clri, want.Clri) || fmt.Sprint(commands) != fmt.Sprint(want.Commands) || summary != want.Summary {
		t.Errorf("found %v, %v, %s\nwant %v, %v, %s", clri, commands, summary, want.Clri, want.Commands, want.Summary)
	}
}
