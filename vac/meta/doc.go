// Package meta is the metadata of directories, in the formats that vac
// archives and fossil file systems share: directory entries, and the blocks
// that hold them.
//
// A directory keeps the names and attributes of its files in a stream of
// blocks. Each holds some packed entries and an index of them in the order of
// their names; the stream as a whole is in no order. A DirEntry names the slots
// of the directory's other stream where the file's own venti.Entry lies.
//
// Block is a view of one such block: it reads and edits the bytes that it is
// given in place, which is what fossil does to a block in its cache. A vac
// archive only ever adds to blocks:
//
//	b := meta.New(make([]byte, 8192), meta.MaxIndex(8192), meta.LongerFirst)
//	err := b.Insert(&meta.DirEntry{Version: 8, Name: "motd", Mode: 0o644})
//	...
//	b, err = meta.Open(buf)
//	i, found := b.Search("motd")
//	e, err := b.Entry(i)
//
// Nothing here is safe for use by several goroutines at once, but reading is.
package meta
