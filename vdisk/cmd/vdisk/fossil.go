package main

import (
	"context"
	"io"
	"log/slog"

	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/vdisk"
	"strata/vdisk/live"
	"strata/vdisk/nbd"
	"strata/venti"
)

// fossilService is the port of a TCP address of Fossil's that has none.
const fossilService = "5640"

// A liveServer is the images that live in a Fossil, if one was named.
type liveServer struct {
	client *ninep.Client   // or nil
	images *live.Catalogue // or nil
}

// openLive opens the images that live in the Fossil at addr, "" for none, and
// adds them to the tree. A connection that is lost is made again.
func openLive(ctx context.Context, addr string, archive venti.Store, tree *vdisk.Tree, log *slog.Logger) (l liveServer, err error) {
	if addr == "" {
		return l, nil
	}
	dial := func(ctx context.Context) (io.ReadWriteCloser, error) { return netaddr.Dial(ctx, addr, fossilService) }
	conn, err := dial(ctx)
	if err != nil {
		return l, err
	}
	l.client, err = ninep.NewClient(ctx, conn, ninep.ClientConfig{Dialect: ninep.Linux, Redial: dial})
	if err != nil {
		conn.Close()
		return l, err
	}
	if l.images, err = live.Open(ctx, l.client, archive, live.Config{Log: log}); err != nil {
		l.client.Close()
		return liveServer{}, err
	}
	live.Mount(tree, l.images)
	return l, nil
}

func (l liveServer) close() {
	if l.client != nil {
		l.images.Close(context.Background())
		l.client.Close()
	}
}

// writes tells whether live disks can be written to over NBD at an address: by
// TCP without certificates nobody knows who connects.
func (l liveServer) writes(addr string) bool {
	a, err := netaddr.Parse(addr, nbd.Service)
	return l.images != nil && err == nil && a.Network != "tcp"
}

// exports returns what is shown over NBD at an address.
func (l liveServer) exports(tree *vdisk.Tree, addr string) nbd.Exports {
	if l.images == nil {
		return tree.Exports()
	}
	return live.Exports(l.images, tree.Exports(), !l.writes(addr))
}
