package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
)

// ErrPowerCut is what every operation on a machine's disks returns once its
// power is cut.
var ErrPowerCut = errors.New("power cut")

// An OpKind tells reads, writes and syncs apart.
type OpKind int

// The kinds of operations on a simulated disk.
const (
	OpRead OpKind = iota
	OpWrite
	OpSync
)

// String returns "read", "write" or "sync".
func (k OpKind) String() string { return [...]string{"read", "write", "sync"}[k] }

// An Op is one operation on one disk of a machine.
type Op struct {
	N    int64  // how many operations of this kind the machine had before
	Disk string // the name of the disk
	Kind OpKind
	Off  int64
	Len  int
}

// A Machine is a set of simulated disks that share one power supply and one
// count of operations, so that a power cut strikes all at one moment. Its
// methods and its disks may be used from several goroutines.
//
// The model is a disk with a volatile cache and sectors that are written
// whole: until a sync, each write leaves a version of every sector that it
// touches, and any of them, or what was there at the last sync, may be what
// is found after a crash. What a failed sync should have made durable is like
// that for good, as with a kernel that takes its pages for clean: reads find
// it, but no later sync covers it unless the sector is written again.
type Machine struct {
	mu     sync.Mutex // guards the fields below and all of the disks' fields
	disks  []*Sim
	count  [3]int64 // operations so far, by kind
	hook   func(Op) error
	record func(Op, *Snapshot)
	cut    bool
}

// NewMachine returns a machine with no disks and its power on.
func NewMachine() *Machine { return new(Machine) }

// A Sim is a simulated disk, a File.
type Sim struct {
	m      *Machine
	broken sticky
	found  pages // what a read finds: what is synced, and on top of it all writes
	state
}

// A state is what is durable of a disk, and what is not. Copies of it share
// pages and writes, which do not change.
type state struct {
	name   string
	size   int64
	synced pages   // as of the last sync
	writes []write // that no sync has covered, oldest first
}

// A write is one whose bytes are not durable.
type write struct {
	off  int64
	data []byte
	lost bool // the sync that should have covered it failed; then it is of one sector
}

// sectors returns the range [lo, hi) of sectors that w touches.
func (w *write) sectors() (lo, hi int64) {
	return w.off / sectorSize, (w.off+int64(len(w.data))-1)/sectorSize + 1
}

// sector returns the part of w that is in one of its sectors.
func (w *write) sector(s int64) write {
	lo := max(w.off, s*sectorSize)
	hi := min(w.off+int64(len(w.data)), (s+1)*sectorSize)
	return write{lo, w.data[lo-w.off : hi-w.off], w.lost}
}

// pages are the contents of a disk, pageSize bytes each. nil is zeros. What
// they point to does not change.
type pages []*[pageSize]byte

const pageSize = 4 << 10

// read fills b from off.
func (p pages) read(b []byte, off int64) {
	for len(b) > 0 {
		skip := int(off % pageSize)
		n := min(len(b), pageSize-skip)
		if page := p[off/pageSize]; page == nil {
			clear(b[:n])
		} else {
			copy(b[:n], page[skip:])
		}
		b, off = b[n:], off+int64(n)
	}
}

// write makes new pages of those that b, at off, touches.
func (p pages) write(b []byte, off int64) {
	for len(b) > 0 {
		page := new([pageSize]byte)
		if old := p[off/pageSize]; old != nil {
			*page = *old
		}
		n := copy(page[off%pageSize:], b)
		p[off/pageSize] = page
		b, off = b[n:], off+int64(n)
	}
}

// NewDisk adds a disk of zeros to the machine. Names are unique.
func (m *Machine) NewDisk(name string, size int64) *Sim {
	return m.add(state{name: name, size: size, synced: make(pages, (size+pageSize-1)/pageSize)})
}

// add adds a disk that holds st.
func (m *Machine) add(st state) *Sim {
	d := &Sim{m: m, state: st, found: slices.Clone(st.synced)}
	for _, w := range st.writes {
		d.found.write(w.data, w.off)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disks = append(m.disks, d)
	return d
}

// Disk returns the disk called name, nil if there is none.
func (m *Machine) Disk(name string) *Sim {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.disks {
		if d.name == name {
			return d
		}
	}
	return nil
}

// Count returns how many operations of a kind there have been, failed ones
// too.
func (m *Machine) Count(k OpKind) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count[k]
}

// SetHook has f called before every operation, one at a time; nil for none.
// An error from f fails the operation, with that error; ErrPowerCut cuts the
// power, so that all later ones fail too. A write that fails may have written
// any of its sectors. f must not use the machine.
func (m *Machine) SetHook(f func(Op) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = f
}

// Record has f called after every write and sync that did not fail, one at a
// time, with what the machine then holds; nil for none. f must not use the
// machine.
func (m *Machine) Record(f func(Op, *Snapshot)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.record = f
}

// CutPower makes every later operation fail with ErrPowerCut.
func (m *Machine) CutPower() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = true
}

// A Snapshot is what a machine's disks hold at one moment, durable or not. It
// costs little, and does not change.
type Snapshot struct{ disks []state }

// Snapshot returns what the machine holds.
func (m *Machine) Snapshot() *Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshotLocked()
}

func (m *Machine) snapshotLocked() *Snapshot {
	s := &Snapshot{disks: make([]state, len(m.disks))}
	for i, d := range m.disks {
		s.disks[i] = d.state
		s.disks[i].writes = slices.Clip(d.writes)
	}
	return s
}

// Crash is Snapshot().Crash(rng). m is left as it is.
func (m *Machine) Crash(rng *rand.Rand) *Machine { return m.Snapshot().Crash(rng) }

// Crash returns a new machine, as it could be found if the power had been cut
// at the moment of the snapshot: of each write that no sync covered, each
// sector is kept or lost, in any order. The choice is rng's alone; some
// crashes keep everything, some nothing, some a prefix of each write.
func (s *Snapshot) Crash(rng *rand.Rand) *Machine {
	after := NewMachine()
	policy := rng.IntN(5)
	for i := range s.disks {
		st := &s.disks[i]
		after.add(state{name: st.name, size: st.size, synced: st.crash(policy, rng)})
	}
	return after
}

// Restart returns a new machine that holds the same: what is left when the
// programs of the old one were killed and its power stayed on. No disk of it
// has failed yet.
func (s *Snapshot) Restart() *Machine {
	after := NewMachine()
	for _, st := range s.disks {
		after.add(st)
	}
	return after
}

// crash returns what a power cut leaves.
func (st *state) crash(policy int, rng *rand.Rand) pages {
	left := slices.Clone(st.synced)
	// version tells which content each sector ends with: that after so many of
	// its writes.
	version := make(map[int64]int)
	written := make(map[int64]int)
	for i := range st.writes {
		w := &st.writes[i]
		lo, hi := w.sectors()
		torn := lo + rng.Int64N(hi-lo+1) // sectors from here on were not written
		for s := lo; s < hi; s++ {
			written[s]++
			var kept bool
			switch policy {
			case 0: // everything
				kept = true
			case 1: // nothing
			case 2: // a prefix
				kept = s < torn
			case 3: // any half
				kept = rng.IntN(2) == 0
			case 4: // most
				kept = rng.IntN(10) != 0
			}
			// Writes of one sector may also change places.
			if kept && (policy == 0 || version[s] == 0 || rng.IntN(4) != 0) {
				version[s] = written[s]
			}
		}
	}
	clear(written)
	for i := range st.writes {
		w := &st.writes[i]
		lo, hi := w.sectors()
		for s := lo; s < hi; s++ {
			if written[s]++; written[s] <= version[s] {
				p := w.sector(s)
				left.write(p.data, p.off)
			}
		}
	}
	return left
}

// begin counts an operation, and tells how it fails. d.m.mu must be held.
func (d *Sim) begin(k OpKind, off int64, n int) (Op, error) {
	op := Op{d.m.count[k], d.name, k, off, n}
	d.m.count[k]++
	if d.m.cut {
		return op, ErrPowerCut
	}
	if d.m.hook == nil {
		return op, nil
	}
	err := d.m.hook(op)
	if err == ErrPowerCut {
		d.m.cut = true
	}
	return op, err
}

// Name returns the name given to NewDisk.
func (d *Sim) Name() string { return d.name }

// Size returns the disk's size in bytes.
func (d *Sim) Size() int64 { return d.size }

// ReadAt implements io.ReaderAt.
func (d *Sim) ReadAt(b []byte, off int64) (int, error) {
	if err := checkRange(d.name, "read", off, len(b), d.size); err != nil {
		return 0, err
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if _, err := d.begin(OpRead, off, len(b)); err != nil {
		return 0, fmt.Errorf("%s: read of %d bytes at %d: %w", d.name, len(b), off, err)
	}
	d.found.read(b, off)
	return len(b), nil
}

// WriteAt implements io.WriterAt.
func (d *Sim) WriteAt(b []byte, off int64) (int, error) {
	if err := checkRange(d.name, "write", off, len(b), d.size); err != nil {
		return 0, err
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if err := d.broken.err(); err != nil {
		return 0, err
	}
	wasCut := d.m.cut
	op, err := d.begin(OpWrite, off, len(b))
	if !wasCut && len(b) > 0 {
		// A write that fails is also remembered as unsynced, so that a crash
		// keeps any part of it.
		w := write{off: off, data: slices.Clone(b)}
		d.writes = append(d.writes, w)
		d.found.write(w.data, w.off)
	}
	if err != nil {
		return 0, d.broken.failWrite(fmt.Errorf("%s: write of %d bytes at %d: %w", d.name, len(b), off, err))
	}
	d.recordLocked(op)
	return len(b), nil
}

// Sync makes what was written durable.
func (d *Sim) Sync() error {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if err := d.broken.err(); err != nil {
		return err
	}
	op, err := d.begin(OpSync, 0, 0)
	if err != nil {
		if err != ErrPowerCut {
			d.loseLocked()
		}
		return d.broken.failSync(d.name, err)
	}
	d.settleLocked()
	d.recordLocked(op)
	return nil
}

// settleLocked makes durable all that was not lost before.
func (d *Sim) settleLocked() {
	switch {
	case len(d.writes) == 0:
	case !d.writes[0].lost:
		d.synced, d.writes = slices.Clone(d.found), nil
	default: // what is lost comes first
		d.synced = slices.Clone(d.synced)
		durable := make(map[int64]bool)
		for i := range d.writes {
			lo, hi := d.writes[i].sectors()
			for s := lo; s < hi && !d.writes[i].lost; s++ {
				b := make([]byte, min(sectorSize, d.size-s*sectorSize))
				d.found.read(b, s*sectorSize)
				d.synced.write(b, s*sectorSize)
				durable[s] = true
			}
		}
		var lost []write
		for _, w := range d.writes {
			if w.lost && !durable[w.off/sectorSize] {
				lost = append(lost, w)
			}
		}
		d.writes = lost
	}
}

// loseLocked makes all that is not durable stay so.
func (d *Sim) loseLocked() {
	var lost []write
	for i := range d.writes {
		lo, hi := d.writes[i].sectors()
		for s := lo; s < hi; s++ {
			w := d.writes[i].sector(s)
			w.lost = true
			lost = append(lost, w)
		}
	}
	d.writes = lost
}

func (d *Sim) recordLocked(op Op) {
	if d.m.record != nil {
		d.m.record(op, d.m.snapshotLocked())
	}
}
