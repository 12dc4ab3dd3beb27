package ventitest

import (
	"context"
	"sync/atomic"

	"strata/venti"
)

// A Gate is a store that counts its reads, and holds them up while it is shut.
type Gate struct {
	*Memory
	Reads atomic.Int64  // of blocks, begun
	Shut  chan struct{} // closed by the test to let reads go on; nil is open; set while there are none
}

// ReadBlock implements venti.BlockReader.
func (g *Gate) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	g.Reads.Add(1)
	if g.Shut != nil {
		select {
		case <-g.Shut:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return g.Memory.ReadBlock(ctx, s, t, buf)
}
