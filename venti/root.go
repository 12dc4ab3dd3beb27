package venti

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// RootSize is the length of a packed Root in bytes.
const RootSize = 300

// MaxRootString is how many bytes the name and the type of a Root can have.
const MaxRootString = 127

const (
	rootVersion    = 2
	rootVersionBig = 1 << 15
	rootString     = MaxRootString + 1
)

// A Root is the block at the top of an archive, stored under RootType.
//
// A packed root is
//
//	version[2] name[128] type[128] score[20] blocksize[2] prev[20]
//
// Integers are big-endian and strings are padded with NUL. version is 2; its
// top bit is set when blocksize is in the big encoding of Entry.
type Root struct {
	Name      string // at most MaxRootString bytes
	Type      string // what the tree is: vac, file, ext2, vdisk...; at most MaxRootString bytes
	Score     Score  // of a DirType block
	BlockSize int    // bytes in the largest block of the tree
	Prev      Score  // the root before this one, or Score{}
}

// Pack appends the 300 bytes of r to b.
func (r *Root) Pack(b []byte) ([]byte, error) {
	for _, s := range []string{r.Name, r.Type} {
		if len(s) >= rootString || bytes.IndexByte([]byte(s), 0) >= 0 {
			return b, fmt.Errorf("pack root: bad string %q", s)
		}
	}
	if r.BlockSize < MinBlockSize {
		return b, fmt.Errorf("pack root: bad block size %d", r.BlockSize)
	}
	version, size := rootVersion, r.BlockSize
	if size >= 1<<16 {
		var err error
		if size, err = packBig(size); err != nil {
			return b, fmt.Errorf("pack root: %w", err)
		}
		version |= rootVersionBig
	}
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	var str [rootString]byte
	for _, s := range []string{r.Name, r.Type} {
		clear(str[copy(str[:], s):])
		b = append(b, str[:]...)
	}
	b = append(b, r.Score[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	return append(b, r.Prev[:]...), nil
}

// UnpackRoot reads a root, which is exactly 300 bytes. A string ends at its
// first NUL and, as in C, before its last byte.
func UnpackRoot(b []byte) (Root, error) {
	if len(b) != RootSize {
		return Root{}, fmt.Errorf("unpack root: %d bytes, want %d", len(b), RootSize)
	}
	version := binary.BigEndian.Uint16(b)
	if version&^rootVersionBig != rootVersion {
		return Root{}, fmt.Errorf("unpack root: unknown version %d", version&^rootVersionBig)
	}
	str := func(b []byte) string {
		s, _, _ := bytes.Cut(b[:rootString-1], []byte{0})
		return string(s)
	}
	r := Root{
		Name:      str(b[2:130]),
		Type:      str(b[130:258]),
		Score:     Score(b[258:278]),
		BlockSize: int(binary.BigEndian.Uint16(b[278:])),
		Prev:      Score(b[280:300]),
	}
	if version&rootVersionBig != 0 {
		r.BlockSize = unpackBig(r.BlockSize)
	}
	if r.BlockSize < MinBlockSize {
		return r, fmt.Errorf("unpack root: bad block size %d", r.BlockSize)
	}
	return r, nil
}
