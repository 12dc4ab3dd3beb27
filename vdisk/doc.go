// Package vdisk stores disks in a Venti archive and gives them back. It is
// the one place that knows what a disk is made of.
//
// A disk is cut into regions (partition tables, partitions, the gaps between
// them), each stored as a hash tree of its own, on a grid that starts where
// the region does, in blocks no larger than those of the file system inside.
// So the same file system shares all its blocks with itself at another place
// of another disk. Blocks that the file system says are free are left out,
// where that is certain (package fsys), and the body of a swap partition is
// never kept. An image is
//
//	root block, type "vdisk", score of
//	  directory block, one entry for each of
//	    layout.json: what the regions are (Layout)
//	    region 0
//	    region 1 ...
//
// and the score of the root is all that anyone needs to have the disk:
//
//	src, err := vdisk.OpenDisk("web.raw")
//	res, err := vdisk.Import(ctx, store, src, vdisk.ImportOptions{})
//	fmt.Printf("vdisk:%v\n", res.Score)
//
//	im, err := vdisk.Open(ctx, store, res.Score)
//	err = vdisk.Export(ctx, im, file, nil)
//
// Encoding is canonical: the same disk has the same score, whichever way it
// got into the archive.
//
// Tree serves images by score, and a directory of files that name images by
// score, over 9P.
package vdisk
