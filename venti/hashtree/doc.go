// Package hashtree keeps a file as a tree of blocks in a store of blocks.
//
// A file is cut into leaves of DSize bytes. A pointer block holds the scores
// of np = PSize/20 blocks below it; as many levels of them as the size needs
// lead up to one score, which with the sizes, the depth and the length makes
// a venti.Entry (spec/venti-protocol.md, section 10). The form is canonical:
// the same bytes cut the same way give the same entry, however they were
// written. A leaf of zeros has the empty score and is not stored, nor is a
// pointer block that names only such leaves; so a hole costs nothing, in the
// store or in time.
//
//	e, stats, err := hashtree.Write(ctx, store, file, size, hashtree.Config{DSize: 4096})
//	r, err := hashtree.NewReader(store, e, hashtree.ReaderConfig{})
//	_, err = r.Export(ctx, out, nil)
//
// Write builds a tree from random access and Writer from a stream. Both cut
// the file into cells, runs of leaves under one level-1 pointer block. Cells
// are hashed and stored in parallel; an assembler takes their scores in
// order and builds the levels above. A block is given to the store when all
// blocks below it have been acknowledged, so a store that loses its last
// writes in a crash holds no pointer to nothing.
//
// Reader reads a tree, Walk visits every block under a score, and Copy
// carries a tree from one store to another. They trust nothing that they
// read: sizes and depths lie, though scores cannot.
//
// Locks: each type has at most one mutex. It is held for memory only, and for
// callbacks that are said not to overlap; never while a store is called.
package hashtree
