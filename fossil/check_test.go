package fossil

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

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

// TestCheckLarge checks a partition of 3 GiB, at which the original's check
// crashes: in memory that does not grow with what is on it.
func TestCheckLarge(t *testing.T) {
	name := filepath.Join(t.TempDir(), "part")
	if err := disk.Create(name, 3<<30); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(name, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := Format(t.Context(), d, FormatConfig{}); err != nil {
		t.Fatal(err)
	}
	fs := mustOpen(t, d, Config{NoAtime: true})
	// Blocks all over the partition, most of them in two files with many pointers.
	for i := range 2 {
		f, err := walk(t, fs, "/active").Create(t.Context(), fmt.Sprint("file", i), 0o644, "ken")
		if err != nil {
			t.Fatal(err)
		}
		for k := range int64(400) {
			if _, err := f.WriteAt(t.Context(), []byte("something"), k*410*8192, "ken"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := fs.Snapshot(t.Context(), SnapConfig{}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, fs)
	fs = mustOpen(t, d, Config{ReadOnly: true, Memory: 1 << 20})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	r, err := fs.Check(t.Context(), CheckConfig{Snapshots: true})
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if err != nil || len(r.Findings) > 0 || r.Blocks < 390000 || r.Used < 1600 {
		t.Errorf("%+v, %v", r, err)
	}
	// Labels are read one block at a time, and forgotten.
	allocated := after.TotalAlloc - before.TotalAlloc
	if most := uint64(40 << 20); allocated > most {
		t.Errorf("%d bytes allocated in all, want at most %d", allocated, most)
	}
	t.Logf("%d blocks in %v, %d bytes allocated in all", r.Blocks, took, allocated)
	mustClose(t, fs)
}
