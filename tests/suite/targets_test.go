package suite

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// commands returns what a makefile runs for each target, and the targets it
// names, in order. Variables are written alike in both languages after the
// replacements.
func commands(t *testing.T, path string, target *regexp.Regexp) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	name := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if m := target.FindStringSubmatch(line); m != nil {
			name = m[1]
			all[name] = []string{"needs" + m[2]}
		} else if cmd, ok := strings.CutPrefix(line, "\t"); ok && name != "" {
			cmd = strings.NewReplacer("$(", "$", ")", "", "$$", "$", `"`, "'").Replace(cmd)
			all[name] = append(all[name], cmd)
		} else if line != "" {
			name = ""
		}
	}
	return all
}

// TestMakeAndMkDoTheSame compares Makefile and mkfile target by target.
func TestMakeAndMkDoTheSame(t *testing.T) {
	mk := commands(t, "../../mkfile", regexp.MustCompile(`^([a-z]+):V:(.*)$`))
	mak := commands(t, "../../Makefile", regexp.MustCompile(`^([a-z]+):(.*)$`))
	if len(mak) == 0 {
		t.Fatal("no target found")
	}
	for name := range mak {
		if !slices.Equal(mak[name], mk[name]) {
			t.Errorf("%s: make does %q, mk %q", name, mak[name], mk[name])
		}
	}
	for _, want := range strings.Fields("all test race fuzz bench demo run clean deps trial") {
		if mk[want] == nil {
			t.Errorf("mkfile lacks %s", want)
		}
		if mak[want] == nil {
			t.Errorf("Makefile lacks %s", want)
		}
	}
	bin, err := exec.LookPath("mk")
	if err != nil {
		bin = "/usr/lib/plan9/bin/mk"
		if _, err := os.Stat(bin); err != nil {
			t.Skip("no mk (package 9base) to read the mkfile with")
		}
	}
	cmd := exec.Command(bin, "-n", "test")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "go test") {
		t.Errorf("mk -n test: %v\n%s", err, out)
	}
}
