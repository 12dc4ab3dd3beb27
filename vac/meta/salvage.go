package meta

import (
	"bytes"
	"encoding/binary"
)

// Salvage returns the entries that it finds in the bytes of a block that is
// damaged, in the order in which they lie; of two with one name, the first. It
// looks for entries alone and not at the index: what is not in use is zero, so
// that entries that were removed do not come back. What damage has left of an
// entry may still be wrong.
func Salvage(b []byte) (list []DirEntry) {
	magic := binary.BigEndian.AppendUint32(nil, direntryMagic)
	seen := map[string]bool{}
	for off := 0; off+8 <= len(b); {
		n := entryLength(b[off:])
		if n == 0 {
			off++
			continue
		}
		e, err := UnpackDirEntry(b[off : off+n])
		// One that has swallowed another has a wrong length somewhere.
		if err != nil || bytes.Contains(b[off+4:off+n], magic) {
			off++
			continue
		}
		off += n
		if !seen[e.Name] {
			seen[e.Name] = true
			list = append(list, e)
		}
	}
	return list
}

// entryLength returns how long the entry is that b begins with, as its strings
// and options say; 0 if there is none.
func entryLength(b []byte) int {
	d := decoder{b: b}
	if d.uint32() != direntryMagic {
		return 0
	}
	version := d.uint16()
	d.string() // name
	d.take(4)
	if version == 9 {
		d.take(v9Size)
	}
	d.take(8) // qid
	if version == 7 {
		d.take(v7Size)
	}
	for range 3 {
		d.string()
	}
	d.take(5 * 4)
	if d.short {
		return 0
	}
	for len(d.b) >= optHeader {
		size, ok := map[byte]uint16{optPlan9: plan9Size, optQidSpace: qidSpaceSize, optGen: genSize}[d.b[0]]
		if !ok || binary.BigEndian.Uint16(d.b[1:]) != size || len(d.b) < optHeader+int(size) {
			break
		}
		d.take(optHeader + int(size))
	}
	return len(b) - len(d.b)
}
