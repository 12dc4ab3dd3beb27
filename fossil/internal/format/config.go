package format

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Where the boot configuration lies.
const (
	ConfigOffset = 127 << 10
	ConfigSize   = 1 << 10

	configMagic = "fossil config\n"
)

// ErrNoConfig is why a partition's configuration cannot be read: it has none.
var ErrNoConfig = errors.New("no configuration")

// PackConfig returns the ConfigSize bytes that hold text, console commands in
// lines:
//
//	"fossil config\n" text 0...
func PackConfig(text string) ([]byte, error) {
	if strings.IndexByte(text, 0) >= 0 {
		return nil, errors.New("configuration has a NUL")
	}
	if n := len(configMagic) + len(text); n > ConfigSize {
		return nil, fmt.Errorf("configuration of %d bytes is longer than %d", len(text), ConfigSize-len(configMagic))
	}
	b := make([]byte, ConfigSize)
	copy(b[copy(b, configMagic):], text)
	return b, nil
}

// UnpackConfig returns the text that the ConfigSize bytes of b hold.
func UnpackConfig(b []byte) (string, error) {
	rest, ok := bytes.CutPrefix(b, []byte(configMagic))
	if !ok {
		return "", ErrNoConfig
	}
	text, _, _ := bytes.Cut(rest, []byte{0})
	return string(text), nil
}
