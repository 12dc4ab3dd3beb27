// Package fossil is Plan 9's snapshotting file system on its own disk format:
// a tree that is written in a buffer partition, snapshots of it, and what of
// them is on Venti.
//
//	err := fossil.Format(ctx, file, fossil.FormatConfig{})
//	fs, err := fossil.Open(file, fossil.Config{Venti: store})
//	dir, err := fs.Walk(ctx, "/active/usr")
//	f, err := dir.Create(ctx, "glenda", meta.ModeDir|0o775, "adm")
//	err = fs.Sync(ctx)
//	err = fs.Close(ctx)
//
// Who may do what is for those to decide who serve the files; uids are
// strings that are kept. Whether a file is a snapshot's, and can therefore not
// be changed, is decided here.
//
// Every operation is one transaction of package buffer: after a crash it was
// done or not. An operation is durable after a Sync of the file or the file
// system, or a few seconds. Only times and the like, which writing and reading
// change, are kept in memory until then.
//
// SetSchedule has snapshots taken by the clock. An archival one is sent to
// Venti by a goroutine, which goes on where it was after a crash or when Venti
// was away (see archiver); Archiving and Stats tell how far it is, the log has the
// scores, and Vac gives that of a directory.
//
// The last free blocks are kept for what makes room, and some of them for
// snapshots, names and attributes, so that writers cannot lock a file system up.
// To change a directory that is on Venti takes its blocks from there: while Venti
// is away that works for what is in memory.
//
// BUG: after a snapshot, removing takes new blocks for each directory that it
// changes. On a disk that is full it ends when the reserve is used up, until the
// snapshot is let go of.
//
// What is in memory of files, and the maps of a FS, is guarded by the buffer's
// lock: it is read in views and updates, and changed when an update is
// published, or in a view.
package fossil
