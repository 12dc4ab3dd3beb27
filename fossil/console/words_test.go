package console

import (
	"slices"
	"strings"
	"testing"

	"strata/vac/meta"
)

func TestSplitWords(t *testing.T) {
	for _, tc := range []struct {
		line string
		want []string
	}{
		{"", nil},
		{" a\t b\r", []string{"a", "b"}},
		{"'a b'c", []string{"a bc"}},
		{"''", []string{""}},
		{"it''''s", []string{"it's"}},
		{"'it''s' '' x", []string{"it's", "", "x"}},
		{`a\ b "c d"`, []string{`a\`, "b", `"c`, `d"`}}, // only rc's quotes
	} {
		if got, err := splitWords(tc.line); err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%q: %q, %v, want %q", tc.line, got, err, tc.want)
		}
	}
	for _, line := range []string{"'", "a'b", "'a''"} {
		if got, err := splitWords(line); err == nil {
			t.Errorf("%q: %q", line, got)
		}
	}
}

// FuzzSplitWords splits lines, and joins the words again.
func FuzzSplitWords(f *testing.F) {
	for _, line := range []string{"fsys main config /dev/sdb", "create '/active/a ''b''' adm adm d775", "echo ''", "'", "# x"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitWords(line)
		if err != nil {
			return
		}
		again, err := splitWords(Join(words))
		if err != nil || !slices.Equal(again, words) {
			t.Errorf("%q is %q, and that %q: %q, %v", line, words, Join(words), again, err)
		}
	})
}

// FuzzMode reads modes, and writes them again.
func FuzzMode(f *testing.F) {
	for _, text := range []string{"d775", "alT600", "YUGalLdHSATs777", "t0", "8", "d", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMode(text)
		if err != nil {
			return
		}
		if again, err := parseMode(formatMode(m)); err != nil || again != m {
			t.Errorf("%q is %#o, and that %q: %#o, %v", text, m, formatMode(m), again, err)
		}
	})
}

// FuzzNine reads messages for the command 9p, which must be such that the
// protocol has them, or be refused.
func FuzzNine(f *testing.F) {
	for _, line := range []string{"Tversion 8192 9P2000", "Twalk 0 1 a b", "Twstat 1 ~0 ~0 ~0 600 ~0 5", "Tread 1 0x10 ~0", "Tflush"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Fields(line)
		if len(words) == 0 {
			return
		}
		m, err := parseNine(&Call{Args: words})
		if err == nil && m.Text(0) == "" {
			t.Errorf("%q is no message", line)
		}
	})
}

func TestFormatMode(t *testing.T) {
	all := meta.ModeSticky | meta.ModeSetuid | meta.ModeSetgid | meta.ModeAppend | meta.ModeExclusive | meta.ModeLink | meta.ModeDir |
		meta.ModeHidden | meta.ModeSystem | meta.ModeArchive | meta.ModeTemporary | meta.ModeSnapshot | 0o750
	if got := formatMode(all); got != "YUGalLdHSATs750" {
		t.Errorf("%s", got)
	}
}
