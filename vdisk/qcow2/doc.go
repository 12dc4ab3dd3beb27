// Package qcow2 reads disks in the format of QEMU, versions 2 and 3:
//
//	im, err := qcow2.Open("web.qcow2", qcow2.Options{Raw: openRaw})
//	_, err = im.ReadAt(sector, 0)
//
// with clusters compressed by zlib or zstd, clusters and subclusters that read
// as zeros, and chains of backing files. Snapshots inside the file are not
// looked at. An image that is encrypted, marked as corrupt, has its data in
// another file, or a feature that is not known, is refused.
//
// An image names its backing file, and whoever made the image may be nobody's
// friend. So a backing file must be a regular file in the folder of the image
// that was opened, or below, and not lead out of it by a symbolic link, unless
// Options says where else it may be; and the image must say which format it is
// of, since one that is found out is the guest's to choose. QEMU has demanded
// that for years; qemu-img rebase -u -F adds it.
//
// Create and Write write version 3, without compression.
//
// The documents of QEMU, interop/qcow2, describe the format.
package qcow2
