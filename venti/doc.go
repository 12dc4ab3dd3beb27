// Package venti is the block archive's vocabulary: scores, block types,
// entries and roots; the contracts of a block store; the wire protocol with
// its client and server. Blocks are named by the SHA-1 of their contents,
// stored once and never changed (venti(7)).
//
// A program writes blocks and gets scores back, then reads them by score:
//
//	c, err := venti.Dial(ctx, "") // $venti, then tcp!127.0.0.1!17034
//	score, err := c.WriteBlock(ctx, venti.DataType, []byte("hello"))
//	err = c.Sync(ctx) // now it is on stable storage
//	n, err := c.ReadBlock(ctx, score, venti.DataType, buf)
//
// Files larger than a block are trees of blocks: see package hashtree. The
// disk engine behind a server is package store.
package venti
