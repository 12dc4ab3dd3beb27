package meta

// Mode is what kind of file it is and who may do what with it.
type Mode uint32

// The bits of a Mode. Those of permission are the lowest nine, as in Unix.
const (
	ModePerm Mode = 0o777

	ModeSticky    Mode = 1 << 9
	ModeSetuid    Mode = 1 << 10
	ModeSetgid    Mode = 1 << 11
	ModeAppend    Mode = 1 << 12 // append only
	ModeExclusive Mode = 1 << 13 // one user at a time
	ModeLink      Mode = 1 << 14 // symbolic link; its contents are the target
	ModeDir       Mode = 1 << 15
	ModeHidden    Mode = 1 << 16 // this and the next three are MS-DOS's
	ModeSystem    Mode = 1 << 17
	ModeArchive   Mode = 1 << 18
	ModeTemporary Mode = 1 << 19
	ModeSnapshot  Mode = 1 << 20 // root of a snapshot
	ModeDevice    Mode = 1 << 21 // its contents are "c major minor" or "b major minor"
	ModePipe      Mode = 1 << 22 // named pipe
)

// IsDir tells whether m is a directory's.
func (m Mode) IsDir() bool { return m&ModeDir != 0 }

// IsRegular tells whether m is that of a file with contents of its own, not
// those of a directory, link, device or pipe.
func (m Mode) IsRegular() bool { return m&(ModeDir|ModeLink|ModeDevice|ModePipe) == 0 }

// String returns m as unvac -tv shows it: two letters for the kind of file,
// then permissions as ls(1) writes them.
func (m Mode) String() string {
	b := []byte("--rwxrwxrwx")
	switch {
	case m&ModeDir != 0:
		b[0] = 'd'
	case m&ModeAppend != 0:
		b[0] = 'a'
	case m&ModeDevice != 0:
		b[0] = 'D'
	case m&ModePipe != 0:
		b[0] = 'P'
	}
	switch {
	case m&ModeLink != 0:
		b[1] = 'L'
	case m&ModeExclusive != 0:
		b[1] = 'l'
	}
	for i := range 9 {
		if m>>(8-i)&1 == 0 {
			b[2+i] = '-'
		}
	}
	for _, s := range []struct {
		bit Mode
		at  int
		set byte
	}{{ModeSetuid, 4, 's'}, {ModeSetgid, 7, 's'}, {ModeSticky, 10, 't'}} {
		if m&s.bit == 0 {
			continue
		}
		if b[s.at] == '-' {
			s.set -= 'a' - 'A'
		}
		b[s.at] = s.set
	}
	return string(b)
}
