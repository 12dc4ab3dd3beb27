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
// is found after a crash.
type Machine struct {
	mu    sync.Mutex // guards the fields below and all of the disks' fields
	disks []*Sim
	count [3]int64 // operations so far, by kind
	hook  func(Op) error
	cut   bool
}

// NewMachine returns a machine with no disks and its power on.
func NewMachine() *Machine { return new(Machine) }

// A Sim is a simulated disk, a File.
type Sim struct {
	m    *Machine
	name string

	image  []byte             // what a read finds
	past   map[int64][][]byte // what unsynced sectors held: first at the last sync, then after each write but the last
	runs   []run              // unsynced writes, oldest first
	broken sticky
}

// A run is the sectors [lo, hi) of one write.
type run struct{ lo, hi int64 }

// NewDisk adds a disk of zeros to the machine. Names are unique.
func (m *Machine) NewDisk(name string, size int64) *Sim {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := &Sim{m: m, name: name, image: make([]byte, size), past: map[int64][][]byte{}}
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

// CutPower makes every later operation fail with ErrPowerCut.
func (m *Machine) CutPower() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = true
}

// Crash returns a new machine, as this one could be found after its power
// was cut now: of each write that no sync covered, each sector is kept or
// lost, in any order. The choice is rng's alone; some crashes keep
// everything, some nothing, some a prefix of each write. m is left as it is.
func (m *Machine) Crash(rng *rand.Rand) *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := NewMachine()
	policy := rng.IntN(5)
	for _, d := range m.disks {
		nd := after.NewDisk(d.name, int64(len(d.image)))
		copy(nd.image, d.image)
		d.crash(nd.image, policy, rng)
	}
	return after
}

// crash turns image, a copy of what reads found, into what the crash left.
func (d *Sim) crash(image []byte, policy int, rng *rand.Rand) {
	if policy == 0 {
		return // everything was kept
	}
	// version tells which content each sector ends with: an index into its
	// history, where the last is what image holds.
	version := make(map[int64]int, len(d.past))
	written := make(map[int64]int, len(d.past))
	for _, r := range d.runs {
		torn := r.lo + rng.Int64N(r.hi-r.lo+1) // sectors from here on were not written
		for s := r.lo; s < r.hi; s++ {
			written[s]++
			var kept bool
			switch policy {
			case 1: // nothing
			case 2: // a prefix
				kept = s < torn
			case 3: // any half
				kept = rng.IntN(2) == 0
			case 4: // most
				kept = rng.IntN(10) != 0
			}
			// Writes of one sector may also change places.
			if kept && (version[s] == 0 || rng.IntN(4) != 0) {
				version[s] = written[s]
			}
		}
	}
	for s, past := range d.past {
		if v := version[s]; v < len(past) {
			copy(image[s*sectorSize:], past[v])
		}
	}
}

// begin counts an operation, and tells how it fails. d.m.mu must be held.
func (d *Sim) begin(k OpKind, off int64, n int) error {
	op := Op{d.m.count[k], d.name, k, off, n}
	d.m.count[k]++
	if d.m.cut {
		return ErrPowerCut
	}
	if d.m.hook == nil {
		return nil
	}
	err := d.m.hook(op)
	if err == ErrPowerCut {
		d.m.cut = true
	}
	return err
}

// Name returns the name given to NewDisk.
func (d *Sim) Name() string { return d.name }

// Size returns the disk's size in bytes.
func (d *Sim) Size() int64 { return int64(len(d.image)) }

// ReadAt implements io.ReaderAt.
func (d *Sim) ReadAt(b []byte, off int64) (int, error) {
	if err := checkRange(d.name, "read", off, len(b), d.Size()); err != nil {
		return 0, err
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if err := d.begin(OpRead, off, len(b)); err != nil {
		return 0, fmt.Errorf("%s: read of %d bytes at %d: %w", d.name, len(b), off, err)
	}
	return copy(b, d.image[off:]), nil
}

// WriteAt implements io.WriterAt.
func (d *Sim) WriteAt(b []byte, off int64) (int, error) {
	if err := checkRange(d.name, "write", off, len(b), d.Size()); err != nil {
		return 0, err
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if err := d.broken.err(); err != nil {
		return 0, err
	}
	wasCut := d.m.cut
	err := d.begin(OpWrite, off, len(b))
	if !wasCut && len(b) > 0 {
		// A write that fails is also remembered as unsynced, so that a crash
		// keeps any part of it.
		r := run{off / sectorSize, (off+int64(len(b))-1)/sectorSize + 1}
		for s := r.lo; s < r.hi; s++ {
			at := s * sectorSize
			d.past[s] = append(d.past[s], slices.Clone(d.image[at:min(at+sectorSize, d.Size())]))
		}
		d.runs = append(d.runs, r)
		copy(d.image[off:], b)
	}
	if err != nil {
		return 0, d.broken.fail(fmt.Errorf("%s: write of %d bytes at %d: %w", d.name, len(b), off, err))
	}
	return len(b), nil
}

// Sync makes what was written durable.
func (d *Sim) Sync() error {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if err := d.broken.err(); err != nil {
		return err
	}
	if err := d.begin(OpSync, 0, 0); err != nil {
		return d.broken.fail(fmt.Errorf("%s: sync: %w", d.name, err))
	}
	clear(d.past)
	d.runs = d.runs[:0]
	return nil
}
