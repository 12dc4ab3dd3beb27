package store

import "sync/atomic"

// Stats counts what a store has done since it was opened, and says what is
// in it.
type Stats struct {
	Reads, ReadErrors   int64 // blocks asked for; in vain, corrupt or absent
	ReadBytes           int64 // of blocks returned
	LumpHits            int64 // reads and duplicate writes that the lump cache answered
	Writes              int64 // blocks given
	WriteBytes          int64
	NewBlocks, NewBytes int64 // stored: they were not there
	DupBlocks, DupBytes int64 // not stored: they were there
	StoredBytes         int64 // what new blocks take in the log, compressed and with headers
	Probes              int64 // HasBlock
	Syncs               int64 // Sync

	IndexHits       int64 // look-ups that the index cache answered
	BloomMisses     int64 // look-ups that the Bloom filter answered: absent
	IndexReads      int64 // look-ups that read the index
	IndexReadBytes  int64 // of it
	IndexFalse      int64 // of those, the ones that found nothing
	IndexLearned    int64 // entries taken from clump directories
	ClumpReads      int64 // clumps read from arenas
	ClumpReadBytes  int64 // of them, with headers
	CorruptClumps   int64 // that could not be made the lumps they are to be
	Healed          int64 // corrupt clumps that a write or a mirror has made good
	MirrorReads     int64 // blocks that the mirror has sent
	MirrorFailed    int64 // and those that were not to be had from it
	GuardChecks     int64 // duplicate writes that were held against a guard or the block
	GuardCompares   int64 // of those, the ones for which there was no guard
	Collisions      int64 // writes refused because another block has their score
	LogWaits        int64 // writes that waited for the log to be written
	IndexWaits      int64 // writes that waited for the index to be flushed
	LogWrites       int64 // pieces of log written
	LogSyncs        int64 // syncs of an arena partition for its log
	Checkpoints     int64 // of an arena partition
	Flushes         int64 // of the index
	IndexWriteBytes int64 // of its buckets
	Sums, SumBytes  int64 // arenas read whole to seal them
	FlushedEntries  int64
	SpiltEntries    int64 // of those, the ones that went to the overflow of the index

	Scrub Scrub

	// As it is now.
	Arenas, SealedArenas     int   // of the index; with no more room
	Clumps                   int64 // in all arenas
	ClumpBytes               int64 // of them in the log, with headers
	UncompressedBytes        int64 // of the blocks in them
	Space                    int64 // bytes that clumps and their directories may take in all
	CachedLumps, CachedBytes int64 // in the lump cache
	CacheSize                int64 // bytes that they may take
	DirtyEntries             int64 // not in the index on disk yet
	DirtyBound               int64 // how many there may be before writes wait
	StuckEntries             int64 // for which their index bucket has no room
}

// counters are the fields of Stats that count.
type counters struct {
	reads, readErrors, readBytes, lumpHits, writes, writeBytes, newBlocks, newBytes,
	dupBlocks, dupBytes, storedBytes, probes, syncs,
	indexHits, bloomMisses, indexReads, indexFalse, indexLearned, clumpReads, clumpReadBytes, corruptClumps, healed,
	mirrorReads, mirrorFailed,
	guardChecks, guardCompares, collisions,
	logWaits, indexWaits, logWrites, logSyncs, checkpoints, flushes, flushedEntries, sums, sumBytes atomic.Int64

	times histograms
}

// Stats returns what the store has counted so far. The numbers are not all of
// one moment.
func (s *Store) Stats() Stats {
	c := &s.stats
	st := Stats{
		Reads:          c.reads.Load(),
		ReadErrors:     c.readErrors.Load(),
		ReadBytes:      c.readBytes.Load(),
		LumpHits:       c.lumpHits.Load(),
		Writes:         c.writes.Load(),
		WriteBytes:     c.writeBytes.Load(),
		NewBlocks:      c.newBlocks.Load(),
		NewBytes:       c.newBytes.Load(),
		DupBlocks:      c.dupBlocks.Load(),
		DupBytes:       c.dupBytes.Load(),
		StoredBytes:    c.storedBytes.Load(),
		Probes:         c.probes.Load(),
		Syncs:          c.syncs.Load(),
		IndexHits:      c.indexHits.Load(),
		BloomMisses:    c.bloomMisses.Load(),
		IndexReads:     c.indexReads.Load(),
		IndexFalse:     c.indexFalse.Load(),
		IndexLearned:   c.indexLearned.Load(),
		ClumpReads:     c.clumpReads.Load(),
		ClumpReadBytes: c.clumpReadBytes.Load(),
		CorruptClumps:  c.corruptClumps.Load(),
		Healed:         c.healed.Load(),
		MirrorReads:    c.mirrorReads.Load(),
		MirrorFailed:   c.mirrorFailed.Load(),
		GuardChecks:    c.guardChecks.Load(),
		GuardCompares:  c.guardCompares.Load(),
		Collisions:     c.collisions.Load(),
		LogWaits:       c.logWaits.Load(),
		IndexWaits:     c.indexWaits.Load(),
		LogWrites:      c.logWrites.Load(),
		LogSyncs:       c.logSyncs.Load(),
		Checkpoints:    c.checkpoints.Load(),
		Flushes:        c.flushes.Load(),
		FlushedEntries: c.flushedEntries.Load(),
		Sums:           c.sums.Load(),
		SumBytes:       c.sumBytes.Load(),

		Arenas:       len(s.arenas),
		DirtyEntries: s.index.dirty.Load(),
		StuckEntries: s.index.stuck.Load(),
	}
	st.CacheSize, st.DirtyBound = int64(len(s.lumps.rings)), s.maxDirty
	st.IndexWriteBytes = s.ix.Written()
	st.IndexReadBytes = s.ix.Reads() * int64(s.ix.BlockSize)
	st.SpiltEntries = s.ix.Spilt()
	st.Scrub = s.scrub.stats()
	st.CachedLumps, st.CachedBytes = s.lumps.bytes()
	s.eachArenaLocked(func(_ int, a *logArena) {
		if a.mem.Sealed || a.damaged {
			st.SealedArenas++
		}
		st.Clumps += int64(a.mem.Clumps)
		st.ClumpBytes += a.mem.Used
		st.UncompressedBytes += a.mem.UncSize
		st.Space += a.Size()
	})
	return st
}
