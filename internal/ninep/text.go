package ninep

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The text form of a message is its name, its tag, and its fields by name in
// the order of the wire:
//
//	Tread tag 3 fid 2 offset 0 count 100
//	Rread tag 3 data "hello"
//	Twalk tag 4 fid 2 newfid 5 names ["usr" "glenda"]
//	Rwalk tag 4 qids [12.0.d 14.3.-]
//	Rstat tag 5 stat [type 0 dev 0 qid 14.3.- mode 0644 ...]
//
// Strings and data are quoted as in Go. Values of all ones are ~0. A qid is
// its path, version and type in letters: d directory, a append-only, l
// exclusive use, m mounted, A authentication, t temporary, L symbolic link, or -.

var qidLetters = []struct {
	bit    uint8
	letter byte
}{{QTDir, 'd'}, {QTAppend, 'a'}, {QTExcl, 'l'}, {QTMount, 'm'}, {QTAuth, 'A'}, {QTTmp, 't'}, {QTSymlink, 'L'}}

// String returns the qid's text form.
func (q Qid) String() string {
	b := fmt.Appendf(nil, "%s.%s.", number(q.Path, math.MaxUint64, ""), number(uint64(q.Vers), math.MaxUint32, ""))
	if q.Type == math.MaxUint8 {
		return string(append(b, "~0"...))
	}
	n := len(b)
	for _, l := range qidLetters {
		if q.Type&l.bit != 0 {
			b = append(b, l.letter)
		}
	}
	if len(b) == n {
		b = append(b, '-')
	}
	return string(b)
}

func parseQid(s string) (Qid, error) {
	var q Qid
	path, rest, ok1 := strings.Cut(s, ".")
	vers, kind, ok2 := strings.Cut(rest, ".")
	p, err1 := parseNumber(path, math.MaxUint64)
	v, err2 := parseNumber(vers, math.MaxUint32)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || kind == "" {
		return q, fmt.Errorf("bad qid %q", s)
	}
	q.Path, q.Vers = p, uint32(v)
	switch kind {
	case "~0":
		q.Type = math.MaxUint8
		return q, nil
	case "-":
		return q, nil
	}
letters:
	for i := range len(kind) {
		for _, l := range qidLetters {
			if kind[i] == l.letter {
				q.Type |= l.bit
				continue letters
			}
		}
		return q, fmt.Errorf("bad qid type %q", kind)
	}
	return q, nil
}

// number writes v, of which the largest value is most. Modes are octal.
func number(v, most uint64, name string) string {
	switch {
	case v == most && most > math.MaxUint8:
		return "~0"
	case name == "mode" || name == "perm":
		return fmt.Sprintf("%#o", v)
	}
	return strconv.FormatUint(v, 10)
}

func parseNumber(s string, most uint64) (uint64, error) {
	if s == "~0" {
		return most, nil
	}
	v, err := strconv.ParseUint(s, 0, 64)
	if err == nil && v > most {
		err = fmt.Errorf("%s is more than %d", s, most)
	}
	return v, err
}

// Text returns the text form of the message in a dialect.
func (f *Fcall) Text(d Dialect) string {
	l := d.layout(f.Type)
	if l == nil {
		return fmt.Sprintf("message %d tag %d", f.Type, f.Tag)
	}
	b := fmt.Appendf(nil, "%s tag %s", l.name, number(uint64(f.Tag), math.MaxUint16, ""))
	return string(appendText(b, d, f, l.fields))
}

// appendText appends " name value" for each field of v.
func appendText[T any](b []byte, d Dialect, v *T, fs []field[T]) []byte {
	for i := range fs {
		name := fs[i].name
		b = append(b, ' ')
		b = append(b, name...)
		b = append(b, ' ')
		switch p := fs[i].at(v).(type) {
		case *uint8:
			b = append(b, number(uint64(*p), math.MaxUint8, name)...)
		case *uint16:
			b = append(b, number(uint64(*p), math.MaxUint16, name)...)
		case *uint32:
			b = append(b, number(uint64(*p), math.MaxUint32, name)...)
		case *uint64:
			b = append(b, number(*p, math.MaxUint64, name)...)
		case *string:
			b = strconv.AppendQuote(b, *p)
		case *[]byte:
			b = strconv.AppendQuote(b, string(*p))
		case *Qid:
			b = append(b, p.String()...)
		case *[]string:
			b = append(b, '[')
			for j, s := range *p {
				if j > 0 {
					b = append(b, ' ')
				}
				b = strconv.AppendQuote(b, s)
			}
			b = append(b, ']')
		case *[]Qid:
			b = fmt.Append(b, *p)
		case *Stat:
			b = append(b, '[')
			text := appendText(nil, d, p, d.statFields())
			b = append(b, text[1:]...)
			b = append(b, ']')
		}
	}
	return b
}

// ParseText reads the text form of a message. Fields may be missing, or in
// any order; missing ones are zero, but the tag is NoTag, and in a stat they
// say "don't touch".
func ParseText(text string, d Dialect) (Fcall, error) {
	f := Fcall{Tag: NoTag, Stat: nullStat}
	words := SplitWords(text)
	if len(words) == 0 {
		return f, fmt.Errorf("parse message %q: %w", text, ErrInvalid)
	}
	var l *layout
	for t := range Type(maxType) {
		if x := d.layout(t); x != nil && x.name == words[0] {
			f.Type, l = t, x
			break
		}
	}
	if l == nil {
		return f, fmt.Errorf("parse message: no %s in %s", words[0], d)
	}
	words = words[1:]
	if len(words) >= 2 && words[0] == "tag" {
		tag, err := parseNumber(words[1], math.MaxUint16)
		if err != nil {
			return f, fmt.Errorf("parse %s: tag: %w", l.name, err)
		}
		f.Tag, words = uint16(tag), words[2:]
	}
	if err := parseFields(words, d, &f, l.fields); err != nil {
		return f, fmt.Errorf("parse %s: %w", l.name, err)
	}
	return f, nil
}

// parseFields sets fields of v from pairs of words.
func parseFields[T any](words []string, d Dialect, v *T, fs []field[T]) error {
	for len(words) > 0 {
		if len(words) == 1 {
			return fmt.Errorf("%s has no value", words[0])
		}
		name, value := words[0], words[1]
		words = words[2:]
		i := 0
		for i < len(fs) && fs[i].name != name {
			i++
		}
		if i == len(fs) {
			return fmt.Errorf("no field %s", name)
		}
		if err := parseValue(value, d, fs[i].at(v)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func parseValue(s string, d Dialect, at any) (err error) {
	var n uint64
	switch p := at.(type) {
	case *uint8:
		n, err = parseNumber(s, math.MaxUint8)
		*p = uint8(n)
	case *uint16:
		n, err = parseNumber(s, math.MaxUint16)
		*p = uint16(n)
	case *uint32:
		n, err = parseNumber(s, math.MaxUint32)
		*p = uint32(n)
	case *uint64:
		*p, err = parseNumber(s, math.MaxUint64)
	case *string:
		*p, err = strconv.Unquote(s)
	case *[]byte:
		var t string
		t, err = strconv.Unquote(s)
		*p = []byte(t)
	case *Qid:
		*p, err = parseQid(s)
	default:
		inner, ok := strings.CutPrefix(s, "[")
		if inner, ok = strings.CutSuffix(inner, "]"); !ok {
			return fmt.Errorf("%s is not in brackets", s)
		}
		words := SplitWords(inner)
		switch p := at.(type) {
		case *[]string:
			for _, w := range words {
				if w, err = strconv.Unquote(w); err != nil {
					return err
				}
				*p = append(*p, w)
			}
		case *[]Qid:
			for _, w := range words {
				q, err := parseQid(w)
				if err != nil {
					return err
				}
				*p = append(*p, q)
			}
		case *Stat:
			err = parseFields(words, d, p, d.statFields())
		}
	}
	return err
}

// SplitWords splits a message's text at the blanks that are not inside quotes
// or brackets.
func SplitWords(s string) []string {
	var words []string
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return words
		}
		end, depth := 0, 0
		for end < len(s) && (depth > 0 || s[end] != ' ' && s[end] != '\t') {
			switch s[end] {
			case '"':
				if q, err := strconv.QuotedPrefix(s[end:]); err == nil {
					end += len(q) - 1
				}
			case '[':
				depth++
			case ']':
				depth--
			}
			end++
		}
		words = append(words, s[:end])
		s = s[end:]
	}
}

// nullStat is the stat that touches nothing.
var nullStat = Stat{
	Type: math.MaxUint16, Dev: math.MaxUint32, Qid: Qid{math.MaxUint64, math.MaxUint32, math.MaxUint8},
	Mode: math.MaxUint32, Atime: math.MaxUint32, Mtime: math.MaxUint32, Length: math.MaxUint64,
	NUID: NoUID, NGID: NoUID, NMuid: NoUID,
}
