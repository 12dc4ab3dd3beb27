// Package live has disks that can be written to: images that live in a Fossil
// file system, which archives them.
//
//	cat, err := live.Open(ctx, fossil, store, live.Config{}) // fossil is a client of 9P
//	err = cat.Create(ctx, "web/01", 20<<30)
//	d, err := cat.Disk(ctx, "web/01", live.OpenOptions{Write: true, By: "qemu"})
//	_, err = d.WriteAt(ctx, sector, 0)
//	err = d.Flush(ctx)
//	err = d.Close(ctx)
//	s, err := cat.Snapshot(ctx, "web/01", "installed") // s.Score is vdisk:4d1c...
//	err = cat.Clone(ctx, "web/01@installed", "web/02")
//
// An image is a path of names. In the file system it is the directory
// /active/vdisk/web/01, with layout.json and a file for each region, whose blocks
// are those that an import of the disk would make. So the archive of such a
// directory is the image: its score is made by writing a directory block and a
// root. A clone and a rollback are grafts of such a score, a snapshot is one of
// the file system's: all cost the same for every size of disk.
//
// What is written goes to the files as it comes. When the last writer has left,
// the image is settled (Catalogue.Settle): cut anew if its partition table has
// changed, and without the blocks that its file systems say are free; then its
// snapshot has the score that an import would have.
//
// disk.go is what is open, catalogue.go what there is, build.go what makes and
// removes images. settle.go cuts them anew; folder.go does that so that after a
// crash there is the old image or the new. snapshot.go and history.go are about
// the past. throw.go makes disks that are gone when they are closed; start.go
// watches what the start of a guest reads, for the next to read ahead (bootset.go).
// host.go speaks to the file system, region.go to a region's files.
//
// # Locks
//
// Catalogue.shape is held by what makes, moves or removes directories of images;
// an image's turn by what changes it or its history; its gate by who reads and
// writes the disk, all of it by who changes what it is made of. They are waited
// for with a context, in that order, and held across requests to the file system.
// Catalogue.mu is last, and held for memory only.
package live
