package venti

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
)

// ScoreSize is the length of a score in bytes.
const ScoreSize = sha1.Size

// A Score names a block: it is the SHA-1 of the block's bytes after zero
// truncation. Scores are compared and copied as values.
type Score [ScoreSize]byte

// EmptyScore is the score of the empty block, which stands for any run of
// zeros; venti(7) calls it the zero score. It is never stored.
// Do not confuse it with Score{}, twenty zero bytes, which stands for "no
// score" (the prev of a first root, the seal of an open arena).
var EmptyScore = Score{
	0xda, 0x39, 0xa3, 0xee, 0x5e, 0x6b, 0x4b, 0x0d, 0x32, 0x55,
	0xbf, 0xef, 0x95, 0x60, 0x18, 0x90, 0xaf, 0xd8, 0x07, 0x09,
}

// ScoreOf returns the score of a block's bytes as they are: it does not
// truncate.
func ScoreOf(data []byte) Score { return sha1.Sum(data) }

// String returns the 40 lower-case hex digits of s.
func (s Score) String() string { return hex.EncodeToString(s[:]) }

// IsZero tells whether s is twenty zero bytes, that is, no score at all.
func (s Score) IsZero() bool { return s == Score{} }

// MarshalText returns the 40 lower-case hex digits of s.
func (s Score) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets s from exactly 40 hex digits.
func (s *Score) UnmarshalText(text []byte) error {
	v, err := ParseScore(string(text))
	if err == nil {
		*s = v
	}
	return err
}

// ParseScore reads exactly 40 hex digits of either case. Unlike libventi's
// parser it refuses the letters g to z.
func ParseScore(text string) (Score, error) {
	var s Score
	if len(text) != 2*ScoreSize {
		return Score{}, fmt.Errorf("bad score %q: want %d hex digits", text, 2*ScoreSize)
	}
	if _, err := hex.Decode(s[:], []byte(text)); err != nil {
		return Score{}, fmt.Errorf("bad score %q: not hexadecimal", text)
	}
	return s, nil
}

// ParseTypedScore reads "kind:<40 hex>" or a bare score, as in
// vtparsescore(3). kind is everything before the first colon, and empty when
// there is no colon. Surrounding white space is not allowed.
func ParseTypedScore(text string) (kind string, s Score, err error) {
	hexPart := text
	if before, after, ok := strings.Cut(text, ":"); ok {
		kind, hexPart = before, after
	}
	s, err = ParseScore(hexPart)
	if err != nil {
		return "", Score{}, err
	}
	return kind, s, nil
}
