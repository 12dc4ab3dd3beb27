// Package swap knows swap areas of Linux: what they hold is worth nothing
// once the machine is off, so all but the first page is free, unless the
// machine is asleep and its memory is in there.
package swap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// The first page of a swap area is
//
//	boot[1024] version[4] lastpage[4] badpages[4] uuid[16] label[16] 0[117*4]
//	bad[4]*badpages ... magic[10]
//
// with the magic in the page's last ten bytes. Integers are in the byte
// order of the machine that made it, which the version, 1, tells. lastpage is
// the number of the last page, counting from 0. A page is 4 to 64 KiB.
const (
	headerOff  = 1024
	headerSize = 44
	magicSize  = 10
	version    = 1

	minPage = 4 << 10
	maxPage = 64 << 10
)

const (
	magicArea = "SWAPSPACE2"
	magicOld  = "SWAP-SPACE" // a bitmap of good pages in place of the header
)

// asleep are the magics that stand in the place of SWAPSPACE2 while the
// machine's memory is in the area; the header is as it was.
var asleep = []string{
	"S1SUSPEND\x00",
	"S2SUSPEND\x00",
	"ULSUSPEND\x00",
	"LINHIB0001",
	"\xed\xc3\x02\xe9\x98\x56\xe5\x0c", // TuxOnIce
}

// Probe is an fsys.Prober for swap areas. The type is "swap", also of one that
// holds a sleeping machine.
func Probe(r io.ReaderAt, size int64) (*fsys.FileSystem, error) {
	var found *fsys.FileSystem
	for page := int64(minPage); page <= maxPage && page <= size; page *= 2 {
		fs, err := probePage(r, size, page)
		if err != nil {
			return nil, fmt.Errorf("probe swap: %w", err)
		}
		if fs != nil && found != nil {
			return &fsys.FileSystem{
				Type:  "swap",
				Whole: fmt.Sprintf("it has the signatures of swap areas with pages of %d and of %d bytes", found.BlockSize, page),
			}, nil
		}
		if fs != nil {
			found = fs
		}
	}
	return found, nil
}

// probePage looks for an area with pages of one size, and returns nil if there
// is none.
func probePage(r io.ReaderAt, size, page int64) (*fsys.FileSystem, error) {
	var magic [magicSize]byte
	if err := disk.ReadFull(r, magic[:], page-magicSize); err != nil {
		return nil, err
	}
	fs := &fsys.FileSystem{Type: "swap", BlockSize: int(page)}
	switch {
	case string(magic[:]) == magicArea:
	case string(magic[:]) == magicOld:
		fs.Whole = "it is a swap area of the old format"
		return fs, nil
	case sleeping(magic[:]):
		fs.Whole = "it holds the memory of a machine that is asleep"
	default:
		return nil, nil
	}
	var h [headerSize]byte
	if err := disk.ReadFull(r, h[:], headerOff); err != nil {
		return nil, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(h[:]) != version {
		order = binary.BigEndian
	}
	if v := order.Uint32(h[:]); v != version {
		if fs.Whole == "" {
			fs.Whole = fmt.Sprintf("unknown version %#x of a swap area", binary.LittleEndian.Uint32(h[:]))
		}
		return fs, nil
	}
	fs.Size = (int64(order.Uint32(h[4:])) + 1) * page
	fs.UUID = fsys.UUID([16]byte(h[12:]))
	label, _, _ := bytes.Cut(h[28:44], []byte{0})
	fs.Label = string(label)
	switch {
	case fs.Whole != "":
	case fs.Size > size:
		fs.Whole = fmt.Sprintf("the swap area is of %d bytes, its region of %d", fs.Size, size)
	case fs.Size > page:
		fs.FreeBytes = fs.Size - page
		fs.FreeMap = func(yield func(fsys.Extent, error) bool) {
			yield(fsys.Extent{Off: page, Len: fs.FreeBytes}, nil)
		}
	}
	return fs, nil
}

func sleeping(magic []byte) bool {
	for _, s := range asleep {
		if bytes.HasPrefix(magic, []byte(s)) {
			return true
		}
	}
	return false
}
