package vac

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// A Filter says which files are left out of an archive, by their paths as
// they are built from the arguments. Its zero value leaves out none.
//
// A pattern matches a whole path. In it * is any run of characters but /, ? one
// character but /; at the beginning of an element of the path neither matches a
// dot. ... is any run of characters, [a-z] one of a class and [~a-z] one
// outside it, but never /. Every other character stands for itself.
type Filter struct {
	rules []rule
}

type rule struct {
	re      *regexp.Regexp
	exclude bool
}

// Exclude adds a pattern. Of the patterns that match a path, the one added
// first decides.
func (f *Filter) Exclude(pattern string) error { return f.add(pattern, true) }

// Include adds a pattern of files that are not left out.
func (f *Filter) Include(pattern string) error { return f.add(pattern, false) }

func (f *Filter) add(pattern string, exclude bool) error {
	re, err := compile(pattern)
	if err != nil {
		return fmt.Errorf("bad pattern %q: %w", pattern, err)
	}
	f.rules = append(f.rules, rule{re, exclude})
	return nil
}

// Read adds the patterns of a file. It has lines "exclude pattern" and
// "include pattern", empty lines, and comments after #.
func (f *Filter) Read(r io.Reader) error {
	in := bufio.NewScanner(r)
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSpace(in.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		word, pattern, _ := strings.Cut(line, " ")
		if i := strings.IndexAny(line, " \t"); i >= 0 {
			word, pattern = line[:i], strings.TrimSpace(line[i:])
		}
		if word != "include" && word != "exclude" || pattern == "" {
			return fmt.Errorf("line %d: %q is neither include nor exclude with a pattern", n, line)
		}
		if err := f.add(pattern, word == "exclude"); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return in.Err()
}

// Excludes tells whether the file with a path is left out.
func (f *Filter) Excludes(path string) bool {
	for _, r := range f.rules {
		if r.re.MatchString(path) {
			return r.exclude
		}
	}
	return false
}

// compile makes a pattern a regular expression.
func compile(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString(`(?s)\A(?:`)
	for p := pattern; p != ""; {
		start := len(p) == len(pattern) || pattern[len(pattern)-len(p)-1] == '/'
		switch {
		case strings.HasPrefix(p, "..."):
			b.WriteString(".*")
			p = p[3:]
		case p[0] == '*':
			if start {
				b.WriteString("(?:[^/.][^/]*)?")
			} else {
				b.WriteString("[^/]*")
			}
			p = p[1:]
		case p[0] == '?':
			if start {
				b.WriteString("[^/.]")
			} else {
				b.WriteString("[^/]")
			}
			p = p[1:]
		case p[0] == '[':
			class, rest, ok := strings.Cut(p[1:], "]")
			if !ok {
				return nil, errors.New("[ without ]")
			}
			if err := compileClass(&b, class); err != nil {
				return nil, err
			}
			p = rest
		default:
			n := strings.IndexAny(p[1:], "*?[.") + 1
			if n == 0 {
				n = len(p)
			}
			// Bytes that are no UTF-8 stand for any such byte.
			b.WriteString(regexp.QuoteMeta(string([]rune(p[:n]))))
			p = p[n:]
		}
	}
	b.WriteString(`)\z`)
	return regexp.Compile(b.String())
}

// compileClass writes what is between [ and ].
func compileClass(b *strings.Builder, class string) error {
	class, not := strings.CutPrefix(class, "~")
	runes := []rune(class)
	if len(runes) == 0 {
		return errors.New("empty class")
	}
	b.WriteByte('[')
	if not {
		b.WriteString("^/")
	}
	for i := 0; i < len(runes); i++ {
		lo, hi := runes[i], runes[i]
		if i+2 < len(runes) && runes[i+1] == '-' {
			hi = runes[i+2]
			i += 2
		}
		switch {
		case lo == '/' || hi == '/':
			return errors.New("/ in a class")
		case hi < lo:
			return fmt.Errorf("range %c-%c is empty", lo, hi)
		}
		// A range such as [+-a] holds a slash in between, which no class matches.
		if lo < '/' && '/' < hi {
			fmt.Fprintf(b, `\x{%x}-\x{%x}\x{%x}-\x{%x}`, lo, '/'-1, '/'+1, hi)
		} else {
			fmt.Fprintf(b, `\x{%x}-\x{%x}`, lo, hi)
		}
	}
	b.WriteByte(']')
	return nil
}
