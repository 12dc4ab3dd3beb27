package console

import (
	"errors"
	"strings"
)

var errQuote = errors.New("a quote is not closed")

// splitWords returns the words of a line as rc(1) quotes them: blanks between
// words, but not within '...', where two quotes stand for one.
func splitWords(line string) ([]string, error) {
	var words []string
	var w strings.Builder
	in, quoted := false, false // a word, quotes
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\'' && i+1 < len(line) && line[i+1] == '\'':
			w.WriteByte(c)
			i++
		case c == '\'':
			in, quoted = true, !quoted
		case !quoted && strings.IndexByte(" \t\r\n", c) >= 0:
			if in {
				words = append(words, w.String())
				w.Reset()
			}
			in = false
		default:
			in = true
			w.WriteByte(c)
		}
	}
	if quoted {
		return nil, errQuote
	}
	if in {
		words = append(words, w.String())
	}
	return words, nil
}

// quote returns a word so that splitWords gives it back.
func quote(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\r\n'#") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", "''") + "'"
}

// Join returns a line whose words these are.
func Join(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}
