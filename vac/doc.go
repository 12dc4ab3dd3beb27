// Package vac reads and writes vac archives: trees of files kept in a Venti
// store under one score, as vac(1) and fossil's archiver make them.
//
// An archive is a root block (venti.Root of type "vac"), below it a block of
// three entries, and from there one pair of streams for each directory: the
// entry stream, an array of venti.Entry with the contents of the files, and the
// metadata stream, blocks of package meta with their names and attributes.
//
//	a, err := vac.Open(ctx, store, score)
//	f, err := a.Root.Lookup(ctx, "2026/1127/etc/motd")
//	r, err := f.Open(hashtree.ReaderConfig{})
//	_, err = r.Stream(ctx, os.Stdout)
//	for f, err := range a.Root.ReadDir(ctx) { ... }
//
// Archives are not trusted: what a File says has been checked, names are single
// elements, and damage costs no more than what it lies on, with an error that
// names the path.
package vac
