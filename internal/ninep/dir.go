package ninep

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// A Qid identifies a file: two with the same Path are the same file, and with
// the same Vers have the same contents.
//
// A packed qid is
//
//	type[1] vers[4] path[8]
type Qid struct {
	Path uint64
	Vers uint32
	Type uint8 // the top byte of the file's Mode
}

const qidSize = 13

// The bits of Qid.Type.
const (
	QTDir     = 0x80
	QTAppend  = 0x40
	QTExcl    = 0x20
	QTMount   = 0x10
	QTAuth    = 0x08
	QTTmp     = 0x04
	QTSymlink = 0x02
)

// Dir tells whether the file is a directory.
func (q Qid) Dir() bool { return q.Type&QTDir != 0 }

func (q Qid) pack(b []byte) []byte {
	b = append(b, q.Type)
	b = binary.LittleEndian.AppendUint32(b, q.Vers)
	return binary.LittleEndian.AppendUint64(b, q.Path)
}

func unpackQid(b []byte) (Qid, []byte, bool) {
	if len(b) < qidSize {
		return Qid{}, b, false
	}
	return Qid{
		Type: b[0],
		Vers: binary.LittleEndian.Uint32(b[1:]),
		Path: binary.LittleEndian.Uint64(b[5:]),
	}, b[qidSize:], true
}

// A Mode is a file's permissions and kind, in Plan 9's bits with those that
// 9P2000.u added.
type Mode uint32

// The bits of a Mode above the nine permission bits.
const (
	ModeDir     Mode = 0x80000000
	ModeAppend  Mode = 0x40000000
	ModeExcl    Mode = 0x20000000
	ModeMount   Mode = 0x10000000
	ModeAuth    Mode = 0x08000000
	ModeTmp     Mode = 0x04000000
	ModeSymlink Mode = 0x02000000
	ModeDevice  Mode = 0x00800000
	ModePipe    Mode = 0x00200000
	ModeSocket  Mode = 0x00100000
	ModeSetuid  Mode = 0x00080000
	ModeSetgid  Mode = 0x00040000
	ModeSticky  Mode = 0x00010000

	ModePerm    Mode = 0777
	ModeSpecial      = ModeSymlink | ModeDevice | ModePipe | ModeSocket // neither file nor directory

	modeLink Mode = 0x01000000 // of a Tcreate in 9P2000.u: another name

	modeSetID  = ModeSetuid | ModeSetgid | ModeSticky
	modeChange = ModePerm | modeSetID // what chmod(2) can change
)

// QidType returns the Qid.Type of a file with this mode.
func (m Mode) QidType() uint8 { return uint8(m >> 24) }

// Dir tells whether m is a directory's.
func (m Mode) Dir() bool { return m&ModeDir != 0 }

// Linux's kinds of file in st_mode, and its three bits above the permissions.
const (
	linuxKind    = 0o170000
	linuxSocket  = 0o140000
	linuxSymlink = 0o120000
	linuxRegular = 0o100000
	linuxBlock   = 0o060000
	linuxDir     = 0o040000
	linuxChar    = 0o020000
	linuxPipe    = 0o010000

	linuxSetuid = 0o4000
	linuxSetgid = 0o2000
	linuxSticky = 0o1000
)

// linux returns m as an st_mode. A device is a block device if dev says so.
func (m Mode) linux(dev Device) uint32 {
	v := uint32(m & ModePerm)
	switch {
	case m&ModeDir != 0:
		v |= linuxDir
	case m&ModeSymlink != 0:
		v |= linuxSymlink
	case m&ModeDevice != 0 && dev.Block:
		v |= linuxBlock
	case m&ModeDevice != 0:
		v |= linuxChar
	case m&ModePipe != 0:
		v |= linuxPipe
	case m&ModeSocket != 0:
		v |= linuxSocket
	default:
		v |= linuxRegular
	}
	for _, b := range setIDs {
		if m&b.mode != 0 {
			v |= b.linux
		}
	}
	return v
}

var setIDs = []struct {
	mode  Mode
	linux uint32
}{{ModeSetuid, linuxSetuid}, {ModeSetgid, linuxSetgid}, {ModeSticky, linuxSticky}}

// Unix returns m as an st_mode; of a device, as a character device.
func (m Mode) Unix() uint32 { return m.linux(Device{}) }

// ModeFromUnix returns an st_mode as a Mode. A plain file, and a mode without
// its kind, have none of the bits that tell a kind.
func ModeFromUnix(v uint32) Mode { return modeFromLinux(v) }

// modeFromLinux is the opposite of Mode.linux. The kind is left out when v
// has none, as in the modes of mkdir and create.
func modeFromLinux(v uint32) Mode {
	m := Mode(v) & ModePerm
	switch v & linuxKind {
	case linuxDir:
		m |= ModeDir
	case linuxSymlink:
		m |= ModeSymlink
	case linuxBlock, linuxChar:
		m |= ModeDevice
	case linuxPipe:
		m |= ModePipe
	case linuxSocket:
		m |= ModeSocket
	}
	for _, b := range setIDs {
		if v&b.linux != 0 {
			m |= b.mode
		}
	}
	return m
}

// A Device is the number of a device file.
type Device struct {
	Block        bool // a block device, not a character one
	Major, Minor uint32
}

// linux returns the number as Linux's dev_t of 64 bits.
func (d Device) linux() uint64 {
	maj, min := uint64(d.Major), uint64(d.Minor)
	return maj&0xfff<<8 | maj>>12<<44 | min&0xff | min>>8<<20
}

// String returns the form of 9P2000.u's extension: "b 8 1".
func (d Device) String() string {
	kind := 'c'
	if d.Block {
		kind = 'b'
	}
	return fmt.Sprintf("%c %d %d", kind, d.Major, d.Minor)
}

// parseDevice reads what String returns.
func parseDevice(ext string) (Device, error) {
	var kind rune
	var d Device
	if _, err := fmt.Sscanf(ext, "%c %d %d", &kind, &d.Major, &d.Minor); err != nil || kind != 'b' && kind != 'c' {
		return Device{}, ErrInvalid
	}
	d.Block = kind == 'b'
	return d, nil
}

// A Dir describes a file to every dialect. A tree fills in what it knows;
// the zero value of the rest has a meaning.
type Dir struct {
	Qid    Qid
	Mode   Mode
	Name   string // the last element; of a root "/"
	Length int64  // 0 for directories
	UID    string // names; "" is "none"
	GID    string
	Muid   string    // who changed it last; "" is UID
	Mtime  time.Time // of the contents
	Atime  time.Time // of the last read; zero is Mtime
	Ctime  time.Time // of the last change of anything; zero is Mtime
	Btime  time.Time // of the file's birth; zero is unknown
	Links  int       // names it has; 0 is one, or unknown
	Target string    // a symlink's
	Device Device    // a device's

	// Cookie is set in directory entries only: ReadDir(Cookie) goes on with
	// the entry after this one. It is from 1 to MaxCookie and stays right while
	// other entries come and go.
	Cookie uint64
}

// MaxCookie is the largest Dir.Cookie: Linux keeps it in a signed offset.
const MaxCookie = 1<<62 - 1

func orTime(t, other time.Time) time.Time {
	if t.IsZero() {
		return other
	}
	return t
}

// wireTime returns t in seconds, within what 32 bits hold; all ones would
// mean "don't touch".
func wireTime(t time.Time) uint32 {
	if t.IsZero() {
		return 0
	}
	return uint32(min(max(t.Unix(), 0), math.MaxUint32-1))
}

// splitTime returns t for 9P2000.L.
func splitTime(t time.Time) (sec, nsec uint64) {
	if t.IsZero() {
		return 0, 0
	}
	return uint64(t.Unix()), uint64(t.Nanosecond())
}

// stat returns d as the classic dialects send it.
func (d *Dir) stat(dialect Dialect, users *Users) Stat {
	s := Stat{
		Qid:    d.Qid,
		Mode:   uint32(d.Mode),
		Atime:  wireTime(orTime(d.Atime, d.Mtime)),
		Mtime:  wireTime(d.Mtime),
		Length: uint64(d.Length),
		Name:   d.Name,
		UID:    orNone(d.UID),
		GID:    orNone(d.GID),
		Muid:   d.Muid,
	}
	if s.Muid == "" {
		s.Muid = s.UID
	}
	if d.Mode.Dir() {
		s.Length = 0
	}
	if dialect == Unix {
		s.NUID, s.NGID, s.NMuid = users.ID(s.UID), users.ID(s.GID), users.ID(s.Muid)
		switch {
		case d.Mode&ModeSymlink != 0:
			s.Ext = d.Target
		case d.Mode&ModeDevice != 0:
			s.Ext = d.Device.String()
		}
	}
	return s
}

// attr returns d as Rgetattr sends it.
func (d *Dir) attr(users *Users) Attr {
	a := Attr{
		Mode:        d.Mode.linux(d.Device),
		UID:         users.ID(orNone(d.UID)),
		GID:         users.ID(orNone(d.GID)),
		Nlink:       uint64(max(1, d.Links)),
		Size:        uint64(d.Length),
		Blksize:     4096,
		Blocks:      uint64(d.Length+511) / 512,
		DataVersion: uint64(d.Qid.Vers),
	}
	if d.Mode&ModeDevice != 0 {
		a.Rdev = d.Device.linux()
	}
	a.AtimeSec, a.AtimeNsec = splitTime(orTime(d.Atime, d.Mtime))
	a.MtimeSec, a.MtimeNsec = splitTime(d.Mtime)
	a.CtimeSec, a.CtimeNsec = splitTime(orTime(d.Ctime, d.Mtime))
	a.BtimeSec, a.BtimeNsec = splitTime(d.Btime)
	return a
}

func orNone(name string) string {
	if name == "" {
		return NoUser
	}
	return name
}
