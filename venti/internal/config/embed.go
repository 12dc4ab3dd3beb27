package config

import (
	"errors"
	"fmt"

	"strata/internal/disk"
)

// MaxEmbedded is the longest text that Embed stores, in bytes.
const MaxEmbedded = embeddedSize - len(embeddedMagic) - 1

// Text returns the text of the configuration that is embedded in a partition,
// or that all of a short file is; the error is ErrNoConfig if a partition has
// none. It does not check what the text says.
func Text(f disk.File, name string) ([]byte, error) {
	text, _, err := read(f, name)
	return text, err
}

// Embed stores a configuration in a partition, which must be longer than
// 256 KiB, and syncs it. The error says what is wrong with a text that cannot
// be read again. What a crash leaves is the old one, the new one or, where the
// disk tears writes between sectors, a text that may not be one.
func Embed(f disk.File, text []byte) error {
	if f.Size() <= maxText {
		return fmt.Errorf("%d bytes are no partition: it must be longer than %d", f.Size(), maxText)
	}
	if len(text) > MaxEmbedded {
		return fmt.Errorf("configuration of %d bytes: at most %d fit in a partition", len(text), MaxEmbedded)
	}
	for _, b := range text {
		if b == 0 {
			return errors.New("configuration has a NUL in it, where it would end")
		}
	}
	if _, err := Parse(text, "configuration"); err != nil {
		return err
	}
	block := make([]byte, embeddedSize)
	copy(block, embeddedMagic)
	copy(block[len(embeddedMagic):], text)
	if _, err := f.WriteAt(block, embeddedOffset); err != nil {
		return err
	}
	return f.Sync()
}
