package ntfs

import (
	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// A stream is the contents of an attribute: those of a file are its nameless
// one of the kind attrData.
type stream struct {
	flags             uint16
	unit              uint8
	value             []byte // if it is resident
	runs              []run
	clusters          int64 // in runs
	size, initialized int64
}

// An attribute list has an entry for every attribute of a file that is in more
// than one record:
//
//	0x00 kind[4] 0x04 length[2] 0x06 name[1] 0x07 nameoffset[1]
//	0x08 first[8] 0x10 record[8] 0x18 id[2]
const (
	listEntry = 0x1a
	maxList   = 1 << 20
)

// openTable finds where the file table lies.
func (v *volume) openTable() error {
	// The first record is where the boot sector says, and says where the
	// others are.
	v.mft = &stream{size: v.recordSize, initialized: v.recordSize, runs: []run{{v.mftCluster, (v.recordSize + v.clusterSize - 1) / v.clusterSize}}}
	if v.mft.runs[0].length > v.clusters-v.mftCluster {
		return fsys.Uncertain("its file table is at cluster %d of %d", v.mftCluster, v.clusters)
	}
	s, err := v.systemFile(recordMFT)
	if err != nil {
		return err
	}
	if s.value != nil || len(s.runs) == 0 || s.runs[0].lcn != v.mftCluster {
		return fsys.Uncertain("its file table is not where it should be")
	}
	v.mft = s
	return nil
}

// readRecord reads a record of the file table into b, and returns nil if it
// is not in use.
func (v *volume) readRecord(number int64, b []byte) (*record, error) {
	if number < 0 || number >= v.mft.initialized/v.recordSize {
		return nil, fsys.Uncertain("there is no record %d in its file table", number)
	}
	if err := v.readStream(v.mft, b, number*v.recordSize); err != nil {
		return nil, err
	}
	return v.unpackRecord(b, number)
}

// file returns the first record of a file, which must be in use.
func (v *volume) file(number int64) (*record, error) {
	r, err := v.readRecord(number, make([]byte, v.recordSize))
	if err != nil {
		return nil, err
	}
	if r == nil || r.base != 0 {
		return nil, fsys.Uncertain("there is no file %d", number)
	}
	return r, nil
}

// systemFile returns the contents of a file of the file system's own.
func (v *volume) systemFile(number int64) (*stream, error) {
	r, err := v.file(number)
	if err != nil {
		return nil, err
	}
	s, err := v.stream(r, attrData, "")
	if err != nil {
		return nil, err
	}
	if s.value == nil && s.flags&(attrCompressed|attrEncrypted|attrSparse) != 0 || s.clusters > v.clusters {
		return nil, fsys.Uncertain("file %d is compressed", number)
	}
	for _, x := range s.runs {
		if x.lcn < 0 {
			return nil, fsys.Uncertain("file %d has a hole", number)
		}
	}
	return s, nil
}

// records calls f with every record in use.
func (v *volume) records(f func(r *record) error) error {
	b := make([]byte, readChunk)
	end := v.mft.initialized / v.recordSize * v.recordSize
	for off := int64(0); off < end; off += readChunk {
		piece := b[:min(readChunk, end-off)]
		if err := v.readStream(v.mft, piece, off); err != nil {
			return err
		}
		for i := int64(0); i < int64(len(piece)); i += v.recordSize {
			r, err := v.unpackRecord(piece[i:i+v.recordSize], (off+i)/v.recordSize)
			if err != nil {
				return err
			}
			if r == nil {
				continue
			}
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// stream puts together an attribute of the file whose first record is r.
func (v *volume) stream(r *record, kind uint32, name string) (*stream, error) {
	s := new(stream)
	found := false
	var list *attribute
	for a := range r.attributes() {
		if a.kind == attrList {
			list = a
		}
		if a.kind == kind && a.name == name && !found {
			found = true
			if err := s.add(a, r.number); err != nil {
				return nil, err
			}
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if list != nil {
		entries, err := v.readList(list, r.number)
		if err != nil {
			return nil, err
		}
		if err := v.follow(r, entries, kind, name, s, &found); err != nil {
			return nil, err
		}
	}
	switch {
	case !found:
		return nil, fsys.Uncertain("file %d has no attribute %#x", r.number, kind)
	case s.value == nil && (s.size+v.clusterSize-1)/v.clusterSize > s.clusters:
		return nil, fsys.Uncertain("file %d has %d clusters for %d bytes", r.number, s.clusters, s.size)
	}
	return s, nil
}

// follow adds the parts of an attribute that are in other records.
func (v *volume) follow(r *record, entries []byte, kind uint32, name string, s *stream, found *bool) error {
	b := make([]byte, v.recordSize)
	for len(entries) >= listEntry {
		n := int(le16(entries[4:]))
		if n < listEntry || n > len(entries) {
			return fsys.Uncertain("file %d has a bad list of attributes", r.number)
		}
		e := entries[:n]
		entries = entries[n:]
		off, end := int(e[7]), int(e[7])+2*int(e[6])
		if end > n {
			return fsys.Uncertain("file %d has a bad list of attributes", r.number)
		}
		ref := le64(e[0x10:])
		if le32(e) != kind || string(e[off:end]) != name || refNumber(ref) == r.number {
			continue
		}
		if r.number == recordMFT {
			// The records of the file table that say where the rest of it
			// is are in what is known of it.
			v.mft = &stream{runs: s.runs, clusters: s.clusters, size: s.clusters * v.clusterSize, initialized: s.clusters * v.clusterSize}
		}
		more, err := v.readRecord(refNumber(ref), b)
		if err != nil {
			return err
		}
		if more == nil || refNumber(more.base) != r.number || more.sequence != uint16(ref>>48) {
			return fsys.Uncertain("record %d is not of file %d", refNumber(ref), r.number)
		}
		first := int64(le64(e[8:]))
		for a := range more.attributes() {
			if a.kind == kind && a.name == name && a.first == first {
				if err := s.add(a, r.number); err != nil {
					return err
				}
				*found = true
				break
			}
		}
		if more.err != nil {
			return more.err
		}
	}
	return nil
}

// readList returns the contents of an attribute list.
func (v *volume) readList(a *attribute, number int64) ([]byte, error) {
	if a.resident {
		return a.value, nil
	}
	s := new(stream)
	if err := s.add(a, number); err != nil {
		return nil, err
	}
	if s.size > maxList || (s.size+v.clusterSize-1)/v.clusterSize > s.clusters {
		return nil, fsys.Uncertain("file %d has a list of attributes of %d bytes", number, s.size)
	}
	b := make([]byte, s.size)
	return b, v.readStream(s, b, 0)
}

// add appends what an attribute has of a stream.
func (s *stream) add(a *attribute, number int64) error {
	switch {
	case a.resident && s.clusters == 0 && s.value == nil:
		s.value, s.flags = a.value, a.flags
		s.size, s.initialized = int64(len(a.value)), int64(len(a.value))
		return nil
	case a.resident || s.value != nil || a.first != s.clusters:
		return fsys.Uncertain("file %d is not in one piece", number)
	case a.first == 0:
		s.size, s.initialized, s.flags, s.unit = a.size, a.initialized, a.flags, a.unit
	}
	s.runs = append(s.runs, a.runs...)
	s.clusters = a.last + 1
	return nil
}

// readStream fills b from a stream as it is on the disk: holes, and what is
// past the initialized part, are zeros.
func (v *volume) readStream(s *stream, b []byte, off int64) error {
	clear(b)
	if s.value != nil {
		if off < int64(len(s.value)) {
			copy(b, s.value[off:])
		}
		return nil
	}
	b = b[:max(0, min(int64(len(b)), s.initialized-off))]
	at := int64(0) // of the run, in bytes
	for _, x := range s.runs {
		n := x.length * v.clusterSize
		if len(b) == 0 {
			break
		}
		if skip := off - at; skip < n {
			piece := b[:min(int64(len(b)), n-skip)]
			if x.lcn >= 0 {
				if err := disk.ReadFull(v.r, piece, x.lcn*v.clusterSize+skip); err != nil {
					return err
				}
			}
			b, off = b[len(piece):], off+int64(len(piece))
		}
		at += n
	}
	return nil
}
