// Package format packs and unpacks what Fossil keeps on a partition: the
// header, the super block, block labels, pointers, entries with what they
// carry while they are local, and the boot configuration. Metadata blocks and
// directory entries are package meta's.
//
// A partition is
//
//	127 KiB                 boot configuration, 1 KiB
//	128 KiB                 header, 512 bytes
//	super * blockSize       super block
//	label * blockSize ...   labels of the data blocks
//	data * blockSize ...    data blocks; address 0 is the first
//	end * blockSize
//
// All integers are big-endian. Unpacking trusts nothing that it reads.
package format

import "errors"

// The errors that tell what is damaged. Their texts are those of Plan 9's
// Fossil, which clients see.
var (
	ErrHeader = errors.New("bad disk header")
	ErrSuper  = errors.New("corrupted super block")
	ErrLabel  = errors.New("corrupted block label")
	ErrEntry  = errors.New("corrupted file entry")
)

// None is the address that stands for no block.
const None = ^uint32(0)
