package format

import (
	"encoding/binary"
	"fmt"
)

// LabelSize is the length of a packed Label.
const LabelSize = 14

// A State is a set of bits, Free or Bad.
type State uint8

// The states of a block. In use it is Alloc and maybe others.
const (
	Free   State = 0
	Bad    State = 0xff // never to be used
	Alloc  State = 1 << 0
	Copied State = 1 << 1 // a copy exists, so that its pointers are not unique to it
	Venti  State = 1 << 2 // its contents are on Venti
	Closed State = 1 << 3 // the active tree no longer links to it

	stateMask = Alloc | Copied | Venti | Closed
)

// A Type says what a block is: its level in the tree, 0 for leaves, and
// whether the tree is one of entries. It has the values of a venti.Type.
type Type uint8

// The types of leaves. Pointer blocks are these plus their level.
const (
	Data Type = 0
	Dir  Type = 8

	// maxType is found in labels that were freed by hand.
	maxType Type = 16
)

// Level returns how far above the leaves a block is.
func (t Type) Level() int { return int(t & 7) }

// Tags with a meaning. Others belong to one stream each.
const (
	RootTag uint32 = 1  // root blocks
	UserTag uint32 = 32 // the first of those that streams get
)

// Open is the EpochClose of a block that is not closed.
const Open = ^uint32(0)

// A Label says what a data block is used for.
//
// A packed label is
//
//	state[1] type[1] epoch[4] epochClose[4] tag[4]
type Label struct {
	State      State
	Type       Type
	Epoch      uint32 // in which it was allocated
	EpochClose uint32 // in which it was closed, or Open
	Tag        uint32
}

// Reserved is the label of a block that Plan 9's programs keep away from: its
// allocator never takes it, its check neither calls it free nor lost.
var Reserved = Label{State: Bad, EpochClose: Open}

// Freed is the label of a block that was freed by hand.
var Freed = Label{Type: maxType}

// Free tells whether a block can be allocated when snapshots before epochLow
// are dead.
func (l *Label) Free(epochLow uint32) bool {
	switch {
	case l.State == Free:
		return true
	case l.State == Bad || l.State&Closed == 0:
		return false
	}
	return l.EpochClose <= epochLow || l.EpochClose == l.Epoch
}

// InUse tells whether the label describes a block that is or was part of a
// tree.
func (l *Label) InUse() bool { return l.State != Free && l.State != Bad }

// Pack writes the LabelSize bytes of l to the start of b.
func (l *Label) Pack(b []byte) {
	b[0], b[1] = byte(l.State), byte(l.Type)
	binary.BigEndian.PutUint32(b[2:], l.Epoch)
	binary.BigEndian.PutUint32(b[6:], l.EpochClose)
	binary.BigEndian.PutUint32(b[10:LabelSize], l.Tag)
}

// UnpackLabel reads the label at the start of b, which has LabelSize bytes.
// Errors wrap ErrLabel.
func UnpackLabel(b []byte) (Label, error) {
	be := binary.BigEndian
	l := Label{State(b[0]), Type(b[1]), be.Uint32(b[2:]), be.Uint32(b[6:]), be.Uint32(b[10:LabelSize])}
	if l.Type > maxType {
		return l, fmt.Errorf("%w: type %d", ErrLabel, l.Type)
	}
	if !l.InUse() {
		return l, nil
	}
	closed := l.State&Closed != 0
	if l.State&Alloc == 0 || l.State&^stateMask != 0 || closed != (l.EpochClose != Open) {
		return l, fmt.Errorf("%w: state %#02x, closed in epoch %d", ErrLabel, uint8(l.State), l.EpochClose)
	}
	return l, nil
}

// String returns such as "alloc,copied data+1 epoch 3 tag 0x1234".
func (l Label) String() string {
	s := ""
	switch l.State {
	case Free:
		return "free"
	case Bad:
		s = "bad"
	default:
		s = "alloc"
		for _, n := range []struct {
			State
			name string
		}{{Copied, ",copied"}, {Venti, ",venti"}, {Closed, ",closed"}} {
			if l.State&n.State != 0 {
				s += n.name
			}
		}
	}
	s = fmt.Sprintf("%s %v epoch %d", s, l.Type, l.Epoch)
	if l.EpochClose != Open {
		s += fmt.Sprintf("..%d", l.EpochClose)
	}
	return fmt.Sprintf("%s tag %#x", s, l.Tag)
}

// String returns a word such as "data", "data+2" or "dir".
func (t Type) String() string {
	s := "data"
	if t >= Dir {
		s = "dir"
	}
	if n := t.Level(); n > 0 {
		return fmt.Sprintf("%s+%d", s, n)
	}
	return s
}
