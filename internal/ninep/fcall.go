package ninep

import "math"

// A Dialect is what Tversion agreed on.
type Dialect uint8

const (
	Classic Dialect = iota // 9P2000, Plan 9's
	Unix                   // 9P2000.u, with errnos, numeric users and special files
	Linux                  // 9P2000.L, Linux's own
)

// String returns the dialect's version string.
func (d Dialect) String() string {
	switch d {
	case Unix:
		return "9P2000.u"
	case Linux:
		return "9P2000.L"
	}
	return "9P2000"
}

// A Type is the kind of a message. Those with even numbers are requests.
type Type uint8

// The messages of every dialect.
const (
	Rlerror      Type = 7
	Tstatfs      Type = 8
	Rstatfs      Type = 9
	Tlopen       Type = 12
	Rlopen       Type = 13
	Tlcreate     Type = 14
	Rlcreate     Type = 15
	Tsymlink     Type = 16
	Rsymlink     Type = 17
	Tmknod       Type = 18
	Rmknod       Type = 19
	Trename      Type = 20
	Rrename      Type = 21
	Treadlink    Type = 22
	Rreadlink    Type = 23
	Tgetattr     Type = 24
	Rgetattr     Type = 25
	Tsetattr     Type = 26
	Rsetattr     Type = 27
	Txattrwalk   Type = 30
	Rxattrwalk   Type = 31
	Txattrcreate Type = 32
	Rxattrcreate Type = 33
	Treaddir     Type = 40
	Rreaddir     Type = 41
	Tfsync       Type = 50
	Rfsync       Type = 51
	Tlock        Type = 52
	Rlock        Type = 53
	Tgetlock     Type = 54
	Rgetlock     Type = 55
	Tlink        Type = 70
	Rlink        Type = 71
	Tmkdir       Type = 72
	Rmkdir       Type = 73
	Trenameat    Type = 74
	Rrenameat    Type = 75
	Tunlinkat    Type = 76
	Runlinkat    Type = 77
	Tversion     Type = 100
	Rversion     Type = 101
	Tauth        Type = 102
	Rauth        Type = 103
	Tattach      Type = 104
	Rattach      Type = 105
	Rerror       Type = 107
	Tflush       Type = 108
	Rflush       Type = 109
	Twalk        Type = 110
	Rwalk        Type = 111
	Topen        Type = 112
	Ropen        Type = 113
	Tcreate      Type = 114
	Rcreate      Type = 115
	Tread        Type = 116
	Rread        Type = 117
	Twrite       Type = 118
	Rwrite       Type = 119
	Tclunk       Type = 120
	Rclunk       Type = 121
	Tremove      Type = 122
	Rremove      Type = 123
	Tstat        Type = 124
	Rstat        Type = 125
	Twstat       Type = 126
	Rwstat       Type = 127

	maxType = 128
)

// Values that stand for none.
const (
	NoTag uint16 = math.MaxUint16
	NoFid uint32 = math.MaxUint32
	NoUID uint32 = math.MaxUint32
)

// MaxNames is the most names that one Twalk carries.
const MaxNames = 16

const (
	headerSize  = 4 + 1 + 2      // size[4] type[1] tag[2]
	rreadHeader = headerSize + 4 // what stands in front of the data of an Rread
	ioHeader    = 24             // room that clients leave for the header of a Twrite
)

// An Fcall is a message of any dialect. Which fields it carries, in which
// order, is in the tables below. Data is not copied by Unpack: it lies in the
// frame.
type Fcall struct {
	Type    Type
	Tag     uint16
	Fid     uint32
	Newfid  uint32
	Afid    uint32
	Oldtag  uint16
	Msize   uint32
	Version string
	Ename   string
	Errno   uint32
	Qid     Qid
	Qids    []Qid
	Names   []string
	Iounit  uint32
	Uname   string
	Aname   string
	UID     uint32
	GID     uint32
	Name    string
	Newname string // the second name: of a rename, or a symlink's target
	Perm    uint32 // Plan 9's bits, or Linux's in Linux's messages
	Mode    uint8
	Flags   uint32
	Ext     string
	Offset  uint64
	Count   uint32
	Data    []byte
	Stat    Stat
	Mask    uint64
	Attr    Attr
	Valid   uint32
	Major   uint32
	Minor   uint32
	Size    uint64
	Lock    Lock
	Status  uint8
	StatFS  StatFS
}

// A Stat is the machine-independent directory entry of stat(5), as it is on
// the wire. Values of all ones and empty strings mean "don't touch" in a
// Twstat.
//
// A packed stat is
//
//	size[2] type[2] dev[4] qid[13] mode[4] atime[4] mtime[4] length[8]
//	name[s] uid[s] gid[s] muid[s]
//
// and in 9P2000.u also
//
//	extension[s] n_uid[4] n_gid[4] n_muid[4]
//
// size counts the bytes after itself. All integers of 9P are little-endian,
// and a string is length[2] and that many bytes.
type Stat struct {
	Type   uint16
	Dev    uint32
	Qid    Qid
	Mode   uint32
	Atime  uint32
	Mtime  uint32
	Length uint64
	Name   string
	UID    string
	GID    string
	Muid   string
	Ext    string
	NUID   uint32
	NGID   uint32
	NMuid  uint32
}

// An Attr is what Rgetattr and, in part, Tsetattr carry.
type Attr struct {
	Mode        uint32
	UID         uint32
	GID         uint32
	Nlink       uint64
	Rdev        uint64
	Size        uint64
	Blksize     uint64
	Blocks      uint64
	AtimeSec    uint64
	AtimeNsec   uint64
	MtimeSec    uint64
	MtimeNsec   uint64
	CtimeSec    uint64
	CtimeNsec   uint64
	BtimeSec    uint64
	BtimeNsec   uint64
	Gen         uint64
	DataVersion uint64
}

// A field is a part of a message and a pointer to where its value is. The
// pointer's type says how it is packed:
//
//	*uint8 *uint16 *uint32 *uint64   little-endian
//	*string                          length[2] bytes
//	*[]string                        count[2] strings, at most MaxNames
//	*[]byte                          count[4] bytes
//	*Qid                             type[1] vers[4] path[8]
//	*[]Qid                           count[2] qids, at most MaxNames
//	*Stat                            length[2] packed stat
type field[T any] struct {
	name string
	at   func(*T) any
}

// A layout is the name of a message and what follows its header
// size[4] type[1] tag[2], in order. An optional last field may be missing.
type layout struct {
	name     string
	fields   []field[Fcall]
	optional bool
}

type fields = []field[Fcall]

var (
	fFid     = field[Fcall]{"fid", func(f *Fcall) any { return &f.Fid }}
	fNewfid  = field[Fcall]{"newfid", func(f *Fcall) any { return &f.Newfid }}
	fAfid    = field[Fcall]{"afid", func(f *Fcall) any { return &f.Afid }}
	fOldtag  = field[Fcall]{"oldtag", func(f *Fcall) any { return &f.Oldtag }}
	fMsize   = field[Fcall]{"msize", func(f *Fcall) any { return &f.Msize }}
	fVersion = field[Fcall]{"version", func(f *Fcall) any { return &f.Version }}
	fEname   = field[Fcall]{"ename", func(f *Fcall) any { return &f.Ename }}
	fErrno   = field[Fcall]{"errno", func(f *Fcall) any { return &f.Errno }}
	fQid     = field[Fcall]{"qid", func(f *Fcall) any { return &f.Qid }}
	fQids    = field[Fcall]{"qids", func(f *Fcall) any { return &f.Qids }}
	fNames   = field[Fcall]{"names", func(f *Fcall) any { return &f.Names }}
	fIounit  = field[Fcall]{"iounit", func(f *Fcall) any { return &f.Iounit }}
	fUname   = field[Fcall]{"uname", func(f *Fcall) any { return &f.Uname }}
	fAname   = field[Fcall]{"aname", func(f *Fcall) any { return &f.Aname }}
	fUID     = field[Fcall]{"uid", func(f *Fcall) any { return &f.UID }}
	fGID     = field[Fcall]{"gid", func(f *Fcall) any { return &f.GID }}
	fName    = field[Fcall]{"name", func(f *Fcall) any { return &f.Name }}
	fNewname = field[Fcall]{"newname", func(f *Fcall) any { return &f.Newname }}
	fPerm    = field[Fcall]{"perm", func(f *Fcall) any { return &f.Perm }}
	fMode    = field[Fcall]{"mode", func(f *Fcall) any { return &f.Mode }}
	fFlags   = field[Fcall]{"flags", func(f *Fcall) any { return &f.Flags }}
	fExt     = field[Fcall]{"ext", func(f *Fcall) any { return &f.Ext }}
	fOffset  = field[Fcall]{"offset", func(f *Fcall) any { return &f.Offset }}
	fCount   = field[Fcall]{"count", func(f *Fcall) any { return &f.Count }}
	fData    = field[Fcall]{"data", func(f *Fcall) any { return &f.Data }}
	fStat    = field[Fcall]{"stat", func(f *Fcall) any { return &f.Stat }}
	fMask    = field[Fcall]{"mask", func(f *Fcall) any { return &f.Mask }}
	fValid   = field[Fcall]{"valid", func(f *Fcall) any { return &f.Valid }}
	fMajor   = field[Fcall]{"major", func(f *Fcall) any { return &f.Major }}
	fMinor   = field[Fcall]{"minor", func(f *Fcall) any { return &f.Minor }}
	fSize    = field[Fcall]{"size", func(f *Fcall) any { return &f.Size }}
	fStatus  = field[Fcall]{"status", func(f *Fcall) any { return &f.Status }}
	fTarget  = field[Fcall]{"target", func(f *Fcall) any { return &f.Newname }}

	fAttrMode  = field[Fcall]{"mode", func(f *Fcall) any { return &f.Attr.Mode }}
	fAttrUID   = field[Fcall]{"uid", func(f *Fcall) any { return &f.Attr.UID }}
	fAttrGID   = field[Fcall]{"gid", func(f *Fcall) any { return &f.Attr.GID }}
	fAttrSize  = field[Fcall]{"size", func(f *Fcall) any { return &f.Attr.Size }}
	fAtimeSec  = field[Fcall]{"atime", func(f *Fcall) any { return &f.Attr.AtimeSec }}
	fAtimeNsec = field[Fcall]{"atimensec", func(f *Fcall) any { return &f.Attr.AtimeNsec }}
	fMtimeSec  = field[Fcall]{"mtime", func(f *Fcall) any { return &f.Attr.MtimeSec }}
	fMtimeNsec = field[Fcall]{"mtimensec", func(f *Fcall) any { return &f.Attr.MtimeNsec }}

	fLockType   = field[Fcall]{"type", func(f *Fcall) any { return &f.Lock.Type }}
	fLockStart  = field[Fcall]{"start", func(f *Fcall) any { return &f.Lock.Start }}
	fLockLength = field[Fcall]{"length", func(f *Fcall) any { return &f.Lock.Length }}
	fLockProc   = field[Fcall]{"proc", func(f *Fcall) any { return &f.Lock.Proc }}
	fLockClient = field[Fcall]{"client", func(f *Fcall) any { return &f.Lock.Client }}
)

// shared holds the messages that are the same in every dialect.
var shared = [maxType]layout{
	Tversion: {name: "Tversion", fields: fields{fMsize, fVersion}},
	Rversion: {name: "Rversion", fields: fields{fMsize, fVersion}},
	Rauth:    {name: "Rauth", fields: fields{fQid}},
	Rattach:  {name: "Rattach", fields: fields{fQid}},
	Tflush:   {name: "Tflush", fields: fields{fOldtag}},
	Rflush:   {name: "Rflush"},
	Twalk:    {name: "Twalk", fields: fields{fFid, fNewfid, fNames}},
	Rwalk:    {name: "Rwalk", fields: fields{fQids}},
	Tread:    {name: "Tread", fields: fields{fFid, fOffset, fCount}},
	Rread:    {name: "Rread", fields: fields{fData}},
	Twrite:   {name: "Twrite", fields: fields{fFid, fOffset, fData}},
	Rwrite:   {name: "Rwrite", fields: fields{fCount}},
	Tclunk:   {name: "Tclunk", fields: fields{fFid}},
	Rclunk:   {name: "Rclunk"},
	Tremove:  {name: "Tremove", fields: fields{fFid}},
	Rremove:  {name: "Rremove"},
}

// dialects holds what each dialect adds.
var dialects = [...][maxType]layout{
	Classic: {
		Tauth:   {name: "Tauth", fields: fields{fAfid, fUname, fAname}},
		Tattach: {name: "Tattach", fields: fields{fFid, fAfid, fUname, fAname}},
		Rerror:  {name: "Rerror", fields: fields{fEname}},
		Topen:   {name: "Topen", fields: fields{fFid, fMode}},
		Ropen:   {name: "Ropen", fields: fields{fQid, fIounit}},
		Tcreate: {name: "Tcreate", fields: fields{fFid, fName, fPerm, fMode}},
		Rcreate: {name: "Rcreate", fields: fields{fQid, fIounit}},
		Tstat:   {name: "Tstat", fields: fields{fFid}},
		Rstat:   {name: "Rstat", fields: fields{fStat}},
		Twstat:  {name: "Twstat", fields: fields{fFid, fStat}},
		Rwstat:  {name: "Rwstat"},
	},
	Unix: {
		Tauth:   {name: "Tauth", fields: fields{fAfid, fUname, fAname, fUID}},
		Tattach: {name: "Tattach", fields: fields{fFid, fAfid, fUname, fAname, fUID}},
		Rerror:  {name: "Rerror", fields: fields{fEname, fErrno}},
		Topen:   {name: "Topen", fields: fields{fFid, fMode}},
		Ropen:   {name: "Ropen", fields: fields{fQid, fIounit}},
		Tcreate: {name: "Tcreate", fields: fields{fFid, fName, fPerm, fMode, fExt}},
		Rcreate: {name: "Rcreate", fields: fields{fQid, fIounit}},
		Tstat:   {name: "Tstat", fields: fields{fFid}},
		Rstat:   {name: "Rstat", fields: fields{fStat}},
		Twstat:  {name: "Twstat", fields: fields{fFid, fStat}},
		Rwstat:  {name: "Rwstat"},
	},
	Linux: {
		Rlerror:   {name: "Rlerror", fields: fields{fErrno}},
		Tauth:     {name: "Tauth", fields: fields{fAfid, fUname, fAname, fUID}},
		Tattach:   {name: "Tattach", fields: fields{fFid, fAfid, fUname, fAname, fUID}},
		Tstatfs:   {name: "Tstatfs", fields: fields{fFid}},
		Rstatfs:   {name: "Rstatfs", fields: statFSFields},
		Tlopen:    {name: "Tlopen", fields: fields{fFid, fFlags}},
		Rlopen:    {name: "Rlopen", fields: fields{fQid, fIounit}},
		Tlcreate:  {name: "Tlcreate", fields: fields{fFid, fName, fFlags, fPerm, fGID}},
		Rlcreate:  {name: "Rlcreate", fields: fields{fQid, fIounit}},
		Tsymlink:  {name: "Tsymlink", fields: fields{fFid, fName, fTarget, fGID}},
		Rsymlink:  {name: "Rsymlink", fields: fields{fQid}},
		Tmknod:    {name: "Tmknod", fields: fields{fFid, fName, fPerm, fMajor, fMinor, fGID}},
		Rmknod:    {name: "Rmknod", fields: fields{fQid}},
		Trename:   {name: "Trename", fields: fields{fFid, fNewfid, fName}},
		Rrename:   {name: "Rrename"},
		Treadlink: {name: "Treadlink", fields: fields{fFid}},
		Rreadlink: {name: "Rreadlink", fields: fields{fTarget}},
		Tgetattr:  {name: "Tgetattr", fields: fields{fFid, fMask}},
		Rgetattr: {name: "Rgetattr", fields: fields{
			fMask, fQid, fAttrMode, fAttrUID, fAttrGID,
			{"nlink", func(f *Fcall) any { return &f.Attr.Nlink }},
			{"rdev", func(f *Fcall) any { return &f.Attr.Rdev }},
			fAttrSize,
			{"blksize", func(f *Fcall) any { return &f.Attr.Blksize }},
			{"blocks", func(f *Fcall) any { return &f.Attr.Blocks }},
			fAtimeSec, fAtimeNsec, fMtimeSec, fMtimeNsec,
			{"ctime", func(f *Fcall) any { return &f.Attr.CtimeSec }},
			{"ctimensec", func(f *Fcall) any { return &f.Attr.CtimeNsec }},
			{"btime", func(f *Fcall) any { return &f.Attr.BtimeSec }},
			{"btimensec", func(f *Fcall) any { return &f.Attr.BtimeNsec }},
			{"gen", func(f *Fcall) any { return &f.Attr.Gen }},
			{"dataversion", func(f *Fcall) any { return &f.Attr.DataVersion }},
		}},
		Tsetattr: {name: "Tsetattr", fields: fields{
			fFid, fValid, fAttrMode, fAttrUID, fAttrGID, fAttrSize,
			fAtimeSec, fAtimeNsec, fMtimeSec, fMtimeNsec,
		}},
		Rsetattr:     {name: "Rsetattr"},
		Txattrwalk:   {name: "Txattrwalk", fields: fields{fFid, fNewfid, fName}},
		Rxattrwalk:   {name: "Rxattrwalk", fields: fields{fSize}},
		Txattrcreate: {name: "Txattrcreate", fields: fields{fFid, fName, fSize, fFlags}},
		Rxattrcreate: {name: "Rxattrcreate"},
		Treaddir:     {name: "Treaddir", fields: fields{fFid, fOffset, fCount}},
		Rreaddir:     {name: "Rreaddir", fields: fields{fData}},
		// The kernel sends fsync's datasync, other clients do not.
		Tfsync:    {name: "Tfsync", fields: fields{fFid, fFlags}, optional: true},
		Rfsync:    {name: "Rfsync"},
		Tlock:     {name: "Tlock", fields: fields{fFid, fLockType, fFlags, fLockStart, fLockLength, fLockProc, fLockClient}},
		Rlock:     {name: "Rlock", fields: fields{fStatus}},
		Tgetlock:  {name: "Tgetlock", fields: fields{fFid, fLockType, fLockStart, fLockLength, fLockProc, fLockClient}},
		Rgetlock:  {name: "Rgetlock", fields: fields{fLockType, fLockStart, fLockLength, fLockProc, fLockClient}},
		Tlink:     {name: "Tlink", fields: fields{fNewfid, fFid, fName}},
		Rlink:     {name: "Rlink"},
		Tmkdir:    {name: "Tmkdir", fields: fields{fFid, fName, fPerm, fGID}},
		Rmkdir:    {name: "Rmkdir", fields: fields{fQid}},
		Trenameat: {name: "Trenameat", fields: fields{fFid, fName, fNewfid, fNewname}},
		Rrenameat: {name: "Rrenameat"},
		Tunlinkat: {name: "Tunlinkat", fields: fields{fFid, fName, fFlags}},
		Runlinkat: {name: "Runlinkat"},
	},
}

var statFSFields = fields{
	{"type", func(f *Fcall) any { return &f.StatFS.Type }},
	{"bsize", func(f *Fcall) any { return &f.StatFS.BlockSize }},
	{"blocks", func(f *Fcall) any { return &f.StatFS.Blocks }},
	{"bfree", func(f *Fcall) any { return &f.StatFS.Free }},
	{"bavail", func(f *Fcall) any { return &f.StatFS.Available }},
	{"files", func(f *Fcall) any { return &f.StatFS.Files }},
	{"ffree", func(f *Fcall) any { return &f.StatFS.FilesFree }},
	{"fsid", func(f *Fcall) any { return &f.StatFS.FSID }},
	{"namelen", func(f *Fcall) any { return &f.StatFS.NameLen }},
}

// statFields is the stat of 9P2000.u; the other dialects leave out the last
// statUnixFields.
var statFields = []field[Stat]{
	{"type", func(s *Stat) any { return &s.Type }},
	{"dev", func(s *Stat) any { return &s.Dev }},
	{"qid", func(s *Stat) any { return &s.Qid }},
	{"mode", func(s *Stat) any { return &s.Mode }},
	{"atime", func(s *Stat) any { return &s.Atime }},
	{"mtime", func(s *Stat) any { return &s.Mtime }},
	{"length", func(s *Stat) any { return &s.Length }},
	{"name", func(s *Stat) any { return &s.Name }},
	{"uid", func(s *Stat) any { return &s.UID }},
	{"gid", func(s *Stat) any { return &s.GID }},
	{"muid", func(s *Stat) any { return &s.Muid }},
	{"ext", func(s *Stat) any { return &s.Ext }},
	{"nuid", func(s *Stat) any { return &s.NUID }},
	{"ngid", func(s *Stat) any { return &s.NGID }},
	{"nmuid", func(s *Stat) any { return &s.NMuid }},
}

const statUnixFields = 4

func (d Dialect) statFields() []field[Stat] {
	if d == Unix {
		return statFields
	}
	return statFields[:len(statFields)-statUnixFields]
}

// layout returns how the dialect lays out messages of type t, or nil.
func (d Dialect) layout(t Type) *layout {
	if t >= maxType {
		return nil
	}
	if l := &dialects[d][t]; l.name != "" {
		return l
	}
	if l := &shared[t]; l.name != "" {
		return l
	}
	return nil
}
