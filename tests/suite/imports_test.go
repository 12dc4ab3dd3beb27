// Package suite holds tests of the house as a whole.
package suite

import (
	"os/exec"
	"strings"
	"testing"
)

// allowed says which packages of ours each part of the house may import,
// directly or not, besides its own. Commands may import what their noun may.
var allowed = []struct {
	part string
	may  []string
}{
	{"strata/internal/command", nil},
	{"strata/internal/disk", nil},
	{"strata/internal/logs", nil},
	{"strata/internal/lru", nil},
	{"strata/internal/netaddr", nil},
	{"strata/internal/ninep", nil},
	{"strata/venti", []string{"strata/internal"}},
	{"strata/vac", []string{"strata/venti", "strata/internal"}},
	{"strata/fossil", []string{"strata/vac", "strata/venti", "strata/internal"}},
	{"strata/vdisk", []string{"strata/vac", "strata/venti", "strata/internal"}},
	{"strata/tools", []string{"strata/vdisk", "strata/fossil", "strata/vac", "strata/venti", "strata/internal"}},
	{"strata/tests", []string{"strata/vdisk", "strata/fossil", "strata/vac", "strata/venti", "strata/internal"}},
}

func within(pkg, part string) bool { return pkg == part || strings.HasPrefix(pkg, part+"/") }

// TestImportsPointOneWay fails on an import that points against DESIGN's
// one direction.
func TestImportsPointOneWay(t *testing.T) {
	// What a package imports, one "package: import import..." a line.
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}:{{range .Deps}} {{.}}{{end}}`, "strata/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		pkg, deps, _ := strings.Cut(strings.TrimSpace(line), ":")
		part, may := "", []string(nil)
		for _, a := range allowed {
			if within(pkg, a.part) {
				part, may = a.part, a.may
			}
		}
		if part == "" {
			t.Errorf("%s belongs to no part of the house", pkg)
			continue
		}
		seen++
		for _, dep := range strings.Fields(deps) {
			ok := !within(dep, "strata") || within(dep, part)
			for _, m := range may {
				ok = ok || within(dep, m)
			}
			if !ok {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
	if seen == 0 {
		t.Fatal("go list found no package")
	}
}

// TestFormatsDoNotKnowTheEngine keeps the disk formats and the wire free of
// the engine that uses them, and trees free of both.
func TestFormatsDoNotKnowTheEngine(t *testing.T) {
	for pkg, never := range map[string][]string{
		"strata/venti":                {"strata/venti/store", "strata/venti/hashtree", "strata/venti/internal"},
		"strata/venti/hashtree":       {"strata/venti/store", "strata/venti/internal"},
		"strata/venti/internal/arena": {"strata/venti/store"},
		"strata/venti/internal/index": {"strata/venti/store"},
		"strata/vac":                  {"strata/venti/store", "strata/venti/internal", "strata/fossil", "strata/vdisk"},
		"strata/fossil":               {"strata/venti/store", "strata/venti/internal", "strata/vdisk"},
		"strata/vdisk":                {"strata/venti/store", "strata/venti/internal", "strata/fossil"},
	} {
		out, err := exec.Command("go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatalf("go list %s: %v", pkg, err)
		}
		for dep := range strings.Lines(string(out)) {
			for _, n := range never {
				if within(strings.TrimSpace(dep), n) {
					t.Errorf("%s imports %s", pkg, strings.TrimSpace(dep))
				}
			}
		}
	}
}
