// Package vacfs shows vac archives over 9P, read-only: its FS is a ninep.FS.
//
//	fs, err := vacfs.New(store, []vacfs.Archive{{Name: "home", Source: "home.vac"}}, vacfs.Config{})
//	defer fs.Close()
//	err = ninep.NewServer(fs, ninep.Config{Users: ninep.HostUsers()}).Serve(ctx, listener)
//
// The files of an archive that was made with vac -a are found by their day,
// /2026/1122/... A client may attach to
//
//	""                    the only archive, or a directory of all of them
//	home                  one of all; of the only archive, a directory in it
//	home/2026/1122        and so on
//	vac:<score>           any archive of the store
//	vac:<score>/etc       a directory in it
//
// A file's qid path is made from the archive's score and the way from its top,
// and is the same in every server for ever. So archives never share one, as they
// do the numbers that vac gives its files, and neither do the days of one
// archive, where plan9port's vac begins to count anew. Archives cannot be made
// to have the qids of others: the digest is SHA-1, cut to 64 bits.
//
// All blocks that are read go through one cache (package blockcache), whose size is what
// an FS takes of memory, but for what requests at work and open files need.
// handle.go has the read-ahead: it brings blocks into the cache, as many as are
// on the way to the leaves.
//
// Archives are not trusted. Package vac checks them; what is damaged is an
// error to who reads it, and the rest of its directory is shown.
//
// Locks are held for memory only. Lock order: fileHandle.mu, then an lru's.
package vacfs
