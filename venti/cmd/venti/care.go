package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"strata/internal/disk"
	"strata/internal/netaddr"
	"strata/venti/store"
)

// careFlags are the flags about blocks that a disk has lost.
type careFlags struct{ mirror, scrub string }

func (f *careFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.mirror, "mirror", "", "fetch blocks that are corrupt here from the server at `address`, and store them again (default: mirror of the configuration)")
	fs.StringVar(&f.scrub, "scrub", "", "check the clumps and seals of full arenas in the background, reading `size` bytes a second; 0 for never (default: scrub of the configuration, then never)")
}

// set puts what the flags say into cfg.
func (f *careFlags) set(cfg *store.Config) error {
	if f.mirror != "" {
		if _, err := netaddr.Parse(f.mirror, "venti"); err != nil {
			return fmt.Errorf("mirror: %w", err)
		}
		cfg.Mirror = store.OpenMirror(f.mirror)
	}
	if f.scrub != "" {
		rate, err := disk.ParseSize(f.scrub)
		if err != nil {
			return fmt.Errorf("scrub: %w", err)
		}
		if cfg.Scrub = rate; rate == 0 {
			cfg.Scrub = -1 // whatever the configuration says
		}
	}
	return nil
}
