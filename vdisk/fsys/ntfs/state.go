package ntfs

import (
	"bytes"
	"math/bits"
	"strings"
	"unicode/utf16"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// The attribute attrVolumeInfo of the file $Volume is
//
//	0[8] major[1] minor[1] flags[2]
//
// All flags but two make it uncertain: 0x01 is set while it is mounted, and
// the others are of work that was not finished. 0x80 is set by Windows 10 and
// does nothing to allocation, and 0x08 says that NT 4 has mounted it.
const (
	volumeDirty  = 0x01
	volumeFlags  = 0x80 | 0x08
	volumeLength = 12
)

// checkVolume reads the file $Volume.
func (v *volume) checkVolume(fs *fsys.FileSystem) error {
	r, err := v.file(recordVolume)
	if err != nil {
		return err
	}
	var info []byte
	for a := range r.attributes() {
		switch {
		case a.kind == attrVolumeName && a.resident:
			fs.Label = text(a.value)
		case a.kind == attrVolumeInfo && a.resident:
			info = a.value
		}
	}
	switch {
	case r.err != nil:
		return r.err
	case len(info) < volumeLength:
		return fsys.Uncertain("it does not say which version it is")
	}
	switch version := [2]byte{info[8], info[9]}; version {
	case [2]byte{1, 2}, [2]byte{3, 0}, [2]byte{3, 1}:
	default:
		return fsys.Uncertain("unknown version %d.%d of NTFS", version[0], version[1])
	}
	switch flags := le16(info[10:]); {
	case flags&volumeDirty != 0:
		return fsys.Uncertain("it was not unmounted")
	case flags&^volumeFlags != 0:
		return fsys.Uncertain("unfinished work, flags %#x", flags)
	}
	return nil
}

// text decodes UTF-16, little-endian.
func text(b []byte) string {
	words := make([]uint16, len(b)/2)
	for i := range words {
		words[i] = le16(b[2*i:])
	}
	return string(utf16.Decode(words))
}

// The file $LogFile is all ones if there is no log, as mkntfs and ntfs-3g leave
// it. Otherwise it begins with two restart pages, of which the one with the
// greater lsn is right:
//
//	0x00 magic[4] "RSTR" 0x04 fixoffset[2] 0x06 fixes[2] 0x10 pagesize[4]
//	0x14 logpagesize[4]  0x18 area[2]      0x1a minor[2] 0x1c major[2]
//
// and at area
//
//	0x00 lsn[8] 0x08 clients[2] 0x0a freeclients[2] 0x0c usedclients[2] 0x0e flags[2]
//
// Nothing is to be replayed if usedclients is ffff, the end of a list, or flags
// have bit 1. Version 2 of the log is left by a Windows that means to wake up.
const (
	magicRestart = "RSTR"
	restartHead  = 0x1e
	restartArea  = 0x10
	noClient     = 0xffff
	volumeClean  = 1 << 1
)

// checkLog tells whether the log says that the volume was unmounted. If there
// is none, nobody does: ntfs-3g takes it away, and leaves no other mark.
func (v *volume) checkLog() (closed bool, err error) {
	s, err := v.systemFile(recordLog)
	if err != nil {
		return false, err
	}
	b := make([]byte, min(readChunk, s.size))
	empty := s.size > 0
	for off := int64(0); off < s.size && empty; off += readChunk {
		piece := b[:min(readChunk, s.size-off)]
		if err := v.readStream(s, piece, off); err != nil {
			return false, err
		}
		empty = bytes.Count(piece, []byte{0xff}) == len(piece)
	}
	if empty {
		return false, nil
	}
	if s.size < fixStride {
		return false, errLog
	}
	head := b[:fixStride]
	if err := v.readStream(s, head, 0); err != nil {
		return false, err
	}
	page := int64(le32(head[0x10:]))
	if string(head[:4]) != magicRestart || page < fixStride || page > 64<<10 || bits.OnesCount64(uint64(page)) != 1 || 2*page > s.size {
		return false, errLog
	}
	var lsn uint64
	clean := false
	for i := range int64(2) {
		b := make([]byte, page)
		if err := v.readStream(s, b, i*page); err != nil {
			return false, err
		}
		area := int(le16(b[0x18:]))
		if string(b[:4]) != magicRestart || !fixUp(b) || area < restartHead || area+restartArea > fixStride-2 {
			return false, errLog
		}
		if major := le16(b[0x1c:]); major != 1 {
			return false, fsys.Uncertain("unknown version %d.%d of its log", major, le16(b[0x1a:]))
		}
		if n := le64(b[area:]); i == 0 || n > lsn {
			lsn = n
			clean = le16(b[area+0xc:]) == noClient || le16(b[area+0xe:])&volumeClean != 0
		}
	}
	if !clean {
		return false, errLog
	}
	return true, nil
}

var errLog = fsys.Uncertain("its log has to be replayed")

// Behind the boot code, at 0x1e00, a volume that has or had shadow copies has
//
//	0x00 guid[16] 0x10 version[4] 0x14 kind[4] 0x18 here[8] ... 0x30 catalog[8]
//	0x38 max[8] 0x40 volume[16] 0x50 storagevolume[16]
//
// A shadow copy takes from the volume what has not been written to since it was
// made, be it free now or not. There is none if the catalog is at 0 and the
// copies are not kept on another volume.
const (
	shadowOff  = 0x1e00
	shadowSize = 0x60
	shadowGUID = "\x6b\x87\x08\x38\x76\xc1\x48\x4e\xb7\xae\x04\x04\x6e\x6c\xc7\x52"
)

func (v *volume) checkShadow() error {
	if v.clusters*v.clusterSize < shadowOff+shadowSize {
		return nil
	}
	b := make([]byte, shadowSize)
	if err := disk.ReadFull(v.r, b, shadowOff); err != nil {
		return err
	}
	if string(b[:16]) == shadowGUID && (le64(b[0x30:]) != 0 || !bytes.Equal(b[0x40:0x50], b[0x50:0x60])) {
		return fsys.Uncertain("it has shadow copies")
	}
	return nil
}

// A name, the value of an attribute of the kind attrName, is
//
//	0x00 parent[8] 0x08 times[32] 0x28 allocated[8] 0x30 size[8] 0x38 flags[4]
//	0x3c reparse[4] 0x40 length[1] 0x41 space[1] 0x42 name
//
// where length counts words of UTF-16.
const nameHeader = 0x42

// The files in the root directory whose contents are memory of the machine.
const hibernation = "hiberfil.sys"

var pagingNames = [...]string{"pagefile.sys", "swapfile.sys", hibernation}

// fileName returns the parent and the name from a value.
func fileName(value []byte) (parent uint64, name string, ok bool) {
	if len(value) < nameHeader || len(value) < nameHeader+2*int(value[0x40]) {
		return 0, "", false
	}
	return le64(value), text(value[nameHeader:][:2*int(value[0x40])]), true
}

// A memoryFile is one of pagingNames.
type memoryFile struct {
	number      int64
	hibernation bool
}

// memoryFile returns the file that a names, if it is one of memory.
func (r *record) memoryFile(a *attribute) (m memoryFile, ok bool) {
	if a.kind != attrName {
		return m, false
	}
	parent, name, ok := fileName(a.value)
	if !ok || refNumber(parent) != recordRoot {
		return m, false
	}
	for _, p := range pagingNames {
		if strings.EqualFold(name, p) {
			return memoryFile{r.baseNumber(), p == hibernation}, true
		}
	}
	return m, false
}

// paging adds the clusters of a file to fs.Paging. It is uncertain what is
// free while the memory of a machine that is to wake up is in the file: there
// may be files in it that are not on the disk.
func (v *volume) paging(m memoryFile, fs *fsys.FileSystem) error {
	r, err := v.file(m.number)
	if err != nil {
		return err
	}
	s, err := v.stream(r, attrData, "")
	if err != nil {
		return err
	}
	if m.hibernation && s.size > 0 {
		var magic [4]byte
		if err := v.readStream(s, magic[:], 0); err != nil {
			return err
		}
		switch strings.ToLower(string(magic[:])) {
		case "\x00\x00\x00\x00", "wake":
		default:
			return fsys.Uncertain("it holds the memory of a machine that is asleep")
		}
	}
	for _, x := range s.runs {
		if x.lcn >= 0 {
			fs.Paging = append(fs.Paging, fsys.Extent{Off: x.lcn * v.clusterSize, Len: x.length * v.clusterSize})
		}
	}
	return nil
}
