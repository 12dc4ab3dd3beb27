package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/netaddr"
	"strata/venti"
	"strata/venti/store"
)

// careFlags are the flags about blocks that a disk has lost.
type careFlags struct{ mirror string }

func (f *careFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.mirror, "mirror", "", "fetch blocks that are corrupt here from the server at `address`, and store them again (default: mirror of the configuration)")
}

// set puts what the flags say into cfg.
func (f *careFlags) set(cfg *store.Config) error {
	if f.mirror != "" {
		if _, err := netaddr.Parse(f.mirror, "venti"); err != nil {
			return fmt.Errorf("mirror: %w", err)
		}
		cfg.Mirror = venti.RedialLater(f.mirror)
	}
	return nil
}
