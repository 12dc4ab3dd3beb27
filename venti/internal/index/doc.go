// Package index is Venti's index: a hash table on disk, from the score and
// type of a block to the address of its clump, spread over partitions called
// index sections.
//
//	s, err := index.OpenSection(file)
//	ix, err := index.Open("main", []*index.Section{s}, arenas)
//	e, ok, err := ix.Lookup(score, venti.DiskData, buf)
//	arena, offset, ok := ix.LookupAddr(e.Addr)
//	index.Sort(entries)
//	left, err := ix.Update(ctx, entries)
//
// bucket.go has the layout of a bucket, section.go of a section, table.go of
// the description of the whole, and overflow.go of the file for what full buckets
// have no room for. update.go writes entries, recover.go makes
// good what a crash did, check.go compares an index with its arenas, and
// parts.go opens what a configuration names.
//
// # Crashes
//
// Everything in the index can be made from the arenas again. An update reads
// buckets, adds entries in their midst, and writes them in place, so a crash
// of the machine may leave a bucket half old and half new, in which entries
// of clumps that were indexed long ago are lost. Whoever owns an index must
// therefore
//
//   - have a clump on stable storage before it gives its entry to Update,
//   - note in the arena's trailer that a clump is indexed only after Update,
//   - after a crash, give the entries of all clumps that no trailer notes as
//     indexed to Recover before it trusts Lookup. They name all buckets that
//     can be torn, and the check in each bucket, an addition of ours that Plan
//     9's programs do not see, tells which are.
//
// # Locks
//
// Index.updating, then Section.mu of one section.
package index
