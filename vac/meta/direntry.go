package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A DirEntry is a name in a directory and what is known of the file but its
// contents and size. Values can be compared with ==.
//
// A packed entry is
//
//	magic[4] version[2] name[s] entry[4]
//	gen[4] mentry[4] mgen[4]                   in version 9 only
//	qid[8]
//	0[20]                                      in version 7 only
//	uid[s] gid[s] mid[s]
//	mtime[4] mcount[4] ctime[4] atime[4] mode[4]
//	{kind[1] length[2] data[length]}...        options, to the end
//
// where [s] is a string, length[2] bytes[length]. All integers are
// big-endian; magic is 1c4d9072. The options are
//
//	1  path[8] version[4]   Plan9; before version 9, at most once
//	3  offset[8] max[8]     QidSpace; at most once
//	4  gen[4]               Gen; before version 9
//
// Others are skipped. plan9port's programs skip option 4, too.
type DirEntry struct {
	// Version is 7 (read only), 8 (vac) or 9 (fossil). Before 9 the MEntry is
	// always Entry + 1, and MGen 0.
	Version int

	Name          string
	Entry, Gen    uint32 // slot of the file's contents, and its generation
	MEntry, MGen  uint32 // slot of a directory's metadata, and its generation
	Qid           uint64 // unique in the archive or file system; but see QidSpace
	UID, GID, MID string // owner, group, who changed it last
	Mtime         uint32 // this and the others in seconds since 1970
	Mcount        uint32 // changes when the file does
	Ctime, Atime  uint32
	Mode          Mode

	// QidSpace says that QidOffset is added to this file's Qid and to those of all
	// files below it. QidMax is larger than any that a file below has.
	QidSpace          bool
	QidOffset, QidMax uint64

	// Plan9 says that Plan9Path and Plan9Version are the qid that the file had
	// in the file system that it comes from.
	Plan9        bool
	Plan9Path    uint64
	Plan9Version uint32
}

const (
	direntryMagic = 0x1c4d9072

	optPlan9    = 1
	optQidSpace = 3
	optGen      = 4

	// fixedSize counts the bytes of a version 8 entry that has neither options
	// nor a byte in its strings.
	fixedSize = 4 + 2 + 2 + 4 + 8 + 3*2 + 5*4
	v9Size    = 12
	v7Size    = 20

	optHeader    = 3
	plan9Size    = 12
	qidSpaceSize = 16
	genSize      = 4

	maxString = 1<<16 - 1
)

// ErrCorrupt is returned for bytes that are no metadata.
var ErrCorrupt = errors.New("corrupt metadata")

// Size returns how many bytes e takes when it is packed.
func (e *DirEntry) Size() int {
	n := fixedSize + len(e.Name) + len(e.UID) + len(e.GID) + len(e.MID)
	if e.Version >= 9 {
		n += v9Size
	} else if e.Gen != 0 {
		n += optHeader + genSize
	}
	if e.Plan9 {
		n += optHeader + plan9Size
	}
	if e.QidSpace {
		n += optHeader + qidSpaceSize
	}
	return n
}

// Append appends the packed e to b. It fails when a string is too long or e
// does not fit its version.
func (e *DirEntry) Append(b []byte) ([]byte, error) {
	switch {
	case e.Version != 8 && e.Version != 9:
		return b, fmt.Errorf("pack directory entry %q: bad version %d", e.Name, e.Version)
	case e.Version == 8 && (e.MGen != 0 || e.Mode.IsDir() && e.MEntry != e.Entry+1):
		return b, fmt.Errorf("pack directory entry %q: metadata in slot %d, generation %d, needs version 9", e.Name, e.MEntry, e.MGen)
	case e.Version == 9 && e.Plan9:
		return b, fmt.Errorf("pack directory entry %q: version 9 has no place for its Plan 9 qid", e.Name)
	}
	be := binary.BigEndian
	for _, s := range []string{e.Name, e.UID, e.GID, e.MID} {
		if len(s) > maxString {
			return b, fmt.Errorf("pack directory entry %.40q: string of %d bytes", e.Name, len(s))
		}
	}
	str := func(s string) {
		b = be.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	b = be.AppendUint32(b, direntryMagic)
	b = be.AppendUint16(b, uint16(e.Version))
	str(e.Name)
	b = be.AppendUint32(b, e.Entry)
	if e.Version == 9 {
		b = be.AppendUint32(b, e.Gen)
		b = be.AppendUint32(b, e.MEntry)
		b = be.AppendUint32(b, e.MGen)
	}
	b = be.AppendUint64(b, e.Qid)
	str(e.UID)
	str(e.GID)
	str(e.MID)
	for _, v := range []uint32{e.Mtime, e.Mcount, e.Ctime, e.Atime, uint32(e.Mode)} {
		b = be.AppendUint32(b, v)
	}
	option := func(kind byte, size int) {
		b = be.AppendUint16(append(b, kind), uint16(size))
	}
	if e.Plan9 {
		option(optPlan9, plan9Size)
		b = be.AppendUint64(b, e.Plan9Path)
		b = be.AppendUint32(b, e.Plan9Version)
	}
	if e.QidSpace {
		option(optQidSpace, qidSpaceSize)
		b = be.AppendUint64(b, e.QidOffset)
		b = be.AppendUint64(b, e.QidMax)
	}
	if e.Version < 9 && e.Gen != 0 {
		option(optGen, genSize)
		b = be.AppendUint32(b, e.Gen)
	}
	return b, nil
}

// UnpackDirEntry reads a packed entry, which takes all of b. Errors wrap
// ErrCorrupt.
func UnpackDirEntry(b []byte) (DirEntry, error) {
	d := decoder{b: b}
	if m := d.uint32(); m != direntryMagic && !d.short {
		return DirEntry{}, fmt.Errorf("%w: directory entry with magic %08x", ErrCorrupt, m)
	}
	e := DirEntry{Version: int(d.uint16())}
	if (e.Version < 7 || e.Version > 9) && !d.short {
		return DirEntry{}, fmt.Errorf("%w: directory entry of version %d", ErrCorrupt, e.Version)
	}
	e.Name = d.string()
	e.Entry = d.uint32()
	if e.Version == 9 {
		e.Gen, e.MEntry, e.MGen = d.uint32(), d.uint32(), d.uint32()
	} else {
		e.MEntry = e.Entry + 1
	}
	e.Qid = d.uint64()
	if e.Version == 7 {
		d.take(v7Size)
	}
	e.UID, e.GID, e.MID = d.string(), d.string(), d.string()
	e.Mtime, e.Mcount, e.Ctime, e.Atime = d.uint32(), d.uint32(), d.uint32(), d.uint32()
	e.Mode = Mode(d.uint32())
	for len(d.b) > 0 && !d.short {
		if err := e.unpackOption(d.take(1), d.take(int(d.uint16()))); err != nil && !d.short {
			return DirEntry{}, fmt.Errorf("%w: directory entry %q: %w", ErrCorrupt, e.Name, err)
		}
	}
	if d.short {
		return DirEntry{}, fmt.Errorf("%w: directory entry %q is cut off at %d bytes", ErrCorrupt, e.Name, len(b))
	}
	return e, nil
}

func (e *DirEntry) unpackOption(kind, data []byte) error {
	if len(kind) == 0 {
		return errors.New("no option") // the caller knows that bytes ran out
	}
	be := binary.BigEndian
	switch kind[0] {
	case optPlan9:
		if e.Plan9 || e.Version >= 9 || len(data) != plan9Size {
			return fmt.Errorf("Plan 9 qid of %d bytes, or out of place", len(data))
		}
		e.Plan9, e.Plan9Path, e.Plan9Version = true, be.Uint64(data), be.Uint32(data[8:])
		if e.Mcount == 0 {
			e.Mcount = e.Plan9Version
		}
	case optQidSpace:
		if e.QidSpace || len(data) != qidSpaceSize {
			return fmt.Errorf("qid space of %d bytes, or out of place", len(data))
		}
		e.QidSpace, e.QidOffset, e.QidMax = true, be.Uint64(data), be.Uint64(data[8:])
	case optGen:
		if e.Version >= 9 || len(data) != genSize {
			return fmt.Errorf("generation of %d bytes, or out of place", len(data))
		}
		e.Gen = be.Uint32(data)
	}
	return nil
}

// A decoder takes fields off the front of b. When they run out it sets short
// and gives zeros.
type decoder struct {
	b     []byte
	short bool
}

func (d *decoder) take(n int) []byte {
	if d.short || n > len(d.b) {
		d.short = true
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint16() uint16 {
	if v := d.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if v := d.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if v := d.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (d *decoder) string() string { return string(d.take(int(d.uint16()))) }
