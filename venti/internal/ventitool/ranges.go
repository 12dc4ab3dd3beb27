package ventitool

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseRanges reads a list such as "3-7,9,12-" of the arenas of a partition,
// by number, and returns what tells whether a number is in it. An empty list
// has all.
func ParseRanges(list string) (func(int) bool, error) {
	if list == "" {
		return func(int) bool { return true }, nil
	}
	type span struct{ lo, hi int }
	var spans []span
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, ranged := strings.Cut(part, "-")
		s := span{0, int(^uint(0) >> 1)}
		var err error
		if lo != "" || !ranged {
			s.lo, err = strconv.Atoi(lo)
		}
		if err == nil && hi != "" {
			s.hi, err = strconv.Atoi(hi)
		}
		if !ranged {
			s.hi = s.lo
		}
		if err != nil || s.lo < 0 || s.hi < s.lo {
			return nil, fmt.Errorf("bad range %q", part)
		}
		spans = append(spans, s)
	}
	return func(i int) bool {
		for _, s := range spans {
			if s.lo <= i && i <= s.hi {
				return true
			}
		}
		return false
	}, nil
}
