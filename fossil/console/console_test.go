package console

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"strata/fossil"
	"strata/internal/disk"
	"strata/venti/ventitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A clock is a time that a test sets.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newClock() *clock { return &clock{time.Date(2026, 11, 27, 15, 0, 0, 0, time.Local)} }

// newHost returns a host that is closed when the test ends, with a Venti
// server in memory.
func newHost(t *testing.T, cfg Config) *Host {
	t.Helper()
	if cfg.Venti == nil {
		cfg.Venti = ventitest.NewMemory()
	}
	h := New(cfg)
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// newPartition makes a file system of 16 MiB in dir, and returns its name.
func newPartition(t *testing.T, dir, name string) string {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := disk.Create(name, 16<<20); err != nil {
		t.Fatal(err)
	}
	p, err := disk.Open(name, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	now := newClock()
	if err := fossil.Format(t.Context(), p, fossil.FormatConfig{BlockSize: 4096, Now: now.Now}); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestConversations has each conversation in testdata, with a host whose
// clock stands still and which has no file systems yet; in the directory $dir
// are two formatted partitions, $dir/part and $dir/other. Lines are
//
//	# a comment
//	> a line for the console
//	what it has to say, with tabs as \t, where * is anything
//	! the error, where there is one
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { converse(t, file) })
	}
}

func converse(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	newPartition(t, dir, "part")
	newPartition(t, dir, "other")
	h := newHost(t, Config{Now: newClock().Now, Dir: dir})
	s := h.NewSession()
	var command, want string
	at := 0
	finish := func() {
		if command == "" {
			return
		}
		var out bytes.Buffer
		if err := s.Exec(t.Context(), &out, command); err != nil {
			fmt.Fprintf(&out, "! %v\n", err)
		}
		got := strings.ReplaceAll(strings.ReplaceAll(out.String(), dir, "$dir"), "\t", `\t`)
		if !glob(want, got) {
			t.Errorf("%s:%d: %s\ngot:\n%swant:\n%s", file, at, command, got, want)
		}
		command, want = "", ""
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "# "), line == "":
		case strings.HasPrefix(line, "> "):
			finish()
			command, at = strings.ReplaceAll(line[2:], "$dir", dir), i+1
		default:
			want += line + "\n"
		}
	}
	finish()
}

// glob tells whether text is pattern, in which * is anything within a line.
func glob(pattern, text string) bool {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString(text)
}
