package venti

import (
	"fmt"
	"strconv"
)

// A Type tells what a block holds. Programs number types as base plus depth;
// the wire and the disk use an older numbering with one set of pointer types
// for both kinds of tree (spec/venti-protocol.md, section 4):
//
//	program  meaning                                   wire and disk
//	0        data                                      13
//	1..7     scores of data blocks, depth 1..7         3..9
//	8        directory, an array of 40-byte entries    2
//	9..15    scores of directory blocks, depth 1..7    3..9
//	16       root                                      1
//	255      corrupt or unknown                        anything else
//
// A block's key in a store is its score with its disk type: the same bytes
// written under two disk types are two blocks.
type Type uint8

// The types a program names. Pointer types are DataType+depth and
// DirType+depth.
const (
	DataType    Type = 0
	DirType     Type = 8
	RootType    Type = 16
	CorruptType Type = 255

	// MaxDepth is the largest number of pointer levels above the leaves.
	MaxDepth = 7
)

// DiskType is a block's type in the numbering of the wire and the disk.
type DiskType uint8

// The disk types that are not pointers. Pointer types are
// DiskPointerBase+depth, that is, 3 for depth 1.
const (
	DiskRoot        DiskType = 1
	DiskDir         DiskType = 2
	DiskPointerBase DiskType = 2
	DiskData        DiskType = 13
	DiskCorrupt     DiskType = 255
)

// Valid tells whether blocks of type t can be stored.
func (t Type) Valid() bool { return t <= RootType }

// Depth returns the number of pointer levels from a block of type t down to
// the leaves: 0 for leaves and roots.
func (t Type) Depth() int {
	if t < RootType {
		return int(t & 7)
	}
	return 0
}

// Base returns DataType or DirType for a leaf or pointer of that kind of
// tree, and t itself for others.
func (t Type) Base() Type {
	if t < RootType {
		return t &^ 7
	}
	return t
}

// IsPointer tells whether t is an array of scores.
func (t Type) IsPointer() bool { return t.Depth() > 0 }

// Disk returns t in the numbering of the wire and the disk, DiskCorrupt for
// a type that is not Valid.
func (t Type) Disk() DiskType {
	switch {
	case t == DataType:
		return DiskData
	case t == DirType:
		return DiskDir
	case t == RootType:
		return DiskRoot
	case t < RootType:
		return DiskPointerBase + DiskType(t.Depth())
	}
	return DiskCorrupt
}

// Valid tells whether d is one of the disk types that blocks are stored
// under.
func (d DiskType) Valid() bool { return d.Type() != CorruptType }

// Type returns d in the program's numbering. A pointer becomes a directory
// pointer (9..15), since the disk does not tell the two kinds apart; an
// unknown d becomes CorruptType.
func (d DiskType) Type() Type {
	switch {
	case d == DiskData:
		return DataType
	case d == DiskDir:
		return DirType
	case d == DiskRoot:
		return RootType
	case d > DiskPointerBase && d <= DiskPointerBase+MaxDepth:
		return DirType + Type(d-DiskPointerBase)
	}
	return CorruptType
}

// String returns a word such as "data", "data+2", "dir", "dir+1" or "root".
func (t Type) String() string {
	switch {
	case t == RootType:
		return "root"
	case t > RootType:
		return fmt.Sprintf("type%d", uint8(t))
	case t.Base() == DataType && t.Depth() == 0:
		return "data"
	case t.Base() == DataType:
		return fmt.Sprintf("data+%d", t.Depth())
	case t.Depth() == 0:
		return "dir"
	}
	return fmt.Sprintf("dir+%d", t.Depth())
}

// ParseType reads a type as a program numbers it, 0 to 16, or by the word that
// String returns.
func ParseType(text string) (Type, error) {
	for t := range RootType + 1 {
		if text == t.String() {
			return t, nil
		}
	}
	n, err := strconv.ParseUint(text, 0, 8)
	if t := Type(n); err == nil && t.Valid() {
		return t, nil
	}
	return CorruptType, fmt.Errorf("%w %q", ErrBadType, text)
}
