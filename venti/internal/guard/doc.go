// Package guard keeps the SHA-256 of every clump in a file beside the arenas,
// so that a block which merely has the same SHA-1 as a stored one is told from
// it without reading the stored one.
//
//	g, err := guard.Open(f, arenas)
//	g.Add(arena, off, score, guard.Of(data))   // as clumps are appended
//	err = g.Sync()
//	sum, ok, err := g.Find(arena, off, score)
//
// # Why not detect collisions instead
//
// Stevens's counter-cryptanalysis, which Git uses, looks into each SHA-1
// computation for the traces of the known attacks. It needs no file. But it
// finds what was known when it was written, for the next attack is another one;
// it makes SHA-1 several times slower for every block, new or not, where the
// processor has instructions for SHA-1 and for SHA-256; and it cannot say
// anything about the blocks that are there. A second hash says what is to be
// known: whether two blocks are one.
//
// # The file
//
// The log of each arena is cut into extents of one mebibyte. The file has, for
// each extent in turn, room for the guards of as many clumps as may begin in
// it, in log order:
//
//	0            header
//	4096         extent 0 of the first arena
//	+1077248     extent 1 ...
//
// Arenas come in the order of the index, each with as many extents as its log
// can have; a further arena in the index makes the file longer and moves
// nothing. Where the guard of a clump is follows from where the clump is:
// nothing is read when the file is opened. The file is sparse, and takes 40
// bytes for a clump, in whole blocks of the file system for each extent.
//
// # What a guard is worth
//
// A guard that is missing costs a look at the block itself. A wrong one would
// have good writes refused, so nothing that a crash, a bad sector or an older
// file leaves must pass for a guard: the check sum of each covers the arena's
// name and clump magic, the place in the log, and the score. A clump that was
// lost in a crash, and the one that came to its place, have different scores.
//
// The writer calls Sync before it notes that clumps need no recovery, and adds
// the guards of those that do again when it recovers them. So guards need no
// sync of their own, and are missing only for clumps that were there before
// the file was, and where the file itself is damaged. Rebuild makes those, an
// extent at a time.
//
// # Errors
//
// Nothing depends on guards: when one cannot be written, what is in memory is
// kept for another try, up to a bound, and then dropped. The store reads blocks
// instead, and a later pass makes the guards.
//
// Locks: File.writing, which is held through disk waits, then File.mu.
package guard
