package main

import (
	"context"
	"errors"
	"fmt"

	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/vdisk/live"
	"strata/vdisk/nbd"
)

// openImages opens the disks that live in the file system, and adds them to
// what the tree and NBD show. There are none if fossil.conf opens no file
// system main.
func (s *suite) openImages(ctx context.Context, opt upOptions) error {
	s.drives = nbd.NewServer(s.tree.Exports(), nbd.Config{Logger: opt.Logger})
	s.guests = s.drives
	if f, err := s.fossil.Lookup("main"); err != nil || f.FS() == nil {
		return nil
	}
	s.inside = ninep.NewServer(s.fossil, ninep.Config{}).Local(ninep.ClientConfig{Dialect: ninep.Linux})
	var err error
	_, memory, _ := opt.shares()
	if s.images, err = live.Open(ctx, s.inside, s.store, live.Config{Log: opt.Logger, Ahead: memory / 2}); err != nil {
		return fmt.Errorf("live disks: %w", err)
	}
	live.Mount(s.tree, s.images)
	s.drives = nbd.NewServer(live.Exports(s.images, s.tree.Exports(), false), nbd.Config{Logger: opt.Logger})
	s.guests = nbd.NewServer(live.Exports(s.images, s.tree.Exports(), true), nbd.Config{Logger: opt.Logger})
	return nil
}

// closeImages ends the use of the file system.
func (s *suite) closeImages() error {
	var errs []error
	if s.images != nil {
		errs = append(errs, s.images.Close(context.Background()))
	}
	if s.inside != nil {
		errs = append(errs, s.inside.Close())
	}
	return errors.Join(errs...)
}

// writes tells whether live disks can be written to over NBD at an address: by
// TCP without certificates nobody knows who connects.
func (s *suite) writes(l listener) bool {
	a, err := netaddr.Parse(l.addr, nbd.Service)
	return s.images != nil && err == nil && a.Network != "tcp"
}

// driver returns who serves NBD at an address.
func (s *suite) driver(l listener) *nbd.Server {
	if s.writes(l) {
		return s.drives
	}
	return s.guests
}
