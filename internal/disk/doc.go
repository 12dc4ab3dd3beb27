// Package disk is the storage under every format of ours: files and
// partitions of the machine, locked while they are open, and simulated disks
// that lose, tear and reorder what was not synced.
package disk

import "io"

// A File is a fixed range of bytes that outlives the process.
//
// ReadAt and WriteAt follow io.ReaderAt and io.WriterAt and may be called at
// once from several goroutines. Both refuse a range that is not inside
// [0, Size). What WriteAt wrote can be read back at once, and is on stable
// storage when a Sync that began after it has returned nil.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Size() int64
}
