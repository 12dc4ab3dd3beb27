// Package store is the engine behind a Venti server: it keeps blocks in
// arenas, each once, and finds them again through an index. Its files are
// Plan 9's; either server opens what the other has left, whenever it stopped.
//
//	s, err := store.OpenConf(ctx, "venti.conf", store.Config{})
//	score, err := s.WriteBlock(ctx, venti.DataType, data)
//	err = s.Sync(ctx)
//	err = s.Close()
//
// # A write, and what a crash leaves of it
//
// A block is hashed, and looked for in the cache of lumps, the cache of index
// entries, the Bloom filter and the index; whoever finds nothing has a claim to
// the block, so that others with the same one wait. It is compressed outside
// all locks and appended, under the lock of its partition, to the pending log in
// memory. Then WriteBlock returns. The steps to the disk are
//
//  1. The log. Blocks go to one partition until its disk is a mebibyte behind,
//     then to the one that is least behind. A partition's own goroutine writes what is pending, in order,
//     each piece with a free word behind it, and syncs when somebody waits
//     for that. This sync is the commit point of Sync, and all who wait share
//     it. A crash before it may leave any part of what was not synced: Open
//     scans the log from where the trailer ends, checks each clump against its
//     score, and stops where none follows. A crash after it loses nothing.
//  2. The directory, of what is synced. A crash leaves entries that no trailer
//     counts; Open makes them again from the log.
//  3. The trailer, after a sync of the directory, so that it counts nothing
//     that is not there. Steps 2 and 3 are a checkpoint, which nobody waits
//     for: it comes soon after the last write and every few seconds.
//  4. The index and the Bloom filter, for all clumps synced up to some line,
//     sorted and in one sweep. A crash may tear a bucket; Open gives the
//     entries of all clumps that no trailer calls indexed to index.Recover,
//     which finds and rebuilds it.
//  5. The trailers again: now they call the clumps up to the line indexed. A
//     crash before it has the same clumps indexed once more.
//
// An arena in which a clump does not fit is sealed in memory, on disk when it
// is indexed, and summed in the background; Open takes up the sums that are
// missing.
//
// What lies on the disk behind the end of a log, and was not synced when the
// machine stopped, is cleared before the log grows over it, so that it is not
// taken for its continuation after a second crash.
//
// A disk that is full makes writes and syncs fail until there is room, see space.go.
// After any other failed write or sync a partition takes no more writes, every Sync
// returns that error, and reads go on, also of what is only in memory. If it
// is the index that cannot be written, writes go on until the entries that it
// lacks reach a bound; from then on they fail. The entries of a full bucket
// go to the overflow of the index. Where there is none they stay in memory, and
// their arena's trailer never calls them indexed, so that they are found again at
// the next Open.
//
// # A read
//
// The lump cache, then the index cache, the Bloom filter and the index, then
// the clump, from the pending log or the arena. Its bytes are always checked
// against the score. Two look-ups near each other in a log bring the entries of
// the clumps that follow (see learn.go). Nothing waits for a sync.
//
// A clump that is not the block, or that the disk cannot read, makes the block
// corrupt, never absent. Where there is a mirror the block is fetched from there
// and stored once more (mirror.go). The scrub looks for such clumps before somebody
// needs them (scrub.go).
//
// # Memory
//
// The caches take what Config says, outside the Go heap. Besides there are the
// Bloom filter, 8 MiB of pending log for each partition, a mebibyte for each
// processor to compress with, and the entries of full buckets that have no
// overflow.
//
// # Locks
//
// In this order: Store.flushing, logPart.checkpointing (of one partition),
// logPart.mu (of several, in their order), then one of indexShard.mu,
// lumpShard.mu, flights.mu, badClumps.mu, mirror.mu, scrubber.mu, Store.flushMu. directory.mu comes
// before indexShard.mu. Only flushing, checkpointing and directory.mu are held
// through waits for the disk, where each says why nobody minds.
package store
