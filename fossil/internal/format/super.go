package format

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"strata/venti"
)

// SuperSize is how much of the super block a rewrite replaces; the rest
// stays.
const SuperSize = 512

const (
	superMagic   = 0x2340a3b1
	superVersion = 1
	superName    = 128

	// superLogged is the version of a super block whose partition has a log
	// that must be replayed first. Plan 9's programs refuse it, so that they
	// neither show nor change what is not consistent without the log.
	superLogged = 0x8001
)

// A Super is the root of everything.
//
// A packed super block is
//
//	magic[4] version[2] epochLow[4] epochHigh[4] qid[8]
//	active[4] next[4] current[4] last[20] name[128]
//
// and zeros up to SuperSize. name is padded with NUL.
type Super struct {
	Logged    bool        // the log must be replayed
	EpochLow  uint32      // snapshots from this epoch on are kept
	EpochHigh uint32      // the epoch of the active tree
	QID       uint64      // the next qid path to hand out
	Active    uint32      // address of the active tree's root block
	Next      uint32      // of the root of the tree to archive next, or None
	Current   uint32      // of the root of the tree being archived, or None
	Last      venti.Score // of the root of the last archive, or EmptyScore
	Name      string      // at most 127 bytes
}

// Pack writes s to the SuperSize bytes at the start of b. It cuts a name that
// is too long.
func (s *Super) Pack(b []byte) {
	clear(b[:SuperSize])
	be := binary.BigEndian
	be.PutUint32(b, superMagic)
	be.PutUint16(b[4:], superVersion)
	if s.Logged {
		be.PutUint16(b[4:], superLogged)
	}
	be.PutUint32(b[6:], s.EpochLow)
	be.PutUint32(b[10:], s.EpochHigh)
	be.PutUint64(b[14:], s.QID)
	be.PutUint32(b[22:], s.Active)
	be.PutUint32(b[26:], s.Next)
	be.PutUint32(b[30:], s.Current)
	copy(b[34:54], s.Last[:])
	copy(b[54:54+superName-1], s.Name)
}

// UnpackSuper reads a super block. Errors wrap ErrSuper.
func UnpackSuper(b []byte) (Super, error) {
	if len(b) < SuperSize {
		return Super{}, fmt.Errorf("%w: %d bytes", ErrSuper, len(b))
	}
	be := binary.BigEndian
	version := be.Uint16(b[4:])
	if m := be.Uint32(b); m != superMagic {
		return Super{}, fmt.Errorf("%w: magic %08x, want %08x", ErrSuper, m, superMagic)
	}
	if version != superVersion && version != superLogged {
		return Super{}, fmt.Errorf("%w: version %d, want %d", ErrSuper, version, superVersion)
	}
	name, _, _ := bytes.Cut(b[54:54+superName-1], []byte{0})
	s := Super{
		Logged:    version == superLogged,
		EpochLow:  be.Uint32(b[6:]),
		EpochHigh: be.Uint32(b[10:]),
		QID:       be.Uint64(b[14:]),
		Active:    be.Uint32(b[22:]),
		Next:      be.Uint32(b[26:]),
		Current:   be.Uint32(b[30:]),
		Last:      venti.Score(b[34:54]),
		Name:      string(name),
	}
	if s.EpochLow == 0 || s.EpochLow > s.EpochHigh || s.QID == 0 {
		return Super{}, fmt.Errorf("%w: epochs %d to %d, qid %d", ErrSuper, s.EpochLow, s.EpochHigh, s.QID)
	}
	return s, nil
}
