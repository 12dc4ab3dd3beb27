package ntfs

import (
	"iter"

	"strata/vdisk/fsys"
)

// A record of the file table is of 1 KiB, or as the boot sector has it.
// Integers are little-endian. By offset:
//
//	0x00 magic[4] "FILE"   0x04 fixoffset[2]  0x06 fixes[2]    0x10 sequence[2]
//	0x14 attributes[2]     0x16 flags[2]      0x18 used[4]     0x20 base[8]
//
// fixes counts the 2-byte words at fixoffset: the first stands at the end of
// every 512 bytes in place of those that follow it. base, if not 0, is the
// record that this one is a continuation of; the upper 16 bits of a reference
// are the sequence of what it refers to. At attributes begin the attributes,
// ended by a kind of ffffffff:
//
//	0x00 kind[4]  0x04 length[4]  0x08 nonresident[1]  0x09 name[1]
//	0x0a nameoffset[2]  0x0c flags[2]  0x0e id[2]
//
// of which name counts UTF-16 words, and then, if it is resident,
//
//	0x10 valuelength[4]  0x14 valueoffset[2]
//
// or else, for the clusters first to last of a stream,
//
//	0x10 first[8] 0x18 last[8] 0x20 runsoffset[2] 0x22 unit[1]
//	0x28 allocated[8] 0x30 size[8] 0x38 initialized[8]
//
// where the last four are of the whole stream, in the part that has its
// first cluster. A run is a byte with the width of the length below and that of
// the place above, the length, and the place, a signed difference to that of
// the run before it; a place of no width is a hole. A byte of 0 ends them.
const (
	magicFile    = "FILE"
	recordHeader = 0x30
	fixStride    = 512
	flagInUse    = 1 << 0
	flagDir      = 1 << 1

	attrList       = 0x20
	attrName       = 0x30
	attrVolumeName = 0x60
	attrVolumeInfo = 0x70
	attrData       = 0x80
	attrEnd        = 0xffffffff

	attrCompressed = 0x00ff
	attrEncrypted  = 0x4000
	attrSparse     = 0x8000
)

// A record is one that is in use.
type record struct {
	v        *volume
	number   int64
	sequence uint16
	flags    uint16
	base     uint64 // reference, or 0
	b        []byte // used bytes
	attrs    int    // where the attributes begin
	err      error  // of attributes
}

// An attribute is valid as long as its record is.
type attribute struct {
	kind     uint32
	name     string // UTF-16, little-endian, as it is
	flags    uint16
	resident bool
	value    []byte // if resident

	first, last       int64 // clusters of the stream that runs cover
	runs              []run
	size, initialized int64
	unit              uint8 // log of clusters to a unit of compression
}

// A run is length clusters from lcn on, or a hole if that is negative.
type run struct{ lcn, length int64 }

// baseNumber returns the number of the file that r belongs to.
func (r *record) baseNumber() int64 {
	if r.base != 0 {
		return refNumber(r.base)
	}
	return r.number
}

func refNumber(ref uint64) int64 { return int64(ref & (1<<48 - 1)) }

// unpackRecord reads a record, and puts right its words in b. It returns nil
// for one that is not in use.
func (v *volume) unpackRecord(b []byte, number int64) (*record, error) {
	switch {
	case string(b[:4]) == magicFile:
	case le32(b) == 0:
		return nil, nil // never used
	default:
		return nil, fsys.Uncertain("record %d of its file table is damaged", number)
	}
	r := &record{v: v, number: number, sequence: le16(b[0x10:]), flags: le16(b[0x16:]), base: le64(b[0x20:])}
	if !fixUp(b) {
		return nil, fsys.Uncertain("record %d of its file table was not written as a whole", number)
	}
	if r.flags&flagInUse == 0 {
		return nil, nil
	}
	used := int64(le32(b[0x18:]))
	r.attrs = int(le16(b[0x14:]))
	if used > int64(len(b)) || r.attrs < recordHeader-8 || int64(r.attrs) > used-4 || r.attrs%4 != 0 {
		return nil, fsys.Uncertain("record %d of its file table has %d bytes from %d on", number, used, r.attrs)
	}
	r.b = b[:used]
	return r, nil
}

// fixUp puts right the last words of every 512 bytes, and tells whether they
// all are of one writing.
func fixUp(b []byte) bool {
	off, n := int(le16(b[4:])), int(le16(b[6:]))
	if n != len(b)/fixStride+1 || off < 8 || off%2 != 0 || off+2*n > fixStride-2 {
		return false
	}
	for i := 1; i < n; i++ {
		end := b[i*fixStride-2 : i*fixStride]
		if end[0] != b[off] || end[1] != b[off+1] {
			return false
		}
		copy(end, b[off+2*i:off+2*i+2])
	}
	return true
}

// attributes yields the attributes of r. It stops at a bad one and sets r.err.
func (r *record) attributes() iter.Seq[*attribute] {
	return func(yield func(*attribute) bool) {
		for b := r.b[r.attrs:]; ; {
			if len(b) < 4 {
				r.err = fsys.Uncertain("the attributes of file %d have no end", r.number)
				return
			}
			if le32(b) == attrEnd {
				return
			}
			a, n, ok := r.v.unpackAttribute(b)
			if !ok {
				r.err = fsys.Uncertain("file %d has a bad attribute %#x", r.number, le32(b))
				return
			}
			if !yield(a) {
				return
			}
			b = b[n:]
		}
	}
}

// unpackAttribute reads the attribute at the start of b, and returns its
// length.
func (v *volume) unpackAttribute(b []byte) (a *attribute, n int, ok bool) {
	if len(b) < 0x18 {
		return nil, 0, false
	}
	n = int(le32(b[4:]))
	if n < 0x18 || n > len(b) || n%4 != 0 {
		return nil, 0, false
	}
	b = b[:n]
	a = &attribute{kind: le32(b), flags: le16(b[0xc:]), resident: b[8] == 0}
	name, end := int(le16(b[0xa:])), int(le16(b[0xa:]))+2*int(b[9])
	if b[9] > 0 && end > n {
		return nil, 0, false
	}
	if b[9] > 0 {
		a.name = string(b[name:end])
	}
	if a.resident {
		off, length := int64(le16(b[0x14:])), int64(le32(b[0x10:]))
		if off+length > int64(n) {
			return nil, 0, false
		}
		a.value = b[off : off+length]
		return a, n, true
	}
	if n < 0x40 {
		return nil, 0, false
	}
	a.first, a.last = int64(le64(b[0x10:])), int64(le64(b[0x18:]))
	a.unit, a.size, a.initialized = b[0x22], int64(le64(b[0x30:])), int64(le64(b[0x38:]))
	off := int(le16(b[0x20:]))
	if off > n || a.first < 0 || a.last < a.first-1 || a.last >= maxClusters || a.size < 0 || a.size >= 1<<62 || a.initialized < 0 || a.initialized > a.size && a.first == 0 {
		return nil, 0, false
	}
	a.runs, ok = v.unpackRuns(b[off:], a.last-a.first+1)
	return a, n, ok
}

// unpackRuns reads the runs of so many clusters.
func (v *volume) unpackRuns(b []byte, clusters int64) (runs []run, ok bool) {
	lcn := int64(0)
	for len(b) > 0 && b[0] != 0 {
		ln, pn := int(b[0]&15), int(b[0]>>4)
		if ln == 0 || ln > 8 || pn > 8 || 1+ln+pn > len(b) {
			return nil, false
		}
		length := signed(b[1 : 1+ln])
		if length <= 0 || length > clusters {
			return nil, false
		}
		clusters -= length
		if pn == 0 {
			runs = append(runs, run{-1, length})
		} else {
			lcn += signed(b[1+ln : 1+ln+pn])
			if lcn < 0 || lcn >= v.clusters || length > v.clusters-lcn {
				return nil, false
			}
			runs = append(runs, run{lcn, length})
		}
		b = b[1+ln+pn:]
	}
	return runs, clusters == 0
}

// signed reads an integer of 1 to 8 bytes.
func signed(b []byte) int64 {
	n := int64(int8(b[len(b)-1]))
	for i := len(b) - 2; i >= 0; i-- {
		n = n<<8 | int64(b[i])
	}
	return n
}
