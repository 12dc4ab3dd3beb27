package vac

import (
	"regexp"
	"strings"
	"sync/atomic"
)

// A Selection chooses files of an archive by paths and patterns, as in Filter.
// What lies below a directory that is chosen is chosen, too. Its methods may be
// called at once.
type Selection struct {
	args []*selected
}

type selected struct {
	text   string
	re     *regexp.Regexp
	prefix string // what all paths that re matches begin with
	found  atomic.Bool
}

// NewSelection returns a selection of paths and patterns. A path that looks
// like a pattern chooses the file of that name, too.
func NewSelection(args []string) (*Selection, error) {
	s := new(Selection)
	for _, arg := range args {
		arg = strings.Trim(arg, "/")
		re, err := compile(arg)
		if err != nil {
			return nil, err
		}
		prefix := arg
		if i := strings.IndexAny(arg, "*?["); i >= 0 {
			prefix = arg[:i]
		}
		if i := strings.Index(prefix, "..."); i >= 0 {
			prefix = prefix[:i]
		}
		s.args = append(s.args, &selected{text: arg, re: re, prefix: prefix})
	}
	return s, nil
}

// Match tells whether an argument names the path.
func (s *Selection) Match(path string) bool {
	matched := false
	for _, a := range s.args {
		if a.text == path || a.re.MatchString(path) {
			a.found.Store(true)
			matched = true
		}
	}
	return matched
}

// Below tells whether an argument may name something below the directory at
// the path.
func (s *Selection) Below(path string) bool {
	path += "/"
	for _, a := range s.args {
		if strings.HasPrefix(a.text, path) || strings.HasPrefix(a.prefix, path) ||
			a.prefix != a.text && strings.HasPrefix(path, a.prefix) {
			return true
		}
	}
	return false
}

// Missing returns the arguments that have named nothing.
func (s *Selection) Missing() []string {
	var list []string
	for _, a := range s.args {
		if !a.found.Load() {
			list = append(list, a.text)
		}
	}
	return list
}
