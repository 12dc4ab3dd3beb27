// Package buffer keeps the blocks of a Fossil partition: it reads them, and
// those on Venti, through one cache, and changes them in transactions that
// are there after a crash wholly or not at all.
//
//	b, err := buffer.Open(file, buffer.Config{Venti: store})
//	err = b.Update(ctx, func(tx *buffer.Tx) error {
//		addr, _, err := tx.Alloc(format.Data, tag, data)
//		...
//	})
//	err = b.Sync(ctx)
//	err = b.Close(ctx)
//
// # Transactions
//
// Updates run one at a time, in memory only. One that needs a block which is
// not there ends, has it read, and runs again, so that nobody waits for a
// disk or a server while another does. Blocks in the cache do not change: an
// update that changes one puts a new one in its place, when it has succeeded.
// Readers therefore need no lock, and an update that fails leaves nothing.
//
// What updates have done is gathered in a group until somebody syncs, memory
// or log space run short, or the owner's clock says so. Commit of a group is,
// in this order:
//
//  1. blocks that it allocated, and leaves that it wrote anew, are written to
//     their places; nothing that is durable points to the former yet;
//  2. a barrier, if there were any;
//  3. the changes of all other blocks (labels, pointers, entries, metadata, the
//     super block) are appended to the log, as one record with a checksum;
//  4. a barrier. This is the commit point: a crash before it leaves what the
//     group before left, apart from leaves overwritten in place; a crash after
//     it leaves all.
//
// A block that a group frees is allocated again only after its commit. The
// changes in the log go to their places later (checkpoint), a barrier, and the
// log is free again. Opening a partition after a crash applies the log first.
//
// # The log
//
// The log lies in data blocks whose label Plan 9's programs keep away from
// (format.Reserved), and where, stands in the super block behind what they
// rewrite. While the log matters, the super block has a version that they
// refuse; after Close the partition is plainly theirs. What is in the log then
// is never looked at again: they may have changed what it would change.
//
// # Trees that are let go
//
// To close the blocks of a large tree takes many groups. An intent (see
// Tx.Unlink) says in the log which tree, and how far it has come; a goroutine
// works on it, or the next program does. Close waits for it.
//
// Locks: Buffer.mu serializes updates and guards the groups; the cache's own
// is taken under it. Neither is held while a disk or a server is waited for.
package buffer
