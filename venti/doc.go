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
// The wire is in message.go; Client and Server are two ends of it. What a
// client asks of a Store a server asks of a Store behind it, so one can stand
// in for the other: a cache, a relay and the engine are all the same to their
// users, and pass the same suite, ventitest.TestStore.
//
// A program that lives longer than its server takes a Remote, which dials
// again.
//
// Locks: Client.mu, Remote.mu, peers.mu, bucket.mu, outbox.mu (outbox.go) and
// the semaphores are never held together, and no lock is held while reading from or writing to a connection.
//
// Files larger than a block are trees of blocks: see package hashtree. The
// disk engine behind a server is package store.
package venti
