package console

import (
	"fmt"
	"strconv"
	"strings"

	"strata/vac/meta"
)

// modeLetters stand before the octal digits of a mode, in this order.
var modeLetters = []struct {
	letter byte
	bit    meta.Mode
}{
	{'Y', meta.ModeSticky},
	{'U', meta.ModeSetuid},
	{'G', meta.ModeSetgid},
	{'a', meta.ModeAppend},
	{'l', meta.ModeExclusive},
	{'L', meta.ModeLink},
	{'d', meta.ModeDir},
	{'H', meta.ModeHidden},
	{'S', meta.ModeSystem},
	{'A', meta.ModeArchive},
	{'T', meta.ModeTemporary},
	{'s', meta.ModeSnapshot},
}

// formatMode returns a mode as the console has it: letters, then permissions
// in octal.
func formatMode(m meta.Mode) string {
	var b strings.Builder
	for _, l := range modeLetters {
		if m&l.bit != 0 {
			b.WriteByte(l.letter)
		}
	}
	fmt.Fprintf(&b, "%o", m&meta.ModePerm)
	return b.String()
}

// parseMode reads one. fossilcons(8) has t for temporary where the program
// takes T; here both are right.
func parseMode(text string) (meta.Mode, error) {
	var m meta.Mode
	rest := text
letters:
	for rest != "" {
		c := rest[0]
		if c == 't' {
			c = 'T'
		}
		for _, l := range modeLetters {
			if l.letter == c {
				m |= l.bit
				rest = rest[1:]
				continue letters
			}
		}
		break
	}
	perm, err := strconv.ParseUint(rest, 8, 32)
	if err != nil || perm&^uint64(meta.ModePerm) != 0 {
		return 0, fmt.Errorf("bad mode '%s'", text)
	}
	return m | meta.Mode(perm), nil
}
