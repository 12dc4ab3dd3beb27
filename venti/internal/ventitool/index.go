package ventitool

import (
	"fmt"

	"strata/venti/internal/config"
	"strata/venti/internal/index"
)

// OpenIndex opens the index of a configuration for reading, also while a
// server uses it. The caller closes the Parts.
func OpenIndex(conf string) (*index.Index, *index.Parts, error) {
	c, err := config.Load(conf)
	if err != nil {
		return nil, nil, err
	}
	p, err := index.OpenParts(c, Live)
	if err != nil {
		return nil, nil, err
	}
	ix, err := p.OpenIndex(c)
	if err != nil {
		p.Close()
		return nil, nil, fmt.Errorf("%s: %w", conf, err)
	}
	return ix, p, nil
}
