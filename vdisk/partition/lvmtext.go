package partition

import (
	"strconv"

	"strata/vdisk/fsys"
)

// A section of LVM's metadata is
//
//	name {
//		name = value        # a comment
//		name = [value, value]
//		name { ... }
//	}
//
// where a value is a number or a text between quotes, in which a backslash
// stands before a quote or a backslash.
type section struct {
	name     string
	values   map[string][]any // int64 or string
	sections []*section
}

// text returns a value, or "".
func (s *section) text(name string) string {
	if v := s.values[name]; len(v) == 1 {
		t, _ := v[0].(string)
		return t
	}
	return ""
}

// number returns a value, or -1.
func (s *section) number(name string) int64 {
	if v := s.values[name]; len(v) == 1 {
		if n, ok := v[0].(int64); ok {
			return n
		}
	}
	return -1
}

// stripe returns the one stripe of a segment: a physical volume, and its first
// extent.
func (s *section) stripe() (name string, extent int64, ok bool) {
	v := s.values["stripes"]
	if len(v) != 2 {
		return "", 0, false
	}
	name, ok1 := v[0].(string)
	extent, ok2 := v[1].(int64)
	return name, extent, ok1 && ok2
}

const maxSectionDepth = 8

// parseLVM reads metadata. The error is uncertain.
func parseLVM(b []byte) (*section, error) {
	p := &lvmParser{b: b}
	s, ok := p.section("", 0)
	if !ok || p.at != len(b) {
		return nil, fsys.Uncertain("bad metadata of a physical volume at byte %d", p.at)
	}
	return s, nil
}

type lvmParser struct {
	b  []byte
	at int
}

// space skips white space and comments, and returns the next byte, or 0.
func (p *lvmParser) space() byte {
	for comment := false; p.at < len(p.b); p.at++ {
		switch c := p.b[p.at]; {
		case c == '#':
			comment = true
		case c == '\n':
			comment = false
		case c == ' ', c == '\t', c == '\r', comment:
		default:
			return c
		}
	}
	return 0
}

// section reads what is between braces, or all there is at depth 0.
func (p *lvmParser) section(name string, depth int) (*section, bool) {
	s := &section{name: name, values: make(map[string][]any)}
	for {
		switch c := p.space(); {
		case c == 0:
			return s, depth == 0
		case c == '}':
			p.at++
			return s, depth > 0
		}
		word := p.word()
		if word == "" {
			return nil, false
		}
		switch p.space() {
		case '=':
			p.at++
			v, ok := p.value()
			if _, twice := s.values[word]; twice || !ok {
				return nil, false
			}
			s.values[word] = v
		case '{':
			p.at++
			if depth == maxSectionDepth {
				return nil, false
			}
			kid, ok := p.section(word, depth+1)
			if !ok {
				return nil, false
			}
			for _, other := range s.sections {
				if other.name == word {
					return nil, false
				}
			}
			s.sections = append(s.sections, kid)
		default:
			return nil, false
		}
	}
}

// word reads a name.
func (p *lvmParser) word() string {
	start := p.at
	for p.at < len(p.b) && isWordByte(p.b[p.at]) {
		p.at++
	}
	return string(p.b[start:p.at])
}

func isWordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.' || c == '+'
}

// value reads one value or a list of them.
func (p *lvmParser) value() ([]any, bool) {
	list := []any{}
	if p.space() != '[' {
		v, ok := p.scalar()
		return append(list, v), ok
	}
	p.at++
	for {
		switch p.space() {
		case ']':
			p.at++
			return list, true
		case ',':
			p.at++
			continue
		}
		v, ok := p.scalar()
		if !ok {
			return nil, false
		}
		list = append(list, v)
	}
}

// scalar reads a number or a text.
func (p *lvmParser) scalar() (any, bool) {
	if p.space() != '"' {
		n, err := strconv.ParseInt(p.word(), 10, 64)
		if err == nil {
			return n, true
		}
		return nil, false
	}
	var text []byte
	for p.at++; p.at < len(p.b); p.at++ {
		c := p.b[p.at]
		if c == '"' {
			p.at++
			return string(text), true
		}
		if c == '\\' && p.at+1 < len(p.b) {
			p.at++
			c = p.b[p.at]
		}
		text = append(text, c)
	}
	return nil, false
}
