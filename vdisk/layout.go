package vdisk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"strata/venti"
)

// LayoutVersion is the version of the layout that this package writes, and
// the only one that it reads.
const LayoutVersion = 1

// MaxRegions is the largest number of regions a disk can be cut into: the
// image's directory is one block, and its first entry is the layout.
const MaxRegions = venti.MaxBlockSize/venti.EntrySize - 1

// Bounds of what a layout may hold, far above what a real disk needs.
const (
	maxLayout = 1 << 20 // bytes of JSON
	maxName   = 64      // bytes of a region's name
	maxText   = 512     // bytes of any other string
)

// A Layout says how a disk is cut into regions, whose concatenation is the
// disk, byte for byte. It is kept beside the regions as layout.json:
//
//	{
//	  "version": 1,
//	  "size": 2147483648,
//	  "table": "gpt",
//	  "regions": [
//	    {"name": "gpt", "start": 0, "length": 17408, "kind": "gpt", ...
//
// with one space of indent for each level, no escapes but those that JSON
// needs, and a newline at the end. A layout has exactly one encoding, and it
// tells nothing but what the bytes of the disk tell, so that the same disk
// always gives the same layout.
type Layout struct {
	Version int      `json:"version"`
	Size    int64    `json:"size"`            // bytes of the disk
	Table   string   `json:"table"`           // kind of partition table: gpt, mbr, none
	Notes   []string `json:"notes,omitempty"` // what was odd about the table
	Regions []Region `json:"regions"`         // in order, from 0 to Size, without gaps
}

// A Region is a part of a disk that is stored as one hash tree, on a grid
// of blocks that begins where the region does.
type Region struct {
	Name   string `json:"name"`   // gpt, gap0, p1.ext4: unique, and fit for a file name
	Start  int64  `json:"start"`  // bytes from the start of the disk
	Length int64  `json:"length"` // bytes, at least one
	Kind   string `json:"kind"`   // mbr, gpt, gap, partition, disk...

	Partition  *Partition  `json:"partition,omitempty"`  // what the table says of it
	Volume     *Volume     `json:"volume,omitempty"`     // what LVM says of it
	FileSystem *FileSystem `json:"filesystem,omitempty"` // what was found in it

	Encoder     string `json:"encoder"`         // who said what is free: ext, swap; plain if nobody
	DSize       int    `json:"dsize"`           // bytes of a leaf block
	PSize       int    `json:"psize"`           // bytes of a pointer block
	FreeOmitted bool   `json:"freeOmitted"`     // free blocks were left out and read as zeros
	Whole       string `json:"whole,omitempty"` // why they were not

	// PagingOmitted says that the files in which a machine keeps its memory
	// were left out too, as was asked for.
	PagingOmitted bool `json:"pagingOmitted,omitempty"`
}

// A Partition is a region's entry in the partition table.
type Partition struct {
	Number int    `json:"number"` // from 1, as Linux numbers it
	Type   string `json:"type"`   // a GUID, or a byte of an MBR as two hex digits
	UUID   string `json:"uuid,omitempty"`
	Label  string `json:"label,omitempty"`
}

// A Volume is the logical volume that a region is a run of.
type Volume struct {
	Name   string `json:"name"`
	UUID   string `json:"uuid"`
	Group  string `json:"group"`
	Offset int64  `json:"offset"` // of the region in the volume, in bytes
	Length int64  `json:"length"` // of the volume
}

// A FileSystem is what a region holds.
type FileSystem struct {
	Type      string `json:"type"` // ext4, swap...
	UUID      string `json:"uuid,omitempty"`
	Label     string `json:"label,omitempty"`
	BlockSize int    `json:"blockSize"` // bytes of the file system's own block
}

// Exact tells whether the disk is one of which every byte was asked for.
func (l *Layout) Exact() bool {
	return slices.ContainsFunc(l.Regions, func(r Region) bool { return r.Whole == exactReason })
}

// Parts returns the indices of the regions that are partitions, or the first of
// those that one is cut into, by what they are called in trees: their numbers, or
// 0 for all of a disk without a table.
func (l *Layout) Parts() map[string]int {
	parts := make(map[string]int)
	for i := range l.Regions {
		switch r := &l.Regions[i]; {
		case r.Partition != nil:
			parts[strconv.Itoa(r.Partition.Number)] = i
		case i == 0 && l.partEnd(0) == len(l.Regions):
			parts["0"] = i
		}
	}
	return parts
}

// PartLength returns the bytes of the partition that begins with region i.
func (l *Layout) PartLength(i int) int64 {
	last := &l.Regions[l.partEnd(i)-1]
	return last.Start + last.Length - l.Regions[i].Start
}

// Encode returns the bytes of layout.json. It fails when l is not what
// DecodeLayout accepts.
func (l *Layout) Encode() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("encode layout: %w", err)
	}
	return l.encode()
}

func (l *Layout) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(l); err != nil {
		return nil, fmt.Errorf("encode layout: %w", err)
	}
	if b.Len() > maxLayout {
		return nil, fmt.Errorf("encode layout: %d bytes, at most %d", b.Len(), maxLayout)
	}
	return b.Bytes(), nil
}

// DecodeLayout reads layout.json and trusts nothing in it: unknown names, a
// second spelling of the same thing, regions that do not follow one another
// from 0 to the size are refused.
func DecodeLayout(data []byte) (*Layout, error) {
	if len(data) > maxLayout {
		return nil, fmt.Errorf("decode layout: %d bytes, at most %d", len(data), maxLayout)
	}
	var v struct{ Version int }
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("decode layout: %w", err)
	}
	if v.Version != LayoutVersion {
		return nil, fmt.Errorf("decode layout: unknown version %d", v.Version)
	}
	l := new(Layout)
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(l); err != nil {
		return nil, fmt.Errorf("decode layout: %w", err)
	}
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("decode layout: %w", err)
	}
	// Names spelled in another case, names given twice, and anything after
	// the value get past encoding/json but not past this.
	again, err := l.encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, errors.New("decode layout: not in canonical form")
	}
	return l, nil
}

// check tells why l is not a layout.
func (l *Layout) check() error {
	switch {
	case l.Version != LayoutVersion:
		return fmt.Errorf("unknown version %d", l.Version)
	case l.Size < 0 || l.Size > venti.MaxEntrySize:
		return fmt.Errorf("bad size %d", l.Size)
	case !isWord(l.Table):
		return fmt.Errorf("bad table %q", l.Table)
	case l.Regions == nil:
		return errors.New("no list of regions")
	case len(l.Regions) > MaxRegions:
		return fmt.Errorf("%d regions, at most %d", len(l.Regions), MaxRegions)
	case len(l.Notes) > MaxRegions:
		return fmt.Errorf("%d notes, at most %d", len(l.Notes), MaxRegions)
	}
	if err := checkText(l.Notes...); err != nil {
		return err
	}
	names := make(map[string]bool)
	numbers := make(map[int]bool)
	end := int64(0)
	for i := range l.Regions {
		r := &l.Regions[i]
		if err := r.check(); err != nil {
			return fmt.Errorf("region %d: %w", i, err)
		}
		if r.Start != end || r.Length > l.Size-end {
			return fmt.Errorf("region %d: bad place %d+%d after %d of %d", i, r.Start, r.Length, end, l.Size)
		}
		end += r.Length
		if names[r.Name] {
			return fmt.Errorf("region %d: second %q", i, r.Name)
		}
		names[r.Name] = true
		if p := r.Partition; p != nil {
			if numbers[p.Number] {
				return fmt.Errorf("region %d: second partition %d", i, p.Number)
			}
			numbers[p.Number] = true
		}
	}
	if end != l.Size {
		return fmt.Errorf("regions end at %d of %d", end, l.Size)
	}
	return nil
}

func (r *Region) check() error {
	switch {
	case !isWord(r.Name):
		return fmt.Errorf("bad name %q", r.Name)
	case r.Length <= 0:
		return fmt.Errorf("bad length %d", r.Length)
	case !isWord(r.Kind):
		return fmt.Errorf("bad kind %q", r.Kind)
	case !isWord(r.Encoder):
		return fmt.Errorf("bad encoder %q", r.Encoder)
	case r.DSize < venti.MinBlockSize || r.DSize > venti.MaxBlockSize,
		r.PSize < venti.MinBlockSize || r.PSize > venti.MaxBlockSize:
		return fmt.Errorf("bad block size %d/%d", r.PSize, r.DSize)
	case r.FreeOmitted && r.Whole != "":
		return errors.New("both whole and with free blocks left out")
	case r.PagingOmitted && !r.FreeOmitted:
		return errors.New("paging files left out, and free blocks not")
	}
	if p := r.Partition; p != nil {
		if p.Number < 1 {
			return fmt.Errorf("bad partition number %d", p.Number)
		}
		if err := checkText(p.Type, p.UUID, p.Label); err != nil {
			return err
		}
	}
	if v := r.Volume; v != nil {
		if v.Offset < 0 || v.Offset > v.Length || r.Length > v.Length-v.Offset {
			return fmt.Errorf("bad place %d of %d in a volume", v.Offset, v.Length)
		}
		if err := checkText(v.Name, v.UUID, v.Group); err != nil {
			return err
		}
	}
	if f := r.FileSystem; f != nil {
		if f.BlockSize < 0 {
			return fmt.Errorf("bad file system block size %d", f.BlockSize)
		}
		if err := checkText(f.Type, f.UUID, f.Label); err != nil {
			return err
		}
	}
	return checkText(r.Whole)
}

// isWord tells whether s can be a name in a layout: one element of a path
// that every file system and shell takes as it is.
func isWord(s string) bool {
	if s == "" || len(s) > maxName || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

func checkText(list ...string) error {
	for _, s := range list {
		if len(s) > maxText {
			return fmt.Errorf("string of %d bytes, at most %d", len(s), maxText)
		}
	}
	return nil
}

// text makes a string found on a disk fit for a layout: valid UTF-8, cut to
// maxText bytes.
func text(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}
